"""Rows of the suites, from local files and from the hub, with notes on missing data."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kdnas.errors import UsageError
from kdnas.evaluation.data import load_task
from kdnas.evaluation.hap_classifier.sets import SETS
from kdnas.evaluation.hub_revisions import HUB_REVISIONS, PARQUET
from kdnas.evaluation.kinds import SCORE
from kdnas.evaluation.reading import NoDataError
from kdnas.evaluation.rows import Answers
from kdnas.evaluation.suites import SPECS, SUITES, chosen_specs

from .suite_files import spec, write


def sentences(name: str, count: int) -> list[dict[str, Any]]:
    return [{"sentence": f"{name} {number}", "label": number % 2, "idx": number} for number in range(count)]


def test_names_are_unique_and_every_suite_of_the_paper_exists() -> None:
    assert len({one.name for one in SPECS}) == len(SPECS)
    of_paper = {"glue", "squad", "conll", "xnli", "tydiqa", "ner"}
    assert set(SUITES) == of_paper | {"paraphrase", "qa", "sentiment", "hap"}
    assert len(chosen_specs(("glue",))) == 8
    assert [one.name for one in chosen_specs(("glue/rte", "glue/sst2"))] == ["glue/sst2", "glue/rte"]
    with pytest.raises(UsageError, match=r"there is no suite or task glue/sst3; suites are glue, squad, .*glue/sst2"):
        chosen_specs(("glue/sst3",))
    with pytest.raises(UsageError, match="no suite is given"):
        chosen_specs(())


def test_dev_is_a_tenth_of_train_and_hidden_labels_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "glue/sst2/train.jsonl.gz", sentences("train", 1000))
    hidden = [row | {"label": -1} for row in sentences("hidden", 7)]
    write(tmp_path, "glue/sst2/validation.jsonl", sentences("test", 50) + hidden)
    loaded = load_task(spec("glue/sst2"), tmp_path)
    task = loaded.task
    assert (len(task.train) + len(task.dev), len(task.test)) == (1000, 50)
    assert 70 < len(task.dev) < 130
    assert not {*task.train.texts} & {*task.dev.texts}
    assert loaded.notes == ["7 rows whose labels are hidden (-1) are left out"]
    assert task.train.texts != sorted(task.train.texts)
    again = load_task(spec("glue/sst2"), tmp_path)
    assert (again.task, again.digest) == (task, loaded.digest)
    write(tmp_path, "glue/sst2/validation.jsonl", sentences("other", 50))
    assert load_task(spec("glue/sst2"), tmp_path).digest != loaded.digest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": 0}], r"line 1 has the columns label, text; glue/sst2 needs sentence, label"),
        ([{"sentence": "a"}], "needs sentence, label"),
        ([{"sentence": "a", "label": 2}], "label is 2; allowed are 0 to 1 .*glue/sst2"),
        ([{"sentence": "a", "label": "good"}], "label is 'good'"),
        ([{"sentence": 5, "label": 0}], "sentence must be strings"),
    ],
)
def test_rows_in_the_wrong_format_are_refused(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    write(tmp_path, "glue/sst2/train.jsonl.gz", rows)
    with pytest.raises(UsageError, match=message):
        load_task(spec("glue/sst2"), tmp_path)


def test_damaged_and_missing_files_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "glue/sst2/train.jsonl.gz"
    with pytest.raises(NoDataError, match=r"glue/sst2: .* has no train rows; give another --data_root"):
        load_task(spec("glue/sst2"), tmp_path)
    write(tmp_path, "glue/sst2/train.jsonl.gz", sentences("train", 100))
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UsageError, match="damaged archive"):
        load_task(spec("glue/sst2"), tmp_path)


def test_a_failed_download_is_reported_as_missing_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("datasets.load_dataset", fetch)
    with pytest.raises(
        NoDataError,
        match=r"nyu-mll/glue: split train of revision bcdcba7.* cannot be .*no route to the hub.*--data_root",
    ):
        load_task(spec("glue/sst2"), None)
    told = r"JAugusto97/told-br: split train of revision refs/convert/parquet .*same columns.*--data_root .*hap/told_br"
    with pytest.raises(NoDataError, match=told):
        load_task(spec("hap/told_br"), None)
    with pytest.raises(NoDataError, match=r"hap/hatebr: this set is not on the hub .*--data_root"):
        load_task(spec("hap/hatebr"), None)


def test_the_hub_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    requested = []

    def fetch(hub: str, name: str, split: str, revision: str, trust_remote_code: bool) -> list[dict[str, Any]]:
        requested.append((hub, name, split, revision, trust_remote_code))
        return sentences(split, 200)

    monkeypatch.setattr("datasets.load_dataset", fetch)
    for split in ("train", "validation"):
        write(tmp_path, f"glue/sst2/{split}.jsonl.gz", sentences(split, 200))
    assert load_task(spec("glue/sst2"), None).task == load_task(spec("glue/sst2"), tmp_path).task
    assert requested == [
        ("nyu-mll/glue", "sst2", split, HUB_REVISIONS["nyu-mll/glue"], False) for split in ("train", "validation")
    ]


def test_every_hub_set_has_the_revision_that_the_guide_says() -> None:
    hubs = {one.source.hub: one.source.revision for one in (*SPECS, *(one.spec for one in SETS)) if one.source.hub}
    assert set(hubs) >= set(HUB_REVISIONS)
    assert all(revision == PARQUET or re.fullmatch("[0-9a-f]{40}", revision) for revision in HUB_REVISIONS.values())
    guide = (Path(__file__).parents[2] / "docs/guides/suites.md").read_text()
    commit, branch, newest = guide.split("## Data sets on the hub")[1].split("\n- ")[1:4]
    for hub, revision in hubs.items():
        expected = [revision not in (None, PARQUET), revision == PARQUET, revision is None]
        assert [f"`{hub}`" in part.split("\n\n")[0] for part in (commit, branch, newest)] == expected, hub


def test_the_parquet_branch_is_read_by_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    requested = []

    def fetch(hub: str, split: str, revision: str, **chosen: Any) -> list[dict[str, Any]]:
        requested.append((hub, split, revision, chosen))
        return [
            {"TEXT": f"{split} {number}", "comments": f"{split} {number}", "label": number % 2, "hate": 0}
            for number in range(50)
        ]

    monkeypatch.setattr("datasets.load_dataset", fetch)
    load_task(spec("hap/kor_hate"), None)
    load_task(spec("hap/cold"), None)
    assert requested == [
        *(
            ("inmoonlight/kor_hate", split, PARQUET, {"trust_remote_code": False, "data_dir": "default"})
            for split in ("train", "test")
        ),
        *(
            (
                "thu-coai/cold",
                split,
                HUB_REVISIONS["thu-coai/cold"],
                {"trust_remote_code": False, "data_files": {split: f"{split}.csv"}},
            )
            for split in ("train", "test", "dev")
        ),
    ]


def test_a_folder_of_the_parquet_branch_has_the_splits_as_folders(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    for config in ("binary", "multilabel"):
        for split in ("train", "validation", "test"):
            folder = tmp_path / "set" / config / split
            folder.mkdir(parents=True)
            pq.write_table(pa.table({"text": [f"{config} {split}"]}), folder / "0000.parquet")
    found = datasets.load_dataset(
        str(tmp_path / "set"), split="validation", data_dir="binary", cache_dir=str(tmp_path / "cache")
    )
    assert found["text"][:] == ["binary validation"]


def test_files_with_different_columns_are_read_one_by_one(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "train.csv").write_text("TEXT,label\na,0\n")
    (tmp_path / "test.csv").write_text("TEXT,label,fine-grained-label\nb,1,2\n")
    cache = str(tmp_path / "cache")
    with pytest.raises(datasets.exceptions.DatasetGenerationError):
        datasets.load_dataset(str(tmp_path), split="train", cache_dir=cache)
    found = datasets.load_dataset(str(tmp_path), split="test", data_files={"test": "test.csv"}, cache_dir=cache)
    assert found["fine-grained-label"][:] == [2]


def test_languages_without_rows_are_noted(tmp_path: Path) -> None:
    row = {"tokens": ["Ada", "x"], "ner_tags": [1, 0]}
    for code in ("de", "fr"):
        for split in ("train", "validation"):
            write(
                tmp_path,
                f"ner/panx/{code}.{split}.jsonl.gz",
                [row | {"tokens": [f"{code}-{split}-{n}", "x"]} for n in range(40)],
            )
    loaded = load_task(spec("ner/panx-in-language"), tmp_path)
    assert set(loaded.task.test.languages) == {"de", "fr"}
    assert any("no train rows in af, ar, az" in note for note in loaded.notes)
    write(tmp_path, "ner/panx/de.train.jsonl.gz", [{"tokens": ["a"], "ner_tags": [9]}])
    with pytest.raises(UsageError, match="ner_tags has tag 9; allowed are 0 to 6"):
        load_task(spec("ner/panx-in-language"), tmp_path)


def test_dev_and_train_prefixes_are_spread_over_languages_and_classes(tmp_path: Path) -> None:
    for number, code in enumerate(("amh", "arq", "ary", "hau")):
        for split in ("train", "validation", "test"):
            # As in many files, one class comes after the other.
            rows = [
                {"tweet": f"{split} {code} {n}", "label": min(2, n * 3 // (100 + 50 * number))}
                for n in range(100 + 50 * number)
            ]
            write(tmp_path, f"sentiment/afrisenti/{code}.{split}.jsonl", rows)
    task = load_task(spec("sentiment/afrisenti"), tmp_path).task
    for split in (task.train, task.dev):
        first = split.first(120)
        assert Counter(first.languages) == dict.fromkeys(("am", "arq", "ary", "ha"), 30)
        assert min(Counter(first.labels).values()) > 20
        for code in ("am", "ha"):
            of_language = [label for label, other in zip(first.labels, first.languages, strict=True) if other == code]
            assert set(of_language) == {0, 1, 2}
    assert task.test.texts[0] == "test amh 0"  # test is not cut here and keeps its order
    assert load_task(spec("sentiment/afrisenti"), tmp_path).task == task


def test_dev_is_a_random_deterministic_part_of_every_language(tmp_path: Path) -> None:
    for code in ("de", "fr"):
        for split in ("train", "validation"):
            rows = [{"tokens": [f"{split}-{code}-{n}"], "ner_tags": [n % 7]} for n in range(400)]
            write(tmp_path, f"ner/panx/{code}.{split}.jsonl", rows)
    task = load_task(spec("ner/panx-in-language"), tmp_path).task
    numbers = [int(words[0].rpartition("-")[2]) for words in task.dev.texts]
    assert min(numbers) < 80 < 320 < max(numbers)
    assert all(20 < count < 65 for count in Counter(task.dev.languages).values())
    assert not {str(words) for words in task.dev.texts} & {str(words) for words in task.train.texts}
    assert load_task(spec("ner/panx-in-language"), tmp_path).task.dev == task.dev


def question(number: int, answers: list[str]) -> dict[str, Any]:
    context = f"Ada wrote program {number}."
    return {"id": str(number), "question": f"Who wrote {number}?", "context": context} | {
        "answers": {"text": answers, "answer_start": [0] * len(answers)}
    }


def test_empty_answers_are_unlabelled(tmp_path: Path) -> None:
    write(tmp_path, "squad/train.jsonl", [question(n, ["Ada"]) for n in range(60)])
    labelled = [question(n, ["", "Ada"]) for n in range(100, 120)]
    hidden = [question(200, [""]), question(201, []), question(202, [" ", ""])]
    write(tmp_path, "squad/validation.jsonl", labelled + hidden)
    loaded = load_task(spec("squad/v1"), tmp_path)
    assert loaded.task.test.labels == [Answers(("Ada",), 0)] * 20
    assert "3 validation questions without an answer are left out" in loaded.notes
    write(tmp_path, "squad/validation.jsonl", hidden)
    message = (
        r"squad has 3 validation rows, but none of them has a label; give labelled rows with --data_root, or leave"
    )
    with pytest.raises(NoDataError, match=message):
        load_task(spec("squad/v1"), tmp_path)


def test_hidden_test_labels_are_reported_as_missing_data(tmp_path: Path) -> None:
    write(tmp_path, "glue/sst2/train.jsonl", sentences("train", 100))
    write(tmp_path, "glue/sst2/validation.jsonl", [row | {"label": -1} for row in sentences("test", 30)])
    with pytest.raises(NoDataError, match="30 validation rows, but none of them has a label"):
        load_task(spec("glue/sst2"), tmp_path)


def test_rows_that_also_stand_in_test_or_dev_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = "hap/cold"
    test = [{"TEXT": f"test {n}", "label": n % 2, "topic": "race"} for n in range(30)]
    dev = [{"TEXT": f"dev {n}", "label": n % 2, "topic": "race"} for n in range(30)]
    train = [{"TEXT": f"train {n}", "label": n % 2, "topic": "race"} for n in range(50)]
    write(tmp_path, f"{folder}/test.jsonl", test)
    write(tmp_path, f"{folder}/dev.jsonl", [*dev, {**test[3], "TEXT": "test\u00a0 3"}])
    copies = [{**test[4], "TEXT": " test  4"}, test[4], test[5], dev[7], {**test[6], "TEXT": "TEST 6"}]
    write(tmp_path, f"{folder}/train.jsonl", train + copies)
    loaded = load_task(spec("hap/cold"), tmp_path)
    assert loaded.task.test.texts == [row["TEXT"] for row in test]
    assert sorted(loaded.task.dev.texts) == sorted(row["TEXT"] for row in dev)
    assert sorted(loaded.task.train.texts) == sorted(["TEST 6", *(row["TEXT"] for row in train)])
    assert loaded.notes == [
        "3 of 55 train rows are left out, because they also occur in test (2 of 30 test rows)",
        "1 of 31 dev rows are left out, because they also occur in test (1 of 30 test rows)",
        "1 of 52 train rows are left out, because they also occur in dev (1 of 30 dev rows)",
    ]


def test_only_whole_pairs_count_as_the_same_row_and_dev_from_train_has_none(tmp_path: Path) -> None:
    pairs = [{"sentence1": f"one {n}", "sentence2": f"two {n}", "label": n % 2} for n in range(300)]
    swapped = {"sentence1": "two 0", "sentence2": "one 0", "label": 0}
    write(tmp_path, "glue/rte/train.jsonl", [*pairs, swapped])
    write(tmp_path, "glue/rte/validation.jsonl", pairs[:100])
    loaded = load_task(spec("glue/rte"), tmp_path)
    assert loaded.notes == [
        "100 of 301 train rows are left out, because they also occur in test (100 of 100 test rows)"
    ]
    kept = loaded.task.train.texts + loaded.task.dev.texts
    assert sorted(kept) == sorted([("two 0", "one 0"), *((f"one {n}", f"two {n}") for n in range(100, 300))])
    write(tmp_path, "glue/rte/train.jsonl", pairs[:50])
    with pytest.raises(NoDataError, match="all 50 train rows also occur in test; give other files with --data_root"):
        load_task(spec("glue/rte"), tmp_path)


@pytest.mark.slow
def test_real_data_sets_have_their_official_sizes(shared_data: Path) -> None:
    conll = load_task(spec("conll/2003"), shared_data)
    # Of 14041, 3250 and 3453 rows. Many are short lines that recur, such as a place and a date.
    assert [len(getattr(conll.task, name)) for name in ("train", "dev", "test")] == [13492, 3187, 3453]
    assert [int(note.split()[0]) for note in conll.notes] == [308, 63, 241]
    cola = load_task(spec("glue/cola"), shared_data).task
    assert (len(cola.train) + len(cola.dev), len(cola.test)) == (8551 - 16, 1043)
    stsb = load_task(spec("glue/stsb"), shared_data).task
    assert (len(stsb.train) + len(stsb.dev), len(stsb.test)) == (5749 - 6, 1500)
    assert stsb.kind is SCORE
    assert max(stsb.test.labels) == 5.0
    davidson = load_task(spec("hap/davidson"), shared_data)
    assert len(davidson.task.train) + len(davidson.task.dev) + len(davidson.task.test) == 24783
    assert "no test split" in davidson.notes[0]


@pytest.mark.slow
def test_incomplete_real_data_sets_are_noted(shared_data: Path) -> None:
    xnli = load_task(spec("xnli/xnli"), shared_data)
    assert len(xnli.task.test) == 15 * 2490
    assert set(xnli.task.train.languages) == {"en"}
    assert xnli.notes == [
        "trained on 10,071 pairs of MultiNLI (TaxiNLI), not on all 392,702",
        "scored on XNLI's validation split, not on its test split",
    ]
    squad = load_task(spec("squad/v1"), shared_data)
    assert any("half of SQuAD 2.0" in note for note in squad.notes)
    contexts = [{text[1] for text in getattr(squad.task, name).texts} for name in ("train", "dev", "test")]
    assert not contexts[0] & contexts[2]
    assert not contexts[0] & contexts[1]
    for (_, context), answers in zip(squad.task.test.texts, squad.task.test.labels, strict=True):
        assert isinstance(answers, Answers)
        assert context[answers.start :].startswith(answers.texts[0])
    for name in ("glue/mnli", "glue/qqp", "glue/qnli"):
        with pytest.raises(NoDataError):
            load_task(spec(name), shared_data)
