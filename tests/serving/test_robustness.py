"""What must not bring the service down: failing models, clients that leave, abuse of the connection."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from .serve_fixture import Served, post, serving, wait_until

pytestmark = pytest.mark.slow
FORM = "onnxruntime-f32"

# The model fails by the text: "nan" gives NaN, "raise" raises, "die" ends the worker, and "slow" waits while a file exists;
# another file says that it waits.
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
        open(RUNNING, "w").close()
        time.sleep(0.005)
    found = run(self, rows, batch_tokens)
    return [np.full_like(one, np.nan) if words["nan"] in row.ids else one for one, row in zip(found, rows)]
Model.run = failing
"""


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file exists, the text "slow" waits in the model."""
    return tmp_path_factory.mktemp("hold") / "hold"


def running_file(hold: Path) -> Path:
    return hold.with_suffix(".running")


def failing_model(hold: Path) -> str:
    """The code that makes the model fail."""
    return f"HOLD, RUNNING = {str(hold)!r}, {str(running_file(hold))!r}\n{FAILING}"


@contextmanager
def slow_request(served: Served, hold: Path) -> Iterator[Callable[[], httpx.Response]]:
    """A request that occupies the worker until the returned function is called."""

    def release() -> httpx.Response:
        hold.unlink(missing_ok=True)
        return slow.result()

    running_file(hold).unlink(missing_ok=True)
    hold.touch()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(post, served, "slow")
        try:
            wait_until(running_file(hold).exists)  # not merely queued: what is queued may join its batch
            yield release
        finally:
            hold.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def failing(classifier: Path, hold: Path) -> Iterator[Served]:
    with serving(classifier, "--form", FORM, "--receive-seconds", 2, patch=failing_model(hold)) as running:
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
    patch = failing_model(hold)
    with serving(classifier, "--form", FORM, "--stuck-seconds", 0.5, patch=patch) as served:
        with slow_request(served, hold) as release:
            wait_until(lambda: served.client.get("/livez").status_code == 503)
            assert "stuck" in served.client.get("/livez").json()["status"]
            assert release().status_code == 200
        wait_until(lambda: served.client.get("/livez").status_code == 200)


def test_a_dead_worker_fails_livez_and_the_waiting_requests(classifier: Path, hold: Path) -> None:
    with serving(classifier, "--form", FORM, patch=failing_model(hold)) as served:
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
