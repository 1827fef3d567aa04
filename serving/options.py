"""Options of the service."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdnas.errors import UsageError
from kdnas.export.session import BATCH_TOKENS

POSITIVE = (
    "max_texts", "max_body_bytes", "max_header_bytes", "max_queue_texts", "max_batch_tokens", "shutdown_seconds", "streams",
)  # fmt: skip
ABOVE_ZERO = ("max_queue_seconds", "request_seconds", "receive_seconds", "stuck_seconds")


@dataclass(frozen=True)
class ServeOptions:
    """Limits, batching and operation of the service.

    Args:
        max_texts: maximum number of texts in one request.
        max_body_bytes: maximum size of a request body in bytes.
        max_header_bytes: maximum size of a request's headers in bytes.
        max_queue_texts: maximum number of waiting texts; further requests get 429 with Retry-After.
        max_queue_seconds: maximum estimated time in seconds of the waiting work; further requests get 429 with Retry-After.
        max_batch_tokens: maximum number of padded tokens in one batch; larger requests are run in slices of this size.
        max_wait_ms: maximum time in ms that a request waits to be batched with others; a single request does not wait.
        request_seconds: maximum time in seconds of a request; a request may ask for less with the header x-timeout-ms.
        receive_seconds: maximum time in seconds in which headers and body of a request must arrive.
        too_long: what happens to a text with more tokens than the model reads, unless the request says: `error` refuses it,
            `truncate` cuts it, `windows` reads it in overlapping parts.
        threshold: probability from which a label is given (`labels` of a multi-label model, detections), for all labels; by
            default the thresholds by label and language in the model's thresholds.json, or 0.5.
        streams: calls of a model that run in parallel, with its threads divided among them.
        key_file: file with the keys that requests must have as `Authorization: Bearer KEY`, one a line; read again on reload.
        anonymous: serve without keys on addresses that other machines reach.
        cors_origins: origins whose pages may call the service in a browser, for example https://example.org.
        access_log: write one JSON line for each request to stdout, without texts.
        trace: record OpenTelemetry spans of requests; run the service with `opentelemetry-instrument`, which sends them.
        stuck_seconds: /livez fails if one call of a model takes longer; one of several processes that fails for as long, or is
            frozen, is killed and replaced.
        drain_seconds: seconds after SIGTERM during which the service still answers, while /readyz returns 503.
        shutdown_seconds: maximum seconds, after the drain, in which requests in flight may finish.
    """

    max_texts: int = 128
    max_body_bytes: int = 2_000_000
    max_header_bytes: int = 16_384
    max_queue_texts: int = 1024
    max_queue_seconds: float = 10.0
    max_batch_tokens: int = BATCH_TOKENS
    max_wait_ms: float = 2.0
    request_seconds: float = 60.0
    receive_seconds: float = 10.0
    too_long: Literal["error", "truncate", "windows"] = "error"
    threshold: float | None = None
    streams: int = 1
    key_file: Path | None = None
    anonymous: bool = False
    cors_origins: tuple[str, ...] = ()
    access_log: bool = False
    trace: bool = False
    stuck_seconds: float = 60.0
    drain_seconds: float = 0.5
    shutdown_seconds: int = 30

    def __post_init__(self) -> None:
        for name in POSITIVE:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ABOVE_ZERO:
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; more than 0 is needed")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold is {self.threshold}; allowed are 0 to 1")
        for name in ("max_wait_ms", "drain_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; 0 or more is needed")
