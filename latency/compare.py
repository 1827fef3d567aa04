"""`kdnas compare-latency`: test whether two latency tables differ beyond their error."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.latency.validate import kendall_tau
from kdnas.models.table import INTERVAL_SDS, KIND, MEASURED, LatencyTable, TableRow
from kdnas.store.artifact import Artifact
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say

LARGEST = 5
EXPECTED_FRACTION = 0.05  # fraction of |z| above 1.96 if tables differ only by normal errors
SMALLEST_SD = 1e-5  # the last digit of relative_sd in table.csv
# Two tests with a false-alarm rate of 2.5 % each, so at most 5 % together.
LEVEL_SDS, FRACTION_SDS = 2.2414, 1.96  # two-sided, one-sided
MEDIAN_SDS = 1.2533  # standard error of the median over that of the mean, for normal values


@dataclass(frozen=True)
class Difference:
    """One architecture in two tables.

    Args:
        arch: for example `4,12,576,768,gelu`.
        ratio: second latency over first.
        z: logarithm of the ratio over the combined standard deviation of the two rows.
    """

    arch: str
    ratio: float
    z: float


@dataclass(frozen=True)
class Comparison:
    """The comparison of two tables of the same architectures; ratios are second over first.

    Args:
        median_ratio: median of the ratios over all architectures.
        ratio_p5: 5th percentile of the ratios.
        ratio_p95: 95th percentile of the ratios.
        level_limit: largest |log median ratio| that the tables' errors explain.
        fraction_beyond: fraction of architectures with |z| > 1.96.
        fraction_beyond_levelled: the same after every ratio is divided by the median ratio.
        fraction_limit: largest fraction_beyond_levelled that the tables' errors explain.
        kendall_tau: tau-b of the two rankings by latency.
        differ: whether |log median_ratio| or fraction_beyond_levelled is beyond its limit.
        conclusion: the conclusion in words.
        largest: the architectures whose ratio is furthest from 1.
    """

    median_ratio: float
    ratio_p5: float
    ratio_p95: float
    level_limit: float
    fraction_beyond: float
    fraction_beyond_levelled: float
    fraction_limit: float
    kendall_tau: float
    differ: bool
    conclusion: str
    largest: tuple[Difference, ...]


def compare_latency(first: Path, second: Path, any_host: bool = False) -> Outcome:
    """Test whether two latency tables differ beyond their error, and print the comparison as JSON.

    Args:
        first: folder that `kdnas latency-table` printed.
        second: folder of another table; ratios are its latencies over those of the first.
        any_host: compare even if engine, threads, host, versions, teacher or sentence lengths differ.

    Raises:
        UsageError: a folder is not a latency table, or the tables were measured under different conditions.
    """
    tables = [Artifact.load(path, KIND) for path in (first, second)]
    rows = [LatencyTable.of(table).rows for table in tables]
    different = differences(tables[0], tables[1])
    if different and not any_host:
        raise UsageError(
            f"{first} and {second} were measured under different conditions: {'; '.join(different)}. Build both under "
            "equal conditions, or compare them anyway with --any_host true"
        )
    for line in different:
        say(f"conditions differ: {line}")
    teachers = [float(table.results.get("teacher_relative_sd", 0.0)) for table in tables]
    found = compare(rows[0], rows[1], math.hypot(*teachers))
    say(text(found))
    return Outcome(None, asdict(found), text=json.dumps(asdict(found)))


def differences(first: Artifact, second: Artifact) -> list[str]:
    """Conditions in which two tables differ, each as `name: first's and second's`; empty if all are equal."""
    ours, theirs = conditions(first), conditions(second)
    return [f"{name}: {_brief(ours[name])} and {_brief(theirs[name])}" for name in ours if ours[name] != theirs[name]]


def conditions(artifact: Artifact) -> dict[str, Any]:
    """The conditions that must be equal for two tables to be comparable."""
    config, results = artifact.manifest.get("config", {}), artifact.results
    host = config.get("host") or artifact.manifest.get("host", {})
    return {
        "engine": results.get("engine"),
        "threads": results.get("threads"),
        "host cpu": host.get("cpu"),
        "host cores": host.get("physical_cores"),
        "host flags": host.get("flags"),
        "versions": config.get("versions"),
        "teacher": artifact.manifest.get("inputs", {}).get("teacher"),
        "sentence lengths (lengths.json)": artifact.manifest.get("files", {}).get("lengths.json"),
    }


def _brief(value: Any) -> str:
    """A condition as short text, with digests cut."""
    if isinstance(value, dict):
        return " ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def compare(first: Sequence[TableRow], second: Sequence[TableRow], shared_sd: float = 0.0) -> Comparison:
    """Compare two tables of the same architectures.

    With d the log of second over first and s = hypot of both rows' relative_sd, z is d / s. Tables that differ only by
    independent normal errors of that size have a median d of about 0 and |z| > 1.96 in about 5 % of rows. For the sampling
    error of both, the number of independent rows is m, the smaller of the tables' counts of measured rows (at least 1): a
    predicted row is a function of the measured ones and adds no evidence. The tables differ if

    - |median d| > 2.2414 * hypot(1.2533 * median(s) / sqrt(m), shared_sd): the level, at the two-sided 2.5 % point; or
    - the fraction of |d - median d| / s > 1.96 exceeds 0.05 + 1.96 * sqrt(0.05 * 0.95 / m): single architectures,
      independent of the level, at the one-sided 2.5 % point,

    so the false-alarm rate is about 5 %. A plain limit of 5 % of rows with |z| > 1.96 would have a false-alarm rate of 50 %.

    Args:
        first: rows in order of id.
        second: rows of the same architectures.
        shared_sd: relative error of the ratio that all rows share and that more rows do not average out: hypot of the standard
            errors of the two tables' teachers.
    """
    logs = np.log([row.latency_ms for row in second]) - np.log([row.latency_ms for row in first])
    sds = np.hypot([row.relative_sd for row in first], [row.relative_sd for row in second])
    sds = np.maximum(sds, SMALLEST_SD)
    z, level = logs / sds, float(np.median(logs))
    independent = max(1, min(sum(row.source == MEASURED for row in rows) for rows in (first, second)))
    level_limit = LEVEL_SDS * float(np.hypot(MEDIAN_SDS * np.median(sds) / np.sqrt(independent), shared_sd))
    fraction_limit = EXPECTED_FRACTION + FRACTION_SDS * float(
        np.sqrt(EXPECTED_FRACTION * (1 - EXPECTED_FRACTION) / independent)
    )
    levelled = _fraction_beyond((logs - level) / sds)
    moved, scattered = abs(level) > level_limit, levelled > fraction_limit
    return Comparison(
        median_ratio=_ratio(level),
        ratio_p5=_ratio(np.quantile(logs, 0.05)),
        ratio_p95=_ratio(np.quantile(logs, 0.95)),
        level_limit=round(level_limit, 5),
        fraction_beyond=round(_fraction_beyond(z), 5),
        fraction_beyond_levelled=round(levelled, 5),
        fraction_limit=round(fraction_limit, 5),
        kendall_tau=kendall_tau([row.latency_ms for row in first], [row.latency_ms for row in second]),
        differ=moved or scattered,
        conclusion=conclusion(moved, scattered, float(np.exp(level))),
        largest=tuple(
            Difference(str(first[index].arch), _ratio(logs[index]), round(float(z[index]), 2))
            for index in np.argsort(-np.abs(logs), kind="stable")[:LARGEST]
        ),
    )


def _fraction_beyond(z: np.ndarray) -> float:
    return float(np.mean(np.abs(z) > INTERVAL_SDS))


def _ratio(log: float) -> float:
    return round(float(np.exp(log)), 5)


def conclusion(moved: bool, scattered: bool, median_ratio: float) -> str:
    """The conclusion in words.

    Args:
        moved: whether the level differs beyond its error.
        scattered: whether, with the level removed, more architectures differ than their errors explain.
        median_ratio: second over first.
    """
    if not moved and not scattered:
        return "no difference beyond their error"
    if not moved:
        return "they differ: single architectures differ beyond their error; the overall level does not"
    pace = f"{abs(median_ratio - 1):.1%} {'slower' if median_ratio > 1 else 'faster'}"
    if not scattered:
        return f"they differ: the second is {pace} throughout; otherwise they agree within their error"
    return f"they differ: the second is {pace} at the median, and single architectures differ beyond that"


def text(found: Comparison) -> str:
    """A comparison as text."""
    largest = [f"  {row.arch:<20} ratio {row.ratio:.3f}, {row.z:+.1f} standard deviations" for row in found.largest]
    low, high = _ratio(-found.level_limit), _ratio(found.level_limit)
    return "\n".join(
        [
            f"second over first: median {found.median_ratio:.4f} (their error explains {low:.4f} to {high:.4f}), "
            f"5th to 95th percentile {found.ratio_p5:.4f} to {found.ratio_p95:.4f}",
            f"{found.fraction_beyond:.1%} of architectures differ by more than {INTERVAL_SDS} standard deviations; with the "
            f"median ratio removed {found.fraction_beyond_levelled:.1%} (their error explains up to {found.fraction_limit:.1%})",
            f"Kendall tau between the rankings: {found.kendall_tau:.4f}",
            "largest differences:",
            *largest,
            found.conclusion,
        ]
    )
