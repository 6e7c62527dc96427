"""Runs splits of an Arrow source: in this process, or as a Spark job of one task."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from extract_jobs.engine.pandas_free import pandas_is_skipped, skip_pandas
from extract_jobs.engine.split_task import (
    ADDRESSING,
    READ_TRIES,
    Results,
    SplitFailure,
    SplitResult,
    SplitTask,
    described,
    outcome_of,
)
from extract_jobs.engine.unchanged_archives import keep_unchanged_archives
from extract_jobs.errors import ExtractError, Interrupted, SourceUnavailable
from extract_jobs.parquet.writer import PartitionedWriter
from extract_jobs.reporting.progress import Progress
from extract_jobs.sources import Reader, SessionReader
from extract_jobs.sources.splits import Split
from extract_jobs.spark.session import spark_error

if TYPE_CHECKING:
    from pyspark import SparkContext

logger = logging.getLogger(__name__)


def run_in_process(
    task: SplitTask, reader: Reader, unit: Sequence[Split], progress: Progress
) -> Results:
    """Extract some splits, one after the other; see `SplitTask.shares_files`.

    A split whose connection breaks is read again in the same snapshot: its rows so far are
    discarded, those of earlier splits stay. Nothing stays staged when this raises.

    Raises:
        ExtractError: As `Reader.read` and `PartitionedWriter` raise.
    """
    if not task.shares_files or len(unit) == 1:
        staged: list[SplitResult] = []
        try:
            for split in unit:
                result = _tried(split, partial(_staged, task, reader, split, progress))
                staged.append(result)
        except BaseException:
            with suppress(ExtractError):  # `abort_leftover_uploads` drops what is left
                task.abort(staged)
            raise
        return tuple(staged)
    with task.open_writer(unit[0].index) as writer:
        results = [
            _tried(split, partial(_whole, task, reader, writer, split, progress)) for split in unit
        ]
        return (*results[:-1], replace(results[-1], files=tuple(writer.close())))


def one_session(reader: object) -> AbstractContextManager[None]:
    """Return a context in which a reader reads its splits over one connection, if it can."""
    return reader.one_session() if isinstance(reader, SessionReader) else nullcontext()


def _staged(task: SplitTask, reader: Reader, split: Split, progress: Progress) -> SplitResult:
    with closing(reader.read(split)) as batches:  # type: ignore[type-var]
        return _counted(task.stage(split, batches, lambda: reader.nulled, progress), reader)


def _whole(
    task: SplitTask, reader: Reader, writer: PartitionedWriter, split: Split, progress: Progress
) -> SplitResult:
    with (
        writer.whole(),
        closing(reader.read(split)) as batches,  # type: ignore[type-var]
    ):
        return _counted(task.write(writer, split, batches, lambda: reader.nulled, progress), reader)


def _counted(result: SplitResult, reader: Reader) -> SplitResult:
    """Return a result with what only readers of files count: rows set aside, digits cut off."""
    rejected, truncated = getattr(reader, "rejected_rows", 0), getattr(reader, "truncated", {})
    return replace(result, rejected_rows=rejected, truncated=dict(truncated))


def _tried(split: Split, run: Callable[[], SplitResult]) -> SplitResult:
    for attempt in range(1, READ_TRIES + 1):
        try:
            return run()
        except SourceUnavailable as error:
            if attempt == READ_TRIES:
                raise
            logger.warning("split %d, try %d: %s; trying again", split.index, attempt, error)
            time.sleep(attempt)  # the server may be restarting its backends
    raise AssertionError("unreachable")


def run_on_spark(
    task: SplitTask,
    reader: Reader,
    unit: Sequence[Split],
    context: SparkContext,
    stop: threading.Event,
) -> Results | SplitFailure:
    """Run some splits as a Spark job; a lost worker costs one try, with or without Spark's retries.

    A local master without retries, such as ``local[2]``, fails a job with its first lost worker.
    What that worker had staged is dropped at the end by `run_splits.abort_leftover_uploads`.

    Raises:
        Interrupted: Spark lost its worker, or itself.
        WorkerOutOfMemory: A worker ran out of memory.
    """
    addressing = {name: os.environ[name] for name in ADDRESSING if name in os.environ}
    run = partial(_run_on_executor, task, reader, addressing, pandas_is_skipped())
    for last in (False, True):
        try:
            [outcome] = context.parallelize([unit], 1).map(run).collect()
        except Exception as error:
            mapped = spark_error(error, context)
            if mapped is error:
                raise
            if last or stop.is_set() or not isinstance(mapped, Interrupted):
                raise mapped from error
            logger.warning("%s: %s; reading again", described(unit), mapped)
        else:
            found: Results | SplitFailure = outcome
            return found
    raise AssertionError("unreachable")


def _run_on_executor(
    task: SplitTask,
    reader: Reader,
    addressing: dict[str, str],
    without_pandas: bool,
    unit: Sequence[Split],
) -> Results | SplitFailure:
    keep_unchanged_archives()
    if without_pandas:
        skip_pandas()
    os.environ.update(addressing)
    with one_session(reader):
        return outcome_of(lambda: run_in_process(task, reader, unit, Progress()), unit)
