"""Two processes filter one corpus without a lock, and one does its work while the other is between any two accesses."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from kdnas.filtering.commits import RUN
from kdnas.filtering.disk import DiskStore
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.run import filter_documents
from kdnas.filtering.store import Store
from kdnas.store.artifact import MANIFEST

from .filter_fixture import FORM, contents, write_documents

pytestmark = pytest.mark.slow
OPENING = 16  # accesses until the run is planned, at least; every one is interrupted, and later ones by sample


class InterruptedStore(DiskStore):
    """A folder without locks, as an object store; before the access number `at` of all, `other` runs."""

    count, at = 0, -1
    other: Any = None

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name in dir(Store):
            kind = InterruptedStore
            kind.count += 1
            if kind.count == kind.at:
                kind.other()
        return super().__getattribute__(name)

    def locked(self, name: str, wait: bool = False) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.mark.parametrize("shard", [None, 0], ids=["ends", "starts"])
def test_another_process_at_any_moment(
    classifier: Path, sentences: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int | None
) -> None:
    """The other process does the whole run, or one of two shards, which starts it."""
    source = write_documents(tmp_path / "in" / "a.jsonl", sentences[:20])
    write_documents(tmp_path / "in" / "b.jsonl", sentences[20:40])
    monkeypatch.setattr("kdnas.filtering.run.open_store", lambda output: InterruptedStore(Path(output)))

    def run(out: Path, index: int | None = None) -> None:
        count, options = (None if index is None else 2), FilterOptions(unit_mb=0.001)
        done = filter_documents(classifier, (str(source.parent),), str(out), FORM, 1, options, False, index, count)
        assert done.exit_code == 0

    InterruptedStore.count, InterruptedStore.at = 0, -1
    run(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    assert len(expected) > 1
    for at in [*range(1, OPENING), *range(OPENING, InterruptedStore.count + 1, 7)]:
        out = tmp_path / f"at-{at}"
        InterruptedStore.count, InterruptedStore.at = 0, at
        InterruptedStore.other = staticmethod(lambda out=out: run(out, shard))
        run(out)
        assert contents(out) == expected
        assert (out / MANIFEST).exists()
        assert not (out / RUN).exists()
        assert not (out / "work").exists()
