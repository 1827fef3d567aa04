"""The journal of a search: one append-only, fsynced line per finished candidate."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kdnas.models.arch import Arch, arch_id
from kdnas.store.json_files import append_jsonl, read_jsonl

FILE = "journal.jsonl"


@dataclass(frozen=True)
class Candidate:
    """One evaluated architecture.

    Args:
        number: its index in the search, from 0.
        episode: from 0.
        arch: the architecture.
        explored: chosen at random, not by the strategy's model.
        loss: proxy loss on held-out sentences (`ProxyResult`); None if it failed.
        latency_ms: from the latency table.
        reward: Eq. 4; None if it failed.
        predicted_reward: the reward that the strategy expected; None before it has a model.
        tokens: number of training tokens in its distillation.
        seconds: wall time of its evaluation.
        failed: the reason if it has no loss, otherwise None.
    """

    number: int
    episode: int
    arch: Arch
    explored: bool
    loss: float | None
    latency_ms: float
    reward: float | None
    predicted_reward: float | None
    tokens: int
    seconds: float
    failed: str | None = None


def append(path: Path, candidate: Candidate) -> None:
    """Write one candidate durably. Call `read` once before the first: it removes an incomplete last line."""
    row = asdict(candidate) | {"arch": str(candidate.arch), "id": arch_id(candidate.arch)}
    append_jsonl(path, row)


def read(path: Path) -> list[Candidate]:
    """All finished candidates, in order; an empty list if there is no journal yet."""
    rows = []
    for row in read_jsonl(path):
        row.pop("id")
        rows.append(Candidate(**row | {"arch": Arch.parse(row["arch"])}))
    return rows


def best(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate with the highest reward, the faster of equal ones; None if all failed."""
    return max(
        (candidate for candidate in candidates if candidate.reward is not None),
        key=lambda candidate: (candidate.reward, -candidate.latency_ms),
        default=None,
    )
