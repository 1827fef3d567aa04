"""Ends a filter run whose units are all committed: the manifest, the check of the input, and the page."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from kdnas.errors import KdnasError
from kdnas.extras import require_extras
from kdnas.filtering.commits import RUN, RunFolder
from kdnas.filtering.gate import GATE
from kdnas.filtering.gate_report import gate_line, gate_results
from kdnas.filtering.inputs import find_inputs
from kdnas.filtering.open_store import open_store
from kdnas.filtering.opening import KIND, is_finished, output_errors, run_config
from kdnas.filtering.page import NAME, filter_page
from kdnas.filtering.remote import is_url
from kdnas.filtering.store import Store
from kdnas.filtering.units import rate
from kdnas.store.artifact import MANIFEST, SCHEMA, now, sealed
from kdnas.store.host import host
from kdnas.store.json_files import json_text
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say

QUARANTINED_EXIT = 4
SHOWN = 5


def filter_finish(output: str) -> Outcome:
    """Finish a run whose parts were scored by several processes (`--shard-index`): check, sum up, write the manifest and page.

    Args:
        output: output of the run, a folder or a URL.

    Returns:
        The folder and the counts; exit code 4 if too many records were quarantined.
    """
    store = open_store(output)
    config = run_config(store)
    with output_errors(output):
        return finish(RunFolder(store, config["labels"]), config)


def finish(folder: RunFolder, config: dict[str, Any]) -> Outcome:
    """As `filter_finish`; a finished run is reported again.

    Raises:
        KdnasError: units are missing.
    """
    store, earlier = folder.store, is_finished(folder.store)
    if not earlier:
        if folder.seal():
            missing = list(folder.missing())
            names = ", ".join(f"{unit.number} ({unit.segments[0].file.url})" for unit in missing[:SHOWN])
            raise KdnasError(
                f"output '{store.url}': {len(missing)} units are not committed: {names}"
                f"{', ...' if len(missing) > SHOWN else ''}; "
                "run the same command, or the shards with these units, again"
            )
        totals = folder.totals()
        results = totals | changes(folder, config) | {"gate": gate_results(store, config, totals)}
        _write_page(store, config, results)
        seals = [folder.seal_name(block) for block in folder.plan.blocks]
        found = {name: store.read(name) for name in (*seals, GATE)}
        manifest = {
            "schema": SCHEMA, "kind": KIND, "config": config, "inputs": {"model": config.get("model", "")},
            "results": results, "host": host(), "finished": now(), "seconds": round(results["seconds"], 1),
            "files": {name: sha256(data).hexdigest() for name, data in found.items() if data is not None},
        }  # fmt: skip
        store.write(MANIFEST, json_text(sealed(manifest)).encode())
        for name in (RUN, *(name for name in store.names() if name.endswith(".lock"))):
            store.remove(name)
    folder.clear()
    return report(store, folder.totals(), config, earlier)


def _write_page(store: Store, config: dict[str, Any], results: dict[str, Any]) -> None:
    try:
        require_extras("the page", ("report",))
    except KdnasError as error:
        say(f"filter: no page was written: {error}")
        return
    store.write(NAME, filter_page(config, results).encode())
    say(f"filter: page: {store.url}/{NAME}")


def changes(folder: RunFolder, config: dict[str, Any]) -> dict[str, Any]:
    """Files of the input that are new, gone or changed since the run was planned, and the number of empty ones."""
    planned = {
        segment.file.url: (segment.file.size, segment.file.stamp)
        for unit in folder.plan.units()
        for segment in unit.segments
    }
    try:
        found = {file.url: (file.size, file.stamp) for file in find_inputs(config["inputs"])}
    except KdnasError as error:
        say(f"filter: the input cannot be listed again: {error}")
        return {"empty_files": 0, "changed_files": [], "new_files": []}
    empty = [url for url, (size, _) in found.items() if not size]
    changed = sorted(url for url, state in planned.items() if found.get(url) != state)
    new = sorted(url for url in found if url not in planned and found[url][0])
    for names, what in ((changed, "changed or gone"), (new, "new, and not filtered")):
        if names:
            say(f"filter: {len(names)} files are {what} since the run was planned: {', '.join(names[:SHOWN])}")
    return {"empty_files": len(empty), "changed_files": changed[:1000], "new_files": new[:1000]}


def report(store: Store, totals: dict[str, Any], config: dict[str, Any], earlier: bool) -> Outcome:
    """Log the counts of a run and return its outcome."""
    documents = totals["documents"]
    gate = gate_results(store, config, totals)
    reasons = ", ".join(f"{count} {label}" for label, count in sorted(totals["drops"].items()))
    say(
        f"filter: {documents} documents: {totals['kept']} kept, {totals['dropped']} dropped"
        + (f" ({reasons})" if reasons else "")
        + f", {totals['quarantine']} quarantined"
        + (f"; {rate(totals, totals['seconds'])} in each process" if documents else "")
        + ("; finished by an earlier run" if earlier else "")
    )
    if gate is not None:
        say(gate_line(gate))
    too_many = totals["quarantine"] > config["max_quarantine"] * documents
    if too_many:
        problems = ", ".join(f"{count} {name}" for name, count in sorted(totals["problems"].items()))
        say(f"filter: quarantined: {problems}; --max-quarantine allows {config['max_quarantine']:g} of the documents")
    return outcome(store, totals | {"gate": gate}, QUARANTINED_EXIT if too_many else 0)


def outcome(store: Store, totals: dict[str, Any], exit_code: int = 0) -> Outcome:
    """The outcome of a command; a URL is printed as it is, because a path cannot hold it."""
    if is_url(store.url):
        return Outcome(None, totals, exit_code, text=store.url)
    return Outcome(Path(store.url), totals, exit_code)
