"""The search as a whole: interrupted anywhere it equals the uninterrupted one; failures do not end it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdnas.arch import FIELDS, Arch, SearchSpace, arch_id
from kdnas.artifact import Artifact, build
from kdnas.corpus import Corpus
from kdnas.errors import KdnasError, UsageError
from kdnas.search import journal
from kdnas.search.controller import Controller
from kdnas.search.journal import Candidate
from kdnas.search.options import ProxyOptions, SearchOptions
from kdnas.search.proxy import ProxyResult
from kdnas.search.run import Goal, collect_latencies, explore, read_latencies, run_search, summary
from kdnas.search.strategies import Epsilon, Kdnas
from kdnas.teacher import Teacher

SPACE = SearchSpace(layers=(3, 4), heads=(12,), hidden=(288, 384), ffn=(384, 576), activation=("gelu", "relu"))
OPTIONS = SearchOptions(episodes=3, candidates_per_episode=4, epsilon_decay=0.4, controller_lr=1e-2)


def latency_ms(arch: Arch) -> float:
    return 0.2 + arch.flops(24) / 1e8


GOAL = Goal({arch: latency_ms(arch) for arch in SPACE}, 8.0, -0.06, 0.6)


def fake_evaluate(arch: Arch) -> ProxyResult:
    return ProxyResult(20 / (arch.layers * arch.hidden) ** 0.5 / (1 + arch.ffn / 3000), 1000)


def strategy(options: SearchOptions = OPTIONS) -> Kdnas:
    epsilon = Epsilon(options.epsilon_start, options.epsilon_decay, options.epsilon_min)
    return Kdnas(
        SPACE, epsilon, Controller(options.controller_lr, options.controller_epochs, options.seed), options.seed
    )


def without_seconds(candidates: list[Candidate]) -> list[Candidate]:
    return [replace(candidate, seconds=0.0) for candidate in candidates]


def test_interrupted_after_every_candidate_equals_uninterrupted(tmp_path: Path) -> None:
    expected = explore(tmp_path / "straight.jsonl", strategy(), fake_evaluate, GOAL, OPTIONS)
    assert len(expected) == 12
    assert any(not candidate.explored for candidate in expected)
    evaluated: list[Arch] = []
    path = tmp_path / "killed.jsonl"
    for number in range(12):

        def killed_after_one(arch: Arch, allowed: int = number + 1) -> ProxyResult:
            if len(evaluated) == allowed:
                raise KeyboardInterrupt
            evaluated.append(arch)
            return fake_evaluate(arch)

        with suppress(KeyboardInterrupt):
            explore(path, strategy(), killed_after_one, GOAL, OPTIONS)
        assert len(evaluated) == number + 1
        with path.open("a") as file:
            file.write('{"number": 99, "episo')  # torn by the kill
    found = explore(path, strategy(), pytest.fail, GOAL, OPTIONS)
    assert without_seconds(found) == without_seconds(expected)
    assert len(set(evaluated)) == len(evaluated) == 12
    assert without_seconds(journal.read(path)) == without_seconds(expected)


@settings(max_examples=4)
@given(seed=st.integers(0, 1000))
def test_seed_decides_and_nothing_is_evaluated_twice(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    options = replace(OPTIONS, seed=seed, episodes=5, controller_epochs=2)  # 20 wanted, the space has 16
    folder = tmp_path_factory.mktemp("seeds")
    first = explore(folder / "a.jsonl", strategy(options), fake_evaluate, GOAL, options)
    again = explore(folder / "b.jsonl", strategy(options), fake_evaluate, GOAL, options)
    assert without_seconds(first) == without_seconds(again)
    assert sorted(candidate.arch for candidate in first) == sorted(SPACE)


def test_journal_rows_hold_what_readers_need(tmp_path: Path) -> None:
    path = tmp_path / journal.FILE
    candidates = explore(path, strategy(), fake_evaluate, GOAL, OPTIONS)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["number"] for row in rows] == list(range(12))
    assert [row["episode"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 4
    for row, candidate in zip(rows, candidates, strict=True):
        arch = Arch.parse(row["arch"])
        assert row["id"] == arch_id(arch)
        assert row["latency_ms"] == latency_ms(arch)
        assert row["loss"] == fake_evaluate(arch).loss
        assert row["reward"] == pytest.approx((1 - row["loss"]) * (latency_ms(arch) / (0.6 * 8)) ** -0.06)
        assert row["tokens"] == 1000
        assert (row["predicted_reward"] is None) == (row["episode"] == 0)
        assert row["failed"] is None
        assert candidate.arch == arch


def test_failures_are_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    def sometimes(arch: Arch) -> ProxyResult:
        if arch.activation == "relu":
            return ProxyResult(float("nan"), 7)
        if arch.ffn == 576:
            raise RuntimeError("not enough memory: you tried to allocate 9 TB\nmore lines")
        return fake_evaluate(arch)

    path = tmp_path / journal.FILE
    options = replace(OPTIONS, episodes=4)
    candidates = explore(path, strategy(options), sometimes, GOAL, options)
    assert len(candidates) == 16
    reasons = {candidate.failed for candidate in candidates if candidate.failed}
    assert reasons == {"the loss is nan", "RuntimeError: not enough memory: you tried to allocate 9 TB"}
    assert "NaN" not in path.read_text()
    results = summary(candidates, SPACE, GOAL)
    assert results["failed"] == 12
    finished = [candidate for candidate in candidates if candidate.reward is not None]
    assert len(finished) == 4
    assert results["winner_reward"] == max(candidate.reward or 0 for candidate in finished)
    assert Arch.parse(results["pareto"][0]["arch"]) == min(finished, key=lambda one: one.latency_ms).arch
    assert explore(path, strategy(options), pytest.fail, GOAL, options) == candidates


def test_all_failed_is_an_error(tmp_path: Path) -> None:
    candidates = explore(tmp_path / journal.FILE, strategy(), lambda _: ProxyResult(float("inf"), 1), GOAL, OPTIONS)
    with pytest.raises(KdnasError, match="all 12 candidates failed, the first with 'the loss is inf'"):
        summary(candidates, SPACE, GOAL)


def table(home: Path, rows: list[Arch], teacher_latency_ms: float | None = 8.0) -> Artifact:
    """A latency table on disk, with some of its columns."""

    def write(path: Path) -> dict[str, float]:
        with (path / "table.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["id", *FIELDS, "latency_ms", "source"])
            for arch in rows:
                out.writerow([arch_id(arch), *str(arch).split(","), latency_ms(arch), "measured"])
        return {} if teacher_latency_ms is None else {"teacher_latency_ms": teacher_latency_ms}

    return build(home, "latency-table", "test", {"rows": len(rows), "teacher": teacher_latency_ms}, {}, write)


def test_reads_a_latency_table(tmp_path: Path) -> None:
    latencies, teacher_latency_ms = read_latencies(table(tmp_path, list(SearchSpace())))
    assert teacher_latency_ms == 8.0
    assert latencies == {arch: pytest.approx(latency_ms(arch)) for arch in SearchSpace()}
    with pytest.raises(UsageError, match="teacher_latency_ms"):
        read_latencies(table(tmp_path, list(SPACE), teacher_latency_ms=None))
    short, _ = read_latencies(table(tmp_path, list(SPACE)[1:]))
    with pytest.raises(UsageError, match="1 of 16 architectures of the space, the first is 3,12,288,384,gelu"):
        collect_latencies(SPACE, short.__getitem__)
    with pytest.raises(UsageError, match="16 of 16"):
        collect_latencies(SPACE, lambda arch: 0.0)


def test_damaged_table_is_a_usage_error(tmp_path: Path) -> None:
    artifact = table(tmp_path, list(SPACE))
    (artifact.path / "table.csv").write_text("id,layers\n1,2\n")
    with pytest.raises(UsageError, match="run `kdnas latency-table` again"):
        read_latencies(artifact)


def test_space_beyond_the_teacher_is_refused(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="deeper than its teacher"):
        run_search(
            tmp_path, tiny_teacher, corpus, SearchSpace(layers=(6, 10)), latency_ms, 8.0, "digest", SearchOptions()
        )


def rows_of(path: Path) -> list[dict[str, object]]:
    return [{**json.loads(line), "seconds": 0} for line in path.read_text().splitlines()]


KILLED_SPACE = SearchSpace(hidden=(288,), ffn=(384,))
KILLED_OPTIONS = SearchOptions(
    episodes=2,
    candidates_per_episode=2,
    epsilon_decay=1.0,
    seed=3,
    proxy=ProxyOptions(tokens=600, batch_tokens=256, validation_sentences=20),
)


def command_of(table: Path, home: Path, teacher: Path, corpus_file: Path) -> list[str | Path]:
    """The command line that searches KILLED_SPACE with KILLED_OPTIONS."""
    command: list[str | Path] = [sys.executable, "-m", "kdnas.cli", "search", "--table", table, "--home", home]
    command += ["--teacher", teacher, "--corpus", corpus_file, "--text.topic", "topic", "--text.group", "group"]
    command += ["--text.seq_len", "64", "--text.validation_share", "0.2"]
    command += ["--space.hidden", "[288]", "--space.ffn", "[384]"]
    command += ["--episodes", "2", "--candidates_per_episode", "2", "--epsilon_decay", "1", "--seed", "3"]
    return [*command, "--proxy.tokens", "600", "--proxy.batch_tokens", "256", "--proxy.validation_sentences", "20"]


def kill_after_a_candidate(command: list[str | Path], environment: dict[str, str], home: Path) -> list[object]:
    """Start the command and kill it with -9 once a row is in its journal; the whole rows of that journal."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed := [path for path in home.glob("search/*.partial/journal.jsonl") if path.stat().st_size]):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return [json.loads(line) for line in killed[0].read_bytes().split(b"\n")[:-1]]


def test_killed_search_resumes_and_equals_the_uninterrupted(
    tiny_teacher: Teacher, corpus: Corpus, corpus_file: Path, home: Path, tmp_path: Path
) -> None:
    """The command, killed with -9 after its first candidate, then typed again."""
    artifact = table(home, list(SearchSpace()))
    command = command_of(artifact.path, home, tiny_teacher.path, corpus_file)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KDNAS")}
    finished = kill_after_a_candidate(command, environment, home)
    assert 1 <= len(finished) < 4
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resumed = Artifact.load(Path(done.stdout.strip().splitlines()[-1]), "search")
    resumed.verify()
    assert resumed.manifest["attempts"] == 2
    assert sorted(resumed.manifest["files"]) == ["journal.jsonl"]
    lines = (resumed.path / journal.FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines[: len(finished)]] == finished  # not evaluated again
    straight = run_search(
        tmp_path, tiny_teacher, corpus, KILLED_SPACE, latency_ms, 8.0, artifact.digest, KILLED_OPTIONS
    )
    assert straight.manifest["config"] == resumed.manifest["config"]  # the same by command and by call
    assert rows_of(straight.path / journal.FILE) == rows_of(resumed.path / journal.FILE)
    assert straight.results["winner"] == resumed.results["winner"]
    assert resumed.results["space_size"] == 2 * 5 * 3
    assert not any(row["explored"] for row in rows_of(resumed.path / journal.FILE)[2:])
