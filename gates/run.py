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
from kdnas.store.digest import digest_of, file_sha256
from kdnas.store.disk import locked
from kdnas.store.host import SOURCE
from kdnas.store.json_files import write_json
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
        suite: file or folder with pytest-benchmark benchmarks; by default the project's benchmarks.
        model: exported model for the project's benchmarks; by default a model with random weights.
        output: JSON file to write.
        options: durations of a process and of a benchmark.
        home: root folder of all artifacts; models that the benchmarks need are stored there.
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
    """Time two versions in one job and report whether the head is slower than the base; exit code 3 if it is.

    Args:
        base: a git revision, `.` for the checkout with its uncommitted changes, a wheel, or `bin/python` of another
            environment.
        head: what is compared with the base, given in the same way.
        suite: file or folder with pytest-benchmark benchmarks for both; by default each side runs its own.
        base_model: exported model for the base's benchmarks.
        head_model: exported model for the head's benchmarks; `--base . --head .` with both models compares the models.
        minutes: no process starts after this time; benchmarks that are undecided by then stay undecided.
        rule: thresholds, looks and error probability of the decision.
        options: durations of a process and of a benchmark.
        home: root folder of all artifacts.
    """
    if not minutes > 0:
        raise UsageError(f"minutes is {minutes}; it must be above 0")
    if (base, str(base_model)) == (head, str(head_model)):
        say(f"gate: both sides are '{base}'; this is an A/A check of the host")
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
    """Compare sizes, operators, outputs and tables with the committed facts; exit code 3 if any differs.

    Args:
        facts: JSON file with the committed facts.
        tables: folder with the committed latency tables, each as `NAME/table.csv`.
        write: write the facts of this checkout to the file instead of comparing.
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
        + ("; if this is intended, run `kdnas gate check --write` and commit the file" if lines else "")
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
        UsageError: the side has no benchmarks.
    """
    if given is not None:
        if not given.exists():
            raise UsageError(f"suite '{given}': no such file or folder")
        return given.resolve()
    found = side.suite or (OWN if OWN.is_file() else None)
    if found is None:
        raise UsageError(f"'{side.name}' contains no benchmarks; give --suite")
    return found


def suite_digest(suite: Path) -> str:
    """Digest of the benchmark files."""
    files = [suite] if suite.is_file() else sorted(suite.rglob("*.py"))
    return digest_of([[str(file.relative_to(suite.parent)), file_sha256(file)] for file in files])


def cache_of(home: Path, side: Side) -> Path:
    """Folder of the models that one side's benchmarks need."""
    return (home / "gate" / "caches" / side.digest[:12]).resolve()
