"""`kdnas serve`: the HTTP service as a process, from the socket to the end of the last request."""

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

    The first signal lets the requests in flight finish: then the exit code is 0. A second one, or requests that last
    longer than `shutdown_seconds`, cuts them off: then it is 143 or 130.

    Args:
        model: folder that `kdnas export` wrote.
        form: one of the forms in it, as in `openvino-int8`; by default the fastest.
        host: address to listen on; 0.0.0.0 for all of this machine's.
        port: port to listen on; 0 takes a free one.
        threads: threads of the model; by default those with which the export measured it to be fastest, at most 4.
        options: limits and batching.
        verify: compare the model's files with the hashes in its manifest first; `--no-verify` leaves that out.
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
        # The model may still run what was cut off, in a thread that cannot be stopped: a normal end would abort there.
        sys.stderr.flush()
        os._exit(server.exit_code)
    return Outcome(None)


class Server(uvicorn.Server):
    """uvicorn that says where it listens, drains before it closes, and knows whether it cut requests off."""

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
        """0 after a clean end, 128 + the signal where requests were cut off."""
        return 128 + self._signal if self._cut else 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening and say so."""
        await super().startup(sockets)
        host, port = self._sock.getsockname()[:2]
        session = self._service.predictor.session
        say(
            f"serve: listening on http://{f'[{host}]' if ':' in host else host}:{port} "
            f"({self._service.predictor.name}, {session.form}, {session.threads} threads); docs at /docs"
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the requests in flight, at most `shutdown_seconds`."""
        say(f"serve: shutting down, {self._service.in_flight} requests in flight")
        await super().shutdown(sockets)
        self._cut = self._service.in_flight + self._service.cut > 0
        say("serve: stopped" + (", requests were cut off" if self._cut else ""))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain and stop; second: stop at once. Not raised again afterwards: a drained end is a success."""
        if self._signal:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut off now is meant to be
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
        KdnasError: the port is taken, or not ours to take.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port is {port}; allowed are 0 (any free one) to 65535")
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
        f"cannot listen on {host}:{port} ({error.strerror}); stop what listens there, or give another --port "
        "(0 takes a free one) or --host"
    )
