"""A text classifier reads one token of the last layer, so its exported graph computes only that token there.

Keys and values are computed for all tokens; queries, output and feed-forward part, most of the layer's work, only for the first.
The logits are the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kdnas.models.family import family_of


@contextmanager
def last_layer_of_first_token(model: Any, task: str) -> Iterator[None]:
    """Context manager in which the last layer of a text classifier returns only its first token's state (B, 1, D).

    Models for other tasks, and models without BERT's layers, are unchanged.

    Args:
        model: model whose head for texts reads the state of the first token.
        task: task of the export.
    """
    family = family_of(model.config)
    if task != "text-classification" or not family.bert_layers:
        yield
        return
    layer: Any = family.layer_list(model.base_model)[-1]
    if layer.attention.self.position_embedding_type != "absolute":
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
