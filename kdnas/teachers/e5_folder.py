"""Writes the encoder of an E5S1 file as a folder of a stock `BertModel` with XLM-R's tokenizer and mean pooling."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kdnas.models.card import with_metadata
from kdnas.models.family import BERT_PARTS
from kdnas.models.packaged import PackagedTeacher
from kdnas.models.pooling import write_modules
from kdnas.store.json_files import write_json
from kdnas.teachers.e5s1 import E5S1, Sizes
from kdnas.teachers.unigram import write_tokenizer

# Names of a layer's parts in the file.
PARTS = {
    "q": BERT_PARTS["query"],
    "k": BERT_PARTS["key"],
    "v": BERT_PARTS["value"],
    "ao": BERT_PARTS["output"],
    "aln": BERT_PARTS["attention_norm"],
    "fi": BERT_PARTS["expand"],
    "fo": BERT_PARTS["contract"],
    "oln": BERT_PARTS["output_norm"],
}
CARD = """# {model}, dequantised

The encoder and the tokenizer of [{model}](https://huggingface.co/{model}) as a stock BERT model, written by kdnas from the file
`{member}` of the Python package `{requirement}`.

- {remark}. Its outputs differ a little from those of the published weights: call it dequantised when you report scores.
- Texts begin with `query: ` or `passage: ` as in the published model; the vector of a text is the mean over its tokens, scaled to
  unit length.
- The table of words has {rows:,} rows for {pieces:,} pieces, like the published one: no token has the last ones.

```python
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("path/of/this/folder", add_pooling_layer=False)
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
```
"""


def write_e5_folder(payload: Path, packaged: PackagedTeacher, folder: Path) -> None:
    """Write weights, configuration, tokenizer, pooling and a card.

    The table keeps all rows of the file, also those beyond the last piece. In XLM-R's layout the ids of the pieces are their
    positions, with the mask as the last one, so the rows beyond it are never read; with them the table has the published shape.

    Args:
        payload: the E5S1 file.
        packaged: where it comes from.
        folder: existing folder to write to.

    Raises:
        KdnasError: the file is damaged, or its tokenizer has not the layout of XLM-R.
    """
    from safetensors.numpy import save_file

    file = E5S1(np.memmap(payload, np.uint8, "r"), packaged.packages[0].member)
    sizes, vocabulary = file.sizes, file.vocabulary
    write_tokenizer(folder, vocabulary, file.characters, sizes.positions)
    save_file(dict(weights(file)), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", configuration(sizes, file.epsilon, vocabulary.pad))
    write_modules(folder, sizes.hidden, sizes.positions)
    text = CARD.format(
        model=packaged.model,
        member=packaged.packages[0].member,
        requirement=packaged.packages[0].requirement,
        remark=packaged.remark[:1].upper() + packaged.remark[1:],
        rows=sizes.rows,
        pieces=len(vocabulary.pieces),
    )
    metadata = {
        "license": packaged.licence.lower(),
        "language": list(packaged.languages),
        "base_model": packaged.model,
        "library_name": "transformers",
        "pipeline_tag": "sentence-similarity",
    }
    (folder / "README.md").write_text(with_metadata(metadata, text), encoding="utf-8")


def weights(file: E5S1) -> Iterator[tuple[str, np.ndarray]]:
    """Name in a `BertModel` and values of each weight, f32."""
    sizes = file.sizes
    tables = {"word": sizes.rows, "pos": sizes.positions, "type": sizes.types}
    names = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}
    for name, rows in tables.items():
        yield f"embeddings.{names[name]}.weight", file.weight(f"emb.{name}", rows, sizes.hidden)
    yield from _both(file, "emb.ln", "embeddings.LayerNorm", (sizes.hidden,))
    square, norm = (sizes.hidden, sizes.hidden), (sizes.hidden,)
    shapes = {"fi": (sizes.ffn, sizes.hidden), "fo": (sizes.hidden, sizes.ffn), "aln": norm, "oln": norm}
    for layer in range(sizes.layers):
        for short, part in PARTS.items():
            yield from _both(file, f"l{layer}.{short}", f"encoder.layer.{layer}.{part}", shapes.get(short, square))


def _both(file: E5S1, short: str, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{name}.weight", file.weight(f"{short}.w", *shape)
    yield f"{name}.bias", file.weight(f"{short}.b", shape[0])


def configuration(sizes: Sizes, epsilon: float, pad: int) -> dict[str, object]:
    """Content of config.json. Dropouts and initialisation are BERT's defaults."""
    return {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": sizes.hidden,
        "initializer_range": 0.02,
        "intermediate_size": sizes.ffn,
        "layer_norm_eps": epsilon,
        "max_position_embeddings": sizes.positions,
        "model_type": "bert",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "pad_token_id": pad,  # not BERT's 0, which is <s> here
        "position_embedding_type": "absolute",
        # The first version that reads `dtype`. Without a version, or from 4.57.3 to 5.0, transformers takes any large tokenizer
        # for one of Mistral's and advises a change that would break it.
        "transformers_version": "4.56.0",
        "type_vocab_size": sizes.types,
        "vocab_size": sizes.rows,
    }
