"""JSON files that are replaced as a whole, and append-only logs of JSON lines; both survive kill -9 and power loss."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any


def to_json(value: Any) -> Any:
    """Dataclasses, enums, paths and tuples as plain JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def json_text(value: Any) -> str:
    """A value as the text of a JSON file."""
    return json.dumps(to_json(value), indent=2) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically and durably: a reader sees either the whole old file or the whole new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(json_text(value))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of an append-only log. An incomplete last line is removed from the file, so that the next append starts a new line."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines() if line.strip()]


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row and fsync it. Call `read_jsonl` once before the first append: it removes an incomplete last line."""
    with path.open("a") as file:
        file.write(json.dumps(to_json(row)) + "\n")
        file.flush()
        os.fsync(file.fileno())
