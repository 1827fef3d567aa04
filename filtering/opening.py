"""Opens the output folder of a filter run: a new run is planned, and an existing one must have the same settings."""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdnas.errors import KdnasError, UsageError
from kdnas.filtering.commits import RUN, RunFolder, create_once
from kdnas.filtering.plan import Unit, write_plan
from kdnas.store.artifact import MANIFEST, SCHEMA

KIND = "filter"
OWN = {RUN, "plan", "commits", "work", "stdin.jsonl", "stdin.txt"}


def require_output(path: Path) -> None:
    """Check that a run may be written to the folder, before any work.

    Raises:
        UsageError: the folder is a file, or has other content than a filter run.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"output '{path}': this is a file; give a folder")
    if (path / MANIFEST).is_file():
        kind = _manifest(path).get("kind")
        if kind != KIND:
            raise UsageError(f"output '{path}': it contains a '{kind}' artifact; give a new folder")
    elif path.is_dir() and not (path / RUN).exists() and any(not _own(name) for name in os.listdir(path)):
        raise UsageError(f"output '{path}': not empty, and not from `kdnas filter`; give a new folder")


def _own(name: str) -> bool:
    return name in OWN or name.endswith((".tmp", ".lock")) or name.startswith("stdin.")


def open_run(path: Path, config: dict[str, Any], plan: Callable[[], Iterable[Unit]]) -> RunFolder:
    """The run in a folder, which is planned if it is new. Several processes may open it at the same time.

    Args:
        path: the folder.
        config: settings that determine the result.
        plan: makes the units of a new run.

    Raises:
        UsageError: the folder has a run with other settings, or other content.
    """
    require_output(path)
    if is_finished(path):
        _require_same(path, run_config(path), config, "the finished result of a run")
        return RunFolder(path, config["labels"])
    path.mkdir(parents=True, exist_ok=True)
    if not create_once(path / RUN, {"schema": SCHEMA, "config": config}):
        _require_same(path, run_config(path), config, "an unfinished run")
    if not (path / "plan").is_dir():
        write_plan(path / "plan", plan())
    return RunFolder(path, config["labels"])


def run_config(path: Path) -> dict[str, Any]:
    """The settings of a run, finished or not.

    Raises:
        UsageError: there is no run in the folder.
    """
    if (path / MANIFEST).is_file():
        return dict(_manifest(path).get("config", {}))
    try:
        return dict(json.loads((path / RUN).read_text())["config"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"'{path}': no run of `kdnas filter` is there; give its --output folder") from error


def is_finished(path: Path) -> bool:
    """Whether the folder has the manifest of a finished run."""
    return (path / MANIFEST).is_file()


def _manifest(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((path / MANIFEST).read_text()))
    except ValueError as error:
        raise UsageError(f"output '{path}': its {MANIFEST} cannot be read ({error}); give a new folder") from error


def _require_same(path: Path, found: dict[str, Any], given: dict[str, Any], what: str) -> None:
    changed = [name for name in given if given[name] != found.get(name)]
    if changed:
        details = [
            f"another {name}"
            if name == "model"
            else f"{name}: {_short(found.get(name))} there, {_short(given[name])} now"
            for name in changed
        ]
        raise UsageError(
            f"output '{path}': it contains {what} with {'; '.join(details)}; it is never overwritten: give a new folder, "
            "or the same settings"
        )


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))[:80]
    return str(value)[:80]


@contextmanager
def output_errors(output: Path) -> Iterator[None]:
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
