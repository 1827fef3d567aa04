"""Messages and progress through `logging`. Commands show them on stderr, with progress bars on a terminal.

As a library kdnas prints nothing. To see its messages, set the level of the logger `kdnas` to INFO.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # loaded when it is used: a session, which shows nothing, starts sooner
    from rich.progress import Progress
    from rich.table import Table

LINE_SECONDS = 15.0
LOG = logging.getLogger("kdnas")
LOG.addHandler(logging.NullHandler())
_bars = False  # whether progress bars may be shown; commands switch them on


def is_first_process() -> bool:
    """Whether this is the only process, or the first one that a launcher started. The other processes are silent."""
    return os.environ.get("RANK", "0") == "0"


class _Stderr(logging.Handler):
    """Writes plain lines to the current `sys.stderr`."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def show_messages(bars: bool = True) -> None:
    """Show messages on stderr, and progress bars if it is a terminal, as commands do."""
    global _bars
    _bars = bars
    LOG.setLevel(logging.INFO)
    LOG.propagate = False  # libraries give the root logger a handler of their own: each message would be shown twice
    if not any(isinstance(handler, _Stderr) for handler in LOG.handlers):
        LOG.addHandler(_Stderr())


def say(message: str) -> None:
    """Log one message to the logger `kdnas`."""
    if is_first_process():
        LOG.info("%s", message)


def say_table(table: "Table", plain_width: int | None = None) -> None:
    """Log a table as one message.

    Args:
        table: the table.
        plain_width: width in columns if stderr is not a terminal.
    """
    from rich.console import Console

    console = Console(file=StringIO(), width=Console(stderr=True).width)
    if plain_width is not None and not sys.stderr.isatty():
        console.width = plain_width
    with console.capture() as text:
        console.print(table, highlight=False)
    say(text.get().rstrip("\n"))


def clock(seconds: float) -> str:
    """A duration, as in `3:07` or `1:03:07`."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Meter:
    """Progress of a stage. The time left is the time of the work done in this run, scaled to the remaining work."""

    def __init__(self, title: str, total: float | None, done: float = 0.0) -> None:
        self.title, self.total, self.done, self.note = title, total, done, ""
        self._first = done
        self._start = time.monotonic()

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end; None before this run has done any work, or if the total is unknown."""
        worked = self.done - self._first
        if worked <= 0 or self.total is None:
            return None
        return max(0.0, (self.total - self.done) * (time.monotonic() - self._start) / worked)

    def text(self) -> str:
        """Percentage done, time spent, time left and the latest note."""
        spent = clock(time.monotonic() - self._start)
        if self.total is None:
            return f"{self.done:,.0f}  {spent} spent  {self.note}".rstrip()
        left = self.seconds_left
        percent = 100 * self.done / self.total if self.total else 100.0
        return f"{percent:3.0f} %  {spent} spent, {'?' if left is None else clock(left)} left  {self.note}".rstrip()


class Stage:
    """Handle to which a stage reports its progress."""

    def __init__(self, meter: Meter, bar: "Progress | None") -> None:
        self._meter, self._bar, self._last_line = meter, bar, time.monotonic()
        self._task = bar.add_task(meter.title, total=meter.total, text="") if bar else None

    def update(self, done: float, note: str = "") -> None:
        """Set the amount of work done, in the units of `total`, and a short note such as the loss."""
        self._meter.done = done
        self._meter.note = note or self._meter.note
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, text=self._meter.text())
        elif (
            done != self._meter.total and time.monotonic() - self._last_line >= LINE_SECONDS
        ):  # the end has its own line
            self._last_line = time.monotonic()
            say(f"{self._meter.title}: {self._meter.text()}")

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Add to the amount of work done."""
        self.update(self._meter.done + amount, note)


@contextmanager
def stage(title: str, total: float | None, done: float = 0.0) -> Iterator[Stage]:
    """Show progress of one stage.

    Args:
        title: short name, such as `search`.
        total: amount of work in any unit (steps, tokens, seconds); None if it is unknown before the end.
        done: amount of work of an earlier, interrupted run; it does not count towards the speed of this run.
    """
    meter = Meter(title, total, done)
    if _bars and sys.stderr.isatty() and is_first_process():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description:<14}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        with Progress(*columns, console=Console(stderr=True)) as bar:
            yield Stage(meter, bar)
    else:
        say(f"{title}: started" + (f" at {100 * done / total:.0f} %" if done and total else ""))
        yield Stage(meter, None)
        say(f"{title}: {meter.text()}")
