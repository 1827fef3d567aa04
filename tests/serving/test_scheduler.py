"""The scheduler with a fake model: slices, fairness, refusals, deadlines, failures."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from kdnas.serving.jobs import (
    ExpiredError,
    InputError,
    NotFiniteError,
    OverloadedError,
    Prepared,
    Row,
    StoppedError,
    TooManyTokensError,
)
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


def test_waiting_jobs_run_together_within_the_token_budget() -> None:
    async def main() -> None:
        with running() as (scheduler, task, model):
            model.gate.clear()
            first = scheduler.submit(task, [[1]])
            await until(lambda: len(model.calls) == 1)
            others = [scheduler.submit(task, each) for each in ([[1, 2], [3, 4]], [[5, 5, 5, 5]], [[2] * 4])]
            assert scheduler.waiting == 5
            model.gate.set()
            assert [await job.future for job in (first, *others)] == [[1], [3, 7], [20], [8]]
            assert model.calls == [[[1]], [[1, 2], [3, 4], [5, 5, 5, 5]], [[2] * 4]]
            await until(lambda: (scheduler.waiting, scheduler.backlog_seconds) == (0, 0))

    run(main())


def test_a_single_text_passes_a_large_request() -> None:
    async def main() -> None:
        with running(Limits(batch_tokens=10, max_queue_texts=100, max_wait_ms=0.0)) as (scheduler, task, model):
            model.gate.clear()
            large = scheduler.submit(task, [[1] * 5] * 10)
            await until(lambda: len(model.calls) == 1)
            small = scheduler.submit(task, [[7] * 8])
            model.gate.set()
            await asyncio.gather(large.future, small.future)
            assert [call[0][0] for call in model.calls] == [1, 7, 1, 1, 1, 1]

    run(main())


def test_a_stream_of_single_texts_does_not_stop_a_large_request() -> None:
    async def main() -> None:
        with running(Limits(batch_tokens=10, max_queue_texts=100, max_wait_ms=0.0)) as (scheduler, task, model):

            async def stream() -> None:
                for _ in range(40):
                    await scheduler.submit(task, [[7] * 8]).future

            model.gate.clear()
            streams = [asyncio.create_task(stream()) for _ in range(3)]  # at least two are always waiting
            await until(lambda: len(model.calls) == 1)
            large = scheduler.submit(task, [[1] * 5] * 10)
            model.gate.set()
            await large.future
            assert sum(call[0][0] == 7 for call in model.calls) < 100
            await asyncio.gather(*streams)

    run(main())


def test_each_input_is_tokenised_once_although_a_long_one_takes_several_slices() -> None:
    async def main() -> None:
        with running() as (scheduler, task, model):
            items = [[1] * 40, [2] * 3]
            job = scheduler.submit(task, items)
            assert await job.future == [40, 6]
            assert task.prepared == items
            assert max(sum(map(len, call)) for call in model.calls) <= 10
            assert job.tokens == 43

    run(main())


def test_a_very_long_request_is_tokenised_beside_the_worker() -> None:
    async def main() -> None:
        with running() as (scheduler, task, _):
            names = []
            prepare = task.prepare
            task.estimate = lambda item: 20_000
            task.prepare = lambda items: names.append(threading.current_thread().name) or prepare(items)
            assert await scheduler.submit(task, [[1, 2]]).future == [3]
            assert names == ["kdnas-tokenise_0"]

    run(main())


def test_the_scheduler_waits_for_others_after_a_slice_of_several_jobs() -> None:
    async def main() -> None:
        with running(Limits(batch_tokens=10, max_wait_ms=5000)) as (scheduler, task, model):
            model.gate.clear()
            jobs = [scheduler.submit(task, [[1]])]  # a single job runs at once, although the wait is long
            await until(lambda: len(model.calls) == 1)
            jobs += [scheduler.submit(task, [[number]]) for number in (2, 3)]
            model.gate.set()
            await asyncio.gather(*(job.future for job in jobs))
            one = scheduler.submit(task, [[4]])
            await asyncio.sleep(0.05)
            assert len(model.calls) == 2  # still waits for a second job
            await asyncio.gather(one.future, scheduler.submit(task, [[5]]).future)
            assert model.calls[1:] == [[[2], [3]], [[4], [5]]]

    run(main())


def test_a_full_queue_refuses_without_tokenising_and_recovers() -> None:
    async def main() -> None:
        with running() as (scheduler, task, model):
            model.gate.clear()
            first = scheduler.submit(task, [[1]] * 5)
            await until(lambda: len(model.calls) == 1)
            with pytest.raises(OverloadedError):
                scheduler.submit(task, [[1]] * 2)
            assert len(task.prepared) == 5
            last = scheduler.submit(task, [[1]])  # exactly full
            model.gate.set()
            await asyncio.gather(first.future, last.future)
            assert await scheduler.submit(task, [[1]] * 9).future == [1] * 9  # over the limit, but the queue is empty

    run(main())


def test_admission_is_by_estimated_seconds() -> None:
    async def main() -> None:
        with running(Limits(batch_tokens=10, max_queue_seconds=0.05)) as (scheduler, task, model):
            model.gate.clear()
            jobs = [scheduler.submit(task, [[1] * 40])]  # 40 tokens of 1 ms
            with pytest.raises(OverloadedError) as caught:
                scheduler.submit(task, [[1] * 40])
            assert caught.value.retry_seconds == 1
            jobs.append(scheduler.submit(task, [[1]]))  # a small one still fits
            model.gate.set()
            await asyncio.gather(*(job.future for job in jobs))

    run(main())


def test_a_failing_input_fails_alone() -> None:
    async def main() -> None:
        with running() as (scheduler, task, model):
            model.gate.clear()
            block = scheduler.submit(task, [[1]])
            await until(lambda: len(model.calls) == 1)
            jobs = [scheduler.submit(task, [row]) for row in ([5], [13], [99], [6])]
            model.gate.set()
            found = await asyncio.gather(*(job.future for job in jobs), return_exceptions=True)
            assert (found[0], found[3]) == ([5], [6])
            assert isinstance(found[1], InputError)
            assert "text 0: bad luck" in str(found[1])
            assert isinstance(found[2], InputError)
            assert isinstance(found[2].cause, NotFiniteError)
            assert await block.future == [1]

    run(main())


def test_an_error_names_the_input() -> None:
    async def main() -> None:
        with running() as (scheduler, task, _):
            with pytest.raises(InputError, match="text 4 has 101 tokens; the model reads at most 100"):
                await scheduler.submit(task, [[1] * 6] * 4 + [[1] * 101]).future
            with pytest.raises(InputError, match="text 2: bad luck"):
                await scheduler.submit(task, [[1], [2], [13]]).future

    run(main())


def test_abandoned_and_expired_work_never_reaches_the_model() -> None:
    async def main() -> None:
        with running() as (scheduler, task, model):
            model.gate.clear()
            first = scheduler.submit(task, [[1]])
            await until(lambda: len(model.calls) == 1)
            cancelled, abandoned = scheduler.submit(task, [[2]]), scheduler.submit(task, [[3]])
            late = scheduler.submit(task, [[4]], time.monotonic() + 0.01)
            last = scheduler.submit(task, [[5]])
            cancelled.future.cancel()
            abandoned.abandoned = True
            await asyncio.sleep(0.02)
            model.gate.set()
            assert [await first.future, await last.future] == [[1], [5]]
            with pytest.raises(ExpiredError):
                await late.future
            assert model.calls == [[[1]], [[5]]]
            assert task.prepared == [[1], [5]]

    run(main())


def test_abandoned_jobs_leave_the_queue_although_the_worker_is_busy() -> None:
    async def main() -> None:
        with running() as (scheduler, task, model):
            model.gate.clear()
            first = scheduler.submit(task, [[1]])
            await until(lambda: len(model.calls) == 1)
            last = scheduler.submit(task, [[2]])
            for _ in range(1000):
                scheduler.submit(task, [[3]]).future.cancel()
                await asyncio.sleep(0)
            assert len(scheduler._heap) < 100
            model.gate.set()
            assert [await first.future, await last.future] == [[1], [2]]
            assert model.calls == [[[1]], [[2]]]

    run(main())


def test_the_rest_of_an_abandoned_request_does_not_run() -> None:
    async def main() -> None:
        with running(Limits(batch_tokens=10, max_queue_texts=100)) as (scheduler, task, model):
            model.gate.clear()
            job = scheduler.submit(task, [[1] * 5] * 20)
            await until(lambda: len(model.calls) == 1)
            job.future.cancel()
            model.gate.set()
            await until(lambda: scheduler.waiting == 0)
            assert await scheduler.submit(task, [[2]]).future == [2]
            assert [call[0][0] for call in model.calls] == [1, 2]

    run(main())


def test_stop_finishes_the_waiting_jobs_and_refuses_others() -> None:
    async def main() -> None:
        with running() as (scheduler, task, model):
            model.gate.clear()
            jobs = [scheduler.submit(task, [[number]]) for number in (1, 2)]
            stopping = asyncio.create_task(asyncio.to_thread(scheduler.stop))
            await until(lambda: scheduler._stopped)
            with pytest.raises(StoppedError):
                scheduler.submit(task, [[3]])
            model.gate.set()
            assert [await job.future for job in jobs] == [[1], [2]]
            await stopping

    run(main())


def test_a_dead_worker_is_reported_and_its_requests_fail() -> None:
    async def main() -> None:
        with running() as (scheduler, task, model):
            assert scheduler.dead() == ""
            model.gate.clear()
            first = scheduler.submit(task, [[1]])
            await until(lambda: len(model.calls) == 1)
            waiting = scheduler.submit(task, [[2]])
            scheduler._observe = lambda *_: (_ for _ in ()).throw(MemoryError("no memory"))
            model.gate.set()
            assert await first.future == [1]
            with pytest.raises(StoppedError, match="no memory"):
                await waiting.future
            assert "MemoryError" in scheduler.dead()
            with pytest.raises(StoppedError, match="a worker has died"):
                scheduler.submit(task, [[3]])

    run(main())


def test_a_stuck_worker_is_reported() -> None:
    async def main() -> None:
        with running(Limits(stuck_seconds=0.05)) as (scheduler, task, model):
            model.gate.clear()
            job = scheduler.submit(task, [[1]])
            await until(lambda: "stuck" in scheduler.dead())
            model.gate.set()
            await job.future
            await until(lambda: scheduler.dead() == "")

    run(main())
