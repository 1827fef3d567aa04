"""The gate: a linear model over hashed n-grams. It is kept as JSON in the run's output, and all workers use the same one."""

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdnas.errors import KdnasError
from kdnas.filtering.ngrams import FEATURES, blocks, grams
from kdnas.filtering.store import Store

GATE = "gate.json"


@dataclass(frozen=True)
class Gate:
    """Lets sentences pass that are clearly clean.

    Args:
        weights: (2**BITS,) int16 weight of each bucket.
        threshold: sentences with a lower score pass.
        audit: fraction of the sentences that passed that the model scores all the same.
        seed: of the choice of these sentences.
    """

    weights: np.ndarray
    threshold: float
    audit: float
    seed: int

    def passes(self, texts: Sequence[str]) -> np.ndarray:
        """(N,) whether each text passes."""
        return gate_scores(self.weights, texts) < self.threshold


def gate_scores(weights: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Scores (N,) of texts: the sum of their n-grams' weights, divided by the square root of the number of n-grams.

    The sums are those of whole numbers: a score depends neither on the other texts nor on the host.
    """
    scores = np.zeros(len(texts))
    for first, end in blocks(texts):
        total, count = np.zeros(end - first, np.int64), np.zeros(end - first, np.int64)
        for one in grams(texts[first:end]):
            sums = np.concatenate([[0], np.cumsum(weights.take(one.buckets), dtype=np.int64)])
            total += sums[one.ends] - sums[one.starts]
            count += one.ends - one.starts
        scores[first:end] = total / np.sqrt(np.maximum(count, 1))
    return scores


def gate_record(found: dict[str, Any], weights: np.ndarray | None = None) -> dict[str, Any]:
    """The record of a gate as JSON, with a hash.

    Args:
        found: how it was made; `used` is whether it is used, and `threshold`, `audit` and `seed` are as in `Gate`.
        weights: its weights, if it is used.
    """
    data = None
    if weights is not None:
        data = base64.b64encode(zlib.compress(weights.astype("<i2").tobytes())).decode("ascii")
    record = found | {"features": FEATURES, "weights": data}
    return record | {"sha256": gate_hash(record)}


def read_gate_record(store: Store) -> dict[str, Any] | None:
    """The record of the gate in a run's output, without its weights; None if there is none.

    Raises:
        KdnasError: as `read_gate`.
    """
    data = store.read(GATE)
    if data is None:
        return None
    return {key: value for key, value in _record(store, data).items() if key != "weights"}


def read_gate(store: Store) -> Gate | None:
    """The gate in a run's output; None if the run found that it cannot be used.

    Raises:
        KdnasError: the file is missing or has changed.
    """
    record = _record(store, store.read(GATE))
    if not record["used"]:
        return None
    if record["features"] != FEATURES:
        raise KdnasError(f"'{store.url}/{GATE}': it is from another version of kdnas; give a new --output")
    weights = np.frombuffer(zlib.decompress(base64.b64decode(record["weights"])), "<i2")
    return Gate(weights, record["threshold"], record["audit"], record["seed"])


def _record(store: Store, data: bytes | None) -> dict[str, Any]:
    name = f"{store.url}/{GATE}"
    if data is None:
        raise KdnasError(f"'{name}': the gate of this run is missing; give a new --output")
    try:
        record = dict(json.loads(data))
        found = record.pop("sha256")
    except (ValueError, KeyError, TypeError) as error:
        raise KdnasError(f"'{name}': the gate of this run cannot be read ({error}); give a new --output") from error
    if gate_hash(record) != found:
        raise KdnasError(f"'{name}': it has changed since this run began; give a new --output")
    return record | {"sha256": found}


def gate_hash(record: dict[str, Any]) -> str:
    """SHA-256 of a gate's record without its hash."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
