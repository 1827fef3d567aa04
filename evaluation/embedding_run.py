"""`kdnas suites --tasks embeddings`: score a model's vectors without fine-tuning, alone and against a teacher's."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from kdnas.errors import UsageError
from kdnas.evaluation.embedder import Embedder, is_export, open_embedder, prompted, static_folder
from kdnas.evaluation.embedding_tasks import EmbeddingTask, Texts, chosen_tasks, means, read_texts
from kdnas.evaluation.metrics import recall_at_k
from kdnas.evaluation.reading import NoDataError
from kdnas.evaluation.suite_options import TRAINED, SuiteOptions
from kdnas.export.vectors import VectorPrecision
from kdnas.models.folder import model_digest, model_label
from kdnas.store.artifact import Artifact, build
from kdnas.store.host import host_line
from kdnas.store.json_files import write_json
from kdnas.store.progress import say, say_table, stage

RESULT, KIND = "result.json", "embeddings"
FULL: VectorPrecision = "float32"
NEIGHBOURS = 10  # of each query among the queries


@dataclass
class Encoded:
    """The vectors of one model for one task, computed when they are needed: (queries, documents) by language."""

    embedder: Embedder
    texts: Mapping[str, Texts]
    found: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __getitem__(self, code: str) -> tuple[np.ndarray, np.ndarray]:
        if code not in self.found:
            texts, prompts = self.texts[code], self.embedder.prompts
            queries = self.embedder.vectors(prompted(texts.queries, prompts, "query"))
            documents = np.zeros((0, queries.shape[1]), dtype=np.float32)
            if texts.documents:
                documents = self.embedder.vectors(prompted(texts.documents, prompts, "document"))
            self.found[code] = (queries, documents)
        return self.found[code]


def run_embeddings(home: Path, model: str, tasks: Sequence[str], options: SuiteOptions) -> list[Artifact]:
    """One finished artifact for each task; existing artifacts are reused.

    Args:
        home: root folder of all artifacts.
        model: a model, or the folder of an export for other engines than PyTorch.
        tasks: names of tasks, or `embeddings`.
        options: data, engines, teacher, widths and precisions.

    Raises:
        UsageError: a model cannot be loaded, or no task has data.
    """
    digest, artifacts = _digest(model, home), []
    inputs = {"model": digest} | ({"teacher": _digest(options.teacher, home)} if options.teacher else {})
    scorer = _Scorer(home, model, options)
    for task in chosen_tasks(tasks):
        try:
            texts, data = read_texts(task, options.data_root, options.languages, options.max_test)
        except NoDataError as error:
            say(f"suites: left out: {error}")
            continue
        config = {
            "task": task.name,
            "engines": options.engines,
            "languages": list(texts),
            "dimensions": options.dimensions,
            "quantise_vectors": options.quantise_vectors,
        }
        label = task.name.replace("/", "-")
        work = partial(scorer.work, task, texts)
        artifacts.append(build(home, KIND, label, config, {**inputs, "data": data}, work))
    if not artifacts:
        raise UsageError(f"suites: no data for any of {', '.join(tasks)}; give local files with --data_root")
    return artifacts


def _digest(model: str, home: Path) -> str:
    from kdnas.export.checkpoint import open_checkpoint

    if is_export(model):
        return Artifact.load(Path(model), "export").digest
    static = static_folder(model)
    return model_digest(static) if static is not None else open_checkpoint(model, home).digest


@dataclass
class _Scorer:
    """Scores tasks; each model is loaded once, when it is needed."""

    home: Path
    model: str
    options: SuiteOptions
    opened: dict[tuple[str, str], Embedder] = field(default_factory=dict)

    def _open(self, model: str, engine: str) -> Embedder:
        if (model, engine) not in self.opened:
            self.opened[model, engine] = open_embedder(model, engine, self.home)
        return self.opened[model, engine]

    def work(self, task: EmbeddingTask, texts: Mapping[str, Texts], folder: Path) -> dict[str, Any]:
        """Score one task in all engines and write `result.json`."""
        teacher = None
        if self.options.teacher:
            teacher = Encoded(self._open(self.options.teacher, TRAINED), texts)
        rows: list[dict[str, Any]] = []
        with stage(f"suites: {task.name}", len(self.options.engines)) as progress:
            for engine in self.options.engines:
                start = time.monotonic()
                model = Encoded(self._open(self.model, engine), texts)
                rows += [{"engine": engine, **row} for row in self._rows(task, model, teacher)]
                progress.advance(note=f"{engine} {time.monotonic() - start:.1f} s")
        named = Path(self.model).exists()
        result = {
            "task": task.name,
            "metric": task.metric,
            "score": rows[0]["scores"][task.metric],
            "rows": rows,
            "model": model_label(Path(self.model)) if named else self.model,
            "teacher": self.options.teacher,
            "queries": {code: len(one.queries) for code, one in texts.items()},
            "host": host_line(),
        }
        write_json(folder / RESULT, result)
        return {name: result[name] for name in ("task", "metric", "score")}

    def _rows(self, task: EmbeddingTask, model: Encoded, teacher: Encoded | None) -> list[dict[str, Any]]:
        """The model alone at full width, shorter and quantised; with a teacher also its documents, and the teacher alone."""
        variants: list[tuple[int | None, VectorPrecision]] = [(None, FULL)]
        variants += [(width, FULL) for width in self.options.dimensions]
        variants += [(None, precision) for precision in self.options.quantise_vectors]
        rows = [_row(task, ("model", model), ("model", model), width, precision) for width, precision in variants]
        if teacher is None:
            return rows
        near = {code: recall_at_k(teacher[code][0], model[code][0], NEIGHBOURS) for code in model.texts}
        rows[0]["teacher_neighbours_recall_at_10"] = float(np.mean(list(near.values())))
        widths = {side[code][0].shape[1] for side in (model, teacher) for code in model.texts}
        if not task.clusters and len(widths) == 1:
            rows += [_row(task, ("model", model), ("teacher", teacher), *variant) for variant in variants]
        rows += [_row(task, ("teacher", teacher), ("teacher", teacher), *variant) for variant in variants]
        whole = rows[-len(variants)]["scores"][task.metric]
        for row in rows:
            row["retention"] = row["scores"][task.metric] / whole if whole > 0 else None
        return rows


def _row(
    task: EmbeddingTask,
    queries: tuple[str, Encoded],
    documents: tuple[str, Encoded],
    width: int | None,
    precision: VectorPrecision,
) -> dict[str, Any]:
    """Scores of the queries of one model and the documents of one model."""
    texts = queries[1].texts
    by_language = {
        code: task.scores(queries[1][code][0], documents[1][code][1], texts[code].truth, width, precision)
        for code in texts
    }
    full = next(iter(queries[1].found.values()))[0].shape[1]
    return {
        "queries": queries[0],
        "documents": documents[0],
        "dimensions": width or full,
        "precision": precision,
        "scores": means(by_language),
        "by_language": by_language,
    }


def show_embeddings(results: Sequence[Mapping[str, Any]]) -> None:
    """Print the scores of each task, a row for each engine, pair of models and kind of vector.

    Args:
        results: content of `result.json` of each task.
    """
    table = Table("task", "engine", "queries", "documents", "vectors", "metric", "score", "retention", "recall@10")
    for result in results:
        for row in result["rows"]:
            kept, near = row.get("retention"), row.get("teacher_neighbours_recall_at_10")
            table.add_row(
                str(result["task"]),
                row["engine"],
                row["queries"],
                row["documents"],
                f"{row['dimensions']} {row['precision']}",
                result["metric"].replace("_", " "),
                f"{100 * row['scores'][result['metric']]:.2f}",
                "" if kept is None else f"{100 * kept:.1f} %",
                "" if near is None else f"{near:.3f}",
            )
    say_table(table, plain_width=150)
    for result in results:
        if len(result["queries"]) > 1:
            say(f"{result['task']} by language: {json.dumps(_languages(result))}")


def _languages(result: Mapping[str, Any]) -> dict[str, float]:
    first = result["rows"][0]["by_language"]
    return {code: round(100 * scores[result["metric"]], 2) for code, scores in first.items()}
