"""Distillation on a corpus of several languages: the default sampling, and what the manifest states."""

import json
from pathlib import Path

import pytest

from kdnas.distill.options import LANGUAGE_POWER, DistillOptions
from kdnas.distill.run import run_distill
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

from .distill_fixture import ARCH

SHORT = {"steps": 2, "batch_tokens": 256, "validations": 1, "validation_sentences": 30}


@pytest.fixture(scope="module")
def languages(home: Path, tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """800 English sentences, 200 Swahili ones and 12 Zulu ones."""
    file = tmp_path_factory.mktemp("languages") / "many.jsonl"
    names = ["en"] * 800 + ["sw"] * 200 + ["zu"] * 12
    rows = [{"text": f"sentence number {n} of many", "lang": name} for n, name in enumerate(names)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return build_corpus(home, str(file), TextOptions(), tiny_teacher)


def distilled(home: Path, teacher: Teacher, corpus: Corpus, **options: float) -> Artifact:
    return run_distill(home, teacher, corpus, ARCH, DistillOptions(**SHORT, **options))


def test_languages_are_balanced_by_default(home: Path, tiny_teacher: Teacher, languages: Corpus) -> None:
    found = distilled(home, tiny_teacher, languages)
    assert found.manifest["config"]["language_power"] == LANGUAGE_POWER
    drawn, there = found.results["languages_per_epoch"], languages.train.language_counts
    assert drawn.keys() == there.keys() == {"en", "sw", "zu"}
    assert sum(drawn.values()) == len(languages.train)
    assert drawn["zu"] == 4 * there["zu"]  # the limit
    assert drawn["sw"] > there["sw"]
    assert drawn["en"] < there["en"]
    assert distilled(home, tiny_teacher, languages, language_power=LANGUAGE_POWER).path == found.path


def test_a_power_of_one_uses_each_sentence_once(home: Path, tiny_teacher: Teacher, languages: Corpus) -> None:
    found = distilled(home, tiny_teacher, languages, language_power=1.0)
    assert found.manifest["config"]["language_power"] == 1
    assert "languages_per_epoch" not in found.results


def test_a_corpus_without_languages_is_as_before(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> None:
    found = distilled(home, tiny_teacher, corpus)
    assert found.manifest["config"]["language_power"] is None
    assert "languages_per_epoch" not in found.results
    assert "train_languages" not in corpus.artifact.results
