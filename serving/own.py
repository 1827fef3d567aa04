"""Our own contract: /v1/classify, /v1/entities, /v1/answer, and /predict with `text` or `texts`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.responses import Response

from kdnas.serving.call import Call
from kdnas.serving.limits import limits_of
from kdnas.serving.model import Model
from kdnas.serving.refusals import Kind, RefusalError
from kdnas.serving.schema import EXAMPLE, AnswerRequest, EntitiesRequest, PredictRequest
from kdnas.serving.tasks import AnswerTask, EntityTask, TextInput, TextOutput, TextTask, text_scores, text_vector
from kdnas.serving.wire import numbers


async def classify(call: Call) -> Response:
    """Labels and scores of texts."""
    return await _texts(call, ("text-classification",))


async def predict(call: Call) -> Response:
    """Labels and scores, or embeddings, of texts."""
    return await _texts(call, ("text-classification", "feature-extraction"))


async def _texts(call: Call, tasks: tuple[str, ...]) -> Response:
    body = call.parse(PredictRequest, EXAMPLE)
    model = call.service.choose(call.model_name(body.model), tasks)
    policy = body.too_long or ("truncate" if body.truncate else call.service.options.too_long)
    label = None
    if body.label is not None:
        if body.label not in model.session.labels:
            raise RefusalError(
                Kind.INVALID, f"label: the model has no '{body.label}'; allowed: {', '.join(model.session.labels)}"
            )
        label = model.session.labels.index(body.label)
    texts = body.all_texts()
    job = await call.service.run(call.request, TextTask(model), [TextInput(text, None, policy) for text in texts])
    answer: dict[str, Any] = {"model": model.name, "form": model.session.form}
    if model.session.task == "feature-extraction":
        answer["embeddings"] = numbers(np.stack([text_vector(output) for output in job.results]))
    else:
        limits = limits_of(model, (call.service.options.threshold,), body.language)
        answer["predictions"] = [prediction(model, output, limits, label) for output in job.results]
    return call.answer(job, sum(map(len, texts)), answer)


def prediction(model: Model, output: TextOutput, limits: Sequence[float], label: int | None = None) -> dict[str, Any]:
    """The best label of a text, its score and all scores; for a long text also its windows, the highest score first.

    A multi-label model also gives the labels whose scores reach their limits (L,).
    """
    labels = model.session.labels
    scores, parts = text_scores(output, model.problem, label)
    values = numbers(scores)
    best = int(scores.argmax())
    found: dict[str, Any] = {
        "label": labels[best],
        "score": values[best],
        "scores": dict(zip(labels, values, strict=True)),
    }
    if model.problem == "multi_label_classification":
        reached = zip(labels, values, limits, strict=True)
        found["labels"] = [name for name, value, limit in reached if value >= limit]
    if output.truncated:
        found["truncated"] = True
    if len(parts) > 1:
        shown = best if label is None else label
        windows = []
        for window, one in zip(output.windows, parts, strict=True):
            top = int(one.argmax())
            key = float(one[shown])
            windows.append(
                (key, {"start": window.start, "end": window.end, "label": labels[top], "score": numbers(one)[top]})
            )
        found["windows"] = [window for _, window in sorted(windows, key=lambda pair: -pair[0])]
    return found


async def entities(call: Call) -> Response:
    """Entities of texts of any length."""
    body = call.parse(EntitiesRequest, EXAMPLE)
    model = call.service.choose(call.model_name(body.model), ("token-classification",))
    texts = body.all_texts()
    job = await call.service.run(call.request, EntityTask(model), texts)
    found = [
        [
            {
                "start": one.start,
                "end": one.end,
                "text": text[one.start : one.end],
                "label": one.label,
                "score": round(one.score, 6),
            }
            for one in entities_of_text
        ]
        for text, entities_of_text in zip(texts, job.results, strict=True)
    ]
    answer = {"model": model.name, "form": model.session.form, "entities": found}
    return call.answer(job, sum(map(len, texts)), answer)


async def answer(call: Call) -> Response:
    """Answers to questions from contexts of any length."""
    body = call.parse(AnswerRequest, '{"question": "...", "context": "..."}')
    model = call.service.choose(call.model_name(body.model), ("question-answering",))
    pairs = body.pairs()
    job = await call.service.run(call.request, AnswerTask(model, body.max_answer_tokens), pairs)
    found = [
        {
            "text": one.text,
            "start": one.start,
            "end": one.end,
            "score": round(one.score, 6) if np.isfinite(one.score) else None,
        }
        for one in job.results
    ]
    characters = sum(len(question) + len(context) for question, context in pairs)
    return call.answer(job, characters, {"model": model.name, "form": model.session.form, "answers": found})
