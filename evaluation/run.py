"""`kdnas evaluate`: compare a student with its teacher, in hidden-state geometry and on fine-tuned tasks."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.evaluation.chance import corrected_retention
from kdnas.evaluation.hap import NOTE, class_counts, hap_digest, read_hap
from kdnas.evaluation.report import card, show
from kdnas.evaluation.tasks import ROLES, Task, write_labelled
from kdnas.evaluation.topic import topic_task
from kdnas.models.family import require_family, shape_of
from kdnas.models.folder import REQUIRED_FILES, model_digest, model_in
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.store.artifact import Artifact, build, fsync_folder, to_json, write_json
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import say, stage
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

# Test texts of a task in an evaluation's folder; the export of its classifier is evaluated on them.
LABELLED = "labelled/{}.jsonl"
UNFINISHED = "tuning"  # folder of a fine-tuning that has not finished
SMALL_HIDDEN = 384  # all-MiniLM-L6-v2 and narrower
SMALL_RATES, LARGE_RATES = (2e-4, 4e-4), (5e-5, 1e-4)


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of the evaluation.

    Args:
        hap: labelled HAP texts: a .jsonl[.gz] file or a folder of them, with columns `tweet` and `class` or `text` and `label`;
            null skips the HAP task.
        minutes: time budget of the whole evaluation in minutes; measured throughput turns it into rows and epochs.
        seed: seed of samples, splits, heads, dropout and row order.
        sentences: number of validation sentences for explained variance and recall@10.
        map_sentences: number of train sentences on which the linear map from student to teacher is fitted.
        topics: number of topics in the topic task; it uses the most frequent topics of the corpus.
        topic_train: maximum number of train and dev sentences for each topic.
        topic_test: maximum number of test sentences for each topic.
        hap_examples: maximum number of HAP rows over all splits; null uses all.
        epochs: passes over all rows with each learning rate; null derives the number from `minutes`.
        teacher_learning_rates: candidates for the teacher; only the first is used if the time allows one; null uses 2e-4 and
            4e-4 for hidden sizes up to 384, and 5e-5 and 1e-4 above, because small models need larger rates.
        student_learning_rates: candidates for the student; only the first is used if the time allows one.
        batch_tokens: maximum number of padded tokens in a training batch.
    """

    hap: Path | None = None
    minutes: float = 4.0
    seed: int = 0
    sentences: int = 4000
    map_sentences: int = 3000
    topics: int = 12
    topic_train: int = 400
    topic_test: int = 150
    hap_examples: int | None = None
    epochs: int | None = None
    teacher_learning_rates: tuple[float, ...] | None = None
    student_learning_rates: tuple[float, ...] = SMALL_RATES
    batch_tokens: int = 1024

    def __post_init__(self) -> None:
        bounds = {"sentences": 100, "map_sentences": 100, "topics": 2, "topic_train": 20, "topic_test": 5}
        for name, least in (bounds | {"batch_tokens": 128, "hap_examples": 100, "epochs": 1}).items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} is {value}; at least {least} is needed")
        if not self.minutes > 0:
            raise UsageError(f"minutes is {self.minutes}; more than 0 is needed")
        for name in ("teacher_learning_rates", "student_learning_rates"):
            rates = getattr(self, name)
            if rates is None:
                continue
            if not rates or not all(0 < rate < 1 for rate in rates):
                raise UsageError(f"{name} is {list(rates)}; give one or more numbers between 0 and 1")


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
    evaluation = _Evaluation(teacher.path, student, corpus, hap, options)
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


@dataclass(frozen=True)
class _Evaluation:
    """One evaluation. Its parts are measured one after the other; each is saved as parts/NAME.json when it finishes."""

    teacher: Path
    student: Path
    corpus: Corpus
    hap: Task | None
    options: EvaluationOptions

    @property
    def seq_len(self) -> int:
        return int(self.corpus.artifact.manifest["config"]["text"]["seq_len"])

    def work(self, folder: Path) -> dict[str, Any]:
        """Measure the parts that the working folder lacks, and combine all parts."""
        from kdnas.distill.loop import use_all_cores

        use_all_cores()
        (folder / "parts").mkdir(exist_ok=True)
        options = self.options
        topic, topic_note = topic_task(
            self.corpus, options.topics, options.topic_train, options.topic_test, options.seed
        )
        if topic is None:
            say(f"evaluate: {topic_note}")
        tasks = [self._with_cut_note(task) for task in (topic, self.hap) if task is not None]
        geometry = _part(folder, "geometry", self._geometry)
        # Geometry is not limited; at least half of the time is reserved for the tasks.
        left = options.minutes * 60 - min(geometry["seconds"], options.minutes * 30)
        results = {**geometry, "topic": None, "topic_note": topic_note, "hap": None, "hap_note": NOTE}
        for task in tasks:
            results[task.name] = self._task(folder, task, left / len(tasks))
        results |= {f"{task.name}_note": task.notes for task in tasks}
        write_json(folder / "evaluation.json", results)
        return results

    def _with_cut_note(self, task: Task) -> Task:
        """The task, with a note if test texts are cut at the maximum length; teacher and student have the same tokenizer."""
        from kdnas.evaluation.encoded import Encoded

        cut = Encoded.cut_notes(task.kind, task.test, self.student, self.seq_len)
        for note in cut:
            say(f"evaluate: {task.name}: {note}")
        return replace(task, notes="; ".join(filter(None, [task.notes, *cut])))

    def _geometry(self) -> dict[str, Any]:
        from kdnas.evaluation.geometry import geometry

        start, options = time.monotonic(), self.options
        found = geometry(
            self.teacher, self.student, self.corpus, options.map_sentences, options.sentences, options.seed
        )
        return found | {"seconds": round(time.monotonic() - start, 1)}

    def _task(self, folder: Path, task: Task, seconds: float) -> dict[str, Any]:
        """Fine-tune teacher and student with the same plan and compare their scores."""
        from kdnas.evaluation.metrics import majority_macro_f1, retention

        plan = _part(folder, f"{task.name}-plan", lambda: self._plan(task, seconds))
        runs = {
            role: _part(folder, f"{task.name}-{role}", partial(self._run, folder, task, role, plan)) for role in ROLES
        }
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        teacher, student = (runs[role]["macro_f1"] for role in ROLES)
        majority = majority_macro_f1(task.test.labels)
        if teacher <= majority:
            say(
                f"evaluate: {task.name}: the teacher is not better than the majority class, so retention is meaningless"
            )
        sides: dict[str, Any] = {
            name: {role: runs[role][name] for role in ROLES}
            for name in ("accuracy", "binary_f1", "average_precision", "false_positive_rate")
            if name in runs["teacher"]
        }
        return {
            "labels": task.labels,
            "metric": "macro-F1",
            "teacher": teacher,
            "student": student,
            "retention": retention(teacher, student),
            "majority": majority,
            "corrected_retention": corrected_retention(teacher, student, majority),
            **sides,
            "train_examples": runs["student"]["train_examples"],
            "dev_examples": runs["student"]["dev_examples"],
            "test_examples": runs["student"]["test_examples"],
            "classes": class_counts(task),
            "splits": task.notes,
            "seconds": round(sum(run["seconds"] for run in runs.values()), 1),
            "plan": plan,
            "runs": runs,
        }

    def _rates(self, role: str) -> list[float]:
        if role == "student":
            return list(self.options.student_learning_rates)
        return list(self.options.teacher_learning_rates or teacher_rates(self.teacher))

    def _plan(self, task: Task, seconds: float) -> dict[str, Any]:
        from kdnas.evaluation.budget import Speed, make_plan, measured_speed

        options = self.options
        rates = min(len(self._rates(role)) for role in ROLES)
        speeds: dict[str, Speed] = {}
        if options.epochs is None:
            for role, path in zip(ROLES, (self.teacher, self.student), strict=True):
                speeds[role] = measured_speed(path, task, options.seed, self.seq_len, options.batch_tokens)
        plan = make_plan(task, list(speeds.values()), seconds, rates, options.epochs)
        return asdict(plan) | {
            "available_train_examples": len(task.train),
            "cut_by_minutes": plan.train_examples < len(task.train),
            "budget_seconds": round(seconds, 1) if options.epochs is None else None,
            "examples_per_second": {role: round(speed.train, 1) for role, speed in speeds.items()},
            "scored_per_second": {role: round(speed.score, 1) for role, speed in speeds.items()},
        }

    def _run(self, folder: Path, task: Task, role: str, plan: dict[str, Any]) -> dict[str, Any]:
        """Fine-tune one model on one task; the student's classifier is saved."""
        from kdnas.evaluation.finetune import Plan, Recipe, finetune, save_classifier

        path, options = getattr(self, role), self.options
        recipe = Recipe(self._rates(role), options.seed, self.seq_len, options.batch_tokens)
        given = Plan(**{name: plan[name] for name in Plan.__dataclass_fields__})
        total = given.train_examples * given.epochs * given.learning_rates
        with stage(f"evaluate: {task.name}, {role}", total) as progress:
            model, record = finetune(path, task, given, recipe, progress, folder / UNFINISHED / f"{task.name}-{role}")
        if role == "student":
            # The folder is renamed before the part is written, so an existing part always has its classifier.
            final = folder / "classifiers" / task.name
            scratch = final.with_name(f"{task.name}.tmp")
            for left_over in (scratch, final):
                shutil.rmtree(left_over, ignore_errors=True)
            save_classifier(model, path, scratch, card(task, record, path))
            write_labelled(folder / LABELLED.format(task.name), task)
            scratch.rename(final)
            fsync_folder(final.parent)
        return record


def teacher_rates(teacher: Path) -> tuple[float, ...]:
    """Learning rates for a teacher, by the hidden size in its config.json."""
    hidden = shape_of(json.loads((teacher / "config.json").read_text())).hidden
    return SMALL_RATES if hidden <= SMALL_HIDDEN else LARGE_RATES


def _part(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Load a part that an earlier run finished, or make it and write it atomically."""
    file = folder / "parts" / f"{name}.json"
    if not file.exists():
        write_json(file, make())
    return dict(json.loads(file.read_text()))
