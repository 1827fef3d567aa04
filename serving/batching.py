"""Micro-batching: requests that arrive together run as one batch, in one thread, with a bounded queue."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Predict = Callable[[list[list[int]], int], np.ndarray]


class OverloadedError(Exception):
    """The queue is full; the caller should retry later."""


class StoppedError(Exception):
    """The batcher was closed."""


@dataclass
class Job:
    """The rows of one request, and the future for their results.

    Args:
        rows: lists of token ids.
        loop: event loop of the request.
        future: gets the (N, C) results or the exception.
    """

    rows: list[list[int]]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[np.ndarray]"
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = sum(map(len, self.rows))


class Batcher:
    """A worker thread that runs waiting jobs together.

    A single job runs immediately. After a round of several jobs, their senders are likely to send the next ones soon. The worker
    then waits until as many jobs or `batch_tokens` tokens are queued, or `max_wait_ms` have passed.

    Args:
        predict: function from rows of token ids and a token budget to one result per row, in order.
        warm: called once in the worker before the first job.
        batch_tokens: padded tokens of one call, and tokens gathered for one round.
        max_queue: maximum number of waiting rows; a job that would exceed it is refused.
        max_wait_ms: maximum time in ms that a job waits for others.
        observe: called with the number of rows and tokens of each round.
    """

    def __init__(
        self,
        predict: Predict,
        warm: Callable[[], None],
        batch_tokens: int,
        max_queue: int,
        max_wait_ms: float,
        observe: Callable[[int, int], None],
    ) -> None:
        self._predict, self._warm, self._observe = predict, warm, observe
        self._batch_tokens, self._max_queue, self._max_wait = batch_tokens, max_queue, max_wait_ms / 1000
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._latest = 1  # jobs of the latest round
        self.waiting = 0  # rows in `_jobs`
        self.warmed = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="kdnas-batcher", daemon=True)

    def start(self) -> None:
        """Start the worker; it warms the model first."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the waiting jobs, then end the worker."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    async def submit(self, rows: list[list[int]]) -> np.ndarray:
        """Queue rows and return their results, (N, C) or (N, D).

        Raises:
            OverloadedError: the queue is full.
            StoppedError: the batcher was stopped.
        """
        loop = asyncio.get_running_loop()
        job = Job(rows, loop, loop.create_future())
        with self._changed:
            if self._stopped:
                raise StoppedError
            if self.waiting and self.waiting + len(rows) > self._max_queue:
                raise OverloadedError
            self._jobs.append(job)
            self.waiting += len(rows)
            self._changed.notify_all()
        return await job.future

    def _work(self) -> None:
        try:
            self._warm()
        except Exception as error:
            self.failure = error
        self.warmed.set()
        while jobs := self._gather():
            self._run(jobs)

    def _gather(self) -> list[Job]:
        """The next jobs to run as one batch, at least one; empty after `stop`."""
        with self._changed:
            while not self._jobs and not self._stopped:
                self._changed.wait()
            until = time.monotonic() + self._max_wait
            while len(self._jobs) < self._latest and sum(job.tokens for job in self._jobs) < self._batch_tokens:
                left = until - time.monotonic()
                if left <= 0 or self._stopped:
                    break
                self._changed.wait(left)
            jobs: list[Job] = []
            tokens = 0
            while self._jobs and (not jobs or tokens + self._jobs[0].tokens <= self._batch_tokens):
                jobs.append(self._jobs.popleft())
                tokens += jobs[-1].tokens
                self.waiting -= len(jobs[-1].rows)
            self._latest = len(jobs)
            return jobs

    def _run(self, jobs: list[Job]) -> None:
        jobs = [job for job in jobs if not job.future.cancelled()]
        if not jobs:
            return
        rows = [row for job in jobs for row in job.rows]
        self._observe(len(rows), sum(job.tokens for job in jobs))
        result: np.ndarray | Exception
        try:
            result = self._predict(rows, self._batch_tokens)
        except Exception as error:  # each waiting request must get an answer
            result = error
        first = 0
        for job in jobs:
            last = first + len(job.rows)
            part = result if isinstance(result, Exception) else result[first:last]
            first = last
            try:
                job.loop.call_soon_threadsafe(_settle, job.future, part)
            except RuntimeError:  # the loop was closed: no caller is waiting
                continue


def _settle(future: "asyncio.Future[np.ndarray]", result: np.ndarray | Exception) -> None:
    if future.done():  # the request was cancelled
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
