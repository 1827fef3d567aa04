"""sentence-transformers with its three backends, in float32. It takes only texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import Job, Opened, lacks_form
from kdnas.latency.peers.libraries.openvino import openvino_config

PACKAGES = ("sentence-transformers", "torch", "transformers")
REQUIREMENTS: tuple[str, ...] = ("sentence-transformers==5.7.0",)
FROM_SOURCE: tuple[str, ...] = ()
VARIANTS = ("torch", "onnx", "openvino")
CHOICES: dict[str, tuple[dict[str, Any], ...]] = {}
SAME_MODEL = True
FORMS = {"onnx": "onnxruntime-f32", "openvino": "openvino-f32"}


def missing(job: Job) -> str | None:
    return lacks_form(job, FORMS[job.variant]) if job.variant in FORMS else None


def prepare(job: Job) -> None:
    """The export is a folder that it loads."""


def open_model(job: Job) -> Opened:
    import torch
    from sentence_transformers import SentenceTransformer

    from kdnas.export.folder import graph_files, graph_of

    torch.set_num_threads(job.threads)
    backend: Any = job.variant
    model = SentenceTransformer(str(job.exported), backend=backend, model_kwargs=_settings(job), device="cpu")
    model.max_seq_length = job.max_seq_len

    def embed(texts: Sequence[str]) -> np.ndarray:
        found = model.encode(list(texts), batch_size=max(1, len(texts)), show_progress_bar=False)
        return np.asarray(found)

    files = graph_files(job.exported / (graph_of(FORMS[job.variant]) if job.variant in FORMS else "model.safetensors"))
    return Opened(embed, (*files, job.exported / "tokenizer.json"))


def _settings(job: Job) -> dict[str, Any]:
    if job.variant == "openvino":
        return {"ov_config": openvino_config(job.threads)}
    if job.variant == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        return {"session_options": options, "provider": "CPUExecutionProvider"}
    return {}
