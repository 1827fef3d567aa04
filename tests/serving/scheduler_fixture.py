"""A scheduler with a fake model."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kdnas.serving.jobs import Prepared, Row, TooManyTokensError
from kdnas.serving.scheduler import Limits, Scheduler


class Model:
    """Returns the sum of each row once `gate` is open, and records its calls."""

    name = "sums"

    def __init__(self) -> None:
        self.seconds_per_token = 1e-3
        self.calls: list[list[list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, rows: Sequence[Row], batch_tokens: int) -> list[np.ndarray]:
        self.calls.append([list(row.ids) for row in rows])
        self.gate.wait(10)
        if any(13 in row.ids for row in rows):
            raise ValueError("bad luck")
        return [np.asarray([sum(row.ids) if 99 not in row.ids else np.nan]) for row in rows]


class Sum:
    """Sums of lists of numbers; a list of more than 8 is split into rows of 4."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.prepared: list[list[int]] = []

    def estimate(self, item: list[int]) -> int:
        return len(item)

    def prepare(self, items: Sequence[list[int]]) -> list[Prepared | Exception]:
        self.prepared += items
        step = 4
        return [
            TooManyTokensError(len(item), 100)
            if len(item) > 100
            else Prepared(
                [Row(item[at : at + step]) for at in range(0, len(item), step)] if len(item) > 8 else [Row(item)]
            )
            for item in items
        ]

    def finish(self, item: list[int], prepared: Prepared, outputs: list[np.ndarray]) -> float:
        return float(sum(output[0] for output in outputs))


LIMITS = Limits(batch_tokens=10, max_queue_texts=6, max_queue_seconds=10.0, max_wait_ms=0.0)


@contextmanager
def running(limits: Limits = LIMITS) -> Any:
    scheduler, task = Scheduler(limits), Sum(Model())
    scheduler.start()
    try:
        yield scheduler, task, task.model
    finally:
        task.model.gate.set()
        if scheduler.failure is None:
            scheduler.stop()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 30))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)
