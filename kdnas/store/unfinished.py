"""Unfinished artifacts with other settings. A new run does not resume them, so it reports how their settings differ."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdnas.store.progress import say

SHOWN = 5


def report_unfinished(partial: Path, attempts: str, settings: Mapping[str, Any]) -> None:
    """Report the unfinished artifacts of the same kind next to `partial`, and how their settings differ.

    Args:
        partial: working folder of the new artifact.
        attempts: name of the log in each working folder; its first line has the settings.
        settings: settings of the new artifact.
    """
    for other in sorted(partial.parent.glob("*.partial")):
        log = other / attempts
        if other == partial or not log.is_file():
            continue
        try:
            theirs = json.loads(log.read_text().splitlines()[0])["settings"]
        except (ValueError, KeyError, IndexError):
            continue  # from an earlier version, or killed while it wrote its first line
        if theirs.get("inputs") != settings["inputs"]:
            continue  # of another corpus or model: unrelated work
        found = differences(theirs, settings)
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        say(
            f"{other}: unfinished, with other settings: {', '.join(found[:SHOWN])}{more}; it is kept; to resume it, run "
            "with its settings"
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
    """Flatten nested settings to dotted names."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result
