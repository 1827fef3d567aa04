"""Schema, reader and writer of the latency table: a CSV file with one row for each of the 2400 architectures."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace, arch_id
from kdnas.models.engine import ENGINES, Precision
from kdnas.models.family import student_shape_of
from kdnas.models.parts import Shape
from kdnas.store.artifact import Artifact
from kdnas.store.host import host_name

MEASURED, PREDICTED = "measured", "predicted"
KIND = "latency-table"
FILE = "table.csv"


@dataclass(frozen=True)
class TableRow:
    """Size and latency of one architecture on one host.

    Args:
        id: index in the published space, 0 to 2399.
        layers: number of transformer layers.
        heads: number of attention heads per layer.
        hidden: size of the hidden states.
        ffn: size of the feed-forward layer.
        activation: feed-forward activation.
        parameters_millions: parameters in millions, with the embeddings of the teacher's vocabulary.
        layer_parameters_millions: parameters in millions, without embeddings.
        gflops: 1e9 operations (multiply-adds times two) of a forward pass at the mean sentence length, rounded to a token.
        latency_ms: mean latency in ms over the sentences, at batch 1.
        low_ms: lower end of the 95 % interval of the mean, in ms.
        high_ms: upper end of the 95 % interval of the mean, in ms.
        p50_ms: median over the sentences, in ms.
        p90_ms: 90th percentile over the sentences, in ms.
        p99_ms: 99th percentile over the sentences, in ms.
        teacher_ratio: latency divided by the teacher's latency.
        limit_ms: minimum time in ms that the host's peaks allow (`kdnas.latency.roofline`); nan if the peaks were not measured.
        limit_share: `limit_ms` divided by the latency.
        relative_sd: standard error of the repeats for a measured row, error on held-out architectures for a predicted row.
        source: `measured` or `predicted`.
        samples: number of timed sweeps over the sentence lengths for a measured row; 0 for a predicted row.
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
        """The architecture of the row."""
        return Arch(self.layers, self.heads, self.hidden, self.ffn, self.activation)


COLUMNS = [field.name for field in fields(TableRow)]
DECIMALS = {
    "parameters_millions": 3, "layer_parameters_millions": 3, "gflops": 5, "teacher_ratio": 5, "limit_ms": 5, "limit_share": 4,
    "relative_sd": 5,
}  # fmt: skip
INTERVAL_SDS = 1.96  # two-sided 95 % interval, assuming that the logarithm of the latency is normally distributed


@dataclass(frozen=True)
class LatencyTable:
    """A finished latency table.

    Args:
        rows: all 2400 rows, in order of id.
        teacher_latency_ms: latency of the teacher in ms, on the same host and engine.
        digest: digest of the table's artifact.
        engine: the timed engine.
        host: CPU and cores of the host; empty if unknown.
        teacher: digest of the teacher; empty if unknown.
        teacher_spec: the teacher as it was given; empty in a table of an earlier version.
        teacher_shape: its sizes; None in a table of an earlier version.
        teacher_has_weights: False if only its shape was timed.
    """

    rows: tuple[TableRow, ...]
    teacher_latency_ms: float
    digest: str = ""
    engine: str = ""
    host: str = ""
    teacher: str = ""
    teacher_spec: str = ""
    teacher_shape: Shape | None = None
    teacher_has_weights: bool = True

    @classmethod
    def load(cls, path: Path) -> "LatencyTable":
        """Read a finished latency-table artifact.

        Raises:
            UsageError: the folder is not a finished latency table, rows are missing, or the teacher's latency is missing.
        """
        return cls.of(Artifact.load(path, KIND))

    @classmethod
    def of(cls, artifact: Artifact) -> "LatencyTable":
        """The table of an open artifact.

        Raises:
            UsageError: the table is incomplete, or the teacher's latency is missing, or its shape is damaged.
        """
        rows = tuple(read_rows(artifact.path / FILE))
        try:
            teacher_latency_ms = float(artifact.results["teacher_latency_ms"])
            known = dict(artifact.results.get("teacher") or {})
            shape = Shape(**known["shape"]) if "shape" in known else None
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{artifact.path}: its manifest has no teacher_latency_ms, or a damaged teacher "
                f"({type(error).__name__}: {error}); {again(artifact.path)}"
            ) from error
        manifest = artifact.manifest
        engine = str(manifest["config"].get("options", {}).get("engine", ""))
        teacher = str((manifest.get("inputs") or {}).get("teacher", ""))
        return cls(
            rows,
            teacher_latency_ms,
            artifact.digest,
            engine,
            host_name(manifest.get("host") or {}),
            teacher,
            str(known.get("spec", "")),
            shape,
            bool(known.get("weights", True)),
        )

    def latency_ms(self, arch: Arch) -> float:
        """Mean latency in ms of an architecture.

        Raises:
            UsageError: the architecture is not in the published space.
        """
        return self.rows[arch_id(arch)].latency_ms

    def megabytes(self, arch: Arch) -> float:
        """Size in MB of an architecture's weights, with embeddings, as the engine stores them.

        Raises:
            UsageError: the architecture is not in the published space.
        """
        return weight_bytes(self.engine) * self.rows[arch_id(arch)].parameters_millions


def weight_bytes(engine: str) -> int:
    """Bytes of one stored weight of an engine; 4 if this version does not know the engine."""
    return ENGINES[engine].stored_bytes if engine in ENGINES else Precision.F32.bytes


def embedding_parameters(teacher: Mapping[str, object], hidden: int) -> int:
    """Number of embedding parameters of a student with this hidden size: words, positions, types and their layer norm."""
    return (student_shape_of(teacher).rows + 2) * hidden


def interval(latency_ms: float, relative_sd: float) -> tuple[float, float]:
    """95 % interval in ms of a latency; `relative_sd` is the standard deviation of its logarithm."""
    factor = math.exp(INTERVAL_SDS * relative_sd)
    return latency_ms / factor, latency_ms * factor


def again(folder: Path) -> str:
    """Advice for a table that cannot be used; a finished artifact is never overwritten."""
    return f"remove {folder} and build it again with `kdnas latency-table`"


def write_rows(path: Path, rows: Sequence[TableRow]) -> None:
    """Write `table.csv`; `rows` must be all 2400 rows in order of id."""
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
        UsageError: the columns differ, a row is damaged, rows are missing, or a latency is not a positive number.
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
            raise UsageError(f"{path}: the row with id {row.id} is not architecture {arch}; {remedy}")
        if not (0 < row.latency_ms < math.inf and 0 <= row.relative_sd < math.inf):
            raise UsageError(
                f"{path}: architecture {arch} has latency {row.latency_ms} ms and relative_sd {row.relative_sd}; "
                f"the latency must be above 0 and relative_sd at least 0; {remedy}"
            )
    return rows
