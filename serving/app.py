"""The HTTP service as an ASGI application: prediction, health, metrics, documentation, limits."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException as StarletteHTTPException

from kdnas import __version__
from kdnas.errors import UsageError
from kdnas.export.session import BATCH_TOKENS
from kdnas.export.texts import TooLong, TooLongError
from kdnas.serving.batching import Batcher, OverloadedError, StoppedError
from kdnas.serving.page import docs_page
from kdnas.serving.predictor import Predictor
from kdnas.serving.schema import Classified, Embedded, Health, PredictRequest, Problem

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ROUTES = ("/predict", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json")
SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0, 16.0)
# Texts with fewer characters than this are tokenised in the event loop: a thread would cost more.
INLINE_CHARACTERS = 2000


@dataclass(frozen=True)
class ServeOptions:
    """Limits and batching of the service.

    Args:
        max_texts: maximum number of texts in one request.
        max_body_bytes: maximum size of a request body in bytes.
        max_queue_texts: maximum number of waiting texts; further requests get 503 with Retry-After.
        max_batch_tokens: maximum number of padded tokens in one batch.
        max_wait_ms: maximum time in ms that a request waits to be batched with others; a single request does not wait.
        drain_seconds: seconds after SIGTERM during which the service still answers, while /readyz returns 503.
        shutdown_seconds: maximum seconds, after the drain, in which requests in flight may finish.
    """

    max_texts: int = 128
    max_body_bytes: int = 2_000_000
    max_queue_texts: int = 1024
    max_batch_tokens: int = BATCH_TOKENS
    max_wait_ms: float = 2.0
    drain_seconds: float = 0.0
    shutdown_seconds: int = 30

    def __post_init__(self) -> None:
        for name in ("max_texts", "max_body_bytes", "max_queue_texts", "max_batch_tokens", "shutdown_seconds"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("max_wait_ms", "drain_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; 0 or more is needed")


class Service:
    """State of one running service: its model, its batcher, its metrics."""

    def __init__(self, predictor: Predictor, options: ServeOptions) -> None:
        self.predictor, self.options = predictor, options
        self.draining = False
        self.in_flight = 0
        self.cut = 0  # requests cut off by the end of the process
        self.registry = CollectorRegistry()
        self.requests = Counter("kdnas_requests", "Requests answered", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "kdnas_request_seconds", "Time from request to answer", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.texts = Counter("kdnas_texts", "Texts run through the model", registry=self.registry)
        self.tokens = Counter("kdnas_tokens", "Tokens run through the model", registry=self.registry)
        self.batch = Histogram(
            "kdnas_batch_texts", "Texts in one batch", buckets=[2.0**n for n in range(11)], registry=self.registry
        )
        self.batcher = Batcher(
            predictor.predict,
            predictor.session.warm,
            options.max_batch_tokens,
            options.max_queue_texts,
            options.max_wait_ms,
            self._observe,
        )
        queue = Gauge("kdnas_queue_texts", "Texts that wait for the model", registry=self.registry)
        queue.set_function(lambda: self.batcher.waiting)
        flying = Gauge("kdnas_requests_in_flight", "Requests not yet answered", registry=self.registry)
        flying.set_function(lambda: self.in_flight)

    def _observe(self, texts: int, tokens: int) -> None:
        self.texts.inc(texts)
        self.tokens.inc(tokens)
        self.batch.observe(texts)

    def unready(self) -> str:
        """Why the service is not ready; empty if it is ready."""
        if self.draining:
            return "shutting down"
        if not self.batcher.warmed.is_set():
            return "warming up"
        return f"the model failed: {self.batcher.failure}" if self.batcher.failure else ""

    async def token_ids(self, texts: list[str], truncate: bool) -> list[list[int]]:
        """Token ids of texts that the model can read.

        Raises:
            HTTPException: 413 if a text is too long and `truncate` is false.
        """
        small = sum(map(len, texts)) <= INLINE_CHARACTERS
        encode = self.predictor.encode
        policy: TooLong = "truncate" if truncate else "error"
        try:
            return encode(texts, policy) if small else await asyncio.to_thread(encode, texts, policy)
        except TooLongError as error:
            advice = 'send shorter texts, or "truncate": true to cut them'
            raise HTTPException(413, f"{error.fact}; {advice}") from error

    def answer(self, results: np.ndarray) -> dict[str, Any]:
        """Body of the answer to one request, from (N, C) probabilities or (N, D) embeddings."""
        head = {"model": self.predictor.name, "form": self.predictor.session.form}
        values = [[round(value, 6) for value in row] for row in results.tolist()]
        if not self.predictor.classifies:
            return head | {"embeddings": values}
        labels = self.predictor.session.labels
        predictions = []
        for row in values:
            best = max(range(len(row)), key=row.__getitem__)
            predictions.append(
                {"label": labels[best], "score": row[best], "scores": dict(zip(labels, row, strict=True))}
            )
        return head | {"predictions": predictions}


class Front:
    """Outermost ASGI layer: counts and times each request, and records requests that are cut off."""

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        service, start = self.service, time.perf_counter()
        path = scope["path"] if scope["path"] in ROUTES else "other"
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        service.in_flight += 1
        try:
            length = dict(scope["headers"]).get(b"content-length", b"0")
            limit = service.options.max_body_bytes
            refusal = JSONResponse({"error": too_large(limit)}, 413) if int(length) > limit else None
            await (refusal or self.app)(scope, receive, sending)
        except asyncio.CancelledError:
            # The process ends and no caller awaits this task: answer instead of raising.
            service.cut += 1
            if not status:
                stopped = JSONResponse({"error": "the service was stopped before it could answer"}, 503)
                await stopped(scope, receive, sending)
        finally:
            service.in_flight -= 1
            service.requests.labels(path, str(status or 500)).inc()
            service.seconds.labels(path).observe(time.perf_counter() - start)


def too_large(max_body_bytes: int) -> str:
    """Error message for a body over the limit."""
    return f"the body is over {max_body_bytes} bytes; send fewer or shorter texts"


def create_app(service: Service) -> Front:
    """The application of one service; its lifespan starts and stops the batcher."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await asyncio.to_thread(service.batcher.stop)

    session = service.predictor.session
    app = FastAPI(
        title="kdnas",
        version=__version__,
        summary=f"{service.predictor.name}: {session.task}, {session.form}",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        max_body_size=service.options.max_body_bytes,
    )
    _add_errors(app, service.options.max_body_bytes)
    _add_predict(app, service)
    _add_operations(app, service)
    return Front(app, service)


def _add_predict(app: FastAPI, service: Service) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        413: {"model": Problem, "description": "too many texts, or texts that are too long"},
        422: {"model": Problem, "description": "not a valid request"},
        503: {"model": Problem, "description": "overloaded; retry after Retry-After seconds"},
    }
    response_model = Classified if service.predictor.classifies else Embedded
    batcher, limit = service.batcher, service.options.max_texts

    @app.post("/predict", response_model=response_model, responses=refusals, summary="Run the model on texts")
    async def predict(body: PredictRequest) -> Response:
        texts = body.all_texts()
        if len(texts) > limit:
            raise HTTPException(
                413, f"{len(texts)} texts in one request; at most {limit} are allowed; send several requests"
            )
        rows = await service.token_ids(texts, body.truncate)
        try:
            results = await batcher.submit(rows)
        except (OverloadedError, StoppedError) as error:
            raise HTTPException(503, "too many texts are waiting; try again", {"Retry-After": "1"}) from error
        return Response(json.dumps(service.answer(results)), media_type="application/json")


def _add_operations(app: FastAPI, service: Service) -> None:
    @app.get("/livez", response_model=Health, summary="Whether the process is alive")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.get(
        "/readyz",
        response_model=Health,
        summary="Whether the service is ready for requests: 503 until the model is warm, and during shutdown",
        responses={503: {"model": Health, "description": "not ready"}},
    )
    async def readyz() -> JSONResponse:
        reason = service.unready()
        return JSONResponse({"status": reason or "ready"}, 503 if reason else 200)

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi(), service.predictor.session.labels))

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")


def _add_errors(app: FastAPI, max_body_bytes: int) -> None:
    """Give every error response the body {"error": message}."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        problems = []
        for item in error.errors():
            index = ".".join(str(part) for part in item["loc"] if part != "body")
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] == "json_invalid":
                index, message = "", f"not valid JSON: {item.get('ctx', {}).get('error', message)}"
            elif not index and item["type"] in ("model_attributes_type", "dict_type", "missing"):
                message = 'send a JSON object such as {"texts": ["..."]} with the header content-type: application/json'
            problems.append(f"{index}: {message}" if index else message)
        return JSONResponse({"error": "; ".join(problems[:5])}, 422)

    @app.exception_handler(StarletteHTTPException)
    async def refused(_request: Request, error: StarletteHTTPException) -> JSONResponse:
        detail = str(error.detail)
        if detail == "Content Too Large":  # a chunked body, measured while it was read
            detail = too_large(max_body_bytes)
        elif error.status_code == 400:
            detail = "the body cannot be read; send JSON in UTF-8"
        return JSONResponse({"error": detail}, error.status_code, headers=error.headers)
