"""Agreement of a student's hidden states with its teacher's on held-out sentences: explained variance, nearest neighbours."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdnas.distill.embedding import pooled
from kdnas.distill.options import LANGUAGE_POWER
from kdnas.evaluation.explained_variance import LinearFit, VarianceMeter
from kdnas.evaluation.metrics import recall_at_k
from kdnas.export.silence import silence_transformers
from kdnas.models.family import shape_of
from kdnas.models.pooling import Pooling, pooling_of
from kdnas.models.teacher import load_encoder
from kdnas.store.progress import stage
from kdnas.text.corpus import Corpus
from kdnas.text.sentences import Sentences, balanced_order, token_batches

LEAST_SENTENCES = 10  # held-out sentences below which a language has no scores of its own


@dataclass(frozen=True)
class Views:
    """Outputs of both models for one batch."""

    indices: np.ndarray  # (B,) indices in the chosen sentences
    student: torch.Tensor  # (N, D_S) last hidden states of the N real tokens
    teacher: torch.Tensor  # (N, L_T * D_T) hidden states after each layer, concatenated, of the same tokens
    student_pooled: torch.Tensor  # (B, D_S) pooled like the teacher, unit length
    teacher_pooled: torch.Tensor  # (B, D_T)
    token_rows: torch.Tensor  # (N,) row in the batch that each real token is of


def geometry(
    teacher: Path,
    student: Path,
    corpus: Corpus,
    map_sentences: int,
    sentences: int,
    seed: int,
    batch_tokens: int = 2048,
) -> dict[str, Any]:
    """Explained variance of the teacher's hidden states and recall@10 of its nearest neighbours.

    A linear map from the student's last hidden state to every teacher layer is fitted on train sentences and scored on validation
    sentences: 1 - |error|^2 / |teacher - its mean|^2 over real tokens, without padding. Neighbours are searched among all
    validation sentences, whatever their language.

    Args:
        teacher: model folder.
        student: model folder; it must share the teacher's tokenizer.
        corpus: corpus with the token ids of both splits.
        map_sentences: number of train sentences for the linear map.
        sentences: number of validation sentences for both metrics; all are used if there are fewer.
        seed: seed for the choice of sentences.
        batch_tokens: maximum number of padded tokens in a batch.

    Returns:
        explained_variance (last teacher layer), explained_variance_layers, recall_at_10, sentences, map_sentences, and languages:
        explained_variance, recall_at_10 and sentences of each language with at least 10 sentences, empty if there is only one.
    """
    with silence_transformers():  # no warning about a teacher's unused pooler
        models = load_encoder(student), load_encoder(teacher)
    ours, theirs = (shape_of(model.config) for model in models)
    layers, hidden = theirs.layers, theirs.hidden
    pooling = pooling_of(teacher)
    train, held_out = (
        choose(corpus.train, map_sentences, seed),
        choose(corpus.validation, sentences, seed),
    )
    fit = LinearFit(ours.hidden, layers * hidden)
    meters = {language: VarianceMeter(hidden) for language in languages_of(corpus.validation, held_out)}
    meter = VarianceMeter(layers * hidden)
    names = np.array(corpus.validation.languages_at(held_out))
    pooled = [np.zeros((len(held_out), shape.hidden), dtype=np.float32) for shape in (ours, theirs)]
    with stage("evaluate: geometry", len(train) + len(held_out)) as progress:
        for view in views(*models, corpus.train, train, corpus.pad_id, batch_tokens, pooling):
            fit.add(view.student, view.teacher)
            progress.advance(len(view.indices))
        weight, intercept = fit.solve()
        for view in views(*models, corpus.validation, held_out, corpus.pad_id, batch_tokens, pooling):
            predicted = view.student.double() @ weight + intercept
            meter.add(view.teacher, predicted)
            _add_by_language(meters, names, view, predicted)
            pooled[0][view.indices], pooled[1][view.indices] = view.student_pooled, view.teacher_pooled
            progress.advance(len(view.indices))
    explained = meter.explained(layers)
    recall = recall_at_k(pooled[1], pooled[0], 10)
    return {
        "explained_variance": explained[-1],
        "explained_variance_layers": {str(number): value for number, value in enumerate(explained, 1)},
        "recall_at_10": float(recall.mean()),
        "languages": {language: _scores(meters[language], recall[names == language]) for language in meters},
        "sentences": len(held_out),
        "map_sentences": len(train),
    }


def _add_by_language(meters: dict[str, VarianceMeter], names: np.ndarray, view: Views, predicted: torch.Tensor) -> None:
    """Add the last layer's states of a batch to the meters of their languages; `names` are those of the chosen sentences."""
    of_tokens = names[view.indices][view.token_rows.numpy()]
    for language in meters.keys() & set(of_tokens.tolist()):
        rows, outputs = torch.from_numpy(of_tokens == language), len(meters[language].error)
        meters[language].add(view.teacher[rows, -outputs:], predicted[rows, -outputs:])


def _scores(meter: VarianceMeter, recall: np.ndarray) -> dict[str, Any]:
    explained = meter.explained(1)[0]
    return {"explained_variance": explained, "recall_at_10": float(recall.mean()), "sentences": len(recall)}


def languages_of(split: Sentences, chosen: np.ndarray) -> list[str]:
    """Languages with enough of the chosen sentences, in alphabetical order; none if the corpus has only one language."""
    if len(split.language_counts) < 2:
        return []
    counts = Counter(split.languages_at(chosen))
    return sorted(language for language, count in counts.items() if language and count >= LEAST_SENTENCES)


def choose(split: Sentences, count: int, seed: int) -> np.ndarray:
    """Indices of `count` random sentences, sorted; all indices if there are fewer.

    The fraction of a language of n sentences is proportional to n^0.3, as in training.
    """
    order = balanced_order(split.language_numbers, LANGUAGE_POWER, np.random.default_rng(seed))
    return np.sort(order[:count])


def views(
    student: Any,
    teacher: Any,
    split: Sentences,
    chosen: np.ndarray,
    pad_id: int,
    batch_tokens: int,
    pooling: Pooling = "mean",
) -> Iterator[Views]:
    """Outputs of both models for the chosen sentences, batch by batch, with the same pooling."""
    for indices in token_batches(split.lengths[chosen], batch_tokens, 0, 0):
        ids, mask = map(torch.from_numpy, split.batch(chosen[indices], pad_id))
        with torch.inference_mode():
            mine = student(input_ids=ids, attention_mask=mask).last_hidden_state
            theirs = teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:]
            real = mask.bool()
            tokens = torch.cat([state[real] for state in theirs], 1)
            pooled = pool(mine, mask, pooling), pool(theirs[-1], mask, pooling)
            yield Views(indices, mine[real], tokens, *pooled, real.nonzero()[:, 0])


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling = "mean") -> torch.Tensor:
    """State of the first token or mean over real tokens, unit length: states (B, T, D), mask (B, T) -> (B, D)."""
    return torch.nn.functional.normalize(pooled(states, mask, pooling), dim=-1)
