"""Messages and progress, through `logging`; a command shows them on stderr, with bars on a terminal.

As a library kdnas prints nothing: whoever wants its messages sets the level of the logger `kdnas` to INFO.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

LINE_SECONDS = 15.0
LOG = logging.getLogger("kdnas")
LOG.addHandler(logging.NullHandler())
_bars = False  # whether progress bars may be shown; commands switch them on


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that a launcher started: the others are silent."""
    return os.environ.get("RANK", "0") == "0"


class _Stderr(logging.Handler):
    """Plain lines on what `sys.stderr` is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def show_messages(bars: bool = True) -> None:
    """Show messages on stderr, and progress bars where that is a terminal, as commands do."""
    global _bars
    _bars = bars
    LOG.setLevel(logging.INFO)
    if not any(isinstance(handler, _Stderr) for handler in LOG.handlers):
        LOG.addHandler(_Stderr())


def say(message: str) -> None:
    """One message of the logger `kdnas`."""
    if is_first_process():
        LOG.info("%s", message)


def say_table(table: Table, plain_width: int | None = None) -> None:
    """A table as one message.

    Args:
        table: what to show.
        plain_width: columns where stderr is not a terminal.
    """
    console = Console(file=StringIO(), width=Console(stderr=True).width)
    if plain_width is not None and not sys.stderr.isatty():
        console.width = plain_width
    with console.capture() as text:
        console.print(table, highlight=False)
    say(text.get().rstrip("\n"))


def clock(seconds: float) -> str:
    """As in `3:07` or `1:03:07`."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Meter:
    """Where a stage stands. The time left is what the work done in this run took, scaled to what remains."""

    def __init__(self, title: str, total: float | None, done: float = 0.0) -> None:
        self.title, self.total, self.done, self.note = title, total, done, ""
        self._first = done
        self._start = time.monotonic()

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end; None before anything was done in this run, and where it is not known how much there is."""
        worked = self.done - self._first
        if worked <= 0 or self.total is None:
            return None
        return max(0.0, (self.total - self.done) * (time.monotonic() - self._start) / worked)

    def text(self) -> str:
        """Share done, time spent, time left and the latest note."""
        spent = clock(time.monotonic() - self._start)
        if self.total is None:
            return f"{self.done:,.0f}  {spent} spent  {self.note}".rstrip()
        left = self.seconds_left
        fraction = 100 * self.done / self.total if self.total else 100.0
        return f"{fraction:3.0f} %  {spent} spent, {'?' if left is None else clock(left)} left  {self.note}".rstrip()


class Stage:
    """Handle that a stage reports to."""

    def __init__(self, meter: Meter, bar: Progress | None) -> None:
        self._meter, self._bar, self._last_line = meter, bar, time.monotonic()
        self._task = bar.add_task(meter.title, total=meter.total, text="") if bar else None

    def update(self, done: float, note: str = "") -> None:
        """Set how much is done, in the units of `total`, and a short note such as the loss."""
        self._meter.done = done
        self._meter.note = note or self._meter.note
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, text=self._meter.text())
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            say(f"{self._meter.title}: {self._meter.text()}")

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Add to what is done."""
        self.update(self._meter.done + amount, note)


@contextmanager
def stage(title: str, total: float | None, done: float = 0.0) -> Iterator[Stage]:
    """Show progress of one stage.

    Args:
        title: short name, as in `search`.
        total: amount of work in any unit (steps, tokens, seconds); None where it is not known before the end.
        done: what an earlier, interrupted run had finished; it does not count towards the speed of this one.
    """
    meter = Meter(title, total, done)
    if _bars and sys.stderr.isatty() and is_first_process():
        columns = (TextColumn("{task.description:<14}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        with Progress(*columns, console=Console(stderr=True)) as bar:
            yield Stage(meter, bar)
    else:
        say(f"{title}: started" + (f" at {100 * done / total:.0f} %" if done and total else ""))
        yield Stage(meter, None)
        say(f"{title}: {meter.text()}")
