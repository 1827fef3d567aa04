"""The parent of several serving processes: starts them, replaces dead and frozen ones, passes signals on, ends with the last.

All processes accept connections from one listening socket. A connection that a dead process had not accepted is accepted by
another one.
"""

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kdnas.errors import KdnasError, Terminated, UsageError
from kdnas.serving.group import Group
from kdnas.serving.listener import NONE, Counts
from kdnas.serving.metrics import record_in_files
from kdnas.serving.options import ServeOptions
from kdnas.serving.server import url_of
from kdnas.store.host import cpus_of_all_cores
from kdnas.store.progress import say

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
STABLE_SECONDS = 60.0  # a process that lived longer is replaced at once
MOST_DELAY_SECONDS = 30.0
POLL_SECONDS = 0.1
GRACE_SECONDS = 10.0  # after drain and shutdown, in which a process must have ended


@dataclass
class Child:
    """One serving process.

    Args:
        number: its number in the group.
        pid: its process id; None while it does not run.
        started: time of its start.
        deaths: deaths in a row, each within `STABLE_SECONDS` of the start.
        due: time of its next start.
    """

    number: int
    pid: int | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0


class Supervisor:
    """The parent. It has one thread and opens no model, because it forks.

    Args:
        size: number of processes.
        sock: the listening socket.
        options: options of the service.
        answer: what a process does: answer requests until a signal; it returns the exit code.
    """

    def __init__(self, size: int, sock: socket.socket, options: ServeOptions, answer: Callable[[Group], int]) -> None:
        self._sock, self._answer, self._url = sock, answer, url_of(sock)
        self._children = [Child(number) for number in range(1, size + 1)]
        self._counts = Counts(size)
        self._stuck_seconds = options.stuck_seconds
        self._end_seconds = options.drain_seconds + options.shutdown_seconds + GRACE_SECONDS
        self._listening = False  # whether all processes were ready once
        self._kill_time: float | None = None  # set by the first signal to stop
        self._exit_code = 0

    def run(self) -> int:
        """Serve until a signal; returns the exit code: 0, or that of a process that cut off requests.

        Raises:
            UsageError, KdnasError: a process could not start, for example because a folder has no model.
        """
        try:
            temporary = tempfile.TemporaryDirectory(prefix="kdnas-serve-")
        except OSError as error:
            raise KdnasError(
                f"processes: no folder for temporary files ({error}); set TMPDIR to one that can be written"
            ) from error
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._lifeline = os.pipe()  # its writing end closes when this process ends, however it ends
        with temporary as folder:
            self._folder = Path(folder)
            try:
                while self._kill_time is None or self._running():
                    self._start_due()
                    self._handle(signal.sigtimedwait(SIGNALS, POLL_SECONDS))
                    self._kill_frozen()
                    self._reap()
                    self._announce()
            finally:
                self._kill(self._running())
                for end in self._lifeline:
                    os.close(end)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self._exit_code

    def _running(self) -> list[Child]:
        return [child for child in self._children if child.pid is not None]

    def _group(self, child: Child) -> Group:
        return Group(self._folder, child.number, len(self._children), self._counts)

    def _error_file(self, child: Child) -> Path:
        return self._folder / f"{child.number}.error"

    def _is_ready(self, child: Child) -> bool:
        """Whether a process has started to answer."""
        return child.pid is not None and self._group(child).socket_file(child.number).exists()

    def _announce(self) -> None:
        if not self._listening and all(map(self._is_ready, self._children)):
            self._listening = True
            say(f"serve: listening on {self._url} with {len(self._children)} processes; docs at /docs")

    def _handle(self, found: signal.struct_siginfo | None) -> None:
        """Pass a signal on: the end to all processes, a reload to one, which does it in all."""
        number = None if found is None else found.si_signo
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._kill_time is None:
                self._kill_time = time.monotonic() + self._end_seconds
                self._sock.close()  # it listens until the last process has closed it
            for child in self._running():
                _send(child, number)
        elif number == signal.SIGHUP:
            ready = [child for child in self._children if self._is_ready(child)]
            if ready:
                _send(ready[0], signal.SIGHUP)
            else:
                say("serve: no process is ready to reload; try again")
        if self._kill_time is not None and time.monotonic() > self._kill_time:
            self._kill(self._running())

    def _start_due(self) -> None:
        for child in self._children:
            if child.pid is None and self._kill_time is None and time.monotonic() >= child.due:
                self._group(child).socket_file(child.number).unlink(missing_ok=True)
                self._error_file(child).unlink(missing_ok=True)
                child.started = time.monotonic()
                child.pid = os.fork() or self._child(child)

    def _kill_frozen(self) -> None:
        """Kill processes that have long not been healthy: their event loop does not run, or a model is dead or stuck."""
        for child in self._running():
            seconds = self._counts.unhealthy_seconds(child.number)
            if self._kill_time is None and seconds > self._stuck_seconds:
                say(
                    f"serve: process {child.number} (pid {child.pid}) is frozen or stuck for {seconds:.0f} s: it is killed"
                )
                self._counts.set(child.number, NONE)
                _send(child, signal.SIGKILL)

    def _reap(self) -> None:
        for child in self._running():
            assert child.pid is not None
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.pid = None
                self._counts.set(child.number, NONE)
                self._ended(child, pid, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, pid: int, code: int) -> None:
        """Record the exit code during the end; else plan the next start, later after each early death."""
        if self._kill_time is not None:
            self._exit_code = max(self._exit_code, code if code >= 0 else 128 - code)
            return
        self._group(child).socket_file(child.number).unlink(missing_ok=True)
        file = self._error_file(child)
        known = file.read_text() if file.exists() else ""
        if not self._listening:
            reason = (
                known
                or f"process {child.number} ended with {_named(code)} before it could answer; see the messages above"
            )
            raise (UsageError if code == UsageError.exit_code else KdnasError)(reason)
        reason = known or f"it ended with {_named(code)}"
        now = time.monotonic()
        child.deaths = child.deaths + 1 if now - child.started < STABLE_SECONDS else 1
        delay = 0.0 if child.deaths == 1 else min(2.0 ** (child.deaths - 2), MOST_DELAY_SECONDS)
        child.due = now + delay
        often = f" {child.deaths} times in a row within {STABLE_SECONDS:g} s of its start" if child.deaths > 1 else ""
        when = f"in {delay:g} s; the others answer meanwhile" if delay else "now"
        say(f"serve: process {child.number} (pid {pid}) has died{often}: {reason}. It is replaced {when}")

    def _kill(self, children: list[Child]) -> None:
        """End processes at once and wait for them."""
        for child in children:
            _send(child, signal.SIGKILL)
        for child in children:
            assert child.pid is not None
            os.waitpid(child.pid, 0)
            child.pid = None
            self._exit_code = 128 + signal.SIGKILL

    def _child(self, child: Child) -> NoReturn:
        """The life of a serving process after the fork."""
        code = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on
            os.close(self._lifeline[1])
            threading.Thread(target=_end_with_parent, args=(self._lifeline[0],), daemon=True).start()
            _pin(child.number, len(self._children))
            record_in_files(self._folder, child.number)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            code = self._answer(self._group(child))
        except (KeyboardInterrupt, Terminated) as error:
            code = 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
        except BaseException as error:  # the parent reports it
            code = error.exit_code if isinstance(error, KdnasError) else 1
            self._error_file(child).write_text(str(error) or type(error).__name__)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # nothing of the parent's runs in this process


def _send(child: Child, number: int) -> None:
    assert child.pid is not None
    os.kill(child.pid, number)


def _named(code: int) -> str:
    return f"code {code}" if code >= 0 else signal.Signals(-code).name


def _end_with_parent(lifeline: int) -> None:
    """End this process as after SIGTERM when the parent's end of a pipe closes."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _pin(number: int, size: int) -> None:
    """Restrict this process to its group of cores; with more processes than cores, to one."""
    if hasattr(os, "sched_setaffinity"):
        cores = cpus_of_all_cores()
        first = (number - 1) * len(cores) // size
        group = cores[first : max(first + 1, number * len(cores) // size)]
        os.sched_setaffinity(0, {cpu for core in group for cpu in core})
