"""The cascade as users run it: a gate taught by a small real model; the same rows from all engines and after a kill."""

import gzip
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.export.session import Session
from kdnas.filtering import cascade
from kdnas.filtering.finish import filter_finish
from kdnas.filtering.gate import GATE, read_gate
from kdnas.filtering.gate_options import GateOptions
from kdnas.filtering.open_store import open_store
from kdnas.filtering.options import DecisionOptions, FilterOptions
from kdnas.filtering.recorded import filter_apply
from kdnas.filtering.run import filter_documents
from kdnas.filtering.spans import sentence_spans
from kdnas.store.artifact import Artifact

from ..page_fixture import Page
from .filter_fixture import FORM, contents, lines, rows, run, write_documents
from .gate_fixture import GATE_OPTIONS, LEVEL, SURE, UNIT_MB, bad_gate, counts_of, gated, never_again

pytestmark = pytest.mark.slow


def test_a_gated_run_scores_fewer_sentences_and_bounds_what_it_missed(
    classifier: Path, articles: Path, whole: Path, tmp_path: Path
) -> None:
    artifact = Artifact.load(whole, "filter")
    artifact.verify()
    results, gate = artifact.results, artifact.results["gate"]
    assert run(classifier, articles, tmp_path / "plain", threshold=(LEVEL,), unit_mb=UNIT_MB) == 4
    plain = Artifact.load(tmp_path / "plain", "filter").results
    assert plain["gate"] is None
    assert results["tokens"] < plain["tokens"]
    assert results["documents"] == plain["documents"]
    kept, dropped = rows(whole / "kept"), rows(whole / "dropped")
    assert {row["id"] for row in dropped} < {row["id"] for row in rows(tmp_path / "plain/dropped")}
    assert len(kept) + len(dropped) + 1 == results["documents"]
    assert gate["used"]
    assert gate["sha256"] == json.loads((whole / GATE).read_text())["sha256"]
    assert gate["sample"] == 400
    assert gate["positives"] >= gate["needed"]
    assert gate["missed"] < gate["audited"] < gate["passed"]
    assert set(gate["languages"]) == {"en", "de"}
    for name in ("passed", "audited", "missed", "found"):
        assert gate[name] == sum(row[name] for row in gate["languages"].values())
    assert gate["missed_at_most"] < min(row["missed_at_most"] for row in gate["languages"].values()) + 0.1
    page = Page((whole / "report.html").read_text())
    assert f"{gate['audited']:,}" in page.text_of["gate"]
    assert "de" in page.text_of["gate"]


def test_the_bound_holds_for_what_was_missed(
    classifier: Path, articles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every sentence is scored here by the session."""
    never_again(monkeypatch)
    gated(classifier, articles, tmp_path / "out", SURE)
    gate = read_gate(open_store(str(tmp_path / "out")))
    assert gate is not None
    session = Session(classifier, FORM, 1)
    texts = [json.loads(line)["text"] or "" for file in sorted(articles.iterdir()) for line in file.open()]
    parts = [text[start:end] for text in texts for start, end in sentence_spans(text)]
    positive = session.predict(parts)[:, 1] >= LEVEL
    passed = gate.passes(parts)
    found = Artifact.load(tmp_path / "out", "filter").results["gate"]
    assert found["passed"] == passed.sum()  # the documents are too short for an early exit
    fraction = (positive & passed).sum() / positive.sum()
    assert 0 < fraction <= SURE.miss
    assert found["missed_at_least"] <= fraction <= found["missed_at_most"]


def test_shards_and_a_cluster_give_the_rows_of_one_process(
    classifier: Path, articles: Path, whole: Path, tmp_path: Path
) -> None:
    options = FilterOptions(threshold=(LEVEL,), unit_mb=UNIT_MB)
    for index in (1, 0):
        filter_documents(
            classifier, (str(articles),), str(tmp_path / "shards"), FORM, 1, options, True, index, 2, gate=GATE_OPTIONS
        )
    filter_finish(str(tmp_path / "shards"))
    filter_documents(
        classifier, (str(articles),), str(tmp_path / "ray"), FORM, 1, options, cluster="local", gate=GATE_OPTIONS
    )
    for name in ("shards", "ray"):
        assert contents(tmp_path / name) == contents(whole)
        assert counts_of(tmp_path / name) == counts_of(whole)


def test_a_killed_run_resumes_with_the_same_gate(
    classifier: Path,
    articles: Path,
    whole: Path,
    tmp_path: Path,
    kdnas: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    out = tmp_path / "out"
    words = ["filter", "--model", classifier, "--input", articles, "--output", out, "--form", FORM, "--threads", 1]
    words += ["--unit-mb", UNIT_MB, "--threshold", LEVEL, "--verify", "false", "--gate.use", "--gate.sample", 400]
    words += ["--gate.miss", 0.2, "--gate.confidence", 0.9, "--gate.audit", 0.2]
    command = [sys.executable, "-m", "kdnas.cli", *map(str, words)]
    stamp = 0
    for wanted in ("plan", GATE, "commits/00000/*.json", "commits/00000/*3.json"):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            until = time.monotonic() + 120
            while not list(out.glob(wanted)):
                assert time.monotonic() < until
                if process.poll() is not None:
                    break
                time.sleep(0.002)
            process.kill()
        if (out / GATE).exists():
            stamp = stamp or (out / GATE).stat().st_mtime_ns
    other = kdnas(*words[:-1], 0.1)
    assert other.returncode == 2
    assert "an unfinished run with gate.audit: 0.2 there, 0.1 now" in other.stderr
    done = kdnas(*words)
    assert done.returncode == 4, done.stderr
    assert "% of the positive sentences were missed (90 % confidence)" in done.stderr
    assert (out / GATE).stat().st_mtime_ns == stamp
    assert contents(out) == contents(whole)
    assert counts_of(out) == counts_of(whole)


def test_a_unit_whose_audit_is_beyond_the_bound_is_scored_again(
    classifier: Path, articles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(classifier, articles, tmp_path / "plain", threshold=(LEVEL,), unit_mb=UNIT_MB)
    monkeypatch.setattr(cascade, "build_gate", lambda *arguments: bad_gate(passes=True))
    found = gated(classifier, articles, tmp_path / "out").results
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
    units = len(list((tmp_path / "out/commits/00000").iterdir()))
    assert found["gate"]["units_again"] == units > 3
    assert (found["gate"]["passed"], found["gate"]["missed_at_most"]) == (0, 0.0)


def test_a_unit_in_pieces_is_scored_again_after_a_kill(
    classifier: Path, sentences: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive, longer than a unit: the pieces of both scorings are kept apart."""
    source = tmp_path / "in.jsonl.gz"
    texts = [json.dumps({"text": "\n".join(sentences[at : at + 3])}) + "\n" for at in range(0, len(sentences), 3)]
    source.write_bytes(gzip.compress("".join(texts).encode()))
    monkeypatch.setattr("kdnas.filtering.reading.CHUNK_DOCUMENTS", 5)
    run(classifier, source, tmp_path / "plain", threshold=(LEVEL,), unit_mb=0.002)
    monkeypatch.setattr(cascade, "build_gate", lambda *arguments: bad_gate(passes=True))
    keep = cascade.RunFolder.keep_piece

    def die(folder: Any, unit: int, number: int, piece: dict[str, Any], again: bool = False) -> dict[str, Any]:
        if again and number == 2:
            raise KeyboardInterrupt
        return keep(folder, unit, number, piece, again)

    monkeypatch.setattr(cascade.RunFolder, "keep_piece", die)
    with pytest.raises(KeyboardInterrupt):
        gated(classifier, source, tmp_path / "out", unit_mb=0.002)
    assert len(list((tmp_path / "out/work/0000000-again").iterdir())) == 2
    monkeypatch.setattr(cascade.RunFolder, "keep_piece", keep)
    found = gated(classifier, source, tmp_path / "out", unit_mb=0.002).results
    assert found["gate"]["units_again"] == 1
    assert lines(tmp_path / "out/kept") == lines(tmp_path / "plain/kept")
    assert lines(tmp_path / "out/dropped") == lines(tmp_path / "plain/dropped")


def test_side_cars_show_which_sentences_passed(
    classifier: Path, articles: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_again(monkeypatch)
    found = gated(classifier, articles, tmp_path / "scores", mode="annotate").results["gate"]
    passed = audited = 0
    session, gate = Session(classifier, FORM, 1), read_gate(open_store(str(whole)))
    assert gate is not None
    records = {
        row["id"]: row["text"] for file in articles.iterdir() for row in map(json.loads, file.open()) if row["text"]
    }
    for row in rows(tmp_path / "scores/scores"):
        if "problem" in row:
            continue
        marked = set(row.get("audited", []))
        none = {index for index, one in enumerate(row["sentences"]) if one[2] is None}
        assert not marked & none
        texts = [records[row["id"]][start:end] for start, end, _ in row["sentences"]]
        assert set(np.flatnonzero(gate.passes(texts)).tolist()) == marked | none
        passed, audited = passed + len(marked | none), audited + len(marked)
        assert row["scores"]["hap"] == max((one[2] or 0 for one in row["sentences"]), default=0)
        known = [index for index in range(len(texts)) if index not in none]
        if known and len(records[row["id"]]) < 300:
            scores = session.predict([texts[index] for index in known])[:, 1]
            assert [row["sentences"][index][2] for index in known] == pytest.approx(scores.tolist(), abs=1e-4)
    assert (passed, audited) == (found["passed"], found["audited"])


def test_apply_uses_a_gated_run_from_its_threshold_upwards(
    classifier: Path, articles: Path, whole: Path, tmp_path: Path
) -> None:
    gated(classifier, articles, tmp_path / "scores", mode="annotate")
    same = filter_apply(str(tmp_path / "scores"), str(tmp_path / "same"), DecisionOptions(threshold=(LEVEL,)))
    for fate in ("kept", "dropped", "quarantine"):
        assert lines(tmp_path / "same" / fate) == lines(whole / fate)
    assert same.results["gate"]["used"]
    higher = filter_apply(str(tmp_path / "scores"), str(tmp_path / "higher"), DecisionOptions(threshold=(0.9,))).results
    assert higher["gate"]["passed"] == same.results["gate"]["passed"]
    assert higher["gate"]["missed"] <= same.results["gate"]["missed"]
    assert higher["gate"]["found"] < same.results["gate"]["found"]
    for options, message in (
        (DecisionOptions(threshold=(0.79,)), r"threshold 0.79 for label 'hap': .* give at least 0.8"),
        (DecisionOptions(threshold=(0.9,), document_score="mean"), "give --document-score max or fraction"),
        (
            DecisionOptions(threshold=(0.9,), document_score="fraction"),
            r"sentence_threshold 0.5 for label 'hap': .* give at least 0.8",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            filter_apply(str(tmp_path / "scores"), str(tmp_path / "refused"), options)
    assert not (tmp_path / "refused").exists()


def test_a_gate_that_cannot_be_made_is_reported_and_not_used(
    classifier: Path, articles: Path, documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(classifier, documents, tmp_path / "plain", threshold=(LEVEL,), unit_mb=UNIT_MB)
    found = gated(classifier, documents, tmp_path / "small").results
    assert "sample of 400 is not smaller than the corpus" in found["gate"]["reason"]
    assert contents(tmp_path / "small") == contents(tmp_path / "plain")
    found = gated(classifier, articles, tmp_path / "few", GateOptions(True, sample=600), threshold=(0.99,)).results
    assert not found["gate"]["used"]
    assert "needs 299; a --gate.sample of about" in found["gate"]["reason"]
    error = capsys.readouterr().err
    assert "the model scores every sentence" in error
    assert "not used: half of the sample has" in error
    assert "not used" in Page((tmp_path / "few/report.html").read_text()).text_of["gate"]
    scores = gated(classifier, documents, tmp_path / "scores", mode="annotate").path
    assert filter_apply(str(scores), str(tmp_path / "any"), DecisionOptions(threshold=(0.3,))).results["gate"] is None


def test_wrong_gates_and_models_are_refused(
    classifier: Path, encoder: Path, articles: Path, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="encoder without a classification head"):
        gated(encoder, articles, tmp_path / "out")
    with pytest.raises(UsageError, match="'mean' needs the score of every sentence"):
        gated(classifier, articles, tmp_path / "out", document_score="mean")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match=r"gate.use: True there, None now"):
        run(classifier, articles, whole, threshold=(LEVEL,), unit_mb=UNIT_MB)
    out = Path(shutil.copytree(whole, tmp_path / "changed"))
    (out / GATE).write_text((out / GATE).read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(KdnasError, match="it has changed since this run began"):
        gated(classifier, articles, out)


def test_the_fraction_of_sentences_counts_from_its_own_threshold(
    classifier: Path, sentences: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate that lets nothing pass changes nothing; with one that lets all pass, only audited sentences have scores."""
    never_again(monkeypatch)
    source = write_documents(tmp_path / "docs.jsonl", ["\n".join(sentences[at : at + 5]) for at in range(0, 300, 5)])
    options: dict[str, Any] = {"document_score": "fraction", "threshold": (0.4,), "sentence_threshold": 0.6}
    run(classifier, source, tmp_path / "plain", unit_mb=UNIT_MB, **options)
    for passes in (False, True):
        monkeypatch.setattr(cascade, "build_gate", lambda *arguments, passes=passes: bad_gate(passes))
        out = tmp_path / str(passes)
        found = gated(classifier, source, out, GateOptions(True), **options).results["gate"]
        assert found["units_again"] == 0
        if passes:
            assert found["found"] == 0 < found["missed"] < found["audited"]
            assert len(rows(out / "dropped")) < len(rows(tmp_path / "plain/dropped"))
        else:
            assert contents(out) == contents(tmp_path / "plain")
