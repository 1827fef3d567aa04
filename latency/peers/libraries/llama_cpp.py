"""llama.cpp through llama-cpp-python, in float32 and with 8-bit weights (Q8_0). It takes only texts.

The package `gguf` of llama.cpp writes the file: it knows the names of BERT's tensors and the quantisation. It has no converter,
so only the layout of BERT with a WordPiece tokenizer is written here.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.latency.peers.libraries import Job, Opened, lacks_compiler

PACKAGES = ("llama-cpp-python", "gguf")
REQUIREMENTS = ("llama-cpp-python==0.3.36", "gguf==0.19.0", "diskcache==5.6.3")
FROM_SOURCE = ("llama-cpp-python",)
VARIANTS = ("f32", "q8_0")
CHOICES: dict[str, tuple[dict[str, Any], ...]] = {}
SAME_MODEL = True
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # llama.cpp marks the start of a word; WordPiece marks its continuations by `##`
BLOCK = 32  # numbers per block of Q8_0


def missing(job: Job) -> str | None:
    if job.model_type != "bert":
        return f"its file is written for 'bert' only, this model is '{job.model_type}'"
    if (kind := _tokenizer(job)["model"]["type"]) != "WordPiece":
        return f"its file is written for WordPiece tokenizers only, this one is {kind}"
    return lacks_compiler()


def prepare(job: Job) -> None:
    for variant in VARIANTS:
        write_gguf(job, _file(job, variant), quantised=variant != "f32")


def open_model(job: Job) -> Opened:
    import llama_cpp

    longest = job.max_seq_len
    model = llama_cpp.Llama(
        str(_file(job, job.variant)),
        embedding=True,
        n_ctx=longest,
        n_batch=longest,
        n_ubatch=longest,
        n_threads=job.threads,
        n_threads_batch=job.threads,
        verbose=False,
    )

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.array(model.embed(list(texts), normalize=True, truncate=True))

    return Opened(embed, (_file(job, job.variant),))


def write_gguf(job: Job, file: Path, quantised: bool) -> None:
    """Write an export's encoder, tokenizer and pooling as one GGUF file.

    Args:
        job: gives the export and the pooling.
        file: the file.
        quantised: whether the matrices of the layers and the word embeddings are Q8_0; else all is float32.

    Raises:
        ValueError: a tensor has no name in llama.cpp.
    """
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((job.exported / "config.json").read_text())
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.BERT])
    writer.add_name(job.exported.name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.CLS if job.pooling == "first" else gguf.PoolingType.MEAN)
    _add_tokenizer(writer, job, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, values in load_file(job.exported / "model.safetensors").items():
        name = name.removeprefix("bert.")
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue  # its vectors are pooled states
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise ValueError(f"llama.cpp has no name for the tensor {name}")
        _add_tensor(writer, known, values, quantised and _is_matrix(name, values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _is_matrix(name: str, values: np.ndarray) -> bool:
    """Whether llama.cpp may quantise a tensor: tables of positions and types stay as they are."""
    return values.ndim == 2 and values.shape[-1] % BLOCK == 0 and "position" not in name and "token_type" not in name


def _add_tensor(writer: Any, name: str, values: np.ndarray, quantised: bool) -> None:
    import gguf

    kind = gguf.GGMLQuantizationType.Q8_0 if quantised else gguf.GGMLQuantizationType.F32
    writer.add_tensor(name, gguf.quants.quantize(values.astype(np.float32), kind), raw_dtype=kind)


def _add_tokenizer(writer: Any, job: Job, config: dict[str, Any]) -> None:
    """Add the pieces in llama.cpp's spelling, their kinds, and the special tokens."""
    import gguf

    tokenizer = _tokenizer(job)
    pieces = [""] * config["vocab_size"]
    kinds = [int(gguf.TokenType.UNUSED)] * len(pieces)
    for piece, index in tokenizer["model"]["vocab"].items():
        pieces[index] = piece.removeprefix("##") if piece.startswith("##") else SPACE + piece
        kinds[index] = int(gguf.TokenType.NORMAL)
    for added in tokenizer["added_tokens"]:
        pieces[added["id"]] = added["content"]
        kinds[added["id"]] = int(gguf.TokenType.CONTROL)
    pieces = [piece or f"[PAD{index}]" for index, piece in enumerate(pieces)]  # rows without a piece
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_type_count(config["type_vocab_size"])
    gguf.SpecialVocab(job.exported, n_vocab=len(pieces)).add_to_gguf(writer, quiet=True)


def _tokenizer(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.exported / "tokenizer.json").read_text())
    return found


def _file(job: Job, variant: str) -> Path:
    return job.prepared / f"{variant}.gguf"
