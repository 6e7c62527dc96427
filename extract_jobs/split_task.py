"""What is done with one split wherever it is read: its batches become staged Parquet files."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from extract_jobs import errors
from extract_jobs.committed import CommittedRows
from extract_jobs.errors import ExtractError
from extract_jobs.parquet import PartitionedWriter
from extract_jobs.sources import DataFrameReader, Reader
from extract_jobs.spec import TargetSpec
from extract_jobs.splits import Split
from extract_jobs.storage import OpenStorage, WrittenFile
from extract_jobs.transform import Transform

logger = logging.getLogger(__name__)

ADDRESSING = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Variables that say where storage is. Executors take them from the driver; their credentials are
their own."""

READ_TRIES = 3
"""How often a split is read when its connection breaks."""


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
    """Stages a split's rows as Parquet. Picklable; the same in process and on Spark.

    Attributes:
        reader: Gives the rows of the attempt's splits; None where they are handed in.
        transform: From source batches to file batches.
        target: Where and how files are written.
        file_prefix: Begins the name of every file: run, attempt and this worker's own token.
        metadata: Key-value metadata of every file.
        open_storage: Called in the process that runs the task.
        watermark_column: Its NULLs are counted; None counts nothing.
        committed: Rows that are committed already, and so not written again; None for none.
    """

    reader: Reader | DataFrameReader | None
    transform: Transform
    target: TargetSpec
    file_prefix: str
    metadata: dict[str, str]
    open_storage: OpenStorage
    watermark_column: str | None = None
    committed: CommittedRows | None = None

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
            batches: As the source gives them.
            nulled: Asked when the batches are at their end: values that became NULL, by column.
            progress: Told after every batch.

        Raises:
            ExtractError: As the batches and `PartitionedWriter` raise.
        """
        writer = self.writer(split.index)
        rows = nulls = repeated = 0
        try:
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
        return SplitResult(split.index, rows, files, dict(nulled()), nulls, repeated)

    def writer(self, index: int) -> PartitionedWriter:
        """Return a writer for the files of the split with that index."""
        return PartitionedWriter(
            self.open_storage(self.target.uri),
            self.target,
            self.transform,
            file_prefix=f"{self.file_prefix}-{index:05d}",
            metadata=self.metadata,
        )


def outcome_of(run: Callable[[], SplitResult], split: Split) -> SplitResult | SplitFailure:
    """Run a task on an executor; what it raises comes back as data."""
    try:
        return run()
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
