"""Recorded losses of proxy distillation, for comparing strategies without distilling again."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.search.outcome import ProxyResult
from kdnas.store.artifact import file_sha256

FILE = "recording.csv"
COLUMNS = ("id", "layers", "heads", "hidden", "ffn", "activation", "seed", "tokens", "loss", "seconds")


@dataclass(frozen=True)
class Recording:
    """Losses of architectures by seed and by the tokens that they were distilled on.

    Args:
        losses: architecture to seed to tokens to held-out loss, as a fraction of the teacher's variance.
        digest: changes when the file does.
    """

    losses: dict[Arch, dict[int, dict[int, float]]]
    digest: str

    def within(self, space: Iterable[Arch] | SearchSpace) -> list[Arch]:
        """Recorded architectures of a space, in its order.

        Raises:
            UsageError: no architecture of the space is recorded.
        """
        found = [arch for arch in space if arch in self.losses]
        if not found:
            raise UsageError(f"recording: none of its {len(self.losses)} architectures is in the space; widen --space")
        return found

    def __call__(self, arch: Arch) -> ProxyResult:
        """The loss of an architecture's first seed at the end of the budget."""
        by_tokens = self.losses[arch][min(self.losses[arch])]
        tokens = max(by_tokens)
        return ProxyResult(by_tokens[tokens], tokens)


def read_recording(path: Path) -> Recording:
    """A recording's CSV, or the folder that `kdnas record` printed.

    Raises:
        UsageError: the file is missing, or lacks a column.
    """
    file = path / FILE if path.is_dir() else path
    losses: dict[Arch, dict[int, dict[int, float]]] = {}
    try:
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                arch = Arch(
                    int(row["layers"]), int(row["heads"]), int(row["hidden"]), int(row["ffn"]), row["activation"]
                )
                losses.setdefault(arch, {}).setdefault(int(row["seed"]), {})[int(row["tokens"])] = float(row["loss"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{file}: not a recording ({type(error).__name__}: {error}); give what `kdnas record` printed"
        ) from error
    if not losses:
        raise UsageError(f"{file}: no losses in it; give what `kdnas record` printed")
    return Recording(losses, file_sha256(file))
