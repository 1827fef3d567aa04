"""The scheduler with a fake model: failures, deadlines, abandoned work, and its end."""

import asyncio
import time

import pytest

from kdnas.serving.jobs import ExpiredError, InputError, NotFiniteError, StoppedError
from kdnas.serving.scheduler import Limits

from .scheduler_fixture import run, running, until


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
