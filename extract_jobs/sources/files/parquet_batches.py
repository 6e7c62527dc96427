"""Row groups of Parquet as batches of bounded bytes, even if a dictionary has wide values.

A dictionary stores a value once and each row as its number, so 900 bytes of a file may stand for
gigabytes of rows, and no size in the footer shows that. So the dictionaries of a row group are
read first. A column whose rows could be too wide is read as numbers and a dictionary, and only
small enough parts of a batch are turned into values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_SURELY_SMALL = 32 * 2**20
"""If one column of a batch cannot take more, its dictionary is not examined."""
_LOOKED_AT = 2**20
"""Bytes that are read at a time when a dictionary is examined."""


def open_parquet(
    file: IO[bytes],
    metadata: pq.FileMetaData,
    *,
    dictionaries: Sequence[str] = (),
    buffer_bytes: int = 0,
) -> pq.ParquetFile:
    """Open a file, with page checksums verified and INT96 read in microseconds.

    Arrow's own unit for INT96 is nanoseconds, in which years before 1678 and after 2261 silently
    wrap around; 9999-12-31 is a common value.

    Args:
        file: The file.
        metadata: Its footer.
        dictionaries: Columns that are read as numbers and a dictionary.
        buffer_bytes: Bytes of a column to read at a time; 0 reads all of them at once.
    """
    return pq.ParquetFile(
        file,
        metadata=metadata,
        pre_buffer=False,
        page_checksum_verification=True,
        coerce_int96_timestamp_unit="us",
        read_dictionary=list(dictionaries),
        buffer_size=buffer_bytes,
    )


def bounded_batches(
    file: IO[bytes], opened: pq.ParquetFile, group: int, names: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group, at most ``rows`` at a time, columns in the file's order.

    Columns of wide values come as dictionaries: see `small_parts`.

    Args:
        file: The file.
        opened: The same file, opened.
        group: The row group.
        names: Columns that are read.
        rows: Maximum rows of a batch, if no dictionary has wide values.
    """
    wide = _wide_dictionaries(file, opened, group, names, rows)
    if not wide:
        yield from opened.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)
        return
    with open_parquet(file, opened.metadata, dictionaries=wide) as again:
        yield from again.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)


def small_parts(batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """Yield a batch in parts whose dictionary columns, once decoded, take at most ``most`` bytes.

    A single row may take more.
    """
    widths = np.zeros(batch.num_rows, np.int64)
    for values in batch.columns:
        if pa.types.is_dictionary(values.type) and _has_length(values.type.value_type):
            lengths = pc.binary_length(values.dictionary)
            taken = lengths.take(values.indices).fill_null(0)
            widths += taken.to_numpy(zero_copy_only=False)
    if int(widths.sum()) <= most:
        yield batch
        return
    ends, start = np.cumsum(widths), 0
    while start < batch.num_rows:
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield batch.slice(start, end - start)
        start = end


def _wide_dictionaries(
    file: IO[bytes], opened: pq.ParquetFile, group: int, names: Sequence[str], rows: int
) -> list[str]:
    """Return the columns whose values could take too much memory in such a batch."""
    about, wanted = opened.metadata.row_group(group), frozenset(names)
    types = dict(zip(opened.schema_arrow.names, opened.schema_arrow.types, strict=True))
    rows = min(rows, about.num_rows)
    asked = []
    leaves = opened.schema
    for position in range(about.num_columns):
        name = leaves.column(position).path
        if name not in wanted or not _has_length(types[name]):
            continue  # Arrow must not be asked about a chunk that is encrypted
        chunk = about.column(position)
        if chunk.has_dictionary_page and chunk.total_uncompressed_size * rows > _SURELY_SMALL:
            asked.append(name)
    if not asked:
        return []
    metadata = opened.metadata
    with open_parquet(file, metadata, dictionaries=asked, buffer_bytes=_LOOKED_AT) as looking:
        batches = looking.iter_batches(1, row_groups=[group], columns=asked, use_threads=False)
        first = next(batches, None)
        if first is None:
            return []
        return [
            name
            for name, values in zip(first.schema.names, first.columns, strict=True)
            if _longest(values) * rows > _SURELY_SMALL
        ]


def _longest(values: pa.Array) -> int:
    """Return the bytes of a dictionary's longest value."""
    if not pa.types.is_dictionary(values.type):
        return 0
    return int(pc.max(pc.binary_length(values.dictionary)).as_py() or 0)


def _has_length(data_type: pa.DataType) -> bool:
    types = pa.types
    texts = types.is_string(data_type) or types.is_large_string(data_type)
    return bool(texts or types.is_binary(data_type) or types.is_large_binary(data_type))
