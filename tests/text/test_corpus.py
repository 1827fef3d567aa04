import gzip
import json
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kdnas.errors import KdnasError, UsageError
from kdnas.models.teacher import Teacher, load_tokenizer
from kdnas.text.corpus import Corpus, build_corpus, split_of, unique_rows
from kdnas.text.padding import padded_length
from kdnas.text.readers import TextOptions, TextRow, read_rows
from kdnas.text.sentences import token_batches

SENTENCES = [f"This is sentence number {n} of the test corpus." for n in range(300)]


def as_jsonl(sentences: list[str]) -> bytes:
    return "".join(json.dumps({"text": text, "kind": f"k{n % 3}"}) + "\n" for n, text in enumerate(sentences)).encode()


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_bytes(as_jsonl(SENTENCES)),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(as_jsonl(SENTENCES))),
    "a.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(as_jsonl(SENTENCES))),
    "a.txt": lambda path: path.write_text("\n\n".join(SENTENCES)),
    "a.txt.gz": lambda path: path.write_bytes(gzip.compress("\r\n".join(SENTENCES).encode())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_all_file_formats_are_read(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    assert [row.text for row in read_rows(str(tmp_path / name), TextOptions())] == SENTENCES


def test_parquet_is_read_with_topic_and_group(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": SENTENCES, "kind": ["x"] * 300, "doc": ["d"] * 300, "other": [1] * 300}), file)
    rows = list(read_rows(str(file), TextOptions(column="body", topic="kind", group="doc")))
    assert rows[0] == TextRow(SENTENCES[0], "x", "d")
    with pytest.raises(UsageError, match="no column 'text'; it has"):
        list(read_rows(str(file), TextOptions()))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_languages_are_read_from_a_column(name: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / name
    table = [{"text": text, "lang": ["de", "sw"][n % 2], "other": n} for n, text in enumerate(SENTENCES)]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(table), file)
    else:
        file.write_text("\n".join(json.dumps(row) for row in table))
    rows = list(read_rows(str(file), TextOptions()))
    assert [row.language for row in rows] == [row["lang"] for row in table]
    with pytest.raises(UsageError, match="no column 'body'; it has lang, other, text"):
        list(read_rows(str(file), TextOptions(column="body")))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_only_chosen_languages_are_read(name: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / name
    languages = ["de", "en", "sw"]
    rows = [{"text": text, "kind": languages[n % 3]} for n, text in enumerate(SENTENCES)]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = TextOptions(languages=("de", "sw"), language_column="kind")
    assert [row.text for row in read_rows(str(file), text)] == [s for n, s in enumerate(SENTENCES) if n % 3 != 1]
    with pytest.raises(UsageError, match="no text of language fr in column 'kind'; it has de, en, sw"):
        list(read_rows(str(file), TextOptions(languages=("de", "fr"), language_column="kind")))
    with pytest.raises(UsageError, match="row 1 has no column 'lang'"):
        list(read_rows(str(file), TextOptions(languages=("de",))))


@pytest.mark.parametrize("source", ["builtin:pydocs", "a.txt", "a.txt.gz"])
def test_source_without_languages_is_rejected_if_languages_are_chosen(source: str, tmp_path: Path) -> None:
    if source in WRITERS:
        WRITERS[source](tmp_path / source)
        source = str(tmp_path / source)
    with pytest.raises(UsageError, match="no language column"):
        read_rows(source, TextOptions(languages=("en",)))


def test_corpus_is_deterministic_cached_and_tokenised_as_by_transformers(
    tmp_path: Path, corpus_file: Path, tiny_teacher: Teacher
) -> None:
    text = TextOptions(topic="topic", group="group", seq_len=32)
    first = build_corpus(tmp_path / "a", str(corpus_file), text, tiny_teacher)
    assert build_corpus(tmp_path / "a", str(corpus_file), text, tiny_teacher).artifact == first.artifact
    second = build_corpus(tmp_path / "b", str(corpus_file), text, tiny_teacher)
    assert second.digest == first.digest
    tokenizer = load_tokenizer(tiny_teacher.path)
    for index in (0, 7, len(first.train) - 1):
        expected = tokenizer(first.train.texts[index], truncation=True, max_length=32)["input_ids"]
        assert first.train[index].tolist() == expected
    assert first.train.lengths.max() <= 32


def test_splits_share_no_group_and_no_sentence(corpus: Corpus, corpus_file: Path) -> None:
    group_of = {}
    for line in corpus_file.read_text().splitlines():
        row = json.loads(line)
        group_of.setdefault(" ".join(row["text"].split()).lower(), row["group"])
    groups = [{group_of[text.lower()] for text in split.texts} for split in (corpus.train, corpus.validation)]
    assert not groups[0] & groups[1]
    texts = [text.lower() for split in (corpus.train, corpus.validation) for text in split.texts]
    assert len(texts) == len(set(texts))
    assert len(corpus.train.topics) == len(corpus.train)


def test_duplicate_sentences_are_removed() -> None:
    rows = [TextRow("A  b.", "x", "1"), TextRow("a B.", "y", "2"), TextRow("  ", "", "3"), TextRow("C.", "z", "4")]
    assert list(unique_rows(rows, "s", None)) == [TextRow("A b.", "x", "1"), TextRow("C.", "z", "4")]
    assert len(list(unique_rows(rows, "s", 1))) == 1


@given(st.lists(st.text(max_size=4), min_size=1, max_size=40), st.floats(0.05, 0.95))
def test_split_depends_only_on_the_group(groups: list[str], fraction: float) -> None:
    rows = [TextRow(f"{n}", "", group) for n, group in enumerate(groups)]
    splits = {row.group: {split_of(other, fraction) for other in rows if other.group == row.group} for row in rows}
    assert all(len(found) == 1 and found <= {"train", "validation"} for found in splits.values())


@pytest.mark.slow
def test_memory_use_does_not_grow_with_the_text(tmp_path: Path, tiny_teacher: Teacher) -> None:
    """100,000 more sentences need only the documented 8 bytes per sentence, and memory for the set of hashes."""
    script = """
        import resource, sys
        from pathlib import Path
        from kdnas.text.corpus import build_corpus
        from kdnas.text.readers import TextOptions
        from kdnas.models.teacher import resolve_teacher
        teacher = resolve_teacher(sys.argv[2])
        peaks = []
        for source in sys.argv[3:]:
            build_corpus(Path(sys.argv[1]), source, TextOptions(), teacher)
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        print(peaks[1] - peaks[0])
    """
    files = []
    for count in (20_000, 120_000):
        files.append(tmp_path / f"{count}.txt")
        files[-1].write_text("\n".join(f"{n} {n * n} " + "and so on " * 30 for n in range(count)))
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), str(tiny_teacher.path), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown_mb, text_mb = float(done.stdout), files[1].stat().st_size / 2**20
    assert text_mb > 30
    assert grown_mb < 20


@given(
    st.lists(st.integers(2, 128), min_size=1, max_size=300),
    st.integers(128, 2048),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_batches_contain_all_sentences_within_the_token_budget(
    lengths: list[int], budget: int, seed: int, epoch: int
) -> None:
    array = np.array(lengths)
    batches = token_batches(array, budget, seed, epoch, pool=4)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * -(-int(array[batch].max()) // 8) * 8 <= budget
    again = token_batches(array, budget, seed, epoch, pool=4)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_batches_have_exactly_the_wanted_number_of_sentences() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    batches = token_batches(lengths, 16 * 128, 0, 0, pool=4, most=16)
    assert sorted(len(batch) for batch in batches) == [1000 % 16] + [16] * (1000 // 16)
    assert sorted(np.concatenate(batches)) == list(range(1000))
    few = token_batches(lengths, 128, 0, 0, pool=4, most=16)
    assert max(len(batch) * padded_length(int(lengths[batch].max())) for batch in few) <= 128  # the tokens still count


def test_batches_differ_between_epochs_and_have_little_padding(corpus: Corpus) -> None:
    lengths = corpus.train.lengths
    first, second = (token_batches(lengths, 1024, 0, epoch) for epoch in (0, 1))
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]
    padded = sum(corpus.train.batch(batch, corpus.pad_id)[0].size for batch in first)
    assert lengths.sum() / padded > 0.75


def test_batch_is_padded_and_masked(corpus: Corpus) -> None:
    ids, mask = corpus.train.batch(np.array([0, 1, 2]), pad_id=0)
    assert ids.shape == mask.shape
    assert ids.shape[1] % 8 == 0
    for row in range(3):
        length = int(mask[row].sum())
        assert ids[row, :length].tolist() == corpus.train[row].tolist()
        assert not ids[row, length:].any()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "it is empty"),
        ("empty.txt.gz", gzip.compress(b"\n \n", mtime=0), "it is empty"),
        ("latin.txt", "Käse\n".encode("latin-1"), "not UTF-8 near line 1"),
        ("bad.jsonl", b'{"text": "a"}\n{oops\n', "line 2 is not valid JSON"),
        ("list.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("column.jsonl", b'{"body": "a"}\n', "row 1 has no column 'text'; it has body"),
        ("number.jsonl", b'{"text": 3}\n', "column 'text' is not text but 3"),
        ("cut.txt.gz", gzip.compress(b"a sentence here\n" * 99, mtime=0)[:-9], "damaged archive"),
        ("fake.txt.gz", b"plain", "damaged archive"),
        ("fake.txt.zst", b"plain", "damaged archive"),
        ("fake.parquet", b"plain", "not a Parquet file"),
        ("a.csv", b"a,b\n", "unknown kind '.csv'"),
        ("few.txt", b"Only one sentence.\n", "too few to split"),
    ],
)
def test_invalid_files_are_reported(
    name: str, content: bytes, message: str, tmp_path: Path, tiny_teacher: Teacher
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        build_corpus(tmp_path / "home", str(tmp_path / name), TextOptions(), tiny_teacher)


def test_folder_source_reads_all_its_files(tmp_path: Path, tiny_teacher: Teacher) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "NOTES.tsv").write_text("not\tread\n")
    (folder / "a.txt").write_text("".join(f"plain sentence {number}\n" for number in range(150)))
    rows = [json.dumps({"text": f"Satz {number}", "lang": "de"}) for number in range(150)]
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    built = build_corpus(tmp_path / "home", str(folder), TextOptions(), tiny_teacher)
    assert len(built.train) + len(built.validation) == 300
    assert Counter([*built.train.languages, *built.validation.languages]) == {"": 150, "de": 150}
    assert built.name == "texts"
    with pytest.raises(UsageError, match=r"a.txt': row 1 has no column 'lang'"):
        build_corpus(tmp_path / "home", str(folder), TextOptions(languages=("de",)), tiny_teacher)
    (folder / "a.txt").write_text("".join(f"another sentence {number}\n" for number in range(150)))
    assert build_corpus(tmp_path / "home", str(folder), TextOptions(), tiny_teacher).digest != built.digest
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b'{"body": "a"}\n'))
    with pytest.raises(UsageError, match=r"b.jsonl.gz': row 1 has no column 'text'"):
        build_corpus(tmp_path / "home", str(folder), TextOptions(), tiny_teacher)


@pytest.mark.parametrize("source", ["builtin:other", "no-such.jsonl", "/no/such/file.txt", "word", "."])
def test_invalid_sources_are_reported(
    source: str, tmp_path: Path, tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")  # the source "." is the current folder
    with pytest.raises(UsageError, match=r"no such file|only packaged corpus|no file of this folder"):
        build_corpus(tmp_path, source, TextOptions(), tiny_teacher)


def test_unreachable_hub_is_reported(tmp_path: Path, tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(KdnasError, match="the hub cannot be reached"):
        build_corpus(tmp_path, "owner/no-such-set", TextOptions(), tiny_teacher)


def test_loading_script_of_the_hub_is_refused(
    tmp_path: Path, tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found set.py")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(UsageError, match=r"'owner/set': .* loading script.*set\.py.*refs/convert/parquet"):
        build_corpus(tmp_path, "owner/set", TextOptions(), tiny_teacher)


@pytest.mark.parametrize(
    "wrong", [{"seq_len": 4}, {"validation_fraction": 0.0}, {"max_sentences": 3}, {"languages": ()}]
)
def test_invalid_options_are_reported(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TextOptions(**wrong)  # type: ignore[arg-type]


def test_corpus_of_real_english_sentences(shared_data: Path, tmp_path: Path, tiny_teacher: Teacher) -> None:
    options = TextOptions(topic="source", max_sentences=5000)
    corpus = build_corpus(tmp_path, str(shared_data / "text" / "english.jsonl.gz"), options, tiny_teacher)
    assert corpus.artifact.results["sentences"] == 5000
    assert {"digitalgov", "tatoeba"} <= set(corpus.train.topics)
    assert 0.07 < len(corpus.validation) / 5000 < 0.13


def test_tokenizer_that_does_not_cover_the_script_is_rejected(tmp_path: Path, teacher: Teacher) -> None:
    words = ["ሰላም", "ለዓለም", "እንዴት", "ነህ", "ደህና", "ነኝ", "አመሰግናለሁ", "ቡና"]
    file = tmp_path / "amharic.txt"
    file.write_text("\n".join(" ".join(words[(n // 8**k) % 8] for k in range(4)) for n in range(300)))
    with pytest.raises(UsageError, match=r"100 % of its tokens are unknown to the tokenizer of 'builtin:minilm-l6'"):
        build_corpus(tmp_path, str(file), TextOptions(), teacher)


def test_english_has_almost_no_unknown_tokens(tmp_path: Path, corpus_file: Path, teacher: Teacher) -> None:
    assert build_corpus(tmp_path, str(corpus_file), TextOptions(), teacher).artifact.results["unknown_fraction"] < 0.01
