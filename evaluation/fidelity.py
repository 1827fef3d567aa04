"""`kdnas fidelity`: test whether the ranking after short distillation holds after long distillation and on real tasks."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from kdnas.cluster import require_ray
from kdnas.distill.building import deciding
from kdnas.distill.options import DistillOptions
from kdnas.distill.run import run_distill
from kdnas.distill.several import run_distill_several
from kdnas.errors import KdnasError, UsageError
from kdnas.evaluation.harness import run_suites
from kdnas.evaluation.rankings import LOSS, rankings, seed_noise, write_taus
from kdnas.evaluation.suite_options import SuiteOptions
from kdnas.models.arch import FIELDS, Arch, SearchSpace
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.search.cluster import all_of
from kdnas.search.full import Full
from kdnas.search.outcome import ProxyResult
from kdnas.search.recording import Recording, read_recording, require_objective, require_recorded_with
from kdnas.store.artifact import Artifact, build
from kdnas.store.digest import digest_of
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import say, stage
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

FILE, TAUS = "fidelity.csv", "fidelity-tau.csv"
LEAST = 5  # minimum number of architectures for a meaningful ranking


@dataclass(frozen=True)
class FidelityOptions:
    """Options of the comparison.

    Args:
        architectures: number of architectures from the recording, evenly spaced in the order of their losses.
        tasks: tasks of `kdnas suites` on which the students are fine-tuned after long distillation; none skips fine-tuning.
        target: minimum Kendall tau of a good enough budget; the lower end of its 95 % interval must reach it.
        seed: seed of the bootstrap.
        together: number of students that train side by side, so that the teacher runs once for all of them; each needs memory
            for its weights and moments. Without effect with `ray`.
    """

    architectures: int = 20
    tasks: tuple[str, ...] = ()
    target: float = 0.8
    seed: int = 0
    together: int = 4

    def __post_init__(self) -> None:
        if self.architectures < LEAST:
            raise UsageError(f"architectures is {self.architectures}; at least {LEAST} are needed")
        if self.together < 1:
            raise UsageError(f"together is {self.together}; it must be at least 1")
        if not 0 < self.target <= 1:
            raise UsageError(f"target is {self.target}; it must be above 0 and at most 1")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must not be negative")


def fidelity(
    options: FidelityOptions,
    recording: Path,
    distill: DistillOptions,
    suites: SuiteOptions = SuiteOptions(seeds=(0,)),
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    space: SearchSpace = SearchSpace(),
    ray: str | None = None,
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Distil recorded architectures with a long schedule, fine-tune them, and measure how well the recording ranks them.

    Args:
        options: options of the comparison.
        recording: folder that `kdnas record` printed, or its CSV file.
        distill: options of the long distillation; `steps` is required.
        suites: options of fine-tuning.
        teacher: teacher of the recording: `builtin:NAME` (`kdnas teachers` lists them), a folder, or a hub id.
        corpus: corpus of the recording: `builtin:pydocs`, a file, or a hub id.
        text: options for reading the corpus.
        space: search space; recorded architectures outside it are ignored.
        ray: `local` or the address of a Ray cluster, to train students in parallel, each on one core; null trains one at a time.
        home: root folder of all artifacts.
        output: folder to which the result is also copied as plain files; null writes only below `home`.

    Raises:
        UsageError: `--distill.steps` is missing, the recording is of another teacher or objective, or it has fewer architectures
            than requested.
    """
    require_output(output, "fidelity")
    if distill.steps is None:
        raise UsageError(
            "distill.steps is missing; a limit in minutes would give each architecture a different budget: add --distill.steps"
        )
    require_ray(ray)
    found = read_recording(recording)
    resolved = resolve_teacher(teacher, home)
    require_recorded_with(found, resolved, "fidelity")
    require_objective(found, distill.objective, "fidelity", "distill.objective")
    space = space.teachable(resolved.layers)
    chosen(found, found.within(space), options.architectures)  # checked before the corpus is built
    built = build_corpus(home, corpus, text, resolved)
    root = home.resolve()
    return deliver(run_fidelity(root, resolved, built, found, space, options, distill, suites, ray), output)


def run_fidelity(
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    recording: Recording,
    space: SearchSpace,
    options: FidelityOptions,
    distill: DistillOptions,
    suites: SuiteOptions,
    ray: str | None = None,
) -> Artifact:
    """Train the missing students and compare the rankings. Each student and each of its scores is a separate artifact.

    Returns:
        Artifact with `fidelity.csv` and `fidelity-tau.csv`; its results contain Kendall's tau of each recorded budget against
        long loss and each task, and the noise of the tasks' seeds.

    Raises:
        UsageError: the recording has fewer architectures than requested.
        KdnasError: the training of too many architectures failed.
    """
    archs = chosen(recording, recording.within(space.teachable(teacher.layers)), options.architectures)
    make = partial(_Trained, home, teacher, corpus, distill, options.tasks, suites)
    if ray is None:
        train_in_groups(home, teacher, corpus, archs, distill, options.together)
    done = _train(archs, make, ray)
    if len(done) < LEAST:
        raise KdnasError(
            f"fidelity: {len(done)} of {len(archs)} architectures could be trained; at least {LEAST} are needed"
        )
    students = {arch: run_distill(home, teacher, corpus, arch, distill) for arch in done}
    by_seed = {arch: seed_scores(home, students[arch].path, options.tasks, suites) for arch in done}
    scores = {arch: {task: mean(found) for task, found in tasks.items()} for arch, tasks in by_seed.items()}
    reference = scores_of(home, teacher.path, options.tasks, suites)

    def work(folder: Path) -> dict[str, Any]:
        losses = {arch: float(student.results["validation_loss"]) for arch, student in students.items()}
        write_rows(folder / FILE, recording, losses, scores, reference)
        ranked = taus(recording, losses, scores, options)
        write_taus(folder / TAUS, ranked["taus"])
        return {
            "architectures": len(done),
            "failed": len(archs) - len(done),
            "steps": distill.steps,
            "tokens": round(mean(student.results["tokens"] for student in students.values())),
            "tasks": list(reference),
            "teacher_scores": reference,
            "seed_noise": seed_noise(list(by_seed.values())),
            **ranked,
        }

    config = {
        "options": {name: value for name, value in asdict(options).items() if name != "together"},
        "distill": deciding(distill),
        "suites": replace(suites, data_root=None),  # the scores depend on the data, not on its path
        "architectures": [str(arch) for arch in done],
    }
    known = digest_of({"teacher": reference, **{str(arch): found for arch, found in scores.items()}})
    digests = {str(arch): student.digest for arch, student in students.items()}
    inputs = {"recording": recording.digest, "scores": known, **digests}
    return build(home, "fidelity", teacher.label, config, inputs, work)


def chosen(recording: Recording, archs: Sequence[Arch], count: int) -> list[Arch]:
    """Choose `count` architectures, evenly spaced in the order of their recorded losses.

    Raises:
        UsageError: there are fewer than `count`.
    """
    if len(archs) < count:
        raise UsageError(
            f"architectures is {count}, but the recording has only {len(archs)} of this space; give a smaller number"
        )
    ordered = sorted(archs, key=lambda arch: recording(arch).loss)
    return [ordered[round(index)] for index in np.linspace(0, len(ordered) - 1, count)]


def train_in_groups(
    home: Path, teacher: Teacher, corpus: Corpus, archs: Sequence[Arch], distill: DistillOptions, size: int
) -> None:
    """Train students side by side, `size` at a time. One that diverges is named when its artifact is asked for."""
    for start in range(0, len(archs), size):
        run_distill_several(home, teacher, corpus, archs[start : start + size], distill)


class _Trained:
    """Distils a student and fine-tunes it; existing artifacts are reused."""

    def __init__(
        self,
        home: Path,
        teacher: Teacher,
        corpus: Corpus,
        distill: DistillOptions,
        tasks: Sequence[str],
        suites: SuiteOptions,
    ) -> None:
        self._home, self._distilled = home, Full(home, teacher, corpus, distill)
        self._student = partial(run_distill, home, teacher, corpus, options=distill)
        self._tasks, self._suites = tasks, suites

    def __call__(self, arch: Arch) -> ProxyResult:
        result = self._distilled(arch)
        scores_of(self._home, self._student(arch=arch).path, self._tasks, self._suites)
        return result


def _train(archs: Sequence[Arch], make: "partial[_Trained]", ray: str | None) -> list[Arch]:
    """The architectures whose training succeeded, in the given order."""
    done = []
    with all_of(make, make(), ray) as evaluate_all, stage("fidelity", len(archs)) as progress:
        for index, attempt in evaluate_all(archs):
            progress.advance(1, str(archs[index]))
            if attempt.failed:
                say(f"fidelity: {archs[index]} left out: {attempt.failed}")
            else:
                done.append(archs[index])
    return sorted(done, key=archs.index)


def scores_of(home: Path, model: Path, tasks: Sequence[str], suites: SuiteOptions) -> dict[str, float]:
    """Mean score of each task over its seeds, from 0 to 1."""
    return {task: mean(found) for task, found in seed_scores(home, model, tasks, suites).items()}


def seed_scores(home: Path, model: Path, tasks: Sequence[str], suites: SuiteOptions) -> dict[str, list[float]]:
    """Score of each task with each of its seeds, from 0 to 1."""
    if not tasks:
        return {}
    runs = [artifact.results for artifact in run_suites(home, str(model), tasks, suites)]
    names = dict.fromkeys(str(run["task"]) for run in runs)
    return {name: [float(run["score"]) for run in runs if run["task"] == name] for name in names}


def budgets(recording: Recording, archs: Sequence[Arch]) -> list[int]:
    """Budgets in tokens at which every one of these architectures has a loss for its first seed, ascending."""
    looks = [set(recording.losses[arch][min(recording.losses[arch])]) for arch in archs]
    return sorted(set.intersection(*looks))


def taus(
    recording: Recording,
    losses: Mapping[Arch, float],
    scores: Mapping[Arch, Mapping[str, float]],
    options: FidelityOptions,
) -> dict[str, Any]:
    """`rankings` of the recorded losses against the long losses and the scores.

    Args:
        recording: losses after each budget.
        losses: losses after long distillation.
        scores: task to score, for each architecture; scores are negated, so that a good ranking has a positive tau here too.
        options: target and seed.
    """
    archs = list(losses)
    targets = {LOSS: np.array([losses[arch] for arch in archs])}
    for task in scores[archs[0]]:
        targets[task] = -np.array([scores[arch][task] for arch in archs])
    short = {
        tokens: np.array([recording.losses[arch][min(recording.losses[arch])][tokens] for arch in archs])
        for tokens in budgets(recording, archs)
    }
    return rankings(short, targets, options.target, options.seed)


def kept_percent(score: float, reference: float) -> float:
    """Retention in percent; not a number if the teacher scores 0."""
    return 100 * score / reference if reference else math.nan


def write_rows(
    file: Path,
    recording: Recording,
    losses: Mapping[Arch, float],
    scores: Mapping[Arch, Mapping[str, float]],
    reference: Mapping[str, float],
) -> None:
    """Write a row for each architecture: recorded loss at each budget, long loss, scores, and retention in percent."""
    looks = budgets(recording, list(losses))
    with file.open("w", newline="") as written:
        table = csv.writer(written, lineterminator="\n")
        kept = [f"{what} {task}" for task in reference for what in ("score", "kept %")]
        table.writerow([*FIELDS, *(f"loss {tokens}" for tokens in looks), "loss", *kept])
        for arch, loss in losses.items():
            short = recording.losses[arch][min(recording.losses[arch])]
            values = [
                value
                for task in reference
                for value in (scores[arch][task], kept_percent(scores[arch][task], reference[task]))
            ]
            cells = [*(short[tokens] for tokens in looks), loss, *values]
            table.writerow([*(getattr(arch, name) for name in FIELDS), *(f"{cell:.6f}" for cell in cells)])
