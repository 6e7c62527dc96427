"""Worker processes: started, awaited, timed, logged and ended, and limited in number."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.prepared import Forked, Prepared

DEFAULT_WORKERS = 2
Process = subprocess.Popen[bytes] | Forked


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended.

    Attributes:
        code: Its exit code; 128 + n if signal n killed it, as a container reports it.
        timed_out: Whether it exceeded its time and was ended.
        log: What it logged, lines of JSON: its standard output.
        errors: Its standard error, and the JVM's.
    """

    code: int
    timed_out: bool
    log: Path
    errors: Path

    def last_line(self) -> str:
        """Return the last line that it wrote, which names its error; empty if it wrote none."""
        lines = [x for x in self.errors.read_text(errors="replace").splitlines() if x.strip()]
        return lines[-1] if lines else ""


@dataclass(slots=True)
class Workers:
    """Runs worker processes, at most ``limit`` at the same time; others wait their turn.

    A worker never waits for another, so waiting for a turn cannot deadlock.

    Attributes:
        logs: Folder of the logs, two files per worker.
        environment: The workers' whole environment.
        directory: Their working directory.
        limit: How many run at once.
        prepared: Starts Python programs; None starts each by itself.
    """

    logs: Path
    environment: Mapping[str, str]
    directory: Path
    limit: int = DEFAULT_WORKERS
    prepared: Prepared | None = None
    _slots: threading.BoundedSemaphore = field(init=False)
    _running: set[Process] = field(init=False, default_factory=set)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _closed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self._slots = threading.BoundedSemaphore(self.limit)

    def run(
        self,
        command: Sequence[str],
        *,
        log_name: str,
        seconds: float | None,
        grace_seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a worker in a process group of its own and wait for its end.

        Args:
            command: Program and arguments.
            log_name: Name of its files below `logs`, to which ``.log`` and ``.err`` are added.
            seconds: Its time, counted from its start; None is unlimited.
            grace_seconds: How long after SIGTERM the group is killed when the time is over.
            environment: Further variables.

        Returns:
            How it ended.
        """
        log, errors = self.logs / f"{log_name}.log", self.logs / f"{log_name}.err"
        with self._slots:
            with log.open("ab") as output, errors.open("ab") as complaints:
                streams = output.fileno(), complaints.fileno()
                process = self._start(command, dict(environment or {}), *streams)
            timed_out = False
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                timed_out = True
                _signal_group(process, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(grace_seconds)
            finally:
                _signal_group(process, signal.SIGKILL)
                code = process.wait()
                with self._lock:
                    self._running.discard(process)
        return Ended(128 - code if code < 0 else code, timed_out, log, errors)

    def stop(self, *, grace_seconds: float = 2.0) -> None:
        """End all workers, and start no more."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            _signal_group(process, signal.SIGTERM)
        for process in running:
            try:
                process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)
        if self.prepared:
            self.prepared.close()

    def _start(
        self, command: Sequence[str], environment: dict[str, str], output: int, errors: int
    ) -> Process:
        """Start a process, unless this is closed."""
        whole = dict(self.environment) | environment
        with self._lock:
            if self._closed:
                raise RuntimeError("the emulator is stopping; it starts no more workers")
            process = self._forked(command, whole, output, errors) or subprocess.Popen(
                command,
                cwd=self.directory,
                env=whole,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                process_group=0,
            )
            self._running.add(process)
            return process

    def _forked(
        self, command: Sequence[str], environment: Mapping[str, str], output: int, errors: int
    ) -> Forked | None:
        """Return a Python program's process; None if nothing is prepared, or not any more."""
        if self.prepared is None or command[0] != sys.executable:
            return None
        try:
            return self.prepared.start(command[1], command[2:], environment, output, errors)
        except OSError:
            return None


def _signal_group(process: Process, number: signal.Signals) -> None:
    """Signal a worker's process group, which may already be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
