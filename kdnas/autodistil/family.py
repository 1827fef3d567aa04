"""A family on disk: `space.json`, `family.csv`, and a folder for each net with its stock model and projections."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas.autodistil.latency import Latency
from kdnas.autodistil.sub_space import SubSpace
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.json_files import write_json

KIND = "autodistil"
SPACE, SCORES = "space.json", "family.csv"
NET = "net"  # stock model in the folder of a net
COLUMNS = (
    "member", "sub_space", "layers", "heads", "hidden", "ffn", "activation", "loss", "explained_variance",
    "layer_parameters_millions", "parameters_millions", "latency_ms", "latency_source",
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A finished family.

    Args:
        path: its folder.
        spaces: its sub-spaces.
        teacher: its teacher; the path is empty.
        rows: rows of `family.csv` by member; a value that is not known is None.
    """

    path: Path
    spaces: tuple[SubSpace, ...]
    teacher: Teacher
    rows: Mapping[Arch, dict[str, Any]]

    @property
    def members(self) -> list[Arch]:
        """The members of all sub-spaces."""
        return [arch for space in self.spaces for arch in space.members]

    def net(self, space: SubSpace) -> Path:
        """The stock folder of a sub-space's net."""
        return self.path / space.name / NET

    @classmethod
    def load(cls, path: Path) -> "Family":
        """Open a family: the folder that `kdnas autodistil` printed.

        Raises:
            UsageError: the folder is no finished family, or damaged.
            KdnasError: a file was changed.
        """
        artifact = Artifact.load(path, KIND)
        artifact.verify()
        try:
            known = json.loads((path / SPACE).read_text())
            spaces = tuple(SubSpace.from_dict(space) for space in known["sub_spaces"])
            teacher = Teacher(known["teacher"]["spec"], Path(), known["teacher"]["config"], known["teacher"]["digest"])
            with (path / SCORES).open(newline="") as file:
                rows = {Arch.parse(row["member"]): read_row(row) for row in csv.DictReader(file)}
            if set(rows) != {arch for space in spaces for arch in space.members}:
                raise ValueError(f"{SCORES} and {SPACE} have different members")
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"{path}: a damaged family ({type(error).__name__}: {error}); train it again with `kdnas autodistil`"
            ) from error
        return cls(path, spaces, teacher, rows)


def read_row(row: Mapping[str, str]) -> dict[str, Any]:
    """A row of `family.csv` with numbers; an empty value is None."""
    whole, words = ("layers", "heads", "hidden", "ffn"), ("member", "sub_space", "activation", "latency_source")
    found: dict[str, Any] = {}
    for name in COLUMNS:
        value = row[name]
        found[name] = None if value == "" else int(value) if name in whole else value if name in words else float(value)
    return found


def write_space(folder: Path, spaces: Sequence[SubSpace], teacher: Teacher) -> None:
    """Write `space.json`."""
    write_json(
        folder / SPACE,
        {
            "sub_spaces": [space.to_dict() for space in spaces],
            "teacher": {"spec": teacher.spec, "digest": teacher.digest, "config": teacher.config},
        },
    )


def member_rows(
    spaces: Sequence[SubSpace],
    scores: Mapping[Arch, Mapping[str, Any]],
    embedding_rows: int,
    latencies: Mapping[Arch, Latency],
) -> list[dict[str, Any]]:
    """Rows of `family.csv`, from large to small.

    Args:
        spaces: sub-spaces of the family.
        scores: loss and explained variance of each member.
        embedding_rows: number of rows of all embedding tables.
        latencies: latency of each member; empty without a latency table.
    """
    rows = []
    for space in spaces:
        for arch in space.members:
            latency = latencies.get(arch)
            embeddings = (embedding_rows + 2) * arch.hidden
            rows.append(
                {
                    "member": str(arch),
                    "sub_space": space.name,
                    **{name: getattr(arch, name) for name in ("layers", "heads", "hidden", "ffn", "activation")},
                    **{name: scores[arch][name] for name in ("loss", "explained_variance")},
                    "layer_parameters_millions": arch.layer_parameters / 1e6,
                    "parameters_millions": (arch.layer_parameters + embeddings) / 1e6,
                    "latency_ms": latency.ms if latency else None,
                    "latency_source": latency.source if latency else None,
                }
            )
    return rows


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `family.csv`."""
    with (folder / SCORES).open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _rounded(value) for name, value in row.items()} for row in rows)


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
