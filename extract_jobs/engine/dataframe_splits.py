"""Runs splits of a DataFrame source: a Spark job of one task, from Spark's rows to Parquet files.

Spark reads the rows in its JVM and hands them to a Python worker as Arrow batches (`mapInArrow`).
The worker treats them like the batches of any source, and answers with one row of one binary
column: the pickled `Results`, or `SplitFailure`.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

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
from extract_jobs.reporting.progress import Progress
from extract_jobs.sources import DataFrameReader
from extract_jobs.sources.splits import Split
from extract_jobs.spark.session import spark_error

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
"""Wait before a split is read again, multiplied by the number of tries so far."""

Batches = Iterable[pa.RecordBatch]


def run_dataframe(
    task: SplitTask,
    reader: DataFrameReader,
    unit: Sequence[Split],
    session: SparkSession,
    stop: threading.Event,
) -> Results | SplitFailure:
    """Run some splits as a Spark job; a lost connection or worker costs one try.

    Several splits are read one after the other and share one set of files; a retry reads all of
    them again, since Spark does not say which split a row came from. Spark's own task retries come
    first, if its master has any. `extract_jobs.engine.run_splits.abort_leftover_uploads` drops at
    the end what a lost worker had staged.

    Raises:
        SourceUnavailable: The connection broke on every try.
        SourceQueryFailed: The source failed the statement.
        Interrupted: Spark lost its worker, or itself.
        WorkerOutOfMemory: A worker ran out of memory.
    """
    for attempt in range(1, READ_TRIES + 1):
        try:
            return _run_once(task, reader, unit, session)
        except Exception as error:
            mapped = _mapped(error, reader, session)
            if mapped is None:
                raise
            may_pass = isinstance(mapped, SourceUnavailable | Interrupted)
            if attempt == READ_TRIES or not may_pass or stop.wait(PAUSE_SECONDS * attempt):
                # Not chained: the text of a JVM's exception may hold rows.
                raise mapped from None
            logger.warning("%s, try %d: %s; trying again", described(unit), attempt, mapped)
    raise AssertionError("unreachable")


def _run_once(
    task: SplitTask, reader: DataFrameReader, unit: Sequence[Split], session: SparkSession
) -> Results | SplitFailure:
    addressing = {name: os.environ[name] for name in ADDRESSING if name in os.environ}
    # Executors receive their rows from Spark, so what they get holds no connection.
    conform, staging = reader.conform, replace(task, reader=None)

    def stage(batches: Batches) -> Iterator[pa.RecordBatch]:
        keep_unchanged_archives()
        os.environ.update(addressing)
        nulled: dict[str, int] = {}

        def conformed() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                found, counts = conform(batch)
                for name, count in counts.items():
                    nulled[name] = nulled.get(name, 0) + count
                yield found

        def run() -> Results:
            result = staging.stage(unit[-1], conformed(), lambda: nulled, Progress())
            return (*(SplitResult(split.index, 0, ()) for split in unit[:-1]), result)

        outcome = outcome_of(run, unit)
        yield pa.record_batch([pa.array([pickle.dumps(outcome)], pa.binary())], ["outcome"])

    one_task = reader.dataframe(session, unit).coalesce(1)
    rows = one_task.mapInArrow(stage, "outcome binary").collect()
    # One Spark partition returns one row; no row means that Spark considered the partition empty.
    [row] = rows
    found: Results | SplitFailure = pickle.loads(bytes(row.outcome))  # noqa: S301 - ours
    return found


def _mapped(
    error: Exception, reader: DataFrameReader, session: SparkSession
) -> ExtractError | None:
    """Return what an error means: the source maps its own, `spark_error` maps Spark's."""
    if isinstance(error, ExtractError):
        return error
    found = reader.error(error)
    if found is not None:
        return found
    mapped = spark_error(error, session.sparkContext)
    return mapped if isinstance(mapped, ExtractError) else None
