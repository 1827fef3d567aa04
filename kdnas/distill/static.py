"""A student without layers, the fast end of the front of quality and time.

A text's vector is the mean of its tokens' vectors: the teacher's word embeddings, weighted by inverse frequency (Arora, Liang
and Ma 2017, "A simple but tough-to-beat baseline for sentence embeddings": a / (a + p)), through the linear map that fits the
teacher's vectors best. Mean and map are both linear, so the map is multiplied into the table, and the result is a stock static
model. Principal components before the map would change nothing: it is linear, too.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdnas.distill.embedding import TeacherVectors, width_of
from kdnas.distill.hidden_state import TeacherStates
from kdnas.distill.loop import use_all_cores
from kdnas.distill.projection import set_ridge, with_ones
from kdnas.distill.prompting import read_prompting
from kdnas.distill.static_options import StaticOptions
from kdnas.distill.validation import sample_batches
from kdnas.models.card import inherited, with_metadata
from kdnas.models.family import shape_of
from kdnas.models.head import read_head, read_prompts
from kdnas.models.pooling import pooling_of
from kdnas.models.static import StaticModel, bare_tokenizer, write_static
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.store.progress import stage
from kdnas.text.corpus import Corpus
from kdnas.text.joining import read_joining
from kdnas.text.sentences import Sentences

BATCH_TOKENS = 4096
HELD_OUT, TIMED = 1000, 300  # sentences
ROUNDS = 20
SMOOTHING = 1e-3  # a of the weights a / (a + p)
METADATA = {"library_name": "sentence-transformers", "pipeline_tag": "feature-extraction", "tags": ["kdnas"]}
CARD = """# {name} as a static model

The mean of a vector for each token: word embeddings of `{teacher}`, {weights}, with the linear map to its
vectors that fits {sentences} sentences of `{corpus}` best. Mean cosine with the teacher on held-out sentences:
{cosine:.3f}.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/of/this/folder")
```
"""


@dataclass
class Fitted:
    """Sums for a regression: X'X (D + 1, D + 1) and X'Y (D + 1, D_T), float64."""

    gram: Tensor
    cross: Tensor

    def add(self, inputs: Tensor, wanted: Tensor) -> None:
        """Add rows (B, D) and (B, D_T)."""
        rows = with_ones(inputs)
        self.gram += rows.T @ rows
        self.cross += rows.T @ wanted.double()


def static_into(folder: Path, teacher: Teacher, corpus: Corpus, options: StaticOptions) -> dict[str, Any]:
    """Fit the static student and write it to `student/`.

    Args:
        folder: working folder of the artifact.
        teacher: the teacher.
        corpus: its train split is fitted, its validation split is scored and timed.
        options: weights and number of sentences.

    Returns:
        cosine: mean with the teacher on held-out sentences. mean_ms, p50_ms: time of one text from its token ids, on one core.
    """
    use_all_cores()
    encoder = load_encoder(teacher.path)
    embeddings = encoder.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    table = embeddings.weight.detach().float()
    if options.inverse_frequency:
        table = table * frequency_weights(corpus.train, len(table)).unsqueeze(1)
    width = width_of(encoder, read_head(teacher.path))
    sums = Fitted(
        torch.zeros(table.shape[1] + 1, table.shape[1] + 1, dtype=torch.float64),
        torch.zeros(table.shape[1] + 1, width, dtype=torch.float64),
    )
    head = nn.Linear(table.shape[1], width).requires_grad_(False)
    pairs = _Pairs(teacher, encoder, corpus)
    with stage("static: teacher", options.sentences) as progress:
        for ids, vectors in pairs.of(corpus.train, options.sentences):
            sums.add(bags(table, ids), vectors)
            progress.advance(len(ids))
    set_ridge(head, sums.gram, sums.cross)
    model = StaticModel(head(table).numpy(), bare_tokenizer(teacher.path / "tokenizer.json"))
    held_out = [pair for batch in pairs.of(corpus.validation, HELD_OUT) for pair in zip(*batch, strict=True)]
    cosines = [float(model.vector(ids) @ vector.numpy()) for ids, vector in held_out]
    results = {
        "inverse_frequency": options.inverse_frequency,
        "sentences": min(options.sentences, len(corpus.train)),
        "cosine": float(np.mean(cosines)),
        "megabytes": model.table.nbytes / 1e6,
        "parameters_millions": model.table.size / 1e6,
        **timed(model, [ids for ids, _ in held_out[:TIMED]]),
    }
    weights = "weighted by inverse frequency" if options.inverse_frequency else "with equal weights"
    card = CARD.format(name=teacher.label, teacher=teacher.spec, corpus=corpus.name, weights=weights, **results)
    write_static(folder / "student", model, with_metadata(inherited(teacher.path) | METADATA, card))
    return results


def frequency_weights(split: Sentences, rows: int) -> Tensor:
    """Weight a / (a + p) of each token, (V,) float32, with p its fraction of the split's tokens."""
    counts = np.bincount(np.asarray(split.tokens), minlength=rows)[:rows]
    return torch.from_numpy(SMOOTHING / (SMOOTHING + counts / counts.sum())).float()


def bags(table: Tensor, rows: list[list[int]]) -> Tensor:
    """Mean of the table's rows of each text's ids, (B, D)."""
    ids = torch.tensor([number for row in rows for number in row])
    starts = torch.tensor(np.cumsum([0, *map(len, rows[:-1])]))
    return nn.functional.embedding_bag(ids, table, starts, mode="mean")


def timed(model: StaticModel, rows: list[list[int]]) -> dict[str, float]:
    """Milliseconds of one text from its token ids: mean and median over texts and rounds, after one round that does not count."""
    found = []
    for number in range(ROUNDS + 1):
        for ids in rows:
            start = time.perf_counter_ns()
            model.vector(ids)
            if number:
                found.append((time.perf_counter_ns() - start) / 1e6)
    return {"mean_ms": round(float(np.mean(found)), 5), "p50_ms": round(float(np.median(found)), 5)}


class _Pairs:
    """Ids without special tokens, and the teacher's unit vectors, which it computes with its prompts."""

    def __init__(self, teacher: Teacher, encoder: Any, corpus: Corpus) -> None:
        self._joining, self._pad_id = read_joining(teacher.path), corpus.pad_id
        self._states = TeacherStates(encoder, [shape_of(encoder.config).layers])
        self._vectors = TeacherVectors(pooling_of(teacher.path), read_head(teacher.path))
        positions = shape_of(encoder.config).positions
        self._prompting = read_prompting(teacher.path, read_prompts(teacher.path), positions)

    def of(self, split: Sentences, limit: int) -> Iterator[tuple[list[list[int]], Tensor]]:
        """Ids of each text and vectors (B, D_T), of random sentences that have tokens."""
        end = self._joining.after
        for ids, mask in sample_batches(split, limit, BATCH_TOKENS, self._pad_id, "cpu"):
            lengths = mask.sum(1).tolist()
            rows = [row[self._joining.before : length - end].tolist() for row, length in zip(ids, lengths, strict=True)]
            kept = [index for index, row in enumerate(rows) if row]
            inputs, real, _ = self._prompting(ids, mask, None)
            states = self._states(inputs, real)
            vectors = self._vectors(states[max(states)], real)
            yield [rows[index] for index in kept], vectors[kept]
