"""An exported classifier in ONNX Runtime with `tokenizers` alone, for the peers: texts to scores."""

from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Graph:
    """A graph with its tokenizer.

    Args:
        graph: the graph file.
        tokenizer: its tokenizer.json.
        length: maximum length in tokens.
        threads: threads of a call.
    """

    def __init__(self, graph: Path, tokenizer: Path, length: int, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding()

    def scores(self, texts: list[str]) -> list[list[float]]:
        """Probabilities (N, C) of the labels of N texts."""
        rows = self._tokenizer.encode_batch(texts)
        arrays = {
            "input_ids": np.asarray([row.ids for row in rows], dtype=np.int64),
            "attention_mask": np.asarray([row.attention_mask for row in rows], dtype=np.int64),
            "token_type_ids": np.asarray([row.type_ids for row in rows], dtype=np.int64),
        }
        logits = self._session.run(None, {name: arrays[name] for name in self._inputs})[0]
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: list[list[float]] = (shifted / shifted.sum(axis=1, keepdims=True)).tolist()
        return found
