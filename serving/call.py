"""One request to a model: its body, the choice of the model, and the answer with the headers that state its times."""

import time
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kdnas.serving.jobs import Job
from kdnas.serving.refusals import Kind, RefusalError
from kdnas.serving.service import MODEL_HEADER, Service
from kdnas.serving.wire import Body, BodyError, dumps, parsed, read_json

KINDS = {"large": Kind.TOO_LARGE, "slow": Kind.SLOW, "invalid": Kind.INVALID}


@dataclass
class Call:
    """One request to a model.

    Args:
        service: the service.
        request: the HTTP request.
        body: its body as a Python value.
    """

    service: Service
    request: Request
    body: Any = None
    start: float = field(default_factory=time.perf_counter)

    async def read(self) -> None:
        """Read the body.

        Raises:
            RefusalError: the body is too large, too slow or not JSON, or it does not say that it is JSON.
        """
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise RefusalError(Kind.INVALID, "send a JSON object with the header content-type: application/json")
        options = self.service.options
        try:
            self.body = await read_json(self.request, options.max_body_bytes, options.receive_seconds)
        except BodyError as error:
            headers = {"Connection": "close"} if error.reason == "slow" else {}
            raise RefusalError(KINDS[error.reason], str(error), headers) from error

    def parse(self, kind: type[Body], example: str) -> Body:
        """The body as an object of its class; raises RefusalError if it is none."""
        try:
            return parsed(kind, self.body, example)
        except BodyError as error:
            raise RefusalError(Kind.INVALID, str(error)) from error

    def model_name(self, in_body: str | None = None) -> str | None:
        """The name of the model: from the path, the body or the header, in this order."""
        return self.request.path_params.get("model") or in_body or self.request.headers.get(MODEL_HEADER) or None

    def answer(self, job: Job, characters: int, body: Any) -> Response:
        """The answer with the times in ms that Text Embeddings Inference gives."""
        total = str(round((time.perf_counter() - self.start) * 1000))
        headers = {
            "x-compute-type": "cpu",
            "x-compute-time": total,
            "x-total-time": total,
            "x-compute-characters": str(characters),
            "x-compute-tokens": str(job.tokens),
            "x-queue-time": str(round(job.queue_seconds * 1000)),
            "x-tokenization-time": str(round(job.tokenise_seconds * 1000)),
            "x-inference-time": str(round(job.model_seconds * 1000)),
        }
        self.request.state.tokens = job.tokens
        self.request.state.texts = len(job.items)
        self.request.state.model = job.task.model.name
        return Response(dumps(body), headers=headers, media_type="application/json")
