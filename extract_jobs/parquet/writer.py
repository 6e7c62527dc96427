"""Writes batches to staged Parquet files, split by Hive partition and rolled by bytes.

The files have timestamps as INT64 microseconds, decimals in the smallest form of the Parquet
specification, statistics for every column except wide ones, pages of about 1 MiB, row groups of at
most ``target.row_group_bytes`` of Arrow memory (a single row larger than that is a row group of its
own) and the Arrow schema, so that zones are kept.

Many partitions: ``target.max_open_partitions`` are written as their rows arrive; one without new
rows is replaced by another. Rows of all others are parked, in memory and on local disk, and written
at the end, one partition at a time. Each of those then has one file, whatever the order of its
rows, instead of one file per few rows.

Memory: unpartitioned, one row group and one batch; partitioned, `BUFFER_BYTES` over all partitions
(briefly half as much again), one batch, and `rolling.OPEN_BYTES` that storage has not sent yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import ReconcileFailed
from extract_jobs.parquet.rolling import ENDING_FILES, RollingFiles, Values
from extract_jobs.parquet.spill import Shelf, Spill
from extract_jobs.spec.parts import TargetSpec
from extract_jobs.storage import Storage, WrittenFile
from extract_jobs.transform.partitions import PartitionIds, rows_by_id
from extract_jobs.transform.transform import Transform

__all__ = ["PartitionedWriter", "WrittenFile"]

BUFFER_BYTES = 128 * 2**20
"""Arrow bytes buffered in memory, over all partitions of a writer. Above half of it parked rows go
to disk; above all of it the largest partitions are written, as smaller row groups than
requested."""

_IDLE_TURNS = 16
"""Number of batches without rows of a partition after which it may be replaced."""

_TURNS_OF_WHOLE = 8
"""How many batches all rows of one `PartitionedWriter.whole` count as."""


class PartitionedWriter:
    """Writes batches into staged Parquet files, one set of files per Hive partition.

    Readers cannot see what it writes. Not thread-safe. After any exception outside of `whole`,
    `abort` drops everything.
    """

    def __init__(
        self,
        storage: Storage,
        target: TargetSpec,
        transform: Transform,
        *,
        file_prefix: str,
        metadata: dict[str, str],
        spill_folder: str | None = None,
    ) -> None:
        """Touch nothing yet: files are begun with their first row group.

        Args:
            storage: Where the target lives.
            target: Folder, sizes and compression.
            transform: Turns source batches into file batches and partition values.
            file_prefix: Prefix of every file's name; it should name run, attempt and split.
            metadata: Key-value metadata of every file.
            spill_folder: Where rows are buffered on disk; None is the folder for temporary files.

        Raises:
            WriteFailed: Partitions depend on the row, and the spill folder has no space.
        """
        self._target = target
        self._transform = transform
        self._fixed = transform.fixed_partition()
        self._ids = PartitionIds()
        self._files = RollingFiles(
            storage, target, transform.schema, self._values,
            file_prefix=file_prefix, metadata=metadata,
        )  # fmt: skip
        self._spill = Spill(spill_folder, transform.schema)
        self._parked = Shelf(self._spill)
        self._pending: Shelf | None = None
        self._kept_bytes = 0  # of the spill, up to the last parked row
        # Partitions that are written as their rows arrive, least recently used first, with the turn
        # of their last rows.
        self._direct: dict[int, int] = {}
        self._spilled: set[int] = set()  # partitions with rows on disk
        self._parted: set[int] = set()  # gave their place to another
        self._returned = 0  # how many of them had rows again
        self._turn = 0  # counts batches
        self._rows = 0
        self._done = False
        if self._fixed is None:
            self._spill.check()

    @property
    def rows(self) -> int:
        """Rows handed in so far, without those of a failed `whole`."""
        return self._rows

    @property
    def bytes(self) -> int:
        """Compressed bytes handed to storage so far, without buffered rows."""
        return self._files.bytes

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows as the source gave them.

        Raises:
            TypeNotRepresentable: A value cannot be cast, or has no folder of its own.
            WriteFailed: Storage failed, or the spill folder has no room.
        """
        if batch.num_rows == 0:
            return
        rows = self._transform.apply(batch)
        if self._fixed is not None:
            self._files.append(0, rows)
        else:
            ids = self._ids.of(self._transform.partition_keys(batch))
            if self._pending is None:
                self._turn += 1
                self._place(rows, ids)
            else:
                self._pending.add(rows, ids)
            self._keep_budget()
        self._rows += batch.num_rows

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Write the rows that are handed in within it all together or not at all.

        They are buffered until it ends. If it ends with an exception they are dropped, and the
        writer is as it was before. Only for partitions that depend on the row.

        Raises:
            WriteFailed: Storage failed, or the spill folder has no space; only `abort` can be
                called then.
        """
        assert self._fixed is None
        self._pending = pending = Shelf(self._spill)
        before = self._rows
        self._kept_bytes = self._spill.size
        try:
            yield
        except BaseException:
            self._pending, self._rows = None, before
            pending.clear()
            self._spill.truncate(self._kept_bytes)
            raise
        self._pending = None
        self._turn += _TURNS_OF_WHOLE
        for partition, segments in pending.take_disk().items():
            if self._writes_directly(partition):
                for rows in pending.rows_at(segments):
                    self._files.append(partition, rows)
                    self._keep_budget()
            else:
                self._parked.adopt(partition, segments)
                self._kept_bytes = self._spill.size
        for rows, ids in pending.take_memory():
            self._place(rows, ids)
            self._keep_budget()
        self._spill.truncate(self._kept_bytes)

    def close(self, *, schema_file: bool = False) -> list[WrittenFile]:
        """Write buffered rows, finish every file, and hand the files over to the caller.

        Args:
            schema_file: Whether a writer without rows leaves one file without rows, so that readers
                find the schema. If partitions depend on the row, it is at the target's root.

        Returns:
            Staged files, those of a partition in the order of its rows as they were handed in,
            outside of `whole`; from here on the caller's to commit or abort: `abort` no longer
            touches them.

        Raises:
            ReconcileFailed: The footers' row counts differ from the rows handed in.
            WriteFailed: Storage failed.
        """
        with ThreadPoolExecutor(ENDING_FILES, thread_name_prefix="extract-finish") as pool:
            self._files.finish_all(pool)
            last = None
            for partition, rows in self._parked.drain():
                if last is not None and partition != last:
                    self._files.finish(last, pool)
                self._files.append(partition, rows)
                last = partition
            self._files.finish_all(pool)
            self._files.wait_until_staged()
        self._spill.close()
        if schema_file and not self._files.finished:
            self._files.empty_file(self._fixed or {})
        finished = self._files.finished
        written = sum(f.rows for f in finished)
        if written != self._rows:
            raise ReconcileFailed(
                f"{self._target.uri}: {self._rows} rows were handed in, the footers of "
                f"{len(finished)} files count {written}; nothing was committed, run the "
                "extract again"
            )
        self._done = True
        return list(finished)

    def abort(self) -> None:
        """Drop every file, finished or not, unless `close` has handed them over. Raises nothing.

        What storage fails to drop stays invisible, and `extract-jobs recover` drops it later.
        """
        if self._done:
            return
        self._done = True
        self._parked.clear()
        self._spill.close()
        self._files.abort()

    def _values(self, partition: int) -> Values:
        if self._fixed is not None:
            return self._fixed
        names = (f.name for f in self._transform.partitions)
        return dict(zip(names, self._ids.key(partition), strict=True))

    def _place(self, rows: pa.RecordBatch, ids: pa.Array) -> None:
        """Buffer rows for the row group of their partition, or park them."""
        found = pc.unique(ids).to_pylist()
        direct = [partition for partition in found if self._writes_directly(partition)]
        if len(direct) < len(found):
            here = pc.is_in(ids, pa.array(direct, pa.int32()))
            elsewhere = pc.invert(here)
            self._parked.add(rows.filter(elsewhere), ids.filter(elsewhere))
            rows, ids = rows.filter(here), ids.filter(here)
        if rows.num_rows:
            for partition, part in rows_by_id(rows, ids):
                self._files.append(partition, part)

    def _writes_directly(self, partition: int) -> bool:
        """Return whether a partition's rows go to a file as they arrive; if not, they are parked.

        A partition without rows for a while is replaced by one with rows, so rows in partition
        order are never parked. Each partition that comes back costs a file. When as many have come
        back as may be open, the rows are in no order, and no more partitions are replaced.
        """
        if partition in self._spilled:
            return False
        if partition in self._parted:
            self._parted.remove(partition)
            self._returned += 1
        if self._direct.pop(partition, None) is None and not self._makes_room():
            self._spilled.add(partition)
            return False
        self._direct[partition] = self._turn
        return True

    def _makes_room(self) -> bool:
        most = self._target.max_open_partitions
        if len(self._direct) < most:
            return True
        oldest = next(iter(self._direct))
        if self._returned >= most or self._turn - self._direct[oldest] < _IDLE_TURNS:
            return False
        self._files.finish(oldest)
        del self._direct[oldest]
        self._parted.add(oldest)
        return True

    def _keep_budget(self) -> None:
        shelves = [shelf for shelf in (self._parked, self._pending) if shelf is not None]
        held = sum(shelf.held_bytes for shelf in shelves)
        if held > BUFFER_BYTES // 2:
            largest = max(shelves, key=lambda shelf: shelf.held_bytes)
            held -= largest.held_bytes
            largest.to_disk()
            if largest is self._parked:
                self._kept_bytes = self._spill.size
        self._files.flush_largest(BUFFER_BYTES - held)
