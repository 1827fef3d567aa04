"""Several students in one `kdnas distill`: the teacher runs once for all of them, and each is an artifact of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdnas.distill.options import DistillOptions
from kdnas.distill.student_artifact import build_student, checked
from kdnas.errors import DivergenceError, UsageError
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

if TYPE_CHECKING:
    from kdnas.distill.side_by_side import Outcome


def require_several(archs: Sequence[Arch], options: DistillOptions) -> None:
    """Check that these students can train side by side; call it before the corpus is built.

    Raises:
        UsageError: an architecture is repeated, `steps` is missing, MLflow is to track the runs, or there are several processes.
    """
    from kdnas.distill.processes import processes

    if len(set(archs)) < len(archs):
        raise UsageError(f"arch is '{'; '.join(map(str, archs))}'; give each architecture once")
    if options.steps is None:
        raise UsageError("several architectures need --steps: with --minutes each student would depend on the others")
    if "mlflow" in options.trackers:
        raise UsageError("trackers is mlflow, which follows one run at a time; use tensorboard, or one architecture")
    if processes().num_processes > 1:
        raise UsageError("several architectures train in one process; start kdnas without a launcher")


def run_distill_several(
    home: Path, teacher: Teacher, corpus: Corpus, archs: Sequence[Arch], options: DistillOptions
) -> dict[Arch, Artifact | DivergenceError]:
    """Distil new students side by side. Those that exist are not trained again, those that were interrupted resume.

    Args:
        home: root folder of all artifacts.
        teacher: the frozen teacher.
        corpus: sentences, tokenised for this teacher.
        archs: the students' architectures.
        options: training options.

    Returns:
        For each architecture the artifact that `run_distill` returns for it, or the error of a student that diverged.

    Raises:
        UsageError: as in `run_distill` and `require_several`.
    """
    require_several(archs, options)
    return _Builds(home, teacher, corpus, options).build(archs)


def students_of(found: Mapping[Arch, Artifact | DivergenceError]) -> list[Artifact]:
    """The artifacts of `run_distill_several`.

    Raises:
        DivergenceError: a student diverged; the others are finished.
    """
    artifacts = []
    for arch, outcome in found.items():
        if isinstance(outcome, DivergenceError):
            raise DivergenceError(f"{arch}: {outcome}") from outcome
        artifacts.append(outcome)
    return artifacts


class _Builds:
    """Artifacts that are open at the same time: each is built inside the work of the one before it."""

    def __init__(self, home: Path, teacher: Teacher, corpus: Corpus, options: DistillOptions) -> None:
        self._home, self._teacher, self._corpus, self._options = home, teacher, corpus, options
        self._folders: dict[Arch, Path] = {}
        self._outcomes: dict[Arch, Outcome] = {}
        self._found: dict[Arch, Artifact | DivergenceError] = {}

    def build(self, archs: Sequence[Arch]) -> dict[Arch, Artifact | DivergenceError]:
        """Open the working folders of all students that do not exist, train them, and publish them."""
        self._build_from(list(archs))
        return {arch: self._found[arch] for arch in archs}

    def _build_from(self, archs: list[Arch]) -> None:
        if not archs:
            self._train()
            return
        arch, rest = archs[0], archs[1:]

        def work(folder: Path) -> dict[str, Any]:
            self._folders[arch] = folder
            self._build_from(rest)
            outcome = self._outcomes[arch]
            if isinstance(outcome, DivergenceError):
                raise outcome
            return outcome

        options = checked(self._options, arch, self._teacher, self._corpus)
        try:
            self._found[arch] = build_student(self._home, self._teacher, self._corpus, arch, options, work)
        except DivergenceError as error:
            self._found[arch] = error
        if arch not in self._folders:  # it existed: `work` was not called
            self._build_from(rest)

    def _train(self) -> None:
        if not self._folders:
            return
        from kdnas.distill.side_by_side import distill_side_by_side

        options = checked(self._options, next(iter(self._folders)), self._teacher, self._corpus)
        self._outcomes |= distill_side_by_side(self._folders, self._home, self._teacher, self._corpus, options)
