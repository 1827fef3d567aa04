"""A training stage from its plan to its results, inside an artifact's working folder."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch.optim import AdamW

from kdnas.distill.batches import Batch, TrainBatches
from kdnas.distill.checkpoint import Position, load_checkpoint, remove_checkpoints
from kdnas.distill.cut_table import cut_table, restore_table
from kdnas.distill.loop import make_optimizer, resolve_precision, training
from kdnas.distill.objective import Objective
from kdnas.distill.options import LoopOptions
from kdnas.distill.pairs import Pairs
from kdnas.distill.processes import broadcast, processes
from kdnas.distill.step_budget import extended_steps, planned_steps
from kdnas.distill.turns import TrainingLoop, run_alone
from kdnas.distill.validation import sample_batches, validate
from kdnas.models.family import shape_of
from kdnas.models.student import arch_of
from kdnas.store.json_files import read_jsonl, write_json
from kdnas.text.corpus import Corpus
from kdnas.text.joining import read_joining
from kdnas.text.sentences import draws_of

RESULTS = "results.json"  # written after all other files; a run that is killed afterwards resumes with these results


@dataclass
class Fitting:
    """A training stage that is ready to train: its objective and data, and the state that it starts from.

    Args:
        folder: working folder of the artifact.
        objective: objective to minimise.
        corpus: tokenised sentences.
        options: training options.
        accelerator: device and precision of the validation.
        title: name of the stage in the progress display.
        batches: batches of the training split.
        held_out: batches of the validation.
        optimizer: optimizer of the objective.
        position: state of the training; it advances with it.
        steps: planned number of updates.
        begun: when the stage began, by `time.monotonic`.
        embedding_rows: number of trained rows of the word embeddings; None if all are trained.
    """

    folder: Path
    objective: Objective
    corpus: Corpus
    options: LoopOptions
    accelerator: Accelerator
    title: str
    batches: TrainBatches
    held_out: list[Batch]
    optimizer: AdamW
    position: Position
    steps: int
    begun: float
    embedding_rows: int | None

    def loop(self) -> TrainingLoop:
        """The training loop, from the position to the planned number of updates."""
        return training(
            self.objective,
            self.optimizer,
            self.batches,
            self.options,
            self.steps,
            self.folder,
            self.position,
            self.title,
        )


def prepare(
    folder: Path,
    objective: Objective,
    corpus: Corpus,
    options: LoopOptions,
    accelerator: Accelerator,
    title: str,
    tokenizer: Path,
    table_ids: np.ndarray | None = None,
    partners: np.ndarray | None = None,
) -> Fitting:
    """Plan the number of updates, and restore the state of an interrupted run.

    Args:
        folder: working folder of the artifact.
        objective: objective to minimise.
        corpus: tokenised sentences.
        options: training options.
        accelerator: device and precision of the validation.
        title: name of the stage in the progress display.
        tokenizer: folder of the corpus's tokenizer, which defines how pairs are joined.
        table_ids: (K,) ids of the tokens whose rows of the student's word embeddings are trained; None trains all.
        partners: as for `TrainBatches`.
    """
    if table_ids is not None:
        cut_table(objective.student, table_ids)
    objective.student.train(options.dropout)
    index = (processes().process_index, processes().num_processes)
    batches = TrainBatches(corpus.train, corpus.pad_id, options, _pairs(objective, options, tokenizer), index, partners)
    sizes = (options.validation_sentences, options.batch_tokens)
    held_out = sample_batches(corpus.validation, *sizes, corpus.pad_id, accelerator.device)
    begun, check = time.monotonic(), partial(validate, objective, held_out, accelerator)
    first = processes().is_main_process
    steps = int(broadcast(planned_steps(folder, objective, batches, options, check) if first else None))
    optimizer = make_optimizer(objective, options.peak_lr, options.weight_decay, options.embedding_lr_factor)
    with processes().main_process_first():  # the main process removes damaged checkpoints
        position = load_checkpoint(folder, objective, optimizer) or Position()
    rows = None if table_ids is None else len(table_ids)
    return Fitting(
        folder,
        objective,
        corpus,
        options,
        accelerator,
        title,
        batches,
        held_out,
        optimizer,
        position,
        steps,
        begun,
        rows,
    )


def train_alone(fitting: Fitting) -> dict[str, Any]:
    """Train to the planned number of updates, extend the plan if it was far too low, and return the results."""
    check = partial(validate, fitting.objective, fitting.held_out, fitting.accelerator)
    first, steps = processes().is_main_process, fitting.steps
    while steps is not None:
        fitting.steps = steps
        run_alone(fitting.loop(), fitting.title, fitting.position.step, steps, check)
        spent = time.monotonic() - fitting.begun
        steps = broadcast(extended_steps(fitting.folder, fitting.options, fitting.position, spent) if first else None)
    return results_of(fitting)


def results_of(fitting: Fitting) -> dict[str, Any]:
    """The results of a trained stage for the manifest. The student gets its whole embedding table back."""
    position, student = fitting.position, fitting.objective.student
    last = [row for row in read_jsonl(fitting.folder / "history.jsonl") if row["kind"] == "validation"][-1]
    restore_table(student)
    return {
        "arch": str(arch_of(student.config)),
        "objective": fitting.objective.name,
        "steps": position.step,
        "tokens": position.tokens,
        "epochs": position.epoch + position.index / len(fitting.batches.epoch(position.epoch)),
        "tokens_per_second": round(position.tokens / position.seconds, 1),
        "precision": resolve_precision(fitting.options.precision),
        "validation_loss": last["validation_loss"],
        "explained_variance": last["explained_variance"],
        "explained_variance_layers": last["layers"],
        "parameters_millions": sum(parameter.numel() for parameter in student.parameters()) / 1e6,
        **_language_draws(fitting.corpus, fitting.options),
        **({} if fitting.embedding_rows is None else {"embedding_rows": fitting.embedding_rows}),
    }


def _language_draws(corpus: Corpus, options: LoopOptions) -> dict[str, Any]:
    """Sentences of each language in an epoch, if languages are sampled by a power of their size."""
    counts, power = corpus.train.language_counts, options.language_power
    if power is None or power == 1 or len(counts) == 1:
        return {}
    draws = draws_of(np.array(list(counts.values())), power, len(corpus.train))
    return {"languages_per_epoch": dict(zip(counts, draws.tolist(), strict=True))}


def _pairs(objective: Objective, options: LoopOptions, tokenizer: Path) -> Pairs | None:
    """How sentences are joined to pairs; None without pairs, so that a large tokenizer is not read unnecessarily."""
    if not options.pair_fraction:
        return None
    return Pairs(read_joining(tokenizer), shape_of(objective.student.config).positions)


def finished(folder: Path) -> dict[str, Any] | None:
    """Results of a run that was killed after it wrote its last file and before it was published; else None."""
    path = folder / RESULTS
    if not path.exists():
        return None
    remove_checkpoints(folder)
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def finish(folder: Path, results: dict[str, Any], save: Callable[[], None]) -> dict[str, Any]:
    """Save the model and the results and remove the checkpoints, in the main process."""
    if processes().is_main_process:
        save()
        write_json(folder / RESULTS, results)
        remove_checkpoints(folder)
    return results
