"""The comparison: real libraries on a tiny encoder; absent, wrong, damaged and failing ones; an interrupted run."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.latency.peers.options import PeerOptions
from kdnas.latency.peers.rounds import Rounds
from kdnas.latency.peers.rows import chosen_libraries, find_rows
from kdnas.latency.peers.run import run_peers
from kdnas.store.artifact import Artifact
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

pytestmark = pytest.mark.slow
AddLibrary = Callable[..., Path]
OPTIONS = PeerOptions(rounds=2, sentences=10, each=2, batches=(4,), threads=1)
# The calls with several texts are in the timed rounds only.
DIES_ONCE = """if len(texts) > 1 and not state.exists():
    state.touch()
    os._exit(3)"""


def compare(home: Path, export: Artifact, corpus: Corpus, *names: str, **given: Any) -> dict[str, Any]:
    """Results of a comparison of PyTorch with these libraries."""
    return run_peers(home, export.path, corpus, chosen_libraries(names), OPTIONS, **given).results


def by_name(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in results["rows"]}


@pytest.mark.exhaustive  # every library; the other tests run some
def test_installed_libraries_give_the_same_answers(
    tmp_path: Path, small_export: Artifact, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("kdnas", "onnxruntime", "openvino", "optimum", "sentence-transformers")
    pairs = (["a matrix", "the sum", "an error"], ["a matrix", "the mean", "a file"], [5.0, 3.0, 1.0])
    artifact = run_peers(tmp_path, small_export.path, corpus, chosen_libraries(names), OPTIONS, pairs)
    rows = by_name(artifact.results)
    expected = ["kdnas openvino-f32", "kdnas onnxruntime-f32", "pytorch eager", "onnxruntime f32", "openvino f32"]
    expected += ["optimum openvino-f32", "optimum onnxruntime-f32", "sentence-transformers torch"]
    expected += ["sentence-transformers onnx", "sentence-transformers openvino"]
    assert set(expected) <= set(rows), artifact.results["left_out"]
    assert artifact.results["reference"] in ("kdnas openvino-f32", "kdnas onnxruntime-f32")
    assert artifact.results["left_out"]["onnxruntime int8"] == "the export has no form onnxruntime-int8"
    assert rows[artifact.results["reference"]]["text_mix_ratio"] == 1
    for row in rows.values():
        assert row["cosine_least"] > 0.999
        assert row["rounds"] == 2
        assert row["memory_mb"] > 20
        assert row["disk_mb"] > 0.5
        assert row["start_s"] > 0.1
        assert -100 <= row["stsb_spearman"] <= 100
        assert row["text_21_ratio_low"] <= row["text_21_ratio"] <= row["text_21_ratio_high"]
        assert ("ids_21_ms" in row) == (not row["name"].startswith("sentence"))
        assert row["best_batch"] in (1, 4)
    with (artifact.path / "peers.csv").open() as lines:
        assert [line["name"] for line in csv.DictReader(lines)] == list(rows)
    assert "https://" not in (artifact.path / "peers.html").read_text().split("<body>")[1].split("<script>")[0]
    assert not (artifact.path / "prepared").exists()
    monkeypatch.setattr(Rounds, "run", lambda _: pytest.fail("timed again"))
    assert run_peers(tmp_path, small_export.path, corpus, chosen_libraries(names), OPTIONS, pairs) == artifact


def test_a_library_of_a_few_lines_is_compared(
    tmp_path: Path, small_export: Artifact, corpus: Corpus, add_library: AddLibrary, right: None
) -> None:
    add_library("dummy")
    found = compare(tmp_path, small_export, corpus, "dummy")
    dummy = by_name(found)["dummy plain"]
    assert dummy["same_model"] is False
    assert dummy["cosine_mean"] is None
    assert dummy["settings"] in ("width=4", "width=8")
    assert "ids_21_ms" not in dummy
    assert found["reference"] == "right plain"  # no row of this project runs


def test_an_absent_library_is_named_with_what_adds_it(
    tmp_path: Path, small_export: Artifact, corpus: Corpus, add_library: AddLibrary, right: None
) -> None:
    add_library("dummy", PACKAGES=("no-such-distribution",))
    found = compare(tmp_path, small_export, corpus, "dummy")
    assert found["left_out"]["dummy"] == "not installed; the same command with --install-peers dummy adds it"
    assert "dummy plain" not in by_name(found)


@pytest.mark.parametrize(
    ("width", "reason"),
    [
        (4, "its vectors have 4 numbers, PyTorch's 96: not this model"),
        (96, r"a mean cosine of -?0\.\d+ with PyTorch's"),
    ],
)
def test_a_library_that_runs_another_model_is_left_out_before_it_is_timed(
    tmp_path: Path,
    small_export: Artifact,
    corpus: Corpus,
    add_library: AddLibrary,
    right: None,
    width: int,
    reason: str,
) -> None:
    add_library("dummy", SAME_MODEL=True, SEED=8, CHOICES={"plain": ({"width": width},)})
    found = compare(tmp_path, small_export, corpus, "dummy")
    assert re.search(reason, found["left_out"]["dummy plain"])
    logs = read_jsonl(next(tmp_path.glob("peers/*/rounds.jsonl")))
    assert {line["row"] for line in logs if "round" in line} == {"right plain"}


def test_a_library_that_cannot_read_the_model_is_left_out(
    tmp_path: Path, small_export: Artifact, corpus: Corpus, right: None
) -> None:
    damaged = shutil.copytree(small_export.path, tmp_path / "damaged")
    (damaged / "onnx" / "model.onnx").write_bytes(b"not a graph")
    found = compare(tmp_path, Artifact.load(damaged, "export"), corpus, "onnxruntime")
    assert found["left_out"]["onnxruntime f32"].startswith("it cannot run this model: ")
    assert list(by_name(found)) == ["right plain"]


def test_without_right_answers_nothing_is_timed(
    tmp_path: Path,
    small_export: Artifact,
    corpus: Corpus,
    add_library: AddLibrary,
    right: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_library("dummy", "raise ValueError('no weights')", CHOICES={"plain": ({"width": 4},)})
    monkeypatch.setattr("kdnas.latency.peers.rows.REFERENCE", "dummy")
    monkeypatch.setattr("kdnas.latency.peers.run.RIGHT", "dummy plain")
    message = "dummy plain cannot run, so no answer can be checked: it cannot run this model: ValueError: no weights"
    with pytest.raises(KdnasError, match=message):
        compare(tmp_path, small_export, corpus, "right")
    assert not list(tmp_path.glob("peers/*/rounds.jsonl"))


def test_a_library_that_dies_once_is_started_again(
    tmp_path: Path,
    small_export: Artifact,
    corpus: Corpus,
    add_library: AddLibrary,
    right: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    add_library("dummy", DIES_ONCE)
    found = compare(tmp_path, small_export, corpus, "dummy")
    assert by_name(found)["dummy plain"]["rounds"] == 2
    assert "dummy plain failed (exit code 3" in capfd.readouterr().err


def test_a_library_that_always_dies_is_left_out_and_the_others_go_on(
    tmp_path: Path, small_export: Artifact, corpus: Corpus, add_library: AddLibrary, right: None
) -> None:
    add_library("dummy", "if len(texts) > 1: os._exit(4)")
    found = compare(tmp_path, small_export, corpus, "dummy")
    assert found["left_out"]["dummy plain"].startswith("it failed 3 times while it was timed: exit code 4")
    assert by_name(found)["right plain"]["rounds"] == 2


def test_an_interrupted_run_resumes(
    tmp_path: Path,
    small_export: Artifact,
    corpus: Corpus,
    right: None,
    add_library: AddLibrary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_library("dummy")

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("kdnas.latency.peers.run.finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare(tmp_path, small_export, corpus, "dummy")
    (log,) = tmp_path.glob("peers/*.partial/rounds.jsonl")
    before = log.read_text()
    assert before.count('"round"') >= 4
    found = compare(tmp_path, small_export, corpus, "dummy")
    (log,) = tmp_path.glob("peers/*/rounds.jsonl")
    assert log.read_text() == before  # neither raced nor timed again
    assert by_name(found)["dummy plain"]["rounds"] == 2


def test_unknown_libraries_and_other_folders_are_refused(
    tmp_path: Path, home: Path, small_export: Artifact, corpus: Corpus
) -> None:
    with pytest.raises(UsageError, match="peer 'numpi': allowed are kdnas, pytorch"):
        chosen_libraries(["numpi"])
    with pytest.raises(UsageError, match="not an exported model"):
        find_rows(tmp_path, ["pytorch"], home, tmp_path)
    other = shutil.copytree(small_export.path, tmp_path / "other")
    settings = json.loads((other / "kdnas.json").read_text())
    (other / "kdnas.json").write_text(json.dumps(settings | {"task": "text-classification", "labels": ["a", "b"]}))
    with pytest.raises(UsageError, match="an export for text-classification; peers are compared on an encoder"):
        find_rows(other, ["pytorch"], home, tmp_path)
