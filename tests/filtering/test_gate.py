"""The gate: n-grams, scores that depend on the text alone, teaching, the sample, and the file."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdnas.errors import KdnasError, UsageError
from kdnas.filtering import ngrams
from kdnas.filtering.audit import count_gate, document_keys, sentence_uniforms, uniforms
from kdnas.filtering.bounds import threshold_rank
from kdnas.filtering.cascade import gate_of
from kdnas.filtering.gate import GATE, Gate, gate_hash, gate_record, gate_scores, read_gate
from kdnas.filtering.gate_options import GateOptions
from kdnas.filtering.inputs import find_inputs
from kdnas.filtering.open_store import open_store
from kdnas.filtering.options import DecisionOptions, FilterOptions
from kdnas.filtering.plan import Unit, cut_units
from kdnas.filtering.reading import Document
from kdnas.filtering.sample import draw_sample
from kdnas.filtering.spans import sentence_spans
from kdnas.filtering.store import create_json
from kdnas.filtering.teach import feature_matrix, targets, teach

from .filter_fixture import write_documents

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1), min_size=1)
WEIGHTS = np.random.default_rng(0).integers(-(2**15), 2**15, 2**ngrams.BITS).astype(np.int16)


def plain_counts(text: str) -> list[int]:
    """Numbers of n-grams of each kind, as they are defined."""
    marked = f"\n{text.lower()}\n"
    counts = [max(0, len(marked) - size + 1) for size in range(2, ngrams.LONGEST + 1)]
    words = "".join(one if ngrams._is_word()[min(ord(one), 2**16 - 1)] else " " for one in marked).split(" ")
    number = len([word for word in words if word])
    return [*counts, number, max(0, number - 1)]


@settings(max_examples=40)
@given(TEXTS)
def test_every_n_gram_is_counted_once(texts: list[str]) -> None:
    for text, *found in zip(texts, *((one.ends - one.starts).tolist() for one in ngrams.grams(texts)), strict=True):
        assert found == plain_counts(text)


@settings(max_examples=40)
@given(TEXTS, st.integers(1, 50))
def test_a_score_depends_on_the_text_alone(texts: list[str], size: int) -> None:
    together = gate_scores(WEIGHTS, texts)
    alone = [gate_scores(WEIGHTS, [text])[0] for text in texts]
    assert together.tolist() == alone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "BLOCK_CHARACTERS", size)
        assert gate_scores(WEIGHTS, texts).tolist() == alone


@settings(max_examples=40)
@given(TEXTS)
def test_the_matrix_of_the_lesson_gives_the_scores_of_the_gate(texts: list[str]) -> None:
    assert feature_matrix(texts) @ WEIGHTS.astype(float) == pytest.approx(gate_scores(WEIGHTS, texts), rel=1e-4, abs=1)


def test_n_grams_tell_words_and_their_order_apart() -> None:
    first, *others = (
        np.concatenate(
            [one.buckets[a:b] for one in ngrams.grams([text]) for a, b in zip(one.starts, one.ends, strict=True)]
        )
        for text in ("you are fine", "You are FINE", "fine are you", "u are fine")
    )
    assert first.tolist() == others[0].tolist()
    assert all(set(first.tolist()) != set(one.tolist()) for one in others[1:])


def test_targets_are_a_half_at_the_level() -> None:
    found = targets(np.array([[0.9, 0.0], [0.2, 0.3], [0.0, 0.0], [0.95, 1.0]]), np.array([[0.9, 0.3]] * 4))
    assert found[:2].tolist() == [0.5, 0.5]
    assert found[2] < 0.01
    assert found[3] > 0.99
    assert targets(np.array([[1.0, 0.3], [1.0, 0.0]]), np.array([[np.inf, 0.3]] * 2)).tolist()[0] == 0.5
    assert targets(np.array([[1.0]]), np.array([[np.inf]])).tolist() == [0.0]


def words_and_scores(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Sentences of made-up words, one in ten with one of five bad words, and scores of a classifier that knows them."""
    random = np.random.default_rng(seed)
    words = ["".join(random.choice(list("abcdefghijklmno"), 6)) for _ in range(200)]
    texts, bad = [], random.random(count) < 0.1
    for is_bad in bad:
        text = random.choice(words[5:], 8).tolist()
        texts.append(" ".join([*text, str(random.choice(words[:5]))] if is_bad else text))
    return texts, np.where(bad, 0.9, 0.05)[:, None]


def levels_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The level 0.5 of each sentence, and as the lowest one."""
    return np.full((count, 1), 0.5), np.array([0.5])


@pytest.mark.slow
def test_a_gate_lets_clean_sentences_pass_and_few_others() -> None:
    texts, scores = words_and_scores(8000, 1)
    settings = GateOptions(True, sample=4000, miss=0.02)
    record, weights = gate_of(texts[:4000], scores[:4000], *levels_of(4000), settings)
    assert weights is not None
    assert record["positives"] == int((scores[1:4000:2] >= 0.5).sum()) >= record["needed"] == 149
    gate = Gate(weights, record["threshold"], 0.005, 0)
    passed = gate.passes(texts[4000:])
    positive = scores[4000:, 0] >= 0.5
    assert passed[~positive].mean() > 0.9
    assert passed[positive].mean() <= 0.02


@pytest.mark.slow
def test_the_threshold_of_a_gate_also_holds_for_the_lowest_level() -> None:
    """In the second language only the higher of two scores is positive; the gate has to find both."""
    texts, scores = words_and_scores(4000, 1)
    scores[scores == 0.9] = np.where(np.arange((scores == 0.9).sum()) % 2, 0.9, 0.6)
    levels = np.where(np.arange(4000) // 2 % 2, 0.5, 0.8)[:, None]
    settings = GateOptions(True, sample=4000, miss=0.05)
    record, weights = gate_of(texts, scores, levels, np.array([0.5]), settings)
    assert weights is not None
    held, half = gate_scores(weights, texts[1::2]), scores[1::2, 0]
    ranked = []
    for reaching in (half >= levels[1::2, 0], half >= 0.5):
        rank = threshold_rank(int(reaching.sum()), 0.05, 0.95)
        ranked.append(np.sort(held[reaching])[rank - 1])
    assert record["positives"] == (half >= levels[1::2, 0]).sum() < (half >= 0.5).sum()
    assert record["threshold"] == min(ranked) < max(ranked)


def test_a_gate_that_cannot_hold_its_bound_is_not_used() -> None:
    texts, scores = words_and_scores(2000, 2)
    record, weights = gate_of(texts, scores, *levels_of(2000), GateOptions(True, sample=2000))
    assert weights is None
    assert record["positives"] == 88
    assert "needs 299; a --gate.sample of about 7000 has as many" in record["reason"]  # 299 * 2000 / 88
    record, weights = gate_of(texts, np.ones_like(scores), *levels_of(2000), GateOptions(True, sample=2000))
    assert weights is None
    assert "would let only" in record["reason"]


def test_the_file_of_a_gate_is_checked(tmp_path: Path) -> None:
    made = {"used": True, "reason": "", "threshold": 0.1 + 0.2, "audit": 0.005, "seed": 3}
    store = open_store(str(tmp_path))
    create_json(store, GATE, gate_record(made, WEIGHTS))
    gate = read_gate(store)
    assert gate is not None
    assert (gate.threshold, gate.audit, gate.seed) == (0.1 + 0.2, 0.005, 3)
    assert gate.weights.tolist() == WEIGHTS.tolist()
    record = json.loads((tmp_path / GATE).read_text())
    (tmp_path / GATE).write_text(json.dumps(record | {"threshold": 0.5}))
    with pytest.raises(KdnasError, match="it has changed since this run began"):
        read_gate(store)
    other = {name: value for name, value in record.items() if name != "sha256"} | {"features": "0"}
    (tmp_path / GATE).write_text(json.dumps(other | {"sha256": gate_hash(other)}))
    with pytest.raises(KdnasError, match="from another version of kdnas"):
        read_gate(store)
    (tmp_path / GATE).write_text("{")
    with pytest.raises(KdnasError, match="cannot be read"):
        read_gate(store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"miss": 0.0}, r"gate.miss is 0.0"),
        ({"miss": 1.0}, r"gate.miss is 1.0"),
        ({"miss": float("nan")}, r"gate.miss is nan"),
        ({"confidence": 0.4}, r"gate.confidence is 0.4"),
        ({"confidence": 1.0}, r"gate.confidence is 1.0"),
        ({"audit": 0.0}, r"gate.audit is 0.0"),
        ({"audit": 1.5}, r"gate.audit is 1.5"),
        ({"sample": 1}, r"gate.sample is 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GateOptions(True, **options)  # type: ignore[arg-type]


def test_impossible_gates_are_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match=r"gate.sample is 500: .* needs 299 positive sentences"):
        GateOptions(True, sample=500).require_possible(DecisionOptions())
    with pytest.raises(UsageError, match="'mean' needs the score of every sentence"):
        GateOptions(True).require_possible(DecisionOptions(document_score="mean"))
    GateOptions(sample=500).require_possible(DecisionOptions(document_score="mean"))


def document(file: str, position: int, text: str = "") -> Document:
    return Document(file, position, b"", text)


def test_random_choices_depend_on_document_and_sentence_alone() -> None:
    documents = [document("a", position) for position in range(2000)]
    keys = document_keys("audit", 0, documents)
    counts = [index % 7 for index in range(2000)]
    found = sentence_uniforms(keys, counts)
    at = sum(counts[:1234])
    assert sentence_uniforms(keys[1234:1235], [counts[1234]]).tolist() == found[at : at + counts[1234]].tolist()
    assert document_keys("audit", 0, documents[7:8]).tolist() == keys[7:8].tolist()
    other_keys = document_keys("audit", 1, documents), document_keys("sample", 0, documents)
    for numbers in (found, *map(uniforms, (keys, *other_keys))):
        assert np.abs(np.quantile(numbers, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.05
    assert abs(np.corrcoef(np.repeat(uniforms(keys), counts), found)[0, 1]) < 0.05


def test_random_choices_do_not_depend_on_where_the_corpus_is_stored() -> None:
    texts = ("one", "two", "a lone surrogate: \ud800")
    here, there = (
        document_keys("audit", 0, [document(f"{folder}/a.jsonl", 0, text) for text in texts])
        for folder in ("/data/corpus", "s3://bucket/2026")
    )
    assert here.tolist() == there.tolist()
    assert len({*here.tolist(), *document_keys("audit", 0, [document("/data/b.jsonl", 0, "one")]).tolist()}) == 4


def test_the_gate_is_counted_by_language() -> None:
    passed = np.array([1, 1, 0, 0, 1, 0], bool)
    audited = np.array([1, 0, 0, 0, 1, 0], bool)
    positive = np.array([1, 0, 1, 0, 0, 1], bool)
    found = count_gate(["en", "de", "en"], [2, 0, 4], passed, audited, positive)
    assert found == {"en": [3, 2, 1, 2], "de": [0, 0, 0, 0]}


def units_of(folder: Path, options: FilterOptions) -> list[Unit]:
    return list(cut_units(find_inputs([str(folder)]), options.unit_bytes))


def corpus(folder: Path, texts: Sequence[str]) -> Path:
    for number in range(4):
        write_documents(folder / f"{number}.jsonl", list(texts[number::4]))
    return folder


def test_the_sample_is_spread_over_the_units_and_the_same_each_time(tmp_path: Path) -> None:
    texts = [f"Sentence {number} of this text. And another {number}!" for number in range(4000)]
    options = FilterOptions(unit_mb=0.02)
    units = units_of(corpus(tmp_path, texts), options)
    sample = draw_sample(units, options, 400, 0)
    assert sample == draw_sample(units, options, 400, 0)
    assert sample != draw_sample(units, options, 400, 1)
    assert len(units) > 8
    assert len(sample.texts) == len(set(sample.texts)) == 400
    assert not sample.whole
    numbers = np.array([int(text.split()[1 if text.startswith("S") else 2].strip("!")) for text in sample.texts])
    assert np.bincount(numbers * 8 // 4000).min() > 30  # of 50
    assert 140 < sum(text.startswith("S") for text in sample.texts) < 260
    first = numbers[:200]
    assert np.bincount(first * 4 // 4000).min() > 25  # each part of the list has all parts of the corpus


def test_a_sample_may_be_the_whole_corpus(tmp_path: Path) -> None:
    texts = [f"Sentence {number}. Another {number}!" for number in range(40)]
    options = FilterOptions(unit_mb=0.001)
    units = units_of(corpus(tmp_path, texts), options)
    sample = draw_sample(units, options, 5000, 0)
    assert sample.whole
    assert sorted(sample.texts) == sorted(text[a:b] for text in texts for a, b in sentence_spans(text))
    (tmp_path / "0.jsonl").write_text("changed\n")
    fewer = draw_sample(units, options, 5000, 0)
    assert not fewer.whole
    assert 0 < len(fewer.texts) < 80


def test_only_some_of_many_units_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdnas.filtering.sample.MOST_UNITS", 3)
    options = FilterOptions(unit_mb=0.001)
    texts = [f"Sentence {number}." for number in range(900)]
    units = units_of(corpus(tmp_path, texts), options)
    sample = draw_sample(units, options, 50_000, 0)
    assert not sample.whole
    assert 30 < len(sample.texts) < 300


def test_the_lesson_is_the_same_each_time() -> None:
    texts, scores = words_and_scores(200, 3)
    assert (teach(texts, scores[:, 0]) == teach(texts, scores[:, 0])).all()
