"""The project's benchmarks: the code that users wait for. Each side runs them in fresh processes."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

THREADS = 1  # one of the two cores of a small runner stays free: results are much less noisy
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="module")
def session(exported: Path) -> Any:
    from kdnas.export.session import Session

    return Session(exported, threads=THREADS)


def require(session: Any, *tasks: str) -> None:
    """Skip a benchmark that does not apply to the task of this model."""
    if session.task not in tasks:
        pytest.skip(f"{session.path} is a model for {session.task}")


def test_tokenising(benchmark: Any, session: Any, texts: list[str]) -> None:
    assert len(benchmark(session.encoder.ids, texts)) == len(texts)


def test_session_one_text_of_32_tokens(benchmark: Any, session: Any) -> None:
    ids, mask = np.full((1, 32), 2054, dtype=np.int64), np.ones((1, 32), dtype=np.int64)
    assert np.isfinite(benchmark(session.run, ids, mask)).all()


def test_session_128_texts(benchmark: Any, session: Any, texts: list[str]) -> None:
    require(session, "text-classification", "feature-extraction")
    assert len(benchmark(session.predict, texts)) == len(texts)


def test_batching(benchmark: Any) -> None:
    from kdnas.text.sentences import token_batches

    lengths = np.random.default_rng(0).integers(5, 60, 20_000)
    batches = benchmark(token_batches, lengths, 4096, 0, 0)
    assert sum(map(len, batches)) == len(lengths)


def test_export_parity(benchmark: Any, exported: Path) -> None:
    from kdnas.store.artifact import Artifact

    benchmark(lambda: Artifact.load(exported).verify())


def test_filter(benchmark: Any, session: Any, exported: Path, texts: list[str], tmp_path: Path) -> None:
    require(session, "text-classification")
    from kdnas.filtering.options import FilterOptions
    from kdnas.filtering.run import filter_documents

    source, out, options = tmp_path / "docs.txt", tmp_path / "out", FilterOptions(label=(session.labels[-1],))
    source.write_text("\n".join(texts))

    def run() -> int:
        shutil.rmtree(out, ignore_errors=True)
        outcome = filter_documents(exported, (str(source),), str(out), threads=THREADS, options=options, verify=False)
        return outcome.exit_code

    assert benchmark(run) == 0


@pytest.fixture(scope="module")
def server(session: Any, exported: Path) -> Iterator[str]:
    require(session, "text-classification", "feature-extraction")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kdnas", "serve", "--model", str(exported), "--port", str(port)]
    process = subprocess.Popen([*command, "--threads", str(THREADS)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/readyz").read()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


def test_serving_round_trip(benchmark: Any, server: str) -> None:
    request = urllib.request.Request(
        f"{server}/predict",
        b'{"texts": ["Returns the inverse of a square matrix."]}',
        {"content-type": "application/json"},
    )
    assert benchmark(lambda: urllib.request.urlopen(request).read()).startswith(b'{"model"')


def test_training_step(benchmark: Any) -> None:
    import torch

    from kdnas.distill.loop import make_accelerator, make_optimizer, train_step
    from kdnas.distill.throughput import make_objective
    from kdnas.models.arch import Arch
    from kdnas.models.student import new_student
    from kdnas.models.teacher import BUILTIN, load_encoder, resolve_teacher

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    teacher = load_encoder(resolve_teacher(BUILTIN).path)
    module = make_objective(teacher, new_student(Arch(3, 12, 288, 384), teacher.config), "hidden-state")
    accelerator, optimizer = make_accelerator("f32"), make_optimizer(module, 1e-5)
    ids = torch.randint(1000, 20_000, (8, 32), generator=torch.Generator().manual_seed(0))
    losses = benchmark(train_step, module, optimizer, accelerator, (ids, torch.ones_like(ids)), 1e-5)
    assert torch.isfinite(losses).all()


def test_controller_episode(benchmark: Any) -> None:
    import torch

    from kdnas.models.arch import SearchSpace
    from kdnas.search.goal import Goal
    from kdnas.search.options import SearchOptions
    from kdnas.search.strategies import Observation, make_strategy

    torch.set_num_threads(THREADS)
    goal = Goal({arch: 1.0 + arch.layers for arch in SearchSpace()}, 10.0, -0.06, 0.6)

    def episode() -> None:
        strategy = make_strategy(goal, SearchOptions(strategy="kdnas", controller_epochs=2))
        proposals = strategy.ask(20)
        strategy.tell([Observation(one.arch, goal.reward(one.arch, 0.4), 0.4) for one in proposals])

    benchmark(episode)
