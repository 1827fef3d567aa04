"""Tasks in several languages: which are taught and scored, whose rows they are, and what occurs in both."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdnas.errors import UsageError
from kdnas.evaluation.data import load_task
from kdnas.evaluation.encoded import Encoded
from kdnas.evaluation.languages import in_languages
from kdnas.evaluation.overlap import without
from kdnas.evaluation.reading import NoDataError
from kdnas.evaluation.rows import Split
from kdnas.evaluation.suites import SPECS
from kdnas.models.teacher import Teacher

from .suite_files import spec, write

SEVERAL = [one for one in SPECS if one.languages]


def words(name: str, count: int, tags: int = 7) -> list[dict[str, Any]]:
    return [{"tokens": [name, str(n), "x"], "ner_tags": [n % tags, 0, 0]} for n in range(count)]


def questions(name: str, count: int, answer: str = "Ada") -> list[dict[str, Any]]:
    rows = []
    for n in range(count):
        context = f"Ada wrote {name} {n}."
        rows.append(
            {"question": f"Who wrote {n}?", "context": context, "answers": {"text": [answer], "answer_start": [0]}}
        )
    return rows


def test_languages_are_restricted_and_the_name_says_so() -> None:
    panx, xnli = spec("ner/panx-zero-shot"), spec("xnli/xnli")
    assert in_languages([panx, xnli], (), ()) == [panx, xnli]
    (found,) = in_languages([panx], ("sw", "en"), ("zh", "de"))
    assert (found.taught, found.languages) == (("en", "sw"), ("de", "zh"))
    assert found.name == "ner/panx-zero-shot (taught en, sw; scored de, zh)"
    assert in_languages([panx], ("en", "sw"), ("de", "zh")) == [found]  # the given order is no other run
    assert in_languages([panx], ("en",), panx.languages) == [panx]  # the default is no other run
    both = in_languages([spec("ner/wikineural"), xnli], ("en",), ("de", "sw"))
    assert [one.languages for one in both] == [("de",), ("de", "sw")]  # a task may lack some
    (own,) = in_languages([spec("ner/conll2002")], ("nl",), ("es",))
    assert own.name == "ner/conll2002 (taught nl; scored es)"


@pytest.mark.parametrize(
    ("tasks", "taught", "scored", "message"),
    [
        (["xnli/xnli"], (), ("de", "xx"), r"languages has xx, which no chosen task has: xnli/xnli has ar, bg"),
        (["xnli/xnli"], ("ja",), (), r"taught has ja, which no chosen task has"),
        (
            ["ner/conll2002", "xnli/xnli"],
            (),
            ("de",),
            r"languages has no language of ner/conll2002: it has es, nl; leave",
        ),
        (["xnli/xnli", "glue/sst2"], ("en",), (), r"taught has no language of glue/sst2: its rows are in one language"),
        (["xnli/xnli"], (), ("de", "de"), r"languages is de,de; give each language once"),
    ],
)
def test_wrong_languages_are_refused(
    tasks: list[str], taught: tuple[str, ...], scored: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        in_languages([spec(name) for name in tasks], taught, scored)


def test_english_is_taught_and_all_languages_are_scored(tmp_path: Path) -> None:
    for code in ("de", "en"):
        for split in ("train", "validation"):
            write(tmp_path, f"ner/panx/{code}.{split}.jsonl", words(f"{code}-{split}", 60))
    task = load_task(spec("ner/panx-zero-shot"), tmp_path).task
    assert (set(task.train.languages), set(task.dev.languages)) == ({"en"}, {"en"})
    assert Counter(task.test.languages) == {"de": 60, "en": 60}
    (other,) = in_languages([spec("ner/panx-zero-shot")], ("de",), ("en",))
    task = load_task(other, tmp_path).task
    assert (set(task.train.languages), set(task.test.languages)) == ({"de"}, {"en"})
    assert task.name == "ner/panx-zero-shot (taught de; scored en)"


def test_rows_of_another_set_are_taught(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        write(tmp_path, f"ner/conll2003/{split}.jsonl", words(f"conll-{split}", 60, tags=9))
    write(tmp_path, "ner/wikineural/test_pl.jsonl", words("wiki-pl", 30, tags=9))
    loaded = load_task(spec("ner/wikineural"), tmp_path)
    assert {text[0] for text in loaded.task.train.texts} == {"conll-train"}
    assert {text[0] for text in loaded.task.dev.texts} == {"conll-validation"}
    assert Counter(loaded.task.test.languages) == {"pl": 30}
    assert {"train rows in en are those of conll/2003", "dev rows in en are those of conll/2003"} <= set(loaded.notes)
    write(tmp_path, "ner/masakhaner/swa.test.jsonl", words("swa", 30, tags=9))
    task = load_task(spec("ner/masakhaner-zero-shot"), tmp_path).task
    tags = {name: {tag for row in getattr(task, name).labels for tag in row} for name in ("train", "test")}
    assert tags == {"train": set(range(7)), "test": set(range(7))}  # no MISC and no DATE: both are read as O
    assert set(task.test.languages) == {"sw"}
    in_language = replace(spec("ner/masakhaner-in-language"), taught=("sw",), languages=("sw",))
    for split in ("train", "validation"):
        write(tmp_path, f"ner/masakhaner/swa.{split}.jsonl", words(f"swa-{split}", 30, tags=9))
    assert {tag for row in load_task(in_language, tmp_path).task.test.labels for tag in row} == set(range(9))


def test_questions_in_english_are_taught_and_squad_never_is(tmp_path: Path) -> None:
    write(tmp_path, "tydiqa_goldp/en.train.jsonl", questions("tydi-en", 80))
    write(tmp_path, "squad_v2/validation_half.jsonl", questions("squad", 80))
    write(tmp_path, "xquad/de.validation.jsonl", questions("xquad-de", 20))
    write(tmp_path, "mlqa/de.de.validation.jsonl", questions("mlqa-de", 20))
    for name in ("qa/xquad", "qa/mlqa"):
        loaded = load_task(spec(name), tmp_path)
        texts = loaded.task.train.texts + loaded.task.dev.texts
        assert len(texts) == 80
        assert all("tydi-en" in context for _, context in texts)
        assert Counter(loaded.task.test.languages) == {"de": 20}
    assert "scored on MLQA's dev split, not on its test split" in loaded.notes


def test_hidden_answers_are_replaced_by_train_rows_of_languages_that_are_not_taught(tmp_path: Path) -> None:
    for code in ("en", "ko", "sw"):
        write(tmp_path, f"tydiqa_goldp/{code}.train.jsonl", questions(f"train-{code}", 50))
        write(tmp_path, f"tydiqa_goldp/{code}.validation.jsonl", questions(f"hidden-{code}", 20, answer=""))
    loaded = load_task(spec("tydiqa/goldp"), tmp_path)
    assert Counter(loaded.task.test.languages) == {"ko": 50, "sw": 50}
    assert set(loaded.task.train.languages) == set(loaded.task.dev.languages) == {"en"}
    assert len(loaded.task.train) + len(loaded.task.dev) == 50
    assert "60 validation questions in en, ko, sw without an answer are left out" in loaded.notes
    assert any("scored on the train rows of the languages that are not taught" in note for note in loaded.notes)
    (korean,) = in_languages([spec("tydiqa/goldp")], ("ko",), ())
    assert Counter(load_task(korean, tmp_path).task.test.languages) == {"en": 50, "sw": 50}
    (same,) = in_languages([spec("tydiqa/goldp")], ("ko",), ("ko",))
    with pytest.raises(NoDataError, match="none of them has a label"):
        load_task(same, tmp_path)


def test_a_stand_in_is_used_for_its_languages_alone(tmp_path: Path) -> None:
    pairs = [{"premise": f"p {n}", "hypothesis": f"h {n}", "label": n % 3} for n in range(60)]
    write(tmp_path, "nli/taxinli_mnli_subset.jsonl", pairs)
    for code in ("de", "en"):
        write(
            tmp_path, f"xnli/{code}.validation.jsonl", [{**row, "premise": f"{code} {row['premise']}"} for row in pairs]
        )
    (german,) = in_languages([spec("xnli/xnli")], ("de",), ())
    with pytest.raises(NoDataError, match="has no train rows in de"):  # the English rows are not German
        load_task(german, tmp_path)
    (both,) = in_languages([spec("xnli/xnli")], ("de", "en"), ())
    loaded = load_task(both, tmp_path)
    assert set(loaded.task.train.languages) == {"en"}
    assert "no train rows in de" in loaded.notes


def test_no_pair_is_taught_in_one_language_and_scored_in_another(tmp_path: Path) -> None:
    for code in ("de", "en", "zh"):
        rows = [
            {"id": n, "sentence1": f"{code} a {n}", "sentence2": f"{code} b {n}", "label": n % 2} for n in range(300)
        ]
        write(tmp_path, f"paws-x/{code}.validation.jsonl", rows)
    loaded = load_task(spec("paraphrase/paws-x"), tmp_path)
    task = loaded.task
    taught, scored = ({int(pair) for pair in split.pairs} for split in (task.train.joined(task.dev), task.test))
    assert not taught & scored
    assert len(taught) + len(scored) == 300
    assert set(task.train.languages) == {"en"}
    assert Counter(task.test.languages) == dict.fromkeys(("de", "en", "zh"), len(scored))
    assert 30 < len(scored) < 90
    assert all(f" a {pair}" in text[0] for text, pair in zip(task.test.texts, task.test.pairs, strict=True))
    (german,) = in_languages([spec("paraphrase/paws-x")], (), ("de",))
    assert {int(pair) for pair in load_task(german, tmp_path).task.test.pairs} == scored


def test_a_language_that_is_only_taught_or_only_scored_has_no_row_held_out(tmp_path: Path) -> None:
    for code in ("ar", "en", "fr"):
        rows = [{"tweet": f"{code} {n}", "sentiment": "normal" if n % 2 else "hateful"} for n in range(200)]
        write(tmp_path, f"hap/mlma/{code}.train.jsonl", rows)
    task = load_task(spec("hap/mlma"), tmp_path).task
    assert 80 < len(task.test) < 160
    assert len(task.train) + len(task.dev) + len(task.test) == 600
    (zero_shot,) = in_languages([spec("hap/mlma")], ("en",), ("fr",))
    task = load_task(zero_shot, tmp_path).task
    assert (len(task.train) + len(task.dev), Counter(task.test.languages)) == (200, {"fr": 200})


def test_english_hap_is_taught_and_eight_languages_are_scored(tmp_path: Path) -> None:
    texts = {code: [f"{code} {n}" for n in range(60)] for code in ("en", *spec("hap/zero-shot").languages)}

    def put(file: str, code: str, column: str, *labels: dict[str, Any]) -> None:
        write(
            tmp_path,
            f"hap/{file}.jsonl",
            [{column: text, **labels[n % len(labels)]} for n, text in enumerate(texts[code])],
        )

    put("hate_speech_offensive/train", "en", "tweet", {"class": 0}, {"class": 1}, {"class": 2}, {"class": 2})
    put("germeval18/test", "de", "text", {"binary": "OTHER"}, {"binary": "OFFENSE"})
    put("told_br/binary.test", "pt", "text", {"label": 0}, {"label": 1})
    put("kor_hate/test", "ko", "comments", {"hate": 0}, {"hate": 1}, {"hate": 2}, {"hate": 2})
    put("id_hate_abusive/train", "id", "Tweet", *({"HS": a, "Abusive": b} for a, b in ((0, 0), (0, 1), (1, 0), (0, 0))))
    put("cold/test", "zh", "TEXT", {"label": 0}, {"label": 1})
    put("roman_urdu_hate_speech/Coarse_Grained.test", "ur", "tweet", {"label": 0}, {"label": 1})
    for code in ("ar", "fr"):
        put(f"mlma/{code}.train", code, "tweet", {"sentiment": "normal"}, {"sentiment": "hateful_offensive"})
    loaded = load_task(spec("hap/zero-shot"), tmp_path)
    assert "test rows in ar, fr are those of hap/mlma" in loaded.notes
    task = loaded.task
    assert set(task.train.languages) == {"en"}
    assert len(task.train) + len(task.dev) == 60
    assert Counter(task.test.languages) == dict.fromkeys(spec("hap/zero-shot").languages, 60)
    positives = Counter(code for code, label in zip(task.test.languages, task.test.labels, strict=True) if label)
    assert positives == dict.fromkeys(spec("hap/zero-shot").languages, 30)


def test_rows_of_other_languages_are_left_out_and_counted() -> None:
    train = Split([["Real", "Madrid"], ["Ada"], ["a b"]], [[0], [0], [0]], ["en", "en", "de"])
    test = Split([["Real", " Madrid"], ["Ada"], ["ADA"], ["a", "b"]], [[0]] * 4, ["fr", "en", "en", "de"])
    found = without(train, test)
    assert (len(found.kept), found.seen, found.seen_in_language) == (0, 3, 2)
    alone = without(Split(["a", "b"], [0, 0]), Split(["b", "b", "c"], [0, 0, 0]))
    assert (alone.kept.texts, alone.seen, alone.seen_in_language) == (["a"], 2, 2)


def test_the_guide_lists_every_task_with_several_languages() -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/suites.md").read_text().split("## Languages")[1].split("## ")[0]
    for one in SEVERAL:
        (line,) = [line for line in guide.splitlines() if line.startswith(f"| `{one.name}` |")]
        assert f" {len(one.languages)} languages" in line or one.name == "ner/conll2002", one.name


@pytest.mark.slow
@pytest.mark.parametrize("name", [one.name for one in SEVERAL])
def test_real_rows_are_read_and_encoded_and_none_is_in_two_splits(
    shared_data: Path, name: str, tiny_teacher: Teacher
) -> None:
    given = spec(name)
    task = load_task(given, shared_data).task
    expected = {"tydiqa/goldp": {"ko", "sw"}}.get(name, set(given.languages))
    assert set(task.test.languages) == expected
    assert set(task.train.languages) == set(given.taught_languages)
    splits = {part: getattr(task, part) for part in ("train", "dev", "test")}
    for part, other in (("train", "test"), ("dev", "test"), ("train", "dev")):
        assert without(splits[part], splits[other]).seen == 0
    for split in splits.values():
        few = split.rows(range(0, len(split), max(1, len(split) // 20)))
        encoded = Encoded.of(task.kind, few, tiny_teacher.path, given.seq_len)
        assert len(encoded.ids) >= len(few)
        assert encoded.lengths.max() <= given.seq_len
        _, targets = encoded.batch(encoded.lengths.argsort()[:4], 0)
        assert len(targets) == 4


@pytest.mark.slow
def test_real_overlaps_by_definition(shared_data: Path) -> None:
    """The numbers of test rows that occur in train, as `kdnas.evaluation.overlap` defines and lists them."""
    fourteen = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "tr", "ur", "vi", "zh")
    (panx,) = in_languages([spec("ner/panx-in-language")], fourteen, fourteen)
    afrisenti = replace(spec("sentiment/afrisenti"), languages=spec("sentiment/afrisenti").taught)
    for given, expected in (
        (panx, "(1324 of 14000 test rows, 1273 of them in the same language)"),
        (afrisenti, "(771 of 30211 test rows, 771 of them in the same language)"),
    ):
        notes = load_task(given, shared_data).notes
        assert any(f"train rows are left out, because they also occur in test {expected}" in note for note in notes)
