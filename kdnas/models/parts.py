"""The sizes of a model, and the modules of its layers and embeddings, in the same names for all families."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdnas.models.arch import Arch

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Shape:
    """The sizes of a model.

    Args:
        layers: number of layers.
        heads: number of attention heads per layer.
        hidden: size of the hidden states.
        ffn: size of the feed-forward layer.
        activation: feed-forward activation, with its name in the configuration.
        vocabulary: number of rows of the word embeddings.
        position_rows: number of rows of the position embeddings.
        positions: maximum number of tokens in a text: the rows from the first position on.
        types: number of rows of the token-type embeddings; 0 without such a table.
    """

    layers: int
    heads: int
    hidden: int
    ffn: int
    activation: str
    vocabulary: int
    position_rows: int
    positions: int
    types: int

    @property
    def arch(self) -> Arch:
        """The architecture of the layers.

        Raises:
            UsageError: the heads do not divide the hidden size, or no student can have the activation.
        """
        return Arch(self.layers, self.heads, self.hidden, self.ffn, self.activation)

    @property
    def name(self) -> str:
        """The shape as `L4-H12-D576-F768-gelu`, for any activation."""
        return f"L{self.layers}-H{self.heads}-D{self.hidden}-F{self.ffn}-{self.activation}"

    @property
    def rows(self) -> int:
        """Number of rows of all embedding tables: words, positions and types."""
        return self.vocabulary + self.position_rows + self.types


@dataclass(frozen=True)
class Layer:
    """The parts of one layer: linear maps with biases, and layer norms.

    Args:
        query: (D, D), applied to the output of the layer below.
        key: like `query`.
        value: like `query`.
        output: (D, D), output map of the attention.
        attention_norm: norm after the attention and its residual sum.
        expand: (F, D), first map of the feed-forward layer; the activation follows.
        contract: (D, F), second map of the feed-forward layer.
        output_norm: norm after the feed-forward layer and its residual sum.
    """

    query: "nn.Linear"
    key: "nn.Linear"
    value: "nn.Linear"
    output: "nn.Linear"
    attention_norm: "nn.LayerNorm"
    expand: "nn.Linear"
    contract: "nn.Linear"
    output_norm: "nn.LayerNorm"


@dataclass(frozen=True)
class Embeddings:
    """Tables (rows, D) that are summed and normalised before the first layer; `types` is None without token types."""

    words: "nn.Embedding"
    positions: "nn.Embedding"
    types: "nn.Embedding | None"
    norm: "nn.LayerNorm"
