"""A training stage from its plan to its results, inside an artifact's working folder."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from kdnas.distill.batches import TrainBatches
from kdnas.distill.checkpoint import Position, load_checkpoint, remove_checkpoints
from kdnas.distill.loop import make_optimizer, resolve_precision, train
from kdnas.distill.objective import Objective
from kdnas.distill.options import LoopOptions
from kdnas.distill.pairs import Pairs
from kdnas.distill.processes import broadcast, processes
from kdnas.distill.step_budget import extended_steps, planned_steps
from kdnas.distill.validation import sample_batches, validate
from kdnas.models.family import shape_of
from kdnas.models.student import arch_of
from kdnas.store.artifact import read_jsonl, write_json
from kdnas.text.corpus import Corpus
from kdnas.text.joining import read_joining

RESULTS = "results.json"  # written when all files are: what a run killed after that returns


def fit(
    folder: Path,
    objective: Objective,
    corpus: Corpus,
    options: LoopOptions,
    accelerator: Accelerator,
    title: str,
    tokenizer: Path,
) -> dict[str, Any]:
    """Plan, train (from the last checkpoint, if there is one), validate, and return the results for the manifest.

    Args:
        folder: working folder of the artifact.
        objective: what is minimised.
        corpus: sentences.
        options: how to train.
        accelerator: device and precision of the validation.
        title: name of the stage in the progress display.
        tokenizer: folder of the tokenizer that made the corpus' ids: it says how pairs are joined.
    """
    objective.student.train(options.dropout)
    index = (processes().process_index, processes().num_processes)
    batches = TrainBatches(corpus.train, corpus.pad_id, options, _pairs(objective, options, tokenizer), index)
    sizes = (options.validation_sentences, options.batch_tokens)
    held_out = sample_batches(corpus.validation, *sizes, corpus.pad_id, accelerator.device)
    check = partial(validate, objective, held_out, accelerator)
    start, first = time.monotonic(), processes().is_main_process
    steps: int | None = broadcast(planned_steps(folder, objective, batches, options, check) if first else None)
    optimizer = make_optimizer(objective, options.peak_lr, options.weight_decay, options.embedding_lr_factor)
    with processes().main_process_first():  # it removes damaged checkpoints
        position = load_checkpoint(folder, objective, optimizer) or Position()
    while steps is not None:
        position = train(objective, optimizer, batches, options, steps, folder, position, check, title)
        steps = broadcast(extended_steps(folder, options, position, time.monotonic() - start) if first else None)
    last = [row for row in read_jsonl(folder / "history.jsonl") if row["kind"] == "validation"][-1]
    student = objective.student
    return {
        "arch": str(arch_of(student.config)),
        "objective": objective.name,
        "steps": position.step,
        "tokens": position.tokens,
        "epochs": position.epoch + position.index / len(batches.epoch(position.epoch)),
        "tokens_per_second": round(position.tokens / position.seconds, 1),
        "precision": resolve_precision(options.precision),
        "validation_loss": last["validation_loss"],
        "explained_variance": last["explained_variance"],
        "explained_variance_layers": last["layers"],
        "parameters_millions": sum(parameter.numel() for parameter in student.parameters()) / 1e6,
    }


def _pairs(objective: Objective, options: LoopOptions, tokenizer: Path) -> Pairs | None:
    """How pairs are made; None where the options want none, so that no large tokenizer is read for nothing."""
    if not options.pair_fraction:
        return None
    return Pairs(read_joining(tokenizer), shape_of(objective.student.config).positions)


def finished(folder: Path) -> dict[str, Any] | None:
    """Figures of a run that was killed between its last file and its publication."""
    path = folder / RESULTS
    if not path.exists():
        return None
    remove_checkpoints(folder)
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def finish(folder: Path, results: dict[str, Any], save: Callable[[], None]) -> dict[str, Any]:
    """Let the first process save what was trained, keep the figures, and remove what only a continuation needs."""
    if processes().is_main_process:
        save()
        write_json(folder / RESULTS, results)
        remove_checkpoints(folder)
    return results
