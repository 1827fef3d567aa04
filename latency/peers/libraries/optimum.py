"""Optimum's model classes for ONNX Runtime and OpenVINO, on the export's graphs."""

from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import Job, Opened, lacks_form
from kdnas.latency.peers.libraries.openvino import openvino_config
from kdnas.models.engine import ENGINES

PACKAGES = ("optimum", "optimum-onnx", "optimum-intel", "torch", "transformers")
REQUIREMENTS: tuple[str, ...] = ("optimum==2.1.0", "optimum-onnx==0.1.0", "optimum-intel==1.27.0")
FROM_SOURCE: tuple[str, ...] = ()
VARIANTS = ("openvino-int8", "openvino-f32", "onnxruntime-int8", "onnxruntime-f32")
CHOICES: dict[str, tuple[dict[str, Any], ...]] = {}
SAME_MODEL = True


def missing(job: Job) -> str | None:
    return lacks_form(job, job.variant)


def prepare(job: Job) -> None:
    """The export holds the graphs."""


def open_model(job: Job) -> Opened:
    import torch

    from kdnas.export.folder import graph_of
    from kdnas.latency.peers.libraries.pooling import embedder

    torch.set_num_threads(job.threads)
    graph = job.exported / graph_of(job.variant)
    model = _load(job, graph.parent)

    def states(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        tensors = (torch.from_numpy(array) for array in (ids, mask, np.zeros_like(ids)))
        found = model(**dict(zip(("input_ids", "attention_mask", "token_type_ids"), tensors, strict=True)))
        return np.asarray(found.last_hidden_state)

    embed, embed_ids = embedder(job, states)
    return Opened(embed, (graph.parent, job.exported / "tokenizer.json"), embed_ids)


def _load(job: Job, folder: Any) -> Any:
    if ENGINES[job.variant].runtime == "openvino":
        from optimum.intel import OVModelForFeatureExtraction

        return OVModelForFeatureExtraction.from_pretrained(folder, ov_config=openvino_config(job.threads))
    import onnxruntime
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    return ORTModelForFeatureExtraction.from_pretrained(folder, session_options=options)
