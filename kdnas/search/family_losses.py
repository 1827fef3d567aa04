"""The evaluator `family`: held-out losses of students that share the weights of one training (arXiv 2201.12507, Section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas.autodistil.family import KIND, Family
from kdnas.errors import UsageError
from kdnas.models.arch import SearchSpace
from kdnas.models.teacher import Teacher
from kdnas.search.recording import Recording, Source
from kdnas.store.artifact import Artifact
from kdnas.store.progress import say

FEWEST = 3  # architectures for a rank correlation


@dataclass(frozen=True)
class FamilyLosses:
    """The members of a family that are in the published search space, with their losses.

    Args:
        recording: their losses; the digest is the family's.
        members: number of all members.
        seconds: wall time of the training of all members, with their scores.
        tokens: training tokens of all nets together.
    """

    recording: Recording
    members: int
    seconds: float
    tokens: int

    @classmethod
    def load(cls, path: Path, teacher: Teacher) -> "FamilyLosses":
        """Read a family: the folder that `kdnas autodistil` printed.

        Raises:
            UsageError: the folder is no family, its teacher is another one, its losses are not of hidden states, or no member
                is in the published search space.
            KdnasError: a file was changed.
        """
        family, artifact = Family.load(path), Artifact.load(path, KIND)
        if family.teacher.digest != teacher.digest:
            raise UsageError(
                f"search: {path} is of teacher '{family.teacher.spec}', not of '{teacher.spec}'; give its teacher with --teacher"
            )
        if any(row["explained_variance"] is None for row in family.rows.values()):
            raise UsageError(
                f"search: the losses of {path} are those of self-attention relations, which are no fraction of a variance; "
                "train a family with `kdnas autodistil --objective hidden-states`"
            )
        tokens = sum(net["tokens"] for net in artifact.results["nets"])
        found = {arch: row["loss"] for arch, row in family.rows.items() if arch in SearchSpace()}
        if not found:
            raise UsageError(
                f"search: no member of {path} is in the published search space, whose latencies a table has; "
                "`kdnas extract --budget-ms` chooses among all members"
            )
        if len(found) < len(family.rows):
            say(
                f"search: {len(family.rows) - len(found)} of {len(family.rows)} members are outside of the published search "
                "space and left out; `kdnas extract --budget-ms` chooses among all"
            )
        source = Source(family.teacher.spec, family.teacher.digest)
        recording = Recording({arch: {0: {0: loss}} for arch, loss in found.items()}, artifact.digest, source)
        return cls(recording, len(family.rows), artifact.manifest["seconds"], tokens)

    def figures(self) -> dict[str, Any]:
        """What the losses cost, for the results of a search."""
        return {
            "members": self.members,
            "in_space": len(self.recording.losses),
            "seconds": self.seconds,
            "seconds_per_member": round(self.seconds / self.members, 3),
            "tokens": self.tokens,
        }

    def ranking(self, other: Recording) -> dict[str, Any]:
        """How well the family ranks the architectures of a recording: Kendall's tau with the recorded losses.

        The tau of the number of parameters without embeddings stands beside it: a family that ranks no better needs no training.

        Raises:
            UsageError: fewer than three architectures are in both.
        """
        shared = [arch for arch in self.recording.losses if arch in other.losses]
        if len(shared) < FEWEST:
            raise UsageError(
                f"search: the recording has {len(shared)} of the family's {len(self.recording.losses)} members, at least "
                f"{FEWEST} are needed to compare ranks; record the family's values with the --space options of `kdnas record`"
            )
        recorded = [other(arch).loss for arch in shared]
        return {
            "recording": other.digest,
            "archs": len(shared),
            "tau": _tau([self.recording(arch).loss for arch in shared], recorded),
            "tau_of_parameters": _tau([-arch.layer_parameters for arch in shared], recorded),
        }


def _tau(one: Sequence[float], other: Sequence[float]) -> float:
    from scipy.stats import kendalltau

    return round(float(kendalltau(one, other).statistic), 4)


def describe(figures: dict[str, Any], ranking: dict[str, Any] | None) -> str:
    """One line of what the family cost and how well it ranks."""
    cost = f"{figures['members']} members in {figures['seconds']:,.0f} s, {figures['seconds_per_member']:,.1f} s each"
    if ranking is None:
        return f"the family: {cost}; how well it ranks is not known without --compare"
    return (
        f"the family: {cost}; Kendall's tau {ranking['tau']:.2f} with {ranking['archs']} recorded losses "
        f"(number of parameters {ranking['tau_of_parameters']:.2f})"
    )
