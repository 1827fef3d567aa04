"""A classifier of texts, ready to run: an export, a Hugging Face folder, or a model in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from kdnas.errors import UsageError
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.folder import SETTINGS, read_tokenizer
from kdnas.export.judge import Candidate
from kdnas.export.outputs import answers_of_texts
from kdnas.export.session import Session
from kdnas.export.spans import Runs, text_logits
from kdnas.export.thresholds import Thresholds, read_thresholds


@dataclass(frozen=True)
class Classifier:
    """A classifier that is ready to run.

    Args:
        runs: the model.
        labels: its class names.
        multi_label: whether the labels are independent.
        thresholds: thresholds of its folder; None without them.
    """

    runs: Runs
    labels: list[str]
    multi_label: bool
    thresholds: Thresholds | None

    def chances(self, texts: Sequence[str], label: str) -> np.ndarray:
        """Probability of a label for each text, (N,)."""
        return answers_of_texts(text_logits(self.runs, texts), self.multi_label)[:, self.labels.index(label)]


def open_classifier(model: str, form: str | None = None, home: Path = Path("artifacts")) -> Classifier:
    """Open a classifier of texts.

    Args:
        model: folder of `kdnas export`, a Hugging Face folder, an artifact or a hub id.
        form: form of an export; by default its fastest.
        home: root of artifacts.

    Raises:
        UsageError: it is not a classifier of texts with at least two labels, or `form` is given for a model that is not exported.
    """
    if (Path(model) / SETTINGS).is_file():
        session = Session(Path(model), form)
        task = session.task
        found = Classifier(cast(Runs, session), session.labels, session.multi_label, read_thresholds(Path(model)))
    else:
        found, task = _from_checkpoint(model, form, home)
    if task != "text-classification" or len(found.labels) < 2:
        raise UsageError(
            f"model '{model}': this is a model for {task}; give a classifier of texts with at least two labels"
        )
    return found


def _from_checkpoint(model: str, form: str | None, home: Path) -> tuple[Classifier, str]:
    from kdnas.export.checkpoint import load_model
    from kdnas.export.parity import torch_forward

    if form is not None:
        raise UsageError(f"form '{form}': model '{model}' is not exported and has no forms; leave --form out")
    checkpoint = open_checkpoint(model, home)
    tokenizer = read_tokenizer(checkpoint.path / "tokenizer.json", checkpoint.max_seq_len)
    forward = torch_forward(load_model(checkpoint), checkpoint.task)
    runs = Candidate(forward, checkpoint.task, tokenizer, checkpoint.pad_id, checkpoint.max_seq_len)
    thresholds = read_thresholds(checkpoint.path)
    return Classifier(runs, checkpoint.labels, checkpoint.multi_label, thresholds), checkpoint.task
