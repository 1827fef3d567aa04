"""Recorded losses of proxy distillation, for comparing strategies without distilling again."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdnas.distill.options import ObjectiveName
from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.teacher import Teacher
from kdnas.search.drawing import RANDOM
from kdnas.search.outcome import ProxyResult
from kdnas.store.digest import file_sha256

FILE = "recording.csv"
LOSSES = ("id", "layers", "heads", "hidden", "ffn", "activation", "seed", "tokens", "loss", "seconds")
# Recordings of earlier versions lack these: how the architecture was chosen, the teacher, where the row was made, and what the
# architectures learned; it was hidden states.
PROVENANCE = ("origin", "teacher", "teacher_digest", "teacher_shape", "commit", "host", "objective")
HIDDEN_STATE: ObjectiveName = "hidden-state"
COLUMNS = LOSSES + PROVENANCE
DIGITS = 10  # shown of a digest


@dataclass(frozen=True)
class Source:
    """Where a recording comes from; empty or None if its file does not say.

    Args:
        teacher: last part of the teacher's name.
        digest: digest of the teacher.
        shape: architecture of the teacher's layers; None also if no student can have it.
        commits: commits of the source checkout.
        hosts: CPU and cores.
        objective: what the architectures learned; the scale of the losses depends on it.
    """

    teacher: str = ""
    digest: str = ""
    shape: Arch | None = None
    commits: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    objective: str = HIDDEN_STATE


@dataclass(frozen=True)
class Recording:
    """Losses of architectures by seed and by the tokens that they were distilled on.

    Args:
        losses: architecture to seed to tokens to held-out loss: that of the hidden states, as a fraction of the teacher's
            variance, or the distance of the embeddings.
        digest: changes when the file does.
        source: where they come from.
        drawn_at_random: the architectures of a random draw; the others were added by name. None if the file does not say.
    """

    losses: dict[Arch, dict[int, dict[int, float]]]
    digest: str
    source: Source = Source()
    drawn_at_random: frozenset[Arch] | None = None

    def within(self, space: Iterable[Arch] | SearchSpace) -> list[Arch]:
        """Recorded architectures of a space, in its order.

        Raises:
            UsageError: no architecture of the space is recorded.
        """
        found = [arch for arch in space if arch in self.losses]
        if not found:
            raise UsageError(
                f"none of the {len(self.losses)} architectures with a known loss is in the space; widen --space"
            )
        return found

    def __call__(self, arch: Arch) -> ProxyResult:
        """The loss of an architecture's first seed at the end of the budget."""
        by_tokens = self.losses[arch][min(self.losses[arch])]
        tokens = max(by_tokens)
        return ProxyResult(by_tokens[tokens], tokens)


def read_recording(path: Path) -> Recording:
    """A recording's CSV, or the folder that `kdnas record` printed.

    Raises:
        UsageError: the file is missing, lacks a column, or has losses of several teachers or objectives.
    """
    file = path / FILE if path.is_dir() else path
    losses: dict[Arch, dict[int, dict[int, float]]] = {}
    known: dict[str, dict[str, None]] = {name: {} for name in PROVENANCE}  # dictionaries keep the order of the file
    at_random: set[Arch] = set()
    try:
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                arch = Arch(
                    int(row["layers"]), int(row["heads"]), int(row["hidden"]), int(row["ffn"]), row["activation"]
                )
                loss = float(row["loss"])
                if not math.isfinite(loss):
                    raise ValueError(f"the loss of {arch} is {loss}")
                losses.setdefault(arch, {}).setdefault(int(row["seed"]), {})[int(row["tokens"])] = loss
                for name in PROVENANCE:
                    known[name].setdefault(row.get(name) or (HIDDEN_STATE if name == "objective" else ""))
                if row.get("origin") == RANDOM:
                    at_random.add(arch)
        source = _source(file, {name: [value for value in values if value] for name, values in known.items()})
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{file}: not a recording ({type(error).__name__}: {error}); give what `kdnas record` printed"
        ) from error
    if not losses:
        raise UsageError(f"{file}: no losses in it; give what `kdnas record` printed")
    return Recording(losses, file_sha256(file), source, frozenset(at_random) if any(known["origin"]) else None)


def _source(file: Path, known: dict[str, Sequence[str]]) -> Source:
    digests, shapes, objectives = known["teacher_digest"], known["teacher_shape"], known["objective"]
    if len(objectives) > 1:
        raise UsageError(f"{file}: losses of the objectives {', '.join(objectives)}; give a recording of each")
    if len(digests) > 1:
        raise UsageError(
            f"{file}: losses of {len(digests)} teachers (digests {', '.join(one[:DIGITS] for one in digests)}); "
            "give a recording of each"
        )
    return Source(
        " ".join(known["teacher"]),
        " ".join(digests),
        Arch.parse(shapes[0]) if shapes else None,
        tuple(known["commit"]),
        tuple(known["host"]),
        next(iter(objectives), HIDDEN_STATE),
    )


def require_recorded_with(recording: Recording, teacher: Teacher, what: str) -> None:
    """Reject a recording of another teacher; one that does not name its teacher is accepted.

    Args:
        recording: the recording.
        teacher: the teacher that is wanted.
        what: the command, for messages.

    Raises:
        UsageError: the recording names another teacher.
    """
    source = recording.source
    if source.digest not in ("", teacher.digest):
        raise UsageError(
            f"{what}: the recording is of teacher '{source.teacher}' (digest {source.digest[:DIGITS]}), not of "
            f"'{teacher.spec}' (digest {teacher.digest[:DIGITS]}); give the recording's teacher with --teacher, or record one "
            f"with `kdnas record --teacher {teacher.spec}`"
        )


def require_objective(recording: Recording, objective: str, what: str, option: str = "proxy.objective") -> None:
    """Reject a recording of another objective: its losses have another scale.

    Args:
        recording: the recording.
        objective: the objective that is wanted.
        what: the command, for messages.
        option: the command's option that names the objective.

    Raises:
        UsageError: the recording is of another objective.
    """
    found = recording.source.objective
    if found != objective:
        raise UsageError(
            f"{what}: the recording is of objective '{found}', not of '{objective}'; give --{option} {found}, or record losses "
            f"with `kdnas record --proxy.objective {objective}`"
        )
