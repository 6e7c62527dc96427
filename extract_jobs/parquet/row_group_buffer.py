"""Rows of one partition that wait for their row group, and what they cost in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from extract_jobs.parquet.file import ParquetFile

_CHUNK_BYTES = 512
"""What an Arrow array costs beside its values: padding of its buffers, and its own structs."""

_FEW_ROWS = 1024
_SMALL_BYTES = 2**20
"""Chunks below both, on average, are copied together: the encoder's cost is per chunk."""
_MERGED_CHUNKS = 8


@dataclass
class WaitingRows:
    """Rows of a partition that wait, and the file that they will go to.

    Attributes:
        values: Of the partition, by field.
        waiting: The rows, in their order.
        arrow_bytes: Of their values.
        held_bytes: Of their values, and of what each chunk costs beside them.
        file: The partition's open file; None before its first row group.
    """

    values: dict[str, str | None]
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    arrow_bytes: int = 0
    held_bytes: int = 0
    file: ParquetFile | None = None

    def add(self, rows: pa.RecordBatch) -> None:
        """Let rows wait. Chunks of few rows are copied into one now and then."""
        self.waiting.append(rows)
        self.arrow_bytes += rows.nbytes
        self.held_bytes += _cost(rows)
        if len(self.waiting) % _MERGED_CHUNKS == 0 and self._are_small():
            self.waiting = [pa.concat_batches(self.waiting)]
            self.held_bytes = _cost(self.waiting[0])

    def table(self, schema: pa.Schema) -> pa.Table:
        """Return the rows that wait as a table, small chunks copied together."""
        table = pa.Table.from_batches(self.waiting, schema)
        chunks = len(self.waiting)
        if table.num_rows < _FEW_ROWS * chunks and table.nbytes < _SMALL_BYTES * chunks:
            return table.combine_chunks()
        return table

    def clear(self) -> None:
        """Forget the rows."""
        self.waiting, self.arrow_bytes, self.held_bytes = [], 0, 0

    def _are_small(self) -> bool:
        """Return whether the overhead of the chunks outweighs their rows."""
        rows: int = sum(chunk.num_rows for chunk in self.waiting)
        return rows < _FEW_ROWS * len(self.waiting)


def _cost(rows: pa.RecordBatch) -> int:
    size: int = rows.nbytes + _CHUNK_BYTES * rows.num_columns
    return size
