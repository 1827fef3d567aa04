"""The outermost ASGI layer: counts and times each request, logs it on request, and closes connections during shutdown."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

from kdnas.serving.refusals import Kind, RefusalError, own_error
from kdnas.serving.service import Service

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Front:
    """Counts, times and logs requests, and answers those that the end of the process cuts off.

    Args:
        app: the application.
        service: its service.
        paths: paths of the application; the metrics name all others "other".
    """

    def __init__(self, app: Any, service: Service, paths: set[str]) -> None:
        self.app, self.service, self.paths = app, service, paths

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        service, start = self.service, time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if service.draining:
                    message["headers"] = [
                        *(pair for pair in message["headers"] if pair[0].lower() != b"connection"),
                        (b"connection", b"close"),
                    ]
            await send(message)

        service.in_flight += 1
        path = self._path(scope["path"])
        try:
            if service.options.trace:
                from kdnas.serving.tracing import end_request, request_span

                with request_span(scope, path) as span:
                    await self.app(scope, receive, sending)
                    end_request(span, status)
            else:
                await self.app(scope, receive, sending)
        except asyncio.CancelledError:
            # The process ends and no caller awaits this task: answer instead of raising.
            service.cut += 1
            if not status:
                stopped = own_error(RefusalError(Kind.STOPPED, "the service was stopped before it could answer"))
                await stopped(scope, receive, sending)
        finally:
            service.in_flight -= 1
            seconds = time.perf_counter() - start
            service.metrics.requests.labels(path, str(status or 500)).inc()
            service.metrics.seconds.labels(path).observe(seconds)
            if service.options.access_log:
                log(scope, status or 500, seconds)

    def _path(self, path: str) -> str:
        """The path without the name of a model, or "other"."""
        if path.startswith("/models/"):
            path = "/" + path.removeprefix("/models/").partition("/")[2]
        return path if path in self.paths else "other"


def log(scope: Message, status: int, seconds: float) -> None:
    """Write one line of JSON about a request to stdout: no texts, no query, no keys."""
    state = scope.get("state", {})
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1000, 3),
        "client": (scope.get("client") or ("",))[0],
        **{name: state[name] for name in ("model", "texts", "tokens") if name in state},
    }
    print(json.dumps(line, ensure_ascii=False), file=sys.stdout, flush=True)
