"""A gate together with thresholds by language, and with output in an object store."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.errors import UsageError
from kdnas.export.session import Session
from kdnas.filtering import cascade
from kdnas.filtering.finish import filter_finish
from kdnas.filtering.gate import GATE, read_gate
from kdnas.filtering.open_store import open_store
from kdnas.filtering.options import DecisionOptions, FilterOptions
from kdnas.filtering.recorded import filter_apply
from kdnas.filtering.run import filter_documents
from kdnas.filtering.spans import sentence_spans
from kdnas.filtering.store import Store, create_json
from kdnas.store.artifact import Artifact

from .filter_fixture import FORM, contents, run, run_folder
from .gate_fixture import GATE_OPTIONS, LEVEL, SURE, UNIT_MB, bad_gate, counts_in, counts_of, gated, never_again
from .s3_fixture import names_in, s3, s3_contents

pytestmark = pytest.mark.slow
LIMITS = {"en": 0.5, "de": 0.8}  # of the model `independent`


def counts_at(url: str) -> dict[str, Any]:
    return counts_in(json.loads(s3().cat_file(f"{url}/manifest.json"))["results"])


def test_a_sentence_is_positive_by_the_threshold_of_its_language(
    independent: Path, articles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every sentence is scored here by the session."""
    never_again(monkeypatch)
    gated(independent, articles, tmp_path / "out", SURE, threshold=None)
    gate, found = (
        read_gate(open_store(str(tmp_path / "out"))),
        Artifact.load(tmp_path / "out", "filter").results["gate"],
    )
    assert gate is not None
    session = Session(independent, FORM, 1, verify=False)
    records = [json.loads(line) for file in sorted(articles.iterdir()) for line in file.open()]
    missed = []
    for language, limit in LIMITS.items():
        texts = [record["text"] for record in records if record.get("lang") == language]
        parts = [text[start:end] for text in texts for start, end in sentence_spans(text)]
        scores, passed = session.predict(parts)[:, 1], gate.passes(parts)
        row = found["languages"][language]
        assert row["passed"] == passed.sum()  # the documents are too short for an early exit
        assert abs(row["found"] - (~passed & (scores >= limit)).sum()) <= (np.abs(scores - limit) < 1e-4).sum()
        missed += [(scores >= limit, passed), (scores >= min(LIMITS.values()), passed)]
    assert (missed[3][0] & ~missed[2][0]).sum() > 10  # German sentences that would be positive in English
    for both in (missed[::2], missed[1::2]):
        positive, passed = (np.concatenate(one) for one in zip(*both, strict=True))
        assert 0 < (positive & passed).sum() / positive.sum() <= SURE.miss

    gated(independent, articles, tmp_path / "scores", SURE, threshold=None, mode="annotate")
    same = filter_apply(str(tmp_path / "scores"), str(tmp_path / "same"))
    assert contents(tmp_path / "same") == contents(tmp_path / "out")
    assert same.results["gate"]["languages"] == found["languages"]
    one = filter_apply(str(tmp_path / "scores"), str(tmp_path / "one"), DecisionOptions(threshold=(0.5,)))
    assert one.results["gate"]["languages"]["en"] == found["languages"]["en"]
    assert one.results["gate"]["languages"]["de"]["found"] > found["languages"]["de"]["found"]
    with pytest.raises(UsageError, match=r"threshold 0.49 for label 'hap': .* give at least 0.5"):
        filter_apply(str(tmp_path / "scores"), str(tmp_path / "low"), DecisionOptions(threshold=(0.49,)))


def test_a_gated_run_in_an_object_store_is_that_of_a_folder(
    classifier: Path, articles: Path, whole: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gated(classifier, articles, f"{bucket}/run").exit_code == 4
    assert s3_contents(f"{bucket}/run") == contents(whole)
    assert counts_at(f"{bucket}/run") == counts_of(whole)
    made = s3().cat_file(f"{bucket}/run/{GATE}")
    assert made == (whole / GATE).read_bytes()
    assert json.loads(s3().cat_file(f"{bucket}/run/manifest.json"))["files"][GATE] == sha256(made).hexdigest()
    assert not [name for name in names_in(f"{bucket}/run") if name.startswith("work/") or name.endswith(".lock")]

    options, build = FilterOptions(threshold=(LEVEL,), unit_mb=UNIT_MB), cascade.build_gate
    built: list[str] = []
    monkeypatch.setattr(cascade, "build_gate", lambda folder, *rest: built.append(GATE) or build(folder, *rest))
    for index in (1, 0):
        given = (classifier, (str(articles),), f"{bucket}/shards", FORM, 1, options, True, index, 2)
        filter_documents(*given, gate=GATE_OPTIONS)
    assert built == [GATE]
    filter_finish(f"{bucket}/shards")
    assert s3_contents(f"{bucket}/shards") == contents(whole)
    assert counts_at(f"{bucket}/shards") == counts_of(whole)


def test_recorded_scores_of_a_gated_run_are_split_in_an_object_store(
    independent: Path, articles: Path, tmp_path: Path, bucket: str
) -> None:
    for place in (bucket, str(tmp_path)):
        gated(independent, articles, f"{place}/scores", threshold=None, mode="annotate")
        filter_apply(f"{place}/scores", f"{place}/split")
    for name in ("scores", "split"):
        assert s3_contents(f"{bucket}/{name}") == contents(tmp_path / name)
        assert counts_at(f"{bucket}/{name}") == counts_of(tmp_path / name)
    assert counts_at(f"{bucket}/split")["gate"]["used"]
    with pytest.raises(UsageError, match=r"threshold 0.4 for label 'hap': the gate of run 's3://.* give at least 0.5"):
        filter_apply(f"{bucket}/scores", f"{bucket}/low", DecisionOptions(threshold=(0.4,)))


def test_units_are_scored_again_in_an_object_store(
    classifier: Path, articles: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(classifier, articles, tmp_path / "plain", threshold=(LEVEL,), unit_mb=UNIT_MB)
    monkeypatch.setattr(cascade, "build_gate", lambda *arguments: bad_gate(passes=True))
    found = gated(classifier, articles, f"{bucket}/run").results["gate"]
    assert s3_contents(f"{bucket}/run") == contents(tmp_path / "plain")
    assert found["units_again"] == sum(1 for _ in run_folder(f"{bucket}/run").plan.units()) > 3
    assert counts_at(f"{bucket}/run")["gate"] == found


def test_the_gate_that_was_written_first_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*arguments: Any) -> dict[str, Any]:
        assert create_json(store, GATE, bad_gate(passes=True))  # another process is faster
        return bad_gate(passes=False)

    monkeypatch.setattr(cascade, "build_gate", build)
    nothing: Any = None
    for _ in range(2):
        gate = cascade.open_gate(run_folder(store.url), nothing, nothing, nothing, GATE_OPTIONS)
        assert gate is not None
        assert gate.threshold == 1.0
