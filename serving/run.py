"""`kdnas serve`: the process of the HTTP service."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

from kdnas.errors import KdnasError, UsageError
from kdnas.serving.bench import measure, read_texts
from kdnas.serving.group import Group
from kdnas.serving.keys import Keys, require_keys
from kdnas.serving.listener import BACKLOG
from kdnas.serving.model import Model
from kdnas.serving.options import ServeOptions
from kdnas.serving.server import Server
from kdnas.serving.service import Service
from kdnas.serving.supervisor import Supervisor
from kdnas.store.outcome import Outcome


def serve(
    model: tuple[str, ...],
    form: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int | None = None,
    processes: int = 1,
    options: ServeOptions = ServeOptions(),
    verify: bool = True,
    bench: Path | None = None,
) -> Outcome:
    """Answer HTTP requests with exported models until SIGTERM or Ctrl-C; SIGHUP reloads the models and the keys.

    After the first signal, requests in flight may finish, and the exit code is 0. A second signal, or the end of
    `shutdown_seconds`, cuts them off; the exit code is then 143 (SIGTERM) or 130 (Ctrl-C).

    Args:
        model: folders that `kdnas export` wrote, as FOLDER or NAME=FOLDER; without a name, a model has its folder's. Requests
            choose a model by its name; the first one that fits is the default. May be given several times.
        form: form of the models to run, for example `openvino-int8`; by default the fastest.
        host: address to listen on; 0.0.0.0 for all addresses of this machine, which needs `key_file` or `anonymous`.
        port: port to listen on; 0 chooses a free one.
        threads: number of threads of a model, divided among the processes; by default the number that was fastest when it was
            exported, at most 4 and the cores of a process.
        processes: number of processes that answer on the same port, each with its own models, queue and group of cores.
        options: limits, batching and operation of the service.
        verify: compare the files that each model's form needs with the hashes in its manifest first.
        bench: file of texts, one a line or `.jsonl` with the field `text`: instead of serving, measure latency and throughput of
            the first model with these texts and 1 to 32 clients, print them and end.
    """
    if processes < 1:
        raise UsageError(f"processes is {processes}; at least 1 is needed")
    if bench is not None and processes > 1:
        raise UsageError(f"processes is {processes}; bench measures one process: leave one of them out")
    texts = None if bench is None else read_texts(bench)
    folders = named_folders(model)
    sock = bind(host, port if bench is None else 0)

    def opened(group: Group | None = None) -> Server:
        each = threads_each(threads, processes)
        models = [Model(name, folder, form, each, verify, options.streams) for name, folder in folders.items()]
        return Server(Service(models, options, group), sock)

    with sock:
        require_keys(sock.getsockname()[0], Keys(options.key_file), options.anonymous)
        if texts is not None:
            return _measured(opened(), sock, texts)
        if processes > 1:
            _listen(sock)
            exit_code = Supervisor(processes, sock, options, lambda group: _answer(opened(group), sock)).run()
        else:
            exit_code = _answer(opened(), sock)
    if exit_code:
        # A model's thread may still run and cannot be stopped: a normal exit would abort in it.
        sys.stderr.flush()
        os._exit(exit_code)
    return Outcome(None)


def threads_each(threads: int | None, processes: int) -> int | None:
    """Threads of a model in one of several processes, at least one; None, the default, depends on the cores of the process."""
    return threads if threads is None or processes == 1 else max(1, threads // processes)


def _answer(server: Server, sock: socket.socket) -> int:
    """Answer requests until a signal; returns the exit code."""
    signal.signal(signal.SIGHUP, server.handle_reload)
    address = sock.getsockname()
    try:
        server.run(sockets=[sock])
    except OSError as error:  # the port was taken between the bind and the listening
        raise _bind_error(address[0], address[1], error) from error
    return server.exit_code


def _listen(sock: socket.socket) -> None:
    """Let connections wait until a process accepts them."""
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        host, port = sock.getsockname()[:2]
        raise _bind_error(host, port, error) from error


def _measured(server: Server, sock: socket.socket, texts: list[str]) -> Outcome:
    """Serve in a thread while the clients of the measurement run in other processes."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="kdnas-serve", daemon=True)
    thread.start()
    service = server.service
    while not service.warmed.wait(0.1):
        if not thread.is_alive():
            raise KdnasError("the service could not start; see the messages above")
    try:
        key = service.keys.first()
        return measure(server.url, next(iter(service.models.values())), texts, key)
    finally:
        server.should_exit = True
        thread.join(10)


def named_folders(given: tuple[str, ...]) -> dict[str, Path]:
    """Folders by their names, from FOLDER or NAME=FOLDER.

    Raises:
        UsageError: a name is empty, has a slash, or is given twice.
    """
    found: dict[str, Path] = {}
    for word in given:
        before, equals, after = word.partition("=")
        named = bool(equals) and "/" not in before
        folder = Path(after if named else word)
        name = before if named else folder.resolve().name
        if not name or not str(folder):
            raise UsageError(f"model '{word}': give FOLDER or NAME=FOLDER")
        if name in found:
            raise UsageError(f"model '{word}': the name '{name}' is given twice; give another: NAME={folder}")
        found[name] = folder
    if not found:
        raise UsageError("no model; give FOLDER or NAME=FOLDER")
    return found


def bind(host: str, port: int) -> socket.socket:
    """A bound socket, not yet listening.

    Raises:
        UsageError: no such address, or a port out of range.
        KdnasError: the port is in use or not permitted.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port is {port}; allowed are 0 (any free port) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(
            f"host '{host}': no such address; give 127.0.0.1, 0.0.0.0 or a name of this machine"
        ) from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _bind_error(host, port, error) from error
    return sock


def _bind_error(host: str, port: int, error: OSError) -> KdnasError:
    return KdnasError(
        f"cannot listen on {host}:{port} ({error.strerror}); stop the process that uses it, or give another --port "
        "(0 chooses a free one) or --host"
    )
