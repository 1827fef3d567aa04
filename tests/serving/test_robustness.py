"""What must not bring the service down: failing models, clients that leave, abuse of the connection, reloads, SIGTERM."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from .serve_fixture import Served, serving, wait_until

pytestmark = pytest.mark.slow
FORM = "onnxruntime-f32"
KEY = "0123456789abcdef0123456789abcdef"

# The model fails by the text: "nan" gives NaN, "raise" raises, "die" ends the worker, and "slow" waits while a file exists.
FAILING = """
import os
import time
import numpy as np
from kdnas.serving.model import Model
run = Model.run
def failing(self, rows, batch_tokens):
    words = {name: self.session.encode([name])[0][1] for name in ("nan", "raise", "slow", "die")}
    ids = {number for row in rows for number in row.ids}
    if words["raise"] in ids:
        raise ValueError("bad luck")
    if words["die"] in ids:
        raise SystemExit("fatal")
    while words["slow"] in ids and os.path.exists(HOLD):
        time.sleep(0.005)
    found = run(self, rows, batch_tokens)
    return [np.full_like(one, np.nan) if words["nan"] in row.ids else one for one, row in zip(found, rows)]
Model.run = failing
"""


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file exists, the text "slow" waits in the model."""
    return tmp_path_factory.mktemp("hold") / "hold"


@contextmanager
def slow_request(served: Served, hold: Path) -> Iterator[Callable[[], httpx.Response]]:
    """A request that occupies the worker until the returned function is called."""

    def release() -> httpx.Response:
        hold.unlink(missing_ok=True)
        return slow.result()

    hold.touch()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(post, served, "slow")
        try:
            wait_until(lambda: served.metric("kdnas_queue_texts") == 1)
            yield release
        finally:
            hold.unlink(missing_ok=True)


def post(served: Served, text: str, path: str = "/predict", **headers: str) -> httpx.Response:
    body = {"inputs": text} if path == "/predict" else {"text": text}
    return served.client.post(path, json=body, headers=headers)


@pytest.fixture(scope="module")
def failing(classifier: Path, hold: Path) -> Iterator[Served]:
    with serving(
        classifier, "--form", FORM, "--receive-seconds", 2, patch=f"HOLD = {str(hold)!r}\n{FAILING}"
    ) as running:
        yield running


def test_a_number_that_is_not_finite_is_an_error(failing: Served) -> None:
    for path, status in (("/predict", 424), ("/v1/classify", 500)):
        answer = post(failing, "nan", path)
        assert answer.status_code == status
        assert "text 0: the model's output is not a finite number" in answer.json()["error"]


def test_a_failing_text_fails_alone(failing: Served, hold: Path) -> None:
    good = {text: post(failing, text).raise_for_status().json() for text in ("You are kind.", "Go away.")}
    texts = ["nan", "You are kind.", "raise", "Go away.", "nan"]
    with slow_request(failing, hold) as release, ThreadPoolExecutor(5) as pool:  # they wait and run together
        waiting = [pool.submit(post, failing, text) for text in texts]
        wait_until(lambda: failing.metric("kdnas_queue_texts") == 6)
        assert release().status_code == 200
        answers = [one.result() for one in waiting]
    assert [answer.status_code for answer in answers] == [424, 200, 424, 200, 424]
    for text, answer in zip(texts, answers, strict=True):
        if answer.status_code == 200:
            found = {row["label"]: row["score"] for row in answer.json()}
            assert found == pytest.approx({row["label"]: row["score"] for row in good[text]}, abs=1e-4)


def test_work_of_clients_that_left_does_not_run(failing: Served, hold: Path) -> None:
    before = failing.metric("kdnas_texts_total")
    with slow_request(failing, hold) as release:
        body = json.dumps({"text": "left"}).encode()
        with connect(failing) as leaving:
            leaving.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: failing.metric("kdnas_queue_texts") == 2)
        wait_until(lambda: failing.metric("kdnas_queue_texts") == 1)  # left while the slow one was running
        assert release().status_code == 200
    assert failing.metric("kdnas_texts_total") == before + 1


def test_expired_work_does_not_run(failing: Served, hold: Path) -> None:
    before = failing.metric("kdnas_texts_total")
    with slow_request(failing, hold) as release:
        late = post(failing, "late", **{"x-timeout-ms": "50"})
        assert (late.status_code, late.json()["error_type"]) == (504, "Overloaded")
        assert release().status_code == 200
    assert failing.metric("kdnas_texts_total") == before + 1
    assert post(failing, "a", **{"x-timeout-ms": "soon"}).status_code == 422
    assert post(failing, "a", **{"x-timeout-ms": "30000"}).status_code == 200


def connect(served: Served) -> socket.socket:
    """A new connection to the service."""
    host, port = served.client.base_url.netloc.decode().split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def raw(served: Served, data: bytes, pause: float = 0.0) -> bytes:
    """What the service answers to bytes on a new connection until it closes it, for at most 20 seconds."""
    with connect(served) as connection:
        if pause:
            for at in range(len(data)):
                try:
                    connection.sendall(data[at : at + 1])
                except OSError:
                    break
                time.sleep(pause)
        else:
            connection.sendall(data)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
        return answer


HEAD = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /predict HTTP/1.1\r\nhost: a\r\nx", b"408"),  # headers that never end
        (HEAD + b"content-length: 100\r\n\r\n{", b"408"),  # a body that never ends
        (HEAD + b"x-long: " + b"a" * 64_000 + b"\r\n\r\n", b"4"),
        (HEAD + b"content-length: ten\r\n\r\n{}", b"400"),
        (HEAD + b"connection: close\r\ncontent-length: 200000\r\n\r\n" + b"[" * 200_000, b"422"),
        (b"\x16\x03\x01 nonsense\r\n\r\n", b"400"),
        (b"", b"408"),
    ],
    ids=["slow-headers", "slow-body", "long-headers", "length", "deep", "nonsense", "nothing"],
)
def test_abuse_of_a_connection_is_refused_or_closed(failing: Served, data: bytes, status: bytes) -> None:
    assert raw(failing, data).startswith(b"HTTP/1.1 " + status)
    assert post(failing, "still here").status_code == 200


def test_a_body_in_single_bytes_is_read_or_closed(failing: Served) -> None:
    body = b'{"text": "a"}'
    data = HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    assert raw(failing, data, pause=0.002).startswith(b"HTTP/1.1 200")
    assert raw(failing, HEAD, pause=0.1).startswith(b"HTTP/1.1 408")  # too slow


def test_stuck_work_fails_livez(classifier: Path, hold: Path) -> None:
    patch = f"HOLD = {str(hold)!r}\n{FAILING}"
    with serving(classifier, "--form", FORM, "--stuck-seconds", 0.5, patch=patch) as served:
        with slow_request(served, hold) as release:
            wait_until(lambda: served.client.get("/livez").status_code == 503)
            assert "stuck" in served.client.get("/livez").json()["status"]
            assert release().status_code == 200
        wait_until(lambda: served.client.get("/livez").status_code == 200)


def test_a_dead_worker_fails_livez_and_the_waiting_requests(classifier: Path, hold: Path) -> None:
    with serving(classifier, "--form", FORM, patch=f"HOLD = {str(hold)!r}\n{FAILING}") as served:
        with slow_request(served, hold) as release, ThreadPoolExecutor(2) as pool:
            dead = pool.submit(post, served, "die")
            wait_until(lambda: served.metric("kdnas_queue_texts") == 2)
            waiting = pool.submit(post, served, "a")
            wait_until(lambda: served.metric("kdnas_queue_texts") == 3)
            assert release().status_code == 200
            assert dead.result().status_code == 503
            assert waiting.result().status_code == 503
        assert served.client.get("/livez").status_code == 503
        assert "worker has died" in served.client.get("/readyz").json()["status"]
        assert post(served, "a").status_code == 503


# Every call of the model fails while a file exists, and /readyz needs its canary even after an answered request.
BROKEN = """
import os
import kdnas.serving.service as service
from kdnas.serving.model import Model
service.FRESH_SECONDS = 0.0
run = Model.run
def broken(self, rows, batch_tokens):
    if os.path.exists({mark!r}):
        raise ValueError("broken")
    return run(self, rows, batch_tokens)
Model.run = broken
"""


def test_readyz_asks_the_models_for_a_short_text(classifier: Path, tmp_path: Path) -> None:
    mark = tmp_path / "broken"
    with serving(classifier, "--form", FORM, patch=BROKEN.format(mark=str(mark))) as served:
        assert served.client.get("/readyz").status_code == 200
        mark.touch()
        answer = served.client.get("/readyz")
        assert (answer.status_code, "broken" in answer.json()["status"]) == (503, True)
        assert served.client.get("/health").json()["error_type"] == "Unhealthy"
        mark.unlink()
        assert served.client.get("/readyz").status_code == 200


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"# of the tests\n{KEY}\n")
    return file


def test_keys_are_needed_and_rotated_by_a_reload(classifier: Path, key_file: Path) -> None:
    with serving(classifier, "--form", FORM, "--key-file", key_file) as served:
        assert post(served, "a").status_code == 401
        assert post(served, "a").headers["www-authenticate"] == "Bearer"
        assert post(served, "a", authorization=f"Bearer {KEY}x").status_code == 401
        assert post(served, "a", authorization=f"Basic {KEY}").status_code == 401
        assert post(served, "a", authorization=f"Bearer {KEY}").status_code == 200
        assert served.client.get("/metrics").status_code == 401
        assert served.client.get("/livez").status_code == served.client.get("/readyz").status_code == 200
        assert served.client.post("/v1/reload").status_code == 401
        other = KEY[::-1]
        key_file.write_text(f"{other}\n")
        answer = served.client.post("/v1/reload", headers={"authorization": f"Bearer {KEY}"})
        assert (answer.status_code, answer.json()) == (200, {"models": [classifier.name]})
        assert post(served, "a", authorization=f"Bearer {KEY}").status_code == 401
        assert post(served, "a", authorization=f"Bearer {other}").status_code == 200
        key_file.write_text("short\n")
        failed = served.client.post("/v1/reload", headers={"authorization": f"Bearer {other}"})
        assert failed.status_code == 500
        assert "at least 16 characters" in failed.json()["error"]
        assert post(served, "a", authorization=f"Bearer {other}").status_code == 200  # the old keys stay


def test_an_open_address_without_keys_is_refused(
    classifier: Path, kdnas: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = kdnas("serve", classifier, "--host", "0.0.0.0", "--port", 0)
    assert done.returncode == 2
    assert "--key-file FILE" in done.stderr
    (tmp_path / "empty").write_text("# nothing\n")
    done = kdnas("serve", classifier, "--host", "0.0.0.0", "--port", 0, "--key-file", tmp_path / "empty")
    assert done.returncode == 2
    assert "no key" in done.stderr


class Clients:
    """Clients that send requests without pause, each on a kept connection, and count the answers."""

    def __init__(self, url: str, number: int) -> None:
        self.url = url
        self.stopped = threading.Event()
        self.statuses: list[int] = []
        self.errors: list[Exception] = []
        self.closed = 0
        self.threads = [threading.Thread(target=self._send) for _ in range(number)]
        for thread in self.threads:
            thread.start()

    def _send(self) -> None:
        with httpx.Client(base_url=self.url, timeout=20, trust_env=False) as client:
            while not self.stopped.is_set():
                try:
                    answer = client.post("/predict", json={"text": "You are very kind."})
                except httpx.ConnectError:
                    return  # it no longer listens: nothing was accepted
                except httpx.TransportError as error:
                    self.errors.append(error)
                    return
                self.statuses.append(answer.status_code)
                if answer.headers.get("connection") == "close":
                    self.closed += 1
                    return

    def join(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(30)


def test_sigterm_under_load_loses_no_request(classifier: Path) -> None:
    with serving(classifier, "--form", FORM) as served:
        clients = Clients(served.url, 16)
        wait_until(lambda: len(clients.statuses) > 50)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
        clients.join()
    assert not clients.errors
    assert set(clients.statuses) == {200}
    assert clients.closed >= 15  # told to close before the service did


def test_reloads_under_load_lose_no_request(classifier: Path, encoder: Path, tmp_path: Path) -> None:
    link = tmp_path / "model"
    link.symlink_to(classifier)
    with serving(f"m={link}", "--form", FORM) as served:
        clients = Clients(served.url, 4)
        wait_until(lambda: len(clients.statuses) > 20)
        for count in (1, 2):
            served.process.send_signal(signal.SIGHUP)
            wait_until(lambda count=count: served.metric("kdnas_reloads_total") == count)
        link.unlink()
        link.symlink_to(tmp_path)  # not a model: the old one stays
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: served.metric("kdnas_reloads_total") == 3)
        clients.join()
        assert not clients.errors
        assert set(clients.statuses) == {200}
        link.unlink()
        link.symlink_to(encoder)
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: served.metric("kdnas_reloads_total") == 4)
        assert "embeddings" in post(served, "a", "/models/m/predict").json()


def test_the_access_log_has_one_line_a_request_without_texts(classifier: Path) -> None:
    with serving(classifier, "--form", FORM, "--access-log", stdout=subprocess.PIPE) as served:
        post(served, "a secret text", "/v1/classify").raise_for_status()
        served.client.get("/nothing?secret=1")
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
        assert served.process.stdout is not None
        lines = [json.loads(line) for line in served.process.stdout]
    found = {line["path"]: line for line in lines}
    assert found["/v1/classify"]["status"] == 200
    assert (found["/v1/classify"]["texts"], found["/v1/classify"]["model"]) == (1, classifier.name)
    assert found["/v1/classify"]["tokens"] >= 3
    assert found["/nothing"]["status"] == 404
    assert "secret" not in json.dumps(lines)


def test_cors_is_off_unless_origins_are_given(classifier: Path) -> None:
    ask = {"origin": "https://a.example", "access-control-request-method": "POST"}
    with serving(classifier, "--form", FORM, "--cors-origins", "https://a.example") as served:
        allowed = served.client.options("/predict", headers=ask)
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        denied = served.client.options("/predict", headers=ask | {"origin": "https://b.example"})
        assert "access-control-allow-origin" not in denied.headers
        assert "access-control-allow-origin" in post(served, "a", origin="https://a.example").headers


def test_the_policy_of_the_server_applies_to_long_texts(classifier: Path) -> None:
    with serving(classifier, "--form", FORM, "--too-long", "windows", "--streams", 1) as served:
        assert "windows" in post(served, "word " * 100, "/v1/classify").json()["predictions"][0]
        assert served.client.get("/info").json()["too_long"] == "windows"
        assert len(post(served, "word " * 100).json()) == 2
