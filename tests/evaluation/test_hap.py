"""Reading labelled HAP texts: the Davidson columns, text and label, splits, and refused files."""

import gzip
import json
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.evaluation.hap import class_counts, hap_digest, read_hap
from kdnas.evaluation.tasks import SPLITS, Task, normal_form


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def labelled(count: int, prefix: str = "text") -> list[dict[str, object]]:
    return [{"text": f"{prefix} {number}", "label": number % 2} for number in range(count)]


def forms(task: Task) -> dict[str, set[str]]:
    return {name: {normal_form(text) for text in getattr(task, name).texts} for name in SPLITS}


@pytest.mark.slow
def test_the_davidson_set_has_its_published_sizes(shared_data: Path) -> None:
    path = shared_data / "hap" / "hate_speech_offensive"
    task = read_hap(path, seed=0)
    sizes = {name: len(getattr(task, name)) for name in SPLITS}
    assert sum(sizes.values()) == 24771  # 24783 rows, 12 of them repeat a text
    assert 0.09 < sizes["test"] / 24771 < 0.11
    assert 0.09 < sizes["dev"] / 24771 < 0.11
    counts = class_counts(task)
    assert (
        0.82 < sum(counts[name]["hap"] for name in SPLITS) / 24771 < 0.84
    )  # the published fraction of classes 0 and 1
    assert "12 repeated texts" in task.notes
    small = read_hap(path, seed=0, limit=500)
    assert abs(sum(len(getattr(small, name)) for name in SPLITS) - 500) <= 2
    for name in SPLITS:  # a limit removes rows and moves none to another split
        assert forms(small)[name] <= forms(task)[name]


def test_davidson_classes_0_and_1_are_hap(tmp_path: Path) -> None:
    rows = [{"tweet": f"tweet {number}", "class": number % 3, "count": 3} for number in range(300)]
    task = read_hap(write(tmp_path / "a.jsonl", rows), seed=0)
    for name in SPLITS:
        split = getattr(task, name)
        for text, label in zip(split.texts, split.labels, strict=True):
            assert label == int(int(text.split()[1]) % 3 != 2)
    assert task.labels == ["not-hap", "hap"]
    assert task.positive == 1


@pytest.mark.parametrize("names", [(0, 1), ("0", "1"), (False, True), ("non_hate", "HATE"), ("neutral", "toxic")])
def test_labels_may_be_numbers_or_names(tmp_path: Path, names: tuple[object, object]) -> None:
    rows = [{"text": f"text {number}", "label": names[number % 2]} for number in range(200)]
    task = read_hap(write(tmp_path / "a.jsonl.gz", rows), seed=0)
    assert all(label == int(text.split()[1]) % 2 for text, label in zip(task.test.texts, task.test.labels, strict=True))


def test_splits_share_no_text_even_if_the_files_do(tmp_path: Path) -> None:
    shared = [{"text": "Shared  text", "label": 1}]
    write(tmp_path / "train.jsonl", labelled(60, "train") + shared + labelled(5, "test"))
    write(tmp_path / "validation.jsonl", [*labelled(20, "dev"), {"text": "shared text", "label": 1}])
    write(tmp_path / "test.jsonl", [*labelled(20, "test"), {"text": "SHARED TEXT ", "label": 1}])
    task = read_hap(tmp_path, seed=0)
    found = forms(task)
    assert sum(map(len, found.values())) == len(set.union(*found.values()))
    assert [len(getattr(task, name)) for name in SPLITS] == [60, 20, 21]
    assert "shared text" in found["test"]
    assert "7 repeated texts" in task.notes


def test_a_missing_validation_file_is_replaced_by_a_part_of_train(tmp_path: Path) -> None:
    write(tmp_path / "binary.train.jsonl", labelled(400, "train"))
    write(tmp_path / "binary.test.jsonl", labelled(30, "test"))
    task = read_hap(tmp_path, seed=0)
    assert len(task.test) == 30
    assert all(text.startswith("train") for text in task.dev.texts)
    assert 20 <= len(task.dev) <= 60
    assert len(task.train) + len(task.dev) == 400


def test_a_missing_test_file_is_replaced_by_the_validation_file(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", labelled(400, "train"))
    write(tmp_path / "validation.jsonl", labelled(30, "held out"))
    task = read_hap(tmp_path, seed=0)
    assert all(text.startswith("held out") for text in task.test.texts)
    assert all(text.startswith("train") for text in task.dev.texts)


def test_the_digest_depends_only_on_the_content(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "train.jsonl", labelled(100))
    assert hap_digest(tmp_path / "a") == hap_digest(tmp_path / "b")
    write(tmp_path / "b" / "train.jsonl", labelled(101))
    assert hap_digest(tmp_path / "a") != hap_digest(tmp_path / "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b'{"text": "a", "score": 1}\n', "has the columns score, text; .* 'tweet' and 'class'"),
        (b'{"text": "a", "label": "green"}\n', "label is 'green'; allowed are .*toxic"),
        (b'{"text": "a", "label": -1}\n', "label is -1"),
        (b'{"tweet": "a", "class": 3}\n', "class is 3; allowed are 0 \\(hate\\)"),
        (b'{"text": 5, "label": 1}\n', "line 1: the text is not a string"),
        (b"[1]\n", "line 1 is not a JSON object"),
        (b'{"text": \n', "line 1 is not valid JSON"),
        (b'{"text": "gr\xfc\xdfe", "label": 1}\n', "not UTF-8 near line 1"),
        (b'{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', "at least 20"),
        (b"".join(b'{"text": "t%d", "label": 1}\n' % n for n in range(500)), "0 not-hap, .* hap.*two classes"),
    ],
)
def test_invalid_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "set.jsonl"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_hap(file, seed=0)


def test_invalid_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none: no such file or folder"):
        read_hap(tmp_path / "none", seed=0)
    with pytest.raises(UsageError, match=r"has no \.jsonl or \.jsonl\.gz file"):
        read_hap(tmp_path, seed=0)
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(UsageError, match="unknown file type"):
        read_hap(tmp_path / "a.csv", seed=0)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a", "label": 1}\n' * 99)[:30])
    with pytest.raises(UsageError, match="damaged archive"):
        read_hap(tmp_path / "a.jsonl.gz", seed=0)
