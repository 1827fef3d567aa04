"""State of one running service: its models, their scheduler, keys and metrics; runs the work of requests."""

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from kdnas.serving.group import Group
from kdnas.serving.jobs import ExpiredError, Job, Runner, Task
from kdnas.serving.keys import Keys
from kdnas.serving.metrics import Metrics
from kdnas.serving.model import CANARY, Model
from kdnas.serving.options import ServeOptions
from kdnas.serving.refusals import Kind, RefusalError, refusal_of
from kdnas.serving.scheduler import Limits, Scheduler
from kdnas.serving.tasks import AnswerTask, EntityTask, TextInput, TextTask
from kdnas.store.progress import say

MODEL_HEADER = "x-model"
DEADLINE_HEADER = "x-timeout-ms"
CANARY_SECONDS = 5.0  # in which the canary of /readyz must be answered
FRESH_SECONDS = 1.0  # /readyz needs no canary so soon after an answered request


class Service:
    """One running service.

    Args:
        models: the models, the default first.
        options: limits and operation.
        group: the processes of which this is one; None if it is the only one.

    Raises:
        UsageError: the file of keys is invalid.
    """

    def __init__(self, models: Sequence[Model], options: ServeOptions, group: Group | None = None) -> None:
        self.models = {model.name: model for model in models}
        self.options, self.group = options, group
        self.keys = Keys(options.key_file)
        self.draining = False
        self.in_flight = 0
        self.cut = 0  # requests cut off by the end of the process
        self.warmed = threading.Event()
        self.failure: Exception | None = None
        self._preparing = threading.Lock()
        self._prepared: tuple[list[Model], Keys] | None = None
        limits = Limits(
            options.max_batch_tokens,
            options.max_queue_texts,
            options.max_queue_seconds,
            options.max_wait_ms,
            options.streams,
            options.stuck_seconds,
        )
        self.scheduler = Scheduler(limits, self._observe)
        self.metrics = Metrics()

    def _observe(self, model: Runner, texts: int, tokens: int, tokenise: float, run: float) -> None:
        self.metrics.observe_batch(model.name, texts, tokens, tokenise, run)

    def start(self) -> None:
        """Warm the models in a thread, then start the workers."""
        threading.Thread(target=self._warm, name="kdnas-warm", daemon=True).start()

    def _warm(self) -> None:
        try:
            for model in self.models.values():
                model.warm()
        except Exception as error:
            self.failure = error
            say(f"serve: a model failed: {error}")
        self.scheduler.start()
        self.warmed.set()

    def stop(self) -> None:
        """Finish the waiting work, then end the workers."""
        self.warmed.wait()
        self.scheduler.stop()

    def prepare(self) -> None:
        """Open, verify and warm every model beside the old one, and read the keys again, for `commit`.

        Raises:
            KdnasError: a folder or the file of keys is invalid.
            RefusalError: another reload is running.
        """
        if not self._preparing.acquire(blocking=False):
            raise RefusalError(Kind.OVERLOADED, "another reload is running; try again later", {"Retry-After": "10"})
        try:
            fresh = [model.again() for model in self.models.values()]
            for model in fresh:
                model.warm()
            self._prepared = fresh, Keys(self.options.key_file)
        finally:
            self._preparing.release()

    def commit(self) -> None:
        """Replace models and keys by the prepared ones. Running and waiting requests finish with the old models."""
        if self._prepared is not None:
            fresh, self.keys = self._prepared
            self.models = {model.name: model for model in fresh}
            self.failure = self._prepared = None

    def discard(self) -> None:
        """Forget the prepared models and keys."""
        self._prepared = None

    def gauges(self) -> dict[str, float]:
        """Values of the metrics `kdnas.serving.metrics.GAUGES`, now."""
        return {
            "kdnas_queue_texts": self.scheduler.waiting,
            "kdnas_backlog_seconds": self.scheduler.backlog_seconds,
            "kdnas_requests_in_flight": self.in_flight,
        }

    def dead(self) -> str:
        """Why the process should be restarted; empty if it is alive."""
        return self.scheduler.dead()

    async def unready(self) -> str:
        """Why the service is not ready; empty if it is. Every model must answer a short text."""
        if self.draining:
            return "shutting down"
        if not self.warmed.is_set():
            return "warming up"
        if self.failure is not None:
            return f"a model failed: {self.failure}"
        if time.monotonic() - self.scheduler.succeeded < FRESH_SECONDS:
            return self.dead()
        try:
            for model in list(self.models.values()):
                job = self.scheduler.submit(*canary(model))
                await asyncio.wait_for(job.future, CANARY_SECONDS)
        except TimeoutError:
            return f"a short text was not answered within {CANARY_SECONDS:g} s"
        except Exception as error:
            return f"a short text was not answered: {error}"
        return ""

    def choose(self, name: str | None, tasks: Sequence[str]) -> Model:
        """The model of a request.

        Args:
            name: name in the request; without one, the first model with a fitting task.
            tasks: tasks that the endpoint needs.

        Raises:
            RefusalError: no model has this name, or none has one of these tasks.
        """
        known = ", ".join(self.models)
        if name is not None and name not in self.models:
            raise RefusalError(Kind.NOT_FOUND, f"no model '{name}'; there are {known}")
        candidates = [self.models[name]] if name is not None else list(self.models.values())
        for model in candidates:
            if model.session.task in tasks:
                return model
        found = ", ".join(f"{model.name} ({model.session.task})" for model in candidates)
        raise RefusalError(Kind.OTHER_TASK, f"this needs a model for {' or '.join(tasks)}; given: {found}")

    async def run(self, request: Request, task: Task, items: Sequence[Any]) -> Job:
        """Run the inputs of a request; its results are in the job's `results`.

        The work is abandoned if the client leaves.

        Raises:
            RefusalError: refused, failed, or too late.
        """
        limit = self.options.max_texts
        if len(items) > limit:
            raise RefusalError(
                Kind.TOO_LARGE,
                f"{len(items)} texts in one request; at most {limit} are allowed; send several requests",
            )
        seconds = self._seconds(request)
        if not self.warmed.is_set():
            raise RefusalError(Kind.STOPPED, "the models are warming up; try again", {"Retry-After": "1"})
        try:
            job = self.scheduler.submit(task, items, time.monotonic() + seconds)
        except Exception as error:
            raise refusal_of(error) from error
        watch = asyncio.ensure_future(_left(request, job))
        late = asyncio.get_running_loop().call_later(seconds, _expire, job, seconds)
        try:
            await job.future
        except asyncio.CancelledError:
            if (
                job.abandoned
            ):  # by `_left`; otherwise the process ends, and cancels this task and the watch in any order
                raise RefusalError(Kind.SLOW, "the client left") from None
            job.abandoned = True
            raise
        except Exception as error:
            raise refusal_of(error) from error
        finally:
            watch.cancel()
            late.cancel()
        self.metrics.queue.labels(task.model.name).observe(job.queue_seconds)
        if self.options.trace:
            from kdnas.serving.tracing import record_stages

            record_stages(job)
        return job

    def _seconds(self, request: Request) -> float:
        """Seconds that a request may take."""
        given = request.headers.get(DEADLINE_HEADER)
        if given is None:
            return self.options.request_seconds
        try:
            seconds = float(given) / 1000
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise RefusalError(Kind.INVALID, f"{DEADLINE_HEADER} is {given!r}; give milliseconds, more than 0")
        return min(seconds, self.options.request_seconds)


async def _left(request: Request, job: Job) -> None:
    """Abandon a job when its client leaves."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
    job.abandoned = True
    job.future.cancel()


def _expire(job: Job, seconds: float) -> None:
    job.abandoned = True
    if not job.future.done():
        job.future.set_exception(ExpiredError(f"not finished within {seconds * 1000:g} ms"))


def canary(model: Model) -> tuple[Task, list[Any]]:
    """A short piece of work for a model of any task."""
    if model.session.task == "token-classification":
        return EntityTask(model), [CANARY]
    if model.session.task == "question-answering":
        return AnswerTask(model), [("Who?", CANARY)]
    return TextTask(model), [TextInput(CANARY, too_long="truncate")]
