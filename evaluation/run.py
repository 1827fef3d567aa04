"""`kdnas evaluate`: compare a student with its teacher, in hidden-state geometry and on fine-tuned tasks."""

import json
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.evaluation.evaluating import Evaluation
from kdnas.evaluation.hap import hap_digest, read_hap
from kdnas.evaluation.options import EvaluationOptions
from kdnas.evaluation.report import show
from kdnas.models.family import require_family, shape_of
from kdnas.models.folder import REQUIRED_FILES, model_digest, model_in
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.store.artifact import Artifact, build
from kdnas.store.json_files import to_json
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions


def evaluate(
    student: Path,
    options: EvaluationOptions = EvaluationOptions(),
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Compare a student with its teacher.

    Args:
        student: Hugging Face folder of the student, or a finished distill or refine artifact.
        options: options of the evaluation.
        teacher: `builtin:NAME` (`kdnas teachers` lists them), a folder, or a hub id.
        corpus: `builtin:pydocs`, a .jsonl, .parquet or .txt file, or a hub id.
        text: options for reading the corpus.
        home: root folder of all artifacts.
        output: folder to which the result is also copied as plain files; null writes only below `home`.
    """
    require_output(output, "evaluation")
    if options.hap is not None:
        read_hap(options.hap, options.seed, options.hap_examples)  # report a wrong file before hours of work
    model, digest = resolve_student(student)
    resolved = resolve_teacher(teacher, home)
    _check_student(model, resolved)
    artifact = run_evaluation(home, resolved, build_corpus(home, corpus, text, resolved), model, digest, options)
    show(artifact.results)
    return deliver(artifact, output)


def resolve_student(path: Path) -> tuple[Path, str]:
    """Folder and digest of a student.

    Args:
        path: a Hugging Face folder, or an artifact that has one in `student/`.

    Raises:
        UsageError: a file of the model is missing.
    """
    path = model_in(path)
    _require_files(path)
    return path, model_digest(path)


def _require_files(student: Path) -> None:
    for name in sorted(REQUIRED_FILES):
        if not (student / name).is_file():
            raise UsageError(
                f"student '{student}': {student / name} is missing; give a Hugging Face folder of an encoder, "
                "or what `kdnas distill` or `kdnas refine` printed"
            )


def run_evaluation(
    home: Path, teacher: Teacher, corpus: Corpus, student: Path, student_digest: str, options: EvaluationOptions
) -> Artifact:
    """Measure geometry, the topic task and, if requested, the HAP task. An interrupted run resumes after its last finished part.

    Args:
        home: root folder of all artifacts.
        teacher: the teacher; it is fine-tuned like the student, but its classifiers are not saved.
        corpus: source of the held-out sentences and topics.
        student: Hugging Face folder of the encoder.
        student_digest: digest of the student's files.
        options: options of the evaluation.

    Raises:
        UsageError: the HAP set or the student cannot be used.
    """
    hap = read_hap(options.hap, options.seed, options.hap_examples) if options.hap is not None else None
    label = _check_student(student, teacher)
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest, "student": student_digest}
    if options.hap is not None:
        inputs["hap"] = hap_digest(options.hap)
    # The result depends on the content of the HAP set, but not on its path.
    config = {name: value for name, value in to_json(options).items() if name != "hap"}
    evaluation = Evaluation(teacher.path, student, corpus, hap, options)
    return build(home, "evaluation", label, config, inputs, evaluation.work)


def _check_student(student: Path, teacher: Teacher) -> str:
    """Check that the student is an encoder with the teacher's vocabulary, and return its label."""
    _require_files(student)
    try:
        config = json.loads((student / "config.json").read_text())
    except ValueError as error:
        raise UsageError(f"student '{student}': config.json is not valid JSON ({error})") from error
    require_family(config.get("model_type"), f"student '{student}'")
    if _vocabulary(student) != _vocabulary(teacher.path):
        raise UsageError(
            f"student '{student}': its vocabulary differs from that of teacher '{teacher.spec}'; hidden states "
            "are compared token by token: give the teacher that it was distilled from"
        )
    return shape_of(config).name


def _vocabulary(model: Path) -> dict[str, int]:
    from tokenizers import Tokenizer

    return dict(Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab())
