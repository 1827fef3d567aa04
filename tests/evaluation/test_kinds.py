"""Training targets, heads and losses of each kind of task, and that a model learns it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from kdnas.evaluation.encoded import Encoded, load_head
from kdnas.evaluation.finetune import Plan, Recipe, as_run, finetune
from kdnas.evaluation.kinds import CLASSES, SCORE, SPANS, WORDS, TaskKind
from kdnas.evaluation.kinds.words import IGNORED
from kdnas.evaluation.metric_modules import scores_of
from kdnas.evaluation.rows import Answers, Split
from kdnas.evaluation.tasks import Task
from kdnas.models.teacher import Teacher
from kdnas.store.progress import stage
from kdnas.text.corpus import Corpus

VOCABULARY = ("red", "green", "blue", "seven", "nine", "four", "the", "of")


def test_token_ids_equal_those_of_the_corpus(tiny_teacher: Teacher, corpus: Corpus) -> None:
    texts = corpus.validation.texts[:40]
    encoded = Encoded.of(CLASSES, Split(list(texts), [0] * 40), tiny_teacher.path, seq_len=64)
    for index, ids in enumerate(encoded.ids):
        assert ids.tolist() == corpus.validation[index].tolist()


def test_texts_are_cut_at_seq_len(teacher: Teacher) -> None:
    (ids,) = Encoded.of(CLASSES, Split(["word " * 100], [0]), teacher.path, seq_len=16).ids
    assert len(ids) == 16
    assert ids[0] == 101
    assert ids[-1] == 102


def test_pairs_have_the_token_types_of_transformers(teacher: Teacher) -> None:
    pairs = [("A man plays.", "A man is playing a flute."), ("one", "two " * 60)]
    encoded = Encoded.of(SCORE, Split(pairs, [3.8, 0.0]), teacher.path, seq_len=32)
    tokenizer = AutoTokenizer.from_pretrained(teacher.path)
    for pair, ids, types in zip(pairs, encoded.ids, encoded.types, strict=True):
        expected = tokenizer(*pair, truncation=True, max_length=32)
        assert (ids.tolist(), types.tolist()) == (expected["input_ids"], expected["token_type_ids"])
    inputs, targets = encoded.batch(np.array([1, 0]), pad_id=0)
    assert inputs["token_type_ids"].shape == inputs["input_ids"].shape == (2, 32)
    assert targets.tolist() == pytest.approx([0.0, 3.8])
    assert targets.dtype == torch.float32


def test_the_first_token_of_a_word_has_its_class(teacher: Teacher) -> None:
    words = ["Unbelievably", "good", "\x07", "tokenization"]
    encoded = Encoded.of(WORDS, Split([words], [[1, 0, 2, 1]]), teacher.path, seq_len=32)
    tokens = AutoTokenizer.from_pretrained(teacher.path).convert_ids_to_tokens(encoded.ids[0])
    targeted = [(token, int(target)) for token, target in zip(tokens, encoded.targets[0], strict=True) if target >= 0]
    assert targeted == [("un", 1), ("good", 0), ("token", 1)]
    inputs, targets = encoded.batch(np.array([0]), pad_id=0)
    assert targets.shape == inputs["input_ids"].shape
    assert (targets[inputs["attention_mask"] == 0] == IGNORED).all()


def test_answers_are_targets_in_the_window_that_contains_them(teacher: Teacher) -> None:
    context = "word " * 60 + "Ada Lovelace wrote it. " + "word " * 60
    start = context.index("Ada")
    split = Split([("Who wrote it?", context)], [Answers(("Ada Lovelace",), start)])
    encoded = Encoded.of(SPANS, split, teacher.path, seq_len=48)
    tokenizer = AutoTokenizer.from_pretrained(teacher.path)
    found = []
    for ids, (first, last) in zip(encoded.ids, encoded.targets, strict=True):
        if last:
            found.append(tokenizer.decode(ids[first : last + 1]))
        else:
            assert first == 0
    assert 1 <= len(found) < len(encoded.ids)
    assert set(found) == {"ada lovelace"}


def test_rows_and_words_that_are_cut_are_counted(teacher: Teacher) -> None:
    def note(kind: TaskKind, texts: list[Any], languages: tuple[str, ...] = ()) -> list[str]:
        return Encoded.cut_notes(kind, Split(texts, [0] * len(texts), list(languages)), teacher.path, 16)

    # 14 tokens fit between the two special tokens.
    assert note(CLASSES, ["word " * 14, "word " * 3]) == []
    assert note(CLASSES, ["word " * 14, "word " * 15, "a", "b"]) == ["1 of 4 (25.0 %) test rows are cut at 16 tokens"]
    assert note(SCORE, [("word " * 14, "one"), ("a", "b")]) == ["1 of 2 (50.0 %) test rows are cut at 16 tokens"]
    assert note(SPANS, [("word " * 8, "word " * 200)]) == []
    found = note(SPANS, [("word " * 9, "word " * 200), ("who", "me")])
    assert found == ["the questions of 1 of 2 (50.0 %) test rows are cut at 8 tokens"]
    fits, loses = ["word"] * 14, ["word"] * 24
    assert note(WORDS, [fits, ["word"] * 13 + ["tokenization"]]) == []  # the last word keeps its first token
    cut = "test rows are cut at 16 tokens and lose"
    assert note(WORDS, [fits, loses]) == [
        f"1 of 2 (50.0 %) {cut} 10 of 38 (26.3 %) words; entities in these words count as missed"
    ]
    assert note(WORDS, [fits, loses, loses], ("de", "ja", "de")) == [
        f"2 of 3 (66.7 %) {cut} 20 of 62 (32.3 %) words, most in ja (10 of 24 (41.7 %)); "
        "entities in these words count as missed"
    ]


def test_words_that_are_cut_off_are_missed_entities(teacher: Teacher) -> None:
    """Two models that answer alike have equal scores only if the words beyond the maximum length count."""
    task = Task("toy/words", ["O", "B-PER"], *[Split([], [])] * 3, kind=WORDS, metric="entity_f1")
    split = Split([["Ada"] * 4], [[1, 1, 1, 1]])
    assert scores_of(task, split, [[1, 1]])["entity_recall"] == 0.5
    assert scores_of(task, split, [[1, 1, None, None]]) == scores_of(task, split, [[1, 1]])


def test_losses_equal_hand_computed_values() -> None:
    class Output:
        logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]])
        start_logits = torch.tensor([[0.0, 0.0]])
        end_logits = torch.tensor([[0.0, math.log(3)]])

    words = WORDS.loss(Output, torch.tensor([[IGNORED, 1]]))
    assert float(words) == pytest.approx(math.log(2))
    # Start: 1 of 2; end: 3 of 4.
    spans = SPANS.loss(Output, torch.tensor([[0, 1]]))
    assert float(spans) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    Output.logits = torch.tensor([[3.0], [1.0]])
    assert float(SCORE.loss(Output, torch.tensor([1.0, 1.0]))) == pytest.approx(2.0)
    Output.logits = torch.tensor([[0.0, math.log(3)]])
    assert float(CLASSES.loss(Output, torch.tensor([1]))) == pytest.approx(math.log(4 / 3))


def rows(kind: TaskKind, count: int, seed: int) -> Split:
    """Rows that a small model can learn: classes of colours and numbers, the number of colours, or a number's position."""
    rng = np.random.default_rng(seed)
    texts: list[Any] = []
    labels: list[Any] = []
    for _ in range(count):
        words = rng.choice(VOCABULARY, 6).tolist()
        if kind is WORDS:
            texts.append(words)
            labels.append([1 if word in VOCABULARY[:3] else 2 if word in VOCABULARY[3:6] else 0 for word in words])
        elif kind is SCORE:
            texts.append(("how many colours", " ".join(words)))
            labels.append(float(sum(word in VOCABULARY[:3] for word in words)))
        else:
            words = ["the"] * 6
            words[rng.integers(6)] = "seven"
            texts.append(("which number", " ".join(words)))
            labels.append(Answers(("seven",), " ".join(words).index("seven")))
    return Split(texts, labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "labels", "metric", "least"),
    [
        (WORDS, ["O", "COLOUR", "NUMBER"], "entity_f1", 0.9),
        (SCORE, ["score"], "pearson_spearman", 0.8),
        (SPANS, [], "answer_f1", 0.9),
    ],
)
def test_each_kind_is_learnt(
    kind: TaskKind, labels: list[str], metric: str, least: float, tiny_teacher: Teacher, tmp_path: Path
) -> None:
    splits = [rows(kind, count, seed) for seed, count in enumerate((400, 40, 60))]
    task = Task(f"toy/{kind.name}", labels, *splits, kind=kind, metric=metric)
    recipe = Recipe([2e-3], seed=0, seq_len=32, batch_tokens=256)
    with stage("test", 1) as progress:
        model, record = finetune(tiny_teacher.path, task, Plan(400, 5, 1, 40), recipe, progress)
    assert record[metric] > least
    untrained = as_run(load_head(tiny_teacher.path, kind, labels, seed=1), kind, tiny_teacher.path, 32)
    assert scores_of(task, task.test, kind.predict(untrained, task.test.texts))[metric] < least - 0.2
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_teacher.path / name).read_bytes())
    loaded = as_run(type(model).from_pretrained(tmp_path), kind, tmp_path, 32)
    assert scores_of(task, task.test, kind.predict(loaded, task.test.texts))[metric] == pytest.approx(record[metric])
