"""The parts of an evaluation: geometry and fine-tuned tasks, each kept when it is finished."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kdnas.evaluation.chance import corrected_retention
from kdnas.evaluation.hap import NOTE, class_counts
from kdnas.evaluation.options import LARGE_RATES, SMALL_RATES, EvaluationOptions
from kdnas.evaluation.report import card
from kdnas.evaluation.tasks import ROLES, Task, write_labelled
from kdnas.evaluation.topic import topic_task
from kdnas.models.family import shape_of
from kdnas.store.json_files import fsync_folder, write_json
from kdnas.store.progress import say, stage
from kdnas.text.corpus import Corpus

# Test texts of a task in an evaluation's folder; the export of its classifier is evaluated on them.
LABELLED = "labelled/{}.jsonl"
UNFINISHED = "tuning"  # folder of a fine-tuning that has not finished
SMALL_HIDDEN = 384  # all-MiniLM-L6-v2 and narrower


@dataclass(frozen=True)
class Evaluation:
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
        retrieval = _part(folder, "retrieval", self._retrieval)
        # Geometry and retrieval are not limited; at least half of the time is reserved for the tasks.
        spent = geometry["seconds"] + (retrieval["retrieval"] or {}).get("seconds", 0.0)
        left = options.minutes * 60 - min(spent, options.minutes * 30)
        results = {**geometry, **retrieval, "topic": None, "topic_note": topic_note, "hap": None, "hap_note": NOTE}
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

    def _retrieval(self) -> dict[str, Any]:
        from kdnas.evaluation.retrieval import retrieval

        corpus, options = self.corpus, self.options
        given = (corpus.validation, corpus.pad_id, self.seq_len, options.retrieval_queries, options.seed)
        return retrieval(self.teacher, self.student, *given)

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
