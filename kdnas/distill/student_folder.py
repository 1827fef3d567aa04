"""A trained student on disk: a stock Hugging Face folder without teacher, pooler or projections."""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from kdnas.artifact import fsync_folder
from kdnas.teacher import Teacher

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)

CARD = """---
library_name: transformers
pipeline_tag: feature-extraction
tags:
- distillation
- kdnas
---
# {name}

A text encoder of {parameters_millions:.1f} million parameters: `{arch}` (layers, heads, hidden size, feed-forward size,
activation), distilled with kdnas.

- Teacher: `{teacher}`
- Corpus: `{corpus}`
- Objective: {objective}, {steps} steps, {tokens} tokens in {precision}
- Validation loss: {validation_loss:.4f}{explained}

```python
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("path/of/this/folder", add_pooling_layer=False)
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
```
"""


def save_student(
    folder: Path, student: PreTrainedModel, teacher: Teacher, corpus: str, results: dict[str, Any]
) -> None:
    """Write config, weights, the teacher's tokenizer files and a card; the folder appears whole or not at all.

    Args:
        folder: must not hold anything else.
        student: encoder without pooler.
        teacher: source of the tokenizer files.
        corpus: how the card calls the corpus.
        results: figures of the stage, for the card.
    """
    writing = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(writing, ignore_errors=True)
    student.save_pretrained(writing, safe_serialization=True)
    for name in TOKENIZER_FILES:
        if (teacher.path / name).is_file():
            shutil.copyfile(teacher.path / name, writing / name)
    (writing / "README.md").write_text(_card(teacher, corpus, results))
    for file in writing.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(writing, folder)
    fsync_folder(folder.parent)


def _card(teacher: Teacher, corpus: str, results: dict[str, Any]) -> str:
    explained = results["explained_variance"]
    return CARD.format(
        name=f"{teacher.label} as {results['arch']}",
        teacher=teacher.spec,
        corpus=corpus,
        explained="" if explained is None else f"; explained variance of the teacher's hidden states: {explained:.3f}",
        **{key: value for key, value in results.items() if key != "explained_variance"},
    )
