"""Inputs of the filter: files, folders, globs, URLs, formats, and everything that can be wrong with them."""

import datetime
import gzip
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from kdnas.errors import KdnasError, UsageError
from kdnas.extras import is_installed
from kdnas.filtering import reading
from kdnas.filtering import run as run_module
from kdnas.filtering.inputs import find_inputs
from kdnas.filtering.open_store import open_store
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.plan import cut_units
from kdnas.filtering.reading import read_chunks
from kdnas.store.artifact import Artifact
from kdnas.text import lines as text_lines

from .filter_fixture import lines, opened, outcome, parts, rows, run, run_folder, write_documents


def read(*paths: Path | str, unit_mb: float = 96.0) -> list[reading.Document]:
    """All documents of all units."""
    options = FilterOptions(unit_mb=unit_mb)
    units = cut_units(find_inputs(map(str, paths)), options.unit_bytes)
    return [one for unit in units for chunk in read_chunks(unit, options) for one in chunk.documents]


def test_folders_globs_and_files_give_each_file_once(tmp_path: Path) -> None:
    for name in ("a.jsonl", "deep/b.txt", "deep/c.jsonl.gz", ".hidden.txt", "_logs/d.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x\n")
    names = [Path(file.url).name for file in find_inputs([str(tmp_path)])]
    assert names == ["a.jsonl", "b.txt", "c.jsonl.gz"]
    found = find_inputs([str(tmp_path / "deep/*"), str(tmp_path), str(tmp_path / "a.jsonl")])
    assert [Path(file.url).name for file in found] == ["b.txt", "c.jsonl.gz", "a.jsonl"]
    for name, message in {"none": "no such file", "*.csv": "no file matches", "notes.md": "unknown file type"}.items():
        with pytest.raises(UsageError, match=message):
            find_inputs([str(tmp_path / name)])
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match="none of its 0 files"):
        find_inputs([str(tmp_path / "bare")])


def test_urls_are_read_like_files(classifier: Path, documents: Path, sentences: list[str], tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/a.jsonl", documents.read_bytes())
    memory.pipe("/corpus/deep/b.txt.gz", gzip.compress("\n".join(sentences[300:350]).encode()))
    table = pa.table({"text": sentences[350:400]})
    with memory.open("/corpus/c.parquet", "wb") as stream:
        pq.write_table(table, stream)
    try:
        assert run(classifier, "memory://corpus", tmp_path / "out") == 0
        assert Artifact.load(tmp_path / "out").results["documents"] == 400
        assert len(find_inputs(["memory://corpus/*.jsonl", "memory://corpus/c.parquet"])) == 2
        with pytest.raises(UsageError, match="no such file, folder or bucket"):
            find_inputs(["memory://elsewhere"])
    finally:
        memory.rm("/corpus", recursive=True)
    with pytest.raises(UsageError, match="nosuch"):
        find_inputs(["nosuch://bucket/a.jsonl"])


@pytest.mark.skipif(is_installed("gcsfs"), reason="gcsfs is installed")
def test_a_missing_package_for_a_store_is_named() -> None:
    with pytest.raises(KdnasError, match=r"input 'gs://bucket/a\.jsonl': .*run: pip install gcsfs"):
        find_inputs(["gs://bucket/a.jsonl"])
    with pytest.raises(KdnasError, match=r"output 'gs://bucket/run': .*run: pip install gcsfs"):
        open_store("gs://bucket/run")


@pytest.mark.parametrize("suffix", [".jsonl", ".txt", ".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("size", [10, 57, 1000, 10**6])
def test_units_cover_each_line_once(tmp_path: Path, suffix: str, size: int) -> None:
    texts = [f"line {number} " + "ä" * (number % 40) for number in range(200)]
    data = "\n".join(json.dumps({"text": text}) if "jsonl" in suffix else text for text in texts).encode()
    half = data.index(b"\n", len(data) // 2) - 7  # two archives in one file, split inside a line
    pack: Callable[[bytes], bytes] = {"gz": gzip.compress, "zst": zstandard.compress}.get(suffix[-3:].strip("."), bytes)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\n \n" + data if pack is bytes else pack(data[:half]) + pack(data[half:]))
    found = read(path, unit_mb=size / 1e6)
    assert [document.text for document in found] == texts
    plain = b"\n \n" + data if pack is bytes else data
    assert all(plain[one.position : one.position + len(one.raw)] == one.raw for one in found)


def test_small_files_share_a_unit_and_large_ones_are_cut(tmp_path: Path) -> None:
    for number in range(50):
        write_documents(tmp_path / f"{number:02d}.jsonl", ["a" * 100] * 5)
    (tmp_path / "50.jsonl").touch()
    (tmp_path / "60.txt").write_text("b\n" * 5000)
    units = list(cut_units(find_inputs([str(tmp_path)]), 3000))
    assert [unit.number for unit in units] == list(range(len(units)))
    assert max(unit.bytes for unit in units) <= 4000
    assert len(units) < 20
    assert {len({segment.file.suffix for segment in unit.segments}) for unit in units} == {1}


def test_compressed_input_gives_compressed_output(classifier: Path, documents: Path, tmp_path: Path) -> None:
    run(classifier, documents, tmp_path / "plain")
    for suffix, pack in ((".gz", gzip.compress), (".zst", zstandard.compress)):
        packed = tmp_path / f"docs.jsonl{suffix}"
        packed.write_bytes(pack(documents.read_bytes()))
        run(classifier, packed, tmp_path / f"out{suffix}")
        for fate in ("kept", "dropped"):
            assert all(file.name.endswith(".jsonl" + suffix) for file in parts(tmp_path / f"out{suffix}" / fate))
            assert lines(tmp_path / f"out{suffix}" / fate) == lines(tmp_path / "plain" / fate)


def test_parquet_stays_parquet(classifier: Path, sentences: list[str], tmp_path: Path) -> None:
    count = 250
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("text", pa.large_string(), metadata={"of": "text"}),
            pa.field("raw", pa.binary()),
            pa.field("at", pa.timestamp("us", "UTC")),
            pa.field("tags", pa.map_(pa.string(), pa.int32())),
            pa.field("parts", pa.list_(pa.struct([("x", pa.float32())]))),
            pa.field("kind", pa.dictionary(pa.int32(), pa.string())),
            pa.field("number", pa.float64()),
            pa.field("kdnas", pa.string()),
        ],
        metadata={"owner": "me"},
    )
    columns = [
        range(count), sentences[:count], [bytes([index % 256, 255]) for index in range(count)],
        [datetime.datetime(2020, 1, 1, microsecond=index, tzinfo=datetime.UTC) for index in range(count)],
        [[("a", index)] for index in range(count)], [[{"x": 0.5}] * (index % 3) for index in range(count)],
        ["u" if index % 2 else "v" for index in range(count)],
        [math.nan if index % 3 else math.inf for index in range(count)], ["mine"] * count,
    ]  # fmt: skip
    table = pa.Table.from_arrays(
        [pa.array(list(values), field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=60, compression="zstd")
    assert run(classifier, tmp_path / "a.parquet", tmp_path / "out", unit_mb=0.02) == 0
    files = parts(tmp_path / "out/kept")
    assert len(files) > 1
    kept = pa.concat_tables(pq.read_table(file) for file in files)
    dropped = pa.concat_tables(pq.read_table(file) for file in parts(tmp_path / "out/dropped"))
    assert kept.schema.equals(pq.read_schema(tmp_path / "a.parquet"), check_metadata=True)
    assert pq.ParquetFile(files[0]).metadata.row_group(0).column(0).compression == "ZSTD"
    assert dropped.column_names == [*table.column_names, "kdnas_2"]
    assert dropped["kdnas_2"][0].as_py()["label"] == "hap"
    whole = pa.concat_tables([kept, dropped.drop_columns("kdnas_2")]).sort_by("id")
    for name in table.column_names:  # NaN equals NaN in the printed values
        assert str(whole[name].to_pylist()) == str(table[name].to_pylist()), name
    write_documents(tmp_path / "b.jsonl", sentences[:count])
    run(classifier, tmp_path / "b.jsonl", tmp_path / "lines", unit_mb=0.02)
    assert sorted(kept["id"].to_pylist()) == [row["id"] for row in rows(tmp_path / "lines/kept")]


def test_unreadable_records_are_quarantined(classifier: Path, sentences: list[str], tmp_path: Path) -> None:
    lines_ = [json.dumps({"text": text}).encode() for text in sentences[:20]]
    bad = {
        2: (b'{"text": "torn', "not JSON"),
        4: (b'["a", "list"]', "not a JSON object but a list"),
        6: (b'{"body": "x"}', "no column 'text'"),
        8: (b'{"text": 7}', "column 'text' is not text but a number"),
        10: (b'{"text": null}', "column 'text' is not text but null"),
        12: (b'{"text": "\xff\xfe"}', "not UTF-8"),
        14: (b'{"text": "\\ud83d"}', "unpaired surrogate"),
        16: (b"[" * 100000, "not JSON"),
    }
    for number, (line, _) in bad.items():
        lines_.insert(number - 1, line)
    source = tmp_path / "docs.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines_) + b"\n")
    (tmp_path / "empty.jsonl").touch()
    found = outcome(classifier, (str(source), str(tmp_path / "empty.jsonl")), tmp_path / "out")
    assert found.exit_code == 4
    quarantine = rows(tmp_path / "out/quarantine")
    data = source.read_bytes()
    for row, (line, reason) in zip(quarantine, bad.values(), strict=True):
        assert row["file"] == str(source)
        assert data[row["byte"] :].startswith(line)
        assert reason in row["reason"]
    assert quarantine[0]["raw"] == '{"text": "torn'
    assert "raw_base64" in quarantine[5]
    results = Artifact.load(tmp_path / "out").results
    assert (results["documents"], results["quarantine"], results["empty_files"]) == (28, 8, 1)
    assert results["problems"]["not JSON"] == 2
    assert run(classifier, source, tmp_path / "rate", max_quarantine=0.3) == 0


def test_damaged_files_are_named_and_the_rest_is_finished(
    classifier: Path, documents: Path, sentences: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    packed = gzip.compress(documents.read_bytes())
    (folder / "a.jsonl.gz").write_bytes(packed[:-2000])
    (folder / "b.jsonl.gz").write_bytes(b"not gzip")
    table = pa.table({"text": sentences[:200]})
    pq.write_table(table, folder / "c.parquet", row_group_size=100, compression="none", use_dictionary=False)
    meta = pq.ParquetFile(folder / "c.parquet").metadata.row_group(1).column(0)
    data = bytearray((folder / "c.parquet").read_bytes())
    data[meta.data_page_offset : meta.data_page_offset + 12] = b"\xff" * 12
    (folder / "c.parquet").write_bytes(bytes(data))
    pq.write_table(pa.table({"body": ["x"] * 7}), folder / "d.parquet")
    pq.write_table(pa.table({"text": [1, 2]}), folder / "e.parquet")
    (folder / "f.parquet").write_bytes(b"PAR1 torn")
    write_documents(folder / "g.jsonl", sentences[:10])
    found = outcome(classifier, folder, tmp_path / "out")
    assert found.exit_code == 4
    reasons = {Path(row["file"]).name: row for row in rows(tmp_path / "out/quarantine")}
    assert "truncated" in reasons["a.jsonl.gz"]["reason"]
    assert "damaged archive" in reasons["b.jsonl.gz"]["reason"]
    assert (reasons["c.parquet"]["row"], reasons["c.parquet"]["rows"]) == (100, 100)
    assert (reasons["d.parquet"]["reason"], reasons["d.parquet"]["rows"]) == ("no column 'text'; it has body", 7)
    assert reasons["e.parquet"]["reason"] == "column 'text' is not text but int64"
    assert json.loads(reasons["e.parquet"]["raw"]) == {"text": 2}
    assert "not a Parquet file" in reasons["f.parquet"]["reason"]
    assert found.results["quarantine"] == 1 + 1 + 100 + 7 + 2 + 1
    assert found.results["kept"] + found.results["dropped"] > 110 + 150  # what comes before the damage is not lost


def test_changed_missing_and_new_files_are_named(
    classifier: Path,
    sentences: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for number in range(4):
        write_documents(folder / f"{number}.jsonl", sentences[:20])
    write, run_units = Path.write_text, run_module.run_units

    def change_first(*args: Any) -> None:
        write(folder / "9.jsonl", '{"text": "new"}\n')
        write(folder / "1.jsonl", '{"text": "changed"}\n')
        (folder / "2.jsonl").rename(tmp_path / "2.jsonl")
        run_units(*args)

    monkeypatch.setattr(run_module, "run_units", change_first)
    with pytest.raises(KdnasError, match="4 units failed") as error:
        run(classifier, folder, out, unit_mb=0.001)
    assert "1.jsonl': it has changed since this run was planned" in str(error.value)
    assert "2.jsonl': no such file" in str(error.value)
    assert len(list((out / "commits/00000").iterdir())) >= 2  # the other units are finished
    assert not (out / "manifest.json").exists()
    monkeypatch.undo()
    write_documents(folder / "1.jsonl", sentences[:20])
    (tmp_path / "2.jsonl").rename(folder / "2.jsonl")
    state = find_inputs([str(folder / "0.jsonl")])[0]
    stamp = next(
        one for unit in run_folder(out).plan.block(0) for one in unit.segments if one.file.url.endswith("1.jsonl")
    )
    os.utime(folder / "1.jsonl", ns=(int(stamp.file.stamp), int(stamp.file.stamp)))
    os.utime(folder / "0.jsonl", ns=(int(state.stamp) + 1, int(state.stamp) + 1))
    assert run(classifier, folder, out, unit_mb=0.001) == 0
    results = Artifact.load(out).results
    assert results["documents"] == 80
    assert results["new_files"] == [str(folder / "9.jsonl")]
    assert results["changed_files"] == [str(folder / "0.jsonl")]
    assert "new, and not filtered" in capsys.readouterr().err


def test_a_line_of_any_length_stays_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"before\n" + b"x" * 50_000_000 + b"\nafter\n"))
    tracemalloc.start()
    found = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [document.text for document in found] == ["before", None, "after"]
    assert (found[1].position, found[1].problem) == (7, f"longer than {16 * 2**20} bytes")
    assert peak < 35e6
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 50)
    monkeypatch.setattr(text_lines, "MAX_LINE_BYTES", 50)
    pq.write_table(pa.table({"text": ["short", "x" * 60, None, "after"]}), tmp_path / "a.parquet")
    rows_ = read(tmp_path / "a.parquet")
    assert [document.text for document in rows_] == ["short", None, None, "after"]
    assert (rows_[1].position, rows_[1].problem, rows_[1].raw) == (1, "longer than 50 bytes", b"")
    assert opened(path).startswith(b"before")
