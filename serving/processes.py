"""What holds for all processes of a service: probes, metrics and reloads; and what each process answers to the others."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kdnas.errors import KdnasError
from kdnas.serving.group import Group
from kdnas.serving.refusals import RefusalError
from kdnas.serving.service import Service
from kdnas.serving.wire import dumps

RELOAD_SECONDS = 600.0


async def _livez(service: Service) -> str:
    return service.dead()


async def _readyz(service: Service) -> str:
    return await service.unready()


async def _startupz(service: Service) -> str:
    return "" if service.warmed.is_set() else "warming up"


PROBES: dict[str, Callable[[Service], Awaitable[str]]] = {
    "/livez": _livez,
    "/readyz": _readyz,
    "/startupz": _startupz,
}


async def problem(service: Service, probe: str) -> str:
    """Why a service fails one of `PROBES`; empty if all its processes pass."""
    if service.group is None:
        return await PROBES[probe](service)
    try:
        await service.group.ask_all(probe)
    except KdnasError as error:
        return str(error)
    return ""


async def metrics_text(service: Service) -> bytes:
    """The metrics of all processes, merged, in the text format of Prometheus."""
    group = service.group
    if group is None:
        return service.metrics.text(service.gauges())
    found = await asyncio.gather(
        *(group.ask(number, "GET", "/gauges") for number in group.numbers), return_exceptions=True
    )
    answers = [
        answer for answer in found if not isinstance(answer, BaseException)
    ]  # a process that is replaced has none
    return service.metrics.text(
        {name: sum(answer[name] for answer in answers) for name in service.gauges()}, group.folder
    )


async def reload_all(service: Service) -> list[str]:
    """Replace the models and keys in all processes; if one of them fails, all keep the old ones.

    Returns:
        Names of the models.

    Raises:
        KdnasError: a folder or the file of keys is invalid, or a process does not answer.
        RefusalError: another reload is running.
    """
    try:
        if service.group is None:
            await asyncio.to_thread(service.prepare)
            service.commit()
        else:
            await _reload_group(service.group)
    except RefusalError:
        raise
    except Exception:
        service.metrics.reloads.labels("failed").inc()
        raise
    service.metrics.reloads.labels("done").inc()
    return list(service.models)


async def _reload_group(group: Group) -> None:
    """Prepare the new models one process after the other, so that the others have the cores, then swap in all of them."""
    try:
        for number in group.numbers:
            await group.ask(number, "POST", "/prepare", RELOAD_SECONDS)
    except Exception:
        await asyncio.gather(
            *(group.ask(number, "POST", "/discard") for number in group.numbers), return_exceptions=True
        )
        raise
    # A process that dies now is replaced by one with the new models.
    await asyncio.gather(*(group.ask(number, "POST", "/commit") for number in group.numbers), return_exceptions=True)


def private_app(service: Service) -> Starlette:
    """What a process answers to the others of its group."""

    def probe(check: Callable[[Service], Awaitable[str]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_request: Request) -> Response:
            reason = await check(service)
            return _json({"problem": reason}, 503 if reason else 200)

        return answer

    async def gauges(_request: Request) -> Response:
        return _json(service.gauges())

    async def prepare(_request: Request) -> Response:
        try:
            await asyncio.to_thread(service.prepare)
        except RefusalError as refusal:
            return _json({"problem": refusal.message}, refusal.kind.value[0])
        except Exception as error:
            return _json({"problem": str(error)}, 500)
        return _json({})

    async def commit(_request: Request) -> Response:
        service.commit()
        return _json({})

    async def discard(_request: Request) -> Response:
        service.discard()
        return _json({})

    routes = [Route(path, probe(check)) for path, check in PROBES.items()]
    changes = [Route(f"/{function.__name__}", function, methods=["POST"]) for function in (prepare, commit, discard)]
    return Starlette(routes=[*routes, Route("/gauges", gauges), *changes])


def _json(body: Any, status: int = 200) -> Response:
    return Response(dumps(body), status, media_type="application/json")
