"""Row groups of Parquet as batches of bounded bytes, whatever a file makes of few bytes.

A dictionary stores a value once and each row as its number, and a run of equal values takes a few
bytes whatever its length, so 900 bytes of a file may stand for gigabytes of rows, and no size in
the footer shows that. So batches are sized by what their types take in memory, and the
dictionaries of a row group are read first. A column whose rows could be too wide is read as numbers
and a dictionary, and only small enough parts of a batch are turned into values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from extract_jobs.parquet_footer import Chunk, Footer
from extract_jobs.transform.sizes import value_sizes

BATCH_BYTES = 16 * 2**20
"""Arrow bytes of a batch, estimated from the row group's uncompressed size."""
_MOST_ROWS = 100_000
_SURELY_SMALL = 32 * 2**20
"""If one column of a batch cannot take more, its dictionary is not examined."""
_FIXED_BYTES = 64 * 2**20
"""Of a batch, for values whose type says what they take. With many columns, small ones are slow."""
_LOOKED_AT = 2**20
"""Bytes that are read at a time when a dictionary is examined."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}
"""Bytes of a value in Arrow by physical type; of others 8, that is, of text what locates it."""


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
        dictionaries: Leaf columns that are read as numbers and a dictionary.
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


@dataclass(frozen=True)
class _Leaf:
    """A leaf column that is read.

    Attributes:
        path: As the file names it.
        a_row: Values a row, on average, and at least 1.
        width: Bytes of a value besides its text.
        dictionary_bytes: Most that its dictionary of texts has; 0 if it has none.
    """

    path: str
    a_row: float
    width: int
    dictionary_bytes: int


def bounded_batches(
    file: IO[bytes],
    opened: pq.ParquetFile,
    footer: Footer,
    group: int,
    names: Sequence[str],
    *,
    absent_bytes: int = 0,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group, columns in the file's order.

    Columns of wide values come as dictionaries: see `small_parts`.

    Args:
        file: The file.
        opened: The same file, opened.
        footer: Its footer.
        group: The row group.
        names: Columns that are read.
        absent_bytes: What a row takes in columns that the file lacks.
    """
    about = opened.metadata.row_group(group)
    leaves = list(_leaves(opened, footer.groups[group], about.num_rows, names))
    encoded = about.total_byte_size / max(1, about.num_rows)
    fixed = sum(leaf.width * leaf.a_row for leaf in leaves) + absent_bytes
    rows = int(min(_MOST_ROWS, BATCH_BYTES // max(1, encoded), _FIXED_BYTES // max(1, fixed)))
    rows = max(1, rows)
    wide = _wide_dictionaries(file, opened, group, leaves, rows)
    if not wide:
        yield from opened.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)
        return
    with open_parquet(file, opened.metadata, dictionaries=wide) as again:
        yield from again.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)


def small_parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield a batch in parts whose dictionaries, once decoded, take at most `BATCH_BYTES`.

    A single row may take more.
    """
    widths = np.zeros(batch.num_rows, np.int64)
    for values in batch.columns:
        if _has_dictionary(values.type):
            widths += value_sizes(values)
    if int(widths.sum()) <= BATCH_BYTES:
        yield batch
        return
    ends, start = np.cumsum(widths), 0
    while start < batch.num_rows:
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + BATCH_BYTES, side="right")))
        yield batch.slice(start, end - start)
        start = end


def _has_dictionary(data_type: pa.DataType) -> bool:
    """Return whether a type has a dictionary at any depth."""
    if pa.types.is_dictionary(data_type):
        return True
    nested = pa.types.is_nested(data_type)
    return nested and any(_has_dictionary(field.type) for field in _fields(data_type))


def _fields(data_type: pa.DataType) -> list[pa.Field]:
    return [data_type.field(number) for number in range(data_type.num_fields)]


def _leaves(
    opened: pq.ParquetFile, chunks: Sequence[Chunk], rows: int, names: Collection[str]
) -> Iterator[_Leaf]:
    """Yield the leaves of some columns."""
    schema, wanted = opened.schema, frozenset(names)
    for position, chunk in enumerate(chunks):
        leaf = schema.column(position)
        if not _is_of(leaf.path, wanted):
            continue
        values = chunk.values / max(1, rows)
        width = leaf.length if leaf.length and leaf.length > 0 else 8
        width = _WIDTHS.get(leaf.physical_type, width)
        has_texts = chunk.dictionary and leaf.physical_type == "BYTE_ARRAY"
        most = chunk.uncompressed if has_texts else 0
        yield _Leaf(leaf.path, max(1.0, values), width, most)


def _is_of(path: str, names: Collection[str]) -> bool:
    """Return whether a leaf is of one of some columns, whose names may themselves have dots."""
    while path not in names:
        path, dot, _ = path.rpartition(".")
        if not dot:
            return False
    return True


def _wide_dictionaries(
    file: IO[bytes], opened: pq.ParquetFile, group: int, leaves: Sequence[_Leaf], rows: int
) -> list[str]:
    """Return the leaves whose values could take too much memory in such a batch."""
    rows = min(rows, opened.metadata.row_group(group).num_rows)
    asked = [leaf for leaf in leaves if leaf.dictionary_bytes * leaf.a_row * rows > _SURELY_SMALL]
    if not asked:
        return []
    paths = [leaf.path for leaf in asked]
    metadata = opened.metadata
    with open_parquet(file, metadata, dictionaries=paths, buffer_bytes=_LOOKED_AT) as looking:
        batches = looking.iter_batches(1, row_groups=[group], columns=paths, use_threads=False)
        first = next(batches, None)
    if first is None:
        return []
    found = [leaf for values in first.columns for leaf in _leaf_arrays(values)]
    if len(found) != len(asked):
        return paths  # two leaves have the same path
    return [
        leaf.path
        for leaf, values in zip(asked, found, strict=True)
        if _longest(values) * leaf.a_row * rows > _SURELY_SMALL
    ]


def _leaf_arrays(values: pa.Array) -> Iterator[pa.Array]:
    types, kind = pa.types, values.type
    if isinstance(kind, pa.BaseExtensionType):
        yield from _leaf_arrays(values.storage)
    elif types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _leaf_arrays(values.field(number))
    elif types.is_map(kind):
        yield from _leaf_arrays(values.keys)
        yield from _leaf_arrays(values.items)
    elif types.is_nested(kind) and not types.is_union(kind):
        yield from _leaf_arrays(values.values)
    else:
        yield values


def _longest(values: pa.Array) -> float:
    """Return the bytes of a dictionary's longest value; infinity if it was not read."""
    if not pa.types.is_dictionary(values.type):
        return np.inf
    sizes = value_sizes(values.dictionary)
    return float(sizes.max()) if len(sizes) else np.inf
