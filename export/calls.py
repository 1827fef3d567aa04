"""What every engine is given and gives back."""

from collections.abc import Sequence

import numpy as np


def feeds(
    names: Sequence[str], input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Inputs by the graph's own names; BERT's token types are all 0 for single texts."""
    given = {"input_ids": input_ids, "attention_mask": attention_mask}
    if "token_type_ids" in names:
        given["token_type_ids"] = np.zeros_like(input_ids) if token_type_ids is None else token_type_ids
    return given


def joined(outputs: list[np.ndarray]) -> np.ndarray:
    """The output itself, or several along a new last axis."""
    return outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=-1)
