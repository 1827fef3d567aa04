"""Units on a Ray cluster: the rows of a run in one process, even if workers die."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import ray

from kdnas.cluster import TRIES, Workers
from kdnas.errors import UsageError
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.run import filter_documents

from .filter_fixture import FORM, contents, run, run_folder, write_documents

pytestmark = pytest.mark.slow
OPTIONS = FilterOptions(unit_mb=0.004)


@pytest.fixture
def corpus_folder(tmp_path: Path, sentences: list[str]) -> Path:
    for number in range(8):
        write_documents(tmp_path / f"in/{number}.jsonl", sentences[number * 40 : number * 40 + 40])
    with (tmp_path / "in/3.jsonl").open("a") as file:
        file.write('{"text": "torn\n')
    return tmp_path / "in"


def test_a_cluster_gives_the_rows_of_one_process(classifier: Path, corpus_folder: Path, tmp_path: Path) -> None:
    assert run(classifier, corpus_folder, tmp_path / "whole", unit_mb=0.004) == 4
    out = tmp_path / "out"
    found = filter_documents(classifier, (str(corpus_folder),), str(out), FORM, 1, OPTIONS, cluster="local")
    assert found.exit_code == 4
    assert not ray.is_initialized()
    assert contents(out) == contents(tmp_path / "whole")
    with pytest.raises(UsageError, match="give one of them"):
        filter_documents(classifier, (str(corpus_folder),), str(out), FORM, 1, OPTIONS, True, 0, 2, "local")


def deadly(folder: Path, item: str) -> str:
    """Kills its worker: once on `once`, always on `ever`."""
    with (folder / item).open("a") as file:
        file.write("x")
    if item == "ever" or (item == "once" and len((folder / item).read_text()) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return item.upper()


def test_items_of_dead_workers_are_done_again(tmp_path: Path) -> None:
    with Workers("local", partial(partial, deadly, tmp_path), lambda item: f"{item} failed") as workers:
        found = dict(workers(["a", "once", "ever", "b"]))
    assert found == {0: "A", 1: "ONCE", 2: "ever failed", 3: "B"}
    assert len((tmp_path / "ever").read_text()) == TRIES
    assert len((tmp_path / "once").read_text()) == 2


def test_a_run_that_a_cluster_began_is_resumed_by_one_process(
    classifier: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    run(classifier, corpus_folder, tmp_path / "whole", unit_mb=0.004)
    out = tmp_path / "out"
    filter_documents(classifier, (str(corpus_folder),), str(out), FORM, 1, OPTIONS, True, 0, 2)
    before = sorted(out.glob("commits/00000/*.json"))
    assert before
    assert list(run_folder(out).missing())
    filter_documents(classifier, (str(corpus_folder),), str(out), FORM, 1, OPTIONS, cluster="local")
    assert contents(out) == contents(tmp_path / "whole")
