"""The client against a running service, and against one that misbehaves."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import kdnas
from kdnas.errors import UsageError
from kdnas.export.session import Session
from kdnas.serving.client import ServiceError

from .serve_fixture import serving


@pytest.mark.slow
def test_the_client_reads_all_answers(
    classifier: Path, encoder: Path, tagger: Path, answerer: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef\n")
    words = ("--model", f"enc={encoder}", "--model", f"ner={tagger}", "--model", f"qa={answerer}")
    form = ("--form", "onnxruntime-f32", "--key-file", key)
    with serving(f"hap={classifier}", *words, *form) as served:
        client = kdnas.Client(served.url, key="0123456789abcdef")
        expected = Session(classifier, "onnxruntime-f32", 1).predict(["Go away."])[0]
        found = client.classify(["Go away.", "word " * 100], too_long="windows")
        assert found[0].scores == pytest.approx(dict(zip(["ok", "hap"], expected, strict=True)), abs=1e-5)
        assert found[0].windows == ()
        assert found[1].windows[0].end > 50
        assert client.classify(["word " * 100], too_long="truncate")[0].truncated
        vectors = client.embed(["Go away.", "b"])
        np.testing.assert_allclose(
            vectors, Session(encoder, "onnxruntime-f32", 1).predict(["Go away.", "b"]), atol=1e-5
        )
        assert client.embed(["a"], dimensions=3).shape == (1, 3)
        text = "Ada Lovelace lives in London."
        assert all(text[one.start : one.end] == one.text for one in client.entities([text])[0])
        answer = client.answer("Where?", text)
        assert text[answer.start : answer.end] == answer.text
        assert client.info()["models"][1]["name"] == "enc"
        with pytest.raises(ServiceError, match="413: text 0 has 102 tokens") as caught:
            client.classify(["word " * 100])
        assert caught.value.status == 413
        with pytest.raises(ServiceError, match="401: a key is needed"):
            kdnas.Client(served.url).classify(["a"])
        with pytest.raises(ServiceError, match="404: no model 'x'"):
            kdnas.Client(served.url, "0123456789abcdef", "x").classify(["a"])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="give an address such as"):
        kdnas.Client("localhost:8000")
    with pytest.raises(UsageError, match="texts is one string"):
        kdnas.Client("http://127.0.0.1:1").classify("one")
    with pytest.raises(ServiceError, match="no answer"):
        kdnas.Client("http://127.0.0.1:1").classify(["one"])
    assert "secret" not in repr(kdnas.Client("http://127.0.0.1:1", key="secret"))


def answering(*answers: bytes) -> tuple[str, Callable[[], None]]:
    """Address of a server that gives these answers, one a connection, and a function that waits for its end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
        listener.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", thread.join


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_an_overloaded_service_is_asked_again() -> None:
    busy = http("429 Too Many Requests", b'{"error": "busy"}', "retry-after: 0", "connection: close")
    url, join = answering(busy, busy, http("200 OK", b'{"models": []}', "connection: close"))
    assert kdnas.Client(url).info() == {"models": []}
    join()


def test_a_lost_connection_is_opened_again_once() -> None:
    url, join = answering(b"", http("200 OK", b'{"models": []}', "connection: close"))
    assert kdnas.Client(url).info() == {"models": []}
    join()
    url, join = answering(b"", b"")
    with pytest.raises(ServiceError, match="no answer"):
        kdnas.Client(url).info()
    join()
