"""Student architectures and the search space (arXiv 2303.09639, Table 1)."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from kdnas.errors import UsageError

Activation = Literal["gelu", "relu", "silu"]
FIELDS = ("layers", "heads", "hidden", "ffn", "activation")


@dataclass(frozen=True, order=True)
class Arch:
    """The shape of an encoder.

    Args:
        layers: number of transformer layers.
        heads: number of attention heads per layer; must divide `hidden`.
        hidden: width of the hidden states.
        ffn: width of the feed-forward layer.
        activation: feed-forward activation.
    """

    layers: int
    heads: int
    hidden: int
    ffn: int
    activation: str = "gelu"

    def __post_init__(self) -> None:
        for name in FIELDS[:4]:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"architecture: {name} is {value!r}; a whole number of at least 1 is needed")
        if self.hidden % self.heads:
            valid = [n for n in range(1, 65) if self.hidden % n == 0]
            raise UsageError(
                f"architecture {self}: {self.heads} heads do not divide hidden size {self.hidden}; "
                f"valid head counts: {', '.join(map(str, valid))}"
            )
        if self.activation not in get_args(Activation):
            raise UsageError(f"architecture {self}: activation must be one of {', '.join(get_args(Activation))}")

    @classmethod
    def parse(cls, text: str) -> "Arch":
        """Read `4,12,576,768,gelu` (layers,heads,hidden,ffn,activation).

        Raises:
            UsageError: the text has another form.
        """
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 5 or not all(part.isdigit() for part in parts[:4]):
            raise UsageError(
                f"architecture '{text}': write layers,heads,hidden,ffn,activation, as in 4,12,576,768,gelu"
            )
        layers, heads, hidden, ffn = (int(part) for part in parts[:4])
        return cls(layers, heads, hidden, ffn, parts[4])

    def __str__(self) -> str:
        return f"{self.layers},{self.heads},{self.hidden},{self.ffn},{self.activation}"

    @property
    def name(self) -> str:
        """The architecture as `L4-H12-D576-F768-gelu`; safe in file names."""
        return f"L{self.layers}-H{self.heads}-D{self.hidden}-F{self.ffn}-{self.activation}"

    @property
    def layer_parameters(self) -> int:
        """Number of parameters in all layers, with biases and layer norms, without embeddings."""
        attention = 4 * (self.hidden * self.hidden + self.hidden)
        feed_forward = 2 * self.hidden * self.ffn + self.ffn + self.hidden
        return self.layers * (attention + feed_forward + 4 * self.hidden)

    def flops(self, seq_len: int) -> int:
        """Operations (multiply-adds times two) of one forward pass over `seq_len` tokens, without embeddings."""
        projections = 4 * self.hidden * self.hidden + 2 * self.hidden * self.ffn
        return 2 * self.layers * seq_len * (projections + 2 * seq_len * self.hidden)


@dataclass(frozen=True)
class SearchSpace:
    """The allowed values of each field. They must be among the published values, so that ids stay stable.

    Args:
        layers: allowed numbers of layers.
        heads: allowed numbers of attention heads.
        hidden: allowed hidden sizes.
        ffn: allowed feed-forward sizes.
        activation: allowed feed-forward activations.
    """

    layers: tuple[int, ...] = (3, 4, 6, 10, 12)
    heads: tuple[int, ...] = (2, 3, 4, 6, 12)
    hidden: tuple[int, ...] = (288, 384, 576, 768)
    ffn: tuple[int, ...] = (384, 512, 576, 768, 1024, 1536, 2048, 3072)
    activation: tuple[Activation, ...] = ("gelu", "relu", "silu")

    def __post_init__(self) -> None:
        for field in fields(self):
            given: tuple[Any, ...] = getattr(self, field.name)
            published: Any = field.default
            if not given:
                raise UsageError(f"space.{field.name} is empty; choose from {list(published)}")
            wrong = [value for value in given if value not in published]
            if wrong:
                raise UsageError(f"space.{field.name} has {wrong}; choose from {list(published)}")
            # Always use the published order, not the order in a YAML file.
            object.__setattr__(self, field.name, tuple(value for value in published if value in given))

    def __len__(self) -> int:
        size = 1
        for name in FIELDS:
            size *= len(getattr(self, name))
        return size

    def __iter__(self) -> Iterator[Arch]:
        """All architectures, in the order of their ids."""
        for layers in self.layers:
            for heads in self.heads:
                for hidden in self.hidden:
                    for ffn in self.ffn:
                        for activation in self.activation:
                            yield Arch(layers, heads, hidden, ffn, activation)

    def __contains__(self, arch: object) -> bool:
        return isinstance(arch, Arch) and all(getattr(arch, name) in getattr(self, name) for name in FIELDS)

    def teachable(self, teacher_layers: int) -> "SearchSpace":
        """The part of the space with at most as many layers as the teacher.

        Raises:
            UsageError: no number of layers is left.
        """
        kept = tuple(n for n in self.layers if n <= teacher_layers)
        if not kept:
            raise UsageError(
                f"space.layers {list(self.layers)}: every student is deeper than its teacher of {teacher_layers} layers; "
                "add a smaller depth or use a deeper teacher"
            )
        return SearchSpace(kept, self.heads, self.hidden, self.ffn, self.activation)


def arch_id(arch: Arch) -> int:
    """The architecture's index in the full published space, 0 to 2399. It does not depend on the searched part of the space.

    Raises:
        UsageError: the architecture is not in the published space.
    """
    space = SearchSpace()
    if arch not in space:
        raise UsageError(f"architecture {arch} is not among the {len(space)} of the published space")
    index = 0
    for name in FIELDS:
        values = getattr(space, name)
        index = index * len(values) + values.index(getattr(arch, name))
    return index


def arch_from_id(number: int) -> Arch:
    """Inverse of `arch_id`.

    Raises:
        UsageError: the id is not between 0 and 2399.
    """
    space = SearchSpace()
    if not 0 <= number < len(space):
        raise UsageError(f"architecture id {number}: allowed are 0 to {len(space) - 1}")
    picked = []
    for name in reversed(FIELDS):
        values = getattr(space, name)
        number, index = divmod(number, len(values))
        picked.append(values[index])
    return Arch(*reversed(picked))
