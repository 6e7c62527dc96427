"""Worker processes that start at once: forked from one that has imported what they need.

A worker on ECS spends a second of CPU on imports, as long as it takes for a small table. Its
container has to; on one machine, a process that has done so forks for each worker. What it forks is
the leader of a process group and has its own arguments, variables, folder and streams, as if it
had been started by itself.

``python -m infra.local.prepared SOCKET`` is that process, which `Prepared` starts and which ends
with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from extract_jobs.engine.imports import import_all, without_collections
from extract_jobs.engine.pandas_free import skip_pandas
from extract_jobs.engine.worker_server import SINGLE_THREADED

MODULES = (
    "boto3", "extract_jobs.worker", "extract_jobs.engine.arrow_splits",
    "extract_jobs.sources.postgres.source", "extract_jobs.storage.s3",
)  # fmt: skip
"""What workers import; anything else they import by themselves."""
START_SECONDS = 60.0
_MESSAGE_BYTES = 1 << 17


@dataclass(slots=True, eq=False)
class Forked:
    """A forked process, with what its caller needs of `subprocess.Popen`. Thread-safe.

    Attributes:
        pid: Its process id, which is its group's too.
        returncode: Its exit code, or minus the number of the signal that ended it; None before.
    """

    pid: int
    _outcome: socket.socket
    returncode: int | None = None
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return `returncode`.

        Raises:
            subprocess.TimeoutExpired: It goes on.
        """
        going_on = subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        # The outcome comes once, whoever waits for it.
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            raise going_on
        try:
            if self.returncode is None:
                self._outcome.settimeout(timeout)
                try:
                    answer = self._outcome.recv(64)
                except TimeoutError:
                    raise going_on from None
                # Nobody is left to ask if the process that waits for it was killed.
                self.returncode = int(answer) if answer else -signal.SIGKILL
                self._outcome.close()
            return self.returncode
        finally:
            self._lock.release()


@dataclass(slots=True, eq=False)
class Prepared:
    """A process that has imported `MODULES`, and forks for each worker.

    Attributes:
        environment: Variables that it imports with.
        directory: Its working directory.
    """

    environment: Mapping[str, str]
    directory: Path
    _control: socket.socket = field(init=False)
    _process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "infra.local.prepared", str(theirs.fileno())],
                cwd=self.directory,
                env=dict(self.environment) | SINGLE_THREADED,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                process_group=0,
            )

    def start(
        self,
        script: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: int,
        errors: int,
    ) -> Forked:
        """Start a script as the main program of a new process. Thread-safe.

        Args:
            script: A Python file.
            arguments: Its arguments.
            environment: Its whole environment.
            output: Its standard output, an open file.
            errors: Its standard error, an open file.

        Raises:
            OSError: The prepared process has ended.
        """
        request = {"arguments": [script, *arguments], "environment": dict(environment)}
        outcome, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                given = [theirs.fileno(), output, errors]
                socket.send_fds(self._control, [json.dumps(request).encode()], given)
            outcome.settimeout(START_SECONDS)
            answer = outcome.recv(64)
            if not answer:
                raise ConnectionError("the prepared process has ended")
        except OSError:
            outcome.close()
            raise
        return Forked(int(answer), outcome)

    def close(self) -> None:
        """End the process; those that it has forked go on."""
        self._control.close()
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(arguments: Sequence[str]) -> None:
    """Fork for each request, until the other end closes the socket."""
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    with without_collections():
        skip_pandas()
        import_all(MODULES)
        sys.modules["duckdb"].default_connection().close()  # it has threads
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, given, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 3)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _supervise(json.loads(message), *given)
        for descriptor in given:
            os.close(descriptor)


def _supervise(request: dict[str, Any], outcome: int, output: int, errors: int) -> NoReturn:
    """Fork a worker, report its process id, wait for it, and report how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(outcome)
        _work(request, output, errors)
    os.close(output)
    os.close(errors)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)  # whoever signals the group may be first
    # Nobody may be left who wants to know.
    with contextlib.suppress(OSError), socket.socket(fileno=outcome) as caller:
        caller.send(b"%d" % child)
        _, status = os.waitpid(child, 0)
        caller.send(b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _work(request: dict[str, Any], output: int, errors: int) -> None:
    """Become the worker. Raises SystemExit, which ends the process as it ends others."""
    os.setpgid(0, 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.closerange(3, max(output, errors) + 1)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
