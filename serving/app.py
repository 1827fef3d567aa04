"""The HTTP service as an ASGI application: routes of all contracts, probes, metrics, pages."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from kdnas.errors import KdnasError
from kdnas.serving import tei
from kdnas.serving.call import Call
from kdnas.serving.contracts import CONTRACTS, Contract
from kdnas.serving.docs_page import docs_page
from kdnas.serving.front import Front
from kdnas.serving.openapi import MODEL_PREFIX, openapi
from kdnas.serving.processes import metrics_text, problem, reload_all
from kdnas.serving.refusals import Kind, RefusalError, own_error, refusal_of, tei_error
from kdnas.serving.service import Service
from kdnas.serving.try_page import try_page
from kdnas.serving.wire import dumps
from kdnas.store.progress import say


def create_app(service: Service) -> Front:
    """The application of one service; its lifespan starts and stops the workers."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        service.start()
        if service.group is not None:  # the other processes answer meanwhile
            await asyncio.to_thread(service.warmed.wait)
        yield
        await asyncio.to_thread(service.stop)

    routes = []
    for contract in CONTRACTS:
        endpoint = _endpoint(service, contract)
        routes += [Route(prefix + contract.path, endpoint, methods=["POST"]) for prefix in ("", MODEL_PREFIX)]
    middleware = []
    if service.options.cors_origins:
        middleware = [
            Middleware(
                CORSMiddleware,
                allow_origins=list(service.options.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
            )
        ]
    app = Starlette(
        routes=[*routes, *_operations(service), *_pages(service)],
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={HTTPException: _not_found, Exception: _unexpected},
    )
    return Front(app, service, {route.path for route in app.routes if isinstance(route, Route)})


def require_key(service: Service, request: Request) -> None:
    """Raise RefusalError unless the request has one of the keys, if the service has keys."""
    if service.keys and not service.keys.allow(request.headers.get("authorization", "")):
        raise RefusalError(
            Kind.UNAUTHORISED,
            "a key is needed: send the header Authorization: Bearer KEY",
            {"WWW-Authenticate": "Bearer"},
        )


def _endpoint(service: Service, contract: Contract) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            require_key(service, request)
            call = Call(service, request)
            await call.read()
            return await contract.handler(call)
        except Exception as error:
            return contract.errors(refusal_of(error))

    return endpoint


def _with_key(service: Service, answer: Callable[[Request], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            require_key(service, request)
            return await answer(request)
        except RefusalError as refusal:
            return own_error(refusal)

    return endpoint


def _operations(service: Service) -> list[Route]:
    async def livez(_request: Request) -> Response:
        reason = await problem(service, "/livez")
        return _json({"status": reason or "alive"}, 503 if reason else 200)

    async def readyz(_request: Request) -> Response:
        reason = await problem(service, "/readyz")
        return _json({"status": reason or "ready"}, 503 if reason else 200)

    async def startupz(_request: Request) -> Response:
        reason = await problem(service, "/startupz")
        return _json({"status": reason or "started"}, 503 if reason else 200)

    async def health(_request: Request) -> Response:
        reason = await problem(service, "/readyz")
        return tei_error(RefusalError(Kind.STOPPED, reason)) if reason else Response()

    async def metrics(_request: Request) -> Response:
        return Response(await metrics_text(service), media_type=CONTENT_TYPE_LATEST)

    async def info(request: Request) -> Response:
        name = request.path_params.get("model")
        if name is not None and name not in service.models:
            raise RefusalError(Kind.NOT_FOUND, f"no model '{name}'; there are {', '.join(service.models)}")
        return _json(tei.info(service, name))

    async def models(_request: Request) -> Response:
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "kdnas"} for name in service.models]
        return _json({"object": "list", "data": rows})

    async def reload(_request: Request) -> Response:
        if not service.keys:
            raise RefusalError(
                Kind.FORBIDDEN, "reload needs a key; start the service with --key-file FILE, or send it SIGHUP"
            )
        try:
            names = await reload_all(service)
        except KdnasError as error:
            raise RefusalError(Kind.FAILED, f"the old models stay: {error}") from error
        say(f"serve: reloaded {', '.join(names)}")
        return _json({"models": names})

    routes = [Route("/livez", livez), Route("/readyz", readyz), Route("/startupz", startupz), Route("/health", health)]
    for path, function in (
        ("/metrics", metrics),
        ("/info", info),
        (MODEL_PREFIX + "/info", info),
        ("/v1/models", models),
    ):
        routes.append(Route(path, _with_key(service, function)))
    return [*routes, Route("/v1/reload", _with_key(service, reload), methods=["POST"])]


def _pages(service: Service) -> list[Route]:
    document = openapi(CONTRACTS, bool(service.keys), list(service.models))

    async def schema_document(_request: Request) -> Response:
        return _json(document)

    async def docs(_request: Request) -> Response:
        return HTMLResponse(docs_page(document, list(service.models.values())))

    page = try_page()

    async def root(_request: Request) -> Response:
        return HTMLResponse(page)

    return [Route("/", root), Route("/openapi.json", schema_document), Route("/docs", docs)]


def _json(body: Any, status: int = 200) -> Response:
    return Response(dumps(body), status, media_type="application/json")


async def _not_found(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = Kind.METHOD if error.status_code == 405 else Kind.NOT_FOUND
    return own_error(RefusalError(kind, str(error.detail), error.headers))


async def _unexpected(_request: Request, error: Exception) -> Response:
    return own_error(RefusalError(Kind.FAILED, f"internal error: {type(error).__name__}"))
