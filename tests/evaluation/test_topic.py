"""The topic task of a corpus with topics."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kdnas.evaluation.tasks import SPLITS, Task, normal_form
from kdnas.evaluation.topic import _dev_texts, topic_task
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions


@pytest.fixture(scope="module")
def task(corpus: Corpus) -> Task:
    found, _ = topic_task(corpus, 5, 200, 60, seed=0)
    assert found is not None
    return found


def test_splits_share_no_text(task: Task) -> None:
    forms = [{normal_form(text) for text in getattr(task, name).texts} for name in SPLITS]
    assert sum(map(len, forms)) == len(set.union(*forms)) == sum(len(getattr(task, name)) for name in SPLITS)


def test_train_and_test_rows_come_from_the_same_splits_of_the_corpus(task: Task, corpus: Corpus) -> None:
    assert set(task.train.texts) | set(task.dev.texts) <= set(corpus.train.texts)
    assert set(task.test.texts) <= set(corpus.validation.texts)


def test_labels_are_the_topics_of_the_texts(task: Task, corpus: Corpus) -> None:
    topic_of = dict(zip(corpus.train.texts, corpus.train.topics, strict=True))
    for text, label in zip(task.train.texts, task.train.labels, strict=True):
        assert task.labels[label] == topic_of[text]


def test_the_most_frequent_topics_are_used_and_capped(task: Task, corpus: Corpus) -> None:
    counts = Counter(corpus.train.topics)
    usable = {topic for topic, count in Counter(corpus.validation.topics).items() if count >= 5 and counts[topic] >= 20}
    assert set(task.labels) == set(sorted(usable, key=lambda topic: (-counts[topic], topic))[:5])
    assert max((Counter(task.train.labels) + Counter(task.dev.labels)).values()) <= 200
    assert max(Counter(task.test.labels).values()) <= 60


def test_dev_consists_of_whole_modules_if_they_are_small(corpus: Corpus) -> None:
    table = pq.read_table(corpus.artifact.path / "train.parquet")
    rows = list(zip(*(table[name].to_pylist() for name in ("text", "group", "topic")), strict=True))
    lib = [(text, group) for text, group, topic in rows if topic == "lib"]
    dev = _dev_texts(lib, seed=0)
    groups = {True: set(), False: set()}
    for text, group in lib:
        groups[text in dev].add(group)
    assert not groups[True] & groups[False]
    assert 0.1 < len(dev) / len(lib) < 0.35


def test_one_large_group_gives_single_sentences() -> None:
    rows = [(f"text {number}", "module") for number in range(100)]
    assert len(_dev_texts(rows, seed=0)) == 15


def test_the_seed_determines_the_task(corpus: Corpus, task: Task) -> None:
    assert topic_task(corpus, 5, 200, 60, seed=0)[0] == task
    assert topic_task(corpus, 5, 200, 60, seed=1)[0] != task


def test_a_corpus_without_topics_has_no_task(home: Path, tmp_path: Path, teacher: Teacher) -> None:
    file = tmp_path / "plain.jsonl"
    file.write_text("".join(json.dumps({"text": f"sentence number {n} of many"}) + "\n" for n in range(200)))
    found, note = topic_task(build_corpus(home, str(file), TextOptions(), teacher), 5, 100, 50, 0)
    assert found is None
    assert "0 topics" in note
    assert "--text.topic" in note
