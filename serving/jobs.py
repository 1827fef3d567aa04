"""The work of one request: its inputs, their tokens and outputs, and its results."""

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


class OverloadedError(Exception):
    """The queue is full.

    Attributes:
        retry_seconds: seconds after which the queue is expected to be empty.
    """

    def __init__(self, retry_seconds: float) -> None:
        super().__init__("too many texts are waiting; try again")
        self.retry_seconds = max(1, math.ceil(retry_seconds))


class StoppedError(Exception):
    """The scheduler was stopped, or its worker has died."""


class ExpiredError(Exception):
    """The job's deadline passed before its end."""


class InputError(Exception):
    """One input of a job failed.

    Attributes:
        index: index of the input in the job.
        cause: what was raised.
    """

    def __init__(self, index: int, cause: Exception) -> None:
        super().__init__(f"text {index}{'' if isinstance(cause, TooManyTokensError) else ':'} {cause}")
        self.index, self.cause = index, cause


class TooManyTokensError(Exception):
    """A text has more tokens than the model reads."""

    def __init__(self, tokens: int, limit: int, more: bool = False) -> None:
        super().__init__(f"has {'more than ' if more else ''}{tokens} tokens; the model reads at most {limit}")


class NotFiniteError(Exception):
    """The model's output is not a finite number."""


@dataclass(frozen=True)
class Row:
    """One row for the engine: token ids, and token types if the input is a pair."""

    ids: Sequence[int]
    types: Sequence[int] | None = None


@dataclass(frozen=True)
class Prepared:
    """A tokenised input: at least one row, and what `Task.finish` needs besides the outputs."""

    rows: Sequence[Row]
    detail: Any = None


class Runner(Protocol):
    """A model as the scheduler sees it.

    Attributes:
        seconds_per_token: measured time of one estimated token, including tokenising.
    """

    name: str
    seconds_per_token: float

    def run(self, rows: Sequence[Row], batch_tokens: int) -> list[np.ndarray]:
        """The output of each row."""


class Task(Protocol):
    """What a job does with its inputs."""

    @property
    def model(self) -> Runner:
        """The model that runs them."""

    def estimate(self, item: Any) -> int:
        """Estimated number of tokens of an input, without tokenising it."""

    def prepare(self, items: Sequence[Any]) -> list[Prepared | Exception]:
        """Each input tokenised, or why it cannot be read."""

    def finish(self, item: Any, prepared: Prepared, outputs: list[np.ndarray]) -> Any:
        """The result of an input from the outputs of its rows."""


@dataclass(eq=False)
class Job:
    """The inputs of one request.

    Args:
        task: what to do with them.
        items: the inputs.
        future: gets the list of results, or the exception.
        deadline: time (`time.monotonic`) after which nobody waits for the results.
    """

    task: Task
    items: Sequence[Any]
    future: "asyncio.Future[list[Any]]"
    deadline: float = math.inf
    costs: list[int] = field(init=False)
    cost: int = field(init=False)  # estimated tokens of all inputs
    tag: float = 0.0  # virtual finish time of the next slice
    arrived: float = field(default_factory=time.monotonic)
    abandoned: bool = False
    tokens: int = 0
    queue_seconds: float = 0.0
    tokenise_seconds: float = 0.0
    model_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.costs = [self.task.estimate(item) for item in self.items]
        self.cost = sum(self.costs)
        self.next = 0  # the first input that is not tokenised
        self.rows: deque[tuple[int, Row]] = deque()  # tokenised, not run
        self.prepared: dict[int, Prepared] = {}
        self.outputs: dict[int, list[np.ndarray]] = {}
        self.results: list[Any] = [None] * len(self.items)
        self.open = len(self.items)

    @property
    def over(self) -> bool:
        """Whether nobody waits for the results."""
        return self.abandoned or self.future.done()

    def slice_tokens(self, budget: int) -> int:
        """Estimated tokens of the next slice of at most `budget` tokens, at least one row or input."""
        if self.rows:
            return min(budget, sum(len(row.ids) for _, row in itertools.islice(self.rows, budget)))
        total = 0
        for cost in self.costs[self.next :]:
            if total and total + cost > budget:
                break
            total += cost
        return min(total, budget)

    def tokenise(self, budget: int) -> None:
        """Tokenise inputs of at most `budget` estimated tokens, at least one.

        Raises:
            InputError: an input cannot be read.
        """
        first, total = self.next, 0
        while self.next < len(self.items) and (self.next == first or total + self.costs[self.next] <= budget):
            total += self.costs[self.next]
            self.next += 1
        start = time.perf_counter()
        found = self.task.prepare(self.items[first : self.next])
        self.tokenise_seconds += time.perf_counter() - start
        for index, prepared in enumerate(found, first):
            if isinstance(prepared, Exception):
                raise InputError(index, prepared)
            self.prepared[index] = prepared
            self.outputs[index] = []
            self.rows.extend((index, row) for row in prepared.rows)

    def take(self, budget: int) -> list[tuple[int, Row]]:
        """Remove the next rows of at most `budget` tokens, at least one."""
        taken: list[tuple[int, Row]] = []
        total = 0
        while self.rows and (not taken or total + len(self.rows[0][1].ids) <= budget):
            taken.append(self.rows.popleft())
            total += len(taken[-1][1].ids)
        self.tokens += total
        return taken

    def add(self, index: int, output: np.ndarray) -> None:
        """Add the output of an input's next row; with the last one, compute the input's result.

        Raises:
            InputError: the output is not finite.
        """
        if not np.isfinite(output).all():
            raise InputError(index, NotFiniteError("the model's output is not a finite number"))
        self.outputs[index].append(output)
        if len(self.outputs[index]) == len(self.prepared[index].rows):
            outputs, prepared = self.outputs.pop(index), self.prepared.pop(index)
            self.results[index] = self.task.finish(self.items[index], prepared, outputs)
            self.open -= 1
