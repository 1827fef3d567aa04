"""Options of the training stages; free of heavy imports, so that the command line reads them at once."""

from dataclasses import dataclass
from typing import Literal

from kdnas.errors import UsageError

PUBLISHED_RELATIONS = ("QQ", "KK", "VV")
ALL_RELATIONS = {one + other for one in "QKV" for other in "QKV"}
_AT_LEAST_ONE = (
    "steps", "batch_tokens", "accumulate", "batch_sentences", "validations", "validation_sentences", "log_every",
)  # fmt: skip


@dataclass(frozen=True)
class LoopOptions:
    """What all training stages share.

    Args:
        minutes: time to train; turned into a number of steps once, by measuring a few, and kept over restarts.
        steps: number of updates; overrides `minutes`.
        batch_tokens: padded tokens a batch; small ones teach more per token (`results/distillation`), large ones keep a GPU busy.
        accumulate: batches an update, over all processes: their gradients are averaged.
        batch_sentences: no more sentences a batch than this; null leaves it to `batch_tokens`.
        language_power: sentences of a language with n of them get a fraction of an epoch that is proportional to n to this power, as
            0.3 for multilingual corpora; null takes each sentence once.
        pair_fraction: fraction of the batches that hold pairs of sentences, joined as the tokenizer joins them.
        peak_lr: learning rate after the warm-up.
        schedule: how the learning rate falls after that, to 0: linear or cosine.
        warmup_fraction: fraction of the steps in which the learning rate rises.
        embedding_lr_factor: learning rate of the tables of embeddings, as a fraction of that of the rest.
        weight_decay: decay of matrices; biases and layer norms are not decayed.
        dropout: whether the student trains with dropout.
        data_workers: processes that make batches ahead; 0 makes each when its turn comes, which costs some 1 % of a step.
        precision: bf16 autocast or f32; auto takes bf16 where the hardware has it.
        seed: of the random weights and the order of the batches.
        validations: how many times the validation loss is measured on the way.
        validation_sentences: sentences of the validation split that are used.
        log_every: steps between training rows of the history.
        trackers: that get the same rows: tensorboard, mlflow.
        checkpoint_seconds: seconds between checkpoints, more where they are costly; 0 saves after every update.
    """

    minutes: float = 9
    steps: int | None = None
    batch_tokens: int = 1024
    accumulate: int = 1
    batch_sentences: int | None = None
    language_power: float | None = None
    pair_fraction: float = 0.25
    peak_lr: float = 8e-4
    schedule: Literal["linear", "cosine"] = "linear"
    warmup_fraction: float = 0.05
    embedding_lr_factor: float = 1.0
    weight_decay: float = 0.01
    dropout: bool = False
    data_workers: int = 0
    precision: Literal["auto", "bf16", "f32"] = "auto"
    seed: int = 0
    validations: int = 8
    validation_sentences: int = 2000
    log_every: int = 10
    trackers: tuple[str, ...] = ()
    checkpoint_seconds: float = 60

    def __post_init__(self) -> None:
        for name in ("minutes", "peak_lr", "embedding_lr_factor"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        if self.language_power is not None and not 0 <= self.language_power <= 1:
            raise UsageError(f"language_power is {self.language_power}; allowed is 0 to 1")
        if not 0 <= self.pair_fraction <= 1:
            raise UsageError(f"pair_fraction is {self.pair_fraction}; allowed is 0 to 1")
        if not 0 <= self.warmup_fraction < 1:
            raise UsageError(f"warmup_fraction is {self.warmup_fraction}; allowed is 0 up to, not including, 1")
        if self.weight_decay < 0 or self.checkpoint_seconds < 0 or self.data_workers < 0:
            raise UsageError("weight_decay, checkpoint_seconds and data_workers must not be negative")
        if self.schedule not in ("linear", "cosine"):
            raise UsageError(f"schedule is '{self.schedule}'; allowed are linear and cosine")
        if self.precision not in ("auto", "bf16", "f32"):
            raise UsageError(f"precision is '{self.precision}'; allowed are auto, bf16, f32")


@dataclass(frozen=True)
class StudentOptions(LoopOptions):
    """What both stages that teach a student share.

    Args:
        relations: of MiniLM-v2, each two letters of Q, K and V, as `QQ`.
        relation_heads: parts that queries, keys and values are cut into; must divide both widths. Null takes the
            published 48, or the largest common divisor below it.
        teacher_layer: teacher layer whose relations are imitated, 1-based; null takes the last but one, as published.
    """

    relations: tuple[str, ...] = PUBLISHED_RELATIONS
    relation_heads: int | None = None
    teacher_layer: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            not self.relations
            or len(set(self.relations)) < len(self.relations)
            or not set(self.relations) <= ALL_RELATIONS
        ):
            raise UsageError(
                f"relations is {', '.join(self.relations) or 'empty'}; allowed are different ones of "
                f"{', '.join(sorted(ALL_RELATIONS))}"
            )


@dataclass(frozen=True)
class DistillOptions(StudentOptions):
    """Distillation of hidden states.

    Args:
        start: what the student begins with: the teacher's embeddings and, cut to its shape, its layers; or embeddings alone.
        mapping: which teacher layers teach a student layer (Eq. 2).
        normalise: divide each layer's loss by the teacher's variance; false is the raw MSE of the paper.
        relation_weight: of MiniLM-v2's relations beside the hidden states, from the first step on; 0 leaves them out.
    """

    start: Literal["layers", "embeddings"] = "layers"
    mapping: Literal["last-1", "last", "uniform", "uniform+last"] = "uniform+last"
    normalise: bool = True
    relation_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_weight("relation_weight", self.relation_weight)


@dataclass(frozen=True)
class RefineOptions(StudentOptions):
    """MiniLM-v2 after the hidden states.

    Args:
        hidden_state_weight: weight of the last layer's hidden states (Eq. 1, divided by the teacher's variance) beside
            each relation: it holds the last layer's output; 0 is MiniLM-v2 as published.
    """

    minutes: float = 3
    peak_lr: float = 3e-4
    hidden_state_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_weight("hidden_state_weight", self.hidden_state_weight)


def _require_weight(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise UsageError(f"{name} is {value}; it must be 0 or more")
