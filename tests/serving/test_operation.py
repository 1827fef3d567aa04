"""Keys, reloads, the end by a signal, the access log, and options of the whole service."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .serve_fixture import Clients, post, serving, wait_until

pytestmark = pytest.mark.slow
FORM = "onnxruntime-f32"
KEY = "0123456789abcdef0123456789abcdef"


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
