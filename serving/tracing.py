"""OpenTelemetry spans of requests: one for each request, and one each for its time in queue, tokenizer and model.

The service uses the API alone. Whoever runs it configures where spans go, for example with `opentelemetry-instrument`.
"""

import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Status, StatusCode

from kdnas import __version__
from kdnas.serving.jobs import Job


def tracer() -> trace.Tracer:
    """The tracer of the service."""
    return trace.get_tracer("kdnas.serving", __version__)


@contextmanager
def request_span(scope: MutableMapping[str, Any], path: str) -> Iterator[trace.Span]:
    """The span of one request, a child of the caller's span if the header `traceparent` names it.

    Args:
        scope: the ASGI scope of the request.
        path: its path, as in the metrics.
    """
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    attributes = {"http.request.method": scope["method"], "http.route": path}
    with tracer().start_as_current_span(
        f"{scope['method']} {path}", extract(headers), SpanKind.SERVER, attributes
    ) as span:
        yield span


def end_request(span: trace.Span, status: int) -> None:
    """Record the status of a request in its span."""
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def record_stages(job: Job) -> None:
    """Record the stages of a finished job as spans below the current one, back to back until now."""
    stages = (("queue", job.queue_seconds), ("tokenise", job.tokenise_seconds), ("model", job.model_seconds))
    start = time.time_ns() - round(sum(seconds for _, seconds in stages) * 1e9)
    for name, seconds in stages:
        span = tracer().start_span(
            name,
            start_time=start,
            attributes={"kdnas.model": job.task.model.name, "kdnas.texts": len(job.items), "kdnas.tokens": job.tokens},
        )
        start += round(seconds * 1e9)
        span.end(start)
