"""What a search is for: the architectures, what is known of them before any is distilled, and what a loss is worth."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.search.choice import Choice, is_int8
from kdnas.search.options import SearchOptions
from kdnas.search.reward import reward
from kdnas.store.artifact import Artifact, digest_of

TABLE = "table.csv"
LEAST_VOCABULARY = 100


@dataclass(frozen=True)
class LatencyTable:
    """What a latency table knows.

    Args:
        latencies: milliseconds of each architecture.
        megabytes: of each one's weights, embeddings included, in the precision of the table's engine.
        teacher_latency_ms: the teacher's, from the same host and engine.
        digest: changes when the table does.
        engine: that was timed.
        host: where, as in its manifest.
        teacher: digest of the teacher.
    """

    latencies: dict[Arch, float]
    megabytes: dict[Arch, float]
    teacher_latency_ms: float
    digest: str
    engine: str = ""
    host: str = ""
    teacher: str = ""


@dataclass(frozen=True)
class Goal:
    """What candidates are rewarded by.

    Args:
        latencies: milliseconds of each architecture that may be proposed.
        teacher_latency_ms: the teacher's.
        alpha: of Eq. 4; 0 where the lowest loss is wanted.
        beta: of Eq. 4.
        megabytes: of each one's weights.
        front: not the best reward is wanted but the front of loss, latency and memory.
        teacher: its shape, where it is known.
    """

    latencies: dict[Arch, float]
    teacher_latency_ms: float
    alpha: float
    beta: float
    megabytes: dict[Arch, float] = field(default_factory=dict)
    front: bool = False
    teacher: Arch | None = None

    @property
    def states(self) -> list[Arch]:
        """Architectures that may be proposed, in the order of their ids."""
        return list(self.latencies)

    @property
    def worst(self) -> tuple[float, float, float]:
        """Of the front, what is not wanted any more: a loss of 1, the teacher's latency, more memory than the largest needs."""
        return 1.0, self.teacher_latency_ms, 1.01 * max(self.megabytes.values(), default=1.0)

    def point(self, arch: Arch, loss: float) -> tuple[float, float, float]:
        """Loss, latency and memory, all to be small."""
        return loss, self.latencies[arch], self.megabytes.get(arch, 0.0)

    def reward(self, arch: Arch, loss: float) -> float:
        """Eq. 4."""
        return reward(loss, self.latencies[arch], self.teacher_latency_ms, self.alpha, self.beta)


def read_table(artifact: Artifact) -> LatencyTable:
    """A finished latency table.

    Raises:
        UsageError: it is missing, damaged or has no teacher.
    """
    path = artifact.path / TABLE
    engine = str(artifact.manifest["config"].get("options", {}).get("engine", ""))
    weight_bytes = bytes_of(engine)
    latencies, megabytes = {}, {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                arch = Arch(
                    int(row["layers"]), int(row["heads"]), int(row["hidden"]), int(row["ffn"]), row["activation"]
                )
                latencies[arch] = float(row["latency_ms"])
                megabytes[arch] = weight_bytes * float(row["parameters_millions"])
        teacher_latency_ms = float(artifact.results["teacher_latency_ms"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: not a whole latency table ({type(error).__name__}: {error}); run `kdnas latency-table` again"
        ) from error
    where = host_name(artifact.manifest.get("host") or {})
    teacher = str((artifact.manifest.get("inputs") or {}).get("teacher", ""))
    return LatencyTable(latencies, megabytes, teacher_latency_ms, artifact.digest, engine, where, teacher)


def host_name(record: Mapping[str, Any]) -> str:
    """What tells hosts apart whose latencies must not be mixed; empty where nothing is known."""
    return f"{record.get('cpu')}, {record.get('physical_cores')} cores" if record else ""


def bytes_of(engine: str) -> int:
    """Bytes of a weight."""
    return 1 if is_int8(engine) else 4


def with_choices(
    states: Iterable[Arch], tables: Sequence[LatencyTable], vocabularies: Sequence[int], whole: int
) -> tuple[list[Choice], LatencyTable]:
    """Architectures times vocabularies times engines, and one table of them all; the teacher's latency is the first table's.

    Args:
        states: architectures.
        tables: one of each engine.
        vocabularies: numbers of tokens; 0 for all.
        whole: tokens of the teacher's vocabulary.

    Raises:
        UsageError: tables of two hosts or of one engine, or a vocabulary that is larger than the teacher's.
    """
    engines = [table.engine for table in tables]
    if len(set(engines)) < len(engines):
        raise UsageError(f"latency tables: engines are {', '.join(engines)}; give one table of each engine")
    if len({(table.host, table.teacher) for table in tables}) > 1:
        found = "; ".join(dict.fromkeys(table.host for table in tables))
        raise UsageError(
            f"latency tables: of different hosts or teachers ({found}); measure all on one host, of one teacher"
        )
    wrong = [size for size in vocabularies if size and not LEAST_VOCABULARY <= size <= whole]
    if wrong or len(set(vocabularies)) < len(vocabularies):
        raise UsageError(
            f"vocabularies is {list(vocabularies)}; allowed are different ones of {LEAST_VOCABULARY} to the teacher's {whole} "
            "tokens, and 0 for all"
        )
    choices: list[Choice] = []
    latencies: dict[Arch, float] = {}
    megabytes: dict[Arch, float] = {}
    for arch in states:
        for size in vocabularies or (0,):
            for table in tables:
                choice = Choice(arch.layers, arch.heads, arch.hidden, arch.ffn, arch.activation, size, table.engine)
                choices.append(choice)
                latencies[choice] = table.latencies.get(arch, math.nan)
                saved = (whole - size) * arch.hidden / 1e6 if size else 0.0
                megabytes[choice] = table.megabytes.get(arch, math.nan) - bytes_of(table.engine) * saved
    digest = digest_of({"tables": [table.digest for table in tables], "vocabularies": list(vocabularies)})
    return choices, replace(tables[0], latencies=latencies, megabytes=megabytes, digest=digest)


def make_goal(
    states: Iterable[Arch], table: LatencyTable, options: SearchOptions, teacher: Teacher | None = None
) -> Goal:
    """Those of some architectures that the options allow, and what is wanted of them.

    Args:
        states: architectures.
        table: their latencies.
        options: what is wanted.
        teacher: of the table; the shape of another one is no hint.

    Raises:
        UsageError: some are not in the table, none is allowed, or the table is of another engine than asked.
    """
    if options.engine is not None and table.engine != options.engine:
        raise UsageError(
            f"engine is {options.engine}, the latency table is of {table.engine}; run "
            f"`kdnas latency-table --engine {options.engine}`, or give that table"
        )
    wanted = list(states)
    wrong = [arch for arch in wanted if not 0 < table.latencies.get(arch, math.nan) < math.inf]
    if wrong:
        raise UsageError(
            f"latency table: no usable latency for {len(wrong)} of {len(wanted)} architectures of the space, the first is "
            f"{wrong[0]}; run `kdnas latency-table` again, or cut the space"
        )
    slowest_ms = min(
        options.max_latency_ms or math.inf, (options.max_latency_share or math.inf) * table.teacher_latency_ms
    )
    largest = options.max_megabytes or math.inf
    allowed = [arch for arch in wanted if table.latencies[arch] <= slowest_ms and table.megabytes[arch] <= largest]
    if not allowed:
        raise UsageError(
            f"max_latency_ms is {options.max_latency_ms}, max_latency_share {options.max_latency_share}, max_megabytes "
            f"{options.max_megabytes}: of {len(wanted)} architectures none is within all; the fastest takes "
            f"{min(table.latencies[arch] for arch in wanted):.3g} ms (the teacher {table.teacher_latency_ms:.3g}), the smallest "
            f"{min(table.megabytes[arch] for arch in wanted):.3g} MB"
        )
    return Goal(
        {arch: table.latencies[arch] for arch in allowed},
        table.teacher_latency_ms,
        options.alpha,
        options.beta,
        {arch: table.megabytes[arch] for arch in allowed},
        options.front,
        teacher.shape if teacher and table.teacher in ("", teacher.digest) else None,
    )
