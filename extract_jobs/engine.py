"""Runs splits: on Spark executors, or in this process when one split is all there is.

Each split is one Spark job of one task, and as many are under way as connections are allowed. So
the cap on connections is exact, a free connection takes the next split whatever its size, progress
comes split by split from any cluster, a lost task costs one split, and the first error that no
retry can mend stops the rest at once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from extract_jobs import errors
from extract_jobs.committed import CommittedRows
from extract_jobs.errors import ExtractError, Interrupted, SourceUnavailable
from extract_jobs.parquet import PartitionedWriter
from extract_jobs.sources import Reader
from extract_jobs.spark import check_driver, spark_context, spark_error
from extract_jobs.spec import TargetSpec
from extract_jobs.splits import Split
from extract_jobs.storage import OpenStorage, WrittenFile, join
from extract_jobs.transform import Transform

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

__all__ = ["Progress", "SplitResult", "SplitTask", "check_driver", "run_splits", "stray_uploads"]

logger = logging.getLogger(__name__)

ADDRESSING = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Variables that say where storage is. Executors take them from the driver; their credentials are
their own."""

READ_TRIES = 3
"""How often a split is read when its connection breaks, within one task."""


class Progress:
    """What an extract tells whoever watches; this one ignores it all.

    Methods may be called from any thread.
    """

    def phase(self, name: str) -> None:
        """A phase begins: recover, plan, extract, reconcile, commit, publish, catalog, done."""

    def planned(self, splits: int, rows: int | None, size: int | None) -> None:
        """So many splits are about to be read; rows and bytes are the source's own estimates."""

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        """A split has so many rows read and bytes written, cumulative; ``done`` is its last."""


@dataclass(frozen=True)
class SplitResult:
    """What one split gave.

    Attributes:
        index: The split's.
        rows: Rows that the source yielded.
        files: What was staged.
        nulled: By column, values that became NULL because ``lossy_types`` allowed it.
        null_watermark_rows: Rows whose watermark column was NULL.
        repeated_rows: Rows that are in no file because they are committed already.
    """

    index: int
    rows: int
    files: tuple[WrittenFile, ...]
    nulled: dict[str, int] = field(default_factory=dict)
    null_watermark_rows: int = 0
    repeated_rows: int = 0


@dataclass(frozen=True)
class SplitFailure:
    """An error of a task, carried back as data: Spark would only give its text and would retry."""

    class_name: str
    message: str

    def error(self) -> ExtractError:
        """Return the error as it was raised on the executor."""
        found = getattr(errors, self.class_name, ExtractError)
        if not (isinstance(found, type) and issubclass(found, ExtractError)):
            found = ExtractError
        return found(self.message)


@dataclass(frozen=True)
class SplitTask:
    """Reads a split and stages its rows as Parquet. Picklable; the same in process and on Spark.

    Attributes:
        reader: Joins the attempt's snapshot.
        transform: From source batches to file batches.
        target: Where and how files are written.
        file_prefix: Begins the name of every file: run, attempt and this worker's own token.
        metadata: Key-value metadata of every file.
        open_storage: Called in the process that runs the task.
        watermark_column: Its NULLs are counted; None counts nothing.
        committed: Rows that are committed already, and so not written again; None for none.
    """

    reader: Reader
    transform: Transform
    target: TargetSpec
    file_prefix: str
    metadata: dict[str, str]
    open_storage: OpenStorage
    watermark_column: str | None = None
    committed: CommittedRows | None = None

    def run(self, split: Split, progress: Progress) -> SplitResult:
        """Extract one split; a broken connection is tried again in the same snapshot.

        Nothing stays staged when this raises.

        Raises:
            ExtractError: As `Reader.read` and `PartitionedWriter` raise.
        """
        for attempt in range(1, READ_TRIES + 1):
            try:
                return self._run_once(split, progress)
            except SourceUnavailable as error:
                if attempt == READ_TRIES:
                    raise
                logger.warning("split %d, try %d: %s; trying again", split.index, attempt, error)
                time.sleep(attempt)  # the server may be restarting its backends
        raise AssertionError("unreachable")

    def _run_once(self, split: Split, progress: Progress) -> SplitResult:
        writer = self.writer(split.index)
        rows = nulls = repeated = 0
        try:
            with closing(self.reader.read(split)) as batches:  # type: ignore[type-var]
                for batch in batches:
                    fresh = batch
                    if self.committed:
                        fresh = self.committed.without(batch, self.transform)
                        repeated += batch.num_rows - fresh.num_rows
                    writer.write(fresh)
                    rows += batch.num_rows
                    if self.watermark_column:
                        nulls += batch.column(self.watermark_column).null_count
                    progress.split(split.index, rows, writer.bytes, done=False)
            files = tuple(writer.close())
        except BaseException:
            writer.abort()
            raise
        progress.split(split.index, rows, sum(f.staged.size for f in files), done=True)
        return SplitResult(split.index, rows, files, dict(self.reader.nulled), nulls, repeated)

    def writer(self, index: int) -> PartitionedWriter:
        """Return a writer for the files of the split with that index."""
        return PartitionedWriter(
            self.open_storage(self.target.uri),
            self.target,
            self.transform,
            file_prefix=f"{self.file_prefix}-{index:05d}",
            metadata=self.metadata,
        )


def run_splits(
    task: SplitTask,
    splits: Sequence[Split],
    *,
    connections: int,
    spark: SparkSession | None,
    progress: Progress,
    committed: Callable[[Split], CommittedRows | None] = lambda _: None,
) -> list[SplitResult]:
    """Extract every split, at most ``connections`` at a time.

    Args:
        task: What to do with a split.
        splits: Disjoint and exhaustive.
        connections: Most splits under way at a time, at least 1.
        spark: The caller's session; None uses the active one, or starts one where more than one
            split asks for it. One split starts no JVM.
        progress: Told of every split.
        committed: Gives the rows of a split that are committed already. Called here, when the
            split's turn has come.

    Returns:
        One result per split, in order of index.

    Raises:
        ExtractError: The first split that failed; the others were stopped.
    """
    if len(splits) == 1:
        return [replace(task, committed=committed(splits[0])).run(splits[0], progress)]
    context = spark_context(spark, connections)
    group = f"extract-{uuid.uuid4().hex}"
    addressing = {name: os.environ[name] for name in ADDRESSING if name in os.environ}
    stop = threading.Event()

    def run_one(split: Split) -> SplitResult:
        if stop.is_set():
            raise Interrupted("stopped because another split failed")
        context.setJobGroup(group, f"split {split.index}", interruptOnCancel=True)
        run = partial(_run_on_executor, replace(task, committed=committed(split)), addressing)
        outcome = _collect(context, split, run, stop)
        if isinstance(outcome, SplitFailure):
            raise outcome.error()
        size = sum(f.staged.size for f in outcome.files)
        progress.split(split.index, outcome.rows, size, done=True)
        return outcome

    pool = ThreadPoolExecutor(min(connections, len(splits)), thread_name_prefix="split")
    futures = [pool.submit(run_one, split) for split in splits]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [f for f in done if f.exception() is not None]
        if failed:
            raise failed[0].exception() or AssertionError("no error")
        return sorted((f.result() for f in futures), key=lambda r: r.index)
    finally:
        stop.set()
        if any(not f.done() for f in futures):
            for future in futures:
                future.cancel()
            _cancel(context, group)
        pool.shutdown(wait=True, cancel_futures=True)


def _collect(
    context: SparkContext,
    split: Split,
    run: Callable[[Split], SplitResult | SplitFailure],
    stop: threading.Event,
) -> SplitResult | SplitFailure:
    """Run one split as a Spark job; a lost worker costs one try, also where Spark gives it none.

    A local master without retries, such as ``local[2]``, fails a job with its first lost worker.
    What that worker had staged is dropped at the end by `stray_uploads`.
    """
    for last in (False, True):
        try:
            [outcome] = context.parallelize([split], 1).map(run).collect()
        except Exception as error:
            mapped = spark_error(error, context)
            if mapped is error:
                raise
            if last or stop.is_set() or not isinstance(mapped, Interrupted):
                raise mapped from error
            logger.warning("split %d: %s; reading it again", split.index, mapped)
        else:
            found: SplitResult | SplitFailure = outcome
            return found
    raise AssertionError("unreachable")


def _run_on_executor(
    task: SplitTask, addressing: dict[str, str], split: Split
) -> SplitResult | SplitFailure:
    os.environ.update(addressing)
    try:
        return task.run(split, Progress())
    except MemoryError:
        text = f"split {split.index}: a Python worker ran out of memory"
        return SplitFailure("WorkerOutOfMemory", text)
    except ExtractError as error:
        return SplitFailure(type(error).__name__, str(error))
    except Exception as error:  # noqa: BLE001 - Spark would try a defect again, and call it a death
        traceback.print_exc()
        name = type(error).__name__
        return SplitFailure(
            "ExtractError",
            f"split {split.index}: unexpected {name}: a defect in extract-jobs; the executor's log "
            "has the traceback",
        )


def _cancel(context: SparkContext, group: str) -> None:
    try:
        context.cancelJobGroup(group)
    except Exception:  # noqa: BLE001 - as above
        logger.warning("could not cancel the remaining splits: Spark is gone")


def stray_uploads(task: SplitTask, kept: Sequence[WrittenFile]) -> int:
    """Abort what this worker staged and does not keep, such as files of a task that was retried.

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
