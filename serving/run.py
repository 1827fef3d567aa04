"""`kdnas serve`: the process of the HTTP service."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from kdnas.errors import KdnasError, UsageError
from kdnas.serving.app import create_app
from kdnas.serving.bench import measure, read_texts
from kdnas.serving.keys import require_keys
from kdnas.serving.model import Model
from kdnas.serving.options import ServeOptions
from kdnas.serving.protocol import protocol_class
from kdnas.serving.service import Service
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say

LINGER_SECONDS = 0.1  # in which requests on accepted connections are read after the service stopped listening


def serve(
    model: tuple[str, ...],
    form: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int | None = None,
    options: ServeOptions = ServeOptions(),
    verify: bool = True,
    bench: Path | None = None,
) -> Outcome:
    """Answer HTTP requests with exported models until SIGTERM or Ctrl-C; SIGHUP reloads the models and the keys.

    After the first signal, requests in flight may finish, and the exit code is 0. A second signal, or the end of
    `shutdown_seconds`, cuts them off; the exit code is then 143 (SIGTERM) or 130 (Ctrl-C).

    Args:
        model: folders that `kdnas export` wrote, as FOLDER or NAME=FOLDER; without a name, a model has its folder's. Requests
            choose a model by its name; the first one that fits is the default. May be given several times.
        form: form of the models to run, for example `openvino-int8`; by default the fastest.
        host: address to listen on; 0.0.0.0 for all addresses of this machine, which needs `key_file` or `anonymous`.
        port: port to listen on; 0 chooses a free one.
        threads: number of threads of a model; by default the number that was fastest when it was exported, at most 4.
        options: limits, batching and operation of the service.
        verify: check the models' files against the hashes in their manifests first.
        bench: file of texts, one a line or `.jsonl` with the field `text`: instead of serving, measure latency and throughput of
            the first model with these texts and 1 to 32 clients, print them and end.
    """
    texts = None if bench is None else read_texts(bench)
    sock = bind(host, port if bench is None else 0)
    with sock:
        models = [
            Model(name, folder, form, threads, verify, options.streams) for name, folder in named_folders(model).items()
        ]
        service = Service(models, options)
        require_keys(sock.getsockname()[0], service.keys, options.anonymous)
        server = Server(service, sock)
        if texts is not None:
            return _measured(server, sock, texts)
        signal.signal(signal.SIGHUP, server.handle_reload)
        try:
            server.run(sockets=[sock])
        except OSError as error:  # the port was taken between the bind and the listening
            raise _bind_error(host, port, error) from error
    if server.exit_code:
        # A model's thread may still run and cannot be stopped: a normal exit would abort in it.
        sys.stderr.flush()
        os._exit(server.exit_code)
    return Outcome(None)


def _measured(server: "Server", sock: socket.socket, texts: list[str]) -> Outcome:
    """Serve in a thread while the clients of the measurement run in other processes."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="kdnas-serve", daemon=True)
    thread.start()
    service = server.service
    while not service.warmed.wait(0.1):
        if not thread.is_alive():
            raise KdnasError("the service could not start; see the messages above")
    try:
        key = service.keys.first()
        return measure(server.url, next(iter(service.models.values())), texts, key)
    finally:
        server.should_exit = True
        thread.join(10)


def named_folders(given: tuple[str, ...]) -> dict[str, Path]:
    """Folders by their names, from FOLDER or NAME=FOLDER.

    Raises:
        UsageError: a name is empty, has a slash, or is given twice.
    """
    found: dict[str, Path] = {}
    for word in given:
        before, equals, after = word.partition("=")
        named = bool(equals) and "/" not in before
        folder = Path(after if named else word)
        name = before if named else folder.resolve().name
        if not name or not str(folder):
            raise UsageError(f"model '{word}': give FOLDER or NAME=FOLDER")
        if name in found:
            raise UsageError(f"model '{word}': the name '{name}' is given twice; give another: NAME={folder}")
        found[name] = folder
    if not found:
        raise UsageError("no model; give FOLDER or NAME=FOLDER")
    return found


class Server(uvicorn.Server):
    """uvicorn that reports its address, drains before it closes, and records whether it cut off requests."""

    def __init__(self, service: Service, sock: socket.socket) -> None:
        options = service.options
        config = uvicorn.Config(
            create_app(service),
            http=protocol_class(options.max_header_bytes, options.receive_seconds),
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=options.shutdown_seconds,
        )
        super().__init__(config)
        self.service, self._sock = service, sock
        self._signal = 0
        self._cut = False

    @property
    def url(self) -> str:
        """The address on which the service listens."""
        host, port = self._sock.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def exit_code(self) -> int:
        """0 after a clean end, 128 + the signal's number if requests were cut off."""
        return 128 + self._signal if self._cut else 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening and report the address."""
        await super().startup(sockets)
        served = "; ".join(
            f"{model.name}, {model.session.form}, {model.session.threads} threads"
            for model in self.service.models.values()
        )
        say(f"serve: listening on {self.url} ({served}); docs at /docs")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait at most `shutdown_seconds` for the requests in flight."""
        say(f"serve: shutting down, {self.service.in_flight} requests in flight")
        for server in self.servers:
            server.close()
        await asyncio.sleep(LINGER_SECONDS)  # their answers have `Connection: close`
        await super().shutdown(sockets)
        self._cut = self.service.in_flight + self.service.cut > 0
        say("serve: stopped" + (", requests were cut off" if self._cut else ""))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain and stop; second: stop at once. The signal is not re-raised: a drained service exits with 0."""
        if self._signal:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # these requests are cut off on purpose
            self.should_exit = self.force_exit = True
            return
        self._signal = sig
        self.service.draining = True
        wait = self.service.options.drain_seconds if sig == signal.SIGTERM else 0
        timer = threading.Timer(wait, self._stop)
        timer.daemon = True
        timer.start()

    def handle_reload(self, _sig: int, _frame: Any) -> None:
        """Reload the models and keys in a thread."""
        threading.Thread(target=self._reload, name="kdnas-reload", daemon=True).start()

    def _reload(self) -> None:
        try:
            say(f"serve: reloaded {', '.join(self.service.reload())}")
        except Exception as error:
            say(f"serve: the old models stay: {error}")

    def _stop(self) -> None:
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A bound socket, not yet listening.

    Raises:
        UsageError: no such address, or a port out of range.
        KdnasError: the port is in use or not permitted.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port is {port}; allowed are 0 (any free port) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(
            f"host '{host}': no such address; give 127.0.0.1, 0.0.0.0 or a name of this machine"
        ) from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _bind_error(host, port, error) from error
    return sock


def _bind_error(host: str, port: int, error: OSError) -> KdnasError:
    return KdnasError(
        f"cannot listen on {host}:{port} ({error.strerror}); stop the process that uses it, or give another --port "
        "(0 chooses a free one) or --host"
    )
