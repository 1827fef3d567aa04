"""The training of `kdnas hap`: the train rows with all levers, and fine-tuning of one multi-label head."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kdnas.evaluation.hap_classifier.balance import balanced, rows_by_set, spread_over_sets
from kdnas.evaluation.hap_classifier.options import HapOptions
from kdnas.evaluation.hap_classifier.scored_texts import scored_texts
from kdnas.evaluation.hap_classifier.swaps import with_swapped_copies
from kdnas.evaluation.hap_classifier.union import Union
from kdnas.evaluation.hap_classifier.words import label_profanity, read_word_lists
from kdnas.evaluation.overlap import without
from kdnas.evaluation.tasks import Task
from kdnas.store.progress import stage

PLAN, UNFINISHED = "plan.json", "tuning"  # of a fine-tuning that has not finished


def training_task(union: Union, options: HapOptions) -> tuple[Task, dict[str, Any]]:
    """The task with the rows that are trained, and a record of how they were made.

    Dev is in an order in which any prefix has equally many rows of each set and language; test is unchanged. No train row, also
    no copy and no unlabelled text, is a text of dev or of any test split.

    Raises:
        UsageError: a file of `options` cannot be used.
    """
    task = union.task
    train = balanced(task.train, options.balance, options.max_per_set, options.seed)
    record: dict[str, Any] = {"balance": options.balance, "rows": len(train)}
    if options.word_lists is not None:
        train, record["profanity_from_word_lists"] = label_profanity(train, read_word_lists(options.word_lists))
    if options.swapped_copies:
        train, record["swapped_copies"] = with_swapped_copies(train, options.swapped_copies, options.seed)
    if options.teacher is not None and options.unlabelled is not None:
        scored = scored_texts(options.teacher, options.unlabelled, options.max_unlabelled, options.seed)
        train = train.joined(scored)
        record["unlabelled"] = len(scored)
    before = len(train)
    for held in (task.dev, task.test, union.outside):
        train = without(train, held).kept
    record |= {"left_out_as_scored": before - len(train), "rows": len(train), "by_set": rows_by_set(train.groups)}
    return replace(task, train=train, dev=spread_over_sets(task.dev, options.seed)), record


def fine_tune(
    model: Path, task: Task, options: HapOptions, folder: Path, scored_rows: int
) -> tuple[Any, dict[str, Any]]:
    """Fine-tune with each learning rate; dev selects the rate and the epoch by the mean macro-F1 over languages and labels.

    Args:
        model: folder of the encoder.
        task: what `training_task` returns.
        options: learning rates, epochs, lengths and time.
        folder: working folder, with the plan and the checkpoints, from which a stopped run resumes exactly.
        scored_rows: rows that are scored afterwards; `max_minutes` includes them.

    Returns:
        The best model on the CPU and the record of `kdnas.evaluation.finetune.tune`, with the plan, the measured throughput and
        `reduced`: what was reduced to fit the time.

    Raises:
        KdnasError: the loss was not finite with any learning rate.
    """
    from kdnas.evaluation.budget import Limit, kept_plan
    from kdnas.evaluation.encoded import Encoded
    from kdnas.evaluation.finetune import Plan, Recipe, tune
    from kdnas.export.checkpoint import open_checkpoint

    seq_len = min(options.seq_len, open_checkpoint(str(model)).max_seq_len)
    sample = Encoded.of(task.kind, task.train.first(500), model, seq_len)
    batch_tokens = max(int(options.batch_size * sample.lengths.mean()), seq_len)
    recipe = Recipe(list(options.learning_rates), options.seed, seq_len, batch_tokens, options.embedding_rows)
    wanted = Plan(len(task.train), options.epochs, len(options.learning_rates), min(len(task.dev), options.max_dev))
    limit = Limit(options.max_minutes, scored_rows, "hap")
    measured = task if len(task.test) else replace(task, test=task.dev)
    plan, speed = kept_plan(folder / PLAN, model, measured, wanted, recipe, limit)
    with stage("hap: fine-tuning", plan.train_examples * plan.epochs * plan.learning_rates) as progress:
        best, record = tune(model, task, plan, recipe, progress, folder / UNFINISHED)
    return best, {**record, "plan": asdict(plan), "speed": speed, "reduced": _reduced(asdict(wanted), asdict(plan))}


def _reduced(wanted: Mapping[str, int], plan: Mapping[str, int]) -> list[str]:
    """What a plan has less of than was wanted, as in `1 of 3 epochs`."""
    return [f"{plan[name]} of {wanted[name]} {name.replace('_', ' ')}" for name in wanted if plan[name] < wanted[name]]
