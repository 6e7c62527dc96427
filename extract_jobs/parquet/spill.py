"""Buffers rows for their Parquet file: in memory, and above a budget on local disk.

On disk they are Arrow IPC messages, LZ4-compressed, in one unnamed file: the system deletes it with
the process, however that ends, so nothing is left behind.
"""

from __future__ import annotations

import shutil
import tempfile
from array import array
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import WriteFailed
from extract_jobs.transform.partitions import rows_by_id

SPARE_BYTES = 256 * 2**20
"""Disk space to leave free: a worker that fills the disk takes Spark down too."""

_SORTED_BYTES = 8 * 2**20
_CODEC = "lz4"


class Spill:
    """Record batches of one schema on the local disk. Not thread-safe."""

    def __init__(self, folder: str | None, schema: pa.Schema) -> None:
        """Create nothing yet: the file is created with the first batch.

        Args:
            folder: Where; None is the system's folder for temporary files (``TMPDIR``).
            schema: Of every batch.
        """
        self._folder = folder or tempfile.gettempdir()
        self._schema = schema
        self._file: IO[bytes] | None = None
        self.size = 0
        """Bytes on disk."""

    def check(self, size: int = 0) -> None:
        """Raise if the disk has no space left. Read-only.

        Args:
            size: Bytes that are about to be written.

        Raises:
            WriteFailed: Less than ``size`` and `SPARE_BYTES` are free, or there is no such folder.
        """
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise self._failed(error) from error
        if free < size + SPARE_BYTES:
            raise WriteFailed(
                f"{self._folder} has {free / 2**20:.0f} MiB free, {self.size / 2**20:.0f} MiB hold "
                f"rows buffered for their partition's file, and {(size + SPARE_BYTES) / 2**20:.0f} "
                "MiB more are needed: name a folder on a larger disk in spill_folder, or use "
                "coarser partitions in target.partition_by; nothing was committed"
            )

    def write(self, rows: pa.RecordBatch) -> tuple[int, int, int]:
        """Append a batch and return where it is: offset, bytes on disk, and bytes decompressed.

        Raises:
            WriteFailed: The disk is full, or fails.
        """
        message = rows.serialize()
        packed = pa.compress(message, codec=_CODEC)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(  # noqa: SIM115 - `close` closes it
                    dir=self._folder, prefix="extract-spill-"
                )
            self._file.seek(self.size)
            self._file.write(packed)
        except OSError as error:
            raise self._failed(error) from error
        start, self.size = self.size, self.size + packed.size
        return start, packed.size, message.size

    def read(self, start: int, size: int, decompressed: int) -> pa.RecordBatch:
        """Return a batch that `write` stored.

        Raises:
            WriteFailed: The disk fails.
        """
        assert self._file is not None
        try:
            self._file.seek(start)
            packed = self._file.read(size)
        except OSError as error:
            raise self._failed(error) from error
        message = pa.decompress(packed, decompressed_size=decompressed, codec=_CODEC)
        return pa.ipc.read_record_batch(message, self._schema)

    def truncate(self, size: int) -> None:
        """Free everything after the first ``size`` bytes.

        Raises:
            WriteFailed: The disk fails.
        """
        if self._file is None or size >= self.size:
            return
        try:
            self._file.truncate(size)
        except OSError as error:
            raise self._failed(error) from error
        self.size = size

    def close(self) -> None:
        """Free all of it. Safe to repeat; raises nothing."""
        file, self._file, self.size = self._file, None, 0
        if file is not None:
            try:
                file.close()
            except OSError:  # bytes still buffered by Python did not fit; they are not needed
                file.close()

    def _failed(self, error: OSError) -> WriteFailed:
        return WriteFailed(
            f"rows buffered for their partition's file could not be stored in {self._folder}: "
            f"{error.strerror}; name another folder in spill_folder; nothing was committed"
        )


class Shelf:
    """Buffered rows of many partitions, those of each in the order they came. Not thread-safe.

    A partition is identified by a number, see `extract_jobs.transform.partitions.PartitionIds`.
    """

    def __init__(self, spill: Spill) -> None:
        """Use a spill file, which several shelves may share."""
        self._spill = spill
        self._memory: list[tuple[pa.RecordBatch, pa.Array]] = []
        self._disk: dict[int, array[int]] = {}
        self.held_bytes = 0
        """Arrow bytes in memory."""

    def add(self, rows: pa.RecordBatch, ids: pa.Array) -> None:
        """Add rows in memory, with the number of each row's partition."""
        self._memory.append((rows, ids))
        self.held_bytes += rows.nbytes + ids.nbytes

    def to_disk(self) -> None:
        """Move what is in memory to the disk, each partition's rows together.

        Memory: twice what was held, for as long as this takes.

        Raises:
            WriteFailed: The disk is full, or fails.
        """
        self._spill.check(self.held_bytes)
        for partition, rows in self._sorted():
            segments = self._disk.setdefault(partition, array("q"))
            segments.extend(self._spill.write(rows))

    def take_memory(self) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
        """Yield and drop what is still in memory."""
        memory, self._memory, self.held_bytes = self._memory, [], 0
        memory.reverse()
        while memory:
            yield memory.pop()

    def take_disk(self) -> dict[int, array[int]]:
        """Return and drop each partition's locations on disk, for `rows_at` or `adopt`."""
        disk, self._disk = self._disk, {}
        return disk

    def adopt(self, partition: int, segments: array[int]) -> None:
        """Add rows that are already on disk."""
        self._disk.setdefault(partition, array("q")).extend(segments)

    def rows_at(self, segments: array[int]) -> Iterator[pa.RecordBatch]:
        """Yield rows on disk, a batch at a time.

        Raises:
            WriteFailed: The disk fails.
        """
        for at in range(0, len(segments), 3):
            yield self._spill.read(*segments[at : at + 3])

    def drain(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield and drop all rows, partition by partition.

        Raises:
            WriteFailed: The disk fails.
        """
        if self._disk and self._memory:
            self.to_disk()
        if self._memory:
            yield from self._sorted()
            return
        disk = self.take_disk()
        while disk:
            partition, segments = disk.popitem()
            for rows in self.rows_at(segments):
                yield partition, rows

    def clear(self) -> None:
        """Drop all rows."""
        self._memory, self._disk, self.held_bytes = [], {}, 0

    def _sorted(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield and drop what is in memory by partition, sorted a piece at a time."""
        if not self._memory:
            return
        batches, ids = zip(*self._memory, strict=True)
        self._memory, self.held_bytes = [], 0
        rows, numbers = pa.concat_batches(batches), pa.concat_arrays(ids)
        del batches, ids
        order = pc.array_sort_indices(numbers)
        step = max(1, rows.num_rows * _SORTED_BYTES // max(rows.nbytes, 1))
        for start in range(0, rows.num_rows, step):
            piece = order.slice(start, step)
            yield from rows_by_id(rows.take(piece), numbers.take(piece))
