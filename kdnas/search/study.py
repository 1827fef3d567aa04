"""A test of strategies: every one on recordings of several teachers, within random limits of latency, with and without the hint.

The hint is the shape of the teacher, which a student resembles at its start. A strategy without it does not know the shape.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdnas.processes import finished
from kdnas.search.comparison_options import ComparisonOptions
from kdnas.search.options import SearchOptions
from kdnas.search.replay_run import RUNS
from kdnas.search.replays import Replay
from kdnas.search.strategies import STRATEGIES
from kdnas.search.study_cells import KEYS, Cell
from kdnas.search.study_page import write_study
from kdnas.search.study_problems import Problem, describe, make_problems, run_problem
from kdnas.store.artifact import Artifact, build
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.progress import stage

STUDY = "strategy-study"  # kind of the artifact
SEEDS = 1000  # seeds of a limit; those of the next limit come after them


def run_study(home: Path, replays: Sequence[Replay], options: ComparisonOptions) -> Artifact:
    """Run all strategies within all limits; finished runs are kept if the study is interrupted.

    Args:
        home: root of artifacts.
        replays: a recording for each teacher.
        options: strategies, limits and schedule.

    Returns:
        Artifact with `runs.jsonl`, `limits.csv`, `strategies.csv`, `strategies.md`, `curves.csv` and `strategies.html`.

    Raises:
        UsageError: the shape of a teacher is unknown, or nothing can be compared within a limit.
    """
    problems = [make_problems(replay, options, index) for index, replay in enumerate(replays)]

    def work(path: Path) -> dict[str, Any]:
        rows = _runs(path / RUNS, problems, options)
        cells = [
            Cell(name, hint, replays[index].name, _by_limit(rows, (index, name, hint)))
            for index in range(len(replays))
            for name, hint in settings_of(options.strategies)
        ]
        return write_study(path, replays, problems, cells, options)

    inputs = {f"recording {index}": replay.recording.digest for index, replay in enumerate(replays)}
    inputs |= {f"latency-table {index}": replay.table.digest for index, replay in enumerate(replays)}
    config = {
        "options": options,
        "teachers": [replay.name for replay in replays],
        "shapes": [str(replay.shape) for replay in replays],
        "spaces": [replay.space for replay in replays],
        "settings": SearchOptions(),  # the defaults of the strategies
    }
    return build(home, STUDY, "replays", config, inputs, work)


def settings_of(strategies: Sequence[str]) -> list[tuple[str, bool]]:
    """Strategies without and with the hint; those that only follow the hint run with it alone."""
    return [(name, hint) for name in strategies for hint in (False, True) if hint or not STRATEGIES[name].needs_hint]


_problems: Sequence[Sequence[Problem]] = ()  # of a worker process


def _prepare(problems: Sequence[Sequence[Problem]]) -> None:
    global _problems
    _problems = problems


def _work(index: int, limit: int, name: str, hint: bool, run: int, options: ComparisonOptions) -> dict[str, Any]:
    """A run in a worker process, described in numbers; its seconds are of the processor, which other load does not change."""
    problem, start = _problems[index][limit], time.process_time()
    ids = run_problem(problem, options.search(name, SEEDS * limit + run), hint)
    seconds = time.process_time() - start
    return {"ids": ids, **describe(problem, ids, options.reached_at), "seconds": round(seconds, 4)}


def _runs(path: Path, problems: Sequence[Sequence[Problem]], options: ComparisonOptions) -> list[dict[str, Any]]:
    """All runs, sorted; each is written when it is done."""
    rows = read_jsonl(path)
    done = {tuple(row[name] for name in KEYS) for row in rows}
    keys = [
        (index, limit, name, hint, run)
        for run in range(options.runs)
        for index, of_recording in enumerate(problems)
        for limit in range(len(of_recording))
        for name, hint in settings_of(options.strategies)
        if run < options.runs_of(name)
    ]
    calls = {key: (*key, options) for key in keys if key not in done}
    with stage("strategies", len(keys), len(done)) as progress:
        for key, found in finished(_work, calls, _prepare, problems):
            rows.append(dict(zip(KEYS, key, strict=True)) | found)
            append_jsonl(path, rows[-1])
            progress.advance(1)
    return sorted(rows, key=lambda row: [row[name] for name in KEYS])


def _by_limit(rows: Sequence[Mapping[str, Any]], cell: tuple[int, str, bool]) -> list[list[Mapping[str, Any]]]:
    """Runs of one strategy on one recording: limit to its runs."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if (row["recording"], row["strategy"], row["hint"]) == cell:
            found.setdefault(row["limit"], []).append(row)
    return [found[limit] for limit in sorted(found)]
