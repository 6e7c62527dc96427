"""Blocks of JSON lines that Arrow reads straight into types, because planning has seen each value.

Arrow's reader is lenient in other ways than DuckDB's: an object may go over several lines, a number
may have more digits than a double holds, and the integer -0 has a sign. So this is for inferred
types of files without bad rows: planning has judged every line of this very object by then. What
Arrow refuses is read the exact way, by `jsonl_rows.JsonLines`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.json as arrow_json

from extract_jobs.schema import Column
from extract_jobs.sources.files.blocks import Block
from extract_jobs.sources.files.csv_rows import is_utf8_text
from extract_jobs.sources.files.jsonl_alike import alike
from extract_jobs.sources.files.jsonl_rows import rows_at_once
from extract_jobs.sources.files.types import FOLDER_NAME

_STRAIGHT = {pa.int64(), pa.float64(), pa.bool_(), pa.string()}


def can_be_typed(columns: Sequence[Column]) -> bool:
    """Return whether Arrow can read the columns; not text that was an object or a list in JSON."""
    in_files = [column for column in columns if column.source_type != FOLDER_NAME]
    return all(c.arrow_type in _STRAIGHT and c.fidelity != "as_text" for c in in_files)


def typed_lines(block: Block, columns: Sequence[Column]) -> pa.RecordBatch | None:
    """Return the rows of a block as values, None if the exact way has to read it.

    Args:
        block: Whole lines of an object in which planning has found no bad row.
        columns: With the types that planning inferred.
    """
    if block.data.count(b"{") > rows_at_once(len(columns)):
        return None  # few bytes with many missing values
    same = alike(block.data) if is_utf8_text(block.data) else None
    if same is not None and (batch := same.batch(columns)) is not None:
        return batch
    schema = pa.schema([(column.name, column.arrow_type) for column in columns])
    try:
        table = arrow_json.read_json(
            pa.BufferReader(block.data),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore"
            ),
        )
    except pa.ArrowInvalid:
        return None
    arrays = [table.column(name).combine_chunks() for name in schema.names]
    if any(_has_negative_zero(array) for array in arrays if array.type == pa.float64()):
        return None  # -0.0, or the integer -0, which has no sign
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _has_negative_zero(values: pa.Array) -> bool:
    numbers = values.fill_null(1).to_numpy()
    return bool(np.signbit(numbers[numbers == 0]).any())
