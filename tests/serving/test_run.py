"""The service as users run it: a process with a real socket."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.export.session import Session
from kdnas.serving.run import bind, named_folders, threads_each

from .serve_fixture import Served, serving, wait_until


@pytest.fixture(scope="module")
def served(classifier: Path) -> Iterator[Served]:
    with serving(classifier, "--form", "openvino-f32", "--max-texts", 64, "--max-body-bytes", 100000) as running:
        yield running


def test_predictions_equal_those_of_the_session(served: Served, classifier: Path, sentences: list[str]) -> None:
    expected = Session(classifier, "openvino-f32", 1).predict(sentences[:64])
    body = served.post(texts=sentences[:64]).raise_for_status().json()
    assert (body["model"], body["form"]) == (classifier.name, "openvino-f32")
    found = [[row["scores"]["ok"], row["scores"]["hap"]] for row in body["predictions"]]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for row, chances in zip(body["predictions"], expected, strict=True):
        assert row["label"] == ("ok", "hap")[int(chances.argmax())]
        assert row["score"] == max(row["scores"].values())


def test_one_text_gives_the_same_answer_as_a_list_of_one(served: Served) -> None:
    one, several = served.post(text="Hello there.").json(), served.post(texts=["Hello there."]).json()
    assert one == several
    assert len(one["predictions"]) == 1


def test_concurrent_requests_get_the_right_answers(served: Served, sentences: list[str]) -> None:
    groups = [sentences[start : start + 1 + start % 5] for start in range(0, 240, 4)]
    alone = [served.post(texts=group).json() for group in groups]
    before = served.metric("kdnas_batch_texts_count")
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda group: served.post(texts=group).json(), groups))
    assert served.metric("kdnas_batch_texts_count") - before < len(groups)  # some ran together
    for one, other in zip(alone, together, strict=True):
        for left, right in zip(one["predictions"], other["predictions"], strict=True):
            assert left["scores"]["hap"] == pytest.approx(right["scores"]["hap"], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"texts": []}', 422, "texts: List should have at least 1 item"),
        (b"{}", 422, "give either 'text' or 'texts'"),
        (b'{"text": "a", "texts": ["b"]}', 422, "give either 'text' or 'texts'"),
        (b'{"texts": [1]}', 422, "texts.0: Input should be a valid string"),
        (b'{"texts": ["a"], "txets": []}', 422, "txets: Extra inputs"),
        (b'{"texts": ["\\ud800"]}', 422, "not valid JSON: unexpected end of hex escape"),
        (b'{"texts": ["a"]', 422, "not valid JSON"),
        (b"[1]", 422, 'such as {"inputs"'),
        (b'{"texts": ["\xff"]}', 422, "not valid JSON: invalid unicode"),
        (json.dumps({"texts": ["a"] * 65}).encode(), 413, "65 texts in one request"),
        (
            json.dumps({"texts": ["a", "word " * 100]}).encode(),
            413,
            "text 1 has 102 tokens; the model reads at most 64",
        ),
        (json.dumps({"text": "x" * 100000}).encode(), 413, "the body is over 100000 bytes"),
    ],
)
def test_invalid_requests_are_refused(served: Served, body: bytes, status: int, message: str) -> None:
    answer = served.client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert list(answer.json()) == ["error", "error_type"]


def test_a_chunked_body_over_the_limit_is_refused(served: Served) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"text": "'
        for _ in range(30):
            yield b"x" * 10000

    answer = served.client.post("/predict", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert "the body is over 100000 bytes" in answer.json()["error"]


def test_a_wrong_method_path_or_content_type_is_refused(served: Served) -> None:
    assert served.client.get("/predict").status_code == 405
    assert served.client.get("/nothing").json()["error"] == "Not Found"
    form = served.client.post("/predict", content=b'{"text": "a"}', headers={"content-type": "text/plain"})
    assert form.status_code == 422
    assert "content-type: application/json" in form.json()["error"]


def test_truncate_uses_the_start_of_a_text(served: Served) -> None:
    long = "good word " * 100
    cut = served.post(text=long, truncate=True).raise_for_status().json()["predictions"][0]
    start = served.post(text="good word " * 31).json()["predictions"][0]
    assert cut["scores"] == pytest.approx(start["scores"], abs=1e-5)


def test_health_metrics_and_docs_are_served(served: Served) -> None:
    assert served.client.get("/livez").json() == {"status": "alive"}
    assert served.client.get("/readyz").json() == {"status": "ready"}
    texts = served.metric("kdnas_texts_total")
    served.post(texts=["a", "b", "c"])
    assert served.metric("kdnas_texts_total") == texts + 3
    metrics = served.client.get("/metrics").text
    assert 'kdnas_requests_total{path="/predict",status="200"}' in metrics
    assert 'kdnas_request_seconds_bucket{le="0.001",path="/predict"}' in metrics
    assert "kdnas_queue_texts 0.0" in metrics
    schema = served.client.get("/openapi.json").json()
    assert {"/predict", "/livez", "/readyz", "/metrics"} <= set(schema["paths"])
    page = served.client.get("/docs").text
    assert "/predict" in page
    assert "FoundEntities" in page
    assert "<code>hap</code>" in page
    assert "//" not in page.replace("http://HOST:PORT", "")  # the page loads no external resources


@pytest.mark.slow
def test_an_encoder_returns_embeddings(encoder: Path, sentences: list[str]) -> None:
    with serving(encoder) as served:  # the default form
        body = served.post(texts=sentences[:10]).raise_for_status().json()
    expected = Session(encoder, None, 1)
    assert body["form"] == expected.form
    np.testing.assert_allclose(body["embeddings"], expected.predict(sentences[:10]), atol=2e-2)
    np.testing.assert_allclose(np.linalg.norm(body["embeddings"], axis=1), 1, atol=1e-4)


@pytest.mark.slow
def test_sigterm_finishes_requests_in_flight(classifier: Path, sentences: list[str]) -> None:
    with serving(classifier, "--form", "openvino-f32", "--max-texts", 20000, "--max-queue-texts", 20000) as served:
        texts = (sentences * 30)[:10000]
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.post, texts=texts)
            wait_until(lambda: served.metric("kdnas_texts_total") >= 1)  # the model is running it
            served.process.send_signal(signal.SIGTERM)
            assert len(answer.result().raise_for_status().json()["predictions"]) == len(texts)
        assert served.process.wait(20) == 0
        with pytest.raises(httpx.TransportError):
            served.client.get("/livez")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_resets_no_new_connection(processes: int, classifier: Path) -> None:
    with serving(classifier, "--form", "onnxruntime-f32", "--processes", processes) as served:
        address = httpx.URL(served.url)

        def send() -> int:
            """Number of answers, each on a new connection, until the service no longer listens."""
            count = 0
            while True:
                try:
                    connection = socket.create_connection((address.host, address.port), 20)
                except ConnectionRefusedError:
                    return count
                with connection:
                    connection.sendall(b"GET /info HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                    assert connection.recv(100).startswith(b"HTTP/1.1 200")
                count += 1

        with ThreadPoolExecutor(16) as pool:
            counts = [pool.submit(send) for _ in range(16)]
            served.process.send_signal(signal.SIGTERM)
            assert sum(count.result() for count in counts) > 16
        assert served.process.wait(20) == 0


@pytest.mark.slow
def test_a_second_signal_cuts_off_requests(classifier: Path, sentences: list[str]) -> None:
    with serving(classifier, "--form", "openvino-f32", "--max-texts", 99999, "--max-body-bytes", 10**8) as served:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.post, texts=(sentences * 60)[:20000])
            wait_until(lambda: served.metric("kdnas_texts_total") >= 1)
            served.process.send_signal(signal.SIGTERM)
            assert served.process.stderr is not None
            assert "1 requests in flight" in served.process.stderr.readline()
            served.process.send_signal(signal.SIGTERM)
            assert answer.result(20).status_code == 503
            assert "stopped" in answer.result().json()["error"]
        assert served.process.wait(20) == 143
        assert "Traceback" not in served.process.stderr.read()


@pytest.mark.slow
def test_ctrl_c_ends_an_idle_service(classifier: Path) -> None:
    with serving(classifier) as served:
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(20) == 0
        assert served.process.stderr is not None
        assert "Traceback" not in served.process.stderr.read()


@pytest.mark.slow
def test_a_draining_service_answers_but_is_not_ready(classifier: Path) -> None:
    with serving(classifier, "--drain-seconds", 2) as served:
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: served.client.get("/readyz").status_code == 503)
        assert served.client.get("/readyz").json() == {"status": "shutting down"}
        assert served.post(text="still here").status_code == 200
        assert served.process.wait(20) == 0


@pytest.mark.slow
def test_requests_over_the_queue_limit_get_retry_after(classifier: Path, sentences: list[str]) -> None:
    words = ("--form", "openvino-f32", "--max-queue-texts", 5002, "--max-texts", 5000, "--max-wait-ms", 0)
    with serving(classifier, *words) as served:
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(served.post, texts=(sentences * 8)[:5000])  # keeps the model busy
            wait_until(lambda: served.metric("kdnas_texts_total") >= 1)
            others = [pool.submit(served.post, texts=sentences[:4]) for _ in range(8)]
            answers = [other.result() for other in others]
            assert first.result().status_code == 200
        assert {answer.status_code for answer in answers} == {429}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        assert {answer.json()["error_type"] for answer in answers} == {"Overloaded"}
        assert served.post(text="no longer busy").status_code == 200


@pytest.mark.slow
def test_a_port_in_use_is_reported(classifier: Path, kdnas: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = kdnas("serve", "--model", classifier, "--port", taken.getsockname()[1])
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Address already in use" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.slow
def test_a_folder_without_a_model_is_refused(
    tmp_path: Path, kdnas: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = kdnas("serve", "--model", tmp_path, "--port", 0)
    assert done.returncode == 2
    assert "not an exported model" in done.stderr


def test_invalid_addresses_are_refused() -> None:
    with pytest.raises(UsageError, match="port is 70000"):
        bind("127.0.0.1", 70000)
    with pytest.raises(UsageError, match="no such address"):
        bind("no.such.host.invalid", 0)
    with pytest.raises(KdnasError, match="cannot listen"):
        bind("192.0.2.1", 0)


@pytest.mark.slow
def test_the_service_imports_neither_torch_nor_transformers(classifier: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from starlette.testclient import TestClient\n"
        "from kdnas.commands import load_command; load_command('serve')\n"
        "from kdnas.serving.app import create_app; from kdnas.serving.model import Model\n"
        "from kdnas.serving.options import ServeOptions; from kdnas.serving.service import Service\n"
        "service = Service([Model('m', Path(sys.argv[1]))], ServeOptions())\n"
        "with TestClient(create_app(service)) as client:\n"
        "    service.warmed.wait(30)\n"
        "    assert client.post('/predict', json={'text': 'a'}).status_code == 200\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(classifier)], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"tokenizers", "starlette"} <= loaded
    assert loaded & {"openvino", "onnxruntime"}
    assert not loaded & {
        "fastapi",
        "torch",
        "transformers",
        "optimum",
        "nncf",
        "sklearn",
        "pandas",
        "latency",
        "evaluation",
    }


def test_models_are_named_by_the_user_or_their_folders(tmp_path: Path) -> None:
    found = named_folders((f"hap={tmp_path}/one", f"{tmp_path}/two", f"{tmp_path}/a=b"))
    assert found == {"hap": tmp_path / "one", "two": tmp_path / "two", "a=b": tmp_path / "a=b"}
    with pytest.raises(UsageError, match="the name 'two' is given twice"):
        named_folders((f"{tmp_path}/two", f"two={tmp_path}/three"))


def test_threads_are_divided_among_the_processes() -> None:
    assert [threads_each(threads, 2) for threads in (5, 4, 1, None)] == [2, 2, 1, None]
    assert threads_each(0, 1) == 0  # refused by the session
