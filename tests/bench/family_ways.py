"""The ways of `family_study.py` to get students of all members: each trains for the same time and returns stock folders."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from family_setting import Setting, steps_within, student, trained_seconds

from kdnas.autodistil.extract import write_member
from kdnas.autodistil.family import Family
from kdnas.autodistil.options import Schedule
from kdnas.autodistil.planning import relative_cost
from kdnas.autodistil.run import run_autodistil
from kdnas.autodistil.slices import order_neurons
from kdnas.autodistil.sub_space import require_member
from kdnas.distill.loaded_teacher import LoadedTeacher
from kdnas.distill.moments import sample_of, second_moments
from kdnas.distill.run import run_distill
from kdnas.distill.several import run_distill_several, students_of
from kdnas.distill.stages import begun_student
from kdnas.models.arch import Arch
from kdnas.models.folder import model_digest, save_model
from kdnas.models.teacher import load_encoder
from kdnas.store.artifact import Artifact

CARD = "# A student of a study\n"


@dataclass(frozen=True)
class Trained:
    """What a way made.

    Args:
        students: stock folder of each member.
        updates: number of updates of all members together; one that adds up several members' gradients counts once.
        tokens: real tokens of all members together.
        seconds: time of all updates.
    """

    students: dict[Arch, Path]
    updates: int = 0
    tokens: int = 0
    seconds: float = 0.0


Way = Callable[[Setting, dict[str, float], int], Trained]  # of the setting, the seconds of an update, and a seed


def of_artifacts(artifacts: dict[Arch, Artifact]) -> Trained:
    """Students that were distilled alone or side by side."""
    results = [artifact.results for artifact in artifacts.values()]
    return Trained(
        {arch: student(artifact) for arch, artifact in artifacts.items()},
        sum(one["steps"] for one in results),
        sum(one["tokens"] for one in results),
        sum(map(trained_seconds, results)),
    )


def untrained(setting: Setting, speeds: dict[str, float], seed: int) -> Trained:
    """The students of separate distillations before their first update."""
    options = setting.alone(seed, 1)
    loaded, students = LoadedTeacher(setting.teacher, setting.corpus, options), {}
    for arch in setting.archs:
        students[arch] = setting.home / "untrained" / f"seed-{seed}" / arch.name
        if not students[arch].exists():
            students[arch].parent.mkdir(parents=True, exist_ok=True)
            common = (setting.home, setting.teacher, setting.corpus, loaded.encoder, loaded.samples)
            save_model(students[arch], begun_student(arch, *common, options), setting.teacher.path, CARD)
    return Trained(students)


def apart(archs: Callable[[Setting], list[Arch]], steps: Callable[[Setting, float], int]) -> Way:
    """Separate distillations.

    Args:
        archs: the students.
        steps: updates of each, from the seconds of one.
    """

    def way(setting: Setting, speeds: dict[str, float], seed: int) -> Trained:
        return of_artifacts(
            {
                arch: run_distill(
                    setting.home,
                    setting.teacher,
                    setting.corpus,
                    arch,
                    setting.alone(seed, steps(setting, speeds[str(arch)])),
                )
                for arch in archs(setting)
            }
        )

    return way


def side_by_side(setting: Setting, speeds: dict[str, float], seed: int) -> Trained:
    """All members with one teacher pass a batch, without shared weights."""
    options = setting.alone(seed, steps_within(setting.seconds, speeds["side-by-side"]))
    archs = list(setting.archs)
    found = students_of(run_distill_several(setting.home, setting.teacher, setting.corpus, archs, options))
    return of_artifacts(dict(zip(archs, found, strict=True)))


def chain(setting: Setting, speeds: dict[str, float], seed: int) -> Trained:
    """The largest member is distilled, the others are cut out of it as members of a family are, and distilled on."""
    largest, *others = setting.archs
    seconds = setting.chain_first * setting.seconds
    options = setting.alone(seed, steps_within(seconds, speeds[str(largest)]))
    source = (setting.home, setting.teacher, setting.corpus)
    found = {largest: run_distill(*source, largest, options)}
    net = setting.home / "chain" / found[largest].path.name
    if not net.exists():
        net.parent.mkdir(exist_ok=True)
        model = load_encoder(student(found[largest]))
        sample = sample_of(LoadedTeacher(setting.teacher, setting.corpus, options).samples)
        order_neurons(model, second_moments(model, sample, range(1, largest.layers + 1)))
        save_model(net, model, student(found[largest]), CARD)
    for arch in others:
        cut = net.with_name(f"{net.name}-{arch.name}")
        if not cut.exists():
            write_member(cut, net, setting.space, arch, CARD)
        left = (setting.seconds - seconds) / len(others)
        rest = setting.alone(seed, steps_within(left, speeds[str(arch)]))
        found[arch] = run_distill(*source, arch, rest, (cut, model_digest(cut)))
    return of_artifacts(found)


def family(schedule: Schedule, nets: int = 1) -> Way:
    """A family with a schedule, its depths divided over a number of nets."""

    def way(setting: Setting, speeds: dict[str, float], seed: int) -> Trained:
        ((whole, options),) = setting.nets(1, seed, schedule)
        shape, planned = setting.teacher.shape, []
        for space, one in setting.nets(nets, seed, schedule):
            long_run = range(20 * len(whole.members) * options.members_per_pass)
            cost = relative_cost(space, shape, one, long_run) / relative_cost(whole, shape, options, long_run)
            planned.append((space, replace(one, steps=steps_within(setting.seconds / nets, cost * speeds[schedule]))))
        artifact = run_autodistil(setting.home, setting.teacher, setting.corpus, planned)
        return of_family(setting, artifact)

    return way


def unordered(setting: Setting, speeds: dict[str, float], seed: int) -> Trained:
    """The ablation of the order of the neurons."""
    apart_from_ordered = replace(setting, home=setting.home / "unordered")
    with patch("kdnas.autodistil.training.order_neurons"):
        return family("k-per-pass")(apart_from_ordered, speeds, seed)


def of_family(setting: Setting, artifact: Artifact) -> Trained:
    """All members of a family, extracted."""
    opened, students = Family.load(artifact.path), {}
    for arch in opened.members:
        students[arch] = setting.home / "members" / artifact.path.name / arch.name
        if not students[arch].exists():
            students[arch].parent.mkdir(parents=True, exist_ok=True)
            space = require_member(arch, opened.spaces)
            write_member(students[arch], opened.net(space), space, arch, CARD)
    nets = artifact.results["nets"]
    return Trained(
        students,
        sum(net["steps"] for net in nets),
        sum(net["tokens"] for net in nets),
        sum(map(trained_seconds, nets)),
    )


def ways_of(setting: Setting) -> dict[str, Way]:
    """All ways by name; those that only help to judge the others come first."""

    def all_of(one: Setting) -> list[Arch]:
        return list(one.archs)

    def part(count: int) -> Way:
        return apart(lambda one: one.probes, lambda one, seconds: steps_within(one.seconds / count, seconds))

    ways: dict[str, Way] = {
        "untrained": untrained,
        "proxy": apart(all_of, lambda one, _: one.proxy_steps),
        "separate": apart(all_of, lambda one, seconds: steps_within(one.seconds / len(one.archs), seconds)),
        "side-by-side": side_by_side,
        "chain": chain,
        "sandwich": family("sandwich"),
        "one": family("one"),
        "large-to-small": family("large-to-small"),
        "k-per-pass": family("k-per-pass"),
        "unordered": unordered,
    }
    if len(setting.layers) >= 3:
        ways["3-nets"] = family("k-per-pass", 3)
    ways |= {f"separate-of-{count}": part(count) for count in setting.counts}
    if setting.reference_steps:
        ways["reference"] = apart(all_of, lambda one, _: one.reference_steps)
    return ways
