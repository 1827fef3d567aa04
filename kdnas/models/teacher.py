"""Teachers: encoders of a known family (`kdnas.models.family`), from a hub id, a folder or the packaged model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdnas.errors import KdnasError, UsageError
from kdnas.models.arch import Arch
from kdnas.models.family import family_of, require_family, shape_of, student_shape_of
from kdnas.models.folder import model_digest, model_in
from kdnas.models.packaged import HOME, SCHEME, SHAPE, packaged_folder, require_unchanged
from kdnas.models.parts import Shape
from kdnas.store.digest import file_sha256

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

BUILTIN = "builtin:minilm-l6"
SHAPES = Path(__file__).resolve().parent / "shapes"
BUILTIN_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Files of a teacher; no other files are downloaded from a hub.
HUB_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "*.model",
    "modules.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "config_sentence_transformers.json",
)


@dataclass(frozen=True)
class Teacher:
    """A teacher on local disk; checked but not loaded."""

    spec: str
    path: Path
    config: dict[str, Any]
    digest: str

    @property
    def sizes(self) -> Shape:
        """Sizes of its layers and embedding tables."""
        return shape_of(self.config)

    @property
    def student_sizes(self) -> Shape:
        """Like `sizes`, but with the embedding tables of its students."""
        return student_shape_of(self.config)

    @property
    def layers(self) -> int:
        return self.sizes.layers

    @property
    def hidden(self) -> int:
        return self.sizes.hidden

    @property
    def shape(self) -> Arch | None:
        """Architecture of its layers; None if no student can have it, for example with another activation."""
        try:
            return self.sizes.arch
        except UsageError:
            return None

    @property
    def has_weights(self) -> bool:
        """Whether it is a model, not only a shape."""
        return (self.path / "model.safetensors").is_file()

    @property
    def label(self) -> str:
        """Last part of the spec, safe in a file name."""
        return self.spec.rstrip("/").replace(":", "/").rsplit("/", 1)[-1]


def resolve_teacher(spec: str, home: Path = HOME) -> Teacher:
    """Find a teacher and check its family, weights and tokenizer.

    Args:
        spec: a packaged teacher such as `builtin:minilm-l6`, a folder, or a hub id such as `FacebookAI/xlm-roberta-base`.
        home: root folder of all artifacts, below which fetched teachers lie.

    Raises:
        UsageError: the teacher is not found, its family is not supported, or safetensors or tokenizer are missing.
        KdnasError: a hub id was given and the hub cannot be reached, or a packaged teacher is not fetched or differs from its
            hash.
    """
    path = _locate(spec, home)
    if spec == SHAPE:
        raise UsageError(
            f"teacher '{spec}': a shape without weights, only for `kdnas latency-table`; the model is "
            "FacebookAI/xlm-roberta-base on the hub"
        )
    config = read_config(spec, path)
    weights = path / "model.safetensors"
    if not weights.is_file():
        raise UsageError(
            f"teacher '{spec}': {weights} is missing; pickled weights are never loaded, so convert to safetensors"
        )
    if not (path / "tokenizer.json").is_file():
        raise UsageError(
            f"teacher '{spec}': {path / 'tokenizer.json'} is missing; save its fast tokenizer there "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(folder))"
        )
    if spec == BUILTIN and (sha := file_sha256(weights)) != BUILTIN_SHA256:
        raise KdnasError(
            f"teacher '{spec}': {weights} has SHA-256 {sha}, expected {BUILTIN_SHA256}; reinstall the package"
        )
    digest = model_digest(path)
    require_unchanged(spec, home, path, digest)
    return Teacher(spec, path, config, digest)


def resolve_shape(spec: str, home: Path = HOME) -> Teacher:
    """Find a model of which only the shape is needed, for example for timing. Weights and tokenizer may be missing.

    Args:
        spec: `builtin:xlm-roberta-base`, or as in `resolve_teacher`.
        home: root folder of all artifacts.

    Raises:
        UsageError: the model is not found, or its family is not supported.
        KdnasError: a hub id was given and the hub cannot be reached, or a packaged teacher is not fetched.
    """
    path = _locate(spec, home)
    if (path / "model.safetensors").is_file():
        return resolve_teacher(spec, home)  # so that other commands share its corpus and tables
    return Teacher(spec, path, read_config(spec, path), file_sha256(path / "config.json"))


def resolve_tokenizer(spec: str | None, model: Teacher, home: Path = HOME) -> Teacher:
    """Choose the tokenizer: the requested one, else the model's, else, for a shape without a tokenizer, the packaged one.

    Args:
        spec: folder with a `tokenizer.json`, a packaged teacher, a hub id, or None.
        model: the model to time.
        home: root folder of all artifacts.

    Raises:
        UsageError: there is no tokenizer.
        KdnasError: a hub id was given and the hub cannot be reached, or a packaged teacher is not fetched.
    """
    if spec in (None, model.spec) and (model.path / "tokenizer.json").is_file():
        return model
    return open_tokenizer(BUILTIN if spec is None else spec, home)


def open_tokenizer(spec: str, home: Path = HOME) -> Teacher:
    """Find a tokenizer, with or without a model.

    Args:
        spec: folder with a `tokenizer.json`, a packaged teacher such as `builtin:minilm-l6`, or a hub id.
        home: root folder of all artifacts.

    Raises:
        UsageError: there is no tokenizer.
        KdnasError: a hub id was given and the hub cannot be reached, or a packaged teacher is not fetched.
    """
    path = _locate(spec, home, "tokenizer")
    file = path / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"tokenizer '{spec}': {file} is missing; give a folder with a fast tokenizer, or '{BUILTIN}'")
    return Teacher(spec, path, {}, file_sha256(file))


def read_config(spec: str, path: Path, what: str = "teacher") -> dict[str, Any]:
    """Read and check the configuration of a model folder.

    Raises:
        UsageError: the configuration is missing, damaged or of an unsupported family.
    """
    file = path / "config.json"
    if not file.is_file():
        raise UsageError(f"{what} '{spec}': {file} is missing; give the folder of a Hugging Face encoder")
    try:
        config: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise UsageError(f"{what} '{spec}': {file} is not valid JSON ({error})") from error
    require_family(config.get("model_type"), f"{what} '{spec}'")
    return config


def _locate(spec: str, home: Path, what: str = "teacher") -> Path:
    if spec == SHAPE:
        return SHAPES / SHAPE.removeprefix(SCHEME)
    if spec.startswith(SCHEME):
        return packaged_folder(spec, home, what)
    if Path(spec).is_dir():
        return model_in(Path(spec))
    if spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        raise UsageError(f"{what} '{spec}': no such folder; give a folder, a hub id (owner/name) or '{BUILTIN}'")
    return _fetch(spec, what)


def _fetch(spec: str, what: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(spec, allow_patterns=list(HUB_FILES)))
    except HFValidationError as error:
        raise UsageError(f"{what} '{spec}': neither a folder nor a hub id ({error})") from error
    except GatedRepoError as error:
        raise KdnasError(f"{what} '{spec}': the hub requires a login; run `huggingface-cli login` first") from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"{what} '{spec}': no such folder here and no such model on the hub") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise KdnasError(
            f"{what} '{spec}': no such folder here, and the hub cannot be reached; check the network, "
            f"give a local folder, or use '{BUILTIN}'"
        ) from error


def load_encoder(path: Path) -> "PreTrainedModel":
    """Load an encoder without pooler, frozen, in evaluation mode and float32.

    This works for teachers and students, because all are stock Hugging Face folders.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # no warning about a checkpoint's pooler, which is left out on purpose
    model = AutoModel.from_pretrained(
        path,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **family_of(load_config(path)).without_pooler,
    )
    model.requires_grad_(False)
    return model.eval()


def load_config(path: Path) -> "PretrainedConfig":
    """Typed configuration of a local model folder."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def load_tokenizer(path: Path) -> "PreTrainedTokenizerFast":
    """Fast tokenizer of a local model folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False, use_fast=True)
