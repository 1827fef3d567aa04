"""From times to the result: one record a row, with ratios by round to a reference, and the front of score against time."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from kdnas.latency.peers.libraries import library_of
from kdnas.latency.peers.measure import Live, Times
from kdnas.latency.peers.rows import RIGHT
from kdnas.latency.peers.texts import MIX

FILE = "peers.csv"
OURS = "kdnas "  # start of the names of this project's rows
Record = dict[str, Any]


def reference_of(names: Sequence[str], forms: Sequence[str]) -> str:
    """The row that all ratios refer to: this project's fastest form, as the export ordered them, else PyTorch.

    Args:
        names: names of the rows.
        forms: forms of the export, the fastest within the bound of its loss first.
    """
    ours = [OURS + form for form in forms]
    return next((name for name in ours if name in names), RIGHT)


def records(
    live: Mapping[str, Live],
    rounds: Mapping[str, Mapping[int, Times]],
    reference: str,
    batches: Sequence[int],
    scores: Sequence[float] = (),
) -> list[Record]:
    """One record a row.

    Milliseconds are means over all inputs and rounds. A ratio is a row's mean over the reference's mean in the same round:
    above 1 the row is slower. Its median and its 5th and 95th percentile over the rounds are given.

    Args:
        live: the libraries by name.
        rounds: times by name and round.
        reference: name of the row that ratios refer to.
        batches: batch sizes of the throughput besides 1.
        scores: known similarity of each pair of sentences; empty without quality.
    """
    found = []
    for name, one in live.items():
        record: Record = {
            "name": name,
            "threads": one.row.job.threads,
            "settings": " ".join(f"{key}={value}" for key, value in one.row.job.choice.items()),
            "versions": " ".join(f"{package} {version}" for package, version in one.opened["versions"].items()),
            "same_model": library_of(one.row.library).SAME_MODEL,
            "cosine_least": one.agreement[0] if one.agreement else None,
            "cosine_mean": one.agreement[1] if one.agreement else None,
            "rounds": len(rounds[name]),
        }
        for workload in _single(rounds[name]):
            record |= _latency(rounds, name, reference, workload)
        record |= throughput(rounds[name], batches)
        record |= {"start_s": one.opened["start_s"], "memory_mb": one.memory_mb}
        record |= {"disk_mb": round(one.opened["bytes"] / 1e6, 2), "stsb_spearman": spearman(one.cosines, scores)}
        found.append(record)
    return found


def _single(rounds: Mapping[int, Times]) -> list[str]:
    """Names of the workloads with one input a call."""
    return [name for name in next(iter(rounds.values())) if " by " not in name]


def _latency(rounds: Mapping[str, Mapping[int, Times]], name: str, reference: str, workload: str) -> Record:
    """Mean milliseconds of a workload, and the ratios to the reference."""
    own, theirs = rounds[name], rounds[reference]
    key = column(workload)
    record: Record = {f"{key}_ms": round(float(np.mean([times[workload] for times in own.values()])), 4)}
    both = [number for number in own if number in theirs and workload in theirs[number]]
    if both:
        ratios = [np.mean(own[number][workload]) / np.mean(theirs[number][workload]) for number in both]
        low, middle, high = (round(float(value), 3) for value in np.percentile(ratios, [5, 50, 95]))
        record |= {f"{key}_ratio": middle, f"{key}_ratio_low": low, f"{key}_ratio_high": high}
    return record


def column(workload: str) -> str:
    """Start of a workload's columns: `text_mix`, `text_21`, `ids_21`."""
    return f"ids_{workload.removeprefix('ids-')}" if workload.startswith("ids-") else f"text_{workload}"


def throughput(rounds: Mapping[int, Times], batches: Sequence[int]) -> Record:
    """Sentences of the mix per second from text, at the batch size that is fastest over all rounds."""
    count = len(next(iter(rounds.values()))[MIX])
    seconds = {
        batch: float(np.mean([sum(times[MIX if batch == 1 else f"{MIX} by {batch}"]) for times in rounds.values()]))
        / 1000
        for batch in (1, *batches)
    }
    best = min(seconds, key=lambda batch: seconds[batch])
    return {"sentences_per_s": round(count / seconds[best], 1), "best_batch": best}


def spearman(cosines: Sequence[float], scores: Sequence[float]) -> float | None:
    """Spearman's correlation of cosines with known similarities, in percent; None if one is missing."""
    if not len(cosines) or len(cosines) != len(scores):
        return None
    from scipy.stats import spearmanr

    if not np.ptp(cosines) or not np.ptp(scores):
        return 0.0  # not defined for a constant
    return round(100 * float(spearmanr(cosines, scores).statistic), 2)


def front(found: Sequence[Record]) -> list[Record]:
    """The rows with a score that no row beats in both score and milliseconds of the mix, fastest first."""
    best: list[Record] = []
    scored = [record for record in found if record["stsb_spearman"] is not None]
    for record in sorted(scored, key=lambda one: (one["text_mix_ms"], -one["stsb_spearman"])):
        if not best or record["stsb_spearman"] > best[-1]["stsb_spearman"]:
            best.append(record)
    return best


def write_csv(file: Path, found: Sequence[Record]) -> None:
    """Write all records; a number that was not measured is an empty cell."""
    names = list(dict.fromkeys(name for record in found for name in record))
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, names, restval="")
        writer.writeheader()
        writer.writerows(found)


def table(found: Sequence[Record], reference: str) -> Table:
    """The main columns for a terminal."""
    shown = Table(title=f"from text, one at a time; ratios to {reference}, above 1 is slower", title_justify="left")
    shown.add_column("peer")
    for head in (
        "mix ms",
        "times as long",
        "21 tokens",
        "128 tokens",
        "texts/s (batch)",
        "start s",
        "MB",
        "disk MB",
        "STS-B",
    ):
        shown.add_column(head, justify="right")
    for record in found:
        shown.add_row(
            record["name"],
            f"{record['text_mix_ms']:.3f}",
            ratio_text(record, "text_mix"),
            ratio_text(record, "text_21"),
            ratio_text(record, "text_128"),
            f"{record['sentences_per_s']:.0f} ({record['best_batch']})",
            f"{record['start_s']:.1f}",
            "" if record["memory_mb"] is None else f"{record['memory_mb']:.0f}",
            f"{record['disk_mb']:.1f}",
            "" if record["stsb_spearman"] is None else f"{record['stsb_spearman']:.1f}",
        )
    return shown


def ratio_text(record: Record, key: str) -> str:
    """A ratio with its spread, as in `1.21 [1.10, 1.35]`; empty if it was not measured."""
    if record.get(f"{key}_ratio") is None:
        return ""
    return f"{record[f'{key}_ratio']:.2f} [{record[f'{key}_ratio_low']:.2f}, {record[f'{key}_ratio_high']:.2f}]"
