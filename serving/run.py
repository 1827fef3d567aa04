"""`kdnas serve`: the process of the HTTP service."""

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType

import uvicorn

from kdnas.errors import KdnasError, UsageError
from kdnas.serving.app import ServeOptions, Service, create_app
from kdnas.serving.predictor import Predictor
from kdnas.store.outcome import Outcome
from kdnas.store.progress import say


def serve(
    model: Path,
    form: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int | None = None,
    options: ServeOptions = ServeOptions(),
    verify: bool = True,
) -> Outcome:
    """Answer HTTP requests with an exported model until SIGTERM or Ctrl-C.

    After the first signal, requests in flight may finish, and the exit code is 0. A second signal, or the end of
    `shutdown_seconds`, cuts them off; the exit code is then 143 (SIGTERM) or 130 (Ctrl-C).

    Args:
        model: folder that `kdnas export` wrote.
        form: form of the model to run, for example `openvino-int8`; by default the fastest.
        host: address to listen on; 0.0.0.0 for all addresses of this machine.
        port: port to listen on; 0 chooses a free one.
        threads: number of threads of the model; by default the number that was fastest when the model was exported, at most 4.
        options: limits and batching of the service.
        verify: check the model's files against the hashes in its manifest first.
    """
    sock = bind(host, port)
    with sock:
        service = Service(Predictor(model, form, threads, verify), options)
        server = Server(service, sock)
        try:
            server.run(sockets=[sock])
        except OSError as error:  # the port was taken between the bind and the listening
            raise _bind_error(host, port, error) from error
    if server.exit_code:
        # The model's thread may still run and cannot be stopped: a normal exit would abort in it.
        sys.stderr.flush()
        os._exit(server.exit_code)
    return Outcome(None)


class Server(uvicorn.Server):
    """uvicorn that reports its address, drains before it closes, and records whether it cut off requests."""

    def __init__(self, service: Service, sock: socket.socket) -> None:
        config = uvicorn.Config(
            create_app(service),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=service.options.shutdown_seconds,
        )
        super().__init__(config)
        self._service, self._sock = service, sock
        self._signal = 0
        self._cut = False

    @property
    def exit_code(self) -> int:
        """0 after a clean end, 128 + the signal's number if requests were cut off."""
        return 128 + self._signal if self._cut else 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening and report the address."""
        await super().startup(sockets)
        host, port = self._sock.getsockname()[:2]
        session = self._service.predictor.session
        say(
            f"serve: listening on http://{f'[{host}]' if ':' in host else host}:{port} "
            f"({self._service.predictor.name}, {session.form}, {session.threads} threads); docs at /docs"
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait at most `shutdown_seconds` for the requests in flight."""
        say(f"serve: shutting down, {self._service.in_flight} requests in flight")
        await super().shutdown(sockets)
        self._cut = self._service.in_flight + self._service.cut > 0
        say("serve: stopped" + (", requests were cut off" if self._cut else ""))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain and stop; second: stop at once. The signal is not re-raised: a drained service exits with 0."""
        if self._signal:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # these requests are cut off on purpose
            self.should_exit = self.force_exit = True
            return
        self._signal = sig
        self._service.draining = True
        wait = self._service.options.drain_seconds if sig == signal.SIGTERM else 0
        timer = threading.Timer(wait, self._stop)
        timer.daemon = True
        timer.start()

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
