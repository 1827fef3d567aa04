"""What commands and the Python interface return: a path, results and an exit code; and what a command prints of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdnas.store.artifact import Artifact


@dataclass(frozen=True)
class Outcome:
    """The result of a command that is no artifact below the root of artifacts.

    Args:
        path: file or folder that was written; None where nothing was.
        results: numbers and names, as in the `results` of an artifact.
        exit_code: of the command: 0 done, 3 a gate or bound was not met, 4 done with quarantined records.
        text: what the command prints on stdout instead of the path.
    """

    path: Path | None
    results: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    text: str | None = None


Result = Artifact | Outcome


def stdout_text(result: Result | Sequence[Result]) -> str:
    """What a command prints last: the path, or of several results a JSON list of paths; empty for nothing."""
    if isinstance(result, Sequence):
        return json.dumps([str(one.path) for one in result])
    if isinstance(result, Outcome) and result.text is not None:
        return result.text
    return "" if result.path is None else str(result.path)


def exit_code_of(result: Result | Sequence[Result]) -> int:
    """The exit code of a command; of several results the highest."""
    return max((one.exit_code for one in result), default=0) if isinstance(result, Sequence) else result.exit_code
