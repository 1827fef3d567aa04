"""`kdnas report`: the results of a run as one self-contained HTML page, made only from the artifacts on disk."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from kdnas.errors import UsageError
from kdnas.models.table import FILE, read_rows
from kdnas.page.formatting import milliseconds, ratio
from kdnas.page.stages import hosts, stage_row
from kdnas.page.write import require_file_name, write_page
from kdnas.pipeline import figures as pipeline_figures
from kdnas.pipeline.summary import summarise
from kdnas.search import figures as search_figures
from kdnas.store.artifact import MANIFEST, Artifact
from kdnas.store.json_files import read_jsonl
from kdnas.store.outcome import Outcome

# Stage of the page, its artifact's kind, and the command that makes it.
STAGES = {
    "latency-table": "kdnas latency-table",
    "search": "kdnas search",
    "distill": "kdnas distill",
    "refine": "kdnas refine",
    "export": "kdnas export",
    "evaluation": "kdnas evaluate",
    "speed": "kdnas speed",
}
ADDED = ("strategies", "fidelity")  # studies of a search, which are not stages of the pipeline


def report(
    run: Path, out: Path = Path("report.html"), strategies: Path | None = None, fidelity: Path | None = None
) -> Outcome:
    """Write the page of a finished or unfinished run, and its results as a Markdown table next to it.

    Args:
        run: folder with artifacts.json (stage to artifact folder) that `kdnas pipeline` wrote, or the folder of one stage, for
            example one that `kdnas search` printed.
        out: HTML file to write; the Markdown table gets the same name with `.md`.
        strategies: folder that `kdnas compare-strategies` printed; its results are shown with the search.
        fidelity: folder that `kdnas fidelity` printed; its results are shown with the search.
    """
    artifacts = load_run(run)
    for kind, folder in zip(ADDED, (strategies, fidelity), strict=True):
        if folder is not None:
            artifacts[kind] = Artifact.load(folder, kind)
    write_report(artifacts, out)
    out.with_suffix(".md").write_text(summarise(artifacts))
    return Outcome(out, {"stages": list(artifacts)})


def load_run(run: Path) -> dict[str, Artifact]:
    """Open the artifacts that a run lists, or the artifact of one stage.

    Raises:
        UsageError: artifacts.json is missing or unreadable, or an artifact is missing or of another kind.
    """
    if (run / MANIFEST).is_file():
        artifact = Artifact.load(run)
        kind = str(artifact.manifest["kind"])
        if kind not in (*STAGES, *ADDED):
            raise UsageError(f"{run}: is a {kind}; the page shows {', '.join(STAGES)}")
        return {kind: artifact}
    listing = run / "artifacts.json"
    try:
        paths = json.loads(listing.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{listing}: cannot read it ({error}); give the folder that `kdnas pipeline` wrote, as in artifacts/latest"
        ) from error
    if not isinstance(paths, dict) or not all(isinstance(path, str) for path in paths.values()):
        raise UsageError(f"{listing}: an object of stage to artifact folder is needed, as `kdnas pipeline` writes it")
    if not set(paths) & set(STAGES):
        raise UsageError(f"{listing}: names none of the stages {', '.join(STAGES)}; run `kdnas pipeline`")
    found = {}
    for stage, name in paths.items():
        path = Path(name) if Path(name).is_dir() else run / name
        found[stage] = Artifact.load(path, stage if stage in STAGES else None)
    return found


def write_report(artifacts: dict[str, Artifact], out: Path) -> None:
    """Write one HTML file that needs no network.

    Args:
        artifacts: stage to finished artifact; for a missing stage the page shows the command that makes it.
        out: file to write; an existing one is replaced.

    Raises:
        UsageError: `out` is a folder, or a file of an artifact is missing or unreadable.
    """
    require_file_name(out, "report.html")
    write_page(out, "kdnas.pipeline", context(artifacts))


def context(artifacts: dict[str, Artifact]) -> dict[str, Any]:
    """The variables of the page template."""
    results = {stage.replace("-", "_"): artifact.results for stage, artifact in artifacts.items()}
    for stage in ("distill", "refine", "search"):
        for key in ("arch", "winner"):
            if results.get(stage, {}).get(key):
                results[stage][key] = arch_text(results[stage][key])
    rows = results.get("speed", {}).get("rows") or []
    if rows:  # the teacher first, then from slow to fast
        rows.sort(key=lambda row: (not row["name"].startswith("teacher"), row.get("speedup") or 0))
    return {
        **results,
        "commands": STAGES,
        "figures": {name: json.loads(figure.to_json()) for name, figure in figures(artifacts, results).items()},
        "winner": winner_of(results),
        "front": front(results.get("search", {})),
        "affordable": affordable(artifacts),
        "taus": search_figures.tau_table(results["fidelity"]) if "fidelity" in results else {},
        "fastest": pipeline_figures.fastest(rows),
        "explained": explained_variance(results),
        "next": next_steps(artifacts),
        "stages": [stage_row(name, artifact) for name, artifact in artifacts.items()],
        "hosts": hosts(artifacts),
        "total_seconds": sum(artifact.manifest.get("seconds") or 0 for artifact in artifacts.values()),
    }


def figures(artifacts: Mapping[str, Artifact], results: Mapping[str, Any]) -> dict[str, go.Figure]:
    """The figures for which the run has results, by name."""
    drawn: dict[str, go.Figure] = {}
    table = read_rows(artifacts["latency-table"].path / FILE) if "latency-table" in artifacts else []
    if "search" in artifacts:
        journal = [{**row, "arch": arch_text(row["arch"])} for row in log(artifacts["search"], "journal.jsonl")]
        drawn["search_scatter"] = search_figures.search_scatter(journal, results["search"])
        drawn["search_rewards"] = search_figures.search_rewards(journal, results["search"])
        if effects := search_figures.effect_bars(journal, table):
            drawn["effects"] = effects
    if "strategies" in artifacts:
        drawn |= search_figures.strategy_bands(artifacts["strategies"].path / "curves.csv")
    if "fidelity" in artifacts:
        drawn["fidelity"] = search_figures.fidelity_scatter(
            artifacts["fidelity"].path / "fidelity.csv", results["fidelity"]
        )
    if "latency-table" in artifacts:
        drawn["latency"] = pipeline_figures.latency_scatter(table, results["latency_table"], winner_of(results))
    layers = {}
    for stage in ("distill", "refine"):
        if stage in artifacts:
            drawn[stage] = pipeline_figures.training_curve(log(artifacts[stage], "history.jsonl"))
            if results[stage].get("explained_variance_layers"):
                layers[stage] = results[stage]["explained_variance_layers"]
    if layers:
        drawn["layers"] = pipeline_figures.layer_bars(layers)
    rows = results.get("speed", {}).get("rows")
    if rows:
        drawn["speed_latency"] = pipeline_figures.speed_bars(
            rows, "p50_ms", "p50_ms", "p90_ms", "latency, p50 to p90 (ms)", milliseconds
        )
        drawn["speed_ratio"] = pipeline_figures.speed_bars(
            rows, "speedup", "speedup_low", "speedup_high", "speed-up over the teacher (×)", ratio
        )
    return drawn


def log(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    """Rows of an artifact's log.

    Raises:
        UsageError: the file is missing or damaged.
    """
    file = artifact.path / name
    try:
        if not file.is_file():
            raise FileNotFoundError("missing")
        return read_jsonl(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot read it ({error}); remove {artifact.path} and build it again") from error


def winner_of(results: Mapping[str, Any]) -> str | None:
    """The student's architecture: the trained one, else the one that the search chose."""
    for stage, key in (("refine", "arch"), ("distill", "arch"), ("search", "winner")):
        if results.get(stage, {}).get(key):
            return str(results[stage][key])
    return None


def arch_text(value: Any) -> str:
    """An architecture as `4,12,576,768,gelu`, whether it was stored as text or as fields."""
    return ",".join(str(part) for part in value.values()) if isinstance(value, Mapping) else str(value)


def front(search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The Pareto front, fastest first."""
    rows = [{**row, "arch": arch_text(row["arch"])} for row in search.get("pareto") or []]
    return sorted(rows, key=lambda row: row["latency_ms"])


def affordable(artifacts: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Candidates for the budget slider: those with a lower loss than every faster one, fastest first."""
    if "search" not in artifacts:
        return []
    rows = [row for row in log(artifacts["search"], "journal.jsonl") if row["loss"] is not None]
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["latency_ms"], row["loss"])):
        if not kept or row["loss"] < kept[-1]["loss"]:
            kept.append({"arch": arch_text(row["arch"]), "loss": row["loss"], "latency_ms": row["latency_ms"]})
    return kept


def next_steps(artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    """Shell-quoted paths for the commands that the page shows."""
    steps = {}
    trained = artifacts.get("refine") or artifacts.get("distill")
    if trained:
        steps["student"] = str(trained.path / "student")
    if "export" in artifacts:
        steps["encoder"] = shlex.quote(str(artifacts["export"].path))
    task, labels = classifier_task(artifacts)
    if "classifier" in artifacts:
        steps["classifier"] = shlex.quote(str(artifacts["classifier"].path))
    elif task:
        steps["finetuned"] = shlex.quote(str(artifacts["evaluation"].path / "classifiers" / task))
    # The label to drop is known for a HAP classifier; for topics the user has to choose one.
    if task == "topic" and labels:
        steps["filter_label"] = f" --label {shlex.quote(labels[0])}"
    return steps


def classifier_task(artifacts: Mapping[str, Artifact]) -> tuple[str | None, list[str]]:
    """The task on which the shipped classifier was fine-tuned (HAP if a HAP set was given), and its labels."""
    results = artifacts["evaluation"].results if "evaluation" in artifacts else {}
    for task in ("hap", "topic"):
        if results.get(task):
            labels = results[task].get("labels")
            return task, [str(label) for label in labels] if isinstance(labels, list) else []
    return None, []


def explained_variance(results: Mapping[str, Any]) -> dict[str, Any]:
    """The explained variance to show first and what it refers to: from the evaluation, else the last validation in training."""
    for stage, of in (("evaluation", "last hidden states"), ("refine", "hidden states"), ("distill", "hidden states")):
        value = results.get(stage, {}).get("explained_variance")
        if value is not None:
            return {"value": value, "of": f"of the teacher's {of} on held-out sentences"}
    return {"value": None, "of": "kdnas evaluate measures it"}
