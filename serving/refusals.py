"""Why a request gets no result: one exception, and the status and body that each contract gives it."""

from collections.abc import Callable, Mapping
from enum import Enum

from pydantic import BaseModel
from starlette.responses import Response

from kdnas.serving.jobs import (
    ExpiredError,
    InputError,
    NotFiniteError,
    OverloadedError,
    StoppedError,
    TooManyTokensError,
)
from kdnas.serving.wire import dumps


class Kind(Enum):
    """Kinds of refusals, with the status of our own contract and the error type of Text Embeddings Inference."""

    UNAUTHORISED = 401, "Validation"
    FORBIDDEN = 403, "Validation"
    NOT_FOUND = 404, "Validation"
    METHOD = 405, "Validation"
    SLOW = 408, "Validation"
    TOO_LARGE = 413, "Validation"
    INVALID = 422, "Validation"
    OTHER_TASK = 424, "Backend"
    OVERLOADED = 429, "Overloaded"
    FAILED = 500, "Backend"
    STOPPED = 503, "Unhealthy"
    EXPIRED = 504, "Overloaded"


class RefusalError(Exception):
    """A request is refused or failed.

    Attributes:
        kind: its kind.
        message: what was given and what is allowed.
        headers: headers of the answer.
    """

    def __init__(self, kind: Kind, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.headers = kind, message, dict(headers or {})


Shape = Callable[[RefusalError], Response]
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def own_error(refusal: RefusalError) -> Response:
    """`{"error": message, "error_type": type}` with the status of the kind."""
    status, name = refusal.kind.value
    return _json({"error": refusal.message, "error_type": name}, status, refusal)


def tei_error(refusal: RefusalError) -> Response:
    """As `own_error`; an input that the model fails on has 424, as in Text Embeddings Inference."""
    status, name = refusal.kind.value
    status = 424 if refusal.kind is Kind.FAILED else status
    return _json({"error": refusal.message, "error_type": name}, status, refusal)


def openai_error(refusal: RefusalError) -> Response:
    """`{"error": {"message", "type", "param", "code"}}`, the body that OpenAI's clients read."""
    status = 400 if refusal.kind in (Kind.INVALID, Kind.TOO_LARGE, Kind.OTHER_TASK) else refusal.kind.value[0]
    name = OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = "model_not_found" if refusal.kind is Kind.NOT_FOUND else None
    body = {"error": {"message": refusal.message, "type": name, "param": None, "code": code}}
    return _json(body, status, refusal)


def detector_error(refusal: RefusalError) -> Response:
    """`{"code", "message"}`, as detectors of FMS guardrails answer; a model of another task is no detector."""
    status = 404 if refusal.kind is Kind.OTHER_TASK else refusal.kind.value[0]
    return _json({"code": status, "message": refusal.message}, status, refusal)


def refusal_of(error: Exception) -> RefusalError:
    """The refusal of an error of the scheduler."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, OverloadedError):
        return RefusalError(Kind.OVERLOADED, str(error), {"Retry-After": str(error.retry_seconds)})
    if isinstance(error, StoppedError):
        return RefusalError(Kind.STOPPED, str(error), {"Retry-After": "1"})
    if isinstance(error, ExpiredError):
        return RefusalError(Kind.EXPIRED, str(error))
    if isinstance(error, InputError) and isinstance(error.cause, TooManyTokensError):
        return RefusalError(Kind.TOO_LARGE, f'{error}; send shorter texts, or "truncate": true to cut them')
    if isinstance(error, InputError) and isinstance(error.cause, NotFiniteError):
        return RefusalError(Kind.FAILED, str(error))
    return RefusalError(Kind.FAILED, f"the model failed: {error}")


def _json(body: object, status: int, refusal: RefusalError) -> Response:
    return Response(dumps(body), status, refusal.headers, "application/json")


class Problem(BaseModel):
    """Body of `own_error` and `tei_error`."""

    error: str
    error_type: str


class OpenAIDetail(BaseModel):
    """Why a request was refused."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIProblem(BaseModel):
    """Body of `openai_error`."""

    error: OpenAIDetail


class DetectorProblem(BaseModel):
    """Body of `detector_error`."""

    code: int
    message: str


BODIES: dict[Shape, type[BaseModel]] = {
    own_error: Problem,
    tei_error: Problem,
    openai_error: OpenAIProblem,
    detector_error: DetectorProblem,
}
