"""`kdnas filter`: score documents with an exported classifier and split or annotate them, unit by unit."""

import hashlib
import json
import os
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from kdnas.cluster import require_ray
from kdnas.errors import UsageError
from kdnas.filtering.cascade import open_gate, scoring_of
from kdnas.filtering.commits import RunFolder
from kdnas.filtering.decision import Policy
from kdnas.filtering.finish import finish, outcome
from kdnas.filtering.gate_options import GateOptions
from kdnas.filtering.inputs import InputFile, find_inputs
from kdnas.filtering.open_store import open_store
from kdnas.filtering.opening import is_finished, open_run, output_errors, require_output
from kdnas.filtering.options import FilterOptions
from kdnas.filtering.plan import cut_units, read_plan
from kdnas.filtering.policies import choose_policy, policy_config, policy_line
from kdnas.filtering.reading import read_chunks
from kdnas.filtering.remote import is_url
from kdnas.filtering.scoring import Scorer
from kdnas.filtering.shards import shard_of
from kdnas.filtering.store import Store
from kdnas.filtering.units import Failures, Scoring, Speed, attempt_unit
from kdnas.filtering.workers import WorkerSettings, run_on_cluster
from kdnas.store.artifact import MANIFEST, Artifact
from kdnas.store.digest import digest_of, file_sha256
from kdnas.store.host import default_threads
from kdnas.store.outcome import Outcome
from kdnas.store.progress import Stage, say, stage

STDIN = "-"
SHOWN = 5


def filter_documents(
    model: Path,
    input: tuple[str, ...],
    output: str,
    form: str | None = None,
    threads: int | None = None,
    options: FilterOptions = FilterOptions(),
    verify: bool = True,
    shard_index: int | None = None,
    shard_count: int | None = None,
    cluster: str | None = None,
    gate: GateOptions = GateOptions(),
) -> Outcome:
    """Score documents with an exported classifier, sentence by sentence, and split them into kept and dropped ones.

    The output folder gets `kept/` (unchanged records), `dropped/` (with score and reason), `quarantine/` (unreadable records
    with file, position and reason), the page `report.html` and `manifest.json`. The same command resumes an interrupted run.

    Args:
        model: folder of a classifier that `kdnas export` wrote.
        input: files, folders or globs, local or URLs such as s3://bucket/folder: .jsonl or .txt (also .gz, .zst) or .parquet;
            `-` reads JSON lines or plain lines from the standard input.
        output: folder for the result, or URL such as s3://bucket/run: a new one, or one from an earlier run of the same command.
        form: form of the model to run, for example `openvino-int8`; by default the fastest.
        threads: number of threads of the model; by default min(4, physical cores).
        shard_index: index, from 0, of this process among several that score one run, each started with the same command; then
            `kdnas filter finish` sums it up. By default from the variables of Slurm or Kubernetes.
        shard_count: number of these processes.
        cluster: score on a Ray cluster: `local` starts one with a worker per core; otherwise the address of a running one, whose
            hosts see the model, the input and the output under the same paths.
        options: what is read, how it is scored, and what is written.
        verify: compare the files that the model's form needs with the hashes in its manifest first.
        gate: a cheap model that lets clearly clean sentences pass.

    Returns:
        The folder and the counts; exit code 4 if too many records were quarantined.
    """
    require_ray(cluster, "--cluster")
    if cluster is not None and (shard_index is not None or shard_count is not None):
        raise UsageError("cluster and shard_index divide the units in two ways; give one of them")
    gate.require_possible(options)
    index, count = shard_of(shard_index, shard_count) if cluster is None else (0, 1)
    with output_errors(output):
        store = open_store(output)
        check_apart(input, output)
        require_output(store)
        inputs = read_stdin(store) if input == (STDIN,) else input
        files = [] if read_plan(store) is not None else find_inputs(inputs)
        check_documents(files, options)
        scorer = Scorer(model, form, default_threads() if threads is None else threads, verify)
        policy, source = choose_policy(model, scorer.session.labels, options)
        say(f"filter: {policy_line(policy, source)}")
        config = config_of(options, inputs) | policy_config(policy, source) | gate.config()
        config |= {"model": export_digest(model), "form": scorer.session.form}
        folder = open_run(store, config, lambda: cut_units(files, options.unit_bytes))
        if not is_finished(store):
            with store.locked(f"filter-{index}-of-{count}.lock"):
                built = open_gate(folder, scorer, policy, options, gate)
                if cluster is None:
                    run_units(folder, scoring_of(scorer, policy, options, gate, built), policy, options, index, count)
                else:
                    place = output if is_url(output) else os.path.realpath(output)
                    around = (policy, options, gate, built)
                    run_on_cluster(
                        cluster, folder, WorkerSettings(place, model.resolve(), scorer.session.form, *around)
                    )
            if count > 1:
                say(
                    f"filter: shard {index} of {count} is done; after the others: kdnas filter finish --output {output}"
                )
                return outcome(store, folder.totals())
        return finish(folder, config)


def config_of(options: FilterOptions, inputs: tuple[str, ...]) -> dict[str, Any]:
    """The settings that determine the result, besides the policy and the model."""
    return {
        "inputs": [name if is_url(name) else str(Path(name).absolute()) for name in inputs],
        "mode": options.mode,
        "column": options.column,
        "id_column": options.id_column,
        "language_column": options.language_column,
        "max_quarantine": options.max_quarantine,
        "unit_mb": options.unit_mb,
        "overlap": options.overlap,
        "batch_tokens": options.batch_tokens,
    }


def run_units(
    folder: RunFolder, scoring: Scoring, policy: Policy, options: FilterOptions, index: int = 0, count: int = 1
) -> None:
    """Score, write and commit every unit that is not committed, in this process.

    Raises:
        KdnasError: units failed; all others are committed.
    """
    missing = list(folder.missing(index, count))
    failures, speed = Failures(), Speed()
    with stage("filter", sum(unit.bytes for unit in missing)) as progress:
        done = 0
        for unit in missing:
            note = partial(_show, progress, speed, done)
            found = attempt_unit(folder, unit, scoring, policy, options, note)
            done += unit.bytes
            if isinstance(found, str):
                failures.add(found)
            else:
                speed.add(found["totals"])
            progress.update(done, speed.line())
    failures.require_none()


def _show(progress: Stage, speed: Speed, done: int, totals: dict[str, Any]) -> None:
    progress.update(done, speed.line(totals))


def read_stdin(store: Store) -> tuple[str, ...]:
    """Copy the standard input to a file of the output, named by its content; returns its path or URL."""
    data = sys.stdin.buffer.read()
    if not data.strip():
        raise UsageError("input '-': the standard input is empty")
    kind = "jsonl" if data.lstrip()[:1] == b"{" else "txt"
    name = f"stdin.{hashlib.sha256(data).hexdigest()[:12]}.{kind}"
    store.create(name, data)
    return (f"{store.url}/{name}",)


def export_digest(model: Path) -> str:
    """Digest of an exported model: from its manifest, or of its files if it has none."""
    if (model / MANIFEST).is_file():
        return Artifact.load(model).digest
    files = sorted(file for file in model.rglob("*") if file.is_file())
    return digest_of({str(file.relative_to(model)): file_sha256(file) for file in files})


def check_apart(inputs: tuple[str, ...], output: str) -> None:
    """Check that the output is not an input, does not contain one, and is not inside one.

    Raises:
        UsageError: it is or does.
    """
    target = _absolute(output)
    for name in inputs:
        if name == STDIN or is_url(name) != is_url(output):
            continue
        source = _absolute(name)
        if target == source or target in source.parents:
            raise UsageError(f"output '{output}': it is or contains the input {name}; give another folder")
        if source in target.parents and (is_url(name) or source.is_dir()):
            raise UsageError(f"output '{output}': it is inside the input {name}; give a folder outside of it")


def _absolute(name: str) -> Path:
    return Path("/", name) if is_url(name) else Path(name).resolve()


def check_documents(files: list[InputFile], options: FilterOptions) -> None:
    """Check the first documents of the input before anything is written.

    Raises:
        UsageError: none of the first documents has the column.
    """
    for file in files[:SHOWN]:
        for unit in islice(cut_units([file], options.unit_bytes), 1):
            for chunk in islice(read_chunks(unit, options), 1):
                problems = [document.problem for document in chunk.documents]
                if not all(problem.startswith("no column") for problem in problems):
                    return
                first = chunk.documents[0]
                names = f"; it has {', '.join(json.loads(first.raw)) or 'none'}" if first.raw else ""
                raise UsageError(f"input '{file.url}': {problems[0]}{names} (set --column)")
