"""The texts of tasks without their labels: a corpus to distil a student on the texts of its downstream tasks.

TinyBERT (arXiv 1909.10351, section 3.2) also distils on a task's texts, but from a fine-tuned teacher; here the teacher is not
fine-tuned.
"""

import gzip
import json
import os
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.evaluation.data import load_task
from kdnas.evaluation.suites import chosen_specs
from kdnas.store.disk import disk_errors
from kdnas.store.outcome import Outcome


def task_texts(tasks: tuple[str, ...], output: Path, data_root: Path | None = None) -> Outcome:
    """Write the train texts of tasks, each once and without its label, as a corpus for `kdnas distill`.

    The rows are the train rows of `kdnas suites`, without texts that occur in dev or test. The column `task` names each text's
    task, so that `--text.language_column task --language_power 0.3` gives small tasks a larger fraction of the batches.

    Args:
        tasks: names of tasks or suites, as for `kdnas suites`.
        output: `.jsonl.gz` file to write.
        data_root: folder with local copies of the data sets; by default they are downloaded from the hub.
    """
    if not output.name.endswith(".jsonl.gz"):
        raise UsageError(f"output is {output}; it must end in .jsonl.gz")
    if not output.parent.is_dir():
        raise UsageError(f"output is {output}; there is no folder {output.parent}")
    loaded = [load_task(spec, data_root).task for spec in chosen_specs(tasks)]
    # A train sentence of one task may be a test sentence of another.
    held_out = {
        part for task in loaded for split in (task.dev, task.test) for text in split.texts for part in parts(text)
    }
    found: dict[str, str] = {}
    for task in loaded:
        for text in task.train.texts:
            for part in parts(text):
                if part not in held_out:
                    found.setdefault(part, task.name)
    scratch = output.with_name(f"{output.name}.partial")
    with disk_errors(output.parent), gzip.open(scratch, "wt") as file:
        for text, name in found.items():
            file.write(json.dumps({"text": text, "task": name}, ensure_ascii=False) + "\n")
    os.replace(scratch, output)
    return Outcome(output, {"texts": len(found)})


def parts(text: Any) -> list[str]:
    """The texts in one input of a task: the text itself, both texts of a pair, or the words joined by spaces."""
    if isinstance(text, str):
        return [text]
    return list(text) if isinstance(text, tuple) else [" ".join(text)]
