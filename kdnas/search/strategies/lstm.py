"""KD-NAS as published (arXiv 2303.09639, Section 3): an LSTM scores architectures, epsilon-greedy picks among them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.search.controller import Controller, encode
from kdnas.search.strategies.protocol import Observation, Proposal


@dataclass(frozen=True)
class Epsilon:
    """Fraction of random candidates: `start - decay * episode`, at least `minimum`.

    Args:
        start: fraction in the first episode.
        decay: decrease per episode.
        minimum: lower bound.
        draw: `each` makes each candidate random with this probability; `fraction` makes exactly this fraction of an episode
            random, rounded to a whole number, as the paper's footnote 2 says.
    """

    start: float = 1.0
    decay: float = 0.05
    minimum: float = 0.05
    draw: str = "each"

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("decay", self.decay), ("min", self.minimum)):
            if not 0 <= value <= 1:
                raise UsageError(f"epsilon_{name} is {value}; allowed are 0 to 1")

    def at(self, episode: int) -> float:
        """Fraction of random candidates in this episode (from 0)."""
        return max(self.minimum, self.start - self.decay * episode)

    def explores(self, episode: int, number: int, count: int, rng: np.random.Generator) -> bool:
        """Whether a candidate is a random one.

        Args:
            episode: from 0.
            number: of the candidate in its episode, from 0.
            count: candidates of the episode.
            rng: of this candidate.
        """
        if self.draw == "fraction":
            return number < round(self.at(episode) * count)
        return bool(rng.random() < self.at(episode))


class Kdnas:
    """KD-NAS: an LSTM scores every unexplored architecture each episode; epsilon-greedy picks among them.

    The controller's input is the sequence (state, global best, previous best): the architecture itself, the best of all
    episodes so far, and the best of the last episode; zeros in the first episode. A failed candidate counts as the worst
    reward seen, or as 0 if that is lower: the reward of a student that explains none of the teacher's variance.
    """

    def __init__(self, states: Iterable[Arch], epsilon: Epsilon, controller: Controller, seed: int) -> None:
        self.epsilon, self.controller, self.seed = epsilon, controller, seed
        self.episode = 0
        self.states = list(states)
        self._encoded = encode(self.states)
        self._index = {arch: index for index, arch in enumerate(self.states)}
        self._unexplored = np.ones(len(self.states), dtype=bool)
        self._observations: list[Observation] = []
        self._sequences: list[np.ndarray] = []
        self._global_best: Observation | None = None
        self._previous_best: Observation | None = None

    def ask(self, count: int, evaluated: Sequence[Arch] = ()) -> list[Proposal]:
        """See `Strategy`. A random unexplored architecture if `Epsilon.explores`, otherwise the best predicted one."""
        unexplored = self._unexplored.copy()
        scores = self.scores()
        proposals = []
        for number in range(count):
            candidates = np.flatnonzero(unexplored)
            if not len(candidates):
                break
            # One generator per candidate: a resumed episode draws the same numbers.
            rng = np.random.default_rng([self.seed, self.episode, number])
            explored = self.epsilon.explores(self.episode, number, count, rng)
            index = int(rng.choice(candidates) if explored else candidates[np.argmax(scores[candidates])])
            unexplored[index] = False
            predicted = float(scores[index]) if self._observations else None
            proposals.append(Proposal(self.states[index], explored, predicted))
        return [proposal for proposal in proposals if proposal.arch not in set(evaluated)]

    def tell(self, observations: Sequence[Observation]) -> None:
        """See `Strategy`. Trains the controller."""
        archs = [observation.arch for observation in observations]
        self._unexplored[[self._index[arch] for arch in archs]] = False
        self._observations.extend(observations)
        self._sequences.append(self._with_context(encode(archs)))
        self.controller.fit(np.concatenate(self._sequences), self._rewards(), self.episode, len(observations))
        self._previous_best = _best(observations)
        self._global_best = _best(self._observations)
        self.episode += 1

    def scores(self) -> np.ndarray:
        """Predicted reward of every state of the space, in its order, in one pass: (N,) float64."""
        return self.controller.predict(self._with_context(self._encoded))

    def _with_context(self, encoded: np.ndarray) -> np.ndarray:
        """Sequences (N, 3, width) of encodings (N, width) with the global and previous best so far."""
        bests = encode([found.arch if found else None for found in (self._global_best, self._previous_best)])
        context = np.broadcast_to(bests, (len(encoded), *bests.shape))
        return np.concatenate([encoded[:, None], context], axis=1)

    def _rewards(self) -> np.ndarray:
        """Observed rewards (N,); failures get the worst one."""
        worst = min((one.reward for one in self._observations if one.reward is not None), default=0.0)
        return np.array([min(worst, 0.0) if one.reward is None else one.reward for one in self._observations])


def _best(observations: Sequence[Observation]) -> Observation | None:
    """The first with the highest reward; None if all failed."""
    finished = [one for one in observations if one.reward is not None]
    return max(finished, key=lambda one: one.reward or 0.0, default=None)
