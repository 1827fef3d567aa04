"""Scores of a model on labelled inputs, in points from 0 to 100, by language, with one metric per task."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdnas.export.labelled import Labelled
from kdnas.export.spans import Answerer, Runs, text_logits, word_labels

METRICS = {
    "text-classification": "macro-F1",
    "token-classification": "entity F1",
    "question-answering": "answer F1",
}


def scores(task: str, runs: Runs, names: Sequence[str], labelled: Labelled) -> dict[str, float]:
    """Points in each language.

    Texts: macro-F1; of independent labels the mean of each label's, over the texts for which it is known. Tokens: F1 of whole
    entities (seqeval); each word has the label of its first token, and entities in words that are cut off are missed. Answers:
    F1 of the words shared with the best of the correct answers (SQuAD).

    Args:
        task: task of the model.
        runs: the model.
        names: its class names.
        labelled: N inputs of the task.
    """
    multi_label = any(isinstance(truth, tuple) for truth in labelled.truths)
    return points(task, answers_of(task, runs, labelled.inputs, multi_label), names, labelled)


def answers_of(task: str, runs: Runs, inputs: list[Any], multi_label: bool = False) -> list[Any]:
    """A model's answer to each input: a class number, 0 or 1 for each label, the class numbers of words, or a text."""
    if task == "text-classification":
        logits = text_logits(runs, inputs)
        return [tuple(row) for row in (logits > 0).astype(int).tolist()] if multi_label else logits.argmax(-1).tolist()
    if task == "token-classification":
        return list(word_labels(runs, inputs))
    return [answer.text for answer in Answerer(runs).answers(inputs)]


def points(task: str, answers: Sequence[Any], names: Sequence[str], labelled: Labelled) -> dict[str, float]:
    """Points in each language of answers to labelled inputs, as in `scores`."""
    found = {}
    for language in sorted(set(labelled.languages)):
        rows = [index for index, other in enumerate(labelled.languages) if other == language]
        truth, given = [labelled.truths[index] for index in rows], [answers[index] for index in rows]
        found[language] = 100 * _score(task, truth, given, names)
    return found


def _score(task: str, truth: list[Any], answers: list[Any], names: Sequence[str]) -> float:
    if task == "text-classification":
        from sklearn.metrics import f1_score

        if isinstance(truth[0], tuple):
            return label_mean_f1(np.asarray(truth), np.asarray(answers))
        return float(f1_score(truth, answers, average="macro", zero_division=0))
    if task == "token-classification":
        return entity_scores(truth, answers, names)["entity_f1"]
    return answer_scores(truth, answers)["answer_f1"]


def label_mean_f1(truth: np.ndarray, answers: np.ndarray) -> float:
    """Macro-F1 of each label (its two classes), and the mean over the labels, from 0 to 1; 0 if no label is known.

    Args:
        truth: (N, C) 1, 0, or -1 where a label is unknown.
        answers: (N, C) 1 or 0.
    """
    from sklearn.metrics import f1_score

    found = []
    for label in range(truth.shape[1]):
        known = truth[:, label] >= 0
        if known.any():
            found.append(f1_score(truth[known, label], answers[known, label], average="macro", zero_division=0))
    return float(np.mean(found)) if found else 0.0


def entity_scores(
    truth: Sequence[Sequence[int]], answers: Sequence[Sequence[int | None]], names: Sequence[str]
) -> dict[str, float]:
    """entity_f1, entity_precision and entity_recall, from 0 to 1; an entity counts only as a whole, as in CoNLL.

    Args:
        truth: the class of each word of N texts.
        answers: the predicted classes, None for words without one; words at the end may be missing. Both count as `O`, so that a
            model misses the entities that its maximum length cuts off.
        names: class names, for example `O`, `B-PER`, `I-PER`; consecutive words of a class without a prefix are one entity.
    """
    from seqeval.metrics import f1_score, precision_score, recall_score

    tags = [_tag(name) for name in names]
    right = [[tags[label] for label in row] for row in truth]
    given = [[*row, *[None] * (len(labels) - len(row))] for labels, row in zip(truth, answers, strict=True)]
    said = [["O" if label is None else tags[label] for label in row] for row in given]
    metrics = {"entity_f1": f1_score, "entity_precision": precision_score, "entity_recall": recall_score}
    return {name: float(metric(right, said, zero_division=0)) for name, metric in metrics.items()}


def answer_scores(truth: Sequence[Sequence[str]], answers: Sequence[str]) -> dict[str, float]:
    """exact_match and answer_f1, from 0 to 1, against the best of the correct answers, after SQuAD's normalisation.

    Args:
        truth: correct answers to each of N questions.
        answers: one answer per question.
    """
    from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

    pairs = list(zip(truth, answers, strict=True))
    metrics = {"exact_match": compute_exact, "answer_f1": compute_f1}
    return {
        name: float(np.mean([max(metric(one, given) for one in right) for right, given in pairs]))
        for name, metric in metrics.items()
    }


def _tag(name: str) -> str:
    """A class as an IOB tag."""
    return name if name == "O" or re.match(r"[BIESLU]-", name) else f"I-{name}"
