"""Return value of commands and the Python interface: a path, results and an exit code; and the text that a command prints."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdnas.store.artifact import Artifact


@dataclass(frozen=True)
class Outcome:
    """The result of a command that is not an artifact.

    Args:
        path: file or folder that was written; None if nothing was written.
        results: numbers and names, like the `results` of an artifact.
        exit_code: exit code of the command: 0 done, 3 a gate or bound was not met, 4 done with quarantined records.
        text: text that the command prints on stdout instead of the path.
    """

    path: Path | None
    results: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    text: str | None = None


Result = Artifact | Outcome


def stdout_text(result: Result | Sequence[Result]) -> str:
    """The last line that a command prints: the path, a JSON list of paths for several results, or nothing."""
    if isinstance(result, Sequence):
        return json.dumps([str(one.path) for one in result])
    if isinstance(result, Outcome) and result.text is not None:
        return result.text
    return "" if result.path is None else str(result.path)


def exit_code_of(result: Result | Sequence[Result]) -> int:
    """The exit code of a command; the highest one if there are several results."""
    return max((one.exit_code for one in result), default=0) if isinstance(result, Sequence) else result.exit_code
