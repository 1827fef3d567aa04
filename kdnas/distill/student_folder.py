"""A trained student on disk: a stock Hugging Face folder without teacher, pooler or projections."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdnas.artifact import MANIFEST, Artifact, digest_of, file_sha256, fsync_folder
from kdnas.card import inherited, with_metadata
from kdnas.errors import UsageError
from kdnas.teacher import Teacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STAGES = ("distill", "refine")  # those whose artifact holds a student

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

METADATA = {"library_name": "transformers", "pipeline_tag": "feature-extraction", "tags": ["distillation", "kdnas"]}
CARD = """# {name}

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


def student_in(path: Path) -> Path:
    """The Hugging Face folder of a student: `student/` of the finished artifact at `path`, any other path as it stands.

    Raises:
        UsageError: the artifact is damaged or of a newer schema.
    """
    if (path / MANIFEST).is_file() and (path / "student").is_dir():
        Artifact.load(path)
        return path / "student"
    return path


def find_student(path: Path) -> tuple[Path, str]:
    """Folder and digest of a student, given its artifact's folder, the `student` folder in it, or any model folder.

    Raises:
        UsageError: no student there.
    """
    folder = student_in(path)
    root = folder.parent if folder.name == "student" else folder
    if (root / MANIFEST).is_file():
        artifact = Artifact.load(root)
        if artifact.manifest["kind"] not in STAGES:
            raise UsageError(f"student '{path}': a '{artifact.manifest['kind']}' artifact; give a distilled student")
        return folder, artifact.digest
    files = [folder / "config.json", folder / "model.safetensors"]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UsageError(f"student '{path}': {missing[0]} is missing; give the folder that `kdnas distill` printed")
    return folder, digest_of([file_sha256(file) for file in files])


def save_student(
    folder: Path, student: "PreTrainedModel", teacher: Teacher, corpus: str, results: dict[str, Any]
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
    text = CARD.format(
        name=f"{teacher.label} as {results['arch']}",
        teacher=teacher.spec,
        corpus=corpus,
        explained="" if explained is None else f"; explained variance of the teacher's hidden states: {explained:.3f}",
        **{key: value for key, value in results.items() if key != "explained_variance"},
    )
    return with_metadata(inherited(teacher.path) | METADATA, text)
