"""Smaller embeddings: fewer dimensions, int8 and single bits, and the scores between such vectors."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from kdnas.errors import UsageError
from kdnas.export.outputs import unit
from kdnas.export.session import Session

VectorPrecision = Literal["float32", "int8", "binary"]
PRECISIONS: tuple[VectorPrecision, ...] = get_args(VectorPrecision)


def embed(
    session: Session,
    texts: Sequence[str],
    prompt: str | None = None,
    dimensions: int | None = None,
    precision: VectorPrecision = "float32",
) -> np.ndarray:
    """Embeddings of texts, in the order of the texts.

    Args:
        session: a model for feature extraction.
        texts: N texts.
        prompt: name of the model's prompt to put before each text; None uses its default prompt, if it has one.
        dimensions: number of first dimensions to keep; None keeps all.
        precision: `float32` unit vectors (N, D), `int8` (N, D), or `binary`, uint8 (N, D / 8).

    Raises:
        UsageError: the prompt, the number of dimensions or the precision is not possible, or the task is another.
    """
    session.require_task("feature-extraction")
    if prompt is None:
        vectors = session.predict(texts)
    else:
        before = session.prompts.text(prompt)
        vectors = session.predict_ids(session.encode([before + text for text in texts], session.too_long))
    return quantised(truncated(vectors, dimensions), precision)


def truncated(vectors: np.ndarray, dimensions: int | None) -> np.ndarray:
    """The first dimensions of vectors (N, D) at unit length, (N, dimensions); None keeps the vectors.

    Raises:
        UsageError: `dimensions` is below 1 or above D.
    """
    if dimensions is None:
        return vectors
    if not 1 <= dimensions <= vectors.shape[1]:
        raise UsageError(f"dimensions is {dimensions}; allowed are 1 to {vectors.shape[1]}")
    return unit(vectors[:, :dimensions])


def quantised(vectors: np.ndarray, precision: VectorPrecision) -> np.ndarray:
    """Vectors (N, D) in a precision.

    int8: each vector divided by its largest absolute value and rounded to -127 to 127; the cosine does not depend on this scale,
    so it needs no calibration. binary: bit 1 for values above 0, eight dimensions a byte, the first in the highest bit.

    Raises:
        UsageError: the precision is unknown.
    """
    if precision == "float32":
        return vectors
    if precision == "int8":
        largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12)
        return np.rint(127 * vectors / largest).astype(np.int8)
    if precision == "binary":
        return np.packbits(vectors > 0, axis=1)
    raise UsageError(f"precision is '{precision}'; allowed are {', '.join(PRECISIONS)}")


def similarities(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Scores (Q, N) of vectors in the same precision, higher for more similar ones.

    Cosines of float32 and int8 vectors; of binary ones 1 - 2 h / D for h different bits of D, the cosine of the signs.

    Raises:
        UsageError: the two have other precisions or sizes.
    """
    if queries.dtype != documents.dtype or queries.shape[1] != documents.shape[1]:
        raise UsageError(
            f"vectors of {queries.dtype}, {queries.shape[1]} columns, and of {documents.dtype}, {documents.shape[1]} columns, "
            "have no similarity; quantise both alike"
        )
    if queries.dtype == np.uint8:
        first, second = (2 * np.unpackbits(part, axis=1).astype(np.float32) - 1 for part in (queries, documents))
        return np.asarray(first @ second.T / first.shape[1])
    one, other = (unit(part.astype(np.float32)) for part in (queries, documents))
    return np.asarray(one @ other.T)
