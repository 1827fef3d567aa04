"""OpenVINO alone, on the export's graphs, with its latency hint."""

from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import Job, Opened, lacks_form

PACKAGES = ("openvino", "tokenizers")
REQUIREMENTS: tuple[str, ...] = ("openvino==2026.4.1",)
FROM_SOURCE: tuple[str, ...] = ()
VARIANTS = ("f32", "int8")
CHOICES: dict[str, tuple[dict[str, Any], ...]] = {}
SAME_MODEL = True


def missing(job: Job) -> str | None:
    return lacks_form(job, f"openvino-{job.variant}")


def prepare(job: Job) -> None:
    """The export holds the graphs."""


def openvino_config(threads: int) -> dict[str, str]:
    """Settings for one call at a time in float32; by default OpenVINO computes in bf16 where the CPU has it."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "f32",
    }


def open_model(job: Job) -> Opened:
    import openvino

    from kdnas.export.folder import graph_files, graph_of
    from kdnas.latency.peers.libraries.pooling import embedder, feeds

    graph = job.exported / graph_of(f"openvino-{job.variant}")
    compiled = openvino.Core().compile_model(str(graph), "CPU", openvino_config(job.threads))
    names = [port.get_any_name() for port in compiled.inputs]

    def states(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.asarray(compiled(feeds(names, ids, mask))["last_hidden_state"])

    embed, embed_ids = embedder(job, states)
    return Opened(embed, (*graph_files(graph), job.exported / "tokenizer.json"), embed_ids)
