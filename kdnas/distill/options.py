"""Options of the training stages, without heavy imports, so that the command line starts fast."""

from dataclasses import dataclass
from typing import Literal, get_args

from kdnas.errors import UsageError

LANGUAGE_POWER = 0.3  # of XLM-R (arXiv 1911.02116, Section 3), for corpora of several languages
LARGE_VOCABULARY = 65_536  # tokens above which `embedding_rows` is `corpus` by default
PUBLISHED_RELATIONS = ("QQ", "KK", "VV")
ALL_RELATIONS = {one + other for one in "QKV" for other in "QKV"}
ObjectiveName = Literal["hidden-state", "embedding", "hidden-state+embedding"]
# Options of the objectives with embeddings alone.
EMBEDDING = ("embedding_loss", "embedding_weight", "similarity_weight", "matryoshka", "contrastive_weight")
_AT_LEAST_ONE = (
    "steps", "batch_tokens", "accumulate", "batch_sentences", "validations", "validation_sentences", "log_every",
)  # fmt: skip


@dataclass(frozen=True)
class LoopOptions:
    """Options that all training stages share.

    Args:
        minutes: training time; converted once to a number of steps by timing a few, and kept across restarts.
        steps: number of updates; overrides `minutes`.
        batch_tokens: padded tokens per batch; small batches are more sample-efficient (`results/distillation`), large ones keep
            a GPU busy.
        accumulate: batches per update, over all processes; their gradients are averaged.
        batch_sentences: maximum sentences per batch; null limits a batch only by `batch_tokens`.
        language_power: exponent of language sampling: a language with n sentences is drawn in proportion to n to this power,
            each sentence at most 4 times per epoch; 1 uses each sentence once per epoch. Null is 0.3 in distillation and
            refinement on a corpus of several languages, else 1.
        pair_fraction: fraction of the batches that contain sentence pairs, joined as by the tokenizer.
        peak_lr: learning rate after the warm-up.
        schedule: how the learning rate falls to 0 after the warm-up: linear or cosine.
        warmup_fraction: fraction of the steps in which the learning rate rises.
        embedding_lr_factor: learning rate of the embedding tables, as a multiple of the others' learning rate.
        weight_decay: weight decay of matrices; biases and layer norms get none.
        dropout: whether the student trains with dropout.
        data_workers: processes that prepare batches ahead; 0 prepares them in the training process, which costs about 1 % of a
            step.
        precision: bf16 autocast or f32; auto uses bf16 if the hardware supports it.
        seed: seed of the random weights and the batch order.
        validations: number of times that training measures the validation loss.
        validation_sentences: number of sentences of the validation split to use.
        log_every: steps between training rows in `history.jsonl`.
        trackers: experiment trackers that get the same rows: tensorboard, mlflow.
        checkpoint_seconds: seconds between checkpoints, more if writing is slow; 0 saves after every update.
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
            raise UsageError(f"warmup_fraction is {self.warmup_fraction}; it must be at least 0 and below 1")
        if self.weight_decay < 0 or self.checkpoint_seconds < 0 or self.data_workers < 0:
            raise UsageError("weight_decay, checkpoint_seconds and data_workers must not be negative")
        if self.schedule not in ("linear", "cosine"):
            raise UsageError(f"schedule is '{self.schedule}'; allowed are linear and cosine")
        if self.precision not in ("auto", "bf16", "f32"):
            raise UsageError(f"precision is '{self.precision}'; allowed are auto, bf16, f32")


@dataclass(frozen=True)
class StudentOptions(LoopOptions):
    """Options that distillation and refinement share.

    Args:
        start: initial weights of a new student: `layers` uses the teacher's embeddings and layers, cut to the student's shape;
            `embeddings` uses only the embeddings; `random` uses nothing of the teacher, as the paper does.
        relations: MiniLM-v2 relations, each two of the letters Q, K and V, for example `QQ`.
        relation_heads: number of relation heads that queries, keys and values are split into; must divide both widths. Null
            uses the published 48, or the largest common divisor below it.
        teacher_layer: teacher layer whose relations the student imitates, 1-based; null uses the second to last, as published.
        embedding_rows: rows of the word embeddings to train: `all`, or those of the tokens of the `corpus`, where each update
            reads and writes only the rows of its batch; the other rows keep their start. `auto` is `corpus` for vocabularies
            of more than 65,536 tokens.
    """

    start: Literal["layers", "embeddings", "random"] = "layers"
    relations: tuple[str, ...] = PUBLISHED_RELATIONS
    relation_heads: int | None = None
    teacher_layer: int | None = None
    embedding_rows: Literal["auto", "all", "corpus"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_one_of("start", self.start, ("layers", "embeddings", "random"))
        _require_one_of("embedding_rows", self.embedding_rows, ("auto", "all", "corpus"))
        if (
            not self.relations
            or len(set(self.relations)) < len(self.relations)
            or not set(self.relations) <= ALL_RELATIONS
        ):
            raise UsageError(
                f"relations is {', '.join(self.relations) or 'empty'}; give one or more different ones of "
                f"{', '.join(sorted(ALL_RELATIONS))}"
            )


@dataclass(frozen=True)
class DistillOptions(StudentOptions):
    """Options of the distillation of hidden states and embeddings.

    Args:
        objective: what the student learns: the teacher's `hidden-state`s; its `embedding`s, one vector a text, through a linear
            head that becomes part of the student; or both, `hidden-state+embedding`.
        mapping: which teacher layers each student layer learns from (Eq. 2).
        projections: initial weights of Eq. 1's linear maps: `fitted` by ridge regression of the teacher's states, or `random`.
        loss_scale: loss of hidden states: `normalised` is the mean over the pairs of layers, each divided by the variance of its
            teacher layer; `mean` is the mean of the raw errors; `sum` is their sum, Eq. 1 as printed.
        relation_weight: weight of MiniLM-v2's relation loss, added to the hidden-state loss from the first step; 0 omits it.
        embedding_loss: distance of the embeddings: `cosine` is 1 - cosine, `mse` is the squared distance from the teacher's
            unit vector.
        embedding_weight: weight of the embeddings relative to the hidden states, with `hidden-state+embedding`.
        similarity_weight: weight of the difference of the batch's similarity matrices, relative to the distance; 0 omits it.
        matryoshka: shorter widths at which the first dimensions of the embedding are taught, too, for example 64,128,256.
        contrastive_weight: weight of the contrastive term of each text and its neighbour of the same group (`text.group`),
            relative to the distance; 0 omits it.
    """

    objective: ObjectiveName = "hidden-state"
    mapping: Literal["last-1", "last", "uniform", "uniform+last"] = "uniform+last"
    projections: Literal["fitted", "random"] = "fitted"
    loss_scale: Literal["normalised", "mean", "sum"] = "normalised"
    relation_weight: float = 0.0
    embedding_loss: Literal["cosine", "mse"] = "cosine"
    embedding_weight: float = 1.0
    similarity_weight: float = 0.0
    matryoshka: tuple[int, ...] = ()
    contrastive_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_embedding()
        _require_one_of("projections", self.projections, ("fitted", "random"))
        _require_one_of("loss_scale", self.loss_scale, ("normalised", "mean", "sum"))
        _require_weight("relation_weight", self.relation_weight)

    def _check_embedding(self) -> None:
        _require_one_of("objective", self.objective, get_args(ObjectiveName))
        _require_one_of("embedding_loss", self.embedding_loss, ("cosine", "mse"))
        for name in ("embedding_weight", "similarity_weight", "contrastive_weight"):
            _require_weight(name, getattr(self, name))
        if self.matryoshka and (min(self.matryoshka) < 1 or len(set(self.matryoshka)) < len(self.matryoshka)):
            raise UsageError(f"matryoshka is {list(self.matryoshka)}; give different widths of at least 1")
        used = [name for name in EMBEDDING if getattr(self, name) != getattr(type(self), name)]
        if self.objective == "hidden-state" and used:
            raise UsageError(f"{used[0]} is for --objective embedding and hidden-state+embedding; give one of them")
        if self.objective != "hidden-state" and self.relation_weight:
            raise UsageError(f"relation_weight is for --objective hidden-state; the objective is {self.objective}")

    @property
    def teaches_embeddings(self) -> bool:
        """Whether the student gets a head that maps to the teacher's embeddings."""
        return self.objective != "hidden-state"


@dataclass(frozen=True)
class RefineOptions(StudentOptions):
    """Options of the refinement by MiniLM-v2, after the distillation of hidden states.

    Args:
        hidden_state_weight: weight of the last layer's hidden-state loss (Eq. 1, divided by the teacher's variance) relative
            to each relation. With relations alone the last layer's output drifts, and tasks lose what was learnt; 0 is MiniLM-v2
            as published.
    """

    minutes: float = 3
    peak_lr: float = 3e-4
    hidden_state_weight: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_weight("hidden_state_weight", self.hidden_state_weight)


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is '{value}'; allowed are {', '.join(allowed)}")


def _require_weight(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise UsageError(f"{name} is {value}; it must be 0 or more")
