"""Searches without distillation: the losses come from a recording or from the members of a family."""

from pathlib import Path
from typing import Any

from kdnas.models.arch import SearchSpace
from kdnas.models.table import LatencyTable
from kdnas.models.teacher import Teacher
from kdnas.search import baselines
from kdnas.search.explored import explored
from kdnas.search.family_losses import FamilyLosses, describe
from kdnas.search.limits import make_goal
from kdnas.search.options import SearchOptions
from kdnas.search.outcome import one_by_one
from kdnas.search.recording import HIDDEN_STATE, Recording, read_recording, require_objective, require_recorded_with
from kdnas.store.artifact import Artifact, build
from kdnas.store.progress import say


def recording_of(path: Path, teacher: Teacher, objective: str = HIDDEN_STATE) -> Recording:
    """Read a recording of this teacher and objective.

    Raises:
        UsageError: it is damaged, or of another teacher or objective.
    """
    recording = read_recording(path)
    require_recorded_with(recording, teacher, "search")
    require_objective(recording, objective, "search")
    return recording


def run_replay(
    home: Path,
    recording: Recording,
    space: SearchSpace,
    table: LatencyTable,
    options: SearchOptions,
    teacher: Teacher | None = None,
) -> Artifact:
    """Search the recorded part of a space; the losses come from the recording.

    Args:
        home: root of artifacts.
        recording: losses of architectures.
        space: values that each field may take.
        table: latencies of the space's architectures and of the teacher.
        options: the search.
        teacher: teacher of the recording; the surrogate uses its shape.

    Raises:
        UsageError: no architecture of the space is recorded, or none is within the limits.
    """
    goal = make_goal(recording.within(space), table, options, teacher)
    shapes = baselines.possible(space, recording.losses) if options.baselines else {}

    def work(path: Path) -> dict[str, Any]:
        results = explored(path, one_by_one(recording), goal, options, table, shapes)
        return results | {"objective": recording.source.objective}

    config = {"space": space, "options": options, "teacher_latency_ms": table.teacher_latency_ms}
    inputs = {"recording": recording.digest, "latency-table": table.digest}
    return build(home, "search", "replay", config | {"teacher": str(goal.teacher)}, inputs, work)


def run_family(
    home: Path,
    losses: FamilyLosses,
    space: SearchSpace,
    table: LatencyTable,
    options: SearchOptions,
    teacher: Teacher,
    recorded: Recording | None = None,
) -> Artifact:
    """Search among the members of a family; their losses are known since its training.

    Args:
        home: root of artifacts.
        losses: the family.
        space: values that each field may take.
        table: latencies of the space's architectures and of the teacher.
        options: the search.
        teacher: teacher of the family.
        recorded: losses of separately distilled architectures, to report how well the family ranks them.

    Raises:
        UsageError: no member is in the space and within the limits, or too few are recorded.
    """
    members = losses.recording
    goal = make_goal(members.within(space), table, options, teacher)
    shapes = baselines.possible(space, members.losses) if options.baselines else {}
    ranking = None if recorded is None else losses.ranking(recorded)
    known = {"objective": HIDDEN_STATE, "family": losses.figures(), "ranking": ranking}

    def work(path: Path) -> dict[str, Any]:
        results = explored(path, one_by_one(members), goal, options, table, shapes) | known
        say(f"search: {describe(losses.figures(), ranking)}")
        return results

    config = {"space": space, "options": options, "teacher_latency_ms": table.teacher_latency_ms}
    inputs = {"family": members.digest, "latency-table": table.digest}
    inputs |= {} if recorded is None else {"recording": recorded.digest}
    return build(home, "search", teacher.label, config, inputs, work)
