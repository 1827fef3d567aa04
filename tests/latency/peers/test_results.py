"""Numbers of the result by hand: ratios, throughput, Spearman, the front, the table; and texts of exact lengths."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdnas.errors import UsageError
from kdnas.export.folder import read_tokenizer
from kdnas.latency.peers.measure import Live
from kdnas.latency.peers.options import PeerOptions
from kdnas.latency.peers.results import front, records, reference_of, spearman, table, throughput, write_csv
from kdnas.latency.peers.rows import Row, candidates
from kdnas.latency.peers.texts import id_sets, similarity_pairs, text_sets
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus

from .test_worker import job_in


def live(tmp_path: Path, library: str, variant: str, ids: bool) -> Live:
    job = job_in(tmp_path, variant=variant, threads=2, choice={"spin": True})
    opened = {"versions": {"numpy": "2.0"}, "ids": ids, "bytes": 2_500_000, "start_s": 1.5}
    process: Any = None
    return Live(Row(library, Path("python"), job), process, opened, (0.98, 0.99), 120.0, [0.9, 0.1, 0.5])


def test_ratios_compare_means_of_the_same_round(tmp_path: Path) -> None:
    ours = {0: {"mix": [1.0, 3.0], "ids-8": [1.0]}, 1: {"mix": [4.0, 4.0], "ids-8": [1.0]}}
    theirs = {0: {"mix": [4.0, 4.0]}, 1: {"mix": [4.0, 8.0]}}
    rows = {"kdnas f": live(tmp_path, "kdnas", "f", True), "fastembed f32": live(tmp_path, "fastembed", "f32", False)}
    first, second = records(rows, {"kdnas f": ours, "fastembed f32": theirs}, "kdnas f", (), (5.0, 1.0, 3.0))
    assert (first["text_mix_ms"], first["text_mix_ratio"], first["ids_8_ms"]) == (3, 1, 1)
    assert second["text_mix_ms"] == 5
    # Ratios 2 and 1.5.
    assert (second["text_mix_ratio_low"], second["text_mix_ratio"], second["text_mix_ratio_high"]) == (
        1.525,
        1.75,
        1.975,
    )
    assert "ids_8_ms" not in second
    assert second["stsb_spearman"] == 100
    assert second["settings"] == "spin=True"
    assert (second["disk_mb"], second["memory_mb"], second["start_s"]) == (2.5, 120, 1.5)
    write_csv(tmp_path / "peers.csv", [first, second])
    assert (tmp_path / "peers.csv").read_text().splitlines()[2].startswith("fastembed f32,2,spin=True,numpy 2.0,True,")
    shown = table([first, second], "kdnas f")
    assert shown.row_count == 2


def test_throughput_is_that_of_the_best_batch() -> None:
    rounds = {0: {"mix": [10.0] * 4, "mix by 2": [10.0, 10.0], "mix by 4": [25.0]}}
    assert throughput(rounds, (2, 4)) == {"sentences_per_s": 200, "best_batch": 2}


def test_spearman_by_hand() -> None:
    assert spearman([0.1, 0.2, 0.3], [1, 2, 3]) == 100
    assert spearman([0.3, 0.2, 0.1], [1, 2, 3]) == -100
    assert spearman([], [1.0]) is None
    assert spearman([0.5, 0.5], [1, 2]) == 0  # constant


def test_no_row_beats_the_front() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "static", "text_mix_ms": 0.1, "stsb_spearman": 60.0},
        {"name": "slow", "text_mix_ms": 3.0, "stsb_spearman": 80.0},
        {"name": "beaten", "text_mix_ms": 2.0, "stsb_spearman": 59.0},
        {"name": "good", "text_mix_ms": 1.0, "stsb_spearman": 80.0},
        {"name": "not scored", "text_mix_ms": 0.05, "stsb_spearman": None},
    ]
    assert [row["name"] for row in front(rows)] == ["static", "good"]


def test_ratios_refer_to_the_first_form_of_the_export_that_runs() -> None:
    assert reference_of(["kdnas a", "kdnas b", "pytorch eager"], ("c", "b", "a")) == "kdnas b"
    assert reference_of(["pytorch eager"], ("a",)) == "pytorch eager"


def test_settings_to_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdnas.latency.peers.rows.default_threads", lambda: 3)
    row = Row("onnxruntime", Path("python"), job_in(tmp_path, variant="f32", choice={}))
    found = [(one.job.threads, one.job.choice["spin"]) for one in candidates(row, None)]
    assert found == [(1, True), (1, False), (2, True), (2, False), (3, True), (3, False)]
    assert [one.job.threads for one in candidates(row, 5)] == [5, 5]


def test_texts_have_exact_lengths(teacher: Teacher, corpus: Corpus) -> None:
    tokenizer = read_tokenizer(teacher.path / "tokenizer.json", 512)
    tokenizer.no_truncation()
    sets = text_sets(list(corpus.validation.texts), tokenizer, 100, 12, 3, 0)
    assert {name: len(texts) for name, texts in sets.items()} == {"mix": 12, "8": 3, "21": 3, "32": 3, "64": 3}
    ids = id_sets(sets, tokenizer, 100)
    for length in (8, 21, 32, 64):
        assert [len(row) for row in ids[f"ids-{length}"]] == [length] * 3
        assert len(set(sets[str(length)])) == 3
    assert max(len(row) for row in ids["ids-mix"]) <= 100
    with pytest.raises(UsageError, match=r"gives only 2 texts of 8 tokens, 3 are needed"):
        text_sets(["a"] * 12, tokenizer, 8, 12, 3, 0)


def test_pairs_of_stsb(tmp_path: Path, shared_data: Path) -> None:
    first, second, scores = similarity_pairs(shared_data)
    assert len(first) == len(second) == len(scores) > 1000
    assert 0 <= min(scores) < max(scores) <= 5
    assert np.ptp(scores) > 4
    with pytest.raises(UsageError, match="no glue/stsb/validation"):
        similarity_pairs(tmp_path)
    (tmp_path / "glue" / "stsb").mkdir(parents=True)
    (tmp_path / "glue" / "stsb" / "validation.jsonl").write_text('{"sentence1": "a", "sentence2": "b"}\n')
    with pytest.raises(UsageError, match="a row lacks sentence1, sentence2 or a numeric label"):
        similarity_pairs(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"minutes": 0},
        {"rounds": 1},
        {"sentences": 3},
        {"each": 0},
        {"batches": (1,)},
        {"threads": 0},
        {"least_cosine": 0},
    ],
)
def test_invalid_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PeerOptions(**wrong)
