"""A sample: the first rows that a source returns, read as one split, without a held snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from extract_jobs.errors import ExtractError
from extract_jobs.sources import Conform, DataFrameReader, Reader, Snapshot
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import SplitSpec

if TYPE_CHECKING:
    from collections.abc import Generator

    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class LimitedSnapshot:
    """A snapshot of which at most some rows are read, over one connection.

    Attributes:
        whole: The snapshot.
        rows: Maximum rows.
    """

    whole: Snapshot
    rows: int

    @property
    def shared(self) -> bool:
        """Whether `count` would see what is read: never, since it would see all rows."""
        return False

    @property
    def reader(self) -> Reader | DataFrameReader:
        """The reader of the first rows."""
        reader = self.whole.reader
        if isinstance(reader, DataFrameReader):
            return LimitedDataFrameReader(reader, self.rows)
        return LimitedReader(reader, self.rows)

    def splits(self, spec: ExtractSpec) -> Sequence[Split]:
        """Return one split of all rows: every source has the strategy ``none``."""
        one = SplitSpec(**{**spec.split.model_dump(), "strategy": "none", "column": None})
        return self.whole.splits(spec.model_copy(update={"split": one}))

    def count(self) -> int | None:
        """Count nothing: the source's rows are not those of a sample."""
        return None

    def check(self) -> None:
        """Check the snapshot. See `extract_jobs.sources.Snapshot.check`."""
        self.whole.check()


@dataclass(frozen=True)
class LimitedReader:
    """Reads the first rows of a split.

    Attributes:
        whole: The reader of all of them.
        rows: Maximum rows.
    """

    whole: Reader
    rows: int

    @property
    def nulled(self) -> Mapping[str, int]:
        """Values that became NULL in the batches read, including rows cut off the last one."""
        return self.whole.nulled

    def only(self, columns: Sequence[str]) -> LimitedReader:
        """Read some columns only. See `extract_jobs.sources.Reader.only`."""
        return LimitedReader(self.whole.only(columns), self.rows)

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        """Yield the first rows, then disconnect. See `extract_jobs.sources.Reader.read`."""
        left = self.rows
        with closing(cast("Generator[pa.RecordBatch]", self.whole.read(split))) as batches:
            for batch in batches:
                yield batch.slice(0, left)
                left -= batch.num_rows
                if left <= 0:
                    return


@dataclass(frozen=True)
class LimitedDataFrameReader:
    """Reads the first rows through Spark.

    Attributes:
        whole: The reader of all of them.
        rows: Maximum rows.
    """

    whole: DataFrameReader
    rows: int

    @property
    def conform(self) -> Conform:
        """What executors do with each batch."""
        return self.whole.conform

    def dataframe(self, spark: SparkSession, splits: Sequence[Split]) -> DataFrame:
        """Return the first rows, as one Spark partition."""
        return self.whole.dataframe(spark, splits).coalesce(1).limit(self.rows)

    def error(self, error: Exception) -> ExtractError | None:
        """Return what an exception means to the source."""
        return self.whole.error(error)
