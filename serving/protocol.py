"""The HTTP protocol of the service: uvicorn's, with a limit on the time and size of a request's headers."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def protocol_class(max_header_bytes: int, receive_seconds: float) -> type[asyncio.Protocol]:
    """A protocol that closes connections whose headers are too large or too slow.

    Args:
        max_header_bytes: maximum size of a request's headers in bytes.
        receive_seconds: seconds in which they must arrive.
    """

    class LimitedProtocol(HttpToolsProtocol):
        """Counts the bytes and the time between the end of one request and the headers of the next."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self._header_bytes = 0
            self._timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            if self._waiting():
                # The rest of a refused body is discarded and does not count.
                self._header_bytes += 0 if self._discarding() else len(data)
                if self._timer is None:
                    self._start_timer()
            super().data_received(data)
            if self.cycle is not before or not self._waiting():
                self._header_bytes = 0
                self._stop_timer()
            elif self._header_bytes > max_header_bytes:
                self._close(TOO_LARGE)

        def _waiting(self) -> bool:
            """Whether the headers of a request have not arrived whole."""
            return self.cycle is None or self.cycle.response_complete

        def _discarding(self) -> bool:
            """Whether the latest request was answered before its body ended."""
            return self.cycle is not None and self.cycle.more_body

        def _start_timer(self) -> None:
            self._timer = self.loop.call_later(receive_seconds, self._close, SLOW)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _close(self, answer: bytes) -> None:
            if not self.transport.is_closing():
                if not self._discarding():
                    self.transport.write(answer)
                self.transport.close()

    return LimitedProtocol
