"""One Parquet file: how it is encoded, and how its bytes reach storage."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extract_jobs.errors import ReconcileFailed, WriteFailed
from extract_jobs.spec.parts import TargetSpec
from extract_jobs.storage import StagedFile, StagingWriter

_SAMPLE_ROWS = 64 * 1024
_PAGE_ROWS = 100_000
_PAGE_BYTES = 2**20
_WIDE_BYTES = 1024
_HAS_PAGE_ROWS = "max_rows_per_page" in inspect.signature(pq.ParquetWriter).parameters

_CALENDAR = {"org.apache.spark.version": "3.0.0"}
"""Tells Spark that dates are proleptic Gregorian, like Arrow's and its own since 3.0. Without it,
Spark 3 fails on dates before 1582-10-15 and timestamps before 1900
(``INCONSISTENT_BEHAVIOR_CROSS_VERSION.READ_ANCIENT_DATETIME``, SPARK-31404)."""


class _Sink:
    """The file that pyarrow writes to. The writer closes it, never pyarrow.

    Once ``dead`` it discards all writes: an unfinished ParquetWriter's destructor writes a footer.
    """

    closed = False

    def __init__(self, staging: StagingWriter) -> None:
        self.staging = staging
        self.dead = False
        self.size = 0

    def write(self, data: Any) -> int:
        size = len(data)
        if not self.dead:
            self.staging.write(data)
            self.size += size
        return size

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class ParquetFile:
    """One Parquet file being staged.

    Attributes:
        uri: Where it will appear.
        sink: Counts its bytes.
        writer: Encodes row groups into the sink.
        footers: Gets the footer when the writer is closed.
        wide: Columns that are encoded without statistics and dictionary.
        rows: Rows handed in.
    """

    uri: str
    sink: _Sink
    writer: pq.ParquetWriter
    footers: list[pq.FileMetaData]
    wide: frozenset[str]
    rows: int = 0

    @classmethod
    def begin(
        cls,
        staging: StagingWriter,
        uri: str,
        schema: pa.Schema,
        target: TargetSpec,
        *,
        dictionaries: frozenset[str],
        wide: frozenset[str],
        metadata: dict[str, str],
    ) -> ParquetFile:
        """Start a file; what was staged is dropped if that fails.

        Args:
            staging: Takes the bytes.
            uri: Where the file will appear.
            schema: Of every row group.
            target: Its compression.
            dictionaries: Columns to encode with one, see `dictionary_columns`.
            wide: Columns without dictionary and statistics, see `wide_columns`.
            metadata: Key-value metadata.
        """
        sink = _Sink(staging)
        footers: list[pq.FileMetaData] = []
        try:
            with arrow_errors(uri):
                writer = pq.ParquetWriter(
                    sink,
                    schema,
                    use_dictionary=[path for path, _ in _leaves(schema, dictionaries - wide)],
                    write_statistics=_with_statistics(schema, wide),
                    metadata_collector=footers,
                    **_options(target),
                )
                writer.add_key_value_metadata({**_CALENDAR, **metadata})
        except BaseException:
            staging.abort()
            raise
        return cls(uri, sink, writer, footers, wide)

    @property
    def size(self) -> int:
        """Bytes handed to storage so far."""
        return self.sink.size

    def add(self, table: pa.Table) -> None:
        """Write one row group.

        Raises:
            WriteFailed: Storage failed, or the rows cannot be encoded.
        """
        with arrow_errors(self.uri):
            self.writer.write_table(table, row_group_size=table.num_rows)
        self.rows += table.num_rows

    def finish(self) -> StagedFile:
        """Write the footer, check it, and stage what is left.

        Raises:
            ReconcileFailed: The footer's row count differs from the rows handed in.
            WriteFailed: Storage failed.
        """
        with arrow_errors(self.uri):
            self.writer.close()
        [footer] = self.footers
        if footer.num_rows != self.rows:
            raise ReconcileFailed(
                f"{self.uri}: its footer counts {footer.num_rows} rows, {self.rows} were handed "
                "in; nothing was committed, run the extract again"
            )
        return self.sink.staging.close()

    def abort(self) -> None:
        """Drop what was staged; raises nothing."""
        self.sink.dead = True
        # A writer that failed would fail again in its destructor, where nobody can catch it.
        with suppress(Exception):
            self.writer.close()
        self.writer.is_open = False
        self.sink.staging.abort()


def dictionary_columns(table: pa.Table) -> frozenset[str]:
    """Return the columns that a dictionary makes smaller.

    pyarrow tries a dictionary on every column and gives up when it outgrows a page, which costs
    time and leaves a useless dictionary in each row group. TPC-H lineitem at scale 1 on one core,
    zstd 1: every column 3.5 s and 162 MB, none 3.8 s and 179 MB, those chosen here 3.1 s and 151
    MB; with pages of up to 100,000 rows instead of 20,000 2.9 s and 150 MB.

    Args:
        table: The first row group of a writer. A sample, spread over it, decides for all files.
    """
    pieces = 16
    rows = min(table.num_rows, _SAMPLE_ROWS) // pieces
    sample = table
    if table.num_rows > 2 * _SAMPLE_ROWS:
        starts = range(0, table.num_rows - rows, table.num_rows // pieces)
        sample = pa.concat_tables(table.slice(start, rows) for start in starts)
    # Counting would copy wide values; the compressor finds their repeats.
    skipped = wide_columns(sample)
    found = set()
    for column in sample.schema:
        if pa.types.is_nested(column.type):
            found.add(column.name)
        elif not pa.types.is_boolean(column.type) and column.name not in skipped:
            distinct = pc.count_distinct(sample.column(column.name)).as_py()
            if distinct * 5 <= sample.num_rows:
                found.add(column.name)
    return frozenset(found)


def wide_columns(table: pa.Table) -> frozenset[str]:
    """Return the columns whose values are so wide that statistics cost more than they help.

    The encoder copies the least and greatest value of page and row group, 4 times 100 MB for a
    single value of 100 MB, to drop them in the end: it keeps none above 4 KiB.
    """
    limit = _WIDE_BYTES * table.num_rows
    if table.nbytes <= limit:
        return frozenset()
    return frozenset(name for name in table.schema.names if table.column(name).nbytes > limit)


def _with_statistics(schema: pa.Schema, wide: frozenset[str]) -> list[str]:
    """Return the Parquet paths of the columns that get statistics.

    Floats get none. In Parquet, minimum and maximum leave NaN out, and readers that skip row groups
    by them lose rows: of 1, 2 and NaN, DuckDB answers ``x > 100`` with no row and ``max(x)`` with
    2; without statistics both find NaN.
    """
    leaves = _leaves(schema, set(schema.names) - wide)
    return [path for path, data_type in leaves if not pa.types.is_floating(data_type)]


def _leaves(schema: pa.Schema, names: Iterable[str]) -> Iterator[tuple[str, pa.DataType]]:
    """Yield Parquet path and type of every leaf of the columns."""
    for name in names:
        yield from _leaves_of(name, schema.field(name).type)


def _leaves_of(path: str, data_type: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        yield from _leaves_of(f"{path}.list.element", data_type.value_type)
    elif pa.types.is_map(data_type):
        yield from _leaves_of(f"{path}.key_value.key", data_type.key_type)
        yield from _leaves_of(f"{path}.key_value.value", data_type.item_type)
    elif pa.types.is_struct(data_type):
        for field in data_type:
            yield from _leaves_of(f"{path}.{field.name}", field.type)
    else:
        yield path, data_type


def _options(target: TargetSpec) -> dict[str, Any]:
    options: dict[str, Any] = {
        "compression": target.compression,
        # Measured on lineitem: zstd 1 gives 150 MB; snappy 213 MB and zstd -1 163 MB in the same
        # time, within noise.
        "compression_level": 1 if target.compression == "zstd" else None,
        "store_schema": True,
        # INT32 and INT64 up to 18 digits, as Spark writes them: smaller and faster than bytes.
        "store_decimal_as_integer": True,
        "data_page_size": _PAGE_BYTES,
        # Costs 0.2 s of CPU for 150 MB of Arrow (13 % of the encoding), and to verify 0.03 s.
        "write_page_checksum": True,
    }
    if _HAS_PAGE_ROWS:
        options["max_rows_per_page"] = _PAGE_ROWS
    return options


@contextmanager
def arrow_errors(uri: str) -> Iterator[None]:
    """Map Arrow's errors to WriteFailed; errors of storage pass through."""
    try:
        yield
    except MemoryError:  # Arrow's is both
        raise
    except pa.ArrowException as error:
        # Arrow's message may quote a value.
        raise WriteFailed(
            f"{uri}: its rows could not be encoded as Parquet ({type(error).__name__}); nothing "
            "was committed"
        ) from None
