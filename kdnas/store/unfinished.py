"""Unfinished artifacts of other settings: they are never gone on with, so whoever starts anew is told what differs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdnas.store.progress import say

SHOWN = 5


def report_unfinished(partial: Path, attempts: str, settings: Mapping[str, Any]) -> None:
    """Say which unfinished artifacts of the same kind are beside `partial`, and in what their settings differ.

    Args:
        partial: working folder of the artifact that is started.
        attempts: name of the log in each working folder whose first line holds the settings.
        settings: of the artifact that is started.
    """
    for other in sorted(partial.parent.glob("*.partial")):
        log = other / attempts
        if other == partial or not log.is_file():
            continue
        try:
            theirs = json.loads(log.read_text().splitlines()[0])["settings"]
        except (ValueError, KeyError, IndexError):
            continue  # of an earlier version, or killed while it wrote its first line
        if theirs.get("inputs") != settings["inputs"]:
            continue  # of another corpus or model: work of its own, of no concern here
        found = differences(theirs, settings)
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        say(
            f"{other}: unfinished, with other settings: {', '.join(found[:SHOWN])}{more}; it is kept, and goes on when it is "
            "given its own settings"
        )


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Settings that differ, as in `options.minutes 7 (here 10)`."""
    old, new = flat(theirs), flat(ours)
    return [
        f"{key} {old.get(key)} (here {new.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result
