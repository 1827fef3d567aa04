"""The OpenAPI document of the service, made from the classes of the bodies."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from kdnas import __version__
from kdnas.serving.schema import Health, Problem

REFERENCE = "#/components/schemas/{model}"
REFUSALS = {
    "401": "a key is needed",
    "404": "no such model",
    "408": "the body did not arrive in time",
    "413": "too many texts, a text that is too long, or too large a body",
    "422": "not a valid request",
    "424": "the model has another task, or it failed on an input",
    "429": "overloaded; retry after Retry-After seconds",
    "500": "the model failed",
    "503": "the service is starting or stopping",
    "504": "not finished in time",
}
PROBES = {
    "/livez": "Whether the process is alive: 503 if a worker is dead or stuck",
    "/readyz": "Whether the service is ready: 503 during warm-up and shutdown, or if a model does not answer",
    "/startupz": "Whether the service has started: 503 until the models are warm",
}
PLAIN = {
    "/health": "As /readyz, without a body",
    "/metrics": "Metrics for Prometheus",
    "/info": "Models, labels, limits",
}


def openapi(contracts: Sequence[Any]) -> dict[str, Any]:
    """The document.

    Args:
        contracts: the endpoints, `kdnas.serving.app.Contract`s.
    """
    classes: list[Any] = [Problem, Health]
    for contract in contracts:
        classes += [*contract.requests, *([contract.answer] if contract.answer else [])]
    named = {kind: kind.__name__ for kind in classes}
    _, definitions = models_json_schema([(kind, "validation") for kind in named], ref_template=REFERENCE)
    paths: dict[str, Any] = {contract.path: {"post": _operation(contract)} for contract in contracts}
    for path, summary in PROBES.items():
        answers = {status: _content("Health", text) for status, text in (("200", "yes"), ("503", "no"))}
        paths[path] = {"get": {"summary": summary, "responses": answers}}
    for path, summary in PLAIN.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": "the answer"}}}}
    paths["/v1/reload"] = {
        "post": {
            "summary": "Replace the models by those now in their folders; needs a key",
            "responses": _responses(None),
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "kdnas", "version": __version__, "summary": "Classification, embeddings, entities, answers"},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(contract: Any) -> dict[str, Any]:
    schemas = [{"$ref": REFERENCE.format(model=kind.__name__)} for kind in contract.requests]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {
        "summary": contract.summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": _responses(contract.answer),
    }


def _responses(answer: type[BaseModel] | None) -> dict[str, Any]:
    good = _content(answer.__name__, "the answer") if answer else {"description": "the answer"}
    return {"200": good} | {status: {"description": text} for status, text in REFUSALS.items()}


def _content(name: str, description: str) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(model=name)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
