"""Candidates on a Ray cluster: results equal those of a sequential run, even if nodes or workers die."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from kdnas.cluster import TRIES
from kdnas.errors import KdnasError, UsageError
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.teacher import Teacher
from kdnas.search import journal
from kdnas.search.cluster import candidate_workers
from kdnas.search.explore import explore
from kdnas.search.goal import Goal
from kdnas.search.journal import Candidate
from kdnas.search.options import ProxyOptions, SearchOptions
from kdnas.search.outcome import Evaluate, ProxyResult, one_by_one
from kdnas.search.record import RecordOptions, run_record
from kdnas.search.recording import read_recording
from kdnas.search.requirements import require_compatible
from kdnas.search.run import run_search
from kdnas.search.strategies import make_strategy
from kdnas.text.corpus import Corpus

from .search_fixture import known_table

pytestmark = pytest.mark.slow


SPACE = SearchSpace(layers=(3, 4), heads=(12,), hidden=(288, 384), ffn=(384, 576), activation=("gelu", "relu"))
GOAL = Goal({arch: 0.2 + arch.flops(24) / 1e8 for arch in SPACE}, 8.0, -0.06, 0.6)
OPTIONS = SearchOptions(strategy="evolution", episodes=2, candidates_per_episode=6)


def loss_of(arch: Arch) -> float:
    return 20 / (arch.layers * arch.hidden) ** 0.5 / (1 + arch.ffn / 3000)


def make(folder: Path, seconds: float, deadly: str = "", deaths: int = 0) -> Evaluate:
    """An evaluation of `seconds`; its process dies `deaths` times on architectures with the activation `deadly`."""

    def evaluate(arch: Arch) -> ProxyResult:
        with (folder / "started").open("a") as file:
            file.write(f"{os.getpid()} {arch}\n")
        time.sleep(seconds)
        mine = list(folder.glob(f"death-{arch}-*"))
        if arch.activation == deadly and len(mine) < deaths:
            (folder / f"death-{arch}-{len(mine)}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if arch.ffn == 576 and arch.activation == deadly == "gelu":
            raise RuntimeError("too large")
        return ProxyResult(loss_of(arch), 1000)

    return evaluate


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.extra = found.add_node(num_cpus=1)
    yield found
    ray.shutdown()
    found.shutdown()


def without_seconds(candidates: list[Candidate]) -> list[Candidate]:
    return [replace(candidate, seconds=0.0) for candidate in candidates]


def expected(folder: Path) -> list[Candidate]:
    return explore(
        folder / "alone.jsonl",
        make_strategy(GOAL, OPTIONS),
        one_by_one(lambda arch: ProxyResult(loss_of(arch), 1000)),
        GOAL,
        OPTIONS,
    )


def test_search_survives_a_lost_node(cluster: Cluster, tmp_path: Path) -> None:
    with candidate_workers(cluster.address, partial(make, tmp_path, 0.5)) as workers:
        lost = threading.Timer(1.2, lambda: cluster.remove_node(cluster.extra, allow_graceful=False))
        started = [index for index, _ in workers([next(iter(SPACE))])]
        lost.start()
        found = explore(tmp_path / journal.FILE, make_strategy(GOAL, OPTIONS), workers, GOAL, OPTIONS)
        lost.join()
    assert started == [0]
    assert without_seconds(found) == without_seconds(expected(tmp_path))
    assert sorted(journal.read(tmp_path / journal.FILE), key=lambda one: one.number) == found


def test_search_survives_dead_workers_and_failed_candidates(cluster: Cluster, tmp_path: Path) -> None:
    archs = [Arch(3, 12, 288, 384, "gelu"), Arch(3, 12, 288, 384, "relu"), Arch(3, 12, 288, 576, "gelu")]
    (tmp_path / "once").mkdir()
    with candidate_workers(cluster.address, partial(make, tmp_path / "once", 0.0, "gelu", 1)) as workers:
        found = dict(workers(archs))
    assert sorted(found) == [0, 1, 2]
    assert [found[index].failed for index in range(3)] == [None, None, "RuntimeError: too large"]
    assert found[0].result.loss == pytest.approx(loss_of(archs[0]))
    assert len(list((tmp_path / "once").glob("death-*"))) == 2  # another worker distilled each again
    (tmp_path / "ever").mkdir()
    with candidate_workers(cluster.address, partial(make, tmp_path / "ever", 0.0, "gelu", 99)) as workers:
        found = dict(workers(archs[:2]))
    assert found[0].failed == f"its worker died {TRIES} times"
    assert found[1].failed is None


def broken() -> Evaluate:
    raise KdnasError("the teacher is not here")


def test_a_worker_startup_failure_is_reported(cluster: Cluster) -> None:
    with (
        candidate_workers(cluster.address, broken) as workers,
        pytest.raises(KdnasError, match=r"a worker cannot start .*the teacher is not here"),
    ):
        list(workers(list(SPACE)))


def test_a_local_cluster_does_not_join_another_on_the_host(cluster: Cluster, tmp_path: Path) -> None:
    with candidate_workers("local", partial(make, tmp_path, 0.0)) as workers:
        assert ray.get_runtime_context().gcs_address != cluster.address
        assert dict(workers(list(SPACE)[:1])).keys() == {0}


def test_real_candidates_on_a_local_cluster(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    space = SearchSpace(layers=(3,), heads=(2, 3), hidden=(288,), ffn=(384,), activation=("gelu",))
    table = known_table()
    options = SearchOptions(
        episodes=1,
        candidates_per_episode=2,
        proxy=ProxyOptions(tokens=600, batch_tokens=256, validation_sentences=20),
    )
    local = run_search(tmp_path / "local", tiny_teacher, corpus, space, table, options, ray="local")
    alone = run_search(tmp_path / "alone", tiny_teacher, corpus, space, table, options)
    losses = [[one.loss for one in journal.read(found.path / journal.FILE)] for found in (local, alone)]
    assert sorted(losses[0]) == pytest.approx(sorted(losses[1]), rel=1e-3)  # one thread there, all here
    assert local.results["winner"] == alone.results["winner"]


def test_losses_are_recorded_in_parallel(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    space = SearchSpace(layers=(3,), heads=(2, 3), hidden=(288,), ffn=(384,), activation=("gelu",))
    proxy = ProxyOptions(tokens=600, batch_tokens=256, validation_sentences=20)
    options = RecordOptions(architectures=2, second_seed_for=1, checkpoints=2, proxy=proxy)
    found = [
        read_recording(run_record(tmp_path / str(ray), tiny_teacher, corpus, space, options, ray).path)
        for ray in ("local", None)
    ]
    assert list(found[0].losses) == list(found[1].losses)  # in the order of proposal, not of completion
    for arch, seeds in found[0].losses.items():
        for seed, curve in seeds.items():
            assert curve == pytest.approx(found[1].losses[arch][seed], rel=1e-2)


def test_replay_on_a_cluster_is_rejected() -> None:
    require_compatible(Path("x.csv"), None)
    with pytest.raises(UsageError, match="leave it out"):
        require_compatible(Path("x.csv"), "local")


# Ends at once: Ray's own shutdown after the signal may crash, and that is not what is tested.
TERMINATED = """
import os
import signal
from kdnas.search.cluster import candidate_workers
from kdnas.search.outcome import ProxyResult

def terminate(number, frame):
    print("the command's handler", flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, terminate)
with candidate_workers("local", lambda: lambda arch: ProxyResult(0.5, 1)) as workers:
    signal.raise_signal(signal.SIGTERM)
"""


def test_sigterm_reaches_the_commands_handler() -> None:
    done = subprocess.run([sys.executable, "-c", TERMINATED], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("the command's handler\n", 0), done.stderr
