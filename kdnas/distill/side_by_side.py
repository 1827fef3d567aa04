"""Distillation of several students side by side: the teacher runs once for each batch, whatever the number of students.

Each student has its own weights, optimizer, random state and checkpoints, and is byte for byte the student of a separate run.
All wait for the one that is behind, for example after an interruption, so that they see the same batch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdnas.distill.checkpoint import set_random_states
from kdnas.distill.fit import Fitting, finished, results_of
from kdnas.distill.loaded_teacher import LoadedTeacher, SharedStates
from kdnas.distill.options import DistillOptions
from kdnas.distill.stages import begin_distillation
from kdnas.distill.turns import Turn, interrupt
from kdnas.distill.validation import mean_losses_of_all
from kdnas.errors import DivergenceError, Terminated
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.progress import stage
from kdnas.text.corpus import Corpus

Outcome = dict[str, Any] | DivergenceError  # the results of a student, or why there are none


def distill_side_by_side(
    folders: Mapping[Arch, Path], home: Path, teacher: Teacher, corpus: Corpus, options: DistillOptions
) -> dict[Arch, Outcome]:
    """Distil new students into the working folders of their artifacts; arguments as for `distill_into`.

    Returns:
        The results of each student. One that diverged has its error instead; the others finish.
    """
    found: dict[Arch, Outcome] = {
        arch: done for arch, folder in folders.items() if (done := finished(folder)) is not None
    }
    waiting = {arch: folder for arch, folder in folders.items() if arch not in found}
    if not waiting:
        return found
    loaded = LoadedTeacher(teacher, corpus, options)
    begun = {arch: begin_distillation(folder, home, loaded, arch, options) for arch, folder in waiting.items()}
    fittings = {arch: one.fitting for arch, one in begun.items()}
    share_teacher(loaded, list(fittings.values()), options.accumulate)
    errors = Together(list(fittings.values())).train()
    for (arch, one), error in zip(begun.items(), errors, strict=True):
        found[arch] = one.finish(results_of(one.fitting)) if error is None else error
    return found


def share_teacher(loaded: LoadedTeacher, fittings: Sequence[Fitting], batches: int) -> None:
    """Let all objectives take the teacher's states from one place."""
    objectives: list[Any] = [fitting.objective for fitting in fittings]
    layers = {layer for objective in objectives for layer in objective.teacher.layers}
    shared = SharedStates(loaded, layers, batches)
    for objective in objectives:
        objective.teacher = shared


class Together:
    """The loops of several students in one process.

    Args:
        fittings: trainings on the same batches.
    """

    def __init__(self, fittings: Sequence[Fitting]) -> None:
        self._fittings = fittings
        self._loops = [fitting.loop() for fitting in fittings]
        self._coming: dict[int, Turn] = {}
        self._errors: list[DivergenceError | None] = [None] * len(fittings)

    def train(self) -> list[DivergenceError | None]:
        """Train all to their planned numbers of updates; returns the error of each that diverged."""
        count = len(self._fittings)
        total = sum(fitting.steps for fitting in self._fittings)
        title = f"distil {count} students" if count > 1 else "distil"
        with stage(title, total, self._done) as progress:
            try:
                for index in range(count):
                    self._advance(index, None)
                while self._coming:
                    self._next()
                    progress.update(self._done, self._note)
            except (KeyboardInterrupt, Terminated) as error:
                for loop in self._loops:
                    interrupt(loop, error)
                raise
        return self._errors

    @property
    def _done(self) -> int:
        return sum(fitting.position.step for fitting in self._fittings)

    @property
    def _note(self) -> str:
        return ", ".join(dict.fromkeys(turn.note for turn in self._coming.values()))

    def _next(self) -> None:
        """The next turn of the students that are furthest behind. A validation comes before the update at the same step."""
        first = min(self._order(turn) for turn in self._coming.values())
        chosen = [index for index, turn in self._coming.items() if self._order(turn) == first]
        answers: Sequence[dict[str, Any] | None] = [None] * len(chosen)
        if self._coming[chosen[0]].validation_due:
            answers = self._validations([self._fittings[index] for index in chosen])
        for index, answer in zip(chosen, answers, strict=True):
            self._advance(index, answer)

    @staticmethod
    def _order(turn: Turn) -> tuple[int, bool]:
        return turn.step, not turn.validation_due

    @staticmethod
    def _validations(fittings: Sequence[Fitting]) -> list[dict[str, Any]]:
        one, objectives = fittings[0], [fitting.objective for fitting in fittings]
        losses = mean_losses_of_all(objectives, one.held_out, one.accelerator)
        return [objective.metrics(loss) for objective, loss in zip(objectives, losses, strict=True)]

    def _advance(self, index: int, answer: dict[str, Any] | None) -> None:
        """Run a loop to its next turn, with its own random state."""
        set_random_states(self._fittings[index].position.rng)
        self._coming.pop(index, None)
        try:
            self._coming[index] = self._loops[index].send(answer)
        except StopIteration:
            pass
        except DivergenceError as error:
            self._errors[index] = error
