"""Architectures with what else a search may choose: how much of the vocabulary is kept, and the engine that will run it."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdnas.errors import UsageError
from kdnas.models.arch import FIELDS, Arch

MORE_FIELDS = ("vocabulary", "engine")
SEPARATOR = "/"


@dataclass(frozen=True, order=True)
class Choice(Arch):
    """An architecture, a vocabulary and an engine.

    Args:
        vocabulary: the most frequent tokens of the corpus that the student knows; 0 for all.
        engine: of the latency table.
    """

    vocabulary: int = 0
    engine: str = ""

    @property
    def arch(self) -> Arch:
        """The shape alone."""
        return Arch(*(getattr(self, name) for name in FIELDS))

    def __str__(self) -> str:
        return SEPARATOR.join([str(self.arch), str(self.vocabulary), self.engine])

    @property
    def name(self) -> str:
        """As in `L4-H12-D576-F768-gelu-V16000-openvino-int8`."""
        return f"{self.arch.name}-{f'V{self.vocabulary}' if self.vocabulary else 'whole'}-{self.engine}"


def is_int8(engine: str) -> bool:
    """Whether an engine computes in 8 bits, with weights of one byte."""
    return engine.endswith("int8")


def parse_choice(text: str) -> Arch:
    """An architecture as `Arch` writes it, or a choice as `Choice` does.

    Raises:
        UsageError: neither.
    """
    shape, *more = text.split(SEPARATOR)
    arch = Arch.parse(shape)
    if not more:
        return arch
    if len(more) != 2 or not more[0].isdigit():
        raise UsageError(
            f"architecture '{text}': write it as 4,12,576,768,gelu or 4,12,576,768,gelu/16000/openvino-int8"
        )
    return Choice(arch.layers, arch.heads, arch.hidden, arch.ffn, arch.activation, int(more[0]), more[1])


def fields_of(states: Sequence[Arch]) -> tuple[str, ...]:
    """Names of what is chosen: of plain architectures their fields, of choices two more."""
    return (*FIELDS, *MORE_FIELDS) if states and isinstance(states[0], Choice) else FIELDS
