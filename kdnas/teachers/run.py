"""`kdnas teachers`: list the teachers that can be had without a model hub, and fetch them."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from kdnas.models.packaged import (
    HOME,
    PACKAGED,
    PackagedTeacher,
    fetch_command,
    packaged_folder,
    present_folder,
    require_packaged,
)
from kdnas.store.outcome import Outcome, Result
from kdnas.store.progress import say, say_table
from kdnas.teachers.fetch import fetch_teacher

ALL = "all"
PLAIN_WIDTH = 150  # columns if stderr is not a terminal


def teachers(fetch: str | None = None, home: Path = HOME) -> Result | list[Result]:
    """List the teachers that can be had without a model hub, or fetch them from Python packages.

    Args:
        fetch: name of the teacher to fetch, or `all`; null lists them as JSON.
        home: root folder of all artifacts; a fetched teacher is in `teachers/NAME` below it.

    Raises:
        UsageError: there is no teacher of this name.
        KdnasError: the teacher cannot be fetched.
    """
    if fetch is None:
        return _listed(home)
    if fetch == ALL:
        return [fetch_teacher(home, packaged) for packaged in PACKAGED.values() if packaged.form is not None]
    packaged = require_packaged(fetch)
    if packaged.form is None:
        folder = packaged_folder(packaged.spec, home)  # raises if it is not installed
        say(f"teachers: {packaged.name} is installed with kdnas; nothing to do")
        return Outcome(folder)
    return fetch_teacher(home, packaged)


def _listed(home: Path) -> Outcome:
    """The teachers as a table on stderr, and as JSON on stdout."""
    rows = [_row(packaged, home) for packaged in PACKAGED.values()]
    table = Table(box=None)
    for title in ("name", "model", "family", "layers x hidden", "languages", "licence", "download", "here"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*_cells(row))
    say_table(table, PLAIN_WIDTH)
    say("use one with --teacher builtin:NAME")
    return Outcome(None, {"teachers": rows}, text=json.dumps(rows))


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        row["model"].rpartition("/")[2],
        row["family"],
        f"{row['layers']} x {row['hidden']}",
        row["languages"][0] if len(row["languages"]) == 1 else f"{len(row['languages'])} languages",
        row["licence"],
        f"{row['download_mb']:,} MB" if row["download_mb"] else "installed",
        row["folder"] or "no",
    ]


def _row(packaged: PackagedTeacher, home: Path) -> dict[str, Any]:
    folder = present_folder(packaged, home)
    return {
        "name": packaged.name,
        "spec": packaged.spec,
        "model": packaged.model,
        "remark": packaged.remark,
        "family": packaged.family,
        "layers": packaged.layers,
        "hidden": packaged.hidden,
        "languages": list(packaged.languages),
        "licence": packaged.licence,
        "download_mb": round(packaged.download_bytes / 1e6),
        "folder": None if folder is None else str(folder),
        "fetch": None if packaged.form is None else fetch_command(home, packaged.name),
    }
