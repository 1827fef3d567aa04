"""A model as a function from texts to unit vectors: in PyTorch, a session of its export, or static."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kdnas.errors import UsageError
from kdnas.evaluation.suite_options import TRAINED
from kdnas.export.folder import SETTINGS, read_tokenizer, token_ids
from kdnas.export.outputs import pool_states, unit
from kdnas.export.session import Session, token_budget_batches
from kdnas.models.folder import model_in
from kdnas.models.head import Head, Prompts
from kdnas.models.static import StaticModel, is_static, read_static
from kdnas.text.padding import pad

BATCH_TOKENS = 4096
# Names that models give to the prompts of the two sides of a search.
ROLES = {"query": ("query",), "document": ("passage", "document")}


class Embedder(Protocol):
    """Unit vectors of texts."""

    @property
    def prompts(self) -> Prompts:
        """Prompts of the model."""

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) of N texts, without a prompt before them."""


@dataclass(frozen=True)
class TorchEmbedder:
    """The PyTorch model with its pooling and its head."""

    forward: Any
    tokenizer: Any
    head: Head | None
    prompts: Prompts
    pooling: str
    pad_id: int

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) of N texts."""
        rows = token_ids(self.tokenizer, list(texts))
        found: list[Any] = [None] * len(rows)
        for batch in token_budget_batches([len(row) for row in rows], BATCH_TOKENS):
            ids, mask = pad([rows[index] for index in batch], self.pad_id)
            pooled = pool_states(self.forward(ids, mask), mask, self.pooling)
            for index, vector in zip(batch, unit(pooled if self.head is None else self.head(pooled)), strict=True):
                found[index] = vector
        return np.stack(found)


@dataclass(frozen=True)
class SessionEmbedder:
    """A session of an export."""

    session: Session

    @property
    def prompts(self) -> Prompts:
        return self.session.prompts

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) of N texts."""
        return self.session.predict_ids(self.session.encode(list(texts)))


@dataclass(frozen=True)
class StaticEmbedder:
    """A static model, which needs no engine."""

    model: StaticModel

    @property
    def prompts(self) -> Prompts:
        return Prompts()

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) of N texts."""
        return np.stack([self.model.vector(ids) for ids in self.model.ids(list(texts))])


def static_folder(model: str) -> Path | None:
    """The folder of a static model, given it or the artifact of `kdnas static-student`; None for other models."""
    folder = model_in(Path(model))
    return folder if is_static(folder) else None


def is_export(model: str) -> bool:
    """Whether a model is the folder of an export."""
    return (Path(model) / SETTINGS).is_file()


def open_embedder(model: str, engine: str, home: Path) -> Embedder:
    """A model in an engine.

    Args:
        model: a model for `kdnas.export.checkpoint.open_checkpoint`, or the folder of a static model or an export.
        engine: `pytorch`, or a form of the export.
        home: root folder of all artifacts.

    Raises:
        UsageError: the model is not found, makes no embeddings, or does not run in this engine.
    """
    if is_export(model) and engine != TRAINED:
        session = Session(model, engine)
        session.require_task("feature-extraction")
        return SessionEmbedder(session)
    static = static_folder(model)
    if static is not None and engine == TRAINED:
        return StaticEmbedder(read_static(static))
    if static is not None:
        raise UsageError(f"engine {engine}: model '{model}' is static and has no layers to run; leave --engines out")
    if engine != TRAINED:
        raise UsageError(
            f"engine {engine} needs the folder of an export as --model; make one with `kdnas export --model {model}`"
        )
    from kdnas.export.checkpoint import load_model, open_checkpoint
    from kdnas.export.parity import torch_forward

    checkpoint = open_checkpoint(model, home)
    if checkpoint.task != "feature-extraction":
        raise UsageError(f"model '{model}' is for {checkpoint.task}; give an encoder")
    return TorchEmbedder(
        torch_forward(load_model(checkpoint), checkpoint.task),
        read_tokenizer(checkpoint.path / "tokenizer.json", checkpoint.max_seq_len),
        checkpoint.head,
        checkpoint.prompts,
        checkpoint.pooling,
        checkpoint.pad_id,
    )


def prompted(texts: Sequence[str], prompts: Prompts, role: str) -> list[str]:
    """The texts with the model's prompt for a role, `query` or `document`, or its default prompt.

    A model without a prompt for documents gets its default one.
    """
    name = next((name for name in ROLES[role] if name in prompts.texts), None)
    before = prompts.text(name)
    return [before + text for text in texts]
