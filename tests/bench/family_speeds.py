"""Seconds of an update of each way of `family_study.py`, so that all ways get as many updates as fit into the same time.

What the chosen ways need takes turns in several rounds, and the fastest round of each counts: other work on the host only makes
updates slow. The times are measured once and kept, so the plan does not change when the study resumes.
"""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from statistics import median
from typing import get_args

from family_setting import Setting, update_times

from kdnas.autodistil.options import Schedule
from kdnas.autodistil.planning import relative_cost
from kdnas.autodistil.run import run_autodistil
from kdnas.distill.run import run_distill
from kdnas.distill.several import run_distill_several, students_of
from kdnas.models.arch import Arch
from kdnas.store.json_files import write_json

K_PER_PASS = {"unordered", "3-nets"}  # ablations of this schedule
WARM, TIMED = 4, 12  # updates of a student alone or side by side
TIMED_A_MEMBER = 2  # updates of a family, for each of its members


def update_seconds(setting: Setting, rounds: int, ways: Collection[str]) -> dict[str, float]:
    """Seconds of an update of each architecture alone, of `side-by-side` (all members), and of each schedule of a family.

    Args:
        setting: the setting.
        rounds: number of rounds.
        ways: the chosen ways; only what they need is measured.
    """
    file = setting.home / f"speeds-{setting.members_digest}.json"
    found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    measures = {name: measure for name, measure in _measures(setting, ways).items() if name not in found}
    for number in range(rounds if measures else 0):
        for name, measure in measures.items():
            seconds = measure(setting.home / "timing", number)
            found[name] = min(seconds, found.get(name, seconds))
            print(f"round {number + 1}: an update of {name} takes {seconds:.3f} s", flush=True)
    write_json(file, found)
    return found


def _measures(setting: Setting, ways: Collection[str]) -> dict[str, Callable[[Path, int], float]]:
    schedules: tuple[Schedule, ...] = get_args(Schedule)
    without = {*schedules, *K_PER_PASS, "side-by-side", "untrained"}
    found: dict[str, Callable[[Path, int], float]] = {}
    if set(ways) - without:
        found |= {str(arch): _alone(setting, arch) for arch in setting.archs}
    if "side-by-side" in ways:
        found["side-by-side"] = _together(setting)
    for schedule in schedules:
        if schedule in ways or (schedule == "k-per-pass" and K_PER_PASS & set(ways)):
            found[schedule] = _family(setting, schedule)
    return found


def _alone(setting: Setting, arch: Arch) -> Callable[[Path, int], float]:
    def measure(home: Path, number: int) -> float:
        options = setting.alone(number, WARM + TIMED, log_every=1)
        artifact = run_distill(home, setting.teacher, setting.corpus, arch, options)
        return median(update_times(artifact.path)[WARM:])

    return measure


def _together(setting: Setting) -> Callable[[Path, int], float]:
    """The student whose turn is first waits for the teacher, so only the sum over the students means something."""

    def measure(home: Path, number: int) -> float:
        options = setting.alone(number, WARM + TIMED, log_every=1)
        found = run_distill_several(home / "together", setting.teacher, setting.corpus, list(setting.archs), options)
        times = [update_times(artifact.path)[WARM:] for artifact in students_of(found)]
        return median(map(sum, zip(*times, strict=True)))

    return measure


def _family(setting: Setting, schedule: Schedule) -> Callable[[Path, int], float]:
    """Members differ in cost, so the time is scaled from the timed members to those of a long run, as in `kdnas autodistil`."""

    def measure(home: Path, number: int) -> float:
        steps = WARM + max(TIMED, TIMED_A_MEMBER * len(setting.archs))
        nets = setting.nets(1, number, schedule, steps=steps, log_every=1)
        artifact = run_autodistil(home, setting.teacher, setting.corpus, nets)
        ((space, options),) = nets
        times = update_times(artifact.path / space.name)[WARM:]
        timed, long_run = list(range(WARM, steps)), range(20 * len(space.members) * options.members_per_pass)
        shape = setting.teacher.shape
        scale = relative_cost(space, shape, options, long_run) / relative_cost(space, shape, options, timed)
        return sum(times) * scale / len(long_run)

    return measure
