"""The processes of one service: each asks the others over a socket file, which no client reaches."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas.errors import KdnasError
from kdnas.serving.listener import Counts
from kdnas.serving.refusals import Kind, RefusalError

PROBE_SECONDS = 15.0  # in which a process must answer; the canary of /readyz takes at most 5


@dataclass(frozen=True)
class Group:
    """The processes of one service.

    Args:
        folder: folder of their socket files and metrics.
        number: number of this process, from 1.
        size: number of processes.
        counts: open connections of each.
    """

    folder: Path
    number: int
    size: int
    counts: Counts

    @property
    def numbers(self) -> range:
        """The numbers of all processes."""
        return range(1, self.size + 1)

    def socket_file(self, number: int) -> Path:
        """Where a process listens for the others."""
        return self.folder / f"{number}.sock"

    async def ask(self, number: int, method: str, path: str, seconds: float | None = None) -> Any:
        """The answer of one process, which may be this one.

        Raises:
            KdnasError: it does not answer, or it has failed.
            RefusalError: it is busy.
        """
        request = f"{method} {path} HTTP/1.1\r\nhost: kdnas\r\nconnection: close\r\n\r\n"
        try:
            async with asyncio.timeout(seconds or PROBE_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.socket_file(number))
                try:
                    writer.write(request.encode())
                    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                finally:
                    writer.close()
            status, answer = int(head.split()[1]), json.loads(body)
        except (OSError, IndexError, ValueError) as error:  # not there, too slow, or killed meanwhile
            raise KdnasError(f"process {number} does not answer") from error
        if status == Kind.OVERLOADED.value[0]:
            raise RefusalError(Kind.OVERLOADED, answer["problem"], {"Retry-After": "10"})
        if status != 200:
            raise KdnasError(f"process {number}: {answer['problem']}")
        return answer

    async def ask_all(self, path: str) -> list[Any]:
        """The answers of all processes to GET, as for `ask`."""
        return list(await asyncio.gather(*(self.ask(number, "GET", path) for number in self.numbers)))
