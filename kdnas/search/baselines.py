"""The paper's hand-designed shapes, distilled like the candidates: the baselines of a search."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import LatencyTable
from kdnas.search.journal import Candidate
from kdnas.search.options import SearchOptions
from kdnas.search.outcome import EvaluateAll
from kdnas.search.reward import reward
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.progress import stage

FILE = "baselines.jsonl"
# The paper's (Table 2); its DistilBERT has the shape of its 6L-768H.
SHAPES = {"6L-384H": Arch(6, 12, 384, 1536), "6L-768H, DistilBERT": Arch(6, 12, 768, 3072)}


def possible(space: SearchSpace, among: Container[Arch] = SearchSpace()) -> dict[str, Arch]:
    """The baselines whose depth is in the space and that are among the given architectures."""
    return {name: arch for name, arch in SHAPES.items() if arch.layers in space.layers and arch in among}


def measure_baselines(
    path: Path,
    shapes: Mapping[str, Arch],
    evaluate_all: EvaluateAll,
    candidates: Sequence[Candidate],
    table: LatencyTable,
    options: SearchOptions,
) -> list[dict[str, Any]]:
    """Distil the baselines that were neither candidates nor measured before an interruption.

    Args:
        path: journal of the baselines.
        shapes: baselines by name.
        evaluate_all: distils architectures.
        candidates: candidates of the search.
        table: latencies.
        options: exponents of the reward.

    Returns:
        A row per shape: name, arch, loss (None if it failed), latency_ms, reward, tokens, failed.
    """
    rows = {row["name"]: row for row in read_jsonl(path)}
    known = {one.arch: one for one in candidates if one.loss is not None}

    def keep(name: str, loss: float | None, tokens: int, failed: str | None) -> None:
        arch = shapes[name]
        latency_ms = table.latency_ms(arch)
        rows[name] = {"name": name, "arch": str(arch), "loss": loss, "latency_ms": latency_ms, "reward": None}
        if loss is not None:
            rows[name]["reward"] = reward(
                loss, latency_ms, table.teacher_latency_ms, options.alpha, options.beta, options.above_one
            )
        rows[name] |= {"tokens": tokens, "failed": failed}
        append_jsonl(path, rows[name])

    for name, arch in shapes.items():
        if name not in rows and arch in known:
            keep(name, known[arch].loss, known[arch].tokens, None)
    missing = [name for name in shapes if name not in rows]
    if missing:
        with stage("search: baselines", len(missing)) as progress:
            for index, found in evaluate_all([shapes[name] for name in missing]):
                keep(missing[index], None if found.failed else found.result.loss, found.result.tokens, found.failed)
                progress.advance(1, missing[index])
    return [rows[name] for name in shapes]
