"""Opens the output of a filter run: a new run is planned, and an existing one must have the same settings."""

import errno
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kdnas.errors import KdnasError, UsageError
from kdnas.filtering.commits import RUN, RunFolder
from kdnas.filtering.plan import FOLDER, PLAN, Unit, read_plan, write_plan
from kdnas.filtering.store import Store, create_json
from kdnas.store.artifact import MANIFEST, SCHEMA

KIND = "filter"
OWN = {RUN, PLAN, FOLDER, "commits", "work"}


def require_output(store: Store) -> None:
    """Check that a run may be written to the output, before any work.

    Raises:
        UsageError: it is a file, or has other content than a filter run.
        StoreError: there is no access to it.
    """
    if not _is_run(store):
        store.require_usable()
        if not all(_own(name) for name in store.names()) and not _is_run(store):
            raise UsageError(f"output '{store.url}': not empty, and not from `kdnas filter`; give a new folder")


def _is_run(store: Store) -> bool:
    """Whether a run is there, finished or not; another process may start or finish it at the same time.

    Raises:
        UsageError: it is an artifact of another kind.
    """
    started = store.read(RUN) is not None  # before the manifest, which is written before this file is removed
    manifest = _manifest(store)
    if manifest is not None and manifest.get("kind") != KIND:
        raise UsageError(f"output '{store.url}': it contains a '{manifest.get('kind')}' artifact; give a new folder")
    return started or manifest is not None


def _own(name: str) -> bool:
    return name in OWN or name.endswith(".lock") or name.startswith(("stdin.", "probe-"))


def open_run(store: Store, config: dict[str, Any], plan: Callable[[], Iterable[Unit]]) -> RunFolder:
    """The run in an output that `require_output` has checked; it is planned if it is new. Several processes may open it at once.

    Args:
        store: the output.
        config: settings that determine the result.
        plan: makes the units of a new run.

    Raises:
        UsageError: there is a run with other settings.
    """
    created = not is_finished(store) and create_json(store, RUN, {"schema": SCHEMA, "config": config})
    finished = is_finished(store)
    if created and finished:  # another process has just finished the run
        store.remove(RUN)
    _require_same(store, run_config(store), config, "the finished result of a run" if finished else "an unfinished run")
    if not finished and read_plan(store) is None:
        write_plan(store, plan())
    return RunFolder(store, config["labels"])


def run_config(store: Store) -> dict[str, Any]:
    """The settings of a run, finished or not.

    Raises:
        UsageError: there is no run in the output.
    """
    try:
        started = store.read(RUN)  # before the manifest, which is written before this file is removed
        if (manifest := _manifest(store)) is not None:
            return dict(manifest.get("config", {}))
        return dict(json.loads(started or b"")["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"'{store.url}': no run of `kdnas filter` is there; give its --output folder") from error


def is_finished(store: Store) -> bool:
    """Whether the output has the manifest of a finished run."""
    return store.read(MANIFEST) is not None


def _manifest(store: Store) -> dict[str, Any] | None:
    """The manifest; None without one.

    Raises:
        UsageError: it cannot be read.
    """
    data = store.read(MANIFEST)
    try:
        return None if data is None else dict(json.loads(data))
    except ValueError as error:
        raise UsageError(f"output '{store.url}': its {MANIFEST} cannot be read ({error}); give a new folder") from error


def _require_same(store: Store, found: dict[str, Any], given: dict[str, Any], what: str) -> None:
    changed = [name for name in given if given[name] != found.get(name)]
    if changed:
        details = [
            f"another {name}"
            if name == "model"
            else f"{name}: {_short(found.get(name))} there, {_short(given[name])} now"
            for name in changed
        ]
        raise UsageError(
            f"output '{store.url}': it contains {what} with {'; '.join(details)}; it is never overwritten: give a new folder, "
            "or the same settings"
        )


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))[:80]
    return str(value)[:80]


@contextmanager
def output_errors(output: str) -> Iterator[None]:
    """Report a full disk or an unwritable folder with a clear message."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise KdnasError(
                f"output '{output}': no disk space left; free some, then run the same command again: it keeps the "
                "finished units"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EPERM):
            raise UsageError(
                f"output '{output}': cannot write there ({error.strerror}); give another folder"
            ) from error
        raise
