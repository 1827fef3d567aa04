"""The batcher with a fake model: batches, refusals and results."""

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from kdnas.serving.batching import Batcher, OverloadedError, StoppedError


class Model:
    """Returns the sums of the rows once `gate` is open, and records its calls."""

    def __init__(self) -> None:
        self.calls: list[list[list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, rows: list[list[int]], batch_tokens: int) -> np.ndarray:
        self.calls.append(rows)
        self.gate.wait(10)
        if any(13 in row for row in rows):
            raise ValueError("bad luck")
        return np.array([[sum(row)] for row in rows], dtype=np.float32)


def batcher_of(model: Model, warm: Callable[[], None] = lambda: None, wait_ms: float = 0.0) -> Batcher:
    batcher = Batcher(model, warm, batch_tokens=10, max_queue=6, max_wait_ms=wait_ms, observe=lambda rows, tokens: None)
    batcher.start()
    return batcher


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("the condition was never met")


def test_waiting_jobs_run_together_within_the_token_budget() -> None:
    async def main() -> None:
        model = Model()
        batcher = batcher_of(model)
        model.gate.clear()
        first = asyncio.create_task(batcher.submit([[1]]))
        await until(lambda: len(model.calls) == 1)
        rows = [[[1, 2], [3, 4]], [[5, 5, 5, 5]], [[2] * 4], [[9] * 20]]  # 4, 4, 4 and 20 tokens
        others = [asyncio.create_task(batcher.submit(each)) for each in rows]
        await until(lambda: batcher.waiting == 5)
        model.gate.set()
        answers = [(await task).tolist() for task in (first, *others)]
        batcher.stop()
        assert answers == [[[1]], [[3], [7]], [[20]], [[8]], [[180]]]
        assert model.calls == [[[1]], [[1, 2], [3, 4], [5, 5, 5, 5]], [[2] * 4], [[9] * 20]]
        assert batcher.waiting == 0

    asyncio.run(main())


def test_the_batcher_waits_for_others_after_a_round_of_several_jobs() -> None:
    async def main() -> None:
        model = Model()
        batcher = batcher_of(model, wait_ms=5000)
        model.gate.clear()
        tasks = [asyncio.create_task(batcher.submit([[1]]))]  # a single job runs at once, although the wait is long
        await until(lambda: len(model.calls) == 1)
        tasks += [asyncio.create_task(batcher.submit([[number]])) for number in (2, 3)]
        await until(lambda: batcher.waiting == 2)
        model.gate.set()
        await asyncio.gather(*tasks)
        one = asyncio.create_task(batcher.submit([[4]]))
        await asyncio.sleep(0.05)
        assert len(model.calls) == 2  # still waits for a second job
        await asyncio.gather(one, batcher.submit([[5]]))
        batcher.stop()
        assert model.calls[1:] == [[[2], [3]], [[4], [5]]]

    asyncio.run(main())


def test_a_full_queue_refuses_jobs_and_recovers() -> None:
    async def main() -> None:
        model = Model()
        batcher = batcher_of(model)
        model.gate.clear()
        running = asyncio.create_task(batcher.submit([[1]]))
        await until(lambda: len(model.calls) == 1)
        waiting = asyncio.create_task(batcher.submit([[1]] * 5))
        await until(lambda: batcher.waiting == 5)
        with pytest.raises(OverloadedError):
            await batcher.submit([[1]] * 2)
        last = asyncio.create_task(batcher.submit([[1]]))  # exactly full
        await until(lambda: batcher.waiting == 6)
        model.gate.set()
        await asyncio.gather(running, waiting, last)
        assert len(await batcher.submit([[1]] * 9)) == 9  # more than the queue's limit, but the queue is empty
        batcher.stop()

    asyncio.run(main())


def test_an_error_reaches_only_the_jobs_of_its_batch() -> None:
    async def main() -> None:
        batcher = batcher_of(Model())
        with pytest.raises(ValueError, match="bad luck"):
            await batcher.submit([[13]])
        assert (await batcher.submit([[12]])).tolist() == [[12]]
        batcher.stop()

    asyncio.run(main())


def test_cancelled_jobs_do_not_run_and_stop_finishes_the_others() -> None:
    async def main() -> None:
        model = Model()
        batcher = batcher_of(model)
        model.gate.clear()
        tasks = [asyncio.create_task(batcher.submit([[1]]))]
        await until(lambda: len(model.calls) == 1)
        tasks += [asyncio.create_task(batcher.submit([[number] * 6])) for number in (2, 3)]
        await until(lambda: batcher.waiting == 2)
        tasks.pop(1).cancel()
        await asyncio.sleep(0)
        stopping = asyncio.create_task(asyncio.to_thread(batcher.stop))
        await asyncio.sleep(0.05)
        with pytest.raises(StoppedError):
            await batcher.submit([[1]])
        model.gate.set()
        assert [(await task).tolist() for task in tasks] == [[[1]], [[18]]]
        await stopping
        assert model.calls == [[[1]], [[3] * 6]]

    asyncio.run(main())


def test_warm_up_runs_first_and_its_failure_is_recorded() -> None:
    gate = threading.Event()

    def warm() -> None:
        gate.wait(10)
        raise RuntimeError("no such instruction")

    async def main() -> None:
        model = Model()
        batcher = batcher_of(model, warm)
        task = asyncio.create_task(batcher.submit([[1]]))
        await asyncio.sleep(0.05)
        assert not batcher.warmed.is_set()
        assert not model.calls
        gate.set()
        assert (await task).tolist() == [[1]]
        assert str(batcher.failure) == "no such instruction"
        batcher.stop()

    asyncio.run(main())
