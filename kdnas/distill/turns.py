"""Training loops that take turns, so that the loops of several students can run side by side in one process."""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from kdnas.distill.checkpoint import Position
from kdnas.errors import Terminated
from kdnas.store.progress import stage


class Turn(NamedTuple):
    """What a training loop does next.

    Attributes:
        step: number of updates done.
        validation_due: whether the loop waits for the metrics of a validation; else an update is next.
        note: the last loss, for the progress display.
    """

    step: int
    validation_due: bool
    note: str


# Yields before each update and each validation, and takes the metrics of the validation that it asked for.
TrainingLoop = Generator[Turn, dict[str, Any] | None, Position]


def run_alone(
    loop: TrainingLoop, title: str, done: int, steps: int, validate: Callable[[], dict[str, Any]]
) -> Position:
    """Run one loop to its end with a progress display.

    Args:
        loop: a loop that has not begun.
        title: name of the stage in the progress display.
        done: number of updates that an interrupted run did.
        steps: total number of updates.
        validate: computes the metrics of a validation.
    """
    with stage(title, steps, done) as progress:
        answer = None
        try:
            while True:
                turn = loop.send(answer)
                progress.update(turn.step, turn.note)
                answer = validate() if turn.validation_due else None
        except StopIteration as end:
            progress.update(steps)
            position: Position = end.value
            return position
        except (KeyboardInterrupt, Terminated) as error:
            interrupt(loop, error)
            raise


def interrupt(loop: TrainingLoop, error: BaseException) -> None:
    """Let a loop save its state; does nothing if it has ended."""
    try:
        loop.throw(error)
    except type(error):
        return
