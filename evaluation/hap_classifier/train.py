"""The training of `kdnas hap`: the train rows with all levers, and fine-tuning of one multi-label head."""

from dataclasses import replace
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


def fine_tune(model: Path, task: Task, options: HapOptions, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Fine-tune with each learning rate; dev selects the rate and the epoch by the mean macro-F1 over languages and labels.

    Args:
        model: folder of the encoder.
        task: what `training_task` returns.
        options: learning rates, epochs and lengths.
        folder: folder of checkpoints, from which a stopped run resumes exactly.

    Returns:
        The best model on the CPU and the record of `kdnas.evaluation.finetune.tune`.

    Raises:
        KdnasError: the loss was not finite with any learning rate.
    """
    from kdnas.evaluation.encoded import Encoded
    from kdnas.evaluation.finetune import Plan, Recipe, tune
    from kdnas.export.checkpoint import open_checkpoint

    seq_len = min(options.seq_len, open_checkpoint(str(model)).max_seq_len)
    sample = Encoded.of(task.kind, task.train.first(500), model, seq_len)
    batch_tokens = max(int(options.batch_size * sample.lengths.mean()), seq_len)
    recipe = Recipe(list(options.learning_rates), options.seed, seq_len, batch_tokens, options.embedding_rows)
    plan = Plan(len(task.train), options.epochs, len(options.learning_rates), min(len(task.dev), options.max_dev))
    with stage("hap: fine-tuning", plan.train_examples * plan.epochs * plan.learning_rates) as progress:
        return tune(model, task, plan, recipe, progress, folder)
