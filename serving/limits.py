"""From which probability on a label is given: by the request, the service's option, or the model's own thresholds."""

from collections.abc import Iterable

from kdnas.serving.model import Model

HALF = 0.5  # without thresholds of the model


def limits_of(model: Model, given: Iterable[float | None] = (), language: str | None = None) -> list[float]:
    """The lowest probability (L,) of each label of a model; infinite if its thresholds say that no text gets the label.

    Args:
        model: the model.
        given: thresholds for all labels; the first one that is not None counts, instead of those of the model.
        language: code of the language of the texts.
    """
    labels = model.session.labels
    for threshold in given:
        if threshold is not None:
            return [threshold] * len(labels)
    if model.thresholds is None:
        return [HALF] * len(labels)
    return model.thresholds.limits(labels, language or "", HALF)
