"""The filter as users run it, against the scores of a session."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from kdnas.errors import KdnasError, UsageError
from kdnas.export.session import Session
from kdnas.serving.documents import Document
from kdnas.serving.filter import FilterOptions, choose_label, cut_shards, filter_documents
from kdnas.serving.predictor import Predictor
from kdnas.store.artifact import Artifact

from .filter_fixture import FORM, contents, opened, rows, run, write_documents


@pytest.fixture(scope="module")
def scores(classifier: Path, sentences: list[str]) -> np.ndarray:
    """P(hap) of the first 300 sentences from a session."""
    return Session(classifier, FORM, 1).predict(sentences[:300])[:, 1]


def test_decisions_equal_those_of_the_session(
    classifier: Path, documents: Path, scores: np.ndarray, tmp_path: Path
) -> None:
    assert run(classifier, documents, tmp_path / "out", threshold=0.7) == 0
    kept, dropped = rows(tmp_path / "out/kept"), rows(tmp_path / "out/dropped")
    clear = np.abs(scores - 0.7) > 1e-4
    assert {row["id"] for row in kept if clear[row["id"]]} == set(np.flatnonzero((scores < 0.7) & clear).tolist())
    assert {row["id"] for row in dropped if clear[row["id"]]} == set(np.flatnonzero((scores >= 0.7) & clear).tolist())
    assert len(kept) + len(dropped) == 300
    assert min(len(kept), len(dropped)) > 30
    for row in dropped:
        assert row["kdnas"]["label"] == "hap"
        assert row["kdnas"]["score"] == pytest.approx(scores[row["id"]], abs=1e-4)
        assert row["kdnas"]["reason"] == f"P(hap) {row['kdnas']['score']} >= 0.7"
    originals = documents.read_bytes().splitlines()
    part = opened(tmp_path / "out/kept/part-00000.jsonl").splitlines()
    assert part == [originals[json.loads(line)["id"]] for line in part]  # the same bytes, in order


def test_a_changed_model_is_refused(classifier: Path, documents: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(classifier, tmp_path / "model"))
    (model / "README.md").write_text("changed")
    with pytest.raises(KdnasError, match=r"README\.md: missing or changed since it was written"):
        filter_documents(model, documents, tmp_path / "out", FORM, 1)
    found = filter_documents(model, documents, tmp_path / "out", FORM, 1, verify=False)
    assert found.exit_code in (0, 4)


def test_the_manifest_has_counts_scores_and_files(
    classifier: Path, documents: Path, scores: np.ndarray, tmp_path: Path
) -> None:
    run(classifier, documents, tmp_path / "out")
    artifact = Artifact.load(tmp_path / "out", "filter")
    artifact.verify()
    results = artifact.results
    assert results["documents"] == results["windows"] == 300 == results["kept"] + results["dropped"]
    assert results["tokens"] == sum(map(len, Session(classifier, FORM, 1).encode(_texts(documents))))
    histogram = np.histogram(scores, 20, (0, 1))[0]
    assert np.abs(np.cumsum(results["scores"]) - np.cumsum(histogram)).max() <= 2  # scores at an edge may differ
    assert set(artifact.manifest["files"]) == set(contents(tmp_path / "out"))
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"kept", "dropped", "manifest.json"}


def _texts(documents: Path) -> list[str]:
    return [json.loads(line)["text"] for line in documents.read_text().splitlines()]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_compressed_input_gives_compressed_output(
    classifier: Path, documents: Path, tmp_path: Path, suffix: str
) -> None:
    run(classifier, documents, tmp_path / "plain")
    data = documents.read_bytes()
    half = data.index(b"\n", len(data) // 2) - 7  # two archives in one file, split inside a line
    packed = tmp_path / f"docs{suffix}"
    pack = gzip.compress if suffix.endswith("gz") else zstandard.ZstdCompressor().compress
    packed.write_bytes(pack(data[:half]) + pack(data[half:]))
    run(classifier, packed, tmp_path / "packed")
    for fate in ("kept", "dropped"):
        files = sorted((tmp_path / "packed" / fate).iterdir())
        assert all(file.name.endswith(suffix) for file in files)
        plain = sorted((tmp_path / "plain" / fate).iterdir())
        assert [opened(file) for file in files] == [opened(file) for file in plain]


def test_text_and_parquet_give_the_same_result(classifier: Path, documents: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = _texts(documents)
    (tmp_path / "docs.txt").write_text("\n\n".join(texts))  # blank lines are not documents; no line end at the end
    pq.write_table(pa.table({"id": range(300), "text": texts}), tmp_path / "docs.parquet", row_group_size=100)
    for name in ("docs.jsonl", "docs.txt", "docs.parquet"):
        assert run(classifier, tmp_path / name, tmp_path / f"out-{name}") == 0
    expected = rows(tmp_path / "out-docs.jsonl/dropped")
    assert rows(tmp_path / "out-docs.parquet/dropped") == expected
    found = rows(tmp_path / "out-docs.txt/dropped")
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    kept = b"".join(opened(file) for file in sorted((tmp_path / "out-docs.txt/kept").glob("*.txt"))).decode()
    assert kept.splitlines() == [row["text"] for row in rows(tmp_path / "out-docs.jsonl/kept")]


def test_unreadable_records_are_quarantined(classifier: Path, sentences: list[str], tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}).encode() for text in sentences[:20]]
    bad = {
        2: (b'{"text": "torn', "not JSON"),
        4: (b'["a", "list"]', "not a JSON object but a list"),
        6: (b'{"body": "x"}', "no column 'text'"),
        8: (b'{"text": 7}', "column 'text' is not text but a number"),
        10: (b'{"text": null}', "column 'text' is not text but null"),
        12: (b'{"text": "\xff\xfe"}', "not UTF-8"),
        14: (b'{"text": "\\ud83d"}', "unpaired surrogate"),
        16: (b"[" * 100000, "not JSON"),
    }
    for number, (line, _) in bad.items():
        lines.insert(number - 1, line)
    source = tmp_path / "docs.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines) + b"\n")
    assert run(classifier, source, tmp_path / "out", shard_documents=9) == 4
    found = rows(tmp_path / "out/quarantine")
    assert [row["line"] for row in found] == list(bad)
    for row in found:
        assert bad[row["line"]][1] in row["reason"]
    assert found[0]["raw"] == '{"text": "torn'
    assert "raw_base64" in found[5]
    results = Artifact.load(tmp_path / "out").results
    assert (results["documents"], results["quarantine"]) == (28, 8)
    assert run(classifier, source, tmp_path / "out", shard_documents=9) == 4  # finished: unchanged, same exit code


@pytest.mark.slow
def test_long_documents_have_the_maximum_score_of_their_windows(
    classifier: Path, sentences: list[str], scores: np.ndarray, tmp_path: Path
) -> None:
    session = Session(classifier, FORM, 1)
    texts = [" ".join(sentences[start : start + 12]) for start in range(0, 240, 12)]
    source = write_documents(tmp_path / "docs.jsonl", texts)
    run(classifier, source, tmp_path / "out", threshold=0.0, overlap=16)  # everything is dropped, with its score
    found = {row["id"]: row["kdnas"]["score"] for row in rows(tmp_path / "out/dropped")}
    encoder = Predictor(classifier, FORM, 1).session.encoder
    for number, inner in enumerate(encoder.ids(texts)):
        assert len(inner) > 62
        windows, start = [], 0
        while True:  # 62 tokens besides [CLS] and [SEP]; the next window shares 16 of them
            windows.append([*encoder.prefix, *inner[start : start + 62], *encoder.suffix])
            if start + 62 >= len(inner):
                break
            start += 62 - 16
        expected = []
        for window in windows:
            logits = session.run(np.array([window]), np.ones((1, len(window)), dtype=np.int64))[0].astype(float)
            expected.append(1 / (1 + np.exp(logits[0] - logits[1])))
        assert found[number] == pytest.approx(max(expected), abs=1e-4)
    assert Artifact.load(tmp_path / "out").results["windows"] > 3 * len(texts)


def test_the_verdict_is_added_or_replaced(classifier: Path, tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_bytes(b'{"n": 1e400, "big": 123456789012345678901234567890, "text": "a"} \r\n{"text":"b","kdnas":1}\n')
    run(classifier, source, tmp_path / "out", threshold=0.0)
    first, second = opened(tmp_path / "out/dropped/part-00000.jsonl").splitlines()
    assert first.startswith(
        b'{"n": 1e400, "big": 123456789012345678901234567890, "text": "a", "kdnas": {"label": "hap"'
    )
    assert list(json.loads(second)) == ["text", "kdnas"]
    assert json.loads(second)["kdnas"]["label"] == "hap"


@pytest.mark.slow
def test_a_finished_result_is_reused_or_refused(
    classifier: Path, documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(classifier, documents, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    assert run(classifier, documents, tmp_path / "out") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "an earlier run" in captured.err.splitlines()[-1]
    with pytest.raises(UsageError, match=r"finished result of a run with threshold: 0.5 there, 0.6 now"):
        run(classifier, documents, tmp_path / "out", threshold=0.6)
    documents.write_text(documents.read_text() + '{"text": "one more"}\n')
    with pytest.raises(UsageError, match="another input"):
        run(classifier, documents, tmp_path / "out")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")} == before


@pytest.mark.slow
def test_an_output_folder_with_other_content_is_refused(classifier: Path, documents: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("draft")
    with pytest.raises(UsageError, match="not empty, and not from `kdnas filter`"):
        run(classifier, documents, tmp_path / "mine")
    with pytest.raises(UsageError, match="'export' artifact"):
        run(classifier, documents, classifier)
    with pytest.raises(UsageError, match="this is a file"):
        run(classifier, documents, tmp_path / "mine/thesis.txt")
    assert (tmp_path / "mine/thesis.txt").read_text() == "draft"


def test_invalid_inputs_are_refused(classifier: Path, documents: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n \n")
    (tmp_path / "docs.csv").write_text("a,b\n")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(documents.read_bytes())[:-20])
    (tmp_path / "cut.jsonl.zst").write_bytes(zstandard.compress(documents.read_bytes())[:-20])
    (tmp_path / "not.jsonl.gz").write_bytes(documents.read_bytes())
    for name, message in {
        "none.jsonl": "no such file",
        "empty.jsonl": "it is empty",
        "blank.jsonl": "no documents",
        "docs.csv": "unknown file type",
        "": "this is a folder",
    }.items():
        with pytest.raises(UsageError, match=message):
            run(classifier, tmp_path / name, out)
    with pytest.raises(UsageError, match=r"no column 'body'; it has id, text"):
        run(classifier, documents, out, column="body")
    for name, message in {
        "not.jsonl.gz": "damaged archive",
        "cut.jsonl.gz": "truncated",
        "cut.jsonl.zst": "truncated",
    }.items():
        with pytest.raises(KdnasError, match=message):
            run(classifier, tmp_path / name, tmp_path / f"out-{name}")
    with pytest.raises(UsageError, match=r"it is or contains the input"):
        run(classifier, documents, tmp_path)
    with pytest.raises(UsageError, match=r"it is or contains the input"):
        run(classifier, documents, documents)
    with pytest.raises(UsageError, match="cannot write there"):
        run(classifier, documents, documents / "out")
    assert not out.exists()


@pytest.mark.parametrize(
    "options", [{"threshold": 1.5}, {"threshold": float("nan")}, {"overlap": -1}, {"shard_documents": 0}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        FilterOptions(**options)


def test_the_label_is_chosen_or_must_be_given(classifier: Path, encoder: Path, documents: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="encoder without a classification head"):
        run(encoder, documents, tmp_path / "out")
    with pytest.raises(UsageError, match="no such label; it has ok, hap"):
        run(classifier, documents, tmp_path / "out", label="toxic")
    assert not (tmp_path / "out").exists()
    predictor = Predictor(classifier, FORM, 1)
    for labels, expected in {
        ("ok", "hap"): "hap",
        ("Hate", "none", "fine"): "Hate",
        ("0", "1"): "1",
        ("LABEL_0", "LABEL_1"): "LABEL_1",
    }.items():
        predictor.session.labels = list(labels)
        assert choose_label(predictor, classifier, None) == expected
    for unclear in (["sports", "news"], ["hate", "offensive", "neither"], ["0", "1", "2"]):
        predictor.session.labels = unclear
        with pytest.raises(UsageError, match=f"one of {', '.join(unclear)}"):
            choose_label(predictor, classifier, None)
    assert choose_label(predictor, classifier, "2") == "2"


def test_shards_are_cut_by_documents_and_by_bytes() -> None:
    documents = [Document(number, b"x" * 12_000_000, "x", "", 0) for number in range(1, 6)]
    assert [len(shard) for shard in cut_shards(iter(documents), 100)] == [3, 2]
    assert [len(shard) for shard in cut_shards(iter(documents), 2)] == [2, 2, 1]


def test_the_filter_imports_neither_torch_nor_transformers(classifier: Path, documents: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from kdnas.commands import load_command\n"
        "model, source, out = map(Path, sys.argv[1:])\n"
        "assert load_command('filter')(model, source, out).exit_code == 0\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), *(name for name in sys.modules if name.count('.') == 1))"
    )
    command = [sys.executable, "-c", program, classifier, documents, tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"tokenizers", "kdnas.serving"} <= loaded
    assert loaded & {"openvino", "onnxruntime"}
    heavy = {"torch", "transformers", "optimum", "nncf", "sklearn", "pandas", "pyarrow", "fastapi", "uvicorn"}
    assert not loaded & (heavy | {"kdnas.latency", "kdnas.evaluation"})
