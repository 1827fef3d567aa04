"""model2vec: static embeddings that it distils from the export's weights, with its default settings. It takes only texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import Job, Opened

PACKAGES = ("model2vec", "tokenizers")
# The newest version whose pins agree with those of kdnas: 0.10 needs huggingface-hub 1.0.
REQUIREMENTS: tuple[str, ...] = ("model2vec==0.9.0", "skeletoken==0.4.1")
FROM_SOURCE: tuple[str, ...] = ()
VARIANTS = ("static-256",)
CHOICES: dict[str, tuple[dict[str, Any], ...]] = {}
SAME_MODEL = False


def missing(job: Job) -> str | None:
    return None


def prepare(job: Job) -> None:
    import json

    from model2vec.distill import distill

    hidden = json.loads((job.exported / "config.json").read_text())["hidden_size"]
    model = distill(
        str(job.exported),
        device="cpu",
        pca_dims=min(256, hidden),
        pooling="first" if job.pooling == "first" else "mean",
    )
    model.save_pretrained(job.prepared)


def open_model(job: Job) -> Opened:
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(job.prepared)

    def embed(texts: Sequence[str]) -> np.ndarray:
        return model.encode(list(texts), use_multiprocessing=False)

    return Opened(embed, (job.prepared,))
