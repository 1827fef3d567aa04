"""Options of the static student, without heavy imports."""

from dataclasses import dataclass

from kdnas.errors import UsageError


@dataclass(frozen=True)
class StaticOptions:
    """Options of the static student.

    Args:
        sentences: number of train sentences whose teacher vectors are fitted.
        inverse_frequency: whether frequent tokens of the corpus count less in the mean.
    """

    sentences: int = 20_000
    inverse_frequency: bool = True

    def __post_init__(self) -> None:
        if self.sentences < 100:
            raise UsageError(f"sentences is {self.sentences}; at least 100 are needed")
