"""Recordings with their latency tables, for a comparison of strategies: one per teacher."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import LatencyTable
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.search.recording import DIGITS, HIDDEN_STATE, Recording, read_recording, require_objective


@dataclass(frozen=True)
class Replay:
    """A recording and the latencies of its architectures.

    Args:
        name: short name of the teacher.
        recording: losses.
        table: latencies.
        space: values that each field may take, as far as the teacher allows.
        shape: architecture of the teacher's layers; None if it is unknown.
    """

    name: str
    recording: Recording
    table: LatencyTable
    space: SearchSpace
    shape: Arch | None

    def states(self, without_teacher_shape: bool = False, only_random: bool = False) -> list[Arch]:
        """The recorded architectures of the space.

        Args:
            without_teacher_shape: leave out those with the teacher's layers, heads and widths, with any activation.
            only_random: leave out those that were added to the recording by name.

        Raises:
            UsageError: the recording does not say what was left out, or nothing is left.
        """
        found = self.recording.within(self.space)
        if only_random:
            drawn = self.recording.drawn_at_random
            if drawn is None:
                raise UsageError(
                    f"only_random is true, but the recording of {self.name} does not say which architectures were drawn at "
                    "random; set it to false, or record again"
                )
            found = [arch for arch in found if arch in drawn]
        if without_teacher_shape:
            found = without_shape(found, self.shape)
        if not found:
            raise UsageError(
                f"only_random is true: no architecture of the recording of {self.name} was drawn at random; set it to false"
            )
        return found


def without_shape(states: Sequence[Arch], shape: Arch | None) -> list[Arch]:
    """Architectures without those that have a shape's layers, heads and widths, with any activation.

    Raises:
        UsageError: the shape is unknown, or nothing is left.
    """
    if shape is None:
        raise UsageError(
            "without_teacher_shape is true, but the shape of the recording's teacher is unknown: give its --teacher"
        )
    own = (shape.layers, shape.heads, shape.hidden, shape.ffn)
    found = [arch for arch in states if (arch.layers, arch.heads, arch.hidden, arch.ffn) != own]
    if states and not found:
        raise UsageError(
            f"without_teacher_shape is true: all {len(states)} recorded architectures have the teacher's shape; "
            "set it to false, or widen --space"
        )
    return found


def open_replays(
    recordings: Sequence[Path],
    tables: Sequence[Path],
    space: SearchSpace,
    teacher: str,
    home: Path,
    objective: str = HIDDEN_STATE,
) -> list[Replay]:
    """Read recordings and the table of each.

    Args:
        recordings: CSV files or folders of `kdnas record`.
        tables: folders of `kdnas latency-table`, in the same order.
        space: values that each field may take.
        teacher: teacher of recordings that do not name theirs.
        home: root of all artifacts, with the fetched teachers.
        objective: what the recorded architectures must have learned.

    Raises:
        UsageError: there are not as many tables as recordings, one cannot be read, a table is of another teacher than its
            recording, or a recording is of another objective.
    """
    if len(recordings) != len(tables) or not recordings:
        raise UsageError(
            f"{len(recordings)} recordings and {len(tables)} tables; give one --table for each --recording, in the same order"
        )
    found: list[Replay] = []
    for file, folder in zip(recordings, tables, strict=True):
        recording, table = read_recording(file), LatencyTable.load(folder)
        require_objective(recording, objective, f"compare-strategies: {file}", "objective")
        known = None if recording.source.digest else resolve_teacher(teacher, home)
        found.append(make_replay(recording, table, space, known, f"table {folder}: "))
    names = [one.name for one in found]
    if len(set(names)) < len(names):  # two recordings of one teacher
        return [
            Replay(f"{one.name} {number}", one.recording, one.table, one.space, one.shape)
            for number, one in enumerate(found, 1)
        ]
    return found


def make_replay(
    recording: Recording, table: LatencyTable, space: SearchSpace, teacher: Teacher | None, where: str = ""
) -> Replay:
    """A recording with its table.

    Args:
        recording: losses.
        table: latencies.
        space: values that each field may take.
        teacher: the recording's teacher, if the recording does not name it; None if it is unknown.
        where: start of messages about the table.

    Raises:
        UsageError: the table is of another teacher.
    """
    source = recording.source
    digest, shape, name = source.digest, source.shape, source.teacher
    if not digest and teacher is not None:
        digest, shape, name = teacher.digest, teacher.shape, teacher.label
    other = bool(digest and table.teacher) and digest != table.teacher
    timed = table.teacher_shape
    if other and not table.teacher_has_weights and timed is not None and shape is not None:
        other = timed.name != shape.name  # a table of a shape without weights fits every teacher of this shape
    if other:
        raise UsageError(
            f"{where}it was measured with another teacher ({table.teacher_spec or 'digest ' + table.teacher[:DIGITS]}) than "
            f"the recording's, {name} (digest {digest[:DIGITS]}); give the tables in the order of the recordings, or measure "
            f"one with `kdnas latency-table --teacher {name}`"
        )
    return Replay(name or "unknown", recording, table, space.teachable(shape.layers) if shape else space, shape)
