"""The queue between requests and models: admission, fair slices, deadlines, and the threads that run the models.

Each request is a job with one or more inputs. A worker tokenises and runs them in slices of about `batch_tokens` tokens, so
each text is tokenised once, outside the event loop. Among the waiting jobs, self-clocked fair queueing (Golestani, INFOCOM 1994)
chooses the next slice: a single text passes a large request, and a stream of single texts does not stop a large request.
"""

import asyncio
import heapq
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdnas.serving.jobs import ExpiredError, InputError, Job, OverloadedError, Row, Runner, StoppedError, Task

LONG_TOKENS = 12_000  # requests with more estimated tokens are tokenised in a thread of their own
OVERHEAD_SECONDS = 2e-4  # part of a request's time that does not depend on its tokens, for admission
SMOOTHING = 0.1  # weight of the newest slice in the measured seconds per token
LOG = logging.getLogger("kdnas")


@dataclass
class Limits:
    """Limits of a scheduler.

    Args:
        batch_tokens: tokens of one slice.
        max_queue_texts: maximum number of waiting inputs.
        max_queue_seconds: maximum estimated seconds of waiting work.
        max_wait_ms: maximum time in ms that a job waits for others after a slice of several jobs; a single job does not wait.
        workers: number of threads that run slices.
        stuck_seconds: a slice that takes longer counts as stuck.
    """

    batch_tokens: int = 1024
    max_queue_texts: int = 1024
    max_queue_seconds: float = 10.0
    max_wait_ms: float = 2.0
    workers: int = 1
    stuck_seconds: float = 60.0


Observe = Callable[[Runner, int, int, float, float], None]


class Scheduler:
    """Threads that run waiting jobs in slices.

    Args:
        limits: limits of the queue and the slices.
        observe: called after each slice with the model, numbers of rows and tokens, and seconds of tokenising and of the model.
    """

    def __init__(self, limits: Limits, observe: Observe = lambda *_: None) -> None:
        self.limits, self._observe = limits, observe
        self._heap: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._virtual = 0.0
        self._latest = 1  # jobs of the latest slice
        self._stopped = False
        self._tokenising = 0  # long jobs in the helper thread
        self._since: dict[int, float] = {}  # worker -> start of its slice
        self._running: dict[int, list[Job]] = {}  # worker -> jobs of its slice
        self._helper = ThreadPoolExecutor(1, "kdnas-tokenise")
        self.waiting = 0  # inputs of jobs that are not finished
        self.backlog_seconds = 0.0  # estimated time of the waiting work
        self.succeeded = 0.0  # time of the latest success
        self.failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"kdnas-worker-{number}", daemon=True)
            for number in range(limits.workers)
        ]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the waiting jobs, then end the workers."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._helper.shutdown(cancel_futures=True)

    def dead(self) -> str:
        """Why no job can make progress; empty if the workers are well."""
        if self.failure is not None:
            return f"a worker has died: {type(self.failure).__name__}: {self.failure}"
        if not self._stopped and not all(thread.is_alive() for thread in self._threads if thread.ident):
            return "a worker has died"
        longest = max((time.monotonic() - since for since in list(self._since.values())), default=0.0)
        return f"a worker is stuck for {longest:.0f} s" if longest > self.limits.stuck_seconds else ""

    def submit(self, task: Task, items: Sequence[Any], deadline: float = math.inf) -> Job:
        """Queue inputs; await the job's `future` for their results. Call it in an event loop.

        Raises:
            OverloadedError: the queue is full.
            StoppedError: the scheduler was stopped, or a worker has died.
        """
        if self._stopped or self.failure is not None:
            raise StoppedError("the service is stopping" if self.failure is None else self.dead())
        limits = self.limits
        loop = asyncio.get_running_loop()
        if self.waiting and self.waiting + len(items) > limits.max_queue_texts:
            raise OverloadedError(self.backlog_seconds)
        job = Job(task, items, loop.create_future(), deadline)
        seconds = self._seconds(job, job.cost) + OVERHEAD_SECONDS
        if self.waiting and self.backlog_seconds + seconds > limits.max_queue_seconds:
            raise OverloadedError(self.backlog_seconds)
        with self._changed:
            if self._stopped:
                raise StoppedError("the service is stopping")
            self.waiting += len(items)
            self.backlog_seconds += seconds
        job.future.add_done_callback(lambda _: self._settled(job, seconds))
        if job.cost > LONG_TOKENS:
            self._tokenising += 1
            self._helper.submit(self._tokenise_long, job)
        else:
            self._push(job)
        return job

    def _seconds(self, job: Job, tokens: int) -> float:
        return tokens * job.task.model.seconds_per_token

    def _settled(self, job: Job, seconds: float) -> None:
        with self._changed:
            self.waiting -= len(job.items)
            if job.future.cancelled() and len(self._heap) > 2 * self.waiting + 64:
                # Clients that left while the worker was busy must not fill the memory.
                self._heap = [entry for entry in self._heap if not entry[2].over]
                heapq.heapify(self._heap)
            self.backlog_seconds = max(0.0, self.backlog_seconds - seconds) if self.waiting else 0.0

    def _push(self, job: Job) -> None:
        with self._changed:
            job.tag = max(self._virtual, job.tag) + job.slice_tokens(self.limits.batch_tokens)
            heapq.heappush(self._heap, (job.tag, next(self._numbers), job))
            self._changed.notify()

    def _tokenise_long(self, job: Job) -> None:
        """Tokenise all inputs of a long job, in the helper thread."""
        try:
            if not job.over and job.deadline > time.monotonic():
                job.tokenise(sum(job.costs))
            self._push(job)
        except Exception as error:
            settle(job, error)
        finally:
            with self._changed:
                self._tokenising -= 1
                self._changed.notify_all()

    def _work(self, number: int) -> None:
        """Run slices until `stop`; an error that is not of a model ends the worker and all jobs."""
        try:
            while jobs := self._gather():
                self._since[number], self._running[number] = time.monotonic(), jobs
                self._run(jobs)
                del self._since[number], self._running[number]
        except BaseException as error:
            LOG.exception("a worker has died")
            with self._changed:
                self.failure = error
                waiting = [job for _, _, job in self._heap]
                self._heap.clear()
            for job in {*waiting, *self._running.pop(number, ())}:
                settle(job, StoppedError(self.dead()))

    def _gather(self) -> list[Job]:
        """The jobs of the next slice, all for one model; empty after `stop`."""
        with self._changed:
            while True:
                while not self._heap and not (self._stopped and not self._tokenising):
                    self._changed.wait()
                self._wait_for_company()
                jobs = self._pick()
                if jobs or (self._stopped and not self._heap and not self._tokenising):
                    self._latest = len(jobs)
                    return jobs

    def _wait_for_company(self) -> None:
        """After a slice of several jobs, wait until as many are queued, or `max_wait_ms` have passed."""
        until = time.monotonic() + self.limits.max_wait_ms / 1000
        while 0 < len(self._heap) < self._latest and not self._stopped:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _pick(self) -> list[Job]:
        """Pop jobs with the smallest tags while they fit into one slice; drop those for which nobody waits."""
        jobs: list[Job] = []
        left, now = self.limits.batch_tokens, time.monotonic()
        while self._heap:
            tag, _, job = self._heap[0]
            if job.over or job.deadline <= now:
                heapq.heappop(self._heap)
                if not job.over:
                    settle(job, ExpiredError("the deadline passed while the request waited"))
                continue
            cost = job.slice_tokens(self.limits.batch_tokens)
            if jobs and (cost > left or job.task.model is not jobs[0].task.model):
                break
            heapq.heappop(self._heap)
            self._virtual = max(self._virtual, tag)
            left -= cost
            jobs.append(job)
        return jobs

    def _run(self, jobs: list[Job]) -> None:
        """Tokenise and run the next slice of each job, and queue what is left."""
        start = time.perf_counter()
        budget = self.limits.batch_tokens
        now = time.monotonic()
        rows: list[tuple[Job, int, Row]] = []
        for job in jobs:
            if job.queue_seconds == 0.0:
                job.queue_seconds = now - job.arrived
            try:
                if not job.rows:
                    job.tokenise(budget)
                rows += [(job, index, row) for index, row in job.take(budget)]
            except Exception as error:
                settle(job, error)
        tokenised = time.perf_counter()
        model = jobs[0].task.model
        outputs = self._outputs(model, [row for _, _, row in rows])
        seconds = time.perf_counter() - tokenised
        tokens = sum(len(row.ids) for _, _, row in rows)
        for (job, index, _), output in zip(rows, outputs, strict=True):
            self._add(job, index, output)
        for job in jobs:
            job.model_seconds += seconds
            if not job.open:
                settle(job, job.results)
                self.succeeded = time.monotonic()
            elif not job.over:
                self._push(job)
        if tokens:
            measured = (time.perf_counter() - start) / tokens
            model.seconds_per_token += SMOOTHING * (measured - model.seconds_per_token)
            self._observe(model, len(rows), tokens, tokenised - start, seconds)

    def _outputs(self, model: Runner, rows: list[Row]) -> list[np.ndarray | Exception]:
        """The output of each row, or its error: after an error of a batch, each row runs alone."""
        if not rows:
            return []
        try:
            return list(model.run(rows, self.limits.batch_tokens))
        except Exception as error:
            if len(rows) == 1:
                return [error]
        return [self._outputs(model, [row])[0] for row in rows]

    def _add(self, job: Job, index: int, output: np.ndarray | Exception) -> None:
        if job.over:
            return
        try:
            if isinstance(output, Exception):
                raise InputError(index, output)
            job.add(index, output)
        except Exception as error:  # each waiting request must get an answer
            settle(job, error)


def settle(job: Job, result: list[Any] | Exception) -> None:
    """Give a job its results or error, from any thread."""
    if isinstance(result, Exception):
        job.abandoned = True  # the rest of it need not run

    def finish() -> None:
        if job.future.done():  # the request was cancelled
            return
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)

    try:
        job.future.get_loop().call_soon_threadsafe(finish)
    except RuntimeError:  # the loop was closed: no caller is waiting
        job.abandoned = True
