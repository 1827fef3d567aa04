"""Tasks for embeddings without fine-tuning, from the rows of existing data sets in the hub's columns.

Retrieval ranks all paragraphs of a language for each question. Bitext finds the translation of each question among the English
ones. Local files have the layout of the other suites.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.evaluation.embedding_metrics import found_at_k, ndcg_at_k, pair_precision, spearman, v_measure
from kdnas.evaluation.reading import NoDataError, rows_of
from kdnas.evaluation.spec import Source
from kdnas.evaluation.suites_languages import PAWSX_SOURCE, TYDIQA, TYDIQA_SOURCE, XQUAD
from kdnas.export.vectors import quantised, similarities, truncated

SUITE = "embeddings"
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Texts:
    """The texts of a task in one language.

    Args:
        queries: first texts: questions, sentences.
        documents: second texts: paragraphs, the second sentence of each pair; empty for clusters.
        truth: what the metric compares with: relevant documents of each query, scores, 0 and 1 of pairs, or labels.
    """

    queries: list[str]
    documents: list[str]
    truth: Any

    def sample(self, most: int | None, with_documents: bool) -> "Texts":
        """At most `most` random queries; the second texts of pairs are chosen with them, the paragraphs of a search stay."""
        if most is None or len(self.queries) <= most:
            return self
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.queries))[:most]).tolist()
        documents = [self.documents[index] for index in chosen] if with_documents else self.documents
        truth = [self.truth[index] for index in chosen]
        return Texts([self.queries[index] for index in chosen], documents, truth)


@dataclass(frozen=True)
class EmbeddingTask:
    """One task.

    Args:
        name: name as `embeddings/TASK`.
        source: source of the rows.
        split: split that is scored.
        read: the texts of one language, from its rows and the English ones.
        score: the metrics, from the score of each query and document, or for clusters the vectors, and the truth.
        metric: the main metric.
        languages: codes; empty for a set with one language.
        paired: whether query i belongs to document i.
        clusters: whether there are no documents.
    """

    name: str
    source: Source
    split: str
    read: Callable[[Rows, Rows], Texts]
    score: Callable[[np.ndarray, Any], dict[str, float]]
    metric: str
    languages: tuple[str, ...] = ()
    paired: bool = False
    clusters: bool = False

    def scores(self, queries: np.ndarray, documents: np.ndarray, truth: Any, width: int | None, precision: Any) -> Any:
        """Metrics of vectors (Q, D) and (N, D), shortened to a width and in a precision (`kdnas.export.vectors`)."""
        first = truncated(queries, width)
        if self.clusters:  # k-means needs numbers, so bits are read as -1 and 1
            whole = quantised(first, precision)
            whole = 2.0 * np.unpackbits(whole, axis=1) - 1 if precision == "binary" else whole.astype(np.float32)
            return self.score(whole / np.linalg.norm(whole, axis=1, keepdims=True), truth)
        sides = [quantised(part, precision) for part in (first, truncated(documents, width))]
        if self.paired:
            steps = range(0, len(sides[0]), 256)
            parts = [similarities(sides[0][at : at + 256], sides[1][at : at + 256]).diagonal() for at in steps]
            return self.score(np.concatenate(parts), truth)
        return self.score(similarities(*sides), truth)


def _retrieval(rows: Rows, _english: Rows) -> Texts:
    numbers: dict[str, int] = {}
    wanted: dict[str, list[int]] = {}
    for row in rows:
        number = numbers.setdefault(row["context"], len(numbers))
        found = wanted.setdefault(row["question"], [])
        if number not in found:
            found.append(number)
    return Texts(list(wanted), list(numbers), list(wanted.values()))


def _bitext(rows: Rows, english: Rows) -> Texts:
    numbers = {str(row["id"]): number for number, row in enumerate(english)}
    known = [row for row in rows if str(row["id"]) in numbers]
    documents = [row["question"] for row in english]
    # Questions that are equal in English are equally right.
    same: dict[str, list[int]] = {}
    for number, text in enumerate(documents):
        same.setdefault(text, []).append(number)
    truth = [same[documents[numbers[str(row["id"])]]] for row in known]
    return Texts([row["question"] for row in known], documents, truth)


def _pairs(label: str) -> Callable[[Rows, Rows], Texts]:
    def read(rows: Rows, _english: Rows) -> Texts:
        known = [row for row in rows if float(row[label]) >= 0]  # -1 marks hidden labels
        truth = [float(row[label]) for row in known]
        return Texts([row["sentence1"] for row in known], [row["sentence2"] for row in known], truth)

    return read


def _clusters(rows: Rows, _english: Rows) -> Texts:
    titles = {row["context"]: str(row["title"]) for row in rows}
    return Texts(list(titles), [], list(titles.values()))


def _ranked(scores: np.ndarray, truth: Any) -> dict[str, float]:
    return {"ndcg_at_10": ndcg_at_k(scores, truth), "recall_at_10": found_at_k(scores, truth)}


def _translated(scores: np.ndarray, truth: Any) -> dict[str, float]:
    hits = [int(row in wanted) for row, wanted in zip(scores.argmax(1).tolist(), truth, strict=True)]
    return {"accuracy": float(np.mean(hits)), "ndcg_at_10": ndcg_at_k(scores, [wanted[:1] for wanted in truth])}


XQUAD_SOURCE = Source("google/xquad", "xquad", "xquad.{language}", "{language}.{split}")
GLUE_HUB = "nyu-mll/glue"
EMBEDDING_TASKS = (
    EmbeddingTask(
        "embeddings/stsb", Source(GLUE_HUB, "glue/stsb", "stsb"), "validation", _pairs("label"),
        lambda cosines, truth: {"spearman": spearman(np.array(truth), cosines)}, "spearman", paired=True,
    ),
    EmbeddingTask(
        "embeddings/mrpc", Source(GLUE_HUB, "glue/mrpc", "mrpc"), "test", _pairs("label"),
        lambda cosines, truth: {"average_precision": pair_precision(np.array(truth), cosines)}, "average_precision",
        paired=True,
    ),
    EmbeddingTask(
        "embeddings/paws-x", PAWSX_SOURCE, "validation", _pairs("label"),
        lambda cosines, truth: {"average_precision": pair_precision(np.array(truth), cosines)}, "average_precision",
        ("de", "en", "es", "fr", "ja", "ko", "zh"), paired=True,
    ),
    EmbeddingTask("embeddings/xquad", XQUAD_SOURCE, "validation", _retrieval, _ranked, "ndcg_at_10", XQUAD),
    EmbeddingTask(
        "embeddings/tydi", TYDIQA_SOURCE, "validation", _retrieval, _ranked, "ndcg_at_10", tuple(TYDIQA),
    ),
    EmbeddingTask(
        "embeddings/xquad-bitext", XQUAD_SOURCE, "validation", _bitext, _translated, "accuracy",
        tuple(code for code in XQUAD if code != "en"),
    ),
    EmbeddingTask(
        "embeddings/squad-topics", Source("rajpurkar/squad_v2", "squad_v2", file="validation_half"), "validation",
        _clusters, lambda vectors, labels: {"v_measure": v_measure(labels, vectors)}, "v_measure", clusters=True,
    ),
)  # fmt: skip
NAMES = (SUITE, *(task.name for task in EMBEDDING_TASKS))


def chosen_tasks(names: Iterable[str]) -> list[EmbeddingTask]:
    """The tasks with these names, or all of them for `embeddings`, in the order of the table."""
    wanted = set(names)
    return [task for task in EMBEDDING_TASKS if task.name in wanted or SUITE in wanted]


def read_texts(
    task: EmbeddingTask, root: Path | None, languages: tuple[str, ...], most: int | None
) -> tuple[dict[str, Texts], str]:
    """The texts of each language, and a digest of their rows.

    Args:
        task: the task.
        root: folder with local files; None reads from the hub.
        languages: codes to score; empty scores all that the task has.
        most: maximum number of queries of a language; None uses all.

    Raises:
        NoDataError: no language has rows.
        UsageError: a row lacks a column.
    """
    codes = [code for code in task.languages if not languages or code in languages] if task.languages else [""]
    if not codes:
        raise NoDataError(f"{task.name}: has none of the languages {', '.join(languages)}")
    english = _rows(task, root, "en") if task.read is _bitext else []
    digest, found = hashlib.sha256(), dict[str, Texts]()
    for code in codes:
        rows = _rows(task, root, code)
        digest.update(json.dumps(rows, sort_keys=True).encode())
        try:
            texts = task.read(rows, english)
        except KeyError as error:
            raise UsageError(f"{task.name}: a row has no column {error}; it has {', '.join(rows[0])}") from error
        if texts.queries:
            found[code] = texts.sample(most, task.paired)
    if not found:
        raise NoDataError(
            f"{task.name}: no {task.split} rows; give local files with --data_root, or leave the task out"
        )
    digest.update(json.dumps([english, most], sort_keys=True).encode())
    return found, digest.hexdigest()


def _rows(task: EmbeddingTask, root: Path | None, code: str) -> Rows:
    rows = rows_of(task.source, task.split, code, root)
    return [] if rows is None else [row for _, row in rows]


def means(by_language: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The unweighted mean of each metric over the languages."""
    names = next(iter(by_language.values()))
    return {name: float(np.mean([scores[name] for scores in by_language.values()])) for name in names}
