"""The output folder of a filter run: shards written one by one, a journal, and a manifest at the end."""

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from kdnas.errors import UsageError
from kdnas.serving.documents import Document
from kdnas.store.artifact import (
    MANIFEST,
    SCHEMA,
    append_jsonl,
    fsync_folder,
    locked,
    now,
    read_jsonl,
    write_json,
    write_manifest,
)
from kdnas.store.host import host

KIND = "filter"
PLAN = "run.json"
JOURNAL = "progress.jsonl"
LOCK = "filter.lock"
FATES = ("kept", "dropped", "quarantine")
COUNTS = ("documents", *FATES, "windows", "tokens")
BINS = 20


@dataclass(frozen=True)
class FilteredDocument:
    """One document and the decision about it.

    Args:
        fate: kept, dropped or quarantine.
        line: the bytes to write, without the line end.
        score: P(label); None if the document could not be read.
        windows: number of windows scored.
    """

    fate: str
    line: bytes
    score: float | None = None
    windows: int = 0


class FilterRun:
    """A filter run in its output folder: new, unfinished or finished.

    Args:
        path: the folder.
        config: settings that determine the result.
        inputs: digest of each input by name.
        suffix: suffix of kept files, as in `.jsonl.gz`.
        finished: the manifest of a finished run.
    """

    def __init__(
        self,
        path: Path,
        config: dict[str, Any],
        inputs: dict[str, str],
        suffix: str,
        finished: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.config, self.inputs, self.suffix = path, config, inputs, suffix
        self._manifest = finished
        self._journal = read_jsonl(path / JOURNAL) if finished is None else []
        self._totals: dict[str, Any] = dict.fromkeys(COUNTS, 0) | {"seconds": 0.0, "scores": [0] * BINS}
        for row in self._journal:
            self._add(row)

    @property
    def finished(self) -> bool:
        return self._manifest is not None

    @property
    def lines(self) -> int:
        """Number of input lines that finished shards cover."""
        return int(self._journal[-1]["lines"]) if self._journal else 0

    @property
    def position(self) -> int:
        """Approximate number of input bytes that finished shards cover."""
        return int(self._journal[-1]["position"]) if self._journal else 0

    @property
    def totals(self) -> dict[str, Any]:
        """Counts of documents, fates, windows and tokens, seconds, and the histogram of the scores."""
        return self._totals if self._manifest is None else dict(self._manifest["results"])

    def write_shard(self, last: Document, documents: list[FilteredDocument], tokens: int, seconds: float) -> None:
        """Write the files of one shard, then its line in the journal; files without a line are removed on resuming."""
        number = len(self._journal)
        files = {}
        counts = {}
        for fate in FATES:
            lines = [document.line for document in documents if document.fate == fate]
            counts[fate] = len(lines)
            if lines:
                name, digest = self._write_part(fate, number, lines)
                files[name] = digest
        scores = [0] * BINS
        for document in documents:
            if document.score is not None:
                scores[min(int(document.score * BINS), BINS - 1)] += 1
        entry = {
            "shard": number,
            "lines": last.line,
            "position": last.position,
            "documents": len(documents),
            **counts,
            "windows": sum(document.windows for document in documents),
            "tokens": tokens,
            "seconds": round(seconds, 3),
            "scores": scores,
            "files": files,
        }
        append_jsonl(self.path / JOURNAL, entry)
        self._journal.append(entry)
        self._add(entry)

    def finish(self, origin: dict[str, Any]) -> None:
        """Write the manifest, then remove the files that only an unfinished run needs.

        Args:
            origin: paths and threads; they are recorded but do not determine the result.
        """
        manifest = {
            "schema": SCHEMA,
            "kind": KIND,
            "config": self.config,
            "inputs": self.inputs,
            "origin": origin,
            "results": self._totals | {"seconds": round(self._totals["seconds"], 3)},
            "host": host(),
            "finished": now(),
            "seconds": round(self._totals["seconds"], 1),
            "files": {name: digest for row in self._journal for name, digest in row["files"].items()},
        }
        write_manifest(self.path, manifest)
        for name in (JOURNAL, PLAN):
            (self.path / name).unlink()

    def remove_strays(self) -> None:
        """Delete files of an interrupted shard, which the journal does not list."""
        known = {name for row in self._journal for name in row["files"]}
        for fate in FATES:
            for file in (self.path / fate).glob("part-*"):
                if f"{fate}/{file.name}" not in known:
                    file.unlink()

    def _add(self, row: dict[str, Any]) -> None:
        for name in (*COUNTS, "seconds"):
            self._totals[name] += row[name]
        self._totals["scores"] = [a + b for a, b in zip(self._totals["scores"], row["scores"], strict=True)]

    def _write_part(self, fate: str, number: int, lines: list[bytes]) -> tuple[str, str]:
        """Write one file atomically; returns its name relative to the run's folder and its SHA-256."""
        suffix = self.suffix if fate == "kept" else self.suffix.replace(".txt", ".jsonl")
        file = self.path / fate / f"part-{number:05d}{suffix}"
        if not file.parent.is_dir():
            file.parent.mkdir()
            fsync_folder(self.path)
        data = compressed(b"\n".join(lines) + b"\n", suffix)
        temporary = file.with_name(file.name + ".partial")
        with temporary.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
        fsync_folder(file.parent)
        return f"{fate}/{file.name}", hashlib.sha256(data).hexdigest()


@contextmanager
def open_run(path: Path, config: dict[str, Any], inputs: dict[str, str], suffix: str) -> Iterator[FilterRun]:
    """Start a run in a new folder, or open the unfinished or finished run there; holds a lock meanwhile.

    Raises:
        UsageError: the folder has other content, or a run with another configuration, model or input.
        KdnasError: another process uses the folder.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"output '{path}': this is a file; give a folder")
    if (path / MANIFEST).is_file():
        yield FilterRun(path, config, inputs, suffix, _read_finished(path, config, inputs))
        return
    if path.is_dir() and not (path / PLAN).exists() and {file.name for file in path.iterdir()} - {LOCK, PLAN + ".tmp"}:
        raise UsageError(f"output '{path}': not empty, and not from `kdnas filter`; give a new folder")
    path.mkdir(parents=True, exist_ok=True)
    with locked(path / LOCK):
        if (path / MANIFEST).is_file():  # finished while this process waited
            yield FilterRun(path, config, inputs, suffix, _read_finished(path, config, inputs))
            return
        plan = {"schema": SCHEMA, "kind": KIND, "config": config, "inputs": inputs}
        if (path / PLAN).exists():
            _require_same(path, json.loads((path / PLAN).read_text()), config, inputs, "an unfinished run")
        else:
            write_json(path / PLAN, plan)
        run = FilterRun(path, config, inputs, suffix)
        run.remove_strays()
        yield run
        if (path / MANIFEST).is_file():
            (path / LOCK).unlink(missing_ok=True)


def compressed(data: bytes, suffix: str) -> bytes:
    """Compress data in the format of the suffix; the result is deterministic."""
    if suffix.endswith(".gz"):
        return gzip.compress(data, compresslevel=6, mtime=0)
    return zstandard.ZstdCompressor(level=3).compress(data) if suffix.endswith(".zst") else data


def flagged(document: Document, verdict: dict[str, Any], json_lines: bool) -> bytes:
    """The document as one JSON line with the verdict added under the key `kdnas`; all other bytes stay unchanged."""
    if not json_lines:
        return _json({"text": document.text, "kdnas": verdict})
    if b'"kdnas"' in document.raw:
        return _json(json.loads(document.raw) | {"kdnas": verdict})
    return document.raw.rstrip()[:-1] + b', "kdnas": ' + _json(verdict) + b"}"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


def _read_finished(path: Path, config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except ValueError as error:
        raise UsageError(f"output '{path}': its {MANIFEST} cannot be read ({error}); give a new folder") from error
    if manifest.get("kind") != KIND:
        raise UsageError(f"output '{path}': it contains a '{manifest.get('kind')}' artifact; give a new folder")
    _require_same(path, manifest, config, inputs, "the finished result of a run")
    return dict(manifest)


def _require_same(
    path: Path, recorded: dict[str, Any], config: dict[str, Any], inputs: dict[str, str], what: str
) -> None:
    """Raise UsageError if the folder's run had other settings, input or model."""
    given, found = config | inputs, recorded.get("config", {}) | recorded.get("inputs", {})
    changed = [name for name in given if given[name] != found.get(name)]
    if changed or recorded.get("schema") != SCHEMA:
        details = [
            f"{name}: {found.get(name)!r:.24} there, {given[name]!r:.24} now" if name in config else f"another {name}"
            for name in changed
        ]
        raise UsageError(
            f"output '{path}': it contains {what} with {'; '.join(details) or 'another schema'}; "
            "it is never overwritten: give a new folder, or the same settings"
        )
