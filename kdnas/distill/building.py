"""Common parts of the artifacts of all training stages: key, disk space and the processes that build them."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kdnas.distill.options import (
    EMBEDDING,
    LANGUAGE_POWER,
    LARGE_VOCABULARY,
    DistillOptions,
    LoopOptions,
    StudentOptions,
)
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact, build
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

if TYPE_CHECKING:
    from kdnas.distill.processes import Work

Options = TypeVar("Options", bound=StudentOptions)

# Float32 weights and two moments in three checkpoints (two kept, one being written), plus the model.
COPIES_ON_DISK = 3 * 3 + 1


def build_stage(
    home: Path, kind: str, label: str, config: dict[str, Any], inputs: dict[str, str], work: "Work", space: int
) -> Artifact:
    """Call `kdnas.store.artifact.build` in all processes of `accelerate launch` together; `space` is in bytes."""
    from kdnas.distill.processes import build_together

    return build_together(lambda all_work: build(home, kind, label, config, inputs, all_work, space), work)


def common_corpus(home: Path, corpus: str, text: TextOptions, teacher: Teacher) -> Corpus:
    """The corpus. The main process builds it, the others read it."""
    from kdnas.distill.processes import processes

    with processes().main_process_first():
        return build_corpus(home, corpus, text, teacher)


def require_possible(options: LoopOptions) -> None:
    """Raise UsageError if a tracker is not installed, or the batches do not divide evenly among the processes."""
    from kdnas.distill.processes import require_even
    from kdnas.distill.tracking import require_trackers

    require_trackers(options.trackers)
    require_even(options.accumulate)


def settled(options: Options, corpus: Corpus, teacher: Teacher) -> Options:
    """The options with those decided that depend on the corpus and the vocabulary: `language_power` and `embedding_rows`."""
    power, rows = options.language_power, options.embedding_rows
    if power is None and len(corpus.train.language_counts) > 1:
        power = LANGUAGE_POWER
    if rows == "auto":
        rows = "corpus" if teacher.config["vocab_size"] > LARGE_VOCABULARY else "all"
    return replace(options, language_power=power, embedding_rows=rows)


def deciding(options: LoopOptions) -> dict[str, Any]:
    """The options that affect the result: all except those for checkpoints, data workers and trackers.

    Artifacts of earlier versions, which trained all rows of the word embeddings and only hidden states, keep their keys.
    """
    others = {"checkpoint_seconds", "data_workers", "trackers"}
    if getattr(options, "embedding_rows", None) in ("auto", "all"):
        others.add("embedding_rows")
    if not getattr(options, "teaches_embeddings", False):
        others |= {"objective", *EMBEDDING}
    return {key: value for key, value in asdict(options).items() if key not in others}


def shared_with_candidates(options: DistillOptions, objective: str) -> dict[str, Any]:
    """The options of a distillation that the short distillations of the search's candidates use, too.

    Args:
        options: options of the distillation.
        objective: objective of the candidates.
    """
    names = ["start", "mapping", "projections", "loss_scale"]
    if objective != "hidden-state":
        names += [name for name in EMBEDDING if name != "contrastive_weight"]
    return {name: getattr(options, name) for name in names}


def needed_bytes(arch: Arch, rows: int) -> int:
    """Disk space in bytes to train a model with this number of rows in all its embedding tables."""
    return 4 * COPIES_ON_DISK * (rows * arch.hidden + arch.layer_parameters)
