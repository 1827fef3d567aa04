"""`kdnas serve --bench`: the texts, the summary, and a short measurement."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.serving.bench import read_texts, summary


def test_texts_are_lines_or_fields(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.jsonl").write_text('{"text": "three"}\n{"text": 4}\n{"other": "five"}\n')
    (tmp_path / "empty.txt").write_text("\n")
    assert read_texts(tmp_path / "a.txt") == ["one", "two"]
    assert read_texts(tmp_path / "a.jsonl") == ["three"]
    with pytest.raises(UsageError, match="no texts"):
        read_texts(tmp_path / "empty.txt")
    with pytest.raises(UsageError, match="no such file"):
        read_texts(tmp_path / "missing.txt")


def test_the_summary_counts_only_answered_requests() -> None:
    found = summary(2, [(0.001, 200), (0.003, 200), (9.0, 429), (9.0, 0), (9.0, 500)], 0.5)
    assert (found["requests_per_second"], found["p50_ms"]) == (4.0, pytest.approx(2.0))
    assert (found["refused"], found["failed"]) == (1, 2)


@pytest.mark.slow
def test_a_short_measurement(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("You are very kind.\n" + "word " * 100 + "\n")
    words = [
        "serve",
        str(classifier),
        "--form",
        "onnxruntime-f32",
        "--threads",
        "1",
        "--bench",
        str(tmp_path / "texts.txt"),
    ]
    program = (
        "import kdnas.serving.bench as bench; bench.SECONDS, bench.CLIENTS = 0.3, (1, 3)\n"
        "from kdnas.cli import main\n"
        f"main({words!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [row["clients"] for row in results["loads"]] == [1, 3]
    for row in results["loads"]:
        assert row["requests_per_second"] > 0
        assert row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["failed"] == 0
    assert "requests/s" in done.stderr
