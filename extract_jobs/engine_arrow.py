"""Runs a split of an Arrow source: in this process, or as a Spark job of one task."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from extract_jobs.errors import Interrupted, SourceUnavailable
from extract_jobs.sources import Reader
from extract_jobs.spark import spark_error
from extract_jobs.split_task import (
    ADDRESSING,
    READ_TRIES,
    Progress,
    SplitFailure,
    SplitResult,
    SplitTask,
    outcome_of,
)
from extract_jobs.splits import Split

if TYPE_CHECKING:
    from pyspark import SparkContext

logger = logging.getLogger(__name__)


def run_in_process(
    task: SplitTask, reader: Reader, split: Split, progress: Progress
) -> SplitResult:
    """Extract one split; a broken connection is tried again in the same snapshot.

    Nothing stays staged when this raises.

    Raises:
        ExtractError: As `Reader.read` and `PartitionedWriter` raise.
    """
    for attempt in range(1, READ_TRIES + 1):
        try:
            with closing(reader.read(split)) as batches:  # type: ignore[type-var]
                return task.stage(split, batches, lambda: reader.nulled, progress)
        except SourceUnavailable as error:
            if attempt == READ_TRIES:
                raise
            logger.warning("split %d, try %d: %s; trying again", split.index, attempt, error)
            time.sleep(attempt)  # the server may be restarting its backends
    raise AssertionError("unreachable")


def run_on_spark(
    task: SplitTask, reader: Reader, split: Split, context: SparkContext, stop: threading.Event
) -> SplitResult | SplitFailure:
    """Run one split as a Spark job; a lost worker costs one try, also where Spark gives it none.

    A local master without retries, such as ``local[2]``, fails a job with its first lost worker.
    What that worker had staged is dropped at the end by `extract_jobs.engine.stray_uploads`.

    Raises:
        Interrupted: Spark lost its worker, or itself.
        WorkerOutOfMemory: A worker ran out of memory.
    """
    addressing = {name: os.environ[name] for name in ADDRESSING if name in os.environ}
    run = partial(_run_on_executor, task, reader, addressing)
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
    task: SplitTask, reader: Reader, addressing: dict[str, str], split: Split
) -> SplitResult | SplitFailure:
    os.environ.update(addressing)
    return outcome_of(lambda: run_in_process(task, reader, split, Progress()), split)
