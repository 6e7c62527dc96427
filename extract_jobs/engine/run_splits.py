"""Runs splits: on processes of this machine, on Spark executors, or in this process.

Each split is one task, and as many tasks are under way as connections are allowed. So the limit on
connections is exact, a free connection takes the next split whatever its size, progress comes split
by split, a lost worker costs one split, and the first error that no retry can fix stops the rest at
once. `engine.placement` decides where splits run. On Spark a task is a job of its own: see
`arrow_splits` if Python reads the rows, `dataframe_splits` if Spark does. Otherwise it goes to a
worker process (`process_splits`), unless only one task runs at a time. A Spark task takes several
small splits, because starting one costs more than reading them; a worker process keeps its
connection from task to task.

If partitions depend on the row, one task per split would write files of every partition for every
split. Then each connection has one task instead: a slice of the splits, which share one set of
files. A lost task then costs a slice, and a connection with fast splits does not help a slow one.
Not so if a later attempt takes over splits that are staged (``resumable``). Then the splits that
are under way when the process is asked to stop are also finished, as far as there is time.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from extract_jobs.commit.deduplication import CommittedRows
from extract_jobs.engine.arrow_splits import one_session, run_in_process, run_on_spark
from extract_jobs.engine.dataframe_splits import run_dataframe
from extract_jobs.engine.placement import Placement
from extract_jobs.engine.process_splits import pickled, run_on_process
from extract_jobs.engine.split_task import (
    Results,
    SplitFailure,
    SplitResult,
    SplitTask,
    described,
)
from extract_jobs.engine.worker_processes import WorkerProcesses
from extract_jobs.errors import Interrupted, StopRequested
from extract_jobs.reporting.progress import Progress
from extract_jobs.sources import DataFrameReader, Reader
from extract_jobs.sources.splits import Split, handfuls, slices
from extract_jobs.spark.session import check_driver, spark_session
from extract_jobs.storage import WrittenFile, join

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

__all__ = [
    "SplitResult",
    "SplitTask",
    "abort_leftover_uploads",
    "check_driver",
    "report_done",
    "run_splits",
]

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 1.0
_CANCEL_SECONDS = 1.0
"""Seconds between attempts to cancel the tasks still running after one has failed."""


def run_splits(
    task: SplitTask,
    splits: Sequence[Split],
    *,
    placement: Placement,
    progress: Progress,
    committed: Callable[[Split], CommittedRows | None] | None = None,
    resumable: bool = False,
    workers: WorkerProcesses | None = None,
    check: Callable[[], None] = lambda: None,
    finished: Callable[[Results], None] = lambda _: None,
) -> list[SplitResult]:
    """Extract every split.

    Args:
        task: What to do with a split.
        splits: Disjoint and exhaustive.
        placement: Where splits run, and how many at a time.
        progress: Notified of every split.
        committed: Returns the rows of a split that are already committed. Called in this process
            when the split's turn comes; each split then has its own task. None if there are none.
        resumable: Whether a later attempt takes over what is staged, split by split.
        workers: Worker processes, which the caller closes; None starts others.
        check: Called after each batch or each second; what it raises stops every split.
        finished: Called with the results of a task as soon as its files are staged, in any thread.

    Returns:
        One result per split, in order of index.

    Raises:
        ExtractError: The first split that failed; the others were stopped.
    """
    reader = task.reader
    assert reader is not None
    connections, context = placement.connections, placement.context
    shares = task.transform.fixed_partition() is None and committed is None and not resumable
    task = replace(task, shares_files=shares)
    units = slices(splits, connections) if shares else [(split,) for split in splits]
    of_split = committed or (lambda _: None)
    if placement.on == "here":
        assert not isinstance(reader, DataFrameReader)
        here = _InProcess(task, reader, of_split, _Checked(progress, check))
        with one_session(reader):
            return [result for unit in units for result in here.run(unit, finished)]
    if placement.on == "processes":
        with nullcontext(workers) if workers else WorkerProcesses() as processes:
            on_processes = _OnProcesses(task, of_split, progress, processes)
            try:
                return _side_by_side(
                    on_processes, units, connections, progress,
                    check=check, finished=finished, resumable=resumable,
                )  # fmt: skip
            finally:
                processes.release(on_processes)
    assert context is not None
    if not shares and committed is None and not isinstance(reader, DataFrameReader):
        units = handfuls(splits, connections)
    on_spark = _OnSpark(task, reader, of_split, context, lambda: spark_session(placement.session))
    return _side_by_side(
        on_spark, units, connections, progress,
        check=check, finished=finished, resumable=resumable,
    )  # fmt: skip


OfSplit = Callable[[Split], CommittedRows | None]


class _Checked(Progress):
    """Forwards the progress of splits, after a check."""

    def __init__(self, progress: Progress, check: Callable[[], None]) -> None:
        self._progress, self._check = progress, check

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        self._check()
        self._progress.split(index, rows, size, done=done)


@dataclass(frozen=True)
class _InProcess:
    """Runs units in this process, one after the other."""

    task: SplitTask
    reader: Reader
    of_split: OfSplit
    progress: Progress

    def run(self, unit: Sequence[Split], finished: Callable[[Results], None]) -> Results:
        ready = replace(self.task, committed=self.of_split(unit[0]))
        results = run_in_process(ready, self.reader, unit, self.progress)
        if len(unit) > 1:
            report_done(self.progress, results)
        finished(results)
        return results


class _Runner(Protocol):
    """Runs several units in parallel."""

    def run(self, unit: Sequence[Split], stop: threading.Event) -> Results | SplitFailure:
        """Run a unit, in a thread of its own."""

    def cancel(self) -> None:
        """End the units that are under way; called again while any are running."""


@dataclass(eq=False)
class _OnProcesses:
    task: SplitTask
    of_split: OfSplit
    progress: Progress
    workers: WorkerProcesses
    _sent: tuple[CommittedRows | None, bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, unit: Sequence[Split], stop: threading.Event) -> Results | SplitFailure:
        task = self._pickled(self.of_split(unit[0]))
        return run_on_process(task, unit, self.workers, self.progress, stop, owner=self)

    def cancel(self) -> None:
        self.workers.interrupt(self)

    def _pickled(self, committed: CommittedRows | None) -> bytes:
        """Return the pickled task: the same bytes as long as the same rows are committed."""
        with self._lock:
            if self._sent is None or self._sent[0] is not committed:
                self._sent = committed, pickled(replace(self.task, committed=committed))
            return self._sent[1]


class _OnSpark:
    def __init__(
        self,
        task: SplitTask,
        reader: Reader | DataFrameReader,
        of_split: OfSplit,
        context: SparkContext,
        session: Callable[[], SparkSession],
    ) -> None:
        self._task, self._reader, self._of_split = task, reader, of_split
        self._context, self._session = context, session
        self._group = f"extract-{uuid.uuid4().hex}"

    def run(self, unit: Sequence[Split], stop: threading.Event) -> Results | SplitFailure:
        self._context.setJobGroup(self._group, described(unit), interruptOnCancel=True)
        ready = replace(self._task, committed=self._of_split(unit[0]))
        if isinstance(self._reader, DataFrameReader):
            return run_dataframe(ready, self._reader, unit, self._session(), stop)
        return run_on_spark(ready, self._reader, unit, self._context, stop)

    def cancel(self) -> None:
        try:
            self._context.cancelJobGroup(self._group)
        except Exception:  # noqa: BLE001 - py4j raises anything where its JVM is gone
            logger.warning("could not cancel the remaining splits: Spark is gone")


def _side_by_side(
    runner: _Runner,
    units: Sequence[tuple[Split, ...]],
    connections: int,
    progress: Progress,
    *,
    check: Callable[[], None],
    finished: Callable[[Results], None],
    resumable: bool,
) -> list[SplitResult]:
    """Run units in parallel; the first that fails stops the others.

    Raises:
        ExtractError: The error of the first that failed.
    """
    stop = threading.Event()

    def run_unit(unit: tuple[Split, ...]) -> Results:
        if stop.is_set():
            raise Interrupted("stopped because another split failed")
        outcome = runner.run(unit, stop)
        if isinstance(outcome, SplitFailure):
            raise outcome.error()
        report_done(progress, outcome)
        finished(outcome)
        return outcome

    pool = ThreadPoolExecutor(min(connections, len(units)), thread_name_prefix="split")
    futures: list[Future[Results]] = []
    try:
        futures.extend(pool.submit(run_unit, unit) for unit in units)
        failed: list[Future[Results]] = []
        under_way: set[Future[Results]] = set(futures)
        while under_way and not failed:
            done, under_way = wait(futures, _CHECK_SECONDS, return_when=FIRST_EXCEPTION)
            failed = [f for f in done if f.exception() is not None]
            check()
        if failed:
            raise failed[0].exception() or AssertionError("no error")
        return sorted((r for f in futures for r in f.result()), key=lambda r: r.index)
    except StopRequested as error:
        stop.set()
        under_way = {f for f in futures if not f.cancel()}
        if resumable and error.grace_seconds and not all(f.done() for f in under_way):
            logger.warning("stopped: splits under way have %g s to end", error.grace_seconds)
            wait(under_way, error.grace_seconds)
        raise
    finally:
        stop.set()
        for future in futures:
            future.cancel()
        while not all(f.done() for f in futures):
            # Repeated: a thread may start a task just after the others were cancelled.
            runner.cancel()
            wait(futures, timeout=_CANCEL_SECONDS)
        pool.shutdown(wait=True, cancel_futures=True)


def report_done(progress: Progress, results: Sequence[SplitResult]) -> None:
    """Notify the progress of splits that are staged."""
    for result in results:
        size = sum(f.staged.size for f in result.files)
        progress.split(result.index, result.rows, size, done=True)


def abort_leftover_uploads(task: SplitTask, kept: Sequence[WrittenFile]) -> int:
    """Abort files that this worker staged and no commit will hold, such as those of a retried task.

    Args:
        task: Whose ``file_prefix`` names this worker's files.
        kept: Files that a commit will hold.

    Returns:
        How many were aborted.
    """
    storage = task.open_storage(task.target.uri)
    keep = {f.staged.uri for f in kept}
    root = join(task.target.uri, "")
    strays = [
        upload
        for upload in storage.abandoned(root)
        if upload.uri.rsplit("/", 1)[-1].startswith(task.file_prefix) and upload.uri not in keep
    ]
    for upload in strays:
        storage.abort(root, upload)
    return len(strays)
