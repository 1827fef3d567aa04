"""This project's session, each form of the export."""

from typing import Any

from kdnas.latency.peers.libraries import Job, Opened, lacks_form
from kdnas.models.engine import ENGINES

PACKAGES = ("onnxruntime", "openvino", "tokenizers")
REQUIREMENTS: tuple[str, ...] = ()
FROM_SOURCE: tuple[str, ...] = ()
VARIANTS = ("openvino-int8", "openvino-f32", "onnxruntime-int8", "onnxruntime-f32")
SPIN: tuple[dict[str, Any], ...] = ({"spin": False}, {"spin": True})
CHOICES = {name: SPIN for name in VARIANTS if ENGINES[name].runtime == "onnxruntime"}
SAME_MODEL = True


def missing(job: Job) -> str | None:
    return lacks_form(job, job.variant)


def prepare(job: Job) -> None:
    """The export is ready to run."""


def open_model(job: Job) -> Opened:
    from kdnas.export.encoder import TOKENIZER
    from kdnas.export.folder import graph_files, graph_of
    from kdnas.export.session import Session

    session = Session(job.exported, job.variant, job.threads, verify=False, **job.choice)
    graph = job.exported / graph_of(job.variant)
    files = (*graph_files(graph), job.exported / TOKENIZER)
    return Opened(session.predict, files, session.predict_ids)
