"""Blocks of CSV that Arrow reads straight into their types, because planning has seen each value.

Arrow's conversions accept more than `exact_cast`: blanks around a number, hexadecimal integers. So
this is for inferred types alone. Planning has read every value of this very object by then, and no
value of an integer column, say, is anything but digits. What planning did not find in order, such
as a row of another length, Arrow refuses here; the caller then reads the block the exact way,
`csv_rows.parse_csv`, which names file and line.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as arrow_csv

from extract_jobs.schema import Column
from extract_jobs.sources.files.blocks import Block
from extract_jobs.sources.files.csv_rows import (
    Header,
    dialect_of,
    is_blank,
    is_utf8_text,
    parse_options,
)
from extract_jobs.sources.files.texts import to_type
from extract_jobs.spec.source import FilesSpec

_TIMES = pa.timestamp("us"), pa.timestamp("us", "UTC")
_STRAIGHT = {pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.string(), *_TIMES}
"""Types that Arrow parses from the same bytes to the same values as `exact_cast` does."""


def typed_batch(
    block: Block, columns: Sequence[Column], *, header: Header, files: FilesSpec
) -> pa.RecordBatch | None:
    """Return the rows of a block as values, None if the exact way has to read it.

    Args:
        block: From `csv_rows.row_blocks`, of an object that planning has read.
        columns: With the types that planning inferred; NULL if the file lacks them.
        header: The file's columns.
        files: How the file is written, without declared types.
    """
    data = block.data
    if header.unnamed or is_blank(data) or not is_utf8_text(data):
        return None
    numbers = {name: f"{i}" for i, name in enumerate(header.names)}
    there = [column for column in columns if column.name in numbers]
    types = {numbers[c.name]: c.arrow_type for c in there if c.arrow_type in _STRAIGHT}
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(
                column_names=list(numbers.values()), use_threads=False, block_size=len(data) + 1
            ),
            parse_options=parse_options(dialect_of(files), data),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(numbers.values(), pa.string()) | types,
                null_values=list(files.null_values),
                true_values=["true", "True", "TRUE"],
                false_values=["false", "False", "FALSE"],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                include_columns=[numbers[column.name] for column in there] or ["0"],
                check_utf8=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    arrays = []
    for column in columns:
        if column.name not in numbers:
            arrays.append(pa.nulls(table.num_rows, column.arrow_type))
            continue
        values, failed = to_type(
            table.column(numbers[column.name]).combine_chunks(), column.arrow_type
        )
        if failed:
            return None
        arrays.append(values)
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])
