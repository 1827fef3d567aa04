"""Filter runs whose output is in an object store: the rows of a local run, one commit a unit, resume, and clear errors."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.filtering.finish import filter_finish
from kdnas.filtering.objects import BLOCK_BYTES, ObjectStore
from kdnas.filtering.open_store import open_store
from kdnas.filtering.options import DecisionOptions, FilterOptions
from kdnas.filtering.recorded import filter_apply
from kdnas.filtering.run import check_apart, filter_documents
from kdnas.filtering.store import Store
from kdnas.store.artifact import SEAL, seal_of

from .filter_fixture import FORM, contents, outcome, run, run_folder, write_documents
from .s3_fixture import names_in, s3, s3_contents

pytestmark = pytest.mark.slow
COUNTS = (
    "documents",
    "kept",
    "dropped",
    "quarantine",
    "sentences",
    "tokens",
    "scores",
    "drops",
    "samples",
    "languages",
)
Kdnas = Callable[..., subprocess.CompletedProcess[str]]


def manifest_of(url: str) -> dict[str, Any]:
    return dict(json.loads(s3().cat_file(f"{url}/manifest.json")))


def test_both_kinds_of_store_do_the_same(store: Store) -> None:
    store.require_usable()
    assert store.names() == []
    assert store.read("a/b.json") is None
    assert store.create("a/b.json", b"first")
    assert not store.create("a/b.json", b"second")
    assert store.read("a/b.json") == b"first"
    store.write("a/b.json", b"third")
    store.write("a/deep/c", b"")
    store.write("d", b"4")
    assert store.names() == ["a", "d"]
    assert store.names("a") == ["b.json", "deep"]
    assert store.names("none") == []
    assert store.read_all("a/deep") == {"c": b""}
    with store.open("a/b.json") as stream:
        assert stream.read() == b"third"
    with pytest.raises(FileNotFoundError):
        store.open("none")
    for _ in range(2):  # the second time it is gone
        store.move("a/b.json", "e/f")
    assert store.read("e/f") == b"third"
    assert store.read("a/b.json") is None
    for _ in range(2):
        store.remove("a")
        store.remove("d")
    assert store.names() == ["e"]


def test_a_file_is_visible_when_it_is_finished(store: Store, bucket: str) -> None:
    data = os.urandom(1000) * (BLOCK_BYTES // 400)  # three parts
    finished, abandoned = store.new_file("work/a"), store.new_file("work/b")
    for file in (finished, abandoned):
        assert file.write(data) == len(data)
    assert isinstance(store, ObjectStore) == (store.read("work/a") is None)
    finished.finish()
    abandoned.abandon()
    abandoned.abandon()
    assert store.read("work/a") == data
    assert store.names("work") == ["a"]
    assert "Uploads" not in s3().call_s3("list_multipart_uploads", Bucket=bucket.removeprefix("s3://"))


def test_of_several_writers_one_creates(store: Store) -> None:
    start = threading.Barrier(4)

    def create(writer: int) -> list[bool]:
        mine = open_store(store.url)
        found = []
        for number in range(12):
            start.wait(60)
            found.append(mine.create(f"commits/{number}", str(writer).encode()))
        return found

    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(create, range(4)))
    for number, row in enumerate(zip(*created, strict=True)):
        assert sum(row) == 1
        assert store.read(f"commits/{number}") == str(row.index(True)).encode()


def test_a_store_that_ignores_the_condition_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(f"{bucket}/run")
    write = s3().pipe_file
    monkeypatch.setattr(s3(), "pipe_file", lambda path, data, mode="overwrite": write(path, data))
    with pytest.raises(UsageError, match="replaces an object that should only be created if it is absent"):
        store.require_usable()
    assert names_in(bucket) == []


def test_an_object_store_gets_the_rows_of_a_folder(
    classifier: Path, mixed: Path, tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    local = outcome(classifier, mixed, tmp_path / "whole", unit_mb=0.006)
    found = outcome(classifier, mixed, f"{bucket}/run/", unit_mb=0.006)
    assert (found.path, found.text, found.exit_code) == (None, f"{bucket}/run", 4)
    assert s3_contents(f"{bucket}/run") == contents(tmp_path / "whole")
    assert {name: found.results[name] for name in COUNTS} == {name: local.results[name] for name in COUNTS}
    tops = {name.partition("/")[0] for name in names_in(f"{bucket}/run")}
    assert tops == {"kept", "dropped", "quarantine", "commits", "plan", "plan.json", "report.html", "manifest.json"}
    manifest = manifest_of(f"{bucket}/run")
    assert manifest[SEAL] == seal_of(manifest)
    assert b"documents filtered" in s3().cat_file(f"{bucket}/run/report.html")
    assert outcome(classifier, mixed, f"{bucket}/run", unit_mb=0.006).exit_code == 4
    assert "an earlier run" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"unit_mb: 0\.006 there, 0.005 now"):
        outcome(classifier, mixed, f"{bucket}/run", unit_mb=0.005)
    s3().pipe_file(f"{bucket}/mine/thesis.txt", b"draft")
    with pytest.raises(UsageError, match="not empty, and not from `kdnas filter`"):
        outcome(classifier, mixed, f"{bucket}/mine")
    with pytest.raises(UsageError, match="it is or contains the input"):
        check_apart((f"{bucket}/in/a.jsonl",), f"{bucket}/in")
    with pytest.raises(UsageError, match="it is inside the input"):
        check_apart((f"{bucket}/in",), f"{bucket}/in/out")


def test_input_and_output_may_be_in_the_store(classifier: Path, mixed: Path, tmp_path: Path, bucket: str) -> None:
    s3().put(f"{mixed}/", f"{bucket}/in/", recursive=True)
    run(classifier, mixed, tmp_path / "whole", unit_mb=0.006)
    run(classifier, f"{bucket}/in", f"{bucket}/run", unit_mb=0.006)
    rows, expected = s3_contents(f"{bucket}/run"), contents(tmp_path / "whole")
    assert rows.keys() == expected.keys()
    for name, data in rows.items():
        assert name.startswith("quarantine") or data == expected[name]  # these name the file
    assert manifest_of(f"{bucket}/run")["results"]["changed_files"] == []


def test_a_changed_object_of_the_input_is_noticed(classifier: Path, mixed: Path, bucket: str) -> None:
    s3().put(f"{mixed}/", f"{bucket}/in/", recursive=True)
    given = (classifier, (f"{bucket}/in",), f"{bucket}/run", FORM, 1, FilterOptions(unit_mb=0.006), True)
    filter_documents(*given, 49, 50)  # no unit, but the plan
    s3().pipe_file(f"{bucket}/in/a1.jsonl", b'{"text": "changed"}\n')
    s3().rm(f"{bucket}/in/a2.jsonl")
    with pytest.raises(KdnasError, match="units failed") as error:
        filter_documents(*given)
    assert f"input '{bucket}/in/a1.jsonl': it has changed since this run was planned" in str(error.value)
    assert f"input '{bucket}/in/a2.jsonl': no such file" in str(error.value)


def test_recorded_scores_are_split_again(classifier: Path, mixed: Path, tmp_path: Path, bucket: str) -> None:
    options = DecisionOptions(threshold=(0.3,))
    run(classifier, mixed, tmp_path / "scores", mode="annotate", unit_mb=0.006)
    run(classifier, mixed, f"{bucket}/scores", mode="annotate", unit_mb=0.006)
    filter_apply(str(tmp_path / "scores"), str(tmp_path / "whole"), options)
    filter_apply(f"{bucket}/scores", f"{bucket}/split", options)
    filter_apply(f"{bucket}/scores", str(tmp_path / "split"), options)
    assert s3_contents(f"{bucket}/split") == contents(tmp_path / "whole") == contents(tmp_path / "split")
    s3().rm(f"{bucket}/scores/scores", recursive=True)
    with pytest.raises(KdnasError, match=f"the scores in '{bucket}/scores/scores/.*': no such file"):
        filter_apply(f"{bucket}/scores", f"{bucket}/again", options)


def test_shards_and_finish(classifier: Path, mixed: Path, tmp_path: Path, bucket: str) -> None:
    run(classifier, mixed, tmp_path / "whole", unit_mb=0.006)
    url = f"{bucket}/run"
    with pytest.raises(UsageError, match="no run of `kdnas filter` is there"):
        filter_finish(url)
    for index in (1, 0):
        done = filter_documents(classifier, (str(mixed),), url, FORM, 1, FilterOptions(unit_mb=0.006), True, index, 2)
        assert done.text == url
        if index:
            with pytest.raises(KdnasError, match="units are not committed"):
                filter_finish(url)
    assert filter_finish(url).exit_code == 4
    assert s3_contents(url) == contents(tmp_path / "whole")


def command_of(model: Path, source: Path | str, out: str, *words: object) -> list[str]:
    given = ["filter", "--model", model, "--input", source, "--output", out, "--form", FORM, "--threads", 1]
    return [sys.executable, "-m", "kdnas.cli", *map(str, [*given, "--unit-mb", 0.006, *words])]


def test_two_racing_processes_give_one_commit_a_unit(
    classifier: Path, mixed: Path, tmp_path: Path, bucket: str
) -> None:
    run(classifier, mixed, tmp_path / "whole", unit_mb=0.006)
    url = f"{bucket}/run"
    command = command_of(classifier, mixed, url)
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [(*one.communicate(timeout=120), one.returncode) for one in both]
    assert [code for _, _, code in results] == [4, 4], results
    assert [out.splitlines()[-1] for out, _, _ in results] == [url, url]
    assert s3_contents(url) == contents(tmp_path / "whole")
    units = sum(unit.number >= 0 for unit in run_folder(url).plan.units())
    assert sum(name.count("/") == 2 for name in names_in(url) if name.startswith("commits/")) == units
    found, expected = manifest_of(url)["results"], outcome(classifier, mixed, tmp_path / "whole", unit_mb=0.006).results
    assert {name: found[name] for name in COUNTS} == {name: expected[name] for name in COUNTS}


def test_the_files_of_the_slower_writer_are_never_used(
    classifier: Path, mixed: Path, tmp_path: Path, bucket: str
) -> None:
    url = f"{bucket}/run"
    run(classifier, mixed, tmp_path / "whole", unit_mb=0.006)
    filter_documents(classifier, (str(mixed),), url, FORM, 1, FilterOptions(unit_mb=0.006), True, 1, 50)
    folder = run_folder(url)
    record = folder.committed(1)
    assert record is not None
    late = {name: row | {"scratch": "late", "sha256": "of another worker"} for name, row in record["files"].items()}
    folder.store.write("work/late", b"must not be used")
    assert folder.commit(1, [{"files": late, "totals": record["totals"]}]) == record
    run(classifier, mixed, url, unit_mb=0.006)
    assert s3_contents(url) == contents(tmp_path / "whole")


def test_killed_runs_resume_to_the_same_objects(classifier: Path, mixed: Path, tmp_path: Path, bucket: str) -> None:
    run(classifier, mixed, tmp_path / "whole", unit_mb=0.006)
    url = f"{bucket}/run"

    def count() -> int:
        """Finished units and pieces."""
        return sum(name.endswith(".json") and name.startswith(("commits/0", "work/0")) for name in names_in(url))

    def stamps() -> dict[str, str]:
        found = s3().find(f"{url}/commits", detail=True)
        return {key: str(info["LastModified"]) for key, info in found.items() if key.count("/") == 4}

    before: dict[str, str] = {}
    for wanted, pause in ((1, 0.0), (3, 0.03), (8, 0.06), (12, 0.01)):
        with subprocess.Popen(
            command_of(classifier, mixed, url, "--verify", "false"),
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            until = time.monotonic() + 60
            while count() < wanted and process.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.01)
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        now = stamps()
        assert before.items() <= now.items()  # nothing is committed twice
        before = now
    assert before
    done = subprocess.run(command_of(classifier, mixed, url), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 4, done.stderr
    assert before.items() <= stamps().items()
    assert s3_contents(url) == contents(tmp_path / "whole")
    assert not [name for name in names_in(url) if name.startswith("work/")]


def test_resuming_looks_only_at_blocks_that_are_not_complete(
    classifier: Path, mixed: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("plan", "commits", "pieces"):
        monkeypatch.setattr(f"kdnas.filtering.{module}.BLOCK_UNITS", 4)
    url = f"{bucket}/run"
    commit, left = type(run_folder(url)).commit, [9]

    def until_tenth(folder: Any, unit: int, pieces: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return commit(folder, unit, pieces)

    with monkeypatch.context() as patch:
        patch.setattr("kdnas.filtering.commits.RunFolder.commit", until_tenth)
        with pytest.raises(KeyboardInterrupt):
            run(classifier, mixed, url, unit_mb=0.003)
    asked: list[str] = []
    for method in ("names", "read", "read_all"):
        real = getattr(ObjectStore, method)

        def noted(store: ObjectStore, name: str = "", real: Any = real) -> Any:
            asked.append(name)
            return real(store, name)

        monkeypatch.setattr(ObjectStore, method, noted)
    folder = run_folder(url)
    assert next(folder.missing()).number == 9
    folder = run_folder(url)
    assert [unit.number for unit in folder.missing()] == list(range(9, sum(1 for _ in folder.plan.units())))
    asked.clear()
    list(run_folder(url).missing())
    blocks = {name.partition(".")[0][-5:] for name in asked if "/" in name}
    assert blocks == {f"{number:05d}" for number in folder.plan.blocks if number >= 2}


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The only line of a failed command, without its name."""
    assert done.returncode in (1, 2), done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("kdnas:")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    return errors[0].removeprefix("kdnas: ")


@contextmanager
def unknown_keys_refused(address: str) -> Iterator[None]:
    """The server checks the keys of requests, and knows none."""

    def allow(requests: str) -> None:
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{address}/moto-api/reset-auth", requests.encode(), headers)
        urllib.request.urlopen(request).close()

    allow("0")
    try:
        yield
    finally:
        allow("inf")


def test_what_is_missing_or_refused_is_named(
    classifier: Path, documents: Path, bucket: str, kdnas: Kdnas, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(source: Path | str, out: str) -> str:
        return one_line(kdnas("filter", "--model", classifier, "--input", source, "--output", out))

    assert failed(documents, "s3://nowhere-1/run") == "output 's3://nowhere-1/run': no such file, folder or bucket"
    assert "no such file, folder or bucket" in failed("s3://nowhere-1/a.jsonl", f"{bucket}/run")
    assert "no such file, folder or bucket" in failed(f"{bucket}/none.jsonl", f"{bucket}/run")
    assert "sftp://host/run': this kind of store cannot create a file only if it is absent" in failed(
        documents, "sftp://host/run"
    )
    assert "give a bucket" in failed(documents, "s3://")
    s3().pipe_file(f"{bucket}/in/a.jsonl", documents.read_bytes())
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        assert "output" in failed(documents, f"{bucket}/run")
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        assert "Unable to locate credentials" in failed(documents, f"{bucket}/run")
        assert "Unable to locate credentials" in failed(f"{bucket}/in", f"{bucket}/run")
    with unknown_keys_refused(address):
        for source, out, what in (
            (documents, f"{bucket}/run", "output"),
            (f"{bucket}/in", str(documents) + "-out", "input"),
        ):
            message = failed(source, out)
            assert message.startswith(what)
            assert "access is denied" in message
    assert names_in(bucket) == ["in/a.jsonl"]


def test_the_standard_input_is_kept_in_the_store(classifier: Path, sentences: list[str], bucket: str) -> None:
    data = "\n".join(json.dumps({"id": number, "text": text}) for number, text in enumerate(sentences[:40]))
    command = command_of(classifier, "-", f"{bucket}/run")
    done = subprocess.run(command, input=data, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{bucket}/run"
    assert manifest_of(f"{bucket}/run")["results"]["documents"] == 40


def test_a_store_that_fails_stops_the_run(
    classifier: Path, sentences: list[str], tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_documents(tmp_path / "docs.jsonl", sentences[:100])
    opened: list[str] = []

    def refuse(path: str, *_: Any, **options: Any) -> Any:
        opened.append(path)
        raise PermissionError(13, "the token has expired")

    monkeypatch.setattr(s3(), "open", refuse)
    with pytest.raises(KdnasError, match="access is denied") as error:
        run(classifier, source, f"{bucket}/run", unit_mb=0.002)
    assert "units failed" not in str(error.value)
    assert len(opened) == 1  # no other unit was scored in vain
