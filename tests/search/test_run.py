"""The whole search: an interrupted run equals an uninterrupted one, and failures do not end it."""

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

from kdnas.errors import KdnasError, UsageError
from kdnas.models.arch import Arch, SearchSpace, arch_id
from kdnas.models.table import LatencyTable
from kdnas.models.teacher import Teacher
from kdnas.search import journal
from kdnas.search.explore import explore
from kdnas.search.explored import summary
from kdnas.search.goal import Goal
from kdnas.search.journal import Candidate
from kdnas.search.known_losses import run_replay
from kdnas.search.limits import make_goal
from kdnas.search.options import ProxyOptions, SearchOptions
from kdnas.search.outcome import ProxyResult, one_by_one
from kdnas.search.recording import read_recording
from kdnas.search.run import run_search, search
from kdnas.search.strategies import make_strategy
from kdnas.search.strategies.protocol import Strategy
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

from .search_fixture import fake_evaluate, known_table, latency_ms, recorded, table

SPACE = SearchSpace(layers=(3, 4), heads=(12,), hidden=(288, 384), ffn=(384, 576), activation=("gelu", "relu"))
OPTIONS = SearchOptions(strategy="kdnas", episodes=3, candidates_per_episode=4, epsilon_decay=0.4, controller_lr=1e-2)


GOAL = Goal({arch: latency_ms(arch) for arch in SPACE}, 8.0, -0.06, 0.6)


def strategy(options: SearchOptions = OPTIONS) -> Strategy:
    return make_strategy(GOAL, options)


def without_seconds(candidates: list[Candidate]) -> list[Candidate]:
    return [replace(candidate, seconds=0.0) for candidate in candidates]


@pytest.mark.slow
def test_interrupted_after_every_candidate_equals_uninterrupted(tmp_path: Path) -> None:
    expected = explore(tmp_path / "straight.jsonl", strategy(), one_by_one(fake_evaluate), GOAL, OPTIONS)
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
            explore(path, strategy(), one_by_one(killed_after_one), GOAL, OPTIONS)
        assert len(evaluated) == number + 1
        with path.open("a") as file:
            file.write('{"number": 99, "episo')  # truncated by the kill
    found = explore(path, strategy(), one_by_one(pytest.fail), GOAL, OPTIONS)
    assert without_seconds(found) == without_seconds(expected)
    assert len(set(evaluated)) == len(evaluated) == 12
    assert without_seconds(journal.read(path)) == without_seconds(expected)


@pytest.mark.slow
@settings(max_examples=4)
@given(seed=st.integers(0, 1000))
def test_search_is_deterministic_and_evaluates_nothing_twice(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options = replace(OPTIONS, seed=seed, episodes=5, controller_epochs=2)  # 20 wanted, the space has 16
    folder = tmp_path_factory.mktemp("seeds")
    first = explore(folder / "a.jsonl", strategy(options), one_by_one(fake_evaluate), GOAL, options)
    again = explore(folder / "b.jsonl", strategy(options), one_by_one(fake_evaluate), GOAL, options)
    assert without_seconds(first) == without_seconds(again)
    assert sorted(candidate.arch for candidate in first) == sorted(SPACE)


def test_journal_rows_have_the_documented_fields(tmp_path: Path) -> None:
    path = tmp_path / journal.FILE
    candidates = explore(path, strategy(), one_by_one(fake_evaluate), GOAL, OPTIONS)
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


@pytest.mark.slow
def test_failures_are_recorded_and_the_search_continues(tmp_path: Path) -> None:
    def sometimes(arch: Arch) -> ProxyResult:
        if arch.activation == "relu":
            return ProxyResult(float("nan"), 7)
        if arch.ffn == 576:
            raise RuntimeError("not enough memory: you tried to allocate 9 TB\nmore lines")
        return fake_evaluate(arch)

    path = tmp_path / journal.FILE
    options = replace(OPTIONS, episodes=4)
    candidates = explore(path, strategy(options), one_by_one(sometimes), GOAL, options)
    assert len(candidates) == 16
    reasons = {candidate.failed for candidate in candidates if candidate.failed}
    assert reasons == {"the loss is nan", "RuntimeError: not enough memory: you tried to allocate 9 TB"}
    assert "NaN" not in path.read_text()
    results = summary(candidates, GOAL)
    assert results["failed"] == 12
    finished = [candidate for candidate in candidates if candidate.reward is not None]
    assert len(finished) == 4
    assert results["winner_reward"] == max(candidate.reward or 0 for candidate in finished)
    assert Arch.parse(results["pareto"][0]["arch"]) == min(finished, key=lambda one: one.latency_ms).arch
    assert explore(path, strategy(options), one_by_one(pytest.fail), GOAL, options) == candidates


def test_a_winner_slower_than_its_teacher_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = table(tmp_path, teacher_latency_ms=0.1)
    recording = read_recording(recorded(tmp_path / "recording.csv", list(SPACE)))
    run_replay(tmp_path, recording, SPACE, LatencyTable.of(known), SearchOptions(episodes=1, strategy="random"))
    assert "--max_latency_fraction" in capsys.readouterr().err


def test_all_failed_is_an_error(tmp_path: Path) -> None:
    candidates = explore(
        tmp_path / journal.FILE, strategy(), one_by_one(lambda _: ProxyResult(float("inf"), 1)), GOAL, OPTIONS
    )
    with pytest.raises(KdnasError, match="all 12 candidates failed, the first with 'the loss is inf'"):
        summary(candidates, GOAL)


def test_goal_applies_the_limits(tmp_path: Path, tiny_teacher: Teacher) -> None:
    whole = known_table()
    goal = make_goal(SPACE, whole, SearchOptions())
    assert goal.states == list(SPACE)
    limit = sorted(map(whole.latency_ms, SPACE))[5]
    fast = make_goal(SPACE, whole, SearchOptions(max_latency_ms=limit, alpha=0))
    assert fast.states == [arch for arch in SPACE if whole.latency_ms(arch) <= limit]
    assert fast.reward(fast.states[0], 0.3) == pytest.approx(0.7)  # the lowest loss wins
    fraction = limit / whole.teacher_latency_ms
    assert make_goal(SPACE, whole, SearchOptions(max_latency_fraction=fraction)).states == fast.states
    both = make_goal(SPACE, whole, SearchOptions(max_latency_fraction=fraction, max_latency_ms=0.8 * limit))
    assert max(both.latencies.values()) <= 0.8 * limit  # the tighter limit applies
    size = min(map(whole.megabytes, SPACE))
    small = make_goal(SPACE, whole, SearchOptions(max_megabytes=size))
    assert {small.megabytes[arch] for arch in small.states} == {size}
    assert goal.teacher is None
    of_it = replace(whole, teacher=tiny_teacher.digest)
    assert make_goal(SPACE, of_it, SearchOptions(), tiny_teacher).teacher == tiny_teacher.shape
    other = replace(whole, teacher="of another")
    assert make_goal(SPACE, other, SearchOptions(), tiny_teacher).teacher is None
    with pytest.raises(
        UsageError,
        match=r"max_latency_ms is 1e-06, .*none of 16 architectures is within",
    ):
        make_goal(SPACE, whole, SearchOptions(max_latency_ms=1e-6))


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "luck"},
        {"max_latency_ms": 0.0},
        {"max_latency_fraction": -0.5},
        {"max_megabytes": -1.0},
        {"strategy": "kdnas", "front": True},
    ],
)
def test_invalid_options_are_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"allowed are|must be above 0|give one of surrogate"):
        SearchOptions(**wrong)  # type: ignore[arg-type]


def test_space_that_exceeds_the_teacher_is_rejected(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    known = LatencyTable.of(table(tmp_path))
    with pytest.raises(UsageError, match="deeper than its teacher"):
        run_search(tmp_path, tiny_teacher, corpus, SearchSpace(layers=(6, 10)), known, SearchOptions())


@pytest.mark.parametrize(
    ("options", "space", "message"),
    [
        ({}, SearchSpace(layers=(10, 12)), "deeper than its teacher"),
        ({"max_latency_ms": 1e-6}, SPACE, "is within these limits"),
    ],
)
def test_invalid_search_is_rejected_before_the_corpus_is_built(
    options: dict[str, float], space: SearchSpace, message: str, tiny_teacher: Teacher, tmp_path: Path
) -> None:
    folder, text = table(tmp_path).path, tmp_path / "text.txt"
    text.write_text("a sentence\n")
    with pytest.raises(UsageError, match=message):
        search(SearchOptions(**options), folder, str(tiny_teacher.path), str(text), space=space, home=tmp_path / "home")
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kdnas", "surrogate"])
def test_replays_recorded_losses(name: str, tmp_path: Path) -> None:
    archs = list(SPACE)[:9]
    file = recorded(tmp_path / "losses.csv", archs)
    artifact = table(tmp_path)
    options = replace(OPTIONS, strategy=name)
    found = search(options, artifact.path, replay=file, home=tmp_path)
    assert found.path is not None
    candidates = journal.read(found.path / journal.FILE)
    assert sorted(one.arch for one in candidates) == sorted(archs)
    assert all(one.loss == pytest.approx(fake_evaluate(one.arch).loss) for one in candidates)
    assert found.results["strategy"] == name
    assert found.results["space_size"] == 9
    assert 0 < found.results["hypervolume"] < 1
    with pytest.raises(UsageError, match="none of the 9 architectures with a known loss is in the space"):
        search(options, artifact.path, replay=file, space=SearchSpace(hidden=(768,)), home=tmp_path)


@pytest.mark.parametrize("content", ["", "id,loss\n", "id,layers,seed\n1,x,2\n"])
def test_invalid_recording_is_rejected(content: str, tmp_path: Path) -> None:
    (tmp_path / "losses.csv").write_text(content)
    with pytest.raises(UsageError, match="give what `kdnas record` printed"):
        read_recording(tmp_path / "losses.csv")
    with pytest.raises(UsageError, match="not a recording"):
        read_recording(tmp_path / "absent.csv")


def rows_of(path: Path) -> list[dict[str, object]]:
    return [{**json.loads(line), "seconds": 0} for line in path.read_text().splitlines()]


KILLED_SPACE = SearchSpace(hidden=(288,), ffn=(384,))
KILLED_OPTIONS = SearchOptions(
    strategy="kdnas",
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
    command += ["--text.seq_len", "64", "--text.validation_fraction", "0.2"]
    command += ["--space.hidden", "[288]", "--space.ffn", "[384]"]
    command += ["--episodes", "2", "--candidates_per_episode", "2", "--epsilon_decay", "1", "--seed", "3"]
    command += ["--strategy", "kdnas"]
    return [*command, "--proxy.tokens", "600", "--proxy.batch_tokens", "256", "--proxy.validation_sentences", "20"]


def kill_after_a_candidate(command: list[str | Path], environment: dict[str, str], home: Path) -> list[object]:
    """Start the command, kill it with SIGKILL after the first journal row, and return the complete rows."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600  # only a process that hangs reaches this
    while not (killed := [path for path in home.glob("search/*.partial/journal.jsonl") if path.stat().st_size]):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return [json.loads(line) for line in killed[0].read_bytes().split(b"\n")[:-1]]


@pytest.mark.slow
def test_killed_search_resumes_and_equals_an_uninterrupted_one(
    tiny_teacher: Teacher, corpus: Corpus, corpus_file: Path, home: Path, tmp_path: Path
) -> None:
    """Kill the command with SIGKILL after its first candidate, then run it again."""
    artifact = table(home)
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
    straight = run_search(tmp_path, tiny_teacher, corpus, KILLED_SPACE, LatencyTable.of(artifact), KILLED_OPTIONS)
    assert straight.manifest["config"] == resumed.manifest["config"]  # the same from the command line and from Python
    assert rows_of(straight.path / journal.FILE) == rows_of(resumed.path / journal.FILE)
    assert straight.results["winner"] == resumed.results["winner"]
    assert resumed.results["space_size"] == 2 * 5 * 3
    assert resumed.results["teacher_seconds"] > 0
    assert not any(row["explored"] for row in rows_of(resumed.path / journal.FILE)[2:])


def test_a_table_of_another_teacher_is_rejected(
    tiny_teacher: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (SearchOptions(episodes=1, strategy="random"), table(tmp_path, teacher="another").path)
    recording = recorded(tmp_path / "recording.csv", list(SPACE))
    more = {"teacher": str(tiny_teacher.path), "space": SPACE, "replay": recording, "home": tmp_path}
    with pytest.raises(UsageError, match=r"kdnas latency-table --teacher .*--allow-other-teacher"):
        search(*given, **more)  # type: ignore[arg-type]
    assert search(*given, allow_other_teacher=True, **more).path is not None  # type: ignore[arg-type]
    assert "the latency table was measured with another teacher (digest another)" in capsys.readouterr().err


def test_a_recording_of_another_teacher_is_rejected(tiny_teacher: Teacher, tmp_path: Path) -> None:
    recording = recorded(tmp_path / "recording.csv", list(SPACE), teacher="mpnet", teacher_digest="0123456789abc")
    more = {"teacher": str(tiny_teacher.path), "space": SPACE, "replay": recording, "home": tmp_path}
    with pytest.raises(UsageError, match=r"^search: the recording is of teacher 'mpnet' \(digest 0123456789\), not of"):
        search(SearchOptions(strategy="random"), table(tmp_path).path, **more)  # type: ignore[arg-type]
