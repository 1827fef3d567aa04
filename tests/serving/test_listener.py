"""Connections of a listening socket that processes share."""

import asyncio
import socket
import sys

import pytest

from kdnas.serving.listener import NONE, Counts, Listener, refuse_new


def test_the_fewest_connections_of_the_processes_that_accept() -> None:
    counts = Counts(3)
    assert counts.is_fewest(1, 5)  # no other process accepts
    counts.set(2, 3)
    counts.set(1, 0)  # its own number does not matter
    assert counts.is_fewest(1, 3)
    assert not counts.is_fewest(1, 4)
    counts.set(3, 0)
    assert not counts.is_fewest(1, 3)
    counts.set(2, NONE)
    counts.set(3, NONE)
    assert counts.is_fewest(1, 4)
    assert not counts.is_none
    counts.set(1, NONE)
    assert counts.is_none


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has packet filters of sockets")
def test_a_socket_that_refuses_new_connections_keeps_those_that_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        with socket.create_connection(sock.getsockname(), 5) as waiting:
            refuse_new(sock)
            with pytest.raises(TimeoutError):
                socket.create_connection(sock.getsockname(), 0.2)
            waiting.sendall(b"hello")
            with sock.accept()[0] as accepted:
                assert accepted.recv(5) == b"hello"
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.accept()


def test_only_a_process_that_accepts_connections_can_be_unhealthy() -> None:
    counts = Counts(2)
    assert counts.unhealthy_seconds(2) == 0
    counts.set(2, 0)
    assert counts.unhealthy_seconds(2) > 0
    counts.set_healthy(2)
    assert counts.unhealthy_seconds(2) < 5
    counts.set(2, NONE)
    assert counts.unhealthy_seconds(2) == 0


def test_a_connection_that_no_other_process_takes_is_accepted_until_the_end() -> None:
    async def main() -> None:
        counts, made = Counts(2), []
        counts.set(2, 0)  # has fewer, but is stopped
        sock = socket.create_server(("127.0.0.1", 0))
        address = sock.getsockname()

        class Greeting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(transport)
                assert isinstance(transport, asyncio.Transport)
                transport.write(b"hello")

        listener = Listener(sock, Greeting, lambda: 7 + len(made), counts, 1)
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*address)
            assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
            writer.close()
        assert len(made) == 3
        assert not counts.is_fewest(2, 11)
        assert counts.is_fewest(2, 10)
        waiting = [socket.create_connection(address, 20) for _ in range(3)]  # the event loop has not accepted them
        listener.close()
        listener.close()
        for connection in waiting:
            assert await asyncio.to_thread(connection.recv, 5) == b"hello"
            connection.close()
        await listener.wait_closed()
        assert counts.is_fewest(2, 99)
        try:
            await asyncio.open_connection(*address)
        except ConnectionRefusedError:
            return
        raise AssertionError("the socket still listens")

    asyncio.run(asyncio.wait_for(main(), 30))
