"""Scores of retrieval from the results of `kdnas suites --tasks embeddings`, by model and engine."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas.evaluation.embedding_run import KIND, RESULT
from kdnas.evaluation.suite_options import TRAINED
from kdnas.store.artifact import MANIFEST, Artifact

METRIC = "ndcg_at_10"
Key = tuple[str, str]  # digest of the model or its export, and engine


@dataclass(frozen=True)
class Score:
    """A model's score on one task.

    Args:
        value: nDCG@10 of its queries on its documents, at full width.
        asymmetric: of its queries on the teacher's documents; None without a teacher.
        data: digest of the texts.
        model: name of the model.
    """

    value: float
    asymmetric: float | None
    data: str
    model: str


def read_scores(home: Path) -> dict[Key, dict[str, Score]]:
    """Scores by task of each model in each engine; of several runs the newest counts.

    Args:
        home: root folder of all artifacts.
    """
    found: dict[Key, dict[str, Score]] = {}
    artifacts = [Artifact.load(file.parent, KIND) for file in (home / KIND).glob(f"*/{MANIFEST}")]
    for artifact in sorted(artifacts, key=lambda one: str(one.manifest["finished"])):
        result = json.loads((artifact.path / RESULT).read_text())
        if result["metric"] == METRIC:
            for key, score in _scores(artifact, result):
                found.setdefault(key, {})[result["task"]] = score
    return found


def _scores(artifact: Artifact, result: dict[str, Any]) -> Iterator[tuple[Key, Score]]:
    """Those of the model in each engine, and of the teacher in PyTorch if there is one."""
    inputs = artifact.manifest["inputs"]
    # The first row of each engine and pair of sides has full width.
    rows: dict[tuple[str, str, str], float] = {}
    for row in result["rows"]:
        rows.setdefault((row["engine"], row["queries"], row["documents"]), float(row["scores"][METRIC]))
    for (engine, queries, documents), value in rows.items():
        if (queries, documents) == ("model", "model"):
            mixed = rows.get((engine, "model", "teacher"))
            yield (inputs["model"], engine), Score(value, mixed, inputs["data"], str(result["model"]))
        elif queries == documents:
            name = str(result["teacher"])
            yield (inputs["teacher"], TRAINED), Score(value, None, inputs["data"], name)
