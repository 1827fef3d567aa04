"""Options of `kdnas compare-strategies`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from kdnas.distill.options import ObjectiveName
from kdnas.errors import UsageError
from kdnas.search.options import SearchOptions
from kdnas.search.strategies import STRATEGIES

TARGET, LIMITS_TARGET = 0.995, 0.99  # defaults of `target`: for one goal, and within random limits
PREFIXES = ("epsilon_", "controller_")  # of options that belong to a strategy
SETTINGS = {field.name: field for field in fields(SearchOptions) if field.name.startswith(PREFIXES)}


@dataclass(frozen=True)
class ComparisonOptions:
    """The strategies to compare, and the settings of their runs.

    Args:
        strategies: names of strategies of `kdnas search`, the reference first.
        objective: what the recorded architectures learned (`kdnas record --proxy.objective`); other recordings are rejected.
        runs: seeds per strategy; with `limits`, per strategy and limit.
        fewer_runs: other numbers of seeds for slow strategies, each as NAME=N, for example gp=3.
        settings: settings of the strategies other than the defaults, each as NAME=VALUE with an option epsilon_* or controller_*
            of `kdnas search`.
        episodes: episodes per run; the published number.
        candidates_per_episode: architectures per episode; the published number.
        target: fraction of the best reward that a run should reach; null is 0.995, and 0.99 with `limits`.
        alpha: exponent of the latency in Eq. 4.
        beta: fraction of the teacher's latency in Eq. 4.
        max_latency_fraction: largest latency as a fraction of the teacher's; null allows any.
        hint: give every strategy the first candidates of `surrogate`: the four nearest to the teacher's shape.
        without_teacher_shape: leave out the architectures with the teacher's layers, heads and widths, with any activation.
        only_random: leave out the architectures that were added to a recording by name.
        limits: number of latency limits per recording, drawn at random between the 5th and the 80th percentile of its
            latencies; every strategy runs within each, with and without the hint. 0 compares within one goal.
        limits_seed: seed of the limits.
        scale_schedule: with `limits`, shorten the schedule by the fraction of the space that was recorded, so that a run sees the
            same fraction of it as the published schedule.
        frozen: commit at which the strategies were frozen; other sources of the strategies are rejected.
    """

    strategies: tuple[str, ...] = tuple(STRATEGIES)
    objective: ObjectiveName = "hidden-state"
    runs: int = 50
    fewer_runs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    episodes: int = 15
    candidates_per_episode: int = 20
    target: float | None = None
    alpha: float = SearchOptions.alpha
    beta: float = SearchOptions.beta
    max_latency_fraction: float | None = SearchOptions.max_latency_fraction
    hint: bool = False
    without_teacher_shape: bool = False
    only_random: bool = False
    limits: int = 0
    limits_seed: int = 0
    scale_schedule: bool = True
    frozen: str | None = None

    def __post_init__(self) -> None:
        wrong = [name for name in self.strategies if name not in STRATEGIES]
        if wrong or not self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise UsageError(
                f"strategies is {', '.join(self.strategies)}; give different ones of {', '.join(STRATEGIES)}"
            )
        if self.runs < 1:
            raise UsageError(f"runs is {self.runs}; it must be at least 1")
        if self.target is not None and not 0 < self.target <= 1:
            raise UsageError(f"target is {self.target}; allowed is above 0, at most 1")
        if self.limits < 0 or self.limits_seed < 0:
            raise UsageError(f"limits is {self.limits}, limits_seed {self.limits_seed}; they must not be negative")
        if self.limits and (self.hint or self.max_latency_fraction is not None):
            raise UsageError(
                f"limits is {self.limits}: the strategies run with and without the hint, and within limits of their own; leave "
                "out hint and max_latency_fraction"
            )
        for name in self.strategies:
            self.runs_of(name)
        self.search(self.strategies[0], 0)

    @property
    def reached_at(self) -> float:
        """The fraction of the best reward that counts as reached."""
        return self.target if self.target is not None else LIMITS_TARGET if self.limits else TARGET

    def runs_of(self, strategy: str) -> int:
        """Number of seeds of a strategy.

        Raises:
            UsageError: `fewer_runs` is not a list of NAME=N with compared strategies.
        """
        found = _pairs(self.fewer_runs, "fewer_runs", self.strategies)
        number = found.get(strategy, str(self.runs))
        if not number.isdigit() or not 1 <= int(number) <= self.runs:
            raise UsageError(f"fewer_runs has {strategy}={number}; allowed are 1 to the {self.runs} of runs")
        return int(number)

    def search(self, strategy: str, seed: int) -> SearchOptions:
        """Options of one run."""
        return SearchOptions(
            strategy=strategy,
            episodes=self.episodes,
            candidates_per_episode=self.candidates_per_episode,
            alpha=self.alpha,
            beta=self.beta,
            max_latency_fraction=self.max_latency_fraction,
            seed=seed,
            **self._settings(),
        )

    def _settings(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, text in _pairs(self.settings, "settings", tuple(SETTINGS)).items():
            kind: Any = type(SETTINGS[name].default)  # float, int or str
            try:
                found[name] = kind(text)
            except ValueError as error:
                raise UsageError(f"settings has {name}={text}; a number is needed") from error
        return found


def _pairs(given: Sequence[str], option: str, allowed: Sequence[str]) -> dict[str, str]:
    """Values by name from texts NAME=VALUE.

    Raises:
        UsageError: a text has another form, or a name is unknown or given twice.
    """
    found = {name.strip(): value.strip() for name, _, value in (text.partition("=") for text in given)}
    if len(found) < len(given) or not all(found.values()) or not set(found) <= set(allowed):
        raise UsageError(
            f"{option} is {', '.join(given)}; write each as NAME=VALUE, with different names of {', '.join(allowed)}"
        )
    return found
