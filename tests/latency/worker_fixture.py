"""A worker without a process, for the tests of its callers."""

from typing import Any, Self


class MockWorker:
    """The operations of a worker process except answering, which each test implements in `ask`."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.setup = setup

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def start(self) -> None:
        return
