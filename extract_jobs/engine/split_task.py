"""What is done with each split, wherever it is read: its batches become staged Parquet files."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs import errors
from extract_jobs.commit.deduplication import CommittedRows
from extract_jobs.commit.merge_keys import KeyCollector, Keys, MergeKey
from extract_jobs.engine.value_limit import ValueLimit
from extract_jobs.errors import ExtractError, WorkerOutOfMemory, as_reported
from extract_jobs.parquet.writer import PartitionedWriter
from extract_jobs.reporting.progress import Progress
from extract_jobs.sources import DataFrameReader, Reader
from extract_jobs.sources.splits import Split
from extract_jobs.spec.parts import TargetSpec
from extract_jobs.storage import OpenStorage, WrittenFile
from extract_jobs.transform.transform import Transform
from extract_jobs.watermark import WatermarkType, WatermarkValue, watermark_value

logger = logging.getLogger(__name__)

ADDRESSING = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Variables that say where storage is. Executors take them from the driver, but have their own
credentials."""

READ_TRIES = 3
"""How often a split is read when its connection breaks."""


@dataclass(frozen=True)
class SplitResult:
    """The result of one split.

    Attributes:
        index: The split's.
        rows: Rows that the source yielded.
        files: What was staged.
        nulled: Number of values that became NULL because ``lossy_types`` allowed it, by column.
        null_watermark_rows: Rows whose watermark column was NULL.
        repeated_rows: Rows that are in no file because they are already committed.
        rejected_rows: Rows that did not parse and that the source set aside; not in ``rows``.
        greatest: Greatest value of the watermark column, where the task follows it.
        truncated: Number of timestamps that lost their digits below microseconds, by column.
        keys: Of the rows, where they are merged.
    """

    index: int
    rows: int
    files: tuple[WrittenFile, ...]
    nulled: dict[str, int] = field(default_factory=dict)
    null_watermark_rows: int = 0
    repeated_rows: int = 0
    rejected_rows: int = 0
    greatest: WatermarkValue | None = None
    truncated: dict[str, int] = field(default_factory=dict)
    keys: Keys | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class SplitFailure:
    """An error of a task, returned as data: Spark would only pass on its text, and would retry."""

    class_name: str
    message: str

    def error(self) -> ExtractError:
        """Return the error as it was raised on the executor."""
        found = getattr(errors, self.class_name, ExtractError)
        if not (isinstance(found, type) and issubclass(found, ExtractError)):
            found = ExtractError
        return found(self.message)


Results = tuple[SplitResult, ...]
"""One result per split that a task ran. Files that several splits share are in the last one's."""


@dataclass(frozen=True)
class SplitTask:
    """Stages a split's rows as Parquet. Picklable; the same in process and on Spark.

    Attributes:
        reader: Reads the rows of the attempt's splits; None where batches are passed in.
        transform: From source batches to file batches.
        target: Where and how files are written.
        file_prefix: Start of every file name: run, attempt and this worker's own token.
        metadata: Key-value metadata of every file.
        open_storage: Called in the process that runs the task.
        watermark_column: Column whose NULLs are counted; None counts nothing.
        follows: The watermark's type, where its greatest value is wanted.
        committed: Rows that are already committed and are not written again; None for none.
        spill_folder: Where rows wait on a worker's disk; None is its folder for temporary files.
        value_limit: Maximum size of a value; None for any size.
        key: What rows are merged by; None if they are not.
        shares_files: Whether the splits that are run together share one set of files.
    """

    reader: Reader | DataFrameReader | None
    transform: Transform
    target: TargetSpec
    file_prefix: str
    metadata: dict[str, str]
    open_storage: OpenStorage
    watermark_column: str | None = None
    follows: WatermarkType | None = None
    committed: CommittedRows | None = None
    spill_folder: str | None = None
    value_limit: ValueLimit | None = None
    key: MergeKey | None = None
    shares_files: bool = False

    def stage(
        self,
        split: Split,
        batches: Iterable[pa.RecordBatch],
        nulled: Callable[[], Mapping[str, int]],
        progress: Progress,
    ) -> SplitResult:
        """Write a split's batches to staged files.

        Nothing stays staged when this raises.

        Args:
            split: Whose rows they are.
            batches: As the source returns them.
            nulled: Called after the last batch: number of values that became NULL, by column.
            progress: Notified after every batch.

        Raises:
            ExtractError: As the batches and `PartitionedWriter` raise.
        """
        with self.open_writer(split.index) as writer:
            result = self.write(writer, split, batches, nulled, progress)
            result = replace(result, files=tuple(writer.close()))
        size = sum(f.staged.size for f in result.files)
        progress.split(split.index, result.rows, size, done=True)
        return result

    def write(
        self,
        writer: PartitionedWriter,
        split: Split,
        batches: Iterable[pa.RecordBatch],
        nulled: Callable[[], Mapping[str, int]],
        progress: Progress,
    ) -> SplitResult:
        """Pass a split's batches to a writer from `open_writer`; the result has no files yet.

        The other arguments are those of `stage`.

        Raises:
            ExtractError: As the batches and the writer raise.
        """
        rows = nulls = repeated = 0
        greatest: Any = None
        collector = KeyCollector(self.key) if self.key else None
        for batch in batches:
            if self.value_limit:
                self.value_limit.check(batch, split, rows)
            fresh = batch
            if self.committed:
                fresh = self.committed.without(batch, self.transform)
                repeated += batch.num_rows - fresh.num_rows
            if collector:
                collector.add(batch, self.transform)
            writer.write(fresh)
            rows += batch.num_rows
            if self.watermark_column:
                nulls += batch.column(self.watermark_column).null_count
            if self.watermark_column and self.follows:
                greatest = _greater(greatest, batch.column(self.watermark_column))
            progress.split(split.index, rows, writer.bytes, done=False)
        value = None
        if self.follows and greatest is not None:
            value = watermark_value(self.follows, greatest)
        return SplitResult(
            split.index, rows, (), dict(nulled()), nulls, repeated,
            greatest=value, keys=collector.keys() if collector else None,
        )  # fmt: skip

    @contextmanager
    def open_writer(self, index: int) -> Iterator[PartitionedWriter]:
        """Yield a writer, and abort it on any exception."""
        writer = self.writer(index)
        try:
            yield writer
        except BaseException:
            writer.abort()
            raise

    def abort(self, results: Iterable[SplitResult]) -> None:
        """Abort the files of some splits."""
        storage = self.open_storage(self.target.uri)
        for result in results:
            for file in result.files:
                storage.abort(self.target.uri, file.staged)

    def writer(self, index: int) -> PartitionedWriter:
        """Return a writer whose files are named after a split: its own, or the first of a slice."""
        return PartitionedWriter(
            self.open_storage(self.target.uri),
            self.target,
            self.transform,
            file_prefix=f"{self.file_prefix}-{index:05d}",
            metadata=self.metadata,
            spill_folder=self.spill_folder,
        )


def _greater(greatest: Any, column: pa.Array) -> Any:
    """Return the greater of a value and an array's greatest; of times the UTC wall clock."""
    found = pc.max(column)
    if pa.types.is_timestamp(found.type):
        found = found.cast(pa.timestamp("us"))
    value = found.as_py()
    if value is None or greatest is None:
        return greatest if value is None else value
    return max(greatest, value)


def described(unit: Sequence[Split]) -> str:
    """Return how messages name some splits: ``split 3``, or ``splits 3 to 9``."""
    first, last = unit[0].index, unit[-1].index
    return f"split {first}" if first == last else f"splits {first} to {last}"


def outcome_of(run: Callable[[], Results], unit: Sequence[Split]) -> Results | SplitFailure:
    """Run a task on an executor; return what it raises as data."""
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - Spark would try a defect again, and call it a death
        found = as_reported(error)
        if isinstance(found, WorkerOutOfMemory) and found is not error:
            text = f"{described(unit)}: a Python worker ran out of memory"
            return SplitFailure("WorkerOutOfMemory", text)
        if isinstance(found, ExtractError):
            return SplitFailure(type(found).__name__, str(found))
        traceback.print_exc()
        name = type(error).__name__
        return SplitFailure(
            "ExtractError",
            f"{described(unit)}: unexpected {name}: a defect in extract-jobs; the worker's log has "
            "the traceback",
        )
