"""Every curl and Python example of the guide and the README, run as a reader would."""

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .serve_fixture import wait_until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "localhost:8000"


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each code block of a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a shell block, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return [
        shlex.join(shlex.split(line, comments=True)) if line.startswith("kdnas") else line for line in lines if line
    ]


class Reader:
    """Runs the blocks of a page in one folder; each `kdnas serve` takes the place of the one before.

    Args:
        folder: folder with the models of the page.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        self.ran: list[str] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def shell(self, command: str) -> None:
        if command.startswith("kdnas serve") and "--bench" not in command:  # --bench has a test of its own
            self.stop()
            self.serve(command)
        elif command.startswith("curl"):
            text = command.replace("curl -s", "curl -s --fail-with-body", 1).replace(ADDRESS, self.address)
            done = subprocess.run(["bash", "-c", text], cwd=self.folder, capture_output=True, text=True)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            assert json.loads(done.stdout)
            self.ran.append(command)
        elif command.startswith("openssl"):
            subprocess.run(["bash", "-c", command], cwd=self.folder, check=True)

    def serve(self, command: str) -> None:
        words = shlex.split(command)[1:]
        port = self.address.split(":")[1]
        program = [sys.executable, "-m", "kdnas.cli", *words, "--port", port]
        self.process = subprocess.Popen(program, cwd=self.folder, stdout=subprocess.DEVNULL, text=True)
        wait_until(self.ready)

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None
        try:
            return httpx.get(f"http://{self.address}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def python(self, code: str) -> None:
        assert self.process is not None
        done = subprocess.run(
            [sys.executable, "-c", code.replace(ADDRESS, self.address)], cwd=self.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, (code, done.stderr)
        self.ran.append(code)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(30) == 0
            self.process = None


@pytest.fixture
def reader(classifier: Path, encoder: Path, tagger: Path, tmp_path: Path) -> Iterator[Reader]:
    latest = tmp_path / "artifacts" / "latest"
    latest.mkdir(parents=True)
    for link, folder in (
        (latest / "classifier", classifier),
        (latest / "encoder", encoder),
        (latest.parent / "hap", classifier),
        (latest.parent / "ner", tagger),
    ):
        link.symlink_to(folder)
    found = Reader(tmp_path)
    yield found
    if found.process is not None:
        found.process.kill()
        found.process.wait()


@pytest.mark.parametrize(("page", "number"), [("docs/guides/serving.md", 7), ("README.md", 2)])
def test_the_examples_of_a_page_work(page: str, number: int, reader: Reader) -> None:
    pytest.importorskip("openai")
    for language, block in blocks(page):
        if language == "sh" and "kdnas serve" in block:
            for command in commands(block):
                reader.shell(command)
        elif language == "python" and ADDRESS in block:
            reader.python(block)
    reader.stop()
    assert len(reader.ran) == number, reader.ran
