"""`kdnas filter apply`: split a corpus again from recorded scores, without the model."""

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import zstandard

from kdnas.errors import KdnasError, UsageError
from kdnas.filtering.audit import count_gate
from kdnas.filtering.commits import RunFolder
from kdnas.filtering.decision import Policy, Scored
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
from kdnas.filtering.run import run_units
from kdnas.filtering.scoring import ScoredChunk
from kdnas.filtering.store import Store
from kdnas.filtering.units import Scoring
from kdnas.store.outcome import Outcome

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
                counted = policy if gated else None
                scoring = Scoring(lambda unit, chunks: recorded(recording, unit, chunks, columns, counted))
                run_units(folder, scoring, policy, reading)
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


def recorded(
    source: Store, unit: Unit, chunks: Iterable[Chunk], columns: list[int], counted: Policy | None = None
) -> Iterator[ScoredChunk]:
    """The chunks of a unit with the scores of its side-car.

    Args:
        source: output of the run with the scores.
        unit: the unit.
        chunks: its chunks.
        columns: columns of the scores that are wanted.
        counted: count what a gate did, with the positive sentences of this policy.

    Raises:
        KdnasError: a side-car is missing, or does not belong to these documents.
    """
    piece = -1
    rows: Iterator[dict[str, Any]] = iter(())
    for chunk in chunks:
        if chunk.piece != piece:
            piece = chunk.piece
            rows = _rows(source, sidecar(unit.number, piece))
        scored = []
        for document in chunk.documents:
            row = next(rows, None)
            if row is None or row["id"] != document.name or ("problem" in row) != (document.text is None):
                raise KdnasError(
                    f"'{source.url}/{sidecar(unit.number, piece)}': it does not fit '{document.name}'; filter again"
                )
            scored.append(None if document.text is None else _scored(row, columns))
        yield ScoredChunk(chunk, scored, gate=_gate_counts(chunk, scored, counted) if counted else {})


def sidecar(unit: int, piece: int) -> str:
    """Name of a piece's scores in the output of a run."""
    return f"scores/{block_name(unit // BLOCK_UNITS)}/part-{unit:07d}-{piece:05d}.jsonl.zst"


def _rows(source: Store, name: str) -> Iterator[dict[str, Any]]:
    with named_errors(f"the scores in '{source.url}/{name}'"), source.open(name) as stream:
        for line in zstandard.open(stream, "rt", encoding="utf-8", newline="\n"):
            yield json.loads(line)


def _scored(row: dict[str, Any], columns: list[int]) -> Scored:
    sentences = row["sentences"]
    scores = np.array([[one[2 + column] for column in columns] for one in sentences], float).reshape(
        len(sentences), len(columns)
    )
    return Scored([(one[0], one[1]) for one in sentences], scores, row.get("audited", []))


def _gate_counts(chunk: Chunk, scored: list[Scored | None], policy: Policy) -> dict[str, list[int]]:
    known = [one for one in scored if one is not None]
    if not known:
        return {}
    scores = np.concatenate([one.scores for one in known])
    audited = np.concatenate([np.isin(np.arange(len(one.spans)), one.audited) for one in known])
    languages, counts = chunk.languages, [len(one.spans) for one in known]
    passed, positive = audited | np.isnan(scores).any(axis=1), policy.positive(scores, languages, counts)
    return count_gate(languages, counts, passed, audited, positive)
