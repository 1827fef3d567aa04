"""`kdnas gate run`, `kdnas gate compare` and `kdnas gate check`."""

import json
import tempfile
from pathlib import Path

from kdnas.errors import KdnasError, UsageError
from kdnas.gates.decision import Rule
from kdnas.gates.facts import SHOWN, collect, differences, read_facts
from kdnas.gates.job import Found, compare, save
from kdnas.gates.process import SideError, SuiteOptions, Timed, run_process
from kdnas.gates.sides import Side, make_side
from kdnas.gates.summary import markdown, picture
from kdnas.store.artifact import digest_of, file_sha256, locked, write_json
from kdnas.store.host import SOURCE
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say

OWN = Path(__file__).resolve().parent / "suite" / "hot_paths.py"
FACTS = Path(__file__).resolve().parent / "facts.json"


def gate_run(
    suite: Path | None = None,
    model: Path | None = None,
    output: Path = Path("benchmarks.json"),
    options: SuiteOptions = SuiteOptions(),
    home: Path = Path("artifacts"),
) -> Outcome:
    """Run benchmarks once, in a fresh process, and write pytest-benchmark's JSON.

    Args:
        suite: file or folder of pytest-benchmark's benchmarks; by default the project's own.
        model: export that the project's own use instead of a random one.
        output: where the JSON goes.
        options: how long.
        home: root of artifacts, for what is made once.
    """
    side = make_side(".", model, home / "gate", SOURCE)
    try:
        found = run_process(side, suite_of(suite, side), cache_of(home, side), options)
    except SideError as error:
        raise KdnasError(f"gate: {error}") from error
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found.report, indent=1))
    for name, seconds in found.seconds.items():
        say(f"{name}: {1000 * seconds:.3f} ms")
    return Outcome(output, {"seconds": found.seconds})


def gate_compare(
    base: str,
    head: str = ".",
    suite: Path | None = None,
    base_model: Path | None = None,
    head_model: Path | None = None,
    minutes: float = 10.0,
    rule: Rule = Rule(),
    options: SuiteOptions = SuiteOptions(),
    home: Path = Path("artifacts"),
) -> Outcome:
    """Time two sides in one job and say whether the head is slower: exit code 3 where it is.

    Args:
        base: a git revision, `.` for the checkout as it is, a wheel, or `bin/python` of another environment.
        head: the same.
        suite: file or folder of pytest-benchmark's benchmarks for both; by default each side's own.
        base_model: export that the base's benchmarks use.
        head_model: export that the head's use; with `--base . --head .` two models are compared.
        minutes: after which no further process starts, and what is not decided stays so.
        rule: thresholds, looks, error probability.
        options: how long a process measures.
        home: root of artifacts.
    """
    if not minutes > 0:
        raise UsageError(f"minutes is {minutes}; it must be above 0")
    if (base, str(base_model)) == (head, str(head_model)):
        say(f"gate: both sides are '{base}'; what follows is an A/A check of this host")
    scratch = (home / "gate").resolve()
    sides = {"A": make_side(base, base_model, scratch, SOURCE), "B": make_side(head, head_model, scratch, SOURCE)}
    suites = {name: suite_of(suite, side) for name, side in sides.items()}
    key = digest_of(
        [sides["A"].digest, sides["B"].digest, *map(suite_digest, suites.values()),
         vars(rule), vars(options)]
    )  # fmt: skip
    folder = scratch / key[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(folder.name + ".lock")):
        found = _compared(folder, home, sides, suites, rule, options, minutes)
        summary = save(folder, sides, found, rule)
        (folder / "summary.md").write_text(markdown(summary))
        (folder / "ratios.svg").write_text(picture(summary))
    say(markdown(summary))
    return Outcome(folder, summary, found.exit_code)


def gate_check(facts: Path = FACTS, tables: Path = SOURCE / "results" / "latency", write: bool = False) -> Outcome:
    """Compare what needs no clock with what was committed: exit code 3 where anything differs.

    Args:
        facts: JSON that was committed.
        tables: folder with a folder for each committed latency table.
        write: write what is found instead of comparing.
    """
    known = {} if write else read_facts(facts)
    with tempfile.TemporaryDirectory() as scratch:
        found = collect(Path(scratch), tables)
    if write:
        write_json(facts, found)
        return Outcome(facts, {"facts": len(found)})
    lines = differences(known, found)
    say(
        f"gate: {len(lines)} of {len(known.keys() | found.keys())} facts differ"
        + ("; where that is meant, commit what `kdnas gate check --write` writes" if lines else "")
    )
    return Outcome(None, {"differences": lines}, 3 if lines else 0, "\n".join(lines[:SHOWN]))


def _compared(
    folder: Path,
    home: Path,
    sides: dict[str, Side],
    suites: dict[str, Path],
    rule: Rule,
    options: SuiteOptions,
    minutes: float,
) -> Found:
    names = {id(side): name for name, side in sides.items()}

    def process(side: Side, only: tuple[str, ...] | None) -> Timed:
        name = names[id(side)]
        return run_process(side, suites[name], cache_of(home, side), options, only)

    return compare(folder, sides, process, rule, minutes)


def suite_of(given: Path | None, side: Side) -> Path:
    """The benchmarks that a side runs.

    Raises:
        UsageError: there are none.
    """
    if given is not None:
        if not given.exists():
            raise UsageError(f"suite '{given}': no such file or folder")
        return given.resolve()
    found = side.suite or (OWN if OWN.is_file() else None)
    if found is None:
        raise UsageError(f"'{side.name}' has no benchmarks of its own; give --suite")
    return found


def suite_digest(suite: Path) -> str:
    """Changes when a benchmark file does."""
    files = [suite] if suite.is_file() else sorted(suite.rglob("*.py"))
    return digest_of([[str(file.relative_to(suite.parent)), file_sha256(file)] for file in files])


def cache_of(home: Path, side: Side) -> Path:
    """Where what is made once for a side lies."""
    return (home / "gate" / "caches" / side.digest[:12]).resolve()
