"""A library's process: its protocol, its errors, and its end."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdnas.latency.peers.libraries import ORDER, Job, library_of
from kdnas.latency.peers.process import PeerProcess
from kdnas.latency.peers.rows import Row
from kdnas.latency.peers.worker import bytes_of, serve
from kdnas.latency.process import WorkerError

AddLibrary = Callable[..., Path]


def job_in(folder: Path, **changes: Any) -> Job:
    (folder / "prepared").mkdir(exist_ok=True)
    values = {"variant": "plain", "forms": (), "model_type": "bert", "pooling": "mean", "max_seq_len": 64}
    return Job(folder, folder / "prepared", **{**values, "choice": {"width": 4}, **changes})


def answers(library: str, job: Job, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of the worker, in this process."""
    lines = [{"library": library, "job": job.to_line()}, *requests]
    out = io.StringIO()
    serve(io.StringIO("".join(json.dumps(line) + "\n" for line in lines)), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_every_library_states_the_whole_interface() -> None:
    for name in ORDER:
        library = library_of(name)
        assert library.PACKAGES
        assert library.VARIANTS
        assert set(library.CHOICES) <= set(library.VARIANTS)
        assert all("==" in pin for pin in library.REQUIREMENTS)
        assert {pin.partition("==")[0] for pin in library.REQUIREMENTS} >= set(library.FROM_SOURCE)


def test_a_job_survives_the_pipe(tmp_path: Path) -> None:
    job = job_in(tmp_path, threads=3)
    assert Job.from_line(json.loads(json.dumps(job.to_line()))) == job


def test_each_request_has_its_answer(tmp_path: Path, add_library: AddLibrary) -> None:
    add_library("dummy")
    texts = ["one", "two", "three", "four", "five"]
    requests = [
        {"do": "prepare"},
        {"do": "open"},
        {"do": "keep", "sets": {"mix": texts, "back": texts[::-1]}},
        {"do": "vectors", "set": "mix"},
        {"do": "time", "set": "mix", "batch": 2},
        {"do": "pairs", "first": "mix", "second": "back", "batch": 2},
    ]
    ready, prepared, opened, kept, vectors, times, pairs = answers("dummy", job_in(tmp_path), *requests)
    assert ready == prepared == kept == {}
    assert opened["ids"] is False
    assert opened["bytes"] == 1  # the one digit that `prepare` wrote
    assert set(opened["versions"]) == {"numpy"}
    assert [len(row) for row in vectors["vectors"]] == [4] * 5
    assert len(times["ms"]) == 3
    assert all(value > 0 for value in times["ms"])
    assert pairs["cosines"][2] == 1  # three with three
    assert pairs["cosines"][0] == pairs["cosines"][4] != 1


def test_an_error_is_an_answer_and_the_process_goes_on(tmp_path: Path, add_library: AddLibrary) -> None:
    add_library("dummy")
    _, failed, prepared = answers("dummy", job_in(tmp_path), {"do": "open"}, {"do": "prepare"})
    assert failed["error"].startswith("FileNotFoundError: ")
    assert prepared == {}


def test_a_process_that_dies_gives_the_reason(tmp_path: Path, add_library: AddLibrary) -> None:
    add_library("dummy", "os.write(2, b'out of luck\\n')\nos._exit(3)")
    job = job_in(tmp_path)
    row = Row("dummy", Path(__import__("sys").executable), job)
    with PeerProcess(row.python, row.library, job) as process:
        process.prepare()
        process.ask({"do": "open"})
        process.ask({"do": "keep", "sets": {"mix": ["one"]}})
        with pytest.raises(WorkerError, match="exit code 3; last line of its stderr: out of luck"):
            process.ask({"do": "vectors", "set": "mix"})


def test_bytes_of_files_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"1")
    assert (bytes_of(tmp_path), bytes_of(tmp_path / "c"), bytes_of(tmp_path / "d")) == (6, 1, 0)
