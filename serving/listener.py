"""Accepting connections from a listening socket, which several processes may share, so that each gets about as many.

A process that is woken by a new connection leaves it to a process with fewer open ones, but takes it after a short while: the
other process may be stopped.
"""

import asyncio
import ctypes
import mmap
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

BACKLOG = 2048  # connections that wait to be accepted
YIELD_SECONDS = 0.002
PAUSE_SECONDS = 1.0  # after an error such as too many open files
SO_ATTACH_FILTER = 26  # of Linux; missing in the module socket
NONE = -1  # the process does not accept connections


class Counts:
    """Numbers of open connections of each process and when each was last healthy, in memory that processes share after a fork.

    Args:
        size: number of processes.
    """

    def __init__(self, size: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * size)).cast("i")
        self._healthy = memoryview(mmap.mmap(-1, 8 * size)).cast("d")
        for number in range(1, size + 1):
            self.set(number, NONE)

    def set(self, number: int, count: int) -> None:
        """State the number of open connections of a process, or `NONE`; processes are numbered from 1."""
        self._counts[number - 1] = count

    def set_healthy(self, number: int) -> None:
        """State that a process is healthy now."""
        self._healthy[number - 1] = time.monotonic()

    def unhealthy_seconds(self, number: int) -> float:
        """Seconds since a process was healthy; 0 if it does not accept connections."""
        return 0.0 if self._counts[number - 1] == NONE else time.monotonic() - self._healthy[number - 1]

    @property
    def is_none(self) -> bool:
        """Whether no process accepts connections."""
        return all(count == NONE for count in self._counts)

    def is_fewest(self, number: int, count: int) -> bool:
        """Whether no other process has fewer than `count` connections."""
        others = [found for at, found in enumerate(self._counts, 1) if at != number and found != NONE]
        return count <= min(others, default=count)


def refuse_new(sock: socket.socket) -> None:
    """Let a listening socket ignore clients that connect from now on; those that wait in its queue stay.

    Raises:
        OSError: the system has no packet filters of sockets, as Linux has.
    """
    # struct sock_filter: load the byte of the TCP header with the flags; if SYN is set, drop the packet, else keep it.
    code = struct.pack("HBBI" * 4, 0x30, 0, 0, 13, 0x45, 0, 1, 0x02, 0x06, 0, 0, 0, 0x06, 0, 0, 0xFFFFFFFF)
    program = ctypes.create_string_buffer(code)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 4, ctypes.addressof(program)))


class Listener:
    """Accepts connections in an event loop; has the methods of `asyncio.Server` that uvicorn calls.

    Args:
        sock: the listening socket.
        protocol: makes the protocol of a connection.
        open_connections: number of open connections of this process.
        counts: numbers of all processes.
        number: number of this process.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        open_connections: Callable[[], int],
        counts: Counts,
        number: int,
    ) -> None:
        self._sock, self._protocol, self._open = sock, protocol, open_connections
        self._counts, self._number = counts, number
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self.publish(healthy=True)
        self._watch()

    def publish(self, healthy: bool = False) -> None:
        """Tell the other processes how many connections are open here, and, if it is so, that this process is healthy."""
        if self._sock.fileno() >= 0:
            self._counts.set(self._number, self._open() + len(self._starting))
            if healthy:
                self._counts.set_healthy(self._number)

    def close(self) -> None:
        """Accept the connections that wait, and no more; may be called again."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock)
        if self._timer is not None:
            self._timer.cancel()
        self._counts.set(self._number, NONE)
        if self._counts.is_none:
            with suppress(OSError):  # not Linux
                refuse_new(self._sock)
        with suppress(OSError):  # none is left
            while True:
                self._take(self._sock.accept()[0])
        self._sock.close()

    async def wait_closed(self) -> None:
        """Wait until accepted connections have their protocols."""
        await asyncio.gather(*self._starting, return_exceptions=True)

    def _watch(self) -> None:
        self._loop.add_reader(self._sock, self._woken)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._loop.remove_reader(self._sock)
        self._timer = self._loop.call_later(seconds, call)

    def _woken(self) -> None:
        if self._counts.is_fewest(self._number, self._open() + len(self._starting)):
            self._accept()
        else:
            self._later(YIELD_SECONDS, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except BlockingIOError:  # another process was faster
            self._watch()
        except OSError:
            self._later(PAUSE_SECONDS, self._watch)
        else:
            self._take(connection)
            self.publish()
            self._watch()

    def _take(self, connection: socket.socket) -> None:
        """Give a connection its protocol."""
        connection.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._protocol, connection)
        )
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
