"""Shapes made by hand, distilled like the candidates: what a search has to beat."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdnas.models.arch import Arch, SearchSpace
from kdnas.search.explore import EvaluateAll
from kdnas.search.journal import Candidate
from kdnas.search.options import SearchOptions
from kdnas.search.reward import reward
from kdnas.store.artifact import append_jsonl, read_jsonl
from kdnas.store.progress import stage

FILE = "baselines.jsonl"
# The paper's (Table 2); its DistilBERT has the shape of its 6L-768H.
SHAPES = {"6L-384H": Arch(6, 12, 384, 1536), "6L-768H, DistilBERT": Arch(6, 12, 768, 3072)}


def possible(space: SearchSpace, latencies: Mapping[Arch, float]) -> dict[str, Arch]:
    """Those whose depth the space has and whose latency is known."""
    return {name: arch for name, arch in SHAPES.items() if arch.layers in space.layers and arch in latencies}


def measure_baselines(
    path: Path,
    shapes: Mapping[str, Arch],
    evaluate_all: EvaluateAll,
    candidates: Sequence[Candidate],
    latencies: Mapping[Arch, float],
    teacher_latency_ms: float,
    options: SearchOptions,
) -> list[dict[str, Any]]:
    """Distil what was neither a candidate nor measured before an interruption.

    Args:
        path: journal of the baselines.
        shapes: by name.
        evaluate_all: distils architectures, to the end.
        candidates: of the search.
        latencies: milliseconds of each architecture.
        teacher_latency_ms: the teacher's.
        options: exponents of the reward.

    Returns:
        A row each: name, arch, loss (None where it failed), latency_ms, reward, tokens, failed.
    """
    rows = {row["name"]: row for row in read_jsonl(path)}
    known = {one.arch: one for one in candidates if one.loss is not None}

    def keep(name: str, loss: float | None, tokens: int, failed: str | None) -> None:
        arch = shapes[name]
        latency_ms = latencies[arch]
        worth = None if loss is None else reward(loss, latency_ms, teacher_latency_ms, options.alpha, options.beta)
        rows[name] = {"name": name, "arch": str(arch), "loss": loss, "latency_ms": latency_ms, "reward": worth}
        rows[name] |= {"tokens": tokens, "failed": failed}
        append_jsonl(path, rows[name])

    for name, arch in shapes.items():
        if name not in rows and arch in known:
            keep(name, known[arch].loss, known[arch].tokens, None)
    missing = [name for name in shapes if name not in rows]
    if missing:
        with stage("search: baselines", len(missing)) as progress:
            for place, found in evaluate_all([shapes[name] for name in missing]):
                keep(missing[place], None if found.failed else found.result.loss, found.result.tokens, found.failed)
                progress.advance(1, missing[place])
    return [rows[name] for name in shapes]
