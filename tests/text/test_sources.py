"""Corpora of several files and folders."""

import json
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import build_corpus, label_of, sample_corpus, source_digest
from kdnas.text.readers import TextOptions, read_rows
from kdnas.text.sources import sources_of


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A file with English rows, and a folder with a file of Swahili rows and one of text without a language."""
    english, folder = tmp_path / "english.jsonl", tmp_path / "others"
    folder.mkdir()
    write(english, [{"text": f"an English sentence number {n}", "lang": "en"} for n in range(200)])
    write(folder / "swahili.jsonl", [{"text": f"sentensi ya Kiswahili namba {n}", "lang": "sw"} for n in range(60)])
    (folder / "unknown.txt").write_text("\n".join(f"no language is stated here {n}" for n in range(40)))
    return [english, folder]


def write(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("\n".join(map(json.dumps, rows)))


def joined(paths: list[Path]) -> str:
    return ",".join(map(str, paths))


def test_rows_of_several_sources_follow_one_another(files: list[Path]) -> None:
    rows = list(read_rows(joined(files), TextOptions()))
    assert [row.language for row in rows] == ["en"] * 200 + ["sw"] * 60 + [""] * 40
    assert sources_of(joined(files)) == [str(path) for path in files]


def test_a_corpus_of_several_sources(tmp_path: Path, tiny_teacher: Teacher, files: list[Path]) -> None:
    corpus = build_corpus(tmp_path / "home", joined(files), TextOptions(), tiny_teacher)
    assert corpus.artifact.results["sentences"] == 300
    languages = corpus.artifact.results["train_languages"]
    assert languages == corpus.train.language_counts
    assert sum(languages.values()) == len(corpus.train)
    assert set(languages) == {"en", "sw", ""}
    assert corpus.name == "english.jsonl, others"
    assert corpus.artifact.path.name.startswith("english-and-1-")
    sample = sample_corpus(tmp_path / "other", joined(files[::-1]), TextOptions(), tiny_teacher, 120)
    assert {*sample.train.languages, *sample.validation.languages} == {"en", "sw", ""}


def test_the_identity_depends_on_every_file(files: list[Path]) -> None:
    before = source_digest(joined(files))
    assert source_digest(joined(files[::-1])) != before
    with (files[1] / "swahili.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"text": "one more", "lang": "sw"}))
    assert source_digest(joined(files)) != before


def test_a_file_with_a_comma_in_its_name_is_one_source(tmp_path: Path) -> None:
    file = tmp_path / "one,two.jsonl"
    write(file, [{"text": "a sentence"}])
    assert sources_of(str(file)) == [str(file)]
    assert label_of(str(file)) == "one,two"
    assert [row.text for row in read_rows(str(file), TextOptions())] == ["a sentence"]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["nowhere.jsonl"], "no such file 'nowhere.jsonl'; several sources must be local"),
        (["owner/name"], "no such file 'owner/name'"),
        (["builtin:pydocs"], "no such file 'builtin:pydocs'"),
        ([""], "a name between commas is empty"),
        (["{first}"], "is given twice"),
    ],
)
def test_wrong_parts_are_errors(
    tmp_path: Path, tiny_teacher: Teacher, files: list[Path], others: list[str], message: str
) -> None:
    source = ",".join([str(files[0]), *(other.format(first=files[0]) for other in others)])
    with pytest.raises(UsageError, match=message):
        build_corpus(tmp_path / "home", source, TextOptions(), tiny_teacher)
