"""Options of `kdnas peers`."""

from dataclasses import dataclass

from kdnas.errors import UsageError


@dataclass(frozen=True)
class PeerOptions:
    """Options of the comparison.

    Args:
        minutes: time budget of the timed rounds; at least 2 rounds run in any case.
        rounds: maximum number of rounds; in each round every library runs every input, one library at a time in random order.
        sentences: number of held-out sentences of all lengths, drawn at random.
        each: number of texts of each fixed length.
        batches: batch sizes of the throughput, besides 1; the result states the best.
        threads: threads of every library; null lets each race with 1, 2, 4, up to min(4, physical cores).
        least_cosine: smallest mean cosine with PyTorch's vectors of a library that runs the same model.
        seed: seed of the sentences and of the order.
    """

    minutes: float = 20.0
    rounds: int = 10
    sentences: int = 100
    each: int = 20
    batches: tuple[int, ...] = (8, 32)
    threads: int | None = None
    least_cosine: float = 0.97
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise UsageError(f"minutes is {self.minutes}; it must be above 0")
        if self.rounds < 2 or self.sentences < 10 or self.each < 1:
            raise UsageError(
                f"rounds is {self.rounds}, sentences is {self.sentences} and each is {self.each}; at least 2, 10 and 1 are "
                "needed"
            )
        if any(batch < 2 for batch in self.batches):
            raise UsageError(f"batches has {min(self.batches)}; at least 2 is needed (1 is always measured)")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}; at least 1 is needed")
        if not 0 < self.least_cosine <= 1:
            raise UsageError(f"least_cosine is {self.least_cosine}; it must be above 0 and at most 1")
