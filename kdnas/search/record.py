"""`kdnas record`: proxy losses of many architectures of a teacher, for comparing strategies."""

import csv
import math
import shutil
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from kdnas.cluster import require_ray
from kdnas.distill.building import shared_with_candidates
from kdnas.distill.options import DistillOptions
from kdnas.errors import KdnasError, UsageError
from kdnas.models.arch import FIELDS, Arch, SearchSpace, arch_id
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.search.cluster import all_of
from kdnas.search.drawing import RANDOM, drawn, named, origins
from kdnas.search.options import ProxyOptions
from kdnas.search.outcome import ProxyResult
from kdnas.search.recording import COLUMNS, FILE
from kdnas.store.artifact import Artifact, build
from kdnas.store.host import host, host_name
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import stage
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class RecordOptions:
    """Options of a recording.

    Args:
        architectures: number of architectures that are drawn from those that the teacher allows.
        draw: `random` gives each architecture the same chance; `spread` takes the farthest from those before it.
        add_named: also record the paper's hand-designed and recommended architectures and the teacher's own shape.
        seed: seed of the draw, and of the sentences, their order and the students' random weights.
        second_seed_for: number of architectures, from the first drawn, that are also distilled with the next seed.
        checkpoints: number of times that the loss is measured, at equal parts of the budget.
        proxy: how an architecture is distilled.
    """

    architectures: int = 150
    draw: Literal["random", "spread"] = "random"
    add_named: bool = True
    seed: int = 0
    second_seed_for: int = 20
    checkpoints: int = 6
    proxy: ProxyOptions = field(default_factory=ProxyOptions)

    def __post_init__(self) -> None:
        for name in ("architectures", "checkpoints"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.draw not in (RANDOM, "spread"):
            raise UsageError(f"draw is '{self.draw}'; allowed are random and spread")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must not be negative")
        if not 0 <= self.second_seed_for <= self.architectures:
            raise UsageError(
                f"second_seed_for is {self.second_seed_for}; allowed are 0 to the {self.architectures} architectures"
            )


def record(
    options: RecordOptions,
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    space: SearchSpace = SearchSpace(),
    ray: str | None = None,
    distill: DistillOptions = DistillOptions(),
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Record the proxy losses of many architectures. The teacher runs once for all architectures of a seed.

    Args:
        options: options of the recording.
        teacher: `builtin:NAME` (`kdnas teachers` lists them), a folder, or a hub id.
        corpus: `builtin:pydocs`, a file or folder, several of both separated by commas, or a hub id.
        text: how the corpus is read.
        space: values that each field may take; depths beyond the teacher's are left out.
        ray: `local`, or the address of a Ray cluster, to distil architectures in parallel, each on one core.
        distill: its start, mapping, projections and loss_scale are used and, if architectures learn embeddings, its options of
            the losses of embeddings, except the contrastive term; the others do not matter here.
        home: root of all artifacts.
        output: folder that gets the result as plain files; null writes only below `home`.
    """
    require_output(output, "recording")
    require_ray(ray)
    found = resolve_teacher(teacher, home)
    space = space.teachable(found.layers)  # reject before the corpus is built, which may take minutes
    built = build_corpus(home.resolve(), corpus, text, found)
    return deliver(run_record(home.resolve(), found, built, space, options, ray, distill), output)


def run_record(
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    space: SearchSpace,
    options: RecordOptions,
    ray: str | None = None,
    distill: DistillOptions = DistillOptions(),
) -> Artifact:
    """Record proxy losses; an interrupted run is resumed.

    Args:
        home: root of artifacts.
        teacher: the teacher.
        corpus: the training text.
        space: values that each field may take.
        options: options of the recording.
        ray: as in `record`.
        distill: as in `record`.

    Returns:
        Artifact with `recording.csv`.

    Raises:
        UsageError: every architecture of the space is deeper than the teacher.
        KdnasError: all architectures failed.
    """
    space = space.teachable(teacher.layers)
    config = {"space": space, "options": options, "distill": shared_with_candidates(distill, options.proxy.objective)}
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest}
    absolute = replace(teacher, path=teacher.path.resolve())

    def work(path: Path) -> dict[str, Any]:
        return _work(path, home, absolute, corpus, space, options, ray, distill)

    return build(home, "recording", teacher.label, config, inputs, work)


def _work(
    path: Path,
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    space: SearchSpace,
    options: RecordOptions,
    ray: str | None,
    distill: DistillOptions,
) -> dict[str, Any]:
    chosen = drawn(space, options.architectures, options.draw, options.seed)
    others = named(space, teacher.shape) if options.add_named else {}
    every = origins(chosen, others, options.draw)
    wanted = {options.seed: list(every), options.seed + 1: chosen[: options.second_seed_for]}
    rows = read_jsonl(path / JOURNAL)
    done = {(row["seed"], row["arch"]) for row in rows}
    with stage("record", sum(map(len, wanted.values())), len(done)) as progress:
        for seed, archs in wanted.items():
            missing = [arch for arch in archs if (seed, str(arch)) not in done]
            states = path / f"states-{seed}"
            if not missing:
                shutil.rmtree(states, ignore_errors=True)  # left by a run that was killed after its last architecture
                continue
            make = partial(_Curves, states, home, teacher, corpus, space, options, seed, distill)
            curves = make()  # computes the teacher's states before any worker needs them
            with all_of(make, curves, ray) as evaluate_all:
                for index, found in evaluate_all(missing):
                    curve, seconds = found.result.curve, found.seconds
                    row = {"seed": seed, "arch": str(missing[index]), "curve": curve, "seconds": seconds}
                    rows.append(row | {"failed": found.failed, **_provenance()})
                    append_jsonl(path / JOURNAL, rows[-1])
                    progress.advance(1)
            curves.close()
    if not any(row["curve"] for row in rows):
        raise KdnasError(f"record: all {len(rows)} architectures failed, the first with '{rows[0]['failed']}'")
    order = {(seed, str(arch)): index for seed, archs in wanted.items() for index, arch in enumerate(archs)}
    rows.sort(key=lambda row: (row["seed"], order[row["seed"], row["arch"]]))
    origin = {str(arch): found for arch, found in every.items()}
    _write(path / FILE, rows, origin, teacher, options.proxy.objective)
    return {
        "architectures": len(every),
        "drawn": len(chosen),
        "objective": options.proxy.objective,
        "space_size": len(space),
        "losses": sum(len(row["curve"]) for row in rows),
        "failed": sum(row["failed"] is not None for row in rows),
        "seconds_per_architecture": round(sum(row["seconds"] for row in rows) / len(rows), 2),
    }


def _provenance() -> dict[str, str]:
    """Commit and host of a row: a resumed recording may have several."""
    return {"commit": host()["commit"] or "", "host": host_name(host())}


class _Curves:
    """Distils architectures with one seed, and measures the loss at each checkpoint until it diverges."""

    def __init__(
        self,
        states: Path,
        home: Path,
        teacher: Teacher,
        corpus: Corpus,
        space: SearchSpace,
        options: RecordOptions,
        seed: int,
        distill: DistillOptions,
    ) -> None:
        from kdnas.search.proxy import Proxy

        self._proxy = Proxy(states, teacher, corpus, space, options.proxy, seed, distill, home)
        self._marks = [number / options.checkpoints for number in range(1, options.checkpoints + 1)]
        self.close = self._proxy.close

    def __call__(self, arch: Arch) -> ProxyResult:
        """The last loss, and the finite ones before it."""
        found = list(self._proxy.curve(arch, self._marks))
        finite = [(one.tokens, one.loss) for one in found if math.isfinite(one.loss)]
        loss = found[-1].loss if len(finite) == len(self._marks) else math.nan
        return ProxyResult(loss, found[-1].tokens, tuple(finite))


def _write(file: Path, rows: list[dict[str, Any]], origin: dict[str, str], teacher: Teacher, objective: str) -> None:
    shape = str(teacher.shape or "")
    with file.open("w", newline="") as written:
        table = csv.writer(written, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            arch = Arch.parse(row["arch"])
            fields = [getattr(arch, name) for name in FIELDS]
            known = [origin[row["arch"]], teacher.label, teacher.digest, shape, row["commit"], row["host"], objective]
            for tokens, loss in row["curve"]:
                table.writerow([arch_id(arch), *fields, row["seed"], tokens, f"{loss:.6f}", row["seconds"], *known])
