"""The results of a run as one Markdown table."""

from collections.abc import Iterator, Mapping
from typing import Any

from kdnas.evaluation.report import BY_LANGUAGE, over_languages, retrieval_rows
from kdnas.latency.speed import STUDENT
from kdnas.models.arch import Arch
from kdnas.store.artifact import Artifact

Cell = tuple[str, str]
TASKS = (("topic", "topic task"), ("hap", "HAP"))


def summarise(artifacts: Mapping[str, Artifact]) -> str:
    """Markdown table with one result per row; stages that did not run have no rows.

    Args:
        artifacts: stage name to artifact, in the order of the pipeline.
    """
    lines = ["| measure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _rows(artifacts)]
    return "\n".join(lines) + "\n"


def _rows(artifacts: Mapping[str, Artifact]) -> Iterator[Cell]:
    parts = {
        "corpus": _corpus,
        "latency-table": _table,
        "search": _search,
        "distill": _distill,
        "refine": _refine,
        "evaluation": _evaluation,
        "export": _export,
        "speed": _speed,
    }
    for stage, part in parts.items():
        if stage in artifacts:
            yield from part(artifacts[stage].results)
    yield "minutes", _minutes(artifacts)
    host = next(iter(artifacts.values())).manifest["host"]
    flags = " ".join(host["flags"])
    yield (
        "host",
        f"{host['cpu']}, {host['physical_cores']} cores, {host['memory_gib']} GiB, {flags}; commit {host['commit']}",
    )


def _minutes(artifacts: Mapping[str, Artifact]) -> str:
    """Minutes of each stage; a resumed stage is marked, and its minutes are those of the last attempt."""
    found = []
    for name, artifact in artifacts.items():
        resumed = ", resumed" if artifact.manifest["attempts"] > 1 else ""
        found.append(f"{name} {artifact.manifest['seconds'] / 60:.1f}{resumed}")
    total = sum(artifact.manifest["seconds"] for artifact in artifacts.values()) / 60
    return f"{total:.1f}: {', '.join(found)}"


def _corpus(results: dict[str, Any]) -> Iterator[Cell]:
    train, held_out = results["train_sentences"], results["validation_sentences"]
    yield "corpus", f"{results['sentences']:,} unique sentences: {train:,} train, {held_out:,} held out"


def _table(results: dict[str, Any]) -> Iterator[Cell]:
    error = results["held_out"]
    others = ", ".join(f"{name} {figures['median_abs_pct']:.1f} %" for name, figures in error["baselines"].items())
    yield "latency table", f"{results['measured']} measured, {results['predicted']} predicted ({results['engine']})"
    yield (
        "its held-out error",
        f"median {error['median_abs_pct']:.1f} %, p90 {error['p90_abs_pct']:.1f} % (baselines' medians: {others})",
    )


def _search(results: dict[str, Any]) -> Iterator[Cell]:
    best = next((row for row in results["pareto"] if row["arch"] == results["winner"]), None)
    loss = f", proxy loss {best['loss']:.3f}, {best['latency_ms']:.2f} ms" if best else ""
    yield (
        "search",
        f"{results['candidates']} candidates of {results['proxy_tokens']:,} tokens among {results['space_size']:,}",
    )
    yield "winner", f"`{Arch.parse(results['winner']).name}`, reward {results['winner_reward']:.3f}{loss}"


def _training(results: dict[str, Any]) -> str:
    speed = f"{results['tokens_per_second']:,.0f} tokens/s in {results['precision']}"
    return f"{results['steps']:,} steps, {results['tokens'] / 1e6:.2f} M tokens, {speed}"


def _distill(results: dict[str, Any]) -> Iterator[Cell]:
    if results["explained_variance"] is None:  # embeddings alone
        yield "distil", f"{_training(results)}; distance from the teacher's embeddings {results['validation_loss']:.4f}"
        return
    layers = ", ".join(f"{fraction:.3f}" for fraction in results["explained_variance_layers"].values())
    yield "distil", f"{_training(results)}; explained variance {results['explained_variance']:.3f} (layers {layers})"


def _refine(results: dict[str, Any]) -> Iterator[Cell]:
    yield "refine", f"{_training(results)}; relation loss {results['validation_loss']:.4f}"


def _evaluation(results: dict[str, Any]) -> Iterator[Cell]:
    yield (
        "explained variance, recall@10",
        f"{results['explained_variance']:.3f} of the teacher's last layer, {results['recall_at_10']:.3f}",
    )
    for name, measure in BY_LANGUAGE.items():
        if found := over_languages(results, name):
            mean, lowest, language = found
            yield f"{measure} by language", f"mean {mean:.3f}, lowest {lowest:.3f} ({language})"
    for name, teacher, student, kept in retrieval_rows(results):
        yield (
            name,
            f"teacher {teacher}, student {student}: retention {kept} ({results['retrieval']['queries']:,} queries)",
        )
    for task, title in TASKS:
        figures = results.get(task)
        if figures:
            yield (
                f"{title}, {figures['metric']}",
                f"teacher {100 * figures['teacher']:.1f}, student {100 * figures['student']:.1f}: "
                f"retention {100 * figures['retention']:.1f} % "
                f"({figures['train_examples']:,} train, {figures['test_examples']:,} test examples)",
            )


def _export(results: dict[str, Any]) -> Iterator[Cell]:
    for form, figures in results["forms"].items():
        yield (
            f"{form} against PyTorch",
            f"largest difference {figures['max_abs_diff']:.2g}, cosine at least {figures.get('cosine_min', 1):.4f}, "
            f"{figures['size_mb']:.1f} MB" + _recipe(figures),
        )


def _recipe(figures: dict[str, Any]) -> str:
    """Recipe of an int8 form and the points of score that it loses."""
    if "recipe" not in figures:
        return ""
    return f"; {figures['recipe']}, {figures['loss_points']:.2f} points of {figures['loss_of']} lost"


def _speed(results: dict[str, Any]) -> Iterator[Cell]:
    for row in results["rows"]:
        spread = f" [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"
        if row.get("same_engine_speedup") is not None and row["name"] != STUDENT:
            low, high = row["same_engine_speedup_low"], row["same_engine_speedup_high"]
            spread += (
                f", {row['same_engine_speedup']:.2f} [{low:.2f}, {high:.2f}] times the teacher's in the same engine"
            )
        yield (
            row["name"],
            f"p50 {row['p50_ms']:.2f} ms, p90 {row['p90_ms']:.2f} ms, {row['speedup']:.2f} times as fast{spread}",
        )
