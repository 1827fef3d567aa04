"""Reuse of the samples of an earlier table with the same settings and another time budget."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdnas.store.artifact import ATTEMPTS, MANIFEST
from kdnas.store.json_files import to_json
from kdnas.store.progress import say

LOG = "samples.jsonl"
KEPT = ("check.jsonl", "roofline.json", LOG)  # the log last: a copy with it is complete


def take_samples(folder: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Copy the measurements of a table, finished or not, that differs from this one only by fewer minutes.

    Args:
        folder: working folder of this table, in the same parent as the others; unchanged if it has samples.
        config: configuration of this table.
        inputs: inputs of this table.
    """
    if (folder / LOG).exists():
        return
    wanted = without_minutes({"config": to_json(config), "inputs": dict(inputs)})
    minutes = float(config["options"].minutes)
    found = [
        (_lines(other / LOG), theirs, other)
        for other, settings in _tables(folder.parent)
        if other != folder
        and without_minutes(settings) == wanted
        and (theirs := float(settings["config"]["options"]["minutes"])) <= minutes
    ]
    count, theirs, other = max(found, default=(0, 0.0, folder))
    if not count:
        return
    for name in KEPT:
        if (other / name).is_file():
            shutil.copyfile(other / name, folder / name)
    say(f"latency-table: reuses {count} windows measured with --minutes {theirs:g}")


def without_minutes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration and inputs of a table without its time budget."""
    config = dict(settings["config"])
    config["options"] = {name: value for name, value in config["options"].items() if name != "minutes"}
    return {"config": config, "inputs": settings["inputs"]}


def _tables(parent: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders of tables with samples, and their configuration and inputs."""
    for log in sorted(parent.glob(f"*/{LOG}")):
        try:
            if (log.parent / MANIFEST).is_file():
                manifest = json.loads((log.parent / MANIFEST).read_text())
                settings = {"config": manifest["config"], "inputs": manifest["inputs"]}
            else:
                settings = json.loads((log.parent / ATTEMPTS).read_text().splitlines()[0])["settings"]
            settings["config"]["options"]["minutes"]
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            continue  # made by an earlier version, or killed while writing its first line
        yield log.parent, settings


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n")
