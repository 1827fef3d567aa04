"""The page of a filter run: what it shows, that it fetches nothing, and that texts are hidden first."""

import json
from pathlib import Path

import pytest

from kdnas.filtering.page import dropped_fractions

from ..page_fixture import HOSTILE, Page, assert_fetches_nothing
from .filter_fixture import outcome, rows

pytestmark = pytest.mark.slow


def test_the_page_shows_scores_thresholds_reasons_and_hidden_samples(
    classifier: Path, sentences: list[str], tmp_path: Path
) -> None:
    source = tmp_path / "docs.jsonl"
    records = [
        {"id": number or HOSTILE, "text": text, "lang": ["en", "<b>"][number % 2]}
        for number, text in enumerate(sentences[:200])
    ]
    records[1]["text"] = HOSTILE
    source.write_text("".join(json.dumps(record) + "\n" for record in [*records, {"text": 1}]))
    found = outcome(classifier, source, tmp_path / "out", threshold=(0.2,), unit_mb=0.004).results
    page = Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert_fetches_nothing(page)
    assert "onerror=" not in "".join(str(attrs) for tag, attrs in page.tags if tag != "script")
    assert sum(page.figures["scores"]["data"][0]["y"]) == 200
    fractions = page.figures["threshold"]["data"][0]["y"]
    assert fractions[0] == 100
    assert fractions[20] == pytest.approx(100 * found["dropped"] / 200, abs=1e-3)
    assert f"{found['dropped']:,}" in page.text_of["counts"]
    assert "column 'text' is not text but a number" in page.text_of["counts"]
    assert "<b>" in page.text_of["languages"]
    hidden = [attrs for tag, attrs in page.tags if attrs.get("class") == "blurred"]
    assert len(hidden) == len(found["samples"]) == 30
    names = [sample["name"] for sample in found["samples"]]
    again = outcome(classifier, source, tmp_path / "again", threshold=(0.2,), unit_mb=1.0).results
    assert [sample["name"] for sample in again["samples"]] == names  # the same sample, however the units are cut
    assert set(names) <= {row["id"] for row in rows(tmp_path / "out/dropped")}


def test_the_dropped_fraction_falls_from_one_to_zero() -> None:
    assert dropped_fractions([1, 0, 3]) == [1.0, 0.75, 0.75, 0.0]
    assert dropped_fractions([0, 0]) == [0.0, 0.0, 0.0]
