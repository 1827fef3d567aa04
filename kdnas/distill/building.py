"""What the artifacts of all training stages have in common: their key, their disk space, the processes that make them."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdnas.distill.options import LoopOptions
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact, build
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

if TYPE_CHECKING:
    from kdnas.distill.processes import Work

# Float32 weights and two moments, in the two checkpoints that are kept and the one being written; then the model.
COPIES_ON_DISK = 3 * 3 + 1


def build_stage(
    home: Path, kind: str, label: str, config: dict[str, Any], inputs: dict[str, str], work: "Work", space: int
) -> Artifact:
    """`kdnas.store.artifact.build`, by all processes of `accelerate launch` together; `space` is in bytes."""
    from kdnas.distill.processes import build_together

    return build_together(lambda all_work: build(home, kind, label, config, inputs, all_work, space), work)


def common_corpus(home: Path, corpus: str, text: TextOptions, teacher: Teacher) -> Corpus:
    """Built by the first of several processes, and read by the others."""
    from kdnas.distill.processes import processes

    with processes().main_process_first():
        return build_corpus(home, corpus, text, teacher)


def require_possible(options: LoopOptions) -> None:
    """Raise UsageError where a tracker is not installed, or batches cannot be dealt out to the processes."""
    from kdnas.distill.processes import require_even
    from kdnas.distill.tracking import require_trackers

    require_trackers(options.trackers)
    require_even(options.accumulate)


def deciding(options: LoopOptions) -> dict[str, Any]:
    """The options that decide the result: how often checkpoints are written, who makes the batches and who is told do not."""
    others = ("checkpoint_seconds", "data_workers", "trackers")
    return {key: value for key, value in asdict(options).items() if key not in others}


def needed_bytes(arch: Arch, rows: int) -> int:
    """Disk space of the training of a model with so many rows in all tables of its embeddings."""
    return 4 * COPIES_ON_DISK * (rows * arch.hidden + arch.layer_parameters)
