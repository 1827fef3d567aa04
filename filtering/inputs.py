"""Input files of a filter run: local paths and URLs, folders and globs; each with its kind, size and stamp."""

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from kdnas.errors import KdnasError, UsageError
from kdnas.filtering.remote import filesystem, is_url, named_errors

KINDS = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".txt": "txt", ".parquet": "parquet"}
KNOWN = ".jsonl or .txt (plain, .gz or .zst) or .parquet"
STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated")


@dataclass(frozen=True)
class InputFile:
    """One file of the input.

    Args:
        url: absolute path, or URL.
        kind: jsonl, txt or parquet.
        compression: gz, zst or empty.
        size: bytes of the file.
        stamp: changes when the file is written again: modification time or entity tag.
    """

    url: str
    kind: str
    compression: str
    size: int
    stamp: str

    @property
    def suffix(self) -> str:
        """Suffix of the output files of its documents."""
        return f".{self.kind}" + (f".{self.compression}" if self.compression else "")


def find_inputs(inputs: Iterable[str]) -> list[InputFile]:
    """All files that the inputs name, each once, in the order of the inputs; those of a folder are sorted by name.

    Args:
        inputs: files, folders (with the files of known kinds below them), globs; local or URLs such as `s3://bucket/folder`.

    Raises:
        UsageError: an input does not exist, has no file of a known kind, or its file type is unknown.
        KdnasError: a URL needs a package that is not installed, or its store cannot be reached.
    """
    found: dict[str, InputFile] = {}
    for name in inputs:
        for file in _remote(name) if is_url(name) else _local(name):
            found.setdefault(file.url, file)
    return list(found.values())


def kind_of(name: str) -> tuple[str, str] | None:
    """Kind and compression that a file name stands for; None if it is of no known kind."""
    lower = PurePosixPath(name).name.lower()
    compression = next((ending for ending in ("gz", "zst") if lower.endswith("." + ending)), "")
    kind = KINDS.get(PurePosixPath(lower.removesuffix("." + compression) if compression else lower).suffix)
    return None if kind is None or (kind == "parquet" and compression) else (kind, compression)


@contextmanager
def opened(file: InputFile) -> Iterator[BinaryIO]:
    """The file, open for reading; it must be as it was when the run was planned.

    Raises:
        KdnasError: the file is missing, cannot be read, or has changed since the run was planned.
    """
    now = describe(file.url)
    if (now.size, now.stamp) != (file.size, file.stamp):
        raise KdnasError(
            f"input '{file.url}': it has changed since this run was planned; filter it into another --output"
        )
    with named_errors(f"input '{file.url}'"):
        if is_url(file.url):
            system, path = _filesystem(file.url)
            with system.open(path, "rb") as stream:
                yield stream
        else:
            with open(file.url, "rb") as stream:
                yield stream


def describe(url: str) -> InputFile:
    """A file with its present size and stamp.

    Raises:
        UsageError: its type is unknown.
        KdnasError: it does not exist or cannot be read.
    """
    known = kind_of(url)
    if known is None:
        raise UsageError(f"input '{url}': unknown file type; give {KNOWN}, with one JSON object or one text per line")
    with named_errors(f"input '{url}'"):
        if not is_url(url):
            state = os.stat(url)
            return InputFile(url, *known, state.st_size, str(state.st_mtime_ns))
        system, path = _filesystem(url)
        return InputFile(url, *known, *_state(system.info(path)))


def _state(info: dict[str, Any]) -> tuple[int, str]:
    return int(info["size"] or 0), next((str(info[name]) for name in STAMPS if info.get(name)), "")


def _local(name: str) -> list[InputFile]:
    path = Path(name)
    if path.is_file():
        return [describe(os.path.abspath(path))]
    if path.is_dir():
        names = [os.path.join(root, one) for root, _, files in os.walk(path, followlinks=True) for one in files]
        return _listed(name, [os.path.abspath(one) for one in names if not _hidden(os.path.relpath(one, path))])
    names = [one for one in glob.glob(name, recursive=True) if os.path.isfile(one)] if glob.has_magic(name) else []
    if not names:
        raise UsageError(
            f"input '{name}': no such file or folder" + (", and no file matches" if glob.has_magic(name) else "")
        )
    return _listed(name, [os.path.abspath(one) for one in names])


def _listed(name: str, files: list[str]) -> list[InputFile]:
    known = sorted(file for file in files if kind_of(file))
    if not known:
        raise UsageError(f"input '{name}': none of its {len(files)} files is of a known type; give {KNOWN}")
    return [describe(file) for file in known]


def _hidden(path: str) -> bool:
    """Whether a path below a folder has a part that starts with `.` or `_`, like the files that Spark adds."""
    return any(part.startswith((".", "_")) for part in Path(path).parts)


def _filesystem(url: str) -> tuple[Any, str]:
    return filesystem(url, f"input '{url}'")


def _remote(name: str) -> list[InputFile]:
    with named_errors(f"input '{name}'"):
        system, path = _filesystem(name)
        if glob.has_magic(path):
            states = system.glob(path, detail=True)
        elif system.isfile(path):
            return [describe(name)]
        else:
            states = system.find(path, detail=True)
    states = {key: state for key, state in states.items() if state.get("type", "file") == "file"}
    if not states:
        raise UsageError(f"input '{name}': no such file, folder or bucket, or it is empty")
    base = path.rstrip("/").count("/") + 1
    names = sorted(
        key for key in states if kind_of(key) and (glob.has_magic(path) or not _hidden("/".join(key.split("/")[base:])))
    )
    if not names:
        raise UsageError(f"input '{name}': none of its {len(states)} files is of a known type; give {KNOWN}")
    return [_found(system.unstrip_protocol(key), states[key]) for key in names]


def _found(url: str, state: dict[str, Any]) -> InputFile:
    kind, compression = kind_of(url) or ("", "")
    return InputFile(url, kind, compression, *_state(state))
