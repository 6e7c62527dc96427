"""Runs splits: on Spark executors, or in this process if there is only one.

Each split is one Spark job of one task, and as many are under way as connections are allowed. So
the cap on connections is exact, a free connection takes the next split of any size, progress
comes split by split from any cluster, a lost task costs one split, and the first error that no
retry can fix stops the rest at once. How a split becomes a job depends on what reads it:
`arrow_splits` where Python does, `dataframe_splits` where Spark does.

Where partitions depend on the row, one job per split would write files of every partition for
every split. Then each connection has one job instead: a slice of the splits that shares one set of
files. A lost task costs a slice, and a fast slice does not help a slow one.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TYPE_CHECKING

from extract_jobs.commit.deduplication import CommittedRows
from extract_jobs.engine.arrow_splits import run_in_process, run_on_spark
from extract_jobs.engine.dataframe_splits import run_dataframe
from extract_jobs.engine.split_task import (
    Results,
    SplitFailure,
    SplitResult,
    SplitTask,
    described,
)
from extract_jobs.errors import Interrupted
from extract_jobs.reporting.progress import Progress
from extract_jobs.sources import DataFrameReader
from extract_jobs.sources.splits import Split, slices
from extract_jobs.spark.session import check_driver, spark_context, spark_session
from extract_jobs.storage import WrittenFile, join

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

__all__ = [
    "SplitResult",
    "SplitTask",
    "abort_leftover_uploads",
    "check_driver",
    "run_splits",
    "runs_on_spark",
]

logger = logging.getLogger(__name__)

_CANCEL_SECONDS = 1.0
"""Seconds between attempts to cancel the jobs still running after one has failed."""


def runs_on_spark(task: SplitTask, splits: Sequence[Split]) -> bool:
    """Return whether `run_splits` needs Spark: one split that Python reads starts no JVM."""
    return len(splits) > 1 or isinstance(task.reader, DataFrameReader)


def run_splits(
    task: SplitTask,
    splits: Sequence[Split],
    *,
    connections: int,
    spark: SparkSession | None,
    progress: Progress,
    committed: Callable[[Split], CommittedRows | None] | None = None,
) -> list[SplitResult]:
    """Extract every split, at most ``connections`` at a time.

    Args:
        task: What to do with a split.
        splits: Disjoint and exhaustive.
        connections: Most splits under way at a time, at least 1.
        spark: The caller's session; None uses the active one, or starts one where it is needed
            (`runs_on_spark`).
        progress: Notified of every split.
        committed: Returns the rows of a split that are already committed. Called here when the
            split's turn comes; each split then has its own job. None if there are no such rows.

    Returns:
        One result per split, in order of index.

    Raises:
        ExtractError: The first split that failed; the others were stopped.
    """
    reader = task.reader
    assert reader is not None
    of_split = committed or (lambda _: None)
    if not runs_on_spark(task, splits):
        assert not isinstance(reader, DataFrameReader)
        ready = replace(task, committed=of_split(splits[0]))
        return list(run_in_process(ready, reader, splits, progress))
    context = spark_context(spark, connections)
    group = f"extract-{uuid.uuid4().hex}"
    stop = threading.Event()
    scattered = task.transform.fixed_partition() is None and committed is None
    units = slices(splits, connections if scattered else len(splits))

    def run_unit(unit: tuple[Split, ...]) -> Results:
        if stop.is_set():
            raise Interrupted("stopped because another split failed")
        context.setJobGroup(group, described(unit), interruptOnCancel=True)
        ready = replace(task, committed=of_split(unit[0]))
        if isinstance(reader, DataFrameReader):
            outcome = run_dataframe(ready, reader, unit, spark_session(spark), stop)
        else:
            outcome = run_on_spark(ready, reader, unit, context, stop)
        if isinstance(outcome, SplitFailure):
            raise outcome.error()
        for result in outcome:
            size = sum(f.staged.size for f in result.files)
            progress.split(result.index, result.rows, size, done=True)
        return outcome

    pool = ThreadPoolExecutor(min(connections, len(units)), thread_name_prefix="split")
    futures = [pool.submit(run_unit, unit) for unit in units]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [f for f in done if f.exception() is not None]
        if failed:
            raise failed[0].exception() or AssertionError("no error")
        return sorted((r for f in futures for r in f.result()), key=lambda r: r.index)
    finally:
        stop.set()
        for future in futures:
            future.cancel()
        while not all(f.done() for f in futures):
            # Repeated: a thread may still start a job just after the others were cancelled.
            _cancel(context, group)
            wait(futures, timeout=_CANCEL_SECONDS)
        pool.shutdown(wait=True, cancel_futures=True)


def _cancel(context: SparkContext, group: str) -> None:
    try:
        context.cancelJobGroup(group)
    except Exception:  # noqa: BLE001 - py4j raises anything where its JVM is gone
        logger.warning("could not cancel the remaining splits: Spark is gone")


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
