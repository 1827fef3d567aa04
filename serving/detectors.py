"""The contract of detectors of FMS guardrails: POST /api/v1/text/contents.

Published in docs/api/openapi_detector_api.yaml of foundation-model-stack/fms-guardrails-orchestrator. The header `detector-id`
names the model. A classifier detects every label but its first (one with several labels a text: every label), in texts of any
length; a long text is read in windows, and each window is a span. A classifier of tokens detects entities.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kdnas.serving.call import Call
from kdnas.serving.limits import limits_of
from kdnas.serving.model import Model
from kdnas.serving.refusals import Kind, RefusalError
from kdnas.serving.tasks import EntityTask, TextInput, TextOutput, TextTask, scores_of
from kdnas.serving.wire import numbers

HEADER = "detector-id"


class DetectorParams(BaseModel):
    """Parameters of a detection; the contract leaves them to the detector."""

    model_config = ConfigDict(extra="forbid", strict=True)

    threshold: float | None = Field(
        None, ge=0, le=1, description="lowest score of a detection; by default the model's thresholds, or 0.5"
    )
    language: str | None = Field(None, description="code of the language, for a model that has thresholds by language")
    labels: list[str] | None = Field(None, description="labels to detect; by default every label but the first")


class ContentsRequest(BaseModel):
    """Body of /api/v1/text/contents."""

    model_config = ConfigDict(strict=True)

    contents: list[str] = Field(min_length=1)
    detector_params: DetectorParams = Field(default_factory=lambda: DetectorParams.model_validate({}))


class Detection(BaseModel):
    """A span of a content, by code points."""

    start: int
    end: int
    text: str
    detection: str
    detection_type: str
    score: float


async def contents(call: Call) -> Response:
    """Detections in each content: a list of lists."""
    name = call.request.path_params.get("model") or call.request.headers.get(HEADER)
    if name is None:
        raise RefusalError(Kind.INVALID, f"the header {HEADER} is missing; give {' or '.join(call.service.models)}")
    body = call.parse(ContentsRequest, '{"contents": ["..."]}')
    model = call.service.choose(name, ("text-classification", "token-classification"))
    texts, params = body.contents, body.detector_params
    limits = limits_of(model, (params.threshold, call.service.options.threshold), params.language)
    if model.session.task == "token-classification":
        limit = min(limits)  # an entity has a label of its own, such as PER of B-PER
        job = await call.service.run(call.request, EntityTask(model), texts)
        spans = [
            [
                (one.start, one.end, one.label, one.score)
                for one in entities
                if one.score >= limit and (params.labels is None or one.label in params.labels)
            ]
            for entities in job.results
        ]
    else:
        wanted = _wanted(model, params)
        job = await call.service.run(
            call.request, TextTask(model), [TextInput(text, None, "windows") for text in texts]
        )
        spans = [_spans(model, output, {index: limits[index] for index in wanted}) for output in job.results]
    found = [
        [_detection(text, model, *span) for span in spans_of_text]
        for text, spans_of_text in zip(texts, spans, strict=True)
    ]
    return call.answer(job, sum(map(len, texts)), found)


def _wanted(model: Model, params: DetectorParams) -> list[int]:
    """Indices of the labels to detect."""
    labels = model.session.labels
    if params.labels is None:
        first = 1 if model.problem == "single_label_classification" and len(labels) > 1 else 0
        return list(range(first, len(labels)))
    if unknown := [label for label in params.labels if label not in labels]:
        raise RefusalError(Kind.INVALID, f"labels: the model has no '{unknown[0]}'; allowed: {', '.join(labels)}")
    return [labels.index(label) for label in params.labels]


def _spans(model: Model, output: TextOutput, limits: dict[int, float]) -> list[tuple[int, int, str, float]]:
    """Start, end, label and score of the windows whose score for a label reaches its limit; `limits` is by index of the label."""
    found = []
    for window in output.windows:
        scores = numbers(scores_of(window.outputs, model.problem))
        found += [
            (window.start, window.end, model.session.labels[index], scores[index])
            for index, limit in limits.items()
            if scores[index] >= limit
        ]
    return found


def _detection(text: str, model: Model, start: int, end: int, label: str, score: float) -> dict[str, Any]:
    return {
        "start": start,
        "end": end,
        "text": text[start:end],
        "detection": label,
        "detection_type": model.name,
        "score": round(score, 6),
    }
