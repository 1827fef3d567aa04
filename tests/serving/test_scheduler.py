"""The scheduler with a fake model: slices, fairness, refusals."""

import asyncio
import threading

import pytest

from kdnas.serving.jobs import OverloadedError
from kdnas.serving.scheduler import Limits

from .scheduler_fixture import run, running, until


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
