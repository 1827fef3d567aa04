"""fastembed with the export's float32 ONNX graph, through its custom-model interface. It takes only texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import Job, Opened, lacks_form

PACKAGES = ("fastembed", "onnxruntime", "tokenizers")
REQUIREMENTS = (
    "fastembed==0.9.1",
    "loguru==0.7.3",
    "mmh3==5.3.1",
    "pillow==12.2.0",
    "py-rust-stemmers==0.1.8",
)
FROM_SOURCE: tuple[str, ...] = ()
VARIANTS = ("f32",)
CHOICES: dict[str, tuple[dict[str, Any], ...]] = {}
SAME_MODEL = True
GRAPH = "onnx/model.onnx"


def missing(job: Job) -> str | None:
    return lacks_form(job, "onnxruntime-f32")


def prepare(job: Job) -> None:
    """A copy of the tokenizer files that states the longest text: fastembed cuts by `tokenizer_config.json` alone."""
    import json

    for name in ("config.json", "tokenizer.json", "special_tokens_map.json"):
        if (job.exported / name).is_file():
            (job.prepared / name).symlink_to((job.exported / name).resolve())
    settings = json.loads((job.exported / "tokenizer_config.json").read_text())
    (job.prepared / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": job.max_seq_len}))
    (job.prepared / "onnx").symlink_to((job.exported / "onnx").resolve())


def open_model(job: Job) -> Opened:
    import json

    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "kdnas/exported"
    hidden = json.loads((job.exported / "config.json").read_text())["hidden_size"]
    TextEmbedding.add_custom_model(
        name,
        pooling=PoolingType.MEAN if job.pooling == "mean" else PoolingType.CLS,
        normalization=True,
        sources=ModelSource(hf=name),  # required, but never fetched: the files are local
        dim=hidden,
        model_file=GRAPH,
    )
    model = TextEmbedding(
        name, threads=job.threads, providers=["CPUExecutionProvider"], specific_model_path=str(job.prepared)
    )

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.stack(list(model.embed(list(texts), batch_size=max(1, len(texts)))))

    return Opened(embed, (job.exported / "onnx", job.exported / "tokenizer.json"))
