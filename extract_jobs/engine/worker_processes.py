"""Worker processes of this machine, as the driver sees them.

A server (`extract_jobs.engine.worker_server`) forks them; it imports what they need while the
driver is planning. No thread of the caller is ever forked, and its main module is not imported
again. The server has a session of its own, so that Ctrl-C in a terminal reaches only the driver,
which then stops its workers.
"""

from __future__ import annotations

import array
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Self

from extract_jobs.engine import worker_server
from extract_jobs.engine.split_task import Results, SplitFailure
from extract_jobs.errors import ExtractError, Interrupted, WorkerOutOfMemory
from extract_jobs.reporting.progress import Progress
from extract_jobs.sources.splits import Split

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 300.0
"""How long the server may take to answer. Its first answer comes after all its imports."""
_END_SECONDS = 2.0
"""How long the server may take to end after its socket is closed, before it is killed."""
_LOOK_SECONDS = 0.5
"""How often a thread that waits for a free worker checks whether its extract was stopped."""
_RELEASE_SECONDS = 5.0
"""How long idle workers may take to end their sessions: more than with a server that hangs."""
_VMSTAT = Path("/proc/vmstat")


class Disconnected(Exception):
    """The connection to a worker has broken."""


class WorkerLost(Exception):
    """A worker ended before it returned its outcome.

    Args:
        by: Its exit code, or minus the number of the signal that ended it.
        memory: Whether the system has killed a process because it ran out of memory.

    Attributes:
        killed: Whether SIGKILL ended it.
        memory: Whether it was killed while the system was out of memory.
    """

    def __init__(self, by: int, *, memory: bool) -> None:
        super().__init__(f"a worker process was lost ({_how(by)})")
        self.killed = by == -signal.SIGKILL
        self.memory = self.killed and memory


@dataclass(eq=False)
class Worker:
    """One worker process.

    Attributes:
        pid: Its process id.
        connection: The socket to it.
        owner: Who uses it, or used it last and has not released it.
        task: The pickled task that was sent to it last.
        stopping: Whether it was asked to end.
    """

    pid: int
    connection: Connection
    owner: object = None
    task: bytes | None = None
    stopping: bool = False

    def interrupt(self) -> None:
        """Ask it to drop its work and end; kill it if it was asked before."""
        number = signal.SIGKILL if self.stopping else signal.SIGTERM
        self.stopping = True
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def run(self, task: bytes, unit: Sequence[Split], progress: Progress) -> Results | SplitFailure:
        """Run some splits and return their outcome.

        Args:
            task: A pickled `SplitTask`; sent only if it is not the one sent last.
            unit: The splits.
            progress: Notified of rows; not of splits that are done.

        Raises:
            Disconnected: It has ended, or the connection broke.
            Exception: As ``progress`` raises; the worker is still busy then.
        """
        level = logging.getLogger("extract_jobs").getEffectiveLevel()
        with _disconnected():
            self.connection.send((level, None if task is self.task else task, tuple(unit)))
        self.task = task
        while True:
            with _disconnected():
                kind, what = self.connection.recv()
            if kind == "outcome":
                outcome: Results | SplitFailure = what
                return outcome
            if kind == "progress":
                index, rows, size = what
                progress.split(index, rows, size, done=False)
            else:
                name, level, message = what
                logging.getLogger(name).log(level, "%s", message)

    def ask_to_release(self) -> None:
        """Have it forget its task, and end the session that it keeps for the task's next units."""
        self.task = None
        with suppress(OSError):  # what it is asked, it has then done by ending
            self.connection.send((logging.WARNING, None, None))

    def has_released(self, until: float) -> bool:
        """Return whether it has done so by a moment of the monotonic clock."""
        with suppress(EOFError, OSError):
            while self.connection.poll(max(0.0, until - time.monotonic())):
                if self.connection.recv()[0] == "outcome":
                    return True
        return False


@contextmanager
def _disconnected() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise Disconnected from error


class WorkerProcesses:
    """A server and its workers; a context manager, which ends them all. Starts nothing by itself.

    Its methods may be called from any thread.
    """

    def __init__(self, modules: Sequence[str] = (), *, most: int | None = None) -> None:
        """Store what to import.

        Args:
            modules: What workers need besides the engine, such as the source's module.
            most: Maximum busy workers, if several extracts share them; None leaves the limit to the
                extract.
        """
        self._most = most
        self._modules = tuple(modules)
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        self._oom_kills = 0
        self._closed = False
        self._answered = False
        # One request to the server at a time; and no signal to a process that was already reaped.
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server, unless it is running, and do not wait for it."""
        with self._lock:
            self._start()

    def take(
        self,
        owner: object = None,
        stop: threading.Event | None = None,
        *,
        new: bool = False,
    ) -> Worker:
        """Return an idle worker or a new one; wait if the maximum is busy.

        Args:
            owner: Who uses it until it is given back; see `interrupt`. A worker that it has used
                last is preferred, because that may have a session open, and another owner's ends
                its session first: so nobody has more sessions than workers at a time.
            stop: Ends the wait when it is set.
            new: Start one even if one is idle.

        Raises:
            Interrupted: The wait was ended.
            ExtractError: No worker can be started.
        """
        with self._lock:
            while self._most and len(self._workers) - len(self._idle) >= self._most:
                if self._closed or (stop is not None and stop.is_set()):
                    raise Interrupted("the extract was stopped before a worker process was free")
                self._freed.wait(_LOOK_SECONDS)
            worker = None if new else self._living_idle(owner)
            if worker is None:
                return self._fork(owner)
            before, worker.owner = worker.owner, owner
        if before is None or before is owner:
            return worker
        worker.ask_to_release()
        if worker.has_released(time.monotonic() + _RELEASE_SECONDS):
            return worker
        self.lost(worker)
        return self.take(owner, stop, new=True)

    def _fork(self, owner: object) -> Worker:
        self._start()
        ours, theirs = Pipe()
        try:
            pid = self._ask(worker_server.FORK, descriptor=theirs.fileno())
            if pid < 0:
                raise _not_started(-pid)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = Worker(pid, ours, owner)
        self._workers.add(worker)
        return worker

    def _living_idle(self, owner: object) -> Worker | None:
        """Return an idle worker; those that were killed meanwhile are no loss to anybody."""
        while self._idle and not self._closed:
            its_own = (i for i, one in enumerate(self._idle) if one.owner is owner)
            worker = self._idle.pop(next(its_own, -1))
            if not worker.connection.poll():  # an idle worker sends nothing, but its end shows
                return worker
            worker.connection.close()
            self._workers.discard(worker)
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            self._ask(worker_server.WAIT + b" %d" % worker.pid)
        return None

    def give_back(self, worker: Worker) -> None:
        """Keep a worker that has returned its outcome for the next unit, unless it is ending."""
        with self._lock:
            if worker in self._workers and not worker.stopping:
                self._idle.append(worker)
                self._freed.notify()

    def release(self, owner: object) -> None:
        """End the sessions of an owner's idle workers; a worker that does not in time is killed."""
        with self._lock:
            holding = [worker for worker in self._idle if worker.owner is owner]
            self._idle = [worker for worker in self._idle if worker.owner is not owner]
        until = time.monotonic() + _RELEASE_SECONDS
        for worker in holding:
            worker.ask_to_release()
        for worker in holding:
            if worker.has_released(until):
                worker.owner = None
                self.give_back(worker)
            else:
                with suppress(ExtractError):  # the server is gone too, and all workers with it
                    self.lost(worker)

    def lost(self, worker: Worker) -> WorkerLost:
        """Kill a worker, unless it has already ended, and return how it ended.

        Raises:
            ExtractError: The server is gone too.
        """
        with self._lock:
            worker.connection.close()
            if worker in self._workers:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
                self._workers.discard(worker)
                self._freed.notify()
            elif not self._closed:  # it ended with its server, which was replaced
                return WorkerLost(-signal.SIGKILL, memory=oom_kills() > self._oom_kills)
            by = self._ask(worker_server.WAIT + b" %d" % worker.pid)
            return WorkerLost(by, memory=oom_kills() > self._oom_kills)

    def interrupt(self, owner: object) -> None:
        """Ask an owner's workers to drop their work and end; kill those that were asked before."""
        with self._lock:
            for worker in self._workers.difference(self._idle):
                if worker.owner is owner:
                    worker.interrupt()

    def stop(self) -> None:
        """Start no more workers, and ask the busy ones to drop their work and end."""
        self._closed = True
        self._kill_starting_server()
        with self._lock:
            self._freed.notify_all()
            for worker in self._workers.difference(self._idle):
                worker.interrupt()

    def close(self) -> None:
        """End the server and all workers for good, within seconds, whatever they are doing."""
        self._closed = True
        self._kill_starting_server()
        with self._lock:
            for worker in self._workers:
                worker.connection.close()
            self._workers.clear()
            self._idle.clear()
            if self._control is not None:
                self._control.close()
                self._control = None
            if self._server is not None:
                _ended(self._server)
                self._server = None

    def _kill_starting_server(self, *, only_if_closed: bool = False) -> None:
        """Kill a server that still imports, which can take long and would not see its socket close.

        Without the lock, which the thread holds that waits for the server's first answer.
        """
        server = self._server
        if server is not None and not self._answered and (self._closed or not only_if_closed):
            server.kill()

    def _start(self) -> None:
        if self._closed:
            raise Interrupted("stopped before its splits were read")
        if self._control is not None:
            return
        self._oom_kills = oom_kills()
        # Modules are found where this process finds them, whatever added their folders, and not in
        # the folder that ``-m`` would put first.
        path = os.pathsep.join(str(Path(p).absolute()) for p in sys.path)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_ANSWER_SECONDS)
        try:
            self._server = subprocess.Popen(
                [sys.executable, "-P", "-m", worker_server.MODULE, str(theirs.fileno()),
                 *self._modules],
                env={**os.environ, **worker_server.SINGLE_THREADED, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise _not_started(error.errno or errno.EAGAIN) from error
        finally:
            theirs.close()
        self._control, self._answered = ours, False
        self._kill_starting_server(only_if_closed=True)  # meanwhile, by another thread

    def _ask(self, request: bytes, descriptor: int | None = None) -> int:
        if self._control is None:
            raise Interrupted("the worker processes were ended with the extract")
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor or 0]))
        try:
            self._control.sendmsg([request], [] if descriptor is None else [rights])
            answer = self._control.recv(64)
        except OSError:
            answer = b""
        if not answer:
            raise self._server_lost()
        self._answered = True
        return int(answer)

    def _server_lost(self) -> ExtractError:
        """Forget the server and its workers, so that the next extract starts another."""
        assert self._server is not None
        assert self._control is not None
        code = _ended(self._server)
        self._control.close()
        self._control = self._server = None
        for worker in self._idle:
            worker.connection.close()
        self._workers.clear()  # the system ends them with the server
        self._idle.clear()
        self._freed.notify_all()
        if self._closed:
            return Interrupted("stopped before its splits were read")
        if code == -signal.SIGKILL and oom_kills() > self._oom_kills:
            return WorkerOutOfMemory(
                "the worker processes were killed: the machine's memory is full"
            )
        if code < 0:
            return Interrupted(f"the server of worker processes was lost ({_how(code)})")
        return ExtractError(
            f"worker processes cannot be started: their server ended with exit code {code}; "
            "its messages are on standard error"
        )


def _ended(server: subprocess.Popen[bytes]) -> int:
    """Wait for a server whose socket is closed, and return how it ended."""
    try:
        return server.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()  # the system then kills its children
        return server.wait()


def _how(ended: int) -> str:
    return f"exit code {ended}" if ended >= 0 else f"signal {-ended}, {signal.strsignal(-ended)}"


def _not_started(number: int) -> ExtractError:
    if number == errno.ENOMEM:
        return WorkerOutOfMemory("the machine has no memory left to start a worker process")
    return Interrupted(f"the system starts no worker process: {os.strerror(number)}")


def oom_kills() -> int:
    """Return how often the system has killed a process because memory was full; 0 if unknown."""
    with suppress(OSError):
        for line in _VMSTAT.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0
