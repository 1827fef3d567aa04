"""Texts without labels, labelled by the probabilities of a stronger classifier (distillation, Hinton et al. 2015, Section 2)."""

import heapq
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.evaluation.hap_classifier.opened import Classifier, open_classifier
from kdnas.evaluation.hap_classifier.sets import LABELS
from kdnas.evaluation.kinds.multilabel import Truth
from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import position_of
from kdnas.text.lines import json_rows

UNLABELLED = "unlabelled"  # the set of these rows


def scored_texts(teacher: Path, file: Path, most: int, seed: int) -> Split:
    """A random sample of the texts of a file with the teacher's probabilities as labels.

    Args:
        teacher: folder of a multi-label classifier with some of the labels of `kdnas hap`.
        file: JSON lines with `text` and optionally `language`.
        most: maximum number of texts.
        seed: seed of the sample.

    Raises:
        UsageError: the teacher is not a multi-label classifier with these labels, or the file has a wrong row or none.
    """
    classifier = open_classifier(str(teacher))
    if not classifier.multi_label or not set(LABELS) & set(classifier.labels):
        raise UsageError(
            f"teacher '{teacher}': its labels are {', '.join(classifier.labels)}; a classifier that `kdnas hap` made is needed, "
            f"with the independent labels {', '.join(LABELS)}"
        )
    rows = _sample(file, most, seed)
    texts = [text for text, _ in rows]
    return Split(texts, _labels(classifier, texts), [code for _, code in rows], [UNLABELLED] * len(rows))


def _sample(file: Path, most: int, seed: int) -> list[tuple[str, str]]:
    """At most `most` random different texts of a file with their languages; memory holds only these."""
    heap: list[tuple[float, str, str]] = []  # the largest key is replaced first
    seen: set[str] = set()
    for number, row in json_rows(file, f"unlabelled {file}"):
        text, code = row.get("text"), row.get("language", row.get("lang", ""))
        if not isinstance(text, str) or not isinstance(code, str):
            raise UsageError(f"unlabelled {file}: line {number} needs the string `text` (`language` is optional)")
        if not text.strip() or text in seen:
            continue
        entry = (-position_of(text, seed), text, code)
        if len(heap) < most:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            seen.discard(heapq.heapreplace(heap, entry)[1])
        else:
            continue
        seen.add(text)
    if not heap:
        raise UsageError(f"unlabelled {file}: it has no text; give JSON lines with `text`")
    return [(text, code) for _, text, code in sorted(heap, reverse=True)]


def _labels(classifier: Classifier, texts: list[str]) -> list[Truth]:
    columns: list[Any] = [
        classifier.chances(texts, name).tolist() if name in classifier.labels else [None] * len(texts)
        for name in LABELS
    ]
    return list(zip(*columns, strict=True))
