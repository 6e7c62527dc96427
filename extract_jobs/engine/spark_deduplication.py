"""Finds rows that are already committed, with Spark, when they are too many for one process.

Spark joins the keys of the source's rows with those of committed rows, and groups the matches by
the split that reads them: no process ever holds more keys than one split has rows.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.commit.deduplication import MAX_IN_MEMORY, CommittedRows, RowKey, read_keys
from extract_jobs.engine.split_task import ADDRESSING, SplitFailure, SplitTask
from extract_jobs.engine.unchanged_archives import keep_unchanged_archives
from extract_jobs.errors import ConfigError
from extract_jobs.sources import DataFrameReader, Reader
from extract_jobs.sources.splits import Split
from extract_jobs.spark.session import spark_error
from extract_jobs.storage import WrittenFile
from extract_jobs.watermark import Interval

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import DataFrame, SparkSession

Batches = Iterable[pa.RecordBatch]


def committed_by_split(
    context: SparkContext,
    task: SplitTask,
    splits: Sequence[Split],
    *,
    files: Sequence[WrittenFile],
    covered: Sequence[Interval],
    key: RowKey,
    connections: int,
) -> Callable[[Split], CommittedRows]:
    """Return a function from a split to its rows that are already committed.

    Reads the key columns of every split once, in the attempt's snapshot, before the splits
    themselves are read.

    Args:
        context: A running Spark.
        task: Reads splits, and knows how files hold their values.
        splits: All of the attempt.
        files: Live files that may hold such rows.
        covered: Intervals that contain such rows.
        key: What identifies a row.
        connections: Most splits read at a time.

    Raises:
        ConfigError: The source reads through Spark: reading a key twice, each time in another
            snapshot, proves nothing.
        ExtractError: Spark failed.
    """
    from pyspark import StorageLevel
    from pyspark.sql import SparkSession

    session = SparkSession.builder.getOrCreate()
    reader, transform = _reader(task).only(key.columns), task.transform
    uri, open_storage = task.target.uri, task.open_storage

    addressing = {name: os.environ[name] for name in ADDRESSING if name in os.environ}

    def keys_of_files(batches: Batches) -> Batches:
        keep_unchanged_archives()
        os.environ.update(addressing)
        for file in _unpacked(batches):
            yield pa.record_batch([_small(read_keys(file, covered, key, open_storage(uri)))], ["k"])

    def keys_of_splits(batches: Batches) -> Batches:
        keep_unchanged_archives()
        for split in _unpacked(batches):
            for batch in reader.read(split):
                keys = _small(key.of_batch(batch, transform, checked=False).drop_null())
                indexes = pa.repeat(pa.scalar(split.index, pa.int32()), len(keys))
                yield pa.record_batch([keys, indexes], ["k", "s"])

    def packed(batches: Batches) -> Batches:
        for batch in batches:
            for index in batch.column(1).unique():
                keys = batch.filter(pc.equal(batch.column(1), index)).column(0)
                data = pickle.dumps(keys.cast(pa.large_binary()))
                yield pa.record_batch(
                    [pa.array([index.as_py()], pa.int32()), pa.array([data])], ["s", "keys"]
                )

    try:
        old = _spread(session, files, 4 * connections).mapInArrow(keys_of_files, "k binary")
        new = _spread(session, splits, connections).mapInArrow(keys_of_splits, "k binary, s int")
        both = new.join(old, "k", "left_semi").repartition(len(splits), "s")
        found = both.mapInArrow(packed, "s int, keys binary").persist(StorageLevel.DISK_ONLY)
        found.count()
    except Exception as error:
        raise _as_raised(error, context) from error

    def of_split(split: Split) -> CommittedRows:
        try:
            rows = found.where(found.s == split.index).select("keys").collect()
        except Exception as error:
            raise _as_raised(error, context) from error
        arrays = [pickle.loads(bytes(row.keys)) for row in rows]  # noqa: S301 - packed above
        return CommittedRows.of(key, arrays)

    return of_split


def _reader(task: SplitTask) -> Reader:
    if task.reader is None or isinstance(task.reader, DataFrameReader):
        raise ConfigError(
            f"the interval overlaps more than {MAX_IN_MEMORY} rows that are already committed, "
            "too many for columns.key to deduplicate in a source that reads through Spark; "
            "nothing was written. Reduce watermark.lag, accept duplicates with "
            "watermark.duplicates: accept, or replace whole partitions with write_mode "
            "overwrite_partitions"
        )
    return task.reader


def _as_raised(error: Exception, context: SparkContext) -> BaseException:
    """Return the error that an executor raised, which Spark returns as a traceback's text."""
    found = re.search(r"^extract_jobs\.errors\.(\w+): (.+)$", str(error), re.MULTILINE)
    return SplitFailure(found[1], found[2]).error() if found else spark_error(error, context)


def _spread(session: SparkSession, items: Sequence[Any], partitions: int) -> DataFrame:
    """Return a DataFrame of pickled items, in at most that many partitions."""
    rows = [(bytearray(pickle.dumps(item)),) for item in items]
    slices = max(1, min(partitions, len(rows)))
    return session.createDataFrame(session.sparkContext.parallelize(rows, slices), "item binary")


def _unpacked(batches: Batches) -> Iterator[Any]:
    for batch in batches:
        for item in batch.column(0).to_pylist():
            yield pickle.loads(item)  # noqa: S301 - pickled by `_spread`


def _small(keys: pa.Array) -> pa.Array:
    """Return keys as Spark's ``binary``, whose offsets have 32 bits."""
    return keys.cast(pa.binary())
