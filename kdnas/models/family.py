"""Model families: all that kdnas knows about the inside of a model, by the `model_type` of its config.json.

Everything else asks the family: where the layers are, how the parts of a layer are called, which tables the embeddings have,
where positions start, which shape a configuration describes, and what the students of a teacher are.

How to add a family
-------------------
1. Add an entry to `FAMILIES` below. Most families are only names: where the list of layers is (`layers`), the names of the
   eight parts of a layer (`parts`), the names of the sizes in config.json (`sizes`) where they differ from BERT's.
   - A family without token types: `types=False`. Without an option `add_pooling_layer`: `pooler=False`.
   - A family whose first position is not row 0 of its table: `first_position`.
   - A family whose students have another architecture, because its own has parts that a student should not have, or that the
     exporters and compiled engines do not know: `student="bert"`, and `student_tokenizer`, the tokenizer class that such a
     student's tokenizer_config.json names. Students keep the vocabulary, the positions and `tokenizer.json`.
   - A family with parts that names alone do not reach, such as one matrix for query, key and value: a subclass of `Family`
     that overrides `layer`.
2. Tests: add the model type to `TINY` in `tests/models/family_fixture.py` (the settings of a tiny random model), and what differs
   from BERT (`MAPS`, the positions) to `tests/models/test_family.py`, which compares layer states, queries, keys and values with
   those of the stock model. If its students are BERT, add it to `tests/distill/test_families.py`, which distils and exports.

That is one file and its tests. Separators and token types of pairs are not a matter of the family: `kdnas.text.joining` reads
them from the tokenizer. How a model pools its states is in its own files: `kdnas.models.pooling`.

Requirements: an encoder of `transformers` with post-layer-norm layers (attention, norm, feed-forward, norm), learnt absolute
positions, one width, and linear maps with biases. The module imports no torch: the command line reads it.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from kdnas.errors import UsageError
from kdnas.models.arch import Arch

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

# Parts of a layer by the names of `Layer`'s fields, as BERT, RoBERTa and XLM-RoBERTa have them.
BERT_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "expand": "intermediate.dense",
    "contract": "output.dense",
    "output_norm": "output.LayerNorm",
}
BERT_SIZES = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "activation": "hidden_act",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
STUDENT_TYPES = 2  # of a student that is stock BERT: tokenizers number two texts by 0 and 1


@dataclass(frozen=True)
class Shape:
    """The sizes of a model.

    Args:
        layers: number of layers.
        heads: attention heads a layer.
        hidden: width of the hidden states.
        ffn: width of the feed-forward layer.
        activation: feed-forward activation, as the configuration names it.
        vocabulary: rows of the word embeddings.
        position_rows: rows of the position embeddings.
        positions: tokens that a text may have: rows from the first position on.
        types: rows of the token-type embeddings; 0 without such a table.
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
            UsageError: heads that do not divide the width, or an activation that no student has.
        """
        return Arch(self.layers, self.heads, self.hidden, self.ffn, self.activation)

    @property
    def name(self) -> str:
        """As in `L4-H12-D576-F768-gelu`, for any activation."""
        return f"L{self.layers}-H{self.heads}-D{self.hidden}-F{self.ffn}-{self.activation}"

    @property
    def rows(self) -> int:
        """Of all tables of the embeddings: words, positions and types."""
        return self.vocabulary + self.position_rows + self.types


@dataclass(frozen=True)
class Layer:
    """The parts of one layer: linear maps with biases, and layer norms.

    Args:
        query: (D, D), reads the output of the layer below.
        key: as `query`.
        value: as `query`.
        output: (D, D), of the attention.
        attention_norm: behind the attention and its residual sum.
        expand: (F, D), into the feed-forward layer; its activation follows.
        contract: (D, F), out of it.
        output_norm: behind the feed-forward layer and its residual sum.
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
    """Tables (rows, D) before the first layer, added up and normalised; `types` is None for a family without token types."""

    words: "nn.Embedding"
    positions: "nn.Embedding"
    types: "nn.Embedding | None"
    norm: "nn.LayerNorm"


@dataclass(frozen=True)
class Family:
    """What one `model_type` is like inside.

    Args:
        model_type: of config.json.
        layers: dotted name of the list of layers in the encoder.
        parts: name of each part of a layer, by the fields of `Layer`.
        sizes: names in config.json by kdnas' own; those that are left out are BERT's.
        types: whether there is a table of token types.
        pooler: whether its classes take `add_pooling_layer`.
        first_position: row of the position table that the first token reads, from config.json.
        student: `model_type` of its students; None is its own.
        student_tokenizer: tokenizer class of a student of another `model_type`.
        bert_layers: whether a layer is computed as BERT's, by its `attention.self` and `feed_forward_chunk`.
    """

    model_type: str
    layers: str = "encoder.layer"
    parts: Mapping[str, str] = field(default_factory=lambda: BERT_PARTS)
    sizes: Mapping[str, str] = field(default_factory=dict)
    types: bool = True
    pooler: bool = True
    first_position: Callable[[Mapping[str, Any]], int] = lambda config: 0
    student: str | None = None
    student_tokenizer: str | None = None
    bert_layers: bool = False

    @property
    def students(self) -> "Family":
        """The family of its students."""
        return self if self.student is None else FAMILIES[self.student]

    @property
    def without_pooler(self) -> dict[str, bool]:
        """Options of `AutoModel` that leave the pooler out."""
        return {"add_pooling_layer": False} if self.pooler else {}

    def size(self, config: Mapping[str, Any], name: str) -> Any:
        """A value of config.json by kdnas' name for it, as `layers`."""
        return config[self.sizes.get(name, BERT_SIZES[name])]

    def shape(self, config: Mapping[str, Any]) -> Shape:
        """The sizes that a config.json describes."""
        rows = int(config["max_position_embeddings"])
        layers, heads, hidden, ffn = (int(self.size(config, name)) for name in ("layers", "heads", "hidden", "ffn"))
        return Shape(
            layers=layers,
            heads=heads,
            hidden=hidden,
            ffn=ffn,
            activation=str(self.size(config, "activation")),
            vocabulary=int(config["vocab_size"]),
            position_rows=rows,
            positions=rows - self.first_position(config),
            types=int(config.get("type_vocab_size", 2)) if self.types else 0,
        )

    def student_shape(self, config: Mapping[str, Any]) -> Shape:
        """As `shape`, with the tables that a student of this model has."""
        shape = self.shape(config)
        if self.student is None:
            return shape
        return replace(shape, position_rows=shape.positions, types=STUDENT_TYPES)

    def layer_list(self, encoder: "PreTrainedModel") -> "nn.ModuleList":
        """The layers of an encoder."""
        return reduce(getattr, self.layers.split("."), encoder)

    def layer(self, encoder: "PreTrainedModel", number: int) -> Layer:
        """The parts of a layer, 1-based."""
        module = self.layer_list(encoder)[number - 1]
        return Layer(**{name: module.get_submodule(path) for name, path in self.parts.items()})

    def embeddings(self, encoder: "PreTrainedModel") -> Embeddings:
        """The tables of an encoder."""
        module: Any = encoder.embeddings
        types = module.token_type_embeddings if self.types else None
        return Embeddings(module.word_embeddings, module.position_embeddings, types, module.LayerNorm)

    def first_layers(self, encoder: "PreTrainedModel", layers: int) -> "PreTrainedModel":
        """An encoder that shares all weights with `encoder` and stops after some layers; `encoder` itself is unchanged."""
        *path, last = self.layers.split(".")
        view = inner = copy.copy(encoder)
        inner._modules = dict(encoder._modules)
        for name in path:
            child: Any = copy.copy(inner._modules[name])
            child._modules = dict(child._modules)
            inner._modules[name] = child
            inner = child
        inner._modules[last] = inner._modules[last][:layers]
        return view

    def student_config(self, arch: Arch, config: "PretrainedConfig") -> "PretrainedConfig":
        """Configuration of a student: the teacher's vocabulary and positions, the architecture's shape."""
        from transformers import AutoConfig

        given = config.to_dict()
        values = given if self.student is None else self._bert_values(given)
        for key in ("architectures", "_name_or_path", "id2label", "label2id", "dtype", "torch_dtype", "model_type"):
            values.pop(key, None)
        values.update(
            num_hidden_layers=arch.layers,
            num_attention_heads=arch.heads,
            hidden_size=arch.hidden,
            intermediate_size=arch.ffn,
            hidden_act=arch.activation,
        )
        return AutoConfig.for_model(self.students.model_type, **values)

    def _bert_values(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What a student that is stock BERT takes from its teacher's configuration."""
        shape = self.student_shape(config)
        kept = ("initializer_range", "layer_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id")
        return {name: config[name] for name in kept if config.get(name) is not None} | {
            "vocab_size": shape.vocabulary,
            "max_position_embeddings": shape.position_rows,
            "type_vocab_size": shape.types,
            "hidden_dropout_prob": self.size(config, "hidden_dropout"),
            "attention_probs_dropout_prob": self.size(config, "attention_dropout"),
        }


def _behind_padding(config: Mapping[str, Any]) -> int:
    """RoBERTa counts positions from the one behind the padding token's id."""
    return int(config.get("pad_token_id") or 0) + 1


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("bert", bert_layers=True),
        Family("roberta", first_position=_behind_padding, bert_layers=True),
        Family("xlm-roberta", first_position=_behind_padding, bert_layers=True),
        Family(
            "distilbert",
            layers="transformer.layer",
            parts={
                "query": "attention.q_lin",
                "key": "attention.k_lin",
                "value": "attention.v_lin",
                "output": "attention.out_lin",
                "attention_norm": "sa_layer_norm",
                "expand": "ffn.lin1",
                "contract": "ffn.lin2",
                "output_norm": "output_layer_norm",
            },
            sizes={
                "layers": "n_layers",
                "heads": "n_heads",
                "hidden": "dim",
                "ffn": "hidden_dim",
                "activation": "activation",
                "hidden_dropout": "dropout",
                "attention_dropout": "attention_dropout",
            },
            types=False,
            pooler=False,
            student="bert",
            student_tokenizer="BertTokenizer",  # the same, and it gives the token types that the student was trained with
        ),
        # Its attention has a bias by relative position. Students have none: they learn the states and the relations of queries,
        # keys and values, which are all before it. Its two unused position rows (transformers fixes `padding_idx` to 1,
        # whatever the padding token is) are dropped: row 0 of the student is the teacher's row 2.
        Family(
            "mpnet",
            parts=BERT_PARTS
            | {
                "query": "attention.attn.q",
                "key": "attention.attn.k",
                "value": "attention.attn.v",
                "output": "attention.attn.o",
                "attention_norm": "attention.LayerNorm",
            },
            types=False,
            first_position=lambda config: 2,
            student="bert",
            student_tokenizer="PreTrainedTokenizerFast",  # MPNet's class leaves the token types out
        ),
    )
}


def require_family(model_type: Any, what: str) -> Family:
    """The family of a `model_type`.

    Args:
        model_type: as config.json says it; anything else is refused.
        what: names the model in the message, as `teacher 'NAME'`.

    Raises:
        UsageError: a type that kdnas does not know.
    """
    if model_type not in FAMILIES:
        raise UsageError(f"{what}: its model_type is '{model_type}'; supported are {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def family_of(config: "PretrainedConfig | Mapping[str, Any]") -> Family:
    """The family of a configuration, typed or as config.json has it.

    Raises:
        UsageError: a type that kdnas does not know.
    """
    model_type = config.get("model_type") if isinstance(config, Mapping) else config.model_type
    return require_family(model_type, "model")


def shape_of(config: "PretrainedConfig | Mapping[str, Any]") -> Shape:
    """The sizes that a configuration describes, typed or as config.json has it.

    Raises:
        UsageError: a type that kdnas does not know.
    """
    return family_of(config).shape(config if isinstance(config, Mapping) else config.to_dict())


def student_shape_of(config: "PretrainedConfig | Mapping[str, Any]") -> Shape:
    """As `shape_of`, with the tables that a student of this model has.

    Raises:
        UsageError: a type that kdnas does not know.
    """
    return family_of(config).student_shape(config if isinstance(config, Mapping) else config.to_dict())


def has_types(config: "PretrainedConfig") -> bool:
    """Whether a model distinguishes the texts of a pair by token types: it has a table of at least two."""
    return family_of(config).types and config.type_vocab_size > 1


def token_types(config: "PretrainedConfig", types: "Tensor | None") -> "dict[str, Tensor]":
    """Keyword arguments for a model's token types (B, T): none for a model without, or where all are 0."""
    return {} if types is None or not has_types(config) else {"token_type_ids": types}
