"""Classifiers of texts read one token of the last layer, so its exported graph computes that token alone.

Keys and values are of all tokens; queries, the layer's output and its feed-forward part, most of its work, are of the first. The
logits are the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def last_layer_of_first_token(model: Any, task: str) -> Iterator[None]:
    """Within it, the last layer of a text classifier gives its first token's state (B, 1, D); other tasks' models are left alone.

    Args:
        model: BERT, RoBERTa or XLM-RoBERTa, whose heads for texts read the state of the first token.
        task: what it is exported for.
    """
    layer = model.base_model.encoder.layer[-1]
    if task != "text-classification" or layer.attention.self.position_embedding_type != "absolute":
        yield
        return

    def forward(hidden_states: Any, attention_mask: Any = None, *_: Any, **__: Any) -> tuple[Any]:
        first = hidden_states[:, :1]
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        attended = layer.attention.self(first, mask, encoder_hidden_states=hidden_states)[0]
        return (layer.feed_forward_chunk(layer.attention.output(attended, first)),)

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
