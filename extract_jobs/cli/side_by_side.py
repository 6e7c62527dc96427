"""Runs several tables at a time, each on its own thread, and stops them together.

Each table is extracted as if it were alone: with its own run, report and failure. The tables share
the process, its storage clients, and one pool of worker processes, with as many workers as the
machine has cores. A thread cannot be interrupted, so a stop reaches it with the next thing that its
extract reports, and its worker processes by a signal.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress

from extract_jobs.cli.one_table import Ended, run_one
from extract_jobs.cli.process import logging_for, stop_text
from extract_jobs.engine.placement import may_use_spark, worker_modules
from extract_jobs.engine.shutdown import CLEAN_UP_SECONDS, NOTICE_SECONDS, give_up
from extract_jobs.engine.worker_processes import WorkerProcesses
from extract_jobs.errors import Interrupted, StopRequested, printable
from extract_jobs.reporting.progress import ENDS, Progress
from extract_jobs.reporting.report import Report, failed_report, reported
from extract_jobs.sources.pump import received
from extract_jobs.spec.extract_spec import ExtractSpec

DEFAULT_JOBS = 4
"""Tables at a time, unless a person says otherwise: waits for a source overlap, and the machine's
memory and Python's one lock do not become the next bottleneck."""

_END_SECONDS = 2.0
"""How long a thread that has no table left may take to end."""


def tables_at_once(wanted: int | None, specs: Sequence[ExtractSpec], at_most: int) -> int:
    """Return how many tables run at a time, at least 1.

    Args:
        wanted: By the person; None leaves it to us.
        specs: All tables.
        at_most: What the source's ``max_connections`` allows.
    """
    if any(map(may_use_spark, specs)):
        return 1  # a Spark is started and stopped by the main thread
    return max(1, min(wanted or DEFAULT_JOBS, len(specs), at_most))


def side_by_side(
    specs: Sequence[ExtractSpec],
    begin: Callable[[ExtractSpec], Progress],
    *,
    jobs: int,
    trace: bool,
) -> Generator[Ended]:
    """Run tables, some at a time, and yield each when it has ended.

    After a signal, those under way are stopped and still yielded, and no other is begun. Closing
    the iterator stops them too. A table has `NOTICE_SECONDS` to notice the stop and
    `CLEAN_UP_SECONDS` to clean up; otherwise its staged files are dropped, and its report is left,
    from here.

    Args:
        specs: Tables of one source.
        begin: Called in a table's thread; returns the progress to notify.
        jobs: How many at a time.
        trace: Whether the traceback of a failure is printed.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    with WorkerProcesses(worker_modules(specs), most=cores) as workers:
        tables = _Tables(specs, begin, workers, trace=trace)
        threads = [
            threading.Thread(target=tables.work, name="table", daemon=True) for _ in range(jobs)
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in specs:
                yield tables.next()
        except StopRequested:
            yield from tables.stop()
        finally:
            for _ in tables.stop():
                pass
            # A thread that frees what it has while the interpreter ends can abort the process.
            deadline = time.monotonic() + _END_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))


class _Tables:
    """The tables of one command, as its threads and its main thread share them."""

    def __init__(
        self,
        specs: Sequence[ExtractSpec],
        begin: Callable[[ExtractSpec], Progress],
        workers: WorkerProcesses,
        *,
        trace: bool,
    ) -> None:
        self._begin, self._workers, self._trace = begin, workers, trace
        self._waiting = deque(specs)
        self._under_way: dict[str, tuple[ExtractSpec, _Stoppable]] = {}
        self._ended: queue.SimpleQueue[Ended | BaseException] = queue.SimpleQueue()
        # By table: a signal may come when an item has just left the queue.
        self._outcomes: dict[str, Ended] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()  # over which tables wait and which are under way

    def work(self) -> None:
        """Run one table after the other, in a thread, until none is left or all are stopped."""
        try:
            while begun := self._next_spec():
                spec, progress = begun
                with logging_for(printable(spec.extract_table)):
                    report, code = run_one(spec, progress, trace=self._trace, workers=self._workers)
                outcome = Ended(spec, progress.shown, report, code)
                self._outcomes[spec.extract_table] = outcome
                self._ended.put(outcome)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._ended.put(error)

    def next(self, seconds: float | None = None) -> Ended:
        """Wait for the next table to end; raises `queue.Empty` if it takes longer."""
        found = received(self._ended, seconds)
        if isinstance(found, BaseException):
            raise found
        with self._lock:
            self._under_way.pop(found.spec.extract_table, None)
        return found

    def stop(self) -> Generator[Ended]:
        """Begin no other table, stop those under way, and yield each of them when it has ended."""
        with self._lock:
            self._waiting.clear()
        if not self._under_way:
            return
        self._stop.set()
        self._workers.stop()
        yield from self._until(time.monotonic() + NOTICE_SECONDS)
        if any(progress.noticed for _, progress in self._under_way.values()):
            yield from self._until(time.monotonic() + CLEAN_UP_SECONDS)
        while self._under_way:
            table, (spec, progress) = self._under_way.popitem()
            if table in self._outcomes:
                yield self._outcomes[table]
                continue
            error = Interrupted(f"{stop_text()}; it was waiting for its source or its storage")
            give_up(spec, error)
            report = failed_report(spec, reported(error))
            yield Ended(spec, progress.shown, report, error.exit_code)

    def _until(self, deadline: float) -> Generator[Ended]:
        with suppress(queue.Empty):
            while self._under_way:
                yield self.next(max(0.0, deadline - time.monotonic()))

    def _next_spec(self) -> tuple[ExtractSpec, _Stoppable] | None:
        with self._lock:
            if not self._waiting:
                return None
            spec = self._waiting.popleft()
            begun = spec, _Stoppable(self._begin(spec), self._stop)
            self._under_way[spec.extract_table] = begun
            return begun


class _Stoppable(Progress):
    """Passes on what an extract reports, and stops the extract once that is wanted.

    It raises in the extract's own thread, once, as a signal does in the main thread.
    """

    def __init__(self, shown: Progress, stop: threading.Event) -> None:
        self.shown, self._stop = shown, stop
        self._raised = threading.Lock()

    @property
    def noticed(self) -> bool:
        """Whether the extract was stopped here."""
        return self._raised.locked()

    def phase(self, name: str) -> None:
        """Pass a phase on; the extract is not stopped when all that is left is to report it."""
        self.shown.phase(name)
        if name not in ENDS:
            self._raise_once()

    def planned(self, splits: int, rows: int | None, size: int | None) -> None:
        """Pass the plan on."""
        self.shown.planned(splits, rows, size)

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        """Pass on how far a split is."""
        self.shown.split(index, rows, size, done=done)
        self._raise_once()

    def reported(self, report: Report) -> None:
        """Pass the report on."""
        self.shown.reported(report)

    def _raise_once(self) -> None:
        if self._stop.is_set() and self._raised.acquire(blocking=False):
            raise StopRequested(stop_text())
