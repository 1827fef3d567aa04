"""What a model scores on labelled inputs, in points from 0 to 100, by language: one metric for each task."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from export.labelled import Labelled
from export.spans import Answerer, Runs, text_logits, word_labels

METRICS = {
    "text-classification": "macro-F1",
    "token-classification": "entity F1",
    "question-answering": "answer F1",
}


def scores(task: str, runs: Runs, names: Sequence[str], labelled: Labelled) -> dict[str, float]:
    """Points in each language.

    Texts: macro-F1. Tokens: F1 of whole entities, as seqeval counts them; each word has the label of its first token, and
    words that are cut off are left out. Answers: F1 of the words they share with the best of the right answers, as SQuAD
    counts it.

    Args:
        task: of the model.
        runs: the model.
        names: its class names.
        labelled: N inputs of the task.
    """
    if task == "text-classification":
        answers: list[Any] = text_logits(runs, labelled.inputs).argmax(-1).tolist()
    elif task == "token-classification":
        answers = word_labels(runs, labelled.inputs)
    else:
        answers = [answer.text for answer in Answerer(runs).answers(labelled.inputs)]
    found = {}
    for language in sorted(set(labelled.languages)):
        rows = [place for place, other in enumerate(labelled.languages) if other == language]
        truth, given = [labelled.truths[place] for place in rows], [answers[place] for place in rows]
        found[language] = 100 * _score(task, truth, given, names)
    return found


def _score(task: str, truth: list[Any], answers: list[Any], names: Sequence[str]) -> float:
    if task == "text-classification":
        from sklearn.metrics import f1_score

        return float(f1_score(truth, answers, average="macro", zero_division=0))
    if task == "token-classification":
        from seqeval.metrics import f1_score

        tags = [_tag(name) for name in names]
        right = [[tags[label] for label in row[: len(given)]] for row, given in zip(truth, answers, strict=True)]
        said = [["O" if label is None else tags[label] for label in row] for row in answers]
        return float(f1_score(right, said, zero_division=0))
    from transformers.data.metrics.squad_metrics import compute_f1

    best = (max(compute_f1(one, given) for one in right) for right, given in zip(truth, answers, strict=True))
    return float(np.mean(list(best)))


def _tag(name: str) -> str:
    """A class as an IOB tag: classes without a prefix are one entity as long as they go on."""
    return name if name == "O" or re.match(r"[BIESLU]-", name) else f"I-{name}"
