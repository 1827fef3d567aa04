"""The latency table: its one schema and its one reader. One row for each of the 2400 architectures, as CSV."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace, arch_id
from kdnas.models.engine import ENGINES, Precision
from kdnas.models.family import student_shape_of
from kdnas.store.artifact import Artifact
from kdnas.store.host import host_name

MEASURED, PREDICTED = "measured", "predicted"
KIND = "latency-table"
FILE = "table.csv"


@dataclass(frozen=True)
class TableRow:
    """One architecture's cost on one host.

    Args:
        id: index in the published space, 0 to 2399.
        layers: number of transformer layers.
        heads: attention heads a layer.
        hidden: width of the hidden states.
        ffn: width of the feed-forward layer.
        activation: feed-forward activation.
        parameters_millions: with the embeddings of the teacher's vocabulary.
        layer_parameters_millions: without embeddings.
        gflops: 1e9 operations (multiply-adds times two) of a forward pass at the mean sentence length, rounded to a token.
        latency_ms: mean over the sentences at batch 1.
        low_ms: lower end of the 95 % interval of that mean.
        high_ms: upper end of it.
        p50_ms: median over the sentences.
        p90_ms: 90th percentile over the sentences.
        p99_ms: 99th percentile over the sentences.
        teacher_ratio: latency over the teacher's.
        limit_ms: least time that the host's peaks allow, as `kdnas.latency.roofline` has it; nan where they were not measured.
        limit_share: that over the latency.
        relative_sd: measured: standard error of its repeats; predicted: error on held-out architectures.
        source: `measured` or `predicted`.
        samples: timed sweeps over the sentence lengths behind a measured row; 0 where predicted.
    """

    id: int
    layers: int
    heads: int
    hidden: int
    ffn: int
    activation: str
    parameters_millions: float
    layer_parameters_millions: float
    gflops: float
    latency_ms: float
    low_ms: float
    high_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    teacher_ratio: float
    limit_ms: float
    limit_share: float
    relative_sd: float
    source: str
    samples: int

    @property
    def arch(self) -> Arch:
        """The architecture that the row is about."""
        return Arch(self.layers, self.heads, self.hidden, self.ffn, self.activation)


COLUMNS = [field.name for field in fields(TableRow)]
DECIMALS = {
    "parameters_millions": 3, "layer_parameters_millions": 3, "gflops": 5, "teacher_ratio": 5, "limit_ms": 5, "limit_share": 4,
    "relative_sd": 5,
}  # fmt: skip
INTERVAL_SDS = 1.96  # two-sided 95 % of a normal distribution, of the logarithm of the latency


@dataclass(frozen=True)
class LatencyTable:
    """A finished latency table.

    Args:
        rows: all 2400, in order of id.
        teacher_latency_ms: the teacher's, from the same host and engine.
        digest: changes when the table does.
        engine: the engine that was timed.
        host: CPU and cores of the host that measured it; empty if unknown.
        teacher: digest of the teacher; empty if unknown.
    """

    rows: tuple[TableRow, ...]
    teacher_latency_ms: float
    digest: str = ""
    engine: str = ""
    host: str = ""
    teacher: str = ""

    @classmethod
    def load(cls, path: Path) -> "LatencyTable":
        """Read a finished latency-table artifact.

        Raises:
            UsageError: the folder is no such artifact, its table is not complete, or it has no teacher.
        """
        return cls.of(Artifact.load(path, KIND))

    @classmethod
    def of(cls, artifact: Artifact) -> "LatencyTable":
        """The table of an artifact that is already open.

        Raises:
            UsageError: its table is not complete, or it has no teacher.
        """
        rows = tuple(read_rows(artifact.path / FILE))
        try:
            teacher_latency_ms = float(artifact.results["teacher_latency_ms"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{artifact.path}: its manifest states no teacher_latency_ms ({type(error).__name__}: {error}); "
                f"{again(artifact.path)}"
            ) from error
        manifest = artifact.manifest
        engine = str(manifest["config"].get("options", {}).get("engine", ""))
        teacher = str((manifest.get("inputs") or {}).get("teacher", ""))
        return cls(rows, teacher_latency_ms, artifact.digest, engine, host_name(manifest.get("host") or {}), teacher)

    def latency_ms(self, arch: Arch) -> float:
        """Mean latency of an architecture of the published space.

        Raises:
            UsageError: the architecture is not in it.
        """
        return self.rows[arch_id(arch)].latency_ms

    def megabytes(self, arch: Arch) -> float:
        """Size of an architecture's weights in the precision of the engine, embeddings included.

        Raises:
            UsageError: the architecture is not in the published space.
        """
        return weight_bytes(self.engine) * self.rows[arch_id(arch)].parameters_millions


def weight_bytes(engine: str) -> int:
    """Bytes of one stored weight of an engine; 4 if this version does not know the engine."""
    return ENGINES[engine].stored_bytes if engine in ENGINES else Precision.F32.bytes


def embedding_parameters(teacher: Mapping[str, object], hidden: int) -> int:
    """Parameters of the embeddings of a student of this width: words, positions, types and their layer norm."""
    return (student_shape_of(teacher).rows + 2) * hidden


def interval(latency_ms: float, relative_sd: float) -> tuple[float, float]:
    """95 % interval in ms of a latency whose logarithm has the standard deviation `relative_sd`."""
    factor = math.exp(INTERVAL_SDS * relative_sd)
    return latency_ms / factor, latency_ms * factor


def again(folder: Path) -> str:
    """The remedy for a table that cannot be used: a finished artifact is never overwritten."""
    return f"remove {folder} and build it again with `kdnas latency-table`"


def write_rows(path: Path, rows: Sequence[TableRow]) -> None:
    """Write `table.csv`; rows must be all 2400 in order of id."""
    assert [row.id for row in rows] == list(range(len(SearchSpace())))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            values = asdict(row).items()
            writer.writerow([round(v, DECIMALS.get(k, 4)) if isinstance(v, float) else v for k, v in values])


def read_rows(path: Path) -> list[TableRow]:
    """Read `table.csv`.

    Raises:
        UsageError: other columns, a damaged row, not all rows, or a latency that is not a positive number.
    """
    types = {field.name: field.type for field in fields(TableRow)}
    archs = list(SearchSpace())
    remedy = again(path.parent)
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != COLUMNS:
                raise UsageError(f"{path}: columns are {reader.fieldnames}, needed are {COLUMNS}; {remedy}")
            rows = [TableRow(**{name: types[name](value) for name, value in line.items()}) for line in reader]  # type: ignore[operator]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise UsageError(f"{path}: not a latency table ({type(error).__name__}: {error}); {remedy}") from error
    if [row.id for row in rows] != list(range(len(archs))):
        raise UsageError(f"{path}: {len(rows)} rows, {len(archs)} in order of id are needed; {remedy}")
    for row, arch in zip(rows, archs, strict=True):
        if (row.layers, row.heads, row.hidden, row.ffn, row.activation) != astuple(arch):
            raise UsageError(f"{path}: the row of id {row.id} is not architecture {arch}; {remedy}")
        if not (0 < row.latency_ms < math.inf and 0 <= row.relative_sd < math.inf):
            raise UsageError(
                f"{path}: architecture {arch} has latency {row.latency_ms} ms and relative_sd {row.relative_sd}; "
                f"above 0, and at least 0, are needed; {remedy}"
            )
    return rows
