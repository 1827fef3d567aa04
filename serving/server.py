"""One serving process: uvicorn that reports its address, reloads, drains and records whether it cut off requests."""

import asyncio
import logging
import signal
import socket
import threading
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kdnas.serving.app import create_app
from kdnas.serving.group import Group
from kdnas.serving.listener import BACKLOG, Counts, Listener
from kdnas.serving.processes import private_app, reload_all
from kdnas.serving.protocol import protocol_class
from kdnas.serving.service import Service
from kdnas.store.progress import say

LINGER_SECONDS = 0.1  # in which requests on accepted connections are read after the service stopped listening


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
        self.service, self.url = service, url_of(sock)
        self._listener: Listener | None = None
        self._signal = 0
        self._cut = False

    @property
    def exit_code(self) -> int:
        """0 after a clean end, 128 + the signal's number if requests were cut off."""
        return 128 + self._signal if self._cut else 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening and report the address; in a group, first wait until the models are warm."""
        assert sockets is not None
        [sock], group = sockets, self.service.group
        await super().startup([])
        if group is None:
            sock.listen(BACKLOG)
        else:
            await self._listen_in_group(group)
        protocol: Any = self.config.http_protocol_class
        public = partial(protocol, self.config, self.server_state, self.lifespan.state)
        counts, number = (Counts(1), 1) if group is None else (group.counts, group.number)
        self._listener = Listener(sock, public, lambda: len(self.server_state.connections), counts, number)
        listeners: list[Any] = self.servers
        listeners.insert(0, self._listener)
        served = "; ".join(
            f"{model.name}, {model.session.form}, {model.session.threads} threads"
            for model in self.service.models.values()
        )
        if group is None:
            say(f"serve: listening on {self.url} ({served}); docs at /docs")
        else:
            say(f"serve: process {group.number} is ready ({served})")

    async def _listen_in_group(self, group: Group) -> None:
        """Answer the other processes on a socket file, which is there from now on."""
        config = uvicorn.Config(
            private_app(self.service),
            http="httptools",
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
        )
        config.load()
        private = partial(HttpToolsProtocol, config, self.server_state, {})
        file = group.socket_file(group.number)
        self.servers = [await asyncio.get_running_loop().create_unix_server(private, file)]

    async def on_tick(self, counter: int) -> bool:
        """State the open connections and that this process is healthy, besides what uvicorn does ten times a second."""
        if self._listener is not None:
            self._listener.publish(healthy=not self.service.dead())
        return await super().on_tick(counter)

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
            say(f"serve: reloaded {', '.join(asyncio.run(reload_all(self.service)))}")
        except Exception as error:
            say(f"serve: the old models stay: {error}")

    def _stop(self) -> None:
        self.should_exit = True


def url_of(sock: socket.socket) -> str:
    """The address of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
