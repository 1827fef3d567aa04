"""The contract of OpenAI's embeddings: POST /v1/embeddings with float or base64, and GET /v1/models."""

import base64
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kdnas.serving.call import Call
from kdnas.serving.tasks import TextInput, TextTask, text_vector
from kdnas.serving.tei import check_dimensions, shortened
from kdnas.serving.wire import WHOLE, NotFiniteError, numbers


class EmbeddingsRequest(BaseModel):
    """Body of /v1/embeddings; `input` is a text or several, token ids are not supported."""

    model_config = ConfigDict(strict=True)

    input: str | Annotated[list[str], Field(min_length=1)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        None, description="the first dimensions, normalised again"
    )
    user: str | None = None


class Embedding(BaseModel):
    """One embedding: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """Answer of /v1/embeddings, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelRow(BaseModel):
    """One model of /v1/models."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """Answer of /v1/models."""

    object: Literal["list"]
    data: list[ModelRow]


async def embeddings(call: Call) -> Response:
    """Embeddings of texts."""
    body = call.parse(EmbeddingsRequest, '{"model": "...", "input": "..."}')
    texts = [body.input] if isinstance(body.input, str) else body.input
    model = call.service.choose(call.model_name(body.model), ("feature-extraction",))
    dimensions = check_dimensions(model, body.dimensions)
    items = [TextInput(text, None, call.service.options.too_long) for text in texts]
    job = await call.service.run(call.request, TextTask(model), items)
    vectors = np.stack([text_vector(output) for output in job.results])
    vectors = vectors if dimensions is None else shortened(vectors, dimensions)
    rows = numbers(vectors, 7) if body.encoding_format == "float" else encoded(vectors)
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
        "model": model.name,
        "usage": {"prompt_tokens": job.tokens, "total_tokens": job.tokens},
    }
    return call.answer(job, sum(map(len, texts)), answer)


def encoded(vectors: np.ndarray) -> list[str]:
    """Vectors (N, D) as base64 of little-endian float32.

    Raises:
        NotFiniteError: a number is not finite.
    """
    if not np.isfinite(vectors).all():
        raise NotFiniteError("the model's output is not a finite number")
    return [base64.b64encode(row.tobytes()).decode() for row in vectors.astype("<f4")]
