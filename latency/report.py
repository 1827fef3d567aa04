"""The report of a latency table: one self-contained HTML page, made only from artifacts on disk."""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.latency import report_figures
from kdnas.latency.protocol import Lengths, interpolation
from kdnas.latency.roofline import Peaks, bounds_ms, reached_fractions
from kdnas.latency.validate import KIND as VALIDATION
from kdnas.latency.validate import kendall_tau
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import FILE, KIND, MEASURED, TableRow, read_rows
from kdnas.page.formatting import FILTERS
from kdnas.page.stages import hosts, stage_row
from kdnas.page.write import require_file_name, write_page
from kdnas.store.artifact import MANIFEST, Artifact
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say

FIRST_SHOWN = Arch(6, 12, 384, 1024, "gelu")  # initial depth, heads and activation of the heat map


def latency_report(table: Path, out: Path | None = None, home: Path = Path("artifacts")) -> Outcome:
    """Write the HTML report of a latency table, with its validations and the other tables of its teacher.

    Args:
        table: folder of a finished latency table.
        out: HTML file to write; null writes latency-report.html in the current folder.
        home: root of artifacts; its validations and other tables are included.
    """
    found = Artifact.load(table, KIND)
    return Outcome(report_of(found, out or Path("latency-report.html"), home), found.results)


def report_of(artifact: Artifact, page: Path, home: Path) -> Path:
    """Write the report of a table with its validations and its teacher's other tables below `home`."""
    validations = [found for found in neighbours(home, VALIDATION) if validates(found, artifact)]
    others = [
        found
        for found in neighbours(home, KIND)
        if found.digest != artifact.digest and found.manifest["inputs"].get("teacher") == teacher_of(artifact)
    ]
    return write_latency_report(artifact, page, validations, others)


def neighbours(home: Path, kind: str) -> list[Artifact]:
    """All finished artifacts of a kind; a damaged one is reported and left out."""
    found = []
    for manifest in sorted((home / kind).glob(f"*/{MANIFEST}")):
        try:
            found.append(Artifact.load(manifest.parent, kind))
        except UsageError as error:
            say(f"latency-report: left out: {error}")
    return found


def validates(validation: Artifact, table: Artifact) -> bool:
    """Whether a validation was made for this table."""
    return validation.manifest["kind"] == VALIDATION and validation.manifest["inputs"].get(KIND) == table.digest


def teacher_of(table: Artifact) -> str | None:
    """Digest of the table's teacher."""
    digest = table.manifest["inputs"].get("teacher")
    return None if digest is None else str(digest)


def write_latency_report(
    table: Artifact, page: Path, validations: Sequence[Artifact] = (), others: Sequence[Artifact] = ()
) -> Path:
    """Write one HTML file that needs no network; for a missing part the page states the command that makes it.

    Args:
        table: a latency table.
        page: file to write; an existing file is replaced.
        validations: validations of this table.
        others: tables to compare with; the page names those that cannot be read.

    Returns:
        The page.

    Raises:
        UsageError: `page` is a folder, the table is damaged, or a validation is of another table.
    """
    require_file_name(page, "latency-report.html")
    if table.manifest["kind"] != KIND:
        raise UsageError(f"{table.path}: a '{table.manifest['kind']}' artifact; a latency table is needed")
    for validation in validations:
        if not validates(validation, table):
            raise UsageError(
                f"{validation.path}: not a validation of {table.path}; give validations that have it as input"
            )
    write_page(page, "kdnas.latency", context(table, validations, others))
    return page


def context(table: Artifact, validations: Sequence[Artifact], others: Sequence[Artifact]) -> dict[str, Any]:
    """The values of the page template."""
    rows = read_rows(table.path / FILE)
    best = max(validations, key=lambda found: (found.results["sentences"], found.manifest["finished"]), default=None)
    peaks, fractions, no_limit = limit(table, rows)
    compared, left_out = compare(table, rows, others)
    front = report_figures.pareto(rows)
    drawn = {
        "size": report_figures.size_scatter(rows, table.results),
        "heat": report_figures.heat_map(rows, FIRST_SHOWN.layers, FIRST_SHOWN.heads, FIRST_SHOWN.activation),
        "front": report_figures.front_scatter(rows, front),
    }
    if best is not None:
        points = validation_points(best.path / "validation.csv")
        drawn["errors"] = report_figures.error_scatter(points, float(best.results["bound_pct"]))
    if compared:
        tables = {row["name"]: row["rows"] for row in compared}
        drawn["engines"] = report_figures.engine_scatter(rows, tables, str(table.results["engine"]))
    if fractions is not None:
        drawn["limit"] = report_figures.limit_scatter(rows, fractions.tolist())
    artifacts = {"latency-table": table} | {f"validation {n}": found for n, found in enumerate(validations, 1)}
    return {
        "t": table.results,
        "bound": best.results if best is not None else None,
        "validations": [found.results for found in validations],
        "validate_command": validate_command(table),
        "figures": {name: json.loads(figure.to_json()) for name, figure in drawn.items()},
        "heat": heat_values(rows),
        "fastest": min(rows, key=lambda row: row.latency_ms),
        "slowest": max(rows, key=lambda row: row.latency_ms),
        "front": front,
        "compared": compared,
        "left_out": left_out,
        "peaks": peaks,
        "no_limit": no_limit,
        "reached": None if fractions is None else fraction_statistics(rows, fractions),
        "cpu": (table.manifest.get("host") or {}).get("cpu"),
        "hosts": hosts(artifacts),
        "stages": [stage_row(name, artifact) for name, artifact in artifacts.items()],
    }


def validation_points(file: Path) -> list[dict[str, Any]]:
    """Rows of validation.csv.

    Raises:
        UsageError: the file is missing, empty or damaged.
    """
    names = ("exhaustive_ms", "table_ms", "error_pct")
    try:
        with file.open(newline="") as lines:
            points = [
                {"arch": Arch.parse(row["arch"]).name, **{name: float(row[name]) for name in names}}
                for row in csv.DictReader(lines)
            ]
        if not points:
            raise ValueError("no rows")
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise UsageError(f"{file}: cannot read it ({error}); remove {file.parent} and validate again") from error
    return points


def validate_command(table: Artifact) -> str:
    """The command that validates this table, without teacher and corpus: a manifest holds only their digests."""
    options = table.manifest["config"].get("options") or {}
    words = ["kdnas", "latency-table"]
    for name in ("engine", "minutes", "threads", "seed", "tolerance", "max_architectures"):
        if options.get(name) is not None:
            words += [f"--{name}", shlex.quote(f"{options[name]}")]
    return " ".join([*words, "--validate", "true"])


def heat_values(rows: Sequence[TableRow]) -> dict[str, Any]:
    """Latencies of all 2400 architectures in order of id, ids of the measured ones, and the menus of the heat map."""
    space = SearchSpace()
    menus = {
        name: [{"value": value, "first": value == getattr(FIRST_SHOWN, name)} for value in getattr(space, name)]
        for name in ("layers", "heads", "activation")
    }
    return {
        "menus": menus,
        "values": {
            "latency_ms": report_figures.rounded([row.latency_ms for row in rows]),
            "measured": [row.id for row in rows if row.source == MEASURED],
            "sizes": [len(getattr(space, name)) for name in ("layers", "heads", "hidden", "ffn", "activation")],
        },
    }


def compare(
    table: Artifact, rows: Sequence[TableRow], others: Sequence[Artifact]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Each other table with its rows and the Kendall tau of the two rankings; and the errors of unreadable tables."""
    compared: list[dict[str, Any]] = []
    left_out = []
    here = [row.latency_ms for row in rows]
    for other in others:
        try:
            found = read_rows(other.path / FILE)
        except UsageError as error:
            left_out.append(str(error))
            continue
        results, cpu = other.results, (other.manifest.get("host") or {}).get("cpu")
        name = f"{results['engine']}, {FILTERS['threads'](results.get('threads'))}"
        if cpu != (table.manifest.get("host") or {}).get("cpu"):
            name += f", {cpu}"
        if name in [row["name"] for row in compared]:
            name += f", {other.path.name}"
        tau = kendall_tau(here, [row.latency_ms for row in found])
        compared.append({"name": name, "rows": found, "results": results, "tau": tau, "path": str(other.path)})
    return compared, left_out


def limit(table: Artifact, rows: Sequence[TableRow]) -> tuple[Peaks | None, np.ndarray | None, str]:
    """The table's peaks and the fraction (N,) of the physical limit that each row reaches; or the reason for their absence."""
    record = table.results.get("roofline")
    if not record:
        return None, None, "it has no peaks of its host"
    try:
        peaks = Peaks.from_record(record)
        bounds = bounds_ms([row.arch for row in rows], read_lengths(table.path / "lengths.json"), peaks)
    except UsageError as error:
        return None, None, str(error)
    return peaks, reached_fractions(bounds, np.array([row.latency_ms for row in rows])), ""


def read_lengths(file: Path) -> Lengths:
    """The sentence lengths of a table.

    Raises:
        UsageError: the file is missing or damaged.
    """
    try:
        record: Mapping[str, Any] = json.loads(file.read_text())
        values, counts, strata = (np.array(record[name], dtype=np.int64) for name in ("values", "counts", "strata"))
        return Lengths(values, counts, strata, interpolation(values, strata))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(f"{file}: cannot read it ({error}); remove {file.parent} and build it again") from error


def fraction_statistics(rows: Sequence[TableRow], fractions: np.ndarray) -> dict[str, Any]:
    """Statistics of fractions (N,) of the limit: median, best and worst, and the number above 1."""
    return {
        "median": float(np.median(fractions)),
        "best": float(fractions.max()),
        "best_arch": rows[int(fractions.argmax())].arch.name,
        "worst": float(fractions.min()),
        "worst_arch": rows[int(fractions.argmin())].arch.name,
        "above": int((fractions > 1).sum()),
    }
