"""The table of HAP sets and their union: what labels mean, what is left out, and that nothing scored is trained."""

import json
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.evaluation.hap_classifier.sets import LABELS, LANGUAGES, NAMES, SETS, told_br
from kdnas.evaluation.hap_classifier.union import counts, read_union
from kdnas.evaluation.overlap import form_of
from kdnas.evaluation.reading import NoDataError
from kdnas.evaluation.rows import Split

from .hap_files import write_sets

TOY = ("hate_speech_offensive", "mlma", "germeval18")


def truth(name: str, value: object) -> object:
    spec = next(one.spec for one in SETS if one.name == name)
    return spec.kind.read_label(value, LABELS, {}, None)


def forms(split: Split) -> set[tuple[str, ...]]:
    return {form_of(text) for text in split.texts}


def test_the_table_has_eleven_sets_in_nine_languages() -> None:
    assert len(NAMES) == 11
    assert LANGUAGES == ("ar", "de", "en", "fr", "id", "ko", "pt", "ur", "zh")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("hate_speech_offensive", 0, (1, 1, None)),
        ("hate_speech_offensive", 1, (0, 1, None)),
        ("hate_speech18", 3, (None, None, None)),
        ("mlma", "normal", (0, 0, None)),
        ("mlma", "offensive_hateful", (1, 1, None)),
        ("mlma", "offensive", (None, 1, None)),
        ("mlma", "hateful_normal", (None, None, None)),
        ("germeval18", "PROFANITY", (0, 0, 1)),
        ("told_br", "0 2 0 0 0 0", (0, 0, 1)),
        ("told_br", "1 0 0 0 0 0", (1, 1, 0)),
        ("hatebr", 1, (None, 1, None)),
        ("kor_hate", 1, (0, 1, None)),
        ("id_hate_abusive", "1 0", (1, 1, None)),
        ("id_hate_abusive", "0 1", (0, 1, None)),
        ("cold", 0, (None, 0, None)),
        ("roman_urdu_hate_speech", 3, (1, 1, None)),
        ("tweet_eval_hate", 0, (0, None, None)),
    ],
)
def test_labels_of_each_set(name: str, value: object, expected: object) -> None:
    assert truth(name, value) == expected


@pytest.mark.parametrize(("name", "value"), [("mlma", "angry"), ("germeval18", "RUDE"), ("cold", 7)])
def test_unknown_labels_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="the table of this set does not have"):
        truth(name, value)


def test_votes_are_counted_by_name() -> None:
    assert told_br("0 0 0 3 0 0") == (1, 1, 0)
    assert told_br("0 0 1 0 0 0") == (0, 1, 0)


def test_no_scored_text_is_trained_and_sets_and_languages_are_left_out(tmp_path: Path) -> None:
    root = write_sets(tmp_path)
    repeated = json.loads((root / "hap/germeval18/test.jsonl").read_text().splitlines()[0])["text"]
    with (root / "hap/mlma/fr.train.jsonl").open("a") as file:
        for _ in range(20):
            file.write(json.dumps({"tweet": repeated, "sentiment": "normal"}) + "\n")
    union = read_union(TOY, ("germeval18", "ar"), (), root)
    task = union.task
    assert {*zip(task.train.groups, task.train.languages, strict=True)} == {
        ("hate_speech_offensive", "en"), ("mlma", "en"), ("mlma", "fr"),
    }  # fmt: skip
    assert {*union.outside.groups} == {"germeval18", "mlma"}
    assert {*union.outside.languages} == {"de", "ar"}
    scored = forms(task.test) | forms(union.outside)
    assert form_of(repeated) in scored
    assert not scored & (forms(task.train) | forms(task.dev))
    assert not forms(task.train) & forms(task.dev)
    assert any("rows of one set are test rows of another" in note for note in union.notes)
    assert counts(task.train)["mlma"]["fr"]["hate_known"] < counts(task.train)["mlma"]["fr"]["rows"]
    assert read_union(TOY, (), (), root).digest == union.digest


def test_the_languages_are_cut(tmp_path: Path) -> None:
    union = read_union((), (), ("en", "de"), write_sets(tmp_path))
    assert {*union.task.train.languages} == {"en", "de"}
    assert any("not available" in note for note in union.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("davidson",), (), ()), "sets has davidson; allowed are hate_speech_offensive"),
        (((), ("xx",), ()), "leave_out has xx"),
        (((), (), ("sw",)), "languages has sw; allowed are ar, de"),
        ((("germeval18",), ("de",), ()), "no row is left to train on"),
    ],
)
def test_wrong_choices_are_refused(arguments: tuple[tuple[str, ...], ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_union(*arguments, write_sets(tmp_path))  # type: ignore[arg-type]


def test_missing_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(NoDataError, match="none of the chosen sets is available; give local files"):
        read_union(TOY, (), (), tmp_path)


@pytest.mark.slow
def test_real_sets_tell_positives_from_negatives_and_no_test_text_is_trained(shared_data: Path) -> None:
    union = read_union((), ("tweet_eval_hate", "zh"), (), shared_data)
    task = union.task
    for name, codes in counts(task.train).items():
        for label in LABELS:
            known = sum(row.get(f"{label}_known", 0) for row in codes.values())
            positive = sum(row.get(f"{label}_positive", 0) for row in codes.values())
            assert known == 0 or 0 < positive < known, (name, label)
    assert set(task.train.groups) == set(NAMES) - {"tweet_eval_hate", "cold"}
    assert {*union.outside.groups} == {"tweet_eval_hate", "cold"}
    assert not (forms(task.test) | forms(union.outside)) & (forms(task.train) | forms(task.dev))
