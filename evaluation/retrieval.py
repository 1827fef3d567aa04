"""Retrieval in the corpus's own held-out text, without labels: each sentence must find the one that follows it.

Sentences that follow each other in a group (a document; in the packaged corpus, a module) are often about the same thing, so a
good embedding ranks the next sentence high among all others. The scores compare a student with its teacher on one corpus; they
say nothing about two corpora.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.evaluation.embedder import TorchEmbedder, prompted
from kdnas.evaluation.embedding_metrics import ndcg_at_k
from kdnas.export.folder import read_tokenizer
from kdnas.export.parity import torch_forward
from kdnas.models.head import read_head, read_prompts
from kdnas.models.pooling import pooling_of
from kdnas.models.teacher import load_encoder
from kdnas.store.progress import stage
from kdnas.text.sentences import Sentences

METRIC = "nDCG@10"
LEAST = 20  # pairs for a meaningful score
MOST_TOKENS = 60_000  # of all pairs together, so that it takes well under a minute


def following(groups: np.ndarray) -> np.ndarray:
    """Numbers of sentences whose next one is of the same group, (P,); no sentence is in two of these pairs.

    Args:
        groups: (N,) number of each sentence's group; the sentences of a group stand together.
    """
    same = groups[1:] == groups[:-1]
    starts = np.flatnonzero(np.insert(~same, 0, True))
    rank = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    return np.flatnonzero(same & (rank[:-1] % 2 == 0))


def chosen_pairs(split: Sentences, most: int, seed: int) -> np.ndarray:
    """Numbers of the first sentences of random pairs, at most `most` and about `MOST_TOKENS` tokens."""
    found = np.random.default_rng(seed).permutation(following(split.groups.numbers()))[:most]
    lengths = split.lengths[found] + split.lengths[found + 1]
    return np.sort(found[: int(np.searchsorted(np.cumsum(lengths), MOST_TOKENS, side="right"))])


def retrieval(
    teacher: Path, student: Path, split: Sentences, pad_id: int, seq_len: int, most: int, seed: int
) -> dict[str, Any]:
    """nDCG@10 of finding the next sentence among the next sentences of all pairs.

    Args:
        teacher: model folder.
        student: model folder; pooling, head and prompts are those of its files.
        split: held-out sentences.
        pad_id: id of the padding token.
        seq_len: number of tokens to which a sentence is cut.
        most: maximum number of pairs.
        seed: seed for the choice of the pairs.

    Returns:
        retrieval: metric, queries, teacher, student (both sides by the student), asymmetric (the student's queries, the teacher's
        documents; None if the student has no head to the teacher's space) and the retention of both; or None. retrieval_note:
        why it is None.
    """
    start, pairs = time.monotonic(), chosen_pairs(split, most, seed)
    if len(pairs) < LEAST:
        note = (
            f"no retrieval: {len(pairs)} pairs of held-out sentences follow each other in a group, at least {LEAST} are needed; "
            "name the column of the document with --text.group"
        )
        return {"retrieval": None, "retrieval_note": note}
    texts = {"query": split.texts.at(pairs), "document": split.texts.at(pairs + 1)}
    try:
        models = [_embedder(folder, pad_id, seq_len) for folder in (teacher, student)]
    except UsageError as error:  # files for a kind of embedding that is not supported
        return {"retrieval": None, "retrieval_note": f"no retrieval: {error}"}
    with stage("evaluate: retrieval", len(models)) as progress:
        vectors = []
        for model in models:
            vectors.append({role: model.vectors(prompted(texts[role], model.prompts, role)) for role in texts})
            progress.advance(1)
    scores = scores_of(vectors[0], vectors[1], in_teachers_space=models[1].head is not None)
    found = {"metric": METRIC, "queries": len(pairs), **scores, "seconds": round(time.monotonic() - start, 1)}
    return {"retrieval": found, "retrieval_note": ""}


def scores_of(
    teacher: Mapping[str, np.ndarray], student: Mapping[str, np.ndarray], in_teachers_space: bool
) -> dict[str, float | None]:
    """Scores of both models and their retention, from unit vectors (P, D); query i belongs to document i.

    Args:
        teacher: the teacher's vectors of `query` and `document`.
        student: the student's.
        in_teachers_space: whether the student's vectors can be compared with the teacher's.
    """

    def score(queries: np.ndarray, documents: np.ndarray) -> float:
        return ndcg_at_k(queries @ documents.T, [[number] for number in range(len(queries))])

    whole, own = (score(side["query"], side["document"]) for side in (teacher, student))
    mixed = score(student["query"], teacher["document"]) if in_teachers_space else None
    return {
        "teacher": whole,
        "student": own,
        "retention": own / whole if whole > 0 else None,
        "asymmetric": mixed,
        "asymmetric_retention": mixed / whole if whole > 0 and mixed is not None else None,
    }


def _embedder(folder: Path, pad_id: int, seq_len: int) -> TorchEmbedder:
    return TorchEmbedder(
        torch_forward(load_encoder(folder), "feature-extraction"),
        read_tokenizer(folder / "tokenizer.json", seq_len),
        read_head(folder),
        read_prompts(folder),
        pooling_of(folder),
        pad_id,
    )
