"""The table: one row for each of the 2400 architectures, written as CSV and read back."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from kdnas.arch import Arch, SearchSpace, arch_id
from kdnas.artifact import Artifact
from kdnas.errors import UsageError

MEASURED, PREDICTED = "measured", "predicted"
KIND = "latency-table"


@dataclass(frozen=True)
class Row:
    """One architecture's cost on one host.

    Args:
        id: place in the published space, 0 to 2399.
        layers: number of transformer layers.
        heads: attention heads a layer.
        hidden: width of the hidden states.
        ffn: width of the feed-forward layer.
        activation: feed-forward activation.
        parameters_millions: with the embeddings of the teacher's vocabulary.
        layer_parameters_millions: without embeddings.
        latency_ms: mean over the sentences at batch 1.
        p50_ms: median over the sentences.
        p90_ms: 90th percentile over the sentences.
        relative_sd: measured: standard error of its repeats; predicted: error on held-out architectures.
        teacher_ratio: latency over the teacher's.
        source: `measured` or `predicted`.
    """

    id: int
    layers: int
    heads: int
    hidden: int
    ffn: int
    activation: str
    parameters_millions: float
    layer_parameters_millions: float
    latency_ms: float
    p50_ms: float
    p90_ms: float
    relative_sd: float
    teacher_ratio: float
    source: str

    @property
    def arch(self) -> Arch:
        return Arch(self.layers, self.heads, self.hidden, self.ffn, self.activation)


COLUMNS = [field.name for field in fields(Row)]
DECIMALS = {"parameters_millions": 3, "layer_parameters_millions": 3, "relative_sd": 5, "teacher_ratio": 5}


@dataclass(frozen=True)
class LatencyTable:
    """All rows, in the order of their ids, and the teacher's own latency."""

    rows: tuple[Row, ...]
    teacher_latency_ms: float

    @classmethod
    def load(cls, path: Path) -> "LatencyTable":
        """Read a finished latency-table artifact.

        Raises:
            UsageError: the folder is no such artifact, or its table is not complete.
        """
        artifact = Artifact.load(path, KIND)
        return cls(tuple(read_rows(path / "table.csv")), float(artifact.results["teacher_latency_ms"]))

    def latency_ms(self, arch: Arch) -> float:
        """Mean latency of an architecture of the published space.

        Raises:
            UsageError: the architecture is not in it.
        """
        return self.rows[arch_id(arch)].latency_ms


def embedding_parameters(teacher: Mapping[str, object], hidden: int) -> int:
    """Parameters of the embeddings of a student of this width: words, positions, types and their layer norm."""
    rows = sum(int(str(teacher[key])) for key in ("vocab_size", "max_position_embeddings", "type_vocab_size"))
    return rows * hidden + 2 * hidden


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write `table.csv`; rows must be all 2400 in order of id."""
    assert [row.id for row in rows] == list(range(len(SearchSpace())))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            values = asdict(row).items()
            writer.writerow([round(v, DECIMALS.get(k, 4)) if isinstance(v, float) else v for k, v in values])


def read_rows(path: Path) -> list[Row]:
    """Read `table.csv`.

    Raises:
        UsageError: other columns, a damaged row, or not all rows.
    """
    types = {field.name: field.type for field in fields(Row)}
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != COLUMNS:
                raise UsageError(
                    f"{path}: columns are {reader.fieldnames}, needed are {COLUMNS}; build the table again"
                )
            rows = [Row(**{name: types[name](value) for name, value in line.items()}) for line in reader]  # type: ignore[operator]
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: not a latency table ({error}); build it again") from error
    if [row.id for row in rows] != list(range(len(SearchSpace()))):
        raise UsageError(f"{path}: {len(rows)} rows, {len(SearchSpace())} in order of id are needed; build it again")
    return rows
