"""Options of a search. No heavy imports: the command line must read them quickly."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from kdnas.distill.options import ObjectiveName
from kdnas.errors import UsageError
from kdnas.search.reward import ALPHA, BETA
from kdnas.search.strategies import STRATEGIES

CHOICES = {
    "evaluator": ("proxy", "full", "family"),
    "above_one": ("divide", "printed"),
    "epsilon_draw": ("each", "fraction"),
    "controller_memory": ("all", "episode"),
    "controller_update": ("result", "episode"),
    "controller_targets": ("standardised", "raw"),
    "controller_decay_each": ("episode", "epoch"),
}


@dataclass(frozen=True)
class ProxyOptions:
    """The short distillation that scores a candidate (the paper's mini-KD). All candidates see the same batches.

    Args:
        objective: what candidates learn, as in `kdnas distill`. The loss in the reward is that of the hidden states, or with
            embeddings the distance of the whole vectors, which is 1 - cosine unless `distill.embedding_loss` is `mse`.
        tokens: training tokens per candidate. The default ranks candidates like a budget 15 times larger with
            Kendall's tau 0.81 [0.68, 0.90] (`results/search/fidelity.md`); null if corpus_fraction sets the budget.
        corpus_fraction: fraction of the training split that makes the proxy set, instead of `tokens` (the paper: 0.3).
        epochs: passes over the proxy set; with `tokens`, the set is smaller by this factor (the paper: 4).
        batch_tokens: padded tokens per batch.
        batch_sentences: maximum sentences per batch; null limits a batch only by `batch_tokens`.
        peak_lr: learning rate after the warm-up.
        validation_sentences: number of held-out sentences for measuring the loss.
        cache_gb: largest size in GB of the teacher's states of the proxy set that are computed once and kept on disk; if they
            need more, the teacher runs again for every candidate.
    """

    objective: ObjectiveName = "hidden-state"
    tokens: int | None = 33_000
    corpus_fraction: float | None = None
    epochs: float = 1.0
    batch_tokens: int = 1024
    batch_sentences: int | None = None
    peak_lr: float = 8e-4
    validation_sentences: int = 512
    cache_gb: float = 2.0

    def __post_init__(self) -> None:
        if self.objective not in get_args(ObjectiveName):
            raise UsageError(f"proxy.objective is '{self.objective}'; allowed are {', '.join(get_args(ObjectiveName))}")
        if (self.tokens is None) == (self.corpus_fraction is None):
            raise UsageError(
                f"proxy.tokens is {self.tokens} and proxy.corpus_fraction {self.corpus_fraction}; "
                "give one of them and set the other to null"
            )
        if self.corpus_fraction is not None and not 0 < self.corpus_fraction <= 1:
            raise UsageError(f"proxy.corpus_fraction is {self.corpus_fraction}; allowed is above 0, at most 1")
        if self.tokens is not None and self.tokens < 1:
            raise UsageError(f"proxy.tokens is {self.tokens}; it must be at least 1")
        if not (self.epochs > 0 and self.peak_lr > 0):
            raise UsageError(f"proxy.epochs is {self.epochs}, .peak_lr {self.peak_lr}; both must be above 0")
        if self.batch_tokens < 16 or self.validation_sentences < 1:
            raise UsageError("proxy.batch_tokens must be at least 16 and proxy.validation_sentences at least 1")
        if self.batch_sentences is not None and self.batch_sentences < 1:
            raise UsageError(f"proxy.batch_sentences is {self.batch_sentences}; it must be at least 1")
        if self.cache_gb < 0:
            raise UsageError(f"proxy.cache_gb is {self.cache_gb}; it must not be negative (0 never caches)")


@dataclass(frozen=True)
class SearchOptions:
    """The search. Published values, except for the strategy and the number of candidates (the paper: 15 episodes of 20).

    Args:
        strategy: STRATEGIES.
        front: search for the front of loss, latency and memory instead of the best reward; not with FRONTLESS.
        max_latency_ms: largest latency of an architecture; with alpha 0, the lowest loss within it wins.
        max_latency_fraction: largest latency as a fraction of the teacher's (e.g. 0.5); null allows any. With the
            normalised loss, the best reward may be that of an architecture slower than the teacher (results/search/reward.md).
        max_megabytes: largest size of the weights in the precision of the table's engine.
        episodes: rounds of proposing, evaluating and learning.
        candidates_per_episode: architectures distilled per episode.
        alpha: exponent of the latency in the reward, at most 0 (Eq. 4).
        beta: fraction of the teacher's latency at which the latency factor is 1 (Eq. 4).
        above_one: reward of a loss above 1: Eq. 4 as `printed` prefers slow students there; `divide` divides by the latency
            factor instead.
        epsilon_start: for `kdnas`: fraction of random candidates in the first episode.
        epsilon_decay: for `kdnas`: decrease of that fraction per episode.
        epsilon_min: for `kdnas`: lower bound of that fraction.
        epsilon_draw: for `kdnas`: `each` makes each candidate random with that probability; `fraction` makes exactly that
            fraction of an episode random (the paper).
        controller_lr: for `kdnas`: peak learning rate of the controller.
        controller_epochs: for `kdnas`: passes over the results after each episode.
        controller_memory: for `kdnas`: train on `all` results so far, or on those of the last `episode` (the paper, Eq. 3).
        controller_update: for `kdnas`: one update per `result`, or one per pass over the whole `episode` (the paper, Eq. 3).
        controller_targets: for `kdnas`: rewards `standardised` by their mean and deviation, or `raw` ones (the paper).
        controller_square_decay: for `kdnas`: RMSProp's decay of the mean square of gradients (the paper: 0.95).
        controller_lr_decay: for `kdnas`: factor of the exponential schedule of the learning rate; 1 keeps the rate.
        controller_decay_each: for `kdnas`: apply that factor once per `episode` or per `epoch`; the paper does not say.
        evaluator: `proxy` distils candidates briefly on a proxy set; `full` distils them like `kdnas distill`, with the
            options of `distill`; `family` looks up the losses of a family's members, which share the weights of one training.
        baselines: distil the paper's hand-designed shapes (6L-384H, 6L-768H) too, after the search, if the space has their
            depth.
        seed: seed of all random choices of the search.
        proxy: how a candidate is scored.
    """

    strategy: str = "surrogate"
    front: bool = False
    max_latency_ms: float | None = None
    max_latency_fraction: float | None = None
    max_megabytes: float | None = None
    episodes: int = 4
    candidates_per_episode: int = 4
    alpha: float = ALPHA
    beta: float = BETA
    above_one: Literal["divide", "printed"] = "divide"
    epsilon_start: float = 1.0
    epsilon_decay: float = 0.05
    epsilon_min: float = 0.05
    epsilon_draw: Literal["each", "fraction"] = "each"
    controller_lr: float = 1e-4
    controller_epochs: int = 10
    controller_memory: Literal["all", "episode"] = "all"
    controller_update: Literal["result", "episode"] = "result"
    controller_targets: Literal["standardised", "raw"] = "standardised"
    controller_square_decay: float = 0.99
    controller_lr_decay: float = 0.95
    controller_decay_each: Literal["episode", "epoch"] = "episode"
    evaluator: Literal["proxy", "full", "family"] = "proxy"
    baselines: bool = False
    seed: int = 0
    proxy: ProxyOptions = field(default_factory=ProxyOptions)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UsageError(f"strategy is '{self.strategy}'; allowed are {', '.join(STRATEGIES)}")
        if self.front and STRATEGIES[self.strategy].reward_only:
            others = ", ".join(name for name, entry in STRATEGIES.items() if not entry.reward_only)
            raise UsageError(f"strategy '{self.strategy}' follows the reward, not a front; give one of {others}")
        for name in ("max_latency_ms", "max_latency_fraction", "max_megabytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name} is {value}; it must be above 0")
        for name in ("episodes", "candidates_per_episode", "controller_epochs"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("epsilon_start", "epsilon_decay", "epsilon_min"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed are 0 to 1")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is '{getattr(self, name)}'; allowed are {', '.join(allowed)}")
        for name in ("controller_square_decay", "controller_lr_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is above 0, at most 1")
        if self.alpha > 0 or not self.beta > 0:
            raise UsageError(f"alpha is {self.alpha}, beta {self.beta}; alpha must be at most 0, beta above 0")
        if not self.controller_lr > 0:
            raise UsageError(f"controller_lr is {self.controller_lr}; it must be above 0")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must not be negative")


def describe_strategies(text: str) -> str:
    """A docstring with the registered strategies for its placeholders; the help of the commands is made from it."""
    summaries = "; ".join(f"`{name}`, {entry.summary}" for name, entry in STRATEGIES.items())
    without_front = " and ".join(f"`{name}`" for name, entry in STRATEGIES.items() if entry.reward_only)
    return text.replace("STRATEGIES", summaries).replace("FRONTLESS", without_front)


SearchOptions.__doc__ = describe_strategies(SearchOptions.__doc__ or "")
