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
class BufferedRows:
    """A partition's buffered rows, and the file that they will go to.

    Attributes:
        values: The partition's values, by field.
        batches: The rows, in order.
        arrow_bytes: Size of their values.
        held_bytes: Size of their values and each chunk's overhead.
        file: The partition's open file; None before its first row group.
    """

    values: dict[str, str | None]
    batches: list[pa.RecordBatch] = field(default_factory=list)
    arrow_bytes: int = 0
    held_bytes: int = 0
    file: ParquetFile | None = None

    def add(self, rows: pa.RecordBatch) -> None:
        """Add rows. Chunks of few rows are occasionally copied into one."""
        self.batches.append(rows)
        self.arrow_bytes += rows.nbytes
        self.held_bytes += _cost(rows)
        if len(self.batches) % _MERGED_CHUNKS == 0 and self._are_small():
            self.batches = [pa.concat_batches(self.batches)]
            self.held_bytes = _cost(self.batches[0])

    def table(self, schema: pa.Schema) -> pa.Table:
        """Return the buffered rows as a table, with small chunks copied into one."""
        table = pa.Table.from_batches(self.batches, schema)
        chunks = len(self.batches)
        if table.num_rows < _FEW_ROWS * chunks and table.nbytes < _SMALL_BYTES * chunks:
            return table.combine_chunks()
        return table

    def clear(self) -> None:
        """Drop the rows."""
        self.batches, self.arrow_bytes, self.held_bytes = [], 0, 0

    def _are_small(self) -> bool:
        """Return whether the overhead of the chunks outweighs their rows."""
        rows: int = sum(chunk.num_rows for chunk in self.batches)
        return rows < _FEW_ROWS * len(self.batches)


def _cost(rows: pa.RecordBatch) -> int:
    size: int = rows.nbytes + _CHUNK_BYTES * rows.num_columns
    return size
