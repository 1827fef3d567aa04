"""Several processes behind one port: answers, killed processes, signals, reloads, probes, metrics."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from kdnas.export.session import Session

from .serve_fixture import Clients, Served, serving, wait_until

pytestmark = pytest.mark.slow
FORM = "onnxruntime-f32"
KEY = "0123456789abcdef0123456789abcdef"
TWO = ("--form", FORM, "--processes", 2)
# A process that does not answer for half a second fails the probes.
IMPATIENT = "import kdnas.serving.group as group; group.PROBE_SECONDS = 0.5"


@pytest.fixture(scope="module")
def served(classifier: Path) -> Iterator[Served]:
    with serving(classifier, *TWO, patch=IMPATIENT) as running:
        yield running


def children(served: Served) -> list[psutil.Process]:
    """The serving processes."""
    found = psutil.Process(served.process.pid).children()
    return sorted(found, key=lambda process: process.pid)


def fresh(served: Served, method: str, path: str, key: str = "", **body: object) -> httpx.Response:
    """An answer on a new connection."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    json = body or None
    return httpx.request(method, served.url + path, json=json, headers=headers, timeout=20, trust_env=False)


@contextmanager
def without(process: psutil.Process) -> Iterator[None]:
    """Stop a process, so that the others accept all connections."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def ready(served: Served) -> bool:
    return fresh(served, "GET", "/readyz").status_code == 200


def test_each_process_answers_as_a_session_does(served: Served, classifier: Path, sentences: list[str]) -> None:
    expected = Session(classifier, FORM, 1).predict(sentences[:20])
    both = children(served)
    assert len(both) == 2
    for other in both:
        with without(other):
            body = fresh(served, "POST", "/v1/classify", texts=sentences[:20]).raise_for_status().json()
        for row, chances in zip(body["predictions"], expected, strict=True):
            assert list(row["scores"].values()) == pytest.approx(list(chances), abs=1e-5)


def test_each_process_has_its_group_of_cores(served: Served) -> None:
    groups = [set(process.cpu_affinity()) for process in children(served)]
    assert all(groups)
    if len(os.sched_getaffinity(0)) > 1 and psutil.cpu_count(logical=False) != 1:
        assert not groups[0] & groups[1]


def test_each_process_gets_as_many_connections(served: Served) -> None:
    with ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(httpx.Client(base_url=served.url, timeout=20, trust_env=False))
            client.post("/predict", json={"text": "a"}).raise_for_status()
        numbers = [len([one for one in process.net_connections("tcp") if one.status == "ESTABLISHED"])
                   for process in children(served)]  # fmt: skip
    assert sum(numbers) >= 10
    assert min(numbers) >= 4


def test_ctrl_c_in_a_terminal_reaches_the_parent_alone(served: Served) -> None:
    groups = {os.getpgid(process.pid) for process in children(served)}
    assert len(groups) == 2
    assert os.getpgid(served.process.pid) not in groups


def test_the_probes_fail_if_one_process_fails(served: Served) -> None:
    paths = ("/livez", "/readyz", "/startupz", "/health")
    assert [fresh(served, "GET", path).status_code for path in paths] == [200] * 4
    with without(children(served)[1]):
        answers = [fresh(served, "GET", path) for path in paths]
        assert [answer.status_code for answer in answers] == [503] * 4
        assert answers[0].json() == {"status": "process 2 does not answer"}
    assert ready(served)


def test_the_metrics_count_the_requests_of_all_processes(served: Served) -> None:
    before = served.metric("kdnas_texts_total")
    for other in children(served):
        with without(other):
            for _ in range(5):
                fresh(served, "POST", "/v1/classify", texts=["a", "b"]).raise_for_status()
    wait_until(lambda: served.metric("kdnas_texts_total") == before + 20)
    lines = served.client.get("/metrics").text.splitlines()
    name = 'kdnas_request_seconds_count{path="/v1/classify"}'
    counted = next(float(line.split()[-1]) for line in lines if line.startswith(name))
    requests = 'kdnas_requests_total{path="/v1/classify",status="200"}'
    assert counted == next(float(line.split()[-1]) for line in lines if line.startswith(requests)) >= 10
    assert [line for line in lines if line.startswith("kdnas_queue_texts ")] == ["kdnas_queue_texts 0.0"]


def test_only_requests_of_a_killed_process_fail(classifier: Path) -> None:
    with serving(classifier, *TWO) as served:
        clients = Clients(served.url, 8, again=True)
        counts = [0.0]
        for number in (0, 1, 0):
            wait_until(lambda: ready(served))
            done = len(clients.statuses)
            wait_until(lambda done=done: len(clients.statuses) > done + 50)
            counts.append(served_requests(served))
            killed, failed = children(served)[number], len(clients.errors)
            killed.kill()
            wait_until(lambda killed=killed: killed.pid not in {process.pid for process in children(served)})
            counts.append(served_requests(served))  # the counters of the dead process stay
            wait_until(lambda: len(children(served)) == 2 and ready(served))
            assert len(clients.errors) - failed <= 8
        failed, done = len(clients.errors), len(clients.statuses)
        wait_until(lambda: len(clients.statuses) > done + 50)
        assert len(clients.errors) == failed
        clients.join()
        assert set(clients.statuses) == {200}
        # A killed process may have answered without having counted.
        wait_until(lambda: served_requests(served) >= len(clients.statuses) - 3 * 8)
        counts.append(served_requests(served))
        assert counts == sorted(counts)
        assert "Traceback" not in stderr_after(served)


def served_requests(served: Served) -> float:
    """Counted requests to /predict with an answer, in a fresh connection, because a process may be dead."""
    lines = fresh(served, "GET", "/metrics").text.splitlines()
    name = 'kdnas_requests_total{path="/predict",status="200"}'
    return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)


def stderr_after(served: Served) -> str:
    """Ends the service; returns the messages that were not read."""
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
    assert served.process.stderr is not None
    return served.process.stderr.read()


# The next call of a model after this file appears never returns.
STICKING = """
import os
import time
from kdnas.serving.model import Model
run = Model.run
def sticking(self, *args):
    if os.path.exists(FILE):
        os.remove(FILE)
        time.sleep(1000)
    return run(self, *args)
Model.run = sticking
"""


@pytest.mark.parametrize("how", ["frozen", "stuck"])
def test_an_unhealthy_process_is_replaced(how: str, classifier: Path, tmp_path: Path) -> None:
    file = tmp_path / "stick"
    with (
        serving(classifier, *TWO, "--stuck-seconds", 1, patch=f"FILE = {str(file)!r}{STICKING}") as served,
        ThreadPoolExecutor(1) as pool,
    ):
        before = {process.pid for process in children(served)}
        if how == "frozen":
            children(served)[0].suspend()
        else:
            file.touch()
            stuck = pool.submit(fresh, served, "POST", "/v1/classify", texts=["a"])
        wait_until(lambda: {process.pid for process in children(served)} != before)
        wait_until(lambda: len(children(served)) == 2 and ready(served))
        assert len(before & {process.pid for process in children(served)}) == 1
        if how == "stuck":
            with pytest.raises(httpx.TransportError):
                stuck.result(20)
        assert fresh(served, "POST", "/v1/classify", texts=["a"]).status_code == 200
        messages = stderr_after(served)
    assert messages.count("is killed") == messages.count("is replaced now") == 1


def test_repeated_deaths_delay_the_next_start_and_are_reported(classifier: Path) -> None:
    with serving(classifier, *TWO) as served:
        for _ in range(3):
            wait_until(lambda: ready(served) and len(children(served)) == 2)
            children(served)[1].kill()
            wait_until(lambda: len(children(served)) == 1 or not ready(served))
        wait_until(lambda: ready(served))
        messages = [line for line in stderr_after(served).splitlines() if "has died" in line]
    assert len(messages) == 3
    assert messages[0].endswith("has died: it ended with SIGKILL. It is replaced now")
    assert "2 times in a row within 60 s of its start" in messages[1]
    assert messages[1].endswith("It is replaced in 1 s; the others answer meanwhile")
    assert messages[2].endswith("It is replaced in 2 s; the others answer meanwhile")


def test_sigterm_under_load_loses_no_request(classifier: Path) -> None:
    with serving(classifier, *TWO) as served:
        clients = Clients(served.url, 16)
        wait_until(lambda: len(clients.statuses) > 100)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0
        clients.join()
    assert not clients.errors
    assert set(clients.statuses) == {200}


def test_a_second_signal_cuts_off_requests(classifier: Path, sentences: list[str]) -> None:
    with serving(classifier, *TWO, "--max-texts", 99999, "--max-body-bytes", 10**8) as served:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.post, texts=(sentences * 60)[:20000])
            wait_until(lambda: served_texts(served) >= 1)
            served.process.send_signal(signal.SIGTERM)
            assert served.process.stderr is not None
            next(line for line in served.process.stderr if "1 requests in flight" in line)
            served.process.send_signal(signal.SIGTERM)
            assert answer.result(20).status_code == 503
        assert served.process.wait(20) == 143


def served_texts(served: Served) -> float:
    """Texts that all models have run."""
    lines = fresh(served, "GET", "/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("kdnas_texts_total{"))


def test_a_reload_replaces_the_models_of_all_processes_or_of_none(
    classifier: Path, encoder: Path, tmp_path: Path
) -> None:
    link, key_file = tmp_path / "model", tmp_path / "keys"
    link.symlink_to(classifier)
    key_file.write_text(f"{KEY}\n")
    with serving(f"m={link}", *TWO, "--key-file", key_file) as served:

        def answers() -> list[set[str]]:
            found = []
            for other in children(served):
                with without(other):
                    found.append(set(fresh(served, "POST", "/models/m/predict", KEY, texts=["a"]).json()))
            return found

        def replace(folder: Path) -> None:
            link.unlink()
            link.symlink_to(folder)

        before = answers()
        assert ["predictions" in found for found in before] == [True, True]
        replace(tmp_path)
        failed = fresh(served, "POST", "/v1/reload", KEY)
        assert failed.status_code == 500
        assert "the old models stay" in failed.json()["error"]
        assert answers() == before
        replace(encoder)
        assert fresh(served, "POST", "/v1/reload", KEY).json() == {"models": ["m"]}
        assert ["embeddings" in found for found in answers()] == [True, True]
        replace(classifier)
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: answers() == before)


def test_the_processes_end_with_their_parent(classifier: Path) -> None:
    with serving(classifier, *TWO) as served:
        both = children(served)
        served.process.kill()
        psutil.wait_procs(both, timeout=20)
        assert not any(process.is_running() for process in both)


def test_a_process_that_is_killed_at_the_start_ends_the_service(classifier: Path) -> None:
    patch = "import os, kdnas.serving.model as m; m.Model.warm = lambda self: os.kill(os.getpid(), 9)"
    program = (
        f"{patch}\nfrom kdnas.cli import main\n"
        f"main(['serve', {str(classifier)!r}, '--form', {FORM!r}, '--port', '0', '--processes', '2'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ended with SIGKILL before it could answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_options_are_refused_once(tmp_path: Path, kdnas: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = kdnas("serve", tmp_path, "--port", 0, "--processes", 2)
    assert done.returncode == 2
    assert done.stderr.count("not an exported model") == 1
    assert "Traceback" not in done.stderr
    done = kdnas("serve", tmp_path, "--processes", 0)
    assert (done.returncode, "processes is 0; at least 1" in done.stderr) == (2, True)
    done = kdnas("serve", tmp_path, "--processes", 2, "--bench", tmp_path)
    assert (done.returncode, "bench measures one process" in done.stderr) == (2, True)
