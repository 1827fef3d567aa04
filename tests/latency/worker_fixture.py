"""A worker without a process, for the tests of what asks one."""

from typing import Any, Self


class PretendedWorker:
    """What a worker's process does apart from answering, which each test's own kind does in `ask`."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.setup = setup

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def start(self) -> None:
        return
