"""The rows of a comparison: the variants of the libraries that can run, and the reasons for those that cannot."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.export.folder import FORMS, read_settings
from kdnas.latency.peers.environment import python_of
from kdnas.latency.peers.libraries import ORDER, REFERENCE, REFERENCE_VARIANT, Job, library_of
from kdnas.latency.peers.process import PeerProcess
from kdnas.latency.process import WorkerError
from kdnas.store.host import default_threads
from kdnas.store.progress import stage


@dataclass(frozen=True)
class Row:
    """A variant of a library.

    Args:
        library: name of the library.
        python: Python that runs it.
        job: its job; `threads` and `choice` are those of the race's winner once it ran.
    """

    library: str
    python: Path
    job: Job

    @property
    def name(self) -> str:
        """Name in results, such as `sentence-transformers onnx`."""
        return row_name(self.library, self.job.variant)


def row_name(library: str, variant: str) -> str:
    """Name of a row, such as `sentence-transformers onnx`."""
    return f"{library.replace('_', '-')} {variant}"


RIGHT = row_name(REFERENCE, REFERENCE_VARIANT)


def chosen_libraries(wanted: Sequence[str]) -> list[str]:
    """Names of the libraries to compare, in their order: those given, or all.

    Raises:
        UsageError: there is no such library.
    """
    names = libraries_named(wanted)
    return [name for name in ORDER if not names or name in names]


def libraries_named(wanted: Sequence[str]) -> list[str]:
    """Names of libraries as in `ORDER`; `sentence-transformers` is `sentence_transformers`.

    Raises:
        UsageError: there is no such library.
    """
    names = [name.replace("-", "_") for name in wanted]
    for name in names:
        library_of(name)
    return names


def find_rows(exported: Path, libraries: Iterable[str], home: Path, prepared: Path) -> tuple[list[Row], dict[str, str]]:
    """The rows that can run, and why the others cannot, by name.

    Args:
        exported: folder of `kdnas export`.
        libraries: names of the libraries; eager PyTorch is always added, because its answers are the right ones.
        home: root of artifacts.
        prepared: folder for the libraries' own forms of the model.

    Raises:
        UsageError: `exported` is not an export of an encoder.
    """
    settings = read_settings(exported)
    if settings["task"] != "feature-extraction":
        raise UsageError(
            f"{exported}: an export for {settings['task']}; peers are compared on an encoder without a head"
        )
    forms = tuple(name for name in settings["forms"] if name in FORMS)
    config = json.loads((exported / "config.json").read_text())
    around = (forms, str(config["model_type"]), str(settings.get("pooling", "mean")), int(settings["max_seq_len"]))
    rows: list[Row] = []
    reasons: dict[str, str] = {}
    variants = {REFERENCE: (REFERENCE_VARIANT,)} | {name: library_of(name).VARIANTS for name in libraries}
    for library, names in sorted(variants.items(), key=lambda item: ORDER.index(item[0])):
        python = python_of(home, library)
        if python is None:
            reasons[library.replace("_", "-")] = (
                f"not installed; the same command with --install-peers {library} adds it"
            )
            continue
        for variant in names:
            job = Job(exported.resolve(), prepared.resolve() / library, variant, *around)
            why = library_of(library).missing(job)
            if why is None:
                rows.append(Row(library, python, job))
            else:
                reasons[row_name(library, variant)] = why
    return rows, reasons


def prepare(rows: Sequence[Row], reasons: dict[str, str]) -> list[Row]:
    """Let each library write its own form of the model, once for all variants; rows of those that cannot go to `reasons`.

    A finished form of an interrupted run is kept.

    Returns:
        The rows that remain.
    """
    failed: dict[str, str] = {}
    first = {row.library: row for row in reversed(rows)}
    with stage("peers: prepare", len(first)) as progress:
        for library, row in first.items():
            folder = row.job.prepared
            if not folder.is_dir():
                scratch = folder.with_name(f"{library}.scratch")
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir(parents=True)
                try:
                    with PeerProcess(row.python, library, replace(row.job, prepared=scratch)) as process:
                        process.prepare()
                    os.rename(scratch, folder)
                except WorkerError as error:
                    failed[library] = f"it cannot prepare this model: {error}"
            progress.advance()
    reasons |= {row.name: failed[row.library] for row in rows if row.library in failed}
    return [row for row in rows if row.library not in failed]


def candidates(row: Row, threads: int | None) -> list[Row]:
    """The row with each of its settings: numbers of threads, and the library's own choices.

    Args:
        row: the row.
        threads: the only number of threads; None for 1, 2, 4, up to `default_threads`.
    """
    counts = [threads] if threads else sorted({min(power, default_threads()) for power in (1, 2, 4)})
    choices: Sequence[Mapping[str, Any]] = library_of(row.library).CHOICES.get(row.job.variant, ({},))
    return [
        replace(row, job=replace(row.job, threads=count, choice=choice)) for count, choice in product(counts, choices)
    ]
