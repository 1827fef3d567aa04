"""Builds the gate of a run: the classifier scores a sample, one half teaches the gate, the other half sets its threshold."""

import math
from functools import partial
from typing import Any

import numpy as np

from kdnas.filtering.audit import is_beyond
from kdnas.filtering.bounds import positives_needed, threshold_rank
from kdnas.filtering.commits import RunFolder
from kdnas.filtering.decision import Policy
from kdnas.filtering.gate import GATE, Gate, gate_record, gate_scores, read_gate
from kdnas.filtering.gate_options import GateOptions
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.sample import Sample, draw_sample
from kdnas.filtering.scoring import Scorer
from kdnas.filtering.store import create_json
from kdnas.filtering.teach import targets, teach
from kdnas.filtering.units import Scoring
from kdnas.store.progress import say, stage

BLOCK_TEXTS = 4096  # sentences of the sample that are scored at once
LEAST_PASSED = 0.05  # a gate that lets a smaller fraction pass does not pay


def open_gate(
    folder: RunFolder, scorer: Scorer, policy: Policy, options: FilterOptions, settings: GateOptions
) -> Gate | None:
    """The gate of a run, which is built if the run has none; None without `gate.use`, or if no gate can hold the bound.

    Of several processes that open the run at the same time, one builds it where the output has locks, else each does; all use
    the one that was written first.

    Args:
        folder: the run's output, planned.
        scorer: the classifier.
        policy: decides about documents.
        options: how the corpus is read.
        settings: settings of the gate.

    Raises:
        KdnasError: the gate of the run has changed.
    """
    if not settings.use:
        return None
    store = folder.store
    if store.read(GATE) is None:
        with store.locked("gate.lock", wait=True):
            if store.read(GATE) is None:
                create_json(store, GATE, build_gate(folder, scorer, policy, options, settings))
    return read_gate(store)


def scoring_of(
    scorer: Scorer, policy: Policy, options: FilterOptions, settings: GateOptions, gate: Gate | None
) -> Scoring:
    """How units are scored with a gate, or without one."""
    plain = partial(scorer.scored_unit, policy, options, None)
    if gate is None:
        return Scoring(plain)
    is_beyond_miss = partial(is_beyond, miss=settings.miss, confidence=settings.confidence)
    return Scoring(partial(scorer.scored_unit, policy, options, gate), plain, is_beyond_miss)


def build_gate(
    folder: RunFolder, scorer: Scorer, policy: Policy, options: FilterOptions, settings: GateOptions
) -> dict[str, Any]:
    """The record of a new gate; it says why if there is none to use."""
    sample = draw_sample(folder.plan.units(), options, settings.sample, settings.seed)
    count = len(sample.texts)
    if sample.whole or count < 2:
        return _unused(
            {"sample": count}, f"the sample of {settings.sample} is not smaller than the corpus, {count} sentences"
        )
    scores = _scores(sample, scorer, policy, options)
    levels = policy.sentence_levels(sample.languages)
    record, weights = gate_of(sample.texts, scores, levels, policy.lowest_levels, settings)
    if weights is None:
        return _unused(record, record["reason"])
    percent = 100 * record["pass_fraction"]
    say(f"gate: {percent:.1f} % of the sample pass; {record['positives']} positive sentences set the threshold")
    return gate_record(record, weights)


def gate_of(
    texts: list[str], scores: np.ndarray, levels: np.ndarray, lowest: np.ndarray, settings: GateOptions
) -> tuple[dict[str, Any], np.ndarray | None]:
    """A gate from scored sentences in random order.

    Its bound holds both for the positive sentences and for all that reach the lowest level of any language: the gate does not
    know the language, and a recorded run may be split again with one threshold for all languages.

    Args:
        texts: N sentences.
        scores: (N, L) probabilities of the classifier.
        levels: (N, L) score from which each sentence is positive.
        lowest: (L,) lowest level of any language.
        settings: settings of the gate.

    Returns:
        How the gate was made, and its weights; None for the weights if it cannot be used, with the `reason`.
    """
    positive = np.asarray((scores[1::2] >= levels[1::2]).any(axis=1))
    count, needed = int(positive.sum()), positives_needed(settings.miss, settings.confidence)
    record: dict[str, Any] = {"used": True, "reason": "", "sample": len(texts), "positives": count, "needed": needed}
    rank = threshold_rank(count, settings.miss, settings.confidence)
    if not rank:
        wanted = 2 * needed * max(len(positive), 1) / max(count, 1)
        record["reason"] = (
            f"half of the sample has {count} positive sentences, and gate.miss {settings.miss:g} at gate.confidence "
            f"{settings.confidence:g} needs {needed}; a --gate.sample of about {math.ceil(wanted / 1000)}000 has as many"
        )
        return record, None
    weights = teach(texts[::2], targets(scores[::2], levels[::2]))
    held = gate_scores(weights, texts[1::2])
    reaching = held[(scores[1::2] >= lowest).any(axis=1)]
    lower = np.sort(reaching)[threshold_rank(len(reaching), settings.miss, settings.confidence) - 1]
    threshold = float(min(np.sort(held[positive])[rank - 1], lower))
    passed = float((held < threshold).mean())
    record |= {"rank": rank, "threshold": threshold, "pass_fraction": round(passed, 6)}
    record |= {"audit": settings.audit, "seed": settings.seed}
    if passed < LEAST_PASSED:
        record["reason"] = f"the gate would let only {100 * passed:.1f} % of the sentences pass"
        return record, None
    return record, weights


def _unused(record: dict[str, Any], reason: str) -> dict[str, Any]:
    say(f"gate: {reason}; the model scores every sentence")
    return gate_record(record | {"used": False, "reason": reason})


def _scores(sample: Sample, scorer: Scorer, policy: Policy, options: FilterOptions) -> np.ndarray:
    """The classifier's scores (N, L) of the sample."""
    found = []
    with stage("gate: score", len(sample.texts)) as progress:
        for first in range(0, len(sample.texts), BLOCK_TEXTS):
            part = sample.texts[first : first + BLOCK_TEXTS]
            found.append(scorer.text_scores(part, policy, options))
            progress.advance(len(part))
    return np.concatenate(found)
