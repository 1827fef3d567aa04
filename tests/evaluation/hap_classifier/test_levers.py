"""The levers on the train rows: balance, swapped copies, word lists, and texts that a teacher labels."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from kdnas.errors import UsageError
from kdnas.evaluation.hap_classifier.balance import balanced, spread_over_sets
from kdnas.evaluation.hap_classifier.opened import open_classifier
from kdnas.evaluation.hap_classifier.options import HapOptions
from kdnas.evaluation.hap_classifier.scored_texts import scored_texts
from kdnas.evaluation.hap_classifier.swaps import group_terms, swapped, with_swapped_copies
from kdnas.evaluation.hap_classifier.train import training_task
from kdnas.evaluation.hap_classifier.union import read_union
from kdnas.evaluation.hap_classifier.words import label_profanity, read_word_lists
from kdnas.evaluation.overlap import form_of
from kdnas.evaluation.rows import Split
from kdnas.models.teacher import Teacher

from .hap_files import write_sets

YES, NO = (1.0, 1.0, None), (0.0, 0.0, None)


def rows(counts: dict[tuple[str, str, tuple[float | None, ...]], int]) -> Split:
    split = Split([], [], [], [])
    for (name, code, label), count in counts.items():
        texts = [f"{name} {code} {label} {number}" for number in range(count)]
        split = split.joined(Split(texts, [label] * count, [code] * count, [name] * count))
    return split


def test_balance_keeps_rare_labels_and_cuts_large_sets() -> None:
    split = rows({("large", "en", NO): 500, ("large", "en", YES): 20, ("small", "de", YES): 30})
    by_label = balanced(split, "labels", 60, seed=0)
    counted = Counter(zip(by_label.groups, by_label.labels, strict=True))
    assert counted == {("large", YES): 20, ("large", NO): 40, ("small", YES): 30}
    by_set = balanced(split, "sets", 60, seed=0)
    assert Counter(by_set.groups) == {"large": 60, "small": 30}
    assert sum(label == YES for label in by_set.labels[:90] if label) < 50  # at random: few of the rare label
    assert Counter(balanced(split, "off", 60, seed=0).groups) == Counter(split.groups)
    assert balanced(split, "labels", 60, seed=0) == by_label
    assert Counter(spread_over_sets(split, seed=0).first(40).groups) == {"large": 20, "small": 20}


def test_names_of_groups_are_swapped_as_whole_words() -> None:
    new = swapped("I met women and WOMEN, womenfolk stayed.", "en", seed=0)
    assert new is not None
    name = new.removeprefix("I met ").partition(" and ")[0]
    assert name in group_terms()["en"][0]
    assert name != "women"
    assert new == f"I met {name} and {name}, womenfolk stayed."  # one group, one name
    assert swapped("Nobody is here.", "en", seed=0) is None
    assert swapped("I met women.", "ur", seed=0) is None  # no list
    chinese = swapped("我喜欢黑人朋友", "zh", seed=1)
    assert chinese is not None
    assert "黑人" not in chinese
    two = swapped("women like men", "en", seed=3)
    assert two is not None
    assert len({*two.split(" like ")}) == 2


def test_swapped_copies_keep_labels_and_are_the_same_in_each_run() -> None:
    split = Split(
        ["I hate women", "rain today", "Juden leben hier"], [YES, NO, NO], ["en", "en", "de"], ["a", "a", "b"]
    )
    found, copies = with_swapped_copies(split, 2, seed=0)
    assert copies == 4
    assert found.labels == [YES, NO, NO, YES, NO, YES, NO]
    assert found.texts[:3] == split.texts
    assert all(text.startswith("I hate ") and text != "I hate women" for text in (found.texts[3], found.texts[5]))
    assert with_swapped_copies(split, 2, seed=0)[0] == found


def test_word_lists_fill_unknown_profanity_alone(tmp_path: Path) -> None:
    file = tmp_path / "words.jsonl"
    terms = [("en", "darn"), ("en", "bloody hell"), ("zh", "混蛋")]
    file.write_text("\n".join(json.dumps({"lang": code, "term": term}) for code, term in terms))
    texts = ["Darn it", "darning socks", "BLOODY HELL!", "你这个混蛋吗", "darn", "darn"]
    codes = ["en", "en", "en", "zh", "fr", "en"]
    labels = [(1.0, None, None)] * 5 + [(0.0, 0.0, 0.0)]
    found, given = label_profanity(Split(texts, labels, codes, ["a"] * 6), read_word_lists(file))
    assert [label[2] for label in found.labels] == [1, 0, 1, 1, None, 0]
    assert given == 4
    assert found.labels[0][:2] == (1.0, None)
    file.write_text('{"term": "x"}')
    with pytest.raises(UsageError, match="line 1 needs the strings `lang` and `term`"):
        read_word_lists(file)


@pytest.fixture
def strong(teacher: Teacher, tmp_path: Path) -> Path:
    """A random multi-label classifier."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=teacher.config["vocab_size"], hidden_size=48, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=64, initializer_range=0.3, id2label={0: "profanity", 1: "hate"},
        problem_type="multi_label_classification",
    )  # fmt: skip
    folder = tmp_path / "strong"
    BertForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((teacher.path / name).read_bytes())
    return folder


def test_a_teacher_labels_texts_with_its_probabilities(strong: Path, tmp_path: Path, tiny_teacher: Teacher) -> None:
    file = tmp_path / "texts.jsonl"
    texts = [f"sentence number {number % 50}" for number in range(200)]
    file.write_text("\n".join(json.dumps({"text": text, "language": "en"}) for text in texts))
    found = scored_texts(strong, file, 30, seed=0)
    assert len(found) == len(set(found.texts)) == 30
    classifier = open_classifier(str(strong))
    assert [label[0] for label in found.labels] == pytest.approx(
        classifier.chances(found.texts, "hate").tolist(), abs=1e-5
    )
    assert {label[1] for label in found.labels} == {None}  # the teacher has no such label
    assert set(found.groups) == {"unlabelled"}
    again = scored_texts(strong, file, 60, seed=0)
    assert set(found.texts) < set(again.texts)  # a smaller sample is the start of a larger one
    assert len(again) == 50
    with pytest.raises(UsageError, match="give a classifier of texts"):
        scored_texts(tiny_teacher.path, file, 30, seed=0)
    file.write_text('{"words": 1}')
    with pytest.raises(UsageError, match="line 1 needs the string `text`"):
        scored_texts(strong, file, 30, seed=0)


def test_no_lever_brings_scored_texts_into_training(strong: Path, tmp_path: Path) -> None:
    root = write_sets(tmp_path / "data", rows=120)
    sets = ("germeval18", "mlma")
    union = read_union(sets, ("fr",), (), root)
    leaked = [union.task.test.texts[0], union.task.dev.texts[0], union.outside.texts[0]]
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in [*leaked, "a new text"]))
    words = tmp_path / "words.jsonl"
    words.write_text('{"lang": "de", "term": "stupid"}')
    options = HapOptions(root, sets, ("fr",), teacher=strong, unlabelled=file, word_lists=words, swapped_copies=1)
    task, record = training_task(union, options)
    trained = {form_of(text) for text in task.train.texts}
    assert form_of("a new text") in trained
    assert not trained & {form_of(text) for part in (task.dev, task.test, union.outside) for text in part.texts}
    assert record["left_out_as_scored"] >= 3
    assert record["unlabelled"] == 4
    assert record["profanity_from_word_lists"] > 0
    assert record["by_set"]["unlabelled"] == 1
    assert {*task.dev.texts} == {*union.task.dev.texts}
    assert all(
        label[2] is None or "de" in code for label, code in zip(task.dev.labels, task.dev.languages, strict=True)
    )
