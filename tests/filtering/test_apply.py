"""Recorded scores: one row for each document, and the same split as a new run at any threshold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.errors import KdnasError, UsageError
from kdnas.filtering.decision import Policy, Scored, verdict_of
from kdnas.filtering.options import DecisionOptions, DocumentScore, FilterOptions
from kdnas.filtering.recorded import filter_apply
from kdnas.filtering.run import filter_documents
from kdnas.filtering.scoring import Scorer, independent_of_batch
from kdnas.filtering.spans import sentence_spans

from .filter_fixture import FORM, lines, outcome, parts, rows, run


@pytest.fixture
def articles(tmp_path: Path, sentences: list[str]) -> Path:
    path = tmp_path / "docs.jsonl"
    records: list[object] = []
    for number in range(60):
        first = number * 7
        size = 40 if number % 10 == 0 else 1 + number % 6
        records.append(
            {"id": f"d{number}", "text": "\n".join(sentences[first : first + size]), "lang": ["en", "de"][number % 2]}
        )
    records.insert(7, {"text": None})
    records.insert(20, {"text": "  \n"})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_side_car_has_a_row_for_each_document(classifier: Path, articles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(classifier, articles, out, mode="annotate", label=("hap", "ok")) == 4
    records = [json.loads(line) for line in articles.read_text().splitlines()]
    found = rows(out / "scores")
    assert len(found) == len(records)
    assert not parts(out / "kept")
    for record, row in zip(records, found, strict=True):
        if record["text"] is None:
            assert row["problem"] == "column 'text' is not text but null"
            continue
        assert row["sentences"] == [] or row["id"] == record["id"]
        assert row.get("language") == record.get("lang")
        assert [(start, end) for start, end, *_ in row["sentences"]] == sentence_spans(record["text"])
        for position, label in enumerate(("hap", "ok"), 2):
            assert row["scores"][label] == max((one[position] for one in row["sentences"]), default=0)
            assert all(0 <= one[position] <= 1 for one in row["sentences"])


@pytest.mark.parametrize("how", ["max", "mean", "fraction"])
@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_apply_equals_a_new_run(classifier: Path, articles: Path, tmp_path: Path, how: str, threshold: float) -> None:
    run(classifier, articles, tmp_path / "scores", mode="annotate", unit_mb=0.01)
    options = {"document_score": how, "threshold": (threshold,)}
    fresh = outcome(classifier, articles, tmp_path / "fresh", unit_mb=0.01, **options)
    applied = filter_apply(str(tmp_path / "scores"), str(tmp_path / "applied"), DecisionOptions(**options))  # type: ignore[arg-type]
    for fate in ("kept", "quarantine"):
        assert lines(tmp_path / "applied" / fate) == lines(tmp_path / "fresh" / fate)
    found, expected = rows(tmp_path / "applied/dropped"), rows(tmp_path / "fresh/dropped")
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["kdnas"]["score"] == pytest.approx(other["kdnas"]["score"], abs=1e-5)
    assert applied.exit_code == fresh.exit_code == 4
    names = ("documents", "kept", "dropped", "quarantine", "languages", "problems")
    assert {name: applied.results[name] for name in names} == {name: fresh.results[name] for name in names}


def test_apply_refuses_what_does_not_fit(classifier: Path, articles: Path, tmp_path: Path) -> None:
    run(classifier, articles, tmp_path / "split")
    with pytest.raises(UsageError, match="give a finished run of `kdnas filter --mode annotate`"):
        filter_apply(str(tmp_path / "split"), str(tmp_path / "out"))
    run(classifier, articles, tmp_path / "scores", mode="annotate")
    with pytest.raises(UsageError, match="has no scores for it; it has hap"):
        filter_apply(str(tmp_path / "scores"), str(tmp_path / "out"), DecisionOptions(label=("ok",)))
    articles.write_text(articles.read_text() + '{"text": "more"}\n')
    with pytest.raises(KdnasError, match="it has changed since this run was planned"):
        filter_apply(str(tmp_path / "scores"), str(tmp_path / "out"))


def test_a_document_is_decided_by_its_first_sentences_if_they_suffice() -> None:
    policy = Policy(("hap",), (0.5,))
    scores = np.array([[0.1]] * 15 + [[0.6], [0.9]])
    early = np.array([[0.1]] * 15 + [[0.6], [np.nan]])  # not scored, because the first sixteen sufficed
    for each in (scores, early):
        verdict = verdict_of(Scored([], each), policy)
        assert (verdict.fate, verdict.value) == ("dropped", 0.6)
    assert verdict_of(None, policy).fate == "quarantine"
    assert verdict_of(Scored([], np.zeros((0, 1))), policy).fate == "kept"


@given(
    st.lists(st.tuples(*[st.none() | st.floats(0, 1)] * 2), max_size=40), st.sampled_from(["max", "mean", "fraction"])
)
def test_the_score_of_a_document_counts_sentences_without_a_score_as_zero(rows_: list[Any], how: DocumentScore) -> None:
    policy = Policy(("hap", "spam"), (0.5, 0.5), how)
    found = policy.whole(np.array(rows_, float).reshape(-1, 2))
    for column in range(2):
        values = [row[column] or 0.0 for row in rows_]
        counts = [value >= 0.5 for value in values]
        naive = {"max": max(values, default=0), "mean": sum(values) / max(1, len(values))}
        assert found[column] == pytest.approx(naive.get(how, sum(counts) / max(1, len(counts))), abs=1e-6)


@pytest.mark.parametrize("form", ["onnxruntime-int8", "openvino-int8"])
def test_scores_of_an_integer_form_may_depend_on_the_batch(
    classifier: Path, sentences: list[str], tmp_path: Path, form: str
) -> None:
    """Such a form has no early exit, and equal sentences are scored once within a piece only: each run gives the same."""
    scorer = Scorer(classifier, form, 1)
    rows_ = scorer.session.encode(sentences[:64])
    together = scorer.session.predict_ids(rows_, 1024)
    alone = np.concatenate([scorer.session.predict_ids([row]) for row in rows_])
    print(form, "largest difference of a score between batches:", np.abs(together - alone).max(), scorer.independent)
    assert not scorer.independent or np.abs(together - alone).max() < 0.05
    path = tmp_path / "docs.txt"
    path.write_text("\n".join([*sentences[:100], *sentences[:50]]))
    for name in ("one", "two"):
        filter_documents(classifier, (str(path),), str(tmp_path / name), form, 1, FilterOptions(unit_mb=0.005))
    for fate in ("kept", "dropped"):
        assert lines(tmp_path / "one" / fate) == lines(tmp_path / "two" / fate)


def test_dependence_on_the_batch_is_measured(classifier: Path) -> None:
    session = Scorer(classifier, FORM, 1).session

    class Dependent:
        encoder, max_seq_len = session.encoder, session.max_seq_len

        def predict_ids(self, rows: list[list[int]]) -> np.ndarray:
            return session.predict_ids(rows) + len(rows) / 100

    assert independent_of_batch(session)
    assert not independent_of_batch(Dependent())  # type: ignore[arg-type]
