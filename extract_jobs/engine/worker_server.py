"""The program that forks worker processes: it imports what they need once.

``python -m extract_jobs.engine.worker_server SOCKET [MODULE …]``; only
`extract_jobs.engine.worker_processes` starts it. multiprocessing's forkserver will not do: it would
import the caller's main module in every worker, so a script without a guard would start over. The
command line holds only the number of an inherited socket and the names of modules; tasks, with
their credentials, come through sockets.

A process that forks must have only one thread, so the server keeps libraries from starting their
own. If it has more threads all the same, it starts a new interpreter instead of forking.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, cast

from extract_jobs.engine.imports import import_all, without_collections
from extract_jobs.engine.pandas_free import skip_pandas
from extract_jobs.errors import StopRequested

if TYPE_CHECKING:
    from extract_jobs.engine.split_task import SplitFailure, SplitTask
    from extract_jobs.sources import Reader

MODULE = "extract_jobs.engine.worker_server"
SINGLE_THREADED = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""Variables that keep numpy's and Arrow's libraries from starting threads when they load."""
FORK, WAIT = b"fork", b"wait"
"""Requests to the server. It answers with a process id (or minus the error number, if the system
starts no process) and with an exit code."""

_PROGRESS_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1
_WORK = "--work"


def main(arguments: Sequence[str]) -> None:
    """Serve requests that come through a socket until the other end closes it."""
    if arguments[0] == _WORK:
        _work(int(arguments[1]), int(arguments[2]))
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    _preload(arguments[1:])
    children: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 64, 1)
        order, _, argument = message.partition(b" ")
        if order == FORK:
            [descriptor] = descriptors
            answer = _start(control, descriptor)
            os.close(descriptor)
            children |= {answer} if answer > 0 else set()
        elif order == WAIT:  # the client has killed it
            answer = os.waitstatus_to_exitcode(os.waitpid(int(argument), 0)[1])
            children.discard(int(argument))
        else:
            # The driver is done or dead. What is still running is of no use to anybody.
            for child in children:
                os.kill(child, signal.SIGKILL)
            os._exit(0)
        control.send(b"%d" % answer)


def _preload(modules: Sequence[str]) -> None:
    with without_collections():  # frozen objects also stay shared with the processes that it forks
        skip_pandas()
        import_all(("extract_jobs.engine.arrow_splits", *modules))
    if "duckdb" in sys.modules:
        # Importing it opens a database with threads of its own, which nothing here uses.
        sys.modules["duckdb"].default_connection().close()


def _start(control: socket.socket, descriptor: int) -> int:
    server = os.getpid()
    try:
        if _threads() > 1:
            os.set_inheritable(descriptor, True)
            arguments = [sys.executable, "-P", "-m", MODULE, _WORK, str(server), str(descriptor)]
            return os.posix_spawn(sys.executable, arguments, os.environ)
        child = os.fork()
    except OSError as error:
        return -(error.errno or errno.EAGAIN)
    if child == 0:
        control.close()
        _work(server, descriptor)
    return child


def _threads() -> int:
    """Return how many threads the system counts, including those of libraries."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names alone
    except OSError:
        return 1


# The worker


def _work(server: int, descriptor: int) -> NoReturn:
    """Run what comes through a socket, one unit after the other, until the driver closes it."""
    code = 1
    try:
        _die_with(server)
        signal.signal(signal.SIGTERM, _stop)
        _Worker(Connection(descriptor)).serve()
    except (EOFError, OSError, StopRequested):
        code = 0  # the driver closed the connection
    except BaseException:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
    finally:
        # A normal exit would wait for DuckDB, which reads what a server still sends.
        sys.stderr.flush()
        os._exit(code)


def _die_with(server: int) -> None:
    """Have the system kill this process when the server ends, for whatever reason."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(0)


def _stop(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise StopRequested("the driver has stopped")


class _Worker(logging.Handler):
    """Answers the driver, and passes on what is logged here."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._sending = threading.Lock()
        self._shown = 0.0
        logging.getLogger().handlers = [self]

    def serve(self) -> None:
        """Run units of splits until the driver closes the connection."""
        skip_pandas()
        from extract_jobs.engine.arrow_splits import one_session, run_in_process
        from extract_jobs.engine.split_task import SplitFailure, outcome_of
        from extract_jobs.reporting.progress import Progress

        worker = self

        class Sent(Progress):
            def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
                worker.progress(index, rows, size, done=done)

        task: SplitTask | SplitFailure | None = None
        session = ExitStack()  # stays open between the units of a task
        while True:
            level, sent, unit = self._connection.recv()
            logging.getLogger().setLevel(level)
            if sent is not None or unit is None:
                session.close()
            if unit is None:
                task = None
                self._send("outcome", ())
                continue
            if sent is not None:
                task = _loaded(sent)
                self._shown = 0.0  # the first rows of a task are passed on at once
                if not isinstance(task, SplitFailure):
                    session.enter_context(one_session(task.reader))
            if isinstance(task, SplitFailure):
                self._send("outcome", task)
                continue
            assert task is not None
            run = partial(run_in_process, task, cast("Reader", task.reader), unit, Sent())
            self._send("outcome", outcome_of(run, unit))

    def progress(self, index: int, rows: int, size: int, *, done: bool) -> None:
        """Pass it on now and then; the outcome shows that a split is done."""
        if not done and time.monotonic() - self._shown > _PROGRESS_SECONDS:
            self._shown = time.monotonic()
            self._send("progress", (index, rows, size))

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a log record on."""
        self._send("log", (record.name, record.levelno, record.getMessage()))

    def _send(self, kind: str, what: object) -> None:
        with self._sending:
            self._connection.send((kind, what))


def _loaded(sent: bytes) -> SplitTask | SplitFailure:
    """Return a task, or the failure to load it, which is then the outcome of all its units."""
    from extract_jobs.engine.split_task import SplitFailure

    try:
        task: SplitTask = pickle.loads(sent)  # noqa: S301 - the driver's
    except Exception as error:  # noqa: BLE001 - classes raise anything when they are loaded
        failure = f"{type(error).__name__}: {error}"
        return SplitFailure("ConfigError", _not_importable(failure))
    return task


def _not_importable(failure: str) -> str:
    return (
        f"a worker process cannot load its task ({failure}): the parts of a reader or open_storage "
        "must be importable, so define them in a module and not in the script or notebook that is "
        "running; or pass a Spark session (engine: spark)"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
