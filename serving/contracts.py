"""The endpoints of all contracts, as data for the routes and the OpenAPI document."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from kdnas.serving import detectors, openai_api, own, schema, tei
from kdnas.serving.call import Call
from kdnas.serving.refusals import Shape, detector_error, openai_error, own_error, tei_error


@dataclass(frozen=True)
class Contract:
    """One endpoint of a contract.

    Args:
        path: path, also available below /models/NAME.
        handler: what answers it.
        errors: the form of its errors.
        requests: classes of its bodies.
        answer: type of its answer.
        summary: one line.
        model_header: header that names the model.
        model_needed: whether a request whose path does not name the model needs this header.
    """

    path: str
    handler: Callable[[Call], Awaitable[Response]]
    errors: Shape
    requests: tuple[type[Any], ...]
    answer: Any
    summary: str
    model_header: str = "x-model"
    model_needed: bool = False


CONTRACTS = (
    Contract(
        "/v1/classify",
        own.classify,
        own_error,
        (schema.PredictRequest,),
        schema.Classified,
        "Labels and scores of texts",
    ),
    Contract(
        "/v1/entities", own.entities, own_error, (schema.EntitiesRequest,), schema.FoundEntities, "Entities of texts"
    ),
    Contract("/v1/answer", own.answer, own_error, (schema.AnswerRequest,), schema.Answered, "Answers to questions"),
    Contract(
        "/predict",
        tei.predict,
        tei_error,
        (tei.PredictInputs, schema.PredictRequest),
        list[tei.Score] | list[list[tei.Score]] | schema.Classified | schema.Embedded,
        "Labels and scores: Text Embeddings Inference with `inputs`, as /v1/classify with `text` or `texts`",
    ),
    Contract(
        "/embed",
        tei.embed,
        tei_error,
        (tei.EmbedRequest,),
        list[list[float]],
        "Embeddings: Text Embeddings Inference",
    ),
    Contract(
        "/v1/embeddings",
        openai_api.embeddings,
        openai_error,
        (openai_api.EmbeddingsRequest,),
        openai_api.Embeddings,
        "Embeddings: OpenAI",
    ),
    Contract(
        "/api/v1/text/contents",
        detectors.contents,
        detector_error,
        (detectors.ContentsRequest,),
        list[list[detectors.Detection]],
        "Detections: FMS guardrails",
        detectors.HEADER,
        True,
    ),
)
