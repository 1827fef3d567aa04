"""Counts of a filter run. They add up over pieces, units and blocks in any order."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from kdnas.filtering.audit import NO_COUNTS, added_counts
from kdnas.filtering.decision import Policy, Verdict
from kdnas.filtering.reading import Document

COUNTS = ("documents", "kept", "dropped", "quarantine", "sentences", "tokens", "bytes", "seconds")
AGAIN = "units_again"  # units that were scored again without the gate; runs of earlier versions do not have it
BINS = 100
SAMPLES = 30
SAMPLE_CHARACTERS = 300
MOST_NAMES = 200  # languages or reasons that are counted by name; the others are counted together
OTHER = "other"


def no_totals(labels: Iterable[str]) -> dict[str, Any]:
    """The totals of nothing."""
    histogram = {label: [0] * BINS for label in labels}
    return dict.fromkeys(COUNTS, 0) | {
        "scores": histogram, "drops": {}, "problems": {}, "languages": {}, "samples": [], "gate": {}, AGAIN: 0,
    }  # fmt: skip


def add_document(totals: dict[str, Any], document: Document, verdict: Verdict, policy: Policy) -> None:
    """Count one document."""
    totals["documents"] += document.rows
    totals[verdict.fate] += document.rows
    if verdict.fate == "quarantine":
        _count(totals["problems"], document.problem.partition(":")[0].partition(";")[0], document.rows)
        return
    for label, score in zip(policy.labels, verdict.scores, strict=True):
        totals["scores"][label][min(int(score * BINS), BINS - 1)] += 1
    dropped = verdict.fate == "dropped"
    language = totals["languages"].setdefault(_name(totals["languages"], document.language), [0, 0])
    language[0] += 1
    language[1] += dropped
    if dropped:
        _count(totals["drops"], verdict.label, 1)
        key = blake2b(f"{document.file}:{document.position}".encode(), digest_size=8).hexdigest()
        samples = totals["samples"]
        if len(samples) < SAMPLES or key < samples[-1]["key"]:
            text = (document.text or "")[:SAMPLE_CHARACTERS]
            samples.append({"key": key, "name": document.name, "text": text, **verdict.record})
            totals["samples"] = _smallest(samples)


def add_gate(totals: dict[str, Any], counts: Mapping[str, Iterable[int]]) -> None:
    """Count what the gate did, by language."""
    for language, row in counts.items():
        name = _name(totals["gate"], language)
        totals["gate"][name] = added_counts(totals["gate"].get(name, NO_COUNTS), row)


def added(parts: Iterable[dict[str, Any]], labels: Iterable[str]) -> dict[str, Any]:
    """The sum of totals. The sample of drops is the same for each order of the parts."""
    whole = no_totals(labels)
    for part in parts:
        for name in COUNTS:
            whole[name] += part[name]
        for label, counts in part["scores"].items():
            whole["scores"][label] = [a + b for a, b in zip(whole["scores"][label], counts, strict=True)]
        for name in ("drops", "problems"):
            for key, count in part[name].items():
                _count(whole[name], key, count)
        for key, (documents, dropped) in part["languages"].items():
            row = whole["languages"].setdefault(_name(whole["languages"], key), [0, 0])
            row[0] += documents
            row[1] += dropped
        add_gate(whole, part.get("gate", {}))
        whole[AGAIN] += part.get(AGAIN, 0)
        whole["samples"] = _smallest([*whole["samples"], *part["samples"]])
    return whole


def _smallest(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(samples, key=lambda sample: sample["key"])[:SAMPLES]


def _name(counts: dict[str, Any], key: str) -> str:
    return key if key in counts or len(counts) < MOST_NAMES else OTHER


def _count(counts: dict[str, int], key: str, number: int) -> None:
    name = _name(counts, key)
    counts[name] = counts.get(name, 0) + number
