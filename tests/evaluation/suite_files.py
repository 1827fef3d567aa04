"""Small local files of the suites."""

import gzip
import json
from pathlib import Path
from typing import Any

from kdnas.evaluation.spec import Spec
from kdnas.evaluation.suites import SPECS


def spec(name: str) -> Spec:
    """The task with this name."""
    return next(one for one in SPECS if one.name == name)


def write(root: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines, compressed if the name ends in .gz."""
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    content = "\n".join(map(json.dumps, rows)).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
