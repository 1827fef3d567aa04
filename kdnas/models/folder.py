"""A trained model on disk: a stock Hugging Face folder, alone or in the artifact of the stage that made it."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kdnas.store.artifact import MANIFEST, Artifact, fsync_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODELS = ("student", "teacher")  # folders of artifacts that hold a model: of distill and refine, and of pretrain
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


def model_in(path: Path) -> Path:
    """The Hugging Face folder of a model: `student/` or `teacher/` of a finished artifact, any other path as it stands.

    Raises:
        UsageError: the artifact is damaged or of a newer schema.
    """
    for name in MODELS:
        if (path / MANIFEST).is_file() and (path / name).is_dir():
            Artifact.load(path)
            return path / name
    return path


def save_model(folder: Path, model: "PreTrainedModel", tokenizer: Path, card: str) -> None:
    """Write config, weights, tokenizer files and a card; the folder appears whole or not at all.

    Args:
        folder: must not hold anything else.
        model: on the CPU.
        tokenizer: folder of the tokenizer files.
        card: text of README.md.
    """
    writing = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(writing, ignore_errors=True)
    model.save_pretrained(writing, safe_serialization=True)
    copy_tokenizer(tokenizer, writing)
    (writing / "README.md").write_text(card)
    for file in writing.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(writing, folder)
    fsync_folder(folder.parent)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer files of a model's folder into another one's."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
