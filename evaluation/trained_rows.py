"""Train only the rows of an embedding table that occur in the train rows of a task, or none.

A row whose token never occurs in the train rows has no gradient. But as part of a whole table it costs as much as any other in
each step: a gradient of zeros, its norm, two moments, weight decay. In a multilingual model of 384 columns, 250,000 rows are four
fifths of all parameters, and a task in one language uses a few thousand of them. So the used rows are trained as a small table,
and written back into the whole table at the end.

The result is the same as that of training the whole table, except that weight decay does not shrink the unused rows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdnas.evaluation.suite_options import EmbeddingRows


class TrainedRows(nn.Embedding):
    """An embedding table whose trained rows are a parameter of their own; the whole table is no parameter.

    Args:
        table: the whole table, (V, D).
        ids: token ids of the trained rows, (K,), ascending and without repetition.
    """

    def __init__(self, table: nn.Embedding, ids: Tensor) -> None:
        row_of = torch.full((len(table.weight),), -1, dtype=torch.long)
        row_of[ids] = torch.arange(len(ids))
        padding = None if table.padding_idx is None else int(row_of[table.padding_idx])
        weight = table.weight.detach()[ids].clone()
        super().__init__(len(ids), weight.shape[1], padding if padding != -1 else None, _weight=weight)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("row_of", row_of, persistent=False)
        self.register_buffer("whole", table.weight.detach(), persistent=False)
        self.padding = table.padding_idx
        self.weight.requires_grad_(len(ids) > 0)

    def forward(self, input: Tensor) -> Tensor:
        """Rows (..., D) of token ids (...). In training, all ids are of trained rows, unless no row is."""
        if not len(self.ids):
            return F.embedding(input, self.whole)
        rows = self.row_of[input]
        if self.training:
            return F.embedding(rows, self.weight, padding_idx=self.padding_idx)
        trained = F.embedding(rows.clamp(min=0), self.weight)
        return torch.where((rows < 0).unsqueeze(-1), F.embedding(input, self.whole), trained)

    def merged(self) -> nn.Embedding:
        """The whole table with the trained rows, as a parameter."""
        with torch.no_grad():
            self.whole[self.ids] = self.weight
        return nn.Embedding.from_pretrained(self.whole, freeze=False, padding_idx=self.padding)


def train_rows(model: Any, rows: EmbeddingRows, encoded: Sequence[np.ndarray]) -> None:
    """Replace the model's table of token embeddings, so that only some of its rows are trained.

    Args:
        model: a model of transformers with a head that does not use the table.
        rows: `used`, the rows of the tokens in `encoded` and of the padding; `frozen`, none; `all` changes nothing.
        encoded: token ids (T,) of the train rows.
    """
    if rows == "all":
        return
    table = model.get_input_embeddings()
    ids = np.empty(0, dtype=np.int64)
    if rows == "used":
        ids = np.unique(np.concatenate([*encoded, np.asarray([model.config.pad_token_id])]))
    model.set_input_embeddings(TrainedRows(table, torch.from_numpy(ids)))


def whole_table(model: Any) -> None:
    """Undo `train_rows`: the model has a whole table again, with the trained rows in it."""
    table = model.get_input_embeddings()
    if isinstance(table, TrainedRows):
        model.set_input_embeddings(table.merged())
