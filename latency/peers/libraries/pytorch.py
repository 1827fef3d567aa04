"""PyTorch through `transformers`, eager and compiled, in float32, with the tokenizer library alone."""

from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import Job, Opened, lacks_compiler

PACKAGES = ("torch", "transformers", "tokenizers")
REQUIREMENTS: tuple[str, ...] = ("torch==2.13.0", "transformers==4.57.6")
FROM_SOURCE: tuple[str, ...] = ()
VARIANTS = ("eager", "compiled")
CHOICES: dict[str, tuple[dict[str, Any], ...]] = {}
SAME_MODEL = True


def missing(job: Job) -> str | None:
    return lacks_compiler() if job.variant == "compiled" else None


def prepare(job: Job) -> None:
    """The export holds the weights."""


def open_model(job: Job) -> Opened:
    import torch

    from kdnas.latency.peers.libraries.pooling import embedder
    from kdnas.models.teacher import load_encoder

    torch.set_num_threads(job.threads)
    model: Any = load_encoder(job.exported)
    if job.variant == "compiled":
        model = torch.compile(model, dynamic=True)

    @torch.inference_mode()
    def states(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        found = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return np.asarray(found.last_hidden_state)

    embed, embed_ids = embedder(job, states)
    return Opened(embed, (job.exported / "model.safetensors", job.exported / "tokenizer.json"), embed_ids)
