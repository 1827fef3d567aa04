"""The model to export: a Hugging Face folder with its task and labels; incomplete models are refused."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.export.folder import MULTI_LABEL, WEIGHTS
from kdnas.export.silence import silence_transformers
from kdnas.export.thresholds import THRESHOLDS
from kdnas.models.family import family_of, shape_of
from kdnas.models.folder import model_in
from kdnas.models.head import Head, Prompts, read_head, read_prompts
from kdnas.models.packaged import HOME
from kdnas.models.pooling import Pooling, pooling_of
from kdnas.models.teacher import load_tokenizer, resolve_teacher

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
LONGEST = 512
HEADS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}
OTHER_HEADS = ("ForMultipleChoice", "ForNextSentencePrediction")  # not exported


@dataclass(frozen=True)
class Checkpoint:
    """A model folder that can be exported.

    Args:
        path: the folder.
        config: its config.json.
        digest: SHA-256 over weights, configuration and tokenizer.
    """

    path: Path
    config: dict[str, Any]
    digest: str

    @property
    def task(self) -> str:
        """The task of the head; `feature-extraction` for an encoder, independent of its pretraining head."""
        for name in self.config.get("architectures") or []:
            for head, task in HEADS.items():
                if name.endswith(head):
                    return task
        return "feature-extraction"

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the logits; empty for tasks without classes."""
        if not self.task.endswith("classification"):
            return []
        names = self.config.get("id2label") or {str(number): f"LABEL_{number}" for number in range(2)}
        return [str(names[key]) for key in sorted(names, key=int)]

    @property
    def multi_label(self) -> bool:
        """Whether the labels of a text classifier are independent (sigmoid instead of softmax)."""
        return self.task == "text-classification" and self.config.get("problem_type") == MULTI_LABEL

    @property
    def pad_id(self) -> int:
        return int(self.config.get("pad_token_id") or 0)

    @property
    def pooling(self) -> Pooling:
        """Pooling of an encoder according to the model's files; `mean` if they do not state it."""
        return pooling_of(self.path) if self.task == "feature-extraction" else "mean"

    @property
    def head(self) -> Head | None:
        """The linear head of an encoder after its pooling; None for models without one."""
        return read_head(self.path) if self.task == "feature-extraction" else None

    @property
    def prompts(self) -> Prompts:
        """The prompts of an encoder."""
        return read_prompts(self.path) if self.task == "feature-extraction" else Prompts()

    @property
    def max_seq_len(self) -> int:
        """Maximum input length in tokens: the number of positions, at most 512."""
        return min(LONGEST, shape_of(self.config).positions)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a session, without the forms."""
        return {
            "schema": 1,
            "task": self.task,
            "labels": self.labels,
            "hidden": shape_of(self.config).hidden,
            "max_seq_len": self.max_seq_len,
            "pad_id": self.pad_id,
            "pooling": self.pooling,
            **({"problem_type": MULTI_LABEL} if self.multi_label else {}),
        }


def open_checkpoint(spec: str, home: Path = HOME) -> Checkpoint:
    """Find a model and check its kind, weights and tokenizer.

    Args:
        spec: a Hugging Face folder, the artifact of `kdnas distill` or `refine`, a hub id or a packaged teacher.
        home: root folder of all artifacts, below which fetched teachers lie.

    Raises:
        UsageError: the model is not found, lacks safetensors or a tokenizer, or its kind, head or pooling is not supported
            (pooling: mean or first token).
    """
    folder = model_in(Path(spec))
    if folder != Path(spec):
        spec = str(folder)
    try:
        found = resolve_teacher(spec, home)
    except UsageError as error:
        raise UsageError(str(error).replace("teacher", "model", 1)) from error
    head = next((name for name in found.config.get("architectures") or [] if name.endswith(OTHER_HEADS)), None)
    if head is not None:
        raise UsageError(f"model '{spec}': {head} is not exported; give an encoder or one of {', '.join(HEADS)}")
    checkpoint = Checkpoint(found.path, found.config, found.digest)
    _ = checkpoint.pooling, checkpoint.head, checkpoint.prompts  # raises here instead of at the end of the export
    if checkpoint.task.endswith("classification"):
        _require_labels(spec, checkpoint)
    return checkpoint


def _require_labels(spec: str, checkpoint: Checkpoint) -> None:
    """Refuse models whose outputs a session misinterprets; text models with one label are regressions, as in `transformers`."""
    count = len(checkpoint.labels)
    number = count == 1 and checkpoint.task == "text-classification"
    meant = "regression" if number else MULTI_LABEL if checkpoint.multi_label else "single_label_classification"
    kind = checkpoint.config.get("problem_type") or meant
    if kind != meant or not (number or count >= 2):
        raise UsageError(
            f"model '{spec}': {kind} with {count} labels is not exported; single-label classifiers and multi-label "
            "classifiers of texts with at least two labels, and regressions of texts to one number, are (problem_type and "
            "id2label in config.json)"
        )


def load_model(checkpoint: Checkpoint) -> Any:
    """The PyTorch model in float32, frozen, in evaluation mode; an encoder has no pooler.

    Raises:
        UsageError: the file lacks weights, which would stay random, or its shapes differ from the configuration.
    """
    import torch
    import transformers

    options: dict[str, Any] = {
        "use_safetensors": True,
        "local_files_only": True,
        "trust_remote_code": False,
        "dtype": torch.float32,
        "output_loading_info": True,
    }
    loader, more = transformers.AutoModel, family_of(checkpoint.config).without_pooler
    if checkpoint.task != "feature-extraction":
        head = next(head for head, task in HEADS.items() if task == checkpoint.task)
        loader, more = getattr(transformers, f"AutoModel{head}"), {}
    try:
        # No warning about the pooler's weights, which are not used; missing weights raise below.
        with silence_transformers():
            model, info = loader.from_pretrained(checkpoint.path, **more, **options)
    except (RuntimeError, ValueError, KeyError) as error:  # mismatched sizes, impossible heads, an unknown activation
        first = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise UsageError(f"model '{checkpoint.path}': cannot be loaded ({first}); check its config.json") from error
    if info["missing_keys"]:
        lacking = ", ".join(sorted(info["missing_keys"])[:3])
        raise UsageError(
            f"model '{checkpoint.path}': its model.safetensors lacks {len(info['missing_keys'])} weights ({lacking}, "
            f"...) of a {type(model).__name__}; they would be random. Fine-tune it first, or correct config.json"
        )
    return model.requires_grad_(False).eval()


def copy_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy weights, config.json and the tokenizer, unless an interrupted export copied them already."""
    copy_description(checkpoint, folder)
    target = folder / WEIGHTS
    if not target.is_file():
        shutil.copyfile(checkpoint.path / WEIGHTS, folder / f"{WEIGHTS}.scratch")
        (folder / f"{WEIGHTS}.scratch").rename(target)


def copy_description(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy config.json, thresholds and the tokenizer, and generate the tokenizer files that the model lacks."""
    shutil.copyfile(checkpoint.path / "config.json", folder / "config.json")
    if (checkpoint.path / THRESHOLDS).is_file():
        shutil.copyfile(checkpoint.path / THRESHOLDS, folder / THRESHOLDS)
    made = folder / "tokenizer.made"
    for name in TOKENIZER_FILES:
        if not (checkpoint.path / name).is_file() and not made.is_dir():
            load_tokenizer(checkpoint.path).save_pretrained(made)
        source = checkpoint.path / name if (checkpoint.path / name).is_file() else made / name
        if source.is_file():
            shutil.copyfile(source, folder / name)
    shutil.rmtree(made, ignore_errors=True)
