"""The OpenAPI document of the service, made from the types of the bodies and the forms of the errors."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import TypeAdapter

from kdnas import __version__
from kdnas.serving.contracts import Contract
from kdnas.serving.openai_api import ModelList
from kdnas.serving.refusals import BODIES, Kind, RefusalError, Shape, own_error, tei_error
from kdnas.serving.schema import Health, Reloaded
from kdnas.serving.tei import Info

MODEL_PREFIX = "/models/{model}"
REFERENCE = "#/components/schemas/{model}"
MEANINGS = {
    Kind.UNAUTHORISED: "a key is needed",
    Kind.FORBIDDEN: "the service has no keys",
    Kind.NOT_FOUND: "no such model",
    Kind.SLOW: "the body did not arrive in time",
    Kind.TOO_LARGE: "too many texts, a text that is too long, or too large a body",
    Kind.INVALID: "not a valid request",
    Kind.OTHER_TASK: "the model has another task",
    Kind.OVERLOADED: "overloaded; retry after Retry-After seconds",
    Kind.FAILED: "the model failed",
    Kind.STOPPED: "the service is starting or stopping",
    Kind.EXPIRED: "not finished in time",
}
CALL_KINDS = [kind for kind in MEANINGS if kind is not Kind.FORBIDDEN]
RELOAD_KINDS = [Kind.UNAUTHORISED, Kind.FORBIDDEN, Kind.OVERLOADED, Kind.FAILED]
HEADERS = {401: ("WWW-Authenticate", "string"), 429: ("Retry-After", "integer")}
TIMES = (
    "x-compute-time",
    "x-total-time",
    "x-compute-characters",
    "x-compute-tokens",
    "x-queue-time",
    "x-tokenization-time",
    "x-inference-time",
)
PROBES = {
    "/livez": "Whether the process is alive: 503 if a worker is dead or stuck",
    "/readyz": "Whether the service is ready: 503 during warm-up and shutdown, or if a model does not answer",
    "/startupz": "Whether the service has started: 503 until the models are warm",
}
PAGES = {
    "/": ("Page to try texts", "text/html"),
    "/docs": ("Page of the endpoints", "text/html"),
    "/metrics": ("Metrics for Prometheus", "text/plain"),
}


class Document:
    """The parts of the document.

    Args:
        contracts: the endpoints.
        keys: whether the service has keys.
        models: names of its models.
    """

    def __init__(self, contracts: Sequence[Contract], keys: bool, models: Sequence[str]) -> None:
        self._keys = keys
        self._name = {"type": "string", "enum": list(models)}
        self._kinds: list[Any] = [*BODIES.values(), Health, Info, ModelList, Reloaded]
        for contract in contracts:
            self._kinds += [*contract.requests, contract.answer]
        mode: Literal["validation"] = "validation"
        adapters = [(index, mode, TypeAdapter(kind)) for index, kind in enumerate(self._kinds)]
        self._schemas, definitions = TypeAdapter.json_schemas(adapters, ref_template=REFERENCE)
        self.definitions: dict[str, Any] = definitions["$defs"]

    def schema(self, kind: Any) -> dict[str, Any]:
        """The schema of a body."""
        return dict(self._schemas[self._kinds.index(kind), "validation"])

    def answer(self, kind: Any, description: str = "the answer") -> dict[str, Any]:
        """A response with a JSON body."""
        return {"description": description, "content": {"application/json": {"schema": self.schema(kind)}}}

    def refusals(self, errors: Shape, kinds: Iterable[Kind]) -> dict[str, Any]:
        """The responses to refused requests, by status."""
        found: dict[str, Any] = {}
        for kind in kinds:
            if kind is Kind.UNAUTHORISED and not self._keys:
                continue
            status = errors(RefusalError(kind, "")).status_code
            if str(status) in found:
                found[str(status)]["description"] += f"; {MEANINGS[kind]}"
                continue
            found[str(status)] = self.answer(BODIES[errors], MEANINGS[kind])
            if status in HEADERS:
                found[str(status)]["headers"] = _headers(*HEADERS[status])
        return found

    def secured(self, operation: dict[str, Any]) -> dict[str, Any]:
        """An operation that needs a key, if the service has keys."""
        return operation | ({"security": [{"bearer": []}]} if self._keys else {})

    def call(self, contract: Contract, in_path: bool) -> dict[str, Any]:
        """The operation of a contract."""
        schemas = [self.schema(kind) for kind in contract.requests]
        good = self.answer(contract.answer)
        good["headers"] = {name: header for time in TIMES for name, header in _headers(time, "integer").items()}
        deadline = {"type": "number", "exclusiveMinimum": 0}
        # A name in the body comes before the header x-model, which is therefore not always read.
        in_header = self._name if contract.model_needed else {"type": "string"}
        parameters = [
            _parameter("x-timeout-ms", "header", "how long the client waits, in ms", deadline),
            _parameter("model", "path", "name of the model", self._name)
            if in_path
            else _parameter(contract.model_header, "header", "name of the model", in_header, contract.model_needed),
        ]
        return self.secured(
            {
                "summary": contract.summary,
                "parameters": parameters,
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
                    },
                },
                "responses": {"200": good} | self.refusals(contract.errors, CALL_KINDS),
            }
        )

    def get(self, summary: str, good: dict[str, Any], *kinds: Kind, in_path: bool = False) -> dict[str, Any]:
        """An operation without a body that needs a key."""
        operation = {
            "summary": summary,
            "parameters": [_parameter("model", "path", "name of the model", self._name)] if in_path else [],
            "responses": {"200": good} | self.refusals(own_error, [Kind.UNAUTHORISED, *kinds]),
        }
        return {"get": self.secured(operation)}


def openapi(contracts: Sequence[Contract], keys: bool, models: Sequence[str]) -> dict[str, Any]:
    """The document of a service.

    Args:
        contracts: the endpoints with a body.
        keys: whether the service has keys.
        models: names of its models.
    """
    document = Document(contracts, keys, models)
    paths: dict[str, Any] = {}
    for prefix in ("", MODEL_PREFIX):
        for contract in contracts:
            paths[prefix + contract.path] = {"post": document.call(contract, bool(prefix))}
    for path, summary in PROBES.items():
        answers = {status: document.answer(Health, text) for status, text in (("200", "yes"), ("503", "no"))}
        paths[path] = {"get": {"summary": summary, "responses": answers}}
    refused = document.refusals(tei_error, [Kind.STOPPED])
    paths["/health"] = {
        "get": {"summary": "As /readyz, without a body", "responses": {"200": {"description": "ready"}} | refused}
    }
    paths["/info"] = document.get("Models, labels, limits", document.answer(Info))
    paths[MODEL_PREFIX + "/info"] = document.get(
        "The same, of one model", document.answer(Info), Kind.NOT_FOUND, in_path=True
    )
    paths["/v1/models"] = document.get("Names of the models: OpenAI", document.answer(ModelList))
    reload = {
        "summary": "Replace the models by those now in their folders; needs a key",
        "responses": {"200": document.answer(Reloaded)} | document.refusals(own_error, RELOAD_KINDS),
    }
    paths["/v1/reload"] = {"post": document.secured(reload)}
    for path, (summary, kind) in PAGES.items():
        good = {"description": "the answer", "content": {kind: {"schema": {"type": "string"}}}}
        paths[path] = document.get(summary, good) if path == "/metrics" else _open(summary, good)
    paths["/openapi.json"] = _open(
        "This document", {"description": "the answer", "content": {"application/json": {"schema": {"type": "object"}}}}
    )
    components: dict[str, Any] = {"schemas": document.definitions}
    if keys:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "kdnas", "version": __version__, "summary": "Classification, embeddings, entities, answers"},
        "paths": paths,
        "components": components,
    }


def _open(summary: str, good: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": {"200": good}}}


def _headers(name: str, kind: str) -> dict[str, Any]:
    return {name: {"required": True, "schema": {"type": kind}}}


def _parameter(
    name: str, place: str, description: str, schema: dict[str, Any], required: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "description": description,
        "required": required or place == "path",
        "schema": schema,
    }
