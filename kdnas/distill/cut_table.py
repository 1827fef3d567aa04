"""Training with only those rows of a large vocabulary's embedding table whose tokens occur in the corpus.

XLM-R's vocabulary has 250,002 rows, of which a corpus uses a part. The others never get a gradient. They keep the values that the
student started with, and the trained model has the whole table again, so a stock tokenizer fits it.
"""

from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdnas.distill.lazy_rows import LAZY, LazyRows, lazy_rows_of
from kdnas.distill.prompting import read_prompting
from kdnas.models.head import read_prompts
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus

READ = 2**22  # token ids read at once


class CutEmbedding(nn.Embedding):
    """Some rows of an embedding table, looked up by the ids of the whole table.

    Args:
        whole: table (V, D); keeps its weights, and is neither trained nor saved.
        ids: (K,) ids of the rows, ascending.
    """

    numbers: Tensor

    def __init__(self, whole: nn.Embedding, ids: np.ndarray) -> None:
        rows = torch.from_numpy(ids).to(whole.weight.device)
        numbers = torch.full((whole.num_embeddings,), -1, device=rows.device)
        numbers[rows] = torch.arange(len(rows), device=rows.device)
        padding = None if whole.padding_idx is None else int(numbers[whole.padding_idx])
        super().__init__(len(rows), whole.embedding_dim, padding, _weight=whole.weight.detach()[rows])
        self._whole = (whole,)  # in a tuple: not a submodule
        self.register_buffer("ids", rows, persistent=False)
        self.register_buffer("numbers", numbers, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Rows (..., D) by ids (...) of the whole table."""
        numbers = self.numbers[input]
        assert int(numbers.min()) >= 0, "an id outside the corpus"
        return F.embedding(numbers, self.weight, self.padding_idx)

    @torch.no_grad()
    def written_back(self) -> nn.Embedding:
        """The whole table with the trained rows."""
        whole = self._whole[0].to(self.weight.device)
        lazy = lazy_rows_of(self.weight)
        if lazy is not None:
            lazy.settle()
        whole.weight[self.get_buffer("ids")] = self.weight
        return whole


def ids_of(corpus: Corpus, teacher: Teacher) -> np.ndarray:
    """Ids (K,), ascending, of the tokens in both splits of a corpus, of the teacher's prompts, and of all special tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(teacher.path / "tokenizer.json"))
    used = np.zeros(int(teacher.config["vocab_size"]), dtype=bool)
    added = [number for number in tokenizer.get_added_tokens_decoder() if number < len(used)]
    prompts = read_prompting(teacher.path, read_prompts(teacher.path), positions=0).prompts
    used[[corpus.pad_id, *added, *chain.from_iterable(prompts)]] = True
    for split in (corpus.train, corpus.validation):
        for start in range(0, len(split.tokens), READ):
            used[split.tokens[start : start + READ]] = True
    return np.flatnonzero(used)


def cut_table(student: PreTrainedModel, ids: np.ndarray) -> None:
    """Limit a student's word embeddings to the rows of these ids (K,), ascending, until `restore_table`."""
    whole = student.get_input_embeddings()
    assert isinstance(whole, nn.Embedding)
    if whole.padding_idx is not None:
        ids = np.union1d(ids, [whole.padding_idx])
    student.set_input_embeddings(CutEmbedding(whole, ids))


def restore_table(student: PreTrainedModel) -> None:
    """Give a student its whole table again, with the trained rows; without an effect if it was not cut."""
    table = student.get_input_embeddings()
    if isinstance(table, CutEmbedding):
        student.set_input_embeddings(table.written_back())


def update_lazily(module: nn.Module, optimizer: torch.optim.AdamW) -> None:
    """Let the optimizer update only the rows of each batch in the cut tables of a module."""
    for part in module.modules():
        if isinstance(part, CutEmbedding) and part.weight.requires_grad:
            setattr(part.weight, LAZY, LazyRows(part.weight, optimizer))
