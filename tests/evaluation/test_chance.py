"""The score of a constant prediction in each kind of task, and the standard error of a score."""

import pytest

from kdnas.evaluation.averages import scored
from kdnas.evaluation.chance import chance, chance_by_language, corrected_retention, standard_error
from kdnas.evaluation.kinds import CLASSES, SCORE, SPANS, WORDS, TaskKind
from kdnas.evaluation.report import show
from kdnas.evaluation.rows import Answers, Split
from kdnas.evaluation.tasks import Task


def task(kind: TaskKind, metric: str, names: list[str], test: Split, positive: int | None = None) -> Task:
    empty = Split([], [])
    return Task("toy/toy", names, empty, empty, test, positive, "", kind, metric)


def rows(labels: list[object], languages: list[str] | None = None) -> Split:
    return Split([f"text {number}" for number in range(len(labels))], labels, languages or [])


@pytest.mark.parametrize(
    ("metric", "labels", "expected"),
    [
        ("accuracy", [0, 1, 1, 1], 0.75),
        ("binary_f1", [0, 1, 1, 1], 2 * 0.75 / 1.75),  # as on MRPC: always "paraphrase"
        ("binary_f1", [0, 0, 0, 1], 0.0),
        ("macro_f1", [0, 1, 1, 1], 0.75 / 1.75),
        ("matthews", [0, 1, 1, 1], 0.0),
    ],
)
def test_a_constant_class_is_scored_by_the_metric(metric: str, labels: list[object], expected: float) -> None:
    assert chance(task(CLASSES, metric, ["no", "yes"], rows(labels), 1)) == pytest.approx(expected)


def test_a_constant_number_tag_or_answer_is_scored_by_the_metric() -> None:
    assert chance(task(SCORE, "pearson_spearman", ["score"], rows([0.5, 2.0, 4.5]))) == 0.0
    assert chance(task(WORDS, "entity_f1", ["O", "B-PER"], rows([[0, 0, 1], [0, 1]]))) == 0.0
    answers = [Answers(("in May",), 0), Answers(("in May", "May"), 0), Answers(("the dog",), 0)]
    assert chance(task(SPANS, "exact_match", [], rows(list(answers)))) == pytest.approx(2 / 3)


def test_chance_of_several_languages_is_their_mean() -> None:
    labels, languages = [1, 1, 1, 1, 1, 1, 0, 1], ["a"] * 6 + ["b"] * 2
    assert chance(task(CLASSES, "accuracy", ["no", "yes"], rows(list(labels), languages))) == pytest.approx(0.75)


def test_only_fractions_of_rows_have_a_standard_error() -> None:
    given = task(CLASSES, "accuracy", ["no", "yes"], rows([0, 1] * 50, ["a"] * 80 + ["b"] * 20))
    found = {
        "scores": {"accuracy": 0.7},
        "language_means": {"accuracy": 0.65},
        "by_language": {"a": {"accuracy": 0.8}, "b": {"accuracy": 0.5}},
    }
    assert standard_error(given, found) == pytest.approx((0.8 * 0.2 / 80 + 0.5 * 0.5 / 20) ** 0.5 / 2)
    assert standard_error(given, found | {"language_means": {}}) == pytest.approx((0.7 * 0.3 / 100) ** 0.5)
    assert standard_error(task(CLASSES, "macro_f1", ["no", "yes"], given.test), found) is None


def test_retention_above_chance() -> None:
    assert corrected_retention(0.9, 0.7, 0.5) == pytest.approx(0.5)
    assert corrected_retention(0.5, 0.7, 0.5) is None


def test_scores_by_language_have_all_metrics_and_an_unweighted_mean() -> None:
    import numpy as np

    given = task(CLASSES, "accuracy", ["no", "yes"], rows([0, 0, 0, 0, 1], ["a"] * 4 + ["b"]))
    found = scored(given, given.test, np.eye(2)[[0] * 5])
    assert {"accuracy", "macro_f1", "calibration_error"} <= set(found["by_language"]["a"])
    assert found["scores"]["accuracy"] == pytest.approx(0.8)
    assert found["language_means"]["accuracy"] == pytest.approx(0.5)


def test_the_short_evaluation_prints_retention_above_chance(capsys: pytest.CaptureFixture[str]) -> None:
    topic = {"metric": "macro-F1", "teacher": 0.9, "student": 0.7, "retention": 7 / 9, "majority": 0.5}
    results = {"explained_variance": 0.5, "recall_at_10": 0.5, "hap": None, "hap_note": "none"}
    show(results | {"topic": topic | {"corrected_retention": 0.5}})
    assert "topic: retention above chance" in (printed := capsys.readouterr().err)
    assert "50.0 %" in printed
    show(results | {"topic": topic})  # results of earlier versions
    assert "above chance" not in capsys.readouterr().err


def test_the_mean_of_chance_over_the_languages_is_chance() -> None:
    labels, languages = [1, 1, 1, 1, 1, 1, 0, 1], ["a"] * 6 + ["b"] * 2
    given = task(CLASSES, "accuracy", ["no", "yes"], rows(list(labels), languages))
    assert chance_by_language(given) == {"a": 1.0, "b": 0.5}
    assert chance(given) == pytest.approx(0.75)
