"""CTranslate2's encoder, made by its converter for `transformers` models, in float32 and int8."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import Job, Opened

PACKAGES = ("ctranslate2", "tokenizers")
REQUIREMENTS: tuple[str, ...] = ("ctranslate2==4.8.5",)
FROM_SOURCE: tuple[str, ...] = ()
VARIANTS = ("float32", "int8")
CHOICES: dict[str, tuple[dict[str, Any], ...]] = {}
SAME_MODEL = True
MODEL_TYPES = ("bert", "xlm-roberta", "roberta", "distilbert")  # with a converter


def missing(job: Job) -> str | None:
    if job.model_type in MODEL_TYPES:
        return None
    return f"its converter knows {', '.join(MODEL_TYPES)}, this model is '{job.model_type}'"


def prepare(job: Job) -> None:
    from ctranslate2.converters import TransformersConverter

    for variant in VARIANTS:
        converter = TransformersConverter(str(job.exported))
        converter.convert(str(job.prepared / variant), quantization=variant, force=True)


def open_model(job: Job) -> Opened:
    import ctranslate2

    from kdnas.export.outputs import pool
    from kdnas.latency.peers.libraries.pooling import encoder
    from kdnas.text.padding import pad

    model = ctranslate2.Encoder(
        str(job.prepared / job.variant), device="cpu", compute_type=job.variant, intra_threads=job.threads
    )
    encode = encoder(job)

    def embed_ids(rows: Sequence[Sequence[int]]) -> np.ndarray:
        found = model.forward_batch([list(row) for row in rows])
        return pool(np.array(found.last_hidden_state), pad(rows, 0, step=1)[1], job.pooling)

    files = (job.prepared / job.variant, job.exported / "tokenizer.json")
    return Opened(lambda texts: embed_ids(encode(texts)), files, embed_ids)
