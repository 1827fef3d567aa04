"""The contract of Text Embeddings Inference 1.7: /embed, /predict with `inputs`, /info, /health.

Published in docs/openapi.json of huggingface/text-embeddings-inference. Differences: only strings are inputs, not token ids;
`prompt_name` and truncation at the left are refused, because the service does not have them.
"""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kdnas import __version__
from kdnas.models.engine import ENGINES
from kdnas.serving import own
from kdnas.serving.call import Call
from kdnas.serving.model import Model
from kdnas.serving.refusals import Kind, RefusalError
from kdnas.serving.service import Service
from kdnas.serving.tasks import TextInput, TextTask, text_scores, text_vector
from kdnas.serving.wire import WHOLE, numbers

EXAMPLE = '{"inputs": "..."}'
TextOrPair = Annotated[list[str], Field(min_length=1, max_length=2)]


class Inputs(BaseModel):
    """Fields that /embed and /predict share."""

    model_config = ConfigDict(strict=True)

    truncate: bool | None = Field(None, description="cut inputs that are too long")
    truncation_direction: Literal["right", "Right"] = "right"
    model: str | None = Field(None, description="name of the model; by default the first one that fits")


class EmbedRequest(Inputs):
    """Body of /embed."""

    inputs: str | Annotated[list[str], Field(min_length=1)]
    normalize: bool = True
    prompt_name: None = None
    dimensions: Annotated[int, Field(ge=1), WHOLE] | None = None


class PredictInputs(Inputs):
    """Body of /predict: a text, a pair [first, second], or a batch [[first], [first, second]]."""

    inputs: str | TextOrPair | Annotated[list[TextOrPair], Field(min_length=1)]
    raw_scores: bool = False


class Score(BaseModel):
    """A label with its score."""

    score: float
    label: str


class ModelInfo(BaseModel):
    """One model of /info."""

    name: str
    task: str
    form: str
    labels: list[str]
    problem_type: str | None
    max_seq_len: int
    dimensions: int | None
    threads: int


class Info(BaseModel):
    """Answer of /info: the fields of the contract for one model, our own limits, and all models."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, dict[str, Any]]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    too_long: str
    max_body_bytes: int
    models: list[ModelInfo]


def policy(call: Call, truncate: bool | None) -> str:
    """What to do with texts that are too long."""
    return "truncate" if truncate else call.service.options.too_long


async def embed(call: Call) -> Response:
    """Embeddings of texts: a list of vectors."""
    body = call.parse(EmbedRequest, EXAMPLE)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    model = call.service.choose(call.model_name(body.model), ("feature-extraction",))
    dimensions = check_dimensions(model, body.dimensions)
    items = [TextInput(text, None, policy(call, body.truncate)) for text in texts]
    job = await call.service.run(call.request, TextTask(model), items)
    vectors = np.stack([text_vector(output, body.normalize and dimensions is None) for output in job.results])
    vectors = vectors if dimensions is None else shortened(vectors, dimensions)
    return call.answer(job, sum(map(len, texts)), numbers(vectors, 7))


def check_dimensions(model: Model, dimensions: int | None) -> int | None:
    """The requested number of dimensions, None for all; raises RefusalError if the model has fewer."""
    most = model.session.dimensions
    if dimensions is not None and dimensions > most:
        raise RefusalError(Kind.INVALID, f"dimensions: {dimensions} given; the model has {most}")
    return None if dimensions == most else dimensions


def shortened(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """The first dimensions of vectors (N, D), normalised again."""
    cut = vectors[:, :dimensions]
    return np.asarray(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12))


async def predict(call: Call) -> Response:
    """Scores of the labels, the highest first; a list of them for a batch. A body with `text` or `texts` is our own."""
    if isinstance(call.body, dict) and "inputs" not in call.body:
        return await own.predict(call)
    body = call.parse(PredictInputs, EXAMPLE)
    items, batch = predict_items(body.inputs, policy(call, body.truncate))
    model = call.service.choose(call.model_name(body.model), ("text-classification",))
    job = await call.service.run(call.request, TextTask(model), items)
    labels = model.session.labels
    found = []
    for output in job.results:
        scores = numbers(text_scores(output, "regression" if body.raw_scores else model.problem)[0])
        rows = [{"score": score, "label": label} for score, label in zip(scores, labels, strict=True)]
        found.append(sorted(rows, key=lambda row: -row["score"]))
    characters = sum(len(item.text) + len(item.pair or "") for item in items)
    return call.answer(job, characters, found if batch else found[0])


def predict_items(inputs: str | list[str] | list[list[str]], too_long: str) -> tuple[list[TextInput], bool]:
    """The inputs of /predict, and whether they are a batch."""
    batch = isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], list)
    rows: list[Any] = list(inputs) if batch else [[inputs] if isinstance(inputs, str) else inputs]
    return [TextInput(row[0], row[1] if len(row) == 2 else None, too_long) for row in rows], batch


def info(service: Service, name: str | None) -> dict[str, Any]:
    """Body of /info: the fields of the contract for one model, and `models` with all."""
    model = service.models[name] if name is not None else next(iter(service.models.values()))
    session, options = model.session, service.options
    ids = {str(index): label for index, label in enumerate(session.labels)}
    kinds = {"text-classification": "classifier", "token-classification": "token_classifier"}
    if session.task == "feature-extraction":
        kind: dict[str, Any] = {"embedding": {"pooling": "cls" if session.pooling == "first" else "mean"}}
    elif session.task in kinds:
        kind = {
            kinds[session.task]: {"id2label": ids, "label2id": {label: int(number) for number, label in ids.items()}}
        }
    else:
        kind = {"question_answering": {}}
    return {
        "model_id": model.name,
        "model_sha": None,
        "model_dtype": str(ENGINES[session.form].precision),
        "model_type": kind,
        "max_concurrent_requests": options.max_queue_texts,
        "max_input_length": session.max_seq_len,
        "max_batch_tokens": options.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": options.max_texts,
        "auto_truncate": options.too_long == "truncate",
        "tokenization_workers": options.streams,
        "version": __version__,
        "too_long": options.too_long,
        "max_body_bytes": options.max_body_bytes,
        "models": [one.info() for one in service.models.values()],
    }
