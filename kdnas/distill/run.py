"""`kdnas distill` and `kdnas refine`."""

from pathlib import Path
from typing import Any

from kdnas.distill.building import build_stage, common_corpus, deciding, needed_bytes, require_possible, settled
from kdnas.distill.mapping import require_no_deeper
from kdnas.distill.options import DistillOptions, RefineOptions
from kdnas.distill.several import require_several, run_distill_several, students_of
from kdnas.distill.student_artifact import Student, build_student, checked, require_relations
from kdnas.distill.student_folder import find_student
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.pooling import pooling_of
from kdnas.models.teacher import Teacher, load_config, resolve_teacher
from kdnas.store.artifact import Artifact
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, deliver_all, require_output
from kdnas.text.corpus import Corpus
from kdnas.text.readers import TextOptions


def run_distill(
    home: Path, teacher: Teacher, corpus: Corpus, arch: Arch, options: DistillOptions, student: Student | None = None
) -> Artifact:
    """Distil the teacher's hidden states or embeddings into a new student, or continue with an existing one (Eq. 1 and 2).

    Args:
        home: root folder of all artifacts.
        teacher: the frozen teacher.
        corpus: sentences, tokenised for this teacher.
        arch: the student's architecture.
        options: training options.
        student: a student of this shape to continue with; None starts a new one.

    Returns:
        Artifact with `student/`, `history.jsonl` and, with hidden states, `projections.safetensors`.

    Raises:
        UsageError: the student is deeper than its teacher, the relation heads do not divide the widths, or the teacher pools
            neither by the mean nor by the first token, or its vectors are shorter than a width of `matryoshka`.
    """
    options = checked(options, arch, teacher, corpus)

    def work(folder: Path) -> dict[str, Any]:
        from kdnas.distill.stages import distill_into

        return distill_into(folder, home, teacher, corpus, arch, options, student[0] if student else None)

    return build_student(home, teacher, corpus, arch, options, work, student)


def run_refine(
    home: Path, teacher: Teacher, corpus: Corpus, student: Path, student_digest: str, options: RefineOptions
) -> Artifact:
    """Refine a student by MiniLM-v2 (Eq. 5 and 6).

    Args:
        home: root folder of all artifacts.
        teacher: the frozen teacher.
        corpus: sentences, tokenised for this teacher.
        student: Hugging Face folder of the student.
        student_digest: digest of the student's content.
        options: training options.

    Returns:
        Artifact with `student/` and `history.jsonl`.

    Raises:
        UsageError: the folder has no student, its vocabulary differs from the teacher's, or the relation heads do not divide
            the widths.
    """
    inputs, options = {"student": student_digest}, settled(options, corpus, teacher)
    return _refined(home, teacher, corpus, shape_of(student, teacher), options, deciding(options), inputs, student)


def run_refine_new(home: Path, teacher: Teacher, corpus: Corpus, arch: Arch, options: RefineOptions) -> Artifact:
    """Train a new student by MiniLM-v2 alone, without the distillation of hidden states before it (Table 9).

    Args:
        home: root folder of all artifacts.
        teacher: the frozen teacher.
        corpus: sentences, tokenised for this teacher.
        arch: the student's architecture.
        options: training options; `start` gives the initial weights.

    Returns:
        Artifact with `student/` and `history.jsonl`.

    Raises:
        UsageError: the student is deeper than its teacher, or the relation heads do not divide the widths.
    """
    require_no_deeper(arch.layers, teacher.layers)
    options = settled(options, corpus, teacher)
    config = {"arch": str(arch), **deciding(options)}
    return _refined(home, teacher, corpus, arch, options, config, {}, arch)


def _refined(
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    arch: Arch,
    options: RefineOptions,
    config: dict[str, Any],
    inputs: dict[str, str],
    student: Path | Arch,
) -> Artifact:
    require_relations(options, arch, teacher)
    require_possible(options)
    pooling_of(teacher.path)  # as in `run_distill`

    def work(folder: Path) -> dict[str, Any]:
        from kdnas.distill.stages import refine_into

        return refine_into(folder, home, teacher, corpus, student, options)

    inputs = {"teacher": teacher.digest, "corpus": corpus.digest} | inputs
    label, needed = f"{teacher.label}-{arch.name}", needed_bytes(arch, teacher.student_sizes.rows)
    return build_stage(home, "refine", label, config, inputs, work, needed)


def shape_of(student: Path, teacher: Teacher) -> Arch:
    """The architecture of a student, after a check that it matches the teacher.

    Raises:
        UsageError: the folder has no student, or its vocabulary differs from the teacher's.
    """
    from kdnas.models.student import arch_of

    if not (student / "config.json").is_file() or not (student / "model.safetensors").is_file():
        raise UsageError(f"student '{student}': no config.json and model.safetensors here; give a distilled student")
    config = load_config(student)
    if config.vocab_size != teacher.config["vocab_size"]:
        raise UsageError(
            f"student '{student}' has a vocabulary of {config.vocab_size}, teacher '{teacher.spec}' one of "
            f"{teacher.config['vocab_size']}; give the teacher that it was distilled from"
        )
    return arch_of(config)


def distill(
    options: DistillOptions,
    arch: str | None = None,
    student: Path | None = None,
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result | list[Result]:
    """Train a student to reproduce its teacher's hidden states or embeddings.

    Args:
        options: training options.
        arch: layers,heads,hidden,ffn,activation of a new student, for example 4,12,576,768,gelu. Several, separated by
            semicolons and with `steps`, train side by side: the teacher runs once for all, and each student is the same as alone.
        student: folder that `kdnas distill` or `kdnas refine` printed; training continues with this student, for example on text
            of a custom domain. Give either this or `arch`.
        teacher: `builtin:NAME` (`kdnas teachers` lists them), a folder, or a hub id.
        corpus: `builtin:pydocs`, a local file or folder, several of both separated by commas, or a hub id.
        text: how to read the corpus.
        home: root of all artifacts.
        output: folder for a copy of the model as plain files that `transformers` reads, with a subfolder for each of several
            students; null keeps it only below `home`.
    """
    require_output(output, "distill")
    if (arch is None) == (student is None):
        raise UsageError("give --arch for a new student, or --student to continue with an existing one, and not both")
    resolved = resolve_teacher(teacher, home)
    found = find_student(student) if student else None
    shapes = [shape_of(found[0], resolved)] if found else list(map(Arch.parse, str(arch).split(";")))
    for shape in shapes:
        require_no_deeper(shape.layers, resolved.layers)  # before the corpus is built
    if len(shapes) > 1:
        require_several(shapes, options)
    built = common_corpus(home, corpus, text, resolved)
    if len(shapes) > 1:
        return deliver_all(students_of(run_distill_several(home, resolved, built, shapes, options)), output)
    return deliver(run_distill(home, resolved, built, shapes[0], options, found), output)


def refine(
    options: RefineOptions,
    student: Path | None = None,
    arch: str | None = None,
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Refine a distilled student by the relations of MiniLM-v2, or train a new one by them alone.

    Args:
        options: training options.
        student: folder that `kdnas distill` printed, or a Hugging Face folder of a student. Give either this or `arch`.
        arch: layers,heads,hidden,ffn,activation of a new student, which is trained by MiniLM-v2 alone; `start` gives its initial
            weights.
        teacher: the student's teacher: `builtin:NAME` (`kdnas teachers` lists them), a folder, or a hub id.
        corpus: `builtin:pydocs`, a local file or folder, several of both separated by commas, or a hub id.
        text: how to read the corpus.
        home: root of all artifacts.
        output: folder for a copy of the model as plain files that `transformers` reads; null keeps it only below `home`.
    """
    require_output(output, "refine")
    if (arch is None) == (student is None):
        raise UsageError("give --student to refine a distilled student, or --arch for a new one, and not both")
    found = find_student(student) if student else None
    shape = Arch.parse(str(arch)) if found is None else None
    resolved = resolve_teacher(teacher, home)
    if shape is not None:
        require_no_deeper(shape.layers, resolved.layers)  # before the corpus is built
    built = common_corpus(home, corpus, text, resolved)
    if shape is not None:
        return deliver(run_refine_new(home, resolved, built, shape, options), output)
    assert found is not None
    return deliver(run_refine(home, resolved, built, *found, options), output)
