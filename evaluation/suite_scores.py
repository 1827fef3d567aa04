"""Scores of a fine-tuned model on the test rows of its task, in PyTorch or in a session of its export."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.evaluation.averages import scored
from kdnas.evaluation.suite_options import TRAINED
from kdnas.evaluation.tasks import Task
from kdnas.models.engine import engine_of


def score(
    folder: Path,
    engine: str,
    engines: Sequence[str],
    task: Task,
    seq_len: int,
    home: Path,
    scratch: Path,
    precision: float,
) -> dict[str, Any]:
    """Scores of a fine-tuned model on the test rows of its task (`kdnas.evaluation.averages.scored`), with its throughput.

    Args:
        folder: Hugging Face folder of the model with its head.
        engine: one of `ENGINES`.
        engines: all engines that will be scored, so that one export has the forms for all of them.
        task: task with its test rows; the dev rows of a binary task choose the threshold.
        seq_len: maximum number of tokens in an input, as in training.
        home: root folder of all artifacts, for the export.
        scratch: folder for the texts on which the export is calibrated.
        precision: precision on dev that the threshold must reach.
    """
    runs = runner(folder, engine, engines, task, seq_len, home, scratch)
    start = time.monotonic()
    predicted = task.kind.predict(runs, task.test.texts)
    seconds = time.monotonic() - start
    result = {
        **scored(task, task.test, predicted),
        "test_examples": len(task.test),
        "examples_per_second": round(len(task.test) / seconds, 1),
    }
    if task.has_threshold:
        dev = task.kind.predict(runs, task.dev.texts)
        result["threshold"] = threshold_of(task, dev, predicted, precision)
    return result


def threshold_of(task: Task, dev: np.ndarray, test: np.ndarray, wanted: float) -> dict[str, Any]:
    """The threshold that reaches the wanted precision on dev, and its metrics on test; `threshold` is None if there is none.

    Args:
        task: a binary task.
        dev: probabilities (N, C) of the dev rows.
        test: probabilities (N, C) of the test rows.
        wanted: precision to reach, from 0 to 1.
    """
    from kdnas.evaluation.metrics import at_threshold, threshold_for_precision

    threshold = threshold_for_precision(np.asarray(task.dev.labels) == task.positive, dev[:, task.positive], wanted)
    found = {"wanted_precision": wanted, "threshold": threshold}
    if threshold is None:
        return found
    return found | at_threshold(np.asarray(task.test.labels) == task.positive, test[:, task.positive], threshold)


def runner(
    folder: Path, engine: str, engines: Sequence[str], task: Task, seq_len: int, home: Path, scratch: Path
) -> Any:
    """The model in PyTorch, or a session of its export; the export is made if it does not exist."""
    from kdnas.evaluation.encoded import head_class
    from kdnas.evaluation.finetune import as_run

    if engine == TRAINED:
        model = head_class(task.kind).from_pretrained(folder, local_files_only=True)
        return as_run(model, task.kind, folder, seq_len)
    from kdnas.export.checkpoint import open_checkpoint
    from kdnas.export.options import ExportOptions
    from kdnas.export.run import run_export
    from kdnas.export.session import Session
    from kdnas.models.teacher import resolve_teacher
    from kdnas.store.host import default_threads
    from kdnas.text.corpus import build_corpus
    from kdnas.text.readers import TextOptions

    texts = scratch / "texts.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in _plain_texts(task)]
    texts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    corpus = build_corpus(home, str(texts), TextOptions(seq_len=seq_len), resolve_teacher(str(folder)))
    forms = {form for name in engines if name != TRAINED and (form := engine_of(name).form)}
    options = ExportOptions(forms=tuple(sorted(forms)))
    exported = run_export(home, folder, open_checkpoint(str(folder)).digest, corpus, options)
    session = Session(exported.path, engine, default_threads(), streams=default_threads())
    session.max_seq_len = seq_len
    session.tokenizer.enable_truncation(seq_len)
    return session


def _plain_texts(task: Task) -> list[str]:
    """Texts of train rows for the calibration of int8."""
    return [task.kind.plain_text(text) for text in task.train.first(4000).texts]
