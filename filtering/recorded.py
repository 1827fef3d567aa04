"""`kdnas filter apply`: split a corpus again from recorded scores, without the model."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
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
from kdnas.filtering.opening import is_finished, open_run, output_errors, require_output, run_config
from kdnas.filtering.options import DecisionOptions, FilterOptions
from kdnas.filtering.plan import BLOCK_UNITS, Unit, block_name, blocks_of, read_block
from kdnas.filtering.reading import Chunk
from kdnas.filtering.run import run_units
from kdnas.filtering.scoring import ScoredChunk
from kdnas.filtering.units import Scoring
from kdnas.store.artifact import locked
from kdnas.store.outcome import Outcome

READ = ("column", "id_column", "language_column", "unit_mb")  # settings with which the corpus was read


def filter_apply(run: Path, output: Path, options: DecisionOptions = DecisionOptions()) -> Outcome:
    """Split a corpus by the scores that `kdnas filter --mode annotate` recorded, without the model.

    The result is that of a new run with the same threshold. The corpus is read again from where it was.

    Args:
        run: output folder of a finished run with `--mode annotate`.
        output: folder for the result: a new one, or one from an earlier run of the same command.
        options: how the scores of sentences decide about a document.

    Returns:
        The folder and the counts; exit code 4 if too many records were quarantined.
    """
    with output_errors(output):
        earlier = run_config(run)
        if earlier["mode"] != "annotate" or not is_finished(run):
            raise UsageError(
                f"run '{run}': recorded scores are needed; give a finished run of `kdnas filter --mode annotate`"
            )
        require_output(output)
        policy = _policy(earlier, run, options)
        gated = uses_gate(run, earlier, policy)
        reading = FilterOptions(**{name: earlier[name] for name in READ})
        config = earlier | {
            "mode": "split", "labels": list(policy.labels), "threshold": list(policy.thresholds),
            "document_score": policy.document_score, "sentence_threshold": policy.sentence_threshold,
            "scores": str(run.resolve()),
        }  # fmt: skip
        if not gated:
            config |= GateOptions().config()
        folder = open_run(output, config, lambda: _units(run))
        source, columns = RunFolder(run, earlier["labels"]), [earlier["labels"].index(one) for one in policy.labels]
        if not is_finished(output):
            with locked(output / "filter.lock"):
                counted = policy if gated else None
                scoring = Scoring(lambda unit, chunks: recorded(source, unit, chunks, columns, counted))
                run_units(folder, scoring, policy, reading)
        return finish(folder, config)


def _policy(earlier: dict[str, Any], run: Path, options: DecisionOptions) -> Policy:
    labels = list(options.label or earlier["labels"])
    for label in labels:
        if label not in earlier["labels"]:
            raise UsageError(
                f"label '{label}': run '{run}' has no scores for it; it has {', '.join(earlier['labels'])}"
            )
    return Policy(tuple(labels), tuple(options.thresholds(labels)), options.document_score, options.sentence_threshold)


def uses_gate(run: Path, earlier: dict[str, Any], policy: Policy) -> bool:
    """Whether a run used a gate, so that sentences that passed it have no scores.

    Raises:
        UsageError: sentences that passed the gate could decide about documents.
    """
    record = read_gate_record(run)
    if record is None or not record["used"]:
        return False
    again = "or score the corpus with --mode annotate and without --gate.use"
    if policy.document_score == "mean":
        raise UsageError(
            f"run '{run}': sentences that passed its gate have no scores; give --document-score max or fraction, {again}"
        )
    fraction = earlier["document_score"] == "fraction"
    for label, level in zip(policy.labels, policy.sentence_levels.tolist(), strict=True):
        least = earlier["sentence_threshold"] if fraction else earlier["threshold"][earlier["labels"].index(label)]
        if level < least:
            name = "sentence_threshold" if policy.document_score == "fraction" else "threshold"
            raise UsageError(
                f"{name} {level:g} for label '{label}': the gate of run '{run}' let sentences pass that are below {least:g}; "
                f"give at least {least:g}, {again}"
            )
    return True


def _units(run: Path) -> Iterator[Unit]:
    for block in blocks_of(run / "plan"):
        yield from read_block(run / "plan", block)


def recorded(
    source: RunFolder, unit: Unit, chunks: Iterable[Chunk], columns: list[int], counted: Policy | None = None
) -> Iterator[ScoredChunk]:
    """The chunks of a unit with the scores of its side-car.

    Args:
        source: run with the scores.
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
            rows = _rows(source.path / sidecar(unit.number, piece))
        scored = []
        for document in chunk.documents:
            row = next(rows, None)
            if row is None or row["id"] != document.name or ("problem" in row) != (document.text is None):
                raise KdnasError(
                    f"'{source.path / sidecar(unit.number, piece)}': it does not fit '{document.name}'; filter again"
                )
            scored.append(None if document.text is None else _scored(row, columns))
        yield ScoredChunk(chunk, scored, gate=_gate_counts(chunk, scored, counted) if counted else {})


def sidecar(unit: int, piece: int) -> str:
    """Path of a piece's scores in the folder of a run."""
    return f"scores/{block_name(unit // BLOCK_UNITS)}/part-{unit:07d}-{piece:05d}.jsonl.zst"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with zstandard.open(path, "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                yield json.loads(line)
    except FileNotFoundError as error:
        raise KdnasError(f"'{path}': the scores are missing; run `kdnas filter --mode annotate` again") from error


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
    return count_gate(
        [one.language for one in chunk.documents if one.text is not None],
        [len(one.spans) for one in known],
        audited | np.isnan(scores).any(axis=1),
        audited,
        policy.positive(scores),
    )
