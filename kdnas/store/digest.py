"""SHA-256 of JSON values and of files."""

import hashlib
import json
from pathlib import Path
from typing import Any

from kdnas.store.json_files import to_json


def digest_of(value: Any) -> str:
    """SHA-256 of the value's canonical JSON. 10 and 10.0 give the same digest, because YAML and Python defaults may differ."""
    return hashlib.sha256(json.dumps(_whole_floats_as_ints(to_json(value)), sort_keys=True).encode()).hexdigest()


def _whole_floats_as_ints(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_floats_as_ints(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_floats_as_ints(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
