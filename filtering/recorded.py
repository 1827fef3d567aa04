"""`kdnas filter apply`: split a corpus again from recorded scores, without the model."""

import io
import os
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import orjson
import zstandard

from kdnas.errors import KdnasError, UsageError
from kdnas.filtering.audit import count_gate
from kdnas.filtering.commits import RunFolder
from kdnas.filtering.decision import FIRST_SENTENCES, Policy, Scored
from kdnas.filtering.finish import finish
from kdnas.filtering.gate import read_gate_record
from kdnas.filtering.gate_options import GateOptions
from kdnas.filtering.open_store import open_store
from kdnas.filtering.opening import is_finished, open_run, output_errors, require_output, run_config
from kdnas.filtering.options import DecisionOptions, FilterOptions
from kdnas.filtering.plan import BLOCK_UNITS, Unit, block_name
from kdnas.filtering.policies import policy_config, recorded_policy
from kdnas.filtering.reading import Chunk
from kdnas.filtering.remote import is_url, named_errors
from kdnas.filtering.scoring import ScoredChunk
from kdnas.filtering.store import Store
from kdnas.filtering.units import Scoring
from kdnas.filtering.workers import Work, filter_one, run_in_processes
from kdnas.store.outcome import Outcome

READ_BYTES = 2**17
SENTENCES = b', "sentences": '  # the last key of a row
READ = ("column", "id_column", "language_column", "unit_mb")  # settings with which the corpus was read


def filter_apply(run: str, output: str, options: DecisionOptions = DecisionOptions()) -> Outcome:
    """Split a corpus by the scores that `kdnas filter --mode annotate` recorded, without the model.

    The result is that of a new run with the same threshold. The corpus is read again from where it was.

    Args:
        run: output of a finished run with `--mode annotate`, a folder or a URL.
        output: folder or URL for the result: a new one, or one from an earlier run of the same command.
        options: how the scores of sentences decide about a document.

    Returns:
        The folder and the counts; exit code 4 if too many records were quarantined.
    """
    with output_errors(output):
        recording, store = open_store(run), open_store(output)
        earlier = run_config(recording)
        if earlier["mode"] != "annotate" or not is_finished(recording):
            raise UsageError(
                f"run '{run}': recorded scores are needed; give a finished run of `kdnas filter --mode annotate`"
            )
        require_output(store)
        _require_labels(earlier, run, options)
        policy, origin = recorded_policy(earlier, options)
        gated = uses_gate(recording, earlier, policy)
        reading = FilterOptions(**{name: earlier[name] for name in READ})
        config = earlier | policy_config(policy, origin) | {"mode": "split"}
        config["scores"] = run if is_url(run) else os.path.realpath(run)
        if not gated:
            config |= GateOptions().config()
        source = RunFolder(recording, earlier["labels"])
        columns = [earlier["labels"].index(one) for one in policy.labels]
        folder = open_run(store, config, source.plan.units)
        if not is_finished(store):
            with store.locked("filter.lock"):
                sums = earlier["document_score"] == policy.document_score == "max" and not gated
                place = output if is_url(output) else os.path.realpath(output)
                run_in_processes(
                    folder, partial(_make_worker, config["scores"], place, policy, columns, sums, gated, reading)
                )
        return finish(folder, config)


def _require_labels(earlier: dict[str, Any], run: str, options: DecisionOptions) -> None:
    for label in options.label or ():
        if label not in earlier["labels"]:
            raise UsageError(
                f"label '{label}': run '{run}' has no scores for it; it has {', '.join(earlier['labels'])}"
            )


def uses_gate(run: Store, earlier: dict[str, Any], policy: Policy) -> bool:
    """Whether a run used a gate, so that sentences that passed it have no scores.

    Args:
        run: output of the run.
        earlier: its settings.
        policy: decides about documents now; its labels are among those of the run.

    Raises:
        UsageError: sentences that passed the gate could decide about documents.
    """
    record = read_gate_record(run)
    if record is None or not record["used"]:
        return False
    again = "or score the corpus with --mode annotate and without --gate.use"
    if policy.document_score == "mean":
        raise UsageError(
            f"run '{run.url}': sentences that passed its gate have no scores; give --document-score max or fraction, {again}"
        )
    decision = DecisionOptions(policy.labels, None, earlier["document_score"], earlier["sentence_threshold"])
    allowed = recorded_policy(earlier, decision)[0].lowest_levels.tolist()
    for label, level, least in zip(policy.labels, policy.lowest_levels.tolist(), allowed, strict=True):
        if level < least:
            name = "sentence_threshold" if policy.document_score == "fraction" else "threshold"
            raise UsageError(
                f"{name} {level:g} for label '{label}': the gate of run '{run.url}' let sentences pass that are below "
                f"{least:g}; give at least {least:g}, {again}"
            )
    return True


def _make_worker(
    run: str,
    output: str,
    policy: Policy,
    columns: list[int],
    sums: bool,
    gated: bool,
    reading: FilterOptions,
) -> Work:
    folder = RunFolder(open_store(output), list(policy.labels))
    scoring = Scoring(partial(recorded, open_store(run), policy, columns, sums, gated))
    return partial(filter_one, folder, scoring, policy, reading)


def recorded(
    source: Store, policy: Policy, columns: list[int], sums: bool, gated: bool, unit: Unit, chunks: Iterable[Chunk]
) -> Iterator[ScoredChunk]:
    """The chunks of a unit with the scores of its side-car.

    Args:
        source: output of the run with the scores.
        policy: decides about documents.
        columns: columns of its labels among the recorded scores.
        sums: the recorded scores of documents are those of the policy, so those of most sentences need not be read.
        gated: count what a gate did, with the positive sentences of the policy.
        unit: the unit.
        chunks: its chunks.

    Raises:
        KdnasError: a side-car is missing, or does not belong to these documents.
    """
    piece = -1
    rows: Iterator[tuple[dict[str, Any], bytes]] = iter(())
    for chunk in chunks:
        if chunk.piece != piece:
            piece = chunk.piece
            rows = _rows(source, sidecar(unit.number, piece))
        scored: list[Scored | None] = []
        for document in chunk.documents:
            row, sentences = next(rows, ({}, b""))
            if row.get("id") != document.name or ("problem" in row) != (document.text is None):
                raise KdnasError(
                    f"'{source.url}/{sidecar(unit.number, piece)}': it does not fit '{document.name}'; filter again"
                )
            if document.text is None:
                scored.append(None)
            elif sums:
                scored.append(_summed(row, sentences, policy, columns, document.language))
            else:
                scored.append(Scored([], _scores(sentences, columns), row.get("audited", [])))
        yield ScoredChunk(chunk, scored, gate=_gate_counts(chunk, scored, policy) if gated else {})


def sidecar(unit: int, piece: int) -> str:
    """Name of a piece's scores in the output of a run."""
    return f"scores/{block_name(unit // BLOCK_UNITS)}/part-{unit:07d}-{piece:05d}.jsonl.zst"


def _rows(source: Store, name: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each row without its sentences, and these as JSON."""
    with named_errors(f"the scores in '{source.url}/{name}'"), source.open(name) as stream:
        for line in io.BufferedReader(zstandard.open(stream, "rb"), READ_BYTES):
            row, _, sentences = line.rstrip(b"\n").rpartition(SENTENCES)
            yield (orjson.loads(row + b"}"), sentences[:-1]) if row else (orjson.loads(line), b"[]")


def _scores(sentences: bytes, columns: list[int]) -> np.ndarray:
    """(S, L) scores of sentences; NaN for those without a score."""
    rows = orjson.loads(sentences)  # start, end, score of each recorded label
    return np.array(rows, float)[:, [2 + column for column in columns]] if rows else np.zeros((0, len(columns)))


def _summed(row: dict[str, Any], sentences: bytes, policy: Policy, columns: list[int], language: str) -> Scored:
    """The scores of as few sentences as give the same verdict on a document as all of them, by the maximum of all."""
    whole = np.array([[row["scores"][label] for label in policy.labels]])
    if not policy.reached(whole[0], language):
        return Scored([], whole)
    if sentences.count(b"]") > FIRST_SENTENCES + 1:
        sentences = b"]".join(sentences.split(b"]", FIRST_SENTENCES)[:FIRST_SENTENCES]) + b"]]"
    return Scored([], np.concatenate([_scores(sentences, columns), whole]))


def _gate_counts(chunk: Chunk, scored: list[Scored | None], policy: Policy) -> dict[str, list[int]]:
    known = [one for one in scored if one is not None]
    if not known:
        return {}
    scores = np.concatenate([one.scores for one in known])
    audited = np.concatenate([np.isin(np.arange(len(one.scores)), one.audited) for one in known])
    languages, counts = chunk.languages, [len(one.scores) for one in known]
    passed, positive = audited | np.isnan(scores).any(axis=1), policy.positive(scores, languages, counts)
    return count_gate(languages, counts, passed, audited, positive)
