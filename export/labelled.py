"""Labelled inputs that measure the loss of an export: JSON lines with the columns of the task's usual data sets."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.export.folder import MULTI_LABEL
from kdnas.store.progress import say
from kdnas.text.lines import json_rows
from kdnas.text.sample import SpreadByLanguage

# Example line of each task; `language` is optional.
LINES = {
    "text-classification": '{"text": "...", "label": "name or number", "language": "de"}',
    "token-classification": '{"tokens": ["...", "..."], "ner_tags": ["name or number", 0], "language": "de"}',
    MULTI_LABEL: '{"text": "...", "labels": {"name": 1, "other name": 0}, "language": "de"}',
    "question-answering": '{"question": "...", "context": "...", "answers": {"text": ["..."]}, "language": "de"}',
}
LEAST = 100


@dataclass(frozen=True)
class Labelled:
    """N inputs with their labels or answers, and their languages ("" if not given).

    Args:
        inputs: texts; lists of words; or pairs of a question and its context.
        truths: class numbers; tuples with 1, 0 or -1 (unknown) for each of several labels; lists of the words' class numbers; or
            lists of correct answers.
        languages: language of each input.
    """

    inputs: list[Any] = field(default_factory=list)
    truths: list[Any] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)

    def rows(self, indices: Sequence[int]) -> "Labelled":
        """The inputs at these indices."""
        columns = (self.inputs, self.truths, self.languages)
        return Labelled(*([column[index] for index in indices] for column in columns))

    def halves(self) -> tuple[list[int], list[int]]:
        """Indices of the dev rows, which choose a recipe, and of the test rows, which measure its loss.

        In each language the rows are sorted by their labels (tokens: the set of classes; answers: none) and a hash, and dealt in
        turn, so each label is split evenly and the order of the file has no influence. A language's single row is a test row.
        """
        keys = []
        for index, (inputs, truth, language) in enumerate(zip(self.inputs, self.truths, self.languages, strict=True)):
            if isinstance(truth, tuple):
                label = list(truth)
            else:
                labels = truth if isinstance(truth, list) else [truth]
                label = sorted({number for number in labels if isinstance(number, int)})
            digest = hashlib.sha256(repr((inputs, truth)).encode("utf-8", "surrogatepass")).hexdigest()
            keys.append((language, label, digest, index))
        halves: tuple[list[int], list[int]] = ([], [])
        dealt: Counter[str] = Counter()
        for language, _, _, index in sorted(keys):
            halves[dealt[language] % 2 == 0].append(index)
            dealt[language] += 1
        return sorted(halves[0]), sorted(halves[1])


def read_labelled(path: Path, task: str, names: list[str], most: int, multi_label: bool = False) -> Labelled:
    """Read at most `most` rows of each language: a random sample that is the same in each run, in the order of the file.

    Questions without an answer are left out, and their number is logged.

    Args:
        path: a .jsonl file, also as .gz or .zst.
        task: task of the model.
        names: the model's class names; a label is one of them, or its number.
        most: maximum rows per language.
        multi_label: the labels of a text are independent; a row has `labels` with 1 or 0 for each known label.

    Raises:
        UsageError: the file is missing, a row has another format, the model lacks a label, or there are fewer than 100 rows.
    """
    sample: SpreadByLanguage[tuple[Any, Any, str]] = SpreadByLanguage(most)
    numbers = {name: index for index, name in enumerate(names)}
    numbers = {str(index): index for index in range(len(names))} | numbers
    unanswered = 0
    task = MULTI_LABEL if multi_label else task
    for number, row in _rows(path, task):
        language = row.get("language") or ""
        try:
            inputs, truth = _read(row, task)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path}: line {number} has the wrong format ({error}); expected are {wanted(task)}"
            ) from error
        if not isinstance(language, str):
            raise UsageError(f"{path}: line {number} has a language that is not a string; expected are {wanted(task)}")
        if task == "question-answering":
            truth = [answer for answer in truth if answer.strip()]  # some sets mark a hidden answer by an empty text
            if not truth:
                unanswered += 1
                continue
        else:
            labels = truth if isinstance(truth, list | dict) else [truth]
            if unknown := [label for label in labels if str(label) not in numbers]:
                raise UsageError(f"{path}: line {number} has label '{unknown[0]}'; allowed are {', '.join(names)}")
            truth = _numbered(truth, numbers, names)
        sample.add(language, repr(inputs), (inputs, truth, language))
    if unanswered:
        say(f"export: {path}: {unanswered} questions without an answer are left out: the models always answer")
    found = Labelled(*(list(column) for column in zip(*sample.rows(), strict=True)))
    if len(found.inputs) < LEAST:
        raise UsageError(f"{path}: {len(found.inputs)} rows; at least {LEAST} are needed to measure the loss of int8")
    return found


def wanted(task: str) -> str:
    """The file format for this task, as text."""
    return f"lines like {LINES[task]} (`language` is optional)"


def _read(row: dict[str, Any], task: str) -> tuple[Any, Any]:
    """Input and truth of a row.

    Raises:
        KeyError, TypeError, ValueError: the row has another format.
    """
    if task == MULTI_LABEL:
        return _read_labels(row)
    if task == "text-classification":
        _require_texts(row["text"])
        return row["text"], _require_label(row["label"])
    if task == "token-classification":
        words, tags = list(row["tokens"]), [_require_label(tag) for tag in row["ner_tags"]]
        _require_texts(*words)
        if len(words) != len(tags):
            raise ValueError(f"{len(words)} tokens, {len(tags)} ner_tags")
        return words, tags
    answers = list(row["answers"]["text"])
    _require_texts(row["question"], row["context"], *answers)
    return (row["question"], row["context"]), answers


def _read_labels(row: dict[str, Any]) -> tuple[str, dict[str, int]]:
    """Text of a row, and 1 or 0 for each of its known labels.

    Raises:
        KeyError, TypeError, ValueError: the row has another format.
    """
    _require_texts(row["text"])
    labels = row["labels"]
    if not isinstance(labels, dict) or not labels:
        raise TypeError("labels has no names with 1 or 0")
    if wrong := [value for value in labels.values() if value not in (0, 1)]:
        raise ValueError(f"a label is {wrong[0]!r:.40}, neither 0 nor 1")
    return row["text"], {name: int(value) for name, value in labels.items()}


def _numbered(truth: Any, numbers: dict[str, int], names: list[str]) -> Any:
    """Labels as class numbers; independent labels as 1, 0 or -1 (unknown) in the order of `names`."""
    if isinstance(truth, dict):
        return tuple(truth.get(name, -1) for name in names)
    return [numbers[str(label)] for label in truth] if isinstance(truth, list) else numbers[str(truth)]


def _require_texts(*values: Any) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError("a text is not a string")


def _require_label(value: Any) -> Any:
    if value is None or isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError("a label is neither a name nor a number")
    return value


def _rows(path: Path, task: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and row of each line that is not empty."""
    if not path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")) or not path.is_file():
        raise UsageError(f"{path}: no such .jsonl file (also .gz, .zst); expected are {wanted(task)}")
    try:
        yield from json_rows(path, str(path))
    except UsageError as error:
        raise UsageError(f"{error}; expected are {wanted(task)}") from error
