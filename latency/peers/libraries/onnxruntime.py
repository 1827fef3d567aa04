"""ONNX Runtime alone, on the export's graphs, with its default settings besides threads and spinning."""

from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import Job, Opened, lacks_form

PACKAGES = ("onnxruntime", "tokenizers")
REQUIREMENTS: tuple[str, ...] = ("onnxruntime==1.31.1",)
FROM_SOURCE: tuple[str, ...] = ()
VARIANTS = ("f32", "int8")
SPIN: tuple[dict[str, Any], ...] = ({"spin": True}, {"spin": False})
CHOICES = dict.fromkeys(VARIANTS, SPIN)
SAME_MODEL = True


def missing(job: Job) -> str | None:
    return lacks_form(job, f"onnxruntime-{job.variant}")


def prepare(job: Job) -> None:
    """The export holds the graphs."""


def open_model(job: Job) -> Opened:
    import onnxruntime

    from kdnas.export.folder import graph_files, graph_of
    from kdnas.latency.peers.libraries.pooling import embedder, feeds

    graph = job.exported / graph_of(f"onnxruntime-{job.variant}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.log_severity_level = 3
    if not job.choice.get("spin", True):
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]

    def states(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["last_hidden_state"], feeds(names, ids, mask))[0])

    embed, embed_ids = embedder(job, states)
    return Opened(embed, (*graph_files(graph), job.exported / "tokenizer.json"), embed_ids)
