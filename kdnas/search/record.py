"""`kdnas record`: proxy losses of many architectures, spread over the space, to compare strategies on."""

import csv
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdnas.arch import FIELDS, Arch, SearchSpace, arch_id
from kdnas.artifact import Artifact, append_jsonl, build, read_jsonl
from kdnas.corpus import Corpus, build_corpus
from kdnas.errors import KdnasError, UsageError
from kdnas.progress import say_path, stage
from kdnas.rows import TextOptions
from kdnas.search.design import spread
from kdnas.search.options import ProxyOptions
from kdnas.search.recording import COLUMNS, FILE
from kdnas.teacher import Teacher, resolve_teacher

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class RecordOptions:
    """What is recorded.

    Args:
        architectures: how many, each the farthest from those before it.
        seeds: of the sentences, their order and the students' weights; the first is for all architectures.
        repeated: architectures, the first ones, that are distilled with every further seed as well.
        checkpoints: equal parts of the budget, after each of which the loss is measured.
        proxy: how an architecture is distilled.
    """

    architectures: int = 300
    seeds: tuple[int, ...] = (0, 1)
    repeated: int = 40
    checkpoints: int = 6
    proxy: ProxyOptions = field(default_factory=ProxyOptions)

    def __post_init__(self) -> None:
        for name in ("architectures", "checkpoints"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UsageError(f"seeds is {self.seeds}; give different ones, none negative")
        if not 0 <= self.repeated <= self.architectures:
            raise UsageError(f"repeated is {self.repeated}; allowed are 0 to the {self.architectures} architectures")


def record(
    options: RecordOptions,
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    space: SearchSpace = SearchSpace(),
    home: Path = Path("artifacts"),
) -> None:
    """Record proxy losses, and print the folder of the result.

    Args:
        options: what is recorded.
        teacher: `builtin:minilm-l6`, a folder, or a hub id.
        corpus: `builtin:pydocs`, a file, or a hub id.
        text: how the corpus is read.
        space: values that each field may take; depths beyond the teacher's are left out.
        home: root of all artifacts.
    """
    found = resolve_teacher(teacher)
    built = build_corpus(home, corpus, text, found)
    say_path(run_record(home, found, built, space, options).path)


def run_record(home: Path, teacher: Teacher, corpus: Corpus, space: SearchSpace, options: RecordOptions) -> Artifact:
    """Record proxy losses; what an interrupted run distilled is not distilled again.

    Args:
        home: root of artifacts.
        teacher: the teacher.
        corpus: what architectures are distilled on.
        space: values that each field may take.
        options: what is recorded.

    Returns:
        Artifact with `recording.csv`.

    Raises:
        UsageError: the teacher can teach nothing of the space.
    """
    space = space.teachable(teacher.layers)
    config = {"space": space, "options": options}
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest}
    return build(
        home, "recording", teacher.label, config, inputs, lambda path: _work(path, teacher, corpus, space, options)
    )


def _work(path: Path, teacher: Teacher, corpus: Corpus, space: SearchSpace, options: RecordOptions) -> dict[str, Any]:
    from kdnas.search.proxy import Proxy

    chosen = spread(list(space), options.architectures, options.seeds[0])
    wanted = {seed: chosen if seed == options.seeds[0] else chosen[: options.repeated] for seed in options.seeds}
    rows = read_jsonl(path / JOURNAL)
    done = {(row["seed"], row["arch"]) for row in rows}
    total = sum(map(len, wanted.values()))
    with stage("record", total, len(done)) as progress:
        for seed, archs in wanted.items():
            missing = [arch for arch in archs if (seed, str(arch)) not in done]
            if not missing:
                continue
            proxy = Proxy(path / f"states-{seed}", teacher, corpus, space, options.proxy, seed)
            for arch in missing:
                row = {"seed": seed, "arch": str(arch), **_distilled(proxy, arch, options.checkpoints)}
                append_jsonl(path / JOURNAL, row)
                rows.append(row)
                progress.advance(1)
            proxy.close()
    if not any(row["curve"] for row in rows):
        raise KdnasError(f"record: all {len(rows)} architectures failed, the first with '{rows[0]['failed']}'")
    _write(path / FILE, rows)
    return {
        "architectures": len(chosen),
        "losses": sum(len(row["curve"]) for row in rows),
        "failed": sum(row["failed"] is not None for row in rows),
        "seconds_per_architecture": round(sum(row["seconds"] for row in rows) / len(rows), 2),
    }


def _distilled(proxy: Any, arch: Arch, checkpoints: int) -> dict[str, Any]:
    """Tokens and loss at each checkpoint; none where it cannot run, up to where it diverges."""
    start, failed, curve = time.monotonic(), None, []
    try:
        marks = [number / checkpoints for number in range(1, checkpoints + 1)]
        curve = [(found.tokens, found.loss) for found in proxy.curve(arch, marks) if math.isfinite(found.loss)]
        failed = None if len(curve) == checkpoints else "the loss is not finite"
    except (RuntimeError, MemoryError) as error:
        failed = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    return {"curve": curve, "seconds": round(time.monotonic() - start, 3), "failed": failed}


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="") as written:
        table = csv.writer(written, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            arch = Arch.parse(row["arch"])
            fields = [getattr(arch, name) for name in FIELDS]
            for tokens, loss in row["curve"]:
                table.writerow([arch_id(arch), *fields, row["seed"], tokens, f"{loss:.6f}", row["seconds"]])
