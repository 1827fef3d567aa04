"""`kdnas compare-strategies`: strategies on the same recorded losses, with many seeds."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.models.arch import Arch, SearchSpace, arch_from_id
from kdnas.processes import finished
from kdnas.search.comparison_options import ComparisonOptions
from kdnas.search.comparison_page import write_comparison_page
from kdnas.search.curves import Curves, best_reward, write_curves
from kdnas.search.frozen import require_frozen
from kdnas.search.goal import Goal
from kdnas.search.limits import make_goal
from kdnas.search.options import SearchOptions
from kdnas.search.random_table import random_and_recommended
from kdnas.search.replay_run import RUNS, run_once
from kdnas.search.replays import Replay, open_replays
from kdnas.search.study import STUDY, run_study
from kdnas.store.artifact import Artifact, build
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import stage

KIND = "strategies"
CURVES, PAGE = "curves.csv", "strategies.html"


def compare_strategies(
    options: ComparisonOptions,
    recording: tuple[Path, ...],
    table: tuple[Path, ...],
    space: SearchSpace = SearchSpace(),
    teacher: str = "builtin:minilm-l6",
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Run strategies on recorded losses of one or several teachers. With `--limits` it is a test within random limits.

    Args:
        options: the strategies and the setting of their runs.
        recording: folders or CSV files that `kdnas record` printed; several need `--limits`.
        table: folders that `kdnas latency-table` printed, one for each recording, in the same order.
        space: values that each field may take; only its recorded architectures are proposed.
        teacher: teacher of recordings of earlier versions, which do not name theirs.
        home: root of all artifacts.
        output: folder that gets the result as plain files; null writes only below `home`.

    Raises:
        UsageError: a table is of another teacher than its recording, a recording is of another objective, or the strategies are
            not those of `--frozen`.
    """
    require_output(output, STUDY if options.limits else KIND)
    frozen = require_frozen(options.frozen) if options.frozen else None
    if len(recording) > 1 and not options.limits:
        raise UsageError(
            f"{len(recording)} recordings and no limits; several recordings are compared within random limits of latency: add "
            "--limits 20"
        )
    replays = open_replays(recording, table, space, teacher, home, options.objective)
    options = replace(options, frozen=frozen)
    if options.limits:
        return deliver(run_study(home, replays, options), output)
    return deliver(run_comparison(home, replays[0], options), output)


def run_comparison(home: Path, replay: Replay, options: ComparisonOptions) -> Artifact:
    """Run strategies on the recorded losses of one teacher; finished runs are kept if the comparison is interrupted.

    Args:
        home: root of artifacts.
        replay: losses and latencies.
        options: the strategies and the setting of their runs.

    Returns:
        Artifact with `runs.jsonl`, `curves.csv` and `strategies.html`.

    Raises:
        UsageError: no architecture of the space is recorded, none is within the limit, or a setting needs a teacher that
            is unknown.
    """
    states = replay.states(options.without_teacher_shape, options.only_random)
    goal = replace(make_goal(states, replay.table, options.search(options.strategies[0], 0)), teacher=replay.shape)
    if options.hint and goal.teacher is None:
        raise UsageError("hint is true, but the shape of the recording's teacher is unknown: give its --teacher")
    losses = {arch: replay.recording(arch).loss for arch in goal.states}

    def work(path: Path) -> dict[str, Any]:
        rows = _runs(path / RUNS, goal, losses, options)
        curves = {
            name: Curves.of([row for row in rows if row["strategy"] == name], goal, losses)
            for name in options.strategies
        }
        recommends = default if (default := SearchOptions.strategy) in options.strategies else options.strategies[0]
        first = next(row for row in rows if row["strategy"] == recommends and row["seed"] == 0)
        proposed = [arch_from_id(number) for number in first["ids"]]
        results = {
            "best_reward": best_reward(goal, losses),
            "architectures": len(losses),
            "strategies": {name: found.metrics(options.reached_at) for name, found in curves.items()},
            "recommends": recommends,
            "table_3": random_and_recommended(goal, losses, proposed),
        }
        write_curves(path / CURVES, curves)
        shown = asdict(options) | {"target": options.reached_at}
        write_comparison_page(path / PAGE, path / CURVES, results, shown)
        return results

    inputs = {"recording": replay.recording.digest, "latency-table": replay.table.digest}
    config = {"space": replay.space, "options": options, "teacher": str(goal.teacher)}
    return build(home, KIND, "replay", config, inputs, work)


def _runs(path: Path, goal: Goal, losses: dict[Arch, float], options: ComparisonOptions) -> list[dict[str, Any]]:
    """All runs; each is written when it is done."""
    rows = read_jsonl(path)
    done = {(row["strategy"], row["seed"]) for row in rows}
    wanted = [
        (name, seed) for seed in range(options.runs) for name in options.strategies if seed < options.runs_of(name)
    ]
    calls = {key: (goal, losses, options.search(*key), options.hint) for key in wanted if key not in done}
    with stage("strategies", len(wanted), len(done)) as progress:
        for (name, seed), proposed in finished(run_once, calls):
            row = {"strategy": name, "seed": seed, "ids": proposed}
            append_jsonl(path, row)
            rows.append(row)
            progress.advance(1)
    return sorted(rows, key=lambda row: (options.strategies.index(row["strategy"]), row["seed"]))
