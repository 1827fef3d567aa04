"""Read the results of `kdnas suites` for a comparison, also those of earlier versions."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from kdnas.errors import UsageError
from kdnas.evaluation.compare_models import Cell, Model
from kdnas.evaluation.harness import RESULT, model_name, resolve_model
from kdnas.store.artifact import MANIFEST, Artifact

DIGEST = re.compile("[0-9a-f]{8,64}")
# Settings in results and in the configuration of their artifacts, with their names in messages.
OF_RESULT = {
    "epochs": "epochs",
    "train_examples": "train rows",
    "dev_examples": "dev rows",
    "test_examples": "test rows",
    "seq_len": "tokens in an input",
    "embedding_rows": "trained embedding rows",
}
OF_CONFIG = {"batch_size": "batch size", "max_minutes": "max_minutes"}


def read_model(home: Path, model: str) -> Model:
    """All results of a model below `home`; if a task and seed has several runs, the newest.

    Raises:
        UsageError: the model has no results.
    """
    only_results = DIGEST.fullmatch(model) is not None and not Path(model).exists()
    digest = model if only_results else resolve_model(model, home)[1]
    runs: dict[tuple[str, int], Artifact] = {}
    for manifest in sorted((home / "suite").glob(f"*/{MANIFEST}")):
        artifact = Artifact.load(manifest.parent, "suite")
        if artifact.manifest["inputs"]["model"].startswith(digest):
            key = (str(artifact.results["task"]), int(artifact.results["seed"]))
            if key not in runs or runs[key].manifest["finished"] < artifact.manifest["finished"]:
                runs[key] = artifact
    if not runs:
        raise UsageError(
            f"{model}: no results below {home / 'suite'}; run `kdnas suites --model {model} --tasks glue,...`"
        )
    tasks = dict.fromkeys(task for task, _ in runs)
    cells = {task: _cell([artifact for (name, _), artifact in runs.items() if name == task]) for task in tasks}
    first = next(iter(runs.values()))
    about = _result(first)["model"]
    name = about["name"] if only_results else model_name(model)
    return Model(name, about["architecture"], cells, first.manifest["inputs"]["model"])


def _result(artifact: Artifact) -> dict[str, Any]:
    return dict(json.loads((artifact.path / RESULT).read_text()))


def _cell(runs: Sequence[Artifact]) -> Cell:
    """Scores of the runs of one task, one for each seed."""
    results = [_result(run) for run in runs]
    metric = results[0]["metric"]
    scored = [result["engines"][_engine(result)] for result in results]
    by_language = [_by_language(found, metric) for found in scored]
    chances = [result["chance"] for result in results if result.get("chance") is not None]
    return Cell(
        tuple(100 * _headline(result, one) for result, one in zip(results, by_language, strict=True)),
        metric,
        {
            language: _mean_points([one[language] for one in by_language if language in one])
            for language in dict.fromkeys(language for one in by_language for language in one)
        },
        mean(result["seconds"] for result in results),
        tuple(results[0]["notes"]),
        settings_of(runs, results),
        _mean_points([found["scores"] for found in scored]),
        100 * mean(chances) if len(chances) == len(results) else None,
        None if results[0].get("standard_error") is None else 100 * results[0]["standard_error"],
        {language: 100 * value for language, value in results[0].get("chance_by_language", {}).items()},
    )


def _engine(result: Mapping[str, Any]) -> str:
    """The engine of the headline score."""
    return str(next(iter(result["engines"])))


def _by_language(found: Mapping[str, Any], metric: str) -> dict[str, dict[str, float]]:
    """All metrics of each language; results of the first schema have only the main one, as a number."""
    return {
        language: scores if isinstance(scores, dict) else {metric: scores}
        for language, scores in found["by_language"].items()
    }


def _headline(result: Mapping[str, Any], by_language: Mapping[str, Mapping[str, float]]) -> float:
    """The mean over languages if there are several; results of the first schema have the score over all rows there."""
    if "averaging" in result or len(by_language) < 2:
        return float(result["score"])
    return mean(scores[result["metric"]] for scores in by_language.values())


def _mean_points(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric, in points."""
    return {name: 100 * mean(one[name] for one in scores) for name in scores[0]}


def settings_of(runs: Sequence[Artifact], results: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Settings that decide what a score means, as far as the results have them: the different values over the seeds.

    Args:
        runs: artifacts of one task.
        results: their results.
    """
    engines = [result["engines"][_engine(result)] for result in results]
    values: dict[str, list[Any]] = {
        "data": [result["data"]["digest"][:8] for result in results],
        "rules of rows and scores": [result.get("schema", 1) for result in results],
        "languages": [", ".join(sorted(found["by_language"])) or "one" for found in engines],
        "engine": [_engine(result) for result in results],
        "seeds": [", ".join(str(seed) for seed in sorted(int(run.results["seed"]) for run in runs))],
    }
    values["taught"] = [", ".join(result["taught"]) or "one" for result in results if "taught" in result]
    values |= {name: [result[key] for result in results if key in result] for key, name in OF_RESULT.items()}
    configs = [run.manifest["config"] for run in runs]
    values |= {name: [config[key] for config in configs if key in config] for key, name in OF_CONFIG.items()}
    # Later seeds try only the rate that the first one chose, so the seeds together have tried the grid.
    tried = {one["learning_rate"] for result in results for one in result.get("tried", ())}
    values["learning rates"] = [", ".join(f"{rate:g}" for rate in sorted(tried))] if tried else []
    return {name: tuple(dict.fromkeys(map(_shown, found))) for name, found in values.items() if found}


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
