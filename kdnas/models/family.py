"""Model families: all knowledge about the internals of a model, by the `model_type` of its config.json.

All other code asks the family for the list of layers, the parts of a layer, the embedding tables, the first position, the shape
that a configuration describes, and the family of a teacher's students.

How to add a family
-------------------
1. Add an entry to `FAMILIES` below. For most families names are enough: the list of layers (`layers`), the eight parts of a
   layer (`parts`), and the sizes in config.json (`sizes`) if they differ from BERT's.
   - For a family without token types set `types=False`. Without an option `add_pooling_layer` set `pooler=False`.
   - If the first position is not row 0 of the position table, set `first_position`.
   - If students should be stock BERT, because the family has parts that a student should not have or that the exporters and
     compiled engines do not know, set `student="bert"`, and set `student_tokenizer` to the tokenizer class for the student's
     tokenizer_config.json. Students keep the vocabulary, the positions and `tokenizer.json`.
   - If names cannot reach a part, for example in one matrix for query, key and value, write a subclass of `Family` that
     overrides `layer`.
2. Tests: add the model type to `TINY` in `tests/models/family_fixture.py` (the settings of a tiny random model). Add differences
   from BERT (`MAPS`, the positions) to `tests/models/test_family.py`, which compares layer states, queries, keys and values with
   those of the stock model. If the students are BERT, add the family to `tests/distill/test_families.py`, which distils and
   exports.

Nothing else changes. The separators and token types of pairs do not depend on the family: `kdnas.text.joining` reads them from
the tokenizer. The pooling is in the model's own files: `kdnas.models.pooling`.

Requirements: an encoder of `transformers` with post-layer-norm layers (attention, norm, feed-forward, norm), learnt absolute
positions, one hidden size, and linear maps with biases. The module imports no torch, because the command line imports it.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from kdnas.errors import UsageError
from kdnas.models.arch import FIELDS, Arch
from kdnas.models.parts import Embeddings, Layer, Shape

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

# Submodules of a layer of BERT, RoBERTa and XLM-RoBERTa, by the fields of `Layer`.
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
STUDENT_TYPES = 2  # token types of a student that is stock BERT: tokenizers give 0 and 1 to the two texts of a pair


@dataclass(frozen=True)
class Family:
    """The internals of one `model_type`.

    Args:
        model_type: `model_type` in config.json.
        layers: dotted name of the list of layers in the encoder.
        parts: submodule name of each part of a layer, by the fields of `Layer`.
        sizes: names in config.json by the names of kdnas; missing ones are as in BERT.
        types: whether the family has a table of token types.
        pooler: whether its classes take `add_pooling_layer`.
        first_position: row of the position table for the first token, from config.json.
        student: `model_type` of its students; None means the same.
        student_tokenizer: tokenizer class of students with another `model_type`.
        bert_layers: whether a layer computes like BERT's, with `attention.self` and `feed_forward_chunk`.
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
        """A value of config.json by its name in kdnas, such as `layers`."""
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
        """Like `shape`, but with the embedding tables of this model's students."""
        shape = self.shape(config)
        if self.student is None:
            return shape
        return replace(shape, position_rows=shape.positions, types=STUDENT_TYPES)

    def resized(self, config: Mapping[str, Any], arch: Arch) -> dict[str, Any]:
        """The content of a config.json with the layers of an architecture; all else stays."""
        return {**config, **{self.sizes.get(name, BERT_SIZES[name]): getattr(arch, name) for name in FIELDS}}

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
        """A view of `encoder` with only its first `layers` layers; it shares all weights, and `encoder` is unchanged."""
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
        """Configuration of a student: the shape of the architecture with the teacher's vocabulary and positions."""
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
        """Values that a student of stock BERT takes from its teacher's configuration."""
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
    """RoBERTa counts positions from the padding token's id plus one."""
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
            student_tokenizer="BertTokenizer",  # the same tokens, with the token types of the student's training
        ),
        # MPNet's attention has a bias by relative position. Students do not have it. They learn the states and the relations of
        # queries, keys and values, which are computed before the bias. MPNet's two unused position rows (transformers always sets
        # `padding_idx` to 1) are dropped: row 0 of the student is the teacher's row 2.
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
            student_tokenizer="PreTrainedTokenizerFast",  # MPNet's class gives no token types
        ),
    )
}


def require_family(model_type: Any, what: str) -> Family:
    """The family of a `model_type`.

    Args:
        model_type: value in config.json.
        what: name of the model in the error message, such as `teacher 'NAME'`.

    Raises:
        UsageError: kdnas does not know the type.
    """
    if model_type not in FAMILIES:
        raise UsageError(f"{what}: its model_type is '{model_type}'; supported are {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def family_of(config: "PretrainedConfig | Mapping[str, Any]") -> Family:
    """The family of a configuration, given as an object or as the content of config.json.

    Raises:
        UsageError: kdnas does not know the type.
    """
    model_type = config.get("model_type") if isinstance(config, Mapping) else config.model_type
    return require_family(model_type, "model")


def shape_of(config: "PretrainedConfig | Mapping[str, Any]") -> Shape:
    """The sizes of a configuration, given as an object or as the content of config.json.

    Raises:
        UsageError: kdnas does not know the type.
    """
    return family_of(config).shape(config if isinstance(config, Mapping) else config.to_dict())


def student_shape_of(config: "PretrainedConfig | Mapping[str, Any]") -> Shape:
    """Like `shape_of`, but with the embedding tables of this model's students.

    Raises:
        UsageError: kdnas does not know the type.
    """
    return family_of(config).student_shape(config if isinstance(config, Mapping) else config.to_dict())


def has_types(config: "PretrainedConfig") -> bool:
    """Whether a model distinguishes the texts of a pair by token types, with a table of at least two rows."""
    return family_of(config).types and config.type_vocab_size > 1


def token_types(config: "PretrainedConfig", types: "Tensor | None") -> "dict[str, Tensor]":
    """Keyword arguments for a model's token types (B, T); empty if `types` is None or the model has no token types."""
    return {} if types is None or not has_types(config) else {"token_type_ids": types}
