"""Options of a search; free of heavy imports, so that the command line reads them at once."""

from dataclasses import dataclass, field
from typing import Literal

from kdnas.errors import UsageError
from kdnas.search.reward import ALPHA, BETA

STRATEGIES = ("kdnas", "surrogate", "random", "evolution", "tpe", "gp", "nsga2")
ONE_NUMBER = ("kdnas", "evolution")  # strategies that follow the reward alone


@dataclass(frozen=True)
class ProxyOptions:
    """The short distillation that scores a candidate (the paper's mini-KD). All candidates see the same batches.

    Args:
        tokens: training tokens a candidate, by default the fewest that rank as 15 times more do (Kendall's tau 0.8,
            `results/search`); null where corpus_fraction decides.
        corpus_fraction: share of the training split that makes the proxy set, in place of `tokens` (the paper: 0.3).
        epochs: passes over the proxy set; with `tokens`, the set is that much smaller (the paper: 4).
        batch_tokens: padded tokens a batch.
        peak_lr: learning rate after the warm-up.
        warmup_share: share of the steps in which the learning rate rises.
        validation_sentences: held-out sentences that the loss is measured on.
        cache_gb: keep the teacher's states of the proxy set on disk, computed once, where they need at most this many GB;
            above it the teacher runs again for every candidate.
    """

    tokens: int | None = 33_000
    corpus_fraction: float | None = None
    epochs: float = 1.0
    batch_tokens: int = 1024
    peak_lr: float = 8e-4
    warmup_share: float = 0.05
    validation_sentences: int = 512
    cache_gb: float = 2.0

    def __post_init__(self) -> None:
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
        if not 0 <= self.warmup_share < 1:
            raise UsageError(f"proxy.warmup_share is {self.warmup_share}; allowed is 0 up to, not including, 1")
        if self.cache_gb < 0:
            raise UsageError(f"proxy.cache_gb is {self.cache_gb}; it must not be negative (0 never caches)")


@dataclass(frozen=True)
class SearchOptions:
    """The search. Published values, but for the strategy and the number of candidates (the paper: 15 episodes of 20).

    Args:
        strategy: who proposes: `surrogate`, what is most like the teacher, then a Gaussian process of the loss; `kdnas`, the
            published LSTM; `random`; `evolution`, regularised; Optuna's `tpe`, `gp` and `nsga2`.
        front: look for the front of loss and latency, not for the best reward; not with `kdnas` and `evolution`.
        max_latency_ms: only architectures that the table says to be this fast; with alpha 0, the lowest loss among them wins.
        max_latency_share: only architectures that take at most this share of the teacher's latency, as 0.5; null takes any. The
            published reward lets a better loss buy any latency, also one above the teacher's.
        max_megabytes: only architectures with weights of this size in the table's precision.
        engine: that the table must be of; null takes any.
        vocabularies: numbers of tokens among which the search chooses as well, as 30522,8000: a student knows the corpus's most
            frequent ones; 0 for all. Empty leaves the whole vocabulary.
        episodes: rounds of proposing, evaluating and learning.
        candidates_per_episode: architectures distilled an episode.
        alpha: exponent of the latency in the reward, at most 0 (Eq. 4).
        beta: share of the teacher's latency that is aimed at (Eq. 4).
        epsilon_start: share of random candidates in the first episode.
        epsilon_decay: how much smaller that share is each episode.
        epsilon_min: never smaller than this.
        controller_lr: peak learning rate of the controller.
        controller_epochs: passes over all results after each episode.
        evaluator: `proxy`, briefly on a proxy set; `full`, as `kdnas distill` does it, with the options of `distill`.
        baselines: distil the paper's shapes made by hand (6L-384H, 6L-768H) as well, after the search, as far as the space has
            their depth.
        seed: of everything random in the search.
        proxy: how a candidate is scored.
    """

    strategy: Literal["kdnas", "surrogate", "random", "evolution", "tpe", "gp", "nsga2"] = "surrogate"
    front: bool = False
    max_latency_ms: float | None = None
    max_latency_share: float | None = None
    max_megabytes: float | None = None
    engine: str | None = None
    vocabularies: tuple[int, ...] = ()
    episodes: int = 4
    candidates_per_episode: int = 4
    alpha: float = ALPHA
    beta: float = BETA
    epsilon_start: float = 1.0
    epsilon_decay: float = 0.05
    epsilon_min: float = 0.05
    controller_lr: float = 1e-4
    controller_epochs: int = 10
    evaluator: Literal["proxy", "full"] = "proxy"
    baselines: bool = False
    seed: int = 0
    proxy: ProxyOptions = field(default_factory=ProxyOptions)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UsageError(f"strategy is '{self.strategy}'; allowed are {', '.join(STRATEGIES)}")
        if self.front and self.strategy in ONE_NUMBER:
            others = ", ".join(name for name in STRATEGIES if name not in ONE_NUMBER)
            raise UsageError(f"strategy '{self.strategy}' follows one number, not a front; give one of {others}")
        for name in ("max_latency_ms", "max_latency_share", "max_megabytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name} is {value}; it must be above 0")
        for name in ("episodes", "candidates_per_episode", "controller_epochs"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("epsilon_start", "epsilon_decay", "epsilon_min"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed are 0 to 1")
        if self.evaluator not in ("proxy", "full"):
            raise UsageError(f"evaluator is '{self.evaluator}'; allowed are proxy and full")
        if self.alpha > 0 or not self.beta > 0:
            raise UsageError(f"alpha is {self.alpha}, beta {self.beta}; alpha must be at most 0, beta above 0")
        if not self.controller_lr > 0:
            raise UsageError(f"controller_lr is {self.controller_lr}; it must be above 0")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must not be negative")
