"""Buffers one partition's rows for their row group, and counts their memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from extract_jobs.parquet.file import ParquetFile

_CHUNK_BYTES = 512
"""Overhead of an Arrow array: padding of its buffers, and its own structs."""

_FEW_ROWS = 1024
_SMALL_BYTES = 2**20
"""Chunks below both, on average, are copied into one: the encoder's cost is per chunk."""
_MERGED_CHUNKS = 8


@dataclass
class WaitingRows:
    """A partition's buffered rows, and the file that they will go to.

    Attributes:
        values: The partition's values, by field.
        waiting: The rows, in order.
        arrow_bytes: Size of their values.
        held_bytes: Size of their values and each chunk's overhead.
        file: The partition's open file; None before its first row group.
    """

    values: dict[str, str | None]
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    arrow_bytes: int = 0
    held_bytes: int = 0
    file: ParquetFile | None = None

    def add(self, rows: pa.RecordBatch) -> None:
        """Add rows. Chunks of few rows are occasionally copied into one."""
        self.waiting.append(rows)
        self.arrow_bytes += rows.nbytes
        self.held_bytes += _cost(rows)
        if len(self.waiting) % _MERGED_CHUNKS == 0 and self._are_small():
            self.waiting = [pa.concat_batches(self.waiting)]
            self.held_bytes = _cost(self.waiting[0])

    def table(self, schema: pa.Schema) -> pa.Table:
        """Return the buffered rows as a table, with small chunks copied into one."""
        table = pa.Table.from_batches(self.waiting, schema)
        chunks = len(self.waiting)
        if table.num_rows < _FEW_ROWS * chunks and table.nbytes < _SMALL_BYTES * chunks:
            return table.combine_chunks()
        return table

    def clear(self) -> None:
        """Drop the rows."""
        self.waiting, self.arrow_bytes, self.held_bytes = [], 0, 0

    def _are_small(self) -> bool:
        """Return whether the overhead of the chunks outweighs their rows."""
        rows: int = sum(chunk.num_rows for chunk in self.waiting)
        return rows < _FEW_ROWS * len(self.waiting)


def _cost(rows: pa.RecordBatch) -> int:
    size: int = rows.nbytes + _CHUNK_BYTES * rows.num_columns
    return size
