"""Rows of a page about its artifacts: the settings and hosts of each stage."""

import json
from collections.abc import Mapping
from typing import Any

from kdnas.store.artifact import Artifact


def stage_row(name: str, artifact: Artifact) -> dict[str, Any]:
    """Name, folder, configuration and run data of one stage."""
    manifest = artifact.manifest
    return {
        "name": name,
        "path": str(artifact.path),
        "config": manifest.get("config"),
        **{key: manifest.get(key) for key in ("seconds", "attempts", "finished", "key")},
    }


def hosts(artifacts: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """The distinct host records, each with the stages that ran on that host and the commits of the source."""
    seen: dict[str, dict[str, Any]] = {}
    for name, artifact in artifacts.items():
        record = dict(artifact.manifest.get("host") or {})
        commit = record.pop("commit", None) or "not a checkout"
        row = seen.setdefault(json.dumps(record, sort_keys=True), {"record": record, "stages": [], "commits": {}})
        row["stages"].append(name)
        row["commits"].setdefault(commit, []).append(name)
    return list(seen.values())
