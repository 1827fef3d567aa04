"""Bodies of requests and answers: reading with limits, and JSON that is always valid."""

import asyncio
from typing import Any, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from kdnas.serving.jobs import NotFiniteError

Body = TypeVar("Body", bound=BaseModel)
# For fields that are integers: 5.0 is a whole number of JSON too, and "5" is none.
WHOLE = BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)


class BodyError(Exception):
    """A body that cannot be read.

    Attributes:
        reason: `large`, `slow` or `invalid`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def dumps(value: Any) -> bytes:
    """JSON in UTF-8. Numbers from models go through `numbers` first, because a number that is not finite would become null."""
    return orjson.dumps(value)


def numbers(values: np.ndarray, decimals: int = 6) -> Any:
    """An array as rounded Python numbers.

    Raises:
        NotFiniteError: a number is not finite; JSON has none for it.
    """
    if not np.isfinite(values).all():
        raise NotFiniteError("the model's output is not a finite number")
    return np.round(values.astype(np.float64), decimals).tolist()


async def read_json(request: Request, max_bytes: int, seconds: float) -> Any:
    """The body of a request as a Python value.

    Args:
        request: the request.
        max_bytes: maximum size of the body.
        seconds: time in which it must arrive.

    Raises:
        BodyError: the body is too large or too slow, or it is not JSON.
    """
    large = f"the body is over {max_bytes} bytes; send fewer or shorter texts"
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise BodyError("large", large)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise BodyError("large", large)
    except TimeoutError as error:
        raise BodyError("slow", f"the body did not arrive within {seconds:g} s") from error
    except ClientDisconnect as error:
        raise BodyError("slow", "the client left before its body ended") from error
    try:
        return from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        raise BodyError("invalid", f"not valid JSON: {error}") from error


def parsed(kind: type[Body], value: Any, example: str) -> Body:
    """A body as an object of its class.

    Args:
        kind: the class.
        value: the body as a Python value.
        example: a valid body, for the error message.

    Raises:
        BodyError: the body is no object of this class; the message lists what is wrong.
    """
    if not isinstance(value, dict):
        raise BodyError("invalid", f"send a JSON object such as {example}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_url=False, include_context=False, include_input=False)[:5]:
            where = ".".join(map(str, item["loc"]))
            message = item["msg"].removeprefix("Value error, ")
            problems.append(f"{where}: {message}" if where else message)
        raise BodyError("invalid", "; ".join(problems)) from error
