"""Batches to staged Parquet files, split by Hive partition and rolled by bytes.

What a reader gets: timestamps as INT64 microseconds, decimals in the smallest form of the Parquet
specification, statistics for every column but those of wide values, pages of about 1 MiB, row
groups of at most ``target.row_group_bytes`` of Arrow memory (a single row larger than that is a
row group of its own) and the Arrow schema, so that zones survive.

Memory: unpartitioned, one row group and one batch; partitioned, `BUFFER_BYTES` over all
partitions, one batch, and `OPEN_BYTES` that storage has not sent yet.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, field

import pyarrow as pa

from extract_jobs.errors import ExtractError, ReconcileFailed
from extract_jobs.parquet_file import ParquetFile, dictionary_columns, wide_columns
from extract_jobs.partitions import PartitionKey, folder, rows_by_partition
from extract_jobs.spec import TargetSpec
from extract_jobs.storage import Storage, WrittenFile, join
from extract_jobs.transform import Transform

__all__ = ["PartitionedWriter", "WrittenFile"]

OPEN_FILES = 256
"""Files open at a time in one writer, below what systems allow a process (1,024). Beyond it the
largest is closed, and its partition's next rows begin another: many partitions in no order make
many files, the fewer the coarser the partitions are."""

OPEN_BYTES = 256 * 2**20
"""Encoded bytes that storage may hold back for open files, at most `HELD_BYTES` for each. Beyond
it the largest file is closed."""

HELD_BYTES = 8 * 2**20
"""What storage holds of a file before it sends it on: one part of an S3 upload."""

BUFFER_BYTES = 128 * 2**20
"""Arrow bytes that wait for their row group, over all partitions of a writer. Beyond it the
largest are written, as row groups smaller than asked for."""

_CHUNK_BYTES = 512
"""What an Arrow array costs beside its values: padding of its buffers, and its own structs."""

_FEW_ROWS = 1024
_SMALL_BYTES = 2**20
"""Chunks below both, on average, are copied together: the encoder's cost is per chunk."""
_MERGED_CHUNKS = 8

logger = logging.getLogger(__name__)


@dataclass
class _Partition:
    """Rows that wait for their row group, and the file that they will go to."""

    values: dict[str, str | None]
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    arrow_bytes: int = 0
    held_bytes: int = 0
    file: ParquetFile | None = None


class PartitionedWriter:
    """Writes batches into staged Parquet files, one set of files per Hive partition.

    Nothing that it writes is visible to a reader. Not thread-safe. After any exception, `abort`
    drops everything.
    """

    def __init__(
        self,
        storage: Storage,
        target: TargetSpec,
        transform: Transform,
        *,
        file_prefix: str,
        metadata: dict[str, str],
    ) -> None:
        """Touch nothing yet: files are begun with their first row group.

        Args:
            storage: Where the target lives.
            target: Folder, sizes and compression.
            transform: Makes file batches and partition values of source batches.
            file_prefix: Begins the name of every file; it should name run, attempt and split.
            metadata: Key-value metadata of every file.
        """
        self._storage = storage
        self._target = target
        self._transform = transform
        self._prefix = file_prefix
        self._metadata = metadata
        self._fixed = transform.fixed_partition()
        self._partitions: dict[PartitionKey, _Partition] = {}
        self._open: dict[PartitionKey, ParquetFile] = {}
        self._held_bytes = 0
        self._finished: list[WrittenFile] = []
        self._finished_bytes = 0
        self._rows = 0
        self._done = False
        self._dictionaries: frozenset[str] | None = None
        self._wide: frozenset[str] = frozenset()
        # Bytes in the file per Arrow byte, of the last row group; 1 at first, to err on small.
        self._ratio = 1.0

    @property
    def rows(self) -> int:
        """Rows handed in so far."""
        return self._rows

    @property
    def bytes(self) -> int:
        """Compressed bytes handed to storage so far; rows that wait do not count."""
        return self._finished_bytes + sum(f.size for f in self._open.values())

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows as the source gave them.

        Raises:
            TypeNotRepresentable: A value cannot be cast, or has no folder of its own.
            WriteFailed: Storage failed.
        """
        if batch.num_rows == 0:
            return
        rows = self._transform.apply(batch)
        if self._fixed is not None:
            self._append(tuple(self._fixed.values()), rows)
        else:
            for key, part in rows_by_partition(rows, self._transform.partition_keys(batch)):
                self._append(key, part)
            self._keep_budget()
        self._rows += batch.num_rows

    def close(self, *, schema_file: bool = False) -> list[WrittenFile]:
        """Write what waits, finish every file, and hand the files over to the caller.

        Args:
            schema_file: Whether a writer that was given no rows leaves one file without rows, so
                that readers find the schema. Where partitions depend on the row it has none, and
                is at the target's root.

        Returns:
            Staged files in the order they were finished; from here on the caller's to commit or
            abort: `abort` no longer touches them.

        Raises:
            ReconcileFailed: Rows in the footers are not the rows handed in.
            WriteFailed: Storage failed.
        """
        for key in list(self._partitions):
            self._flush(key)
            self._roll(key)
        if schema_file and not self._finished:
            self._partitions[()] = empty = _Partition(self._fixed or {})
            self._open[()] = empty.file = self._begin(empty.values)
            self._roll(())
        written = sum(f.rows for f in self._finished)
        if written != self._rows:
            raise ReconcileFailed(
                f"{self._target.uri}: {self._rows} rows were handed in, the footers of "
                f"{len(self._finished)} files count {written}; nothing was committed, run the "
                "extract again"
            )
        self._done = True
        return list(self._finished)

    def abort(self) -> None:
        """Drop every file, finished or not, unless `close` has handed them over. Raises nothing.

        What storage fails to drop stays invisible, and `extract-jobs recover` drops it later.
        """
        if self._done:
            return
        self._done = True
        for partition in self._partitions.values():
            partition.waiting.clear()
            if partition.file:
                partition.file.abort()
        for written in self._finished:
            try:
                self._storage.abort(join(self._target.uri, ""), written.staged)
            except ExtractError as error:
                logger.warning("%s; it is left, invisible, for `extract-jobs recover`", error)

    def _append(self, key: PartitionKey, rows: pa.RecordBatch) -> None:
        """Let rows wait for their row group; write it when it is full.

        Rows that do not fit are halved until they do, so that a row group is nearly full, yet
        never above its limit except by a single row.
        """
        partition = self._partitions.get(key)
        if partition is None:
            names = (f.name for f in self._transform.partitions)
            partition = _Partition(dict(zip(names, key, strict=True)))
            self._partitions[key] = partition
        pending = [rows]
        while pending:
            part = pending.pop()
            limit = self._row_group_bytes(partition)
            size = part.nbytes
            if partition.arrow_bytes + size > limit:
                if part.num_rows > 1 and size > limit // 8:
                    middle = part.num_rows // 2
                    pending += [part.slice(middle), part.slice(0, middle)]
                    continue
                if partition.waiting:
                    self._flush(key)
            held = size + _CHUNK_BYTES * part.num_columns
            partition.waiting.append(part)
            partition.arrow_bytes += size
            partition.held_bytes += held
            self._held_bytes += held
            if partition.arrow_bytes >= limit:
                self._flush(key)
            elif len(partition.waiting) % _MERGED_CHUNKS == 0:
                self._merge_small(partition)

    def _merge_small(self, partition: _Partition) -> None:
        """Copy waiting chunks of few rows into one: their overhead would outweigh their rows."""
        rows = sum(chunk.num_rows for chunk in partition.waiting)
        if rows >= _FEW_ROWS * len(partition.waiting):
            return
        merged = pa.concat_batches(partition.waiting)
        held = merged.nbytes + _CHUNK_BYTES * merged.num_columns
        self._held_bytes += held - partition.held_bytes
        partition.waiting, partition.held_bytes = [merged], held

    def _row_group_bytes(self, partition: _Partition) -> int:
        """Return the Arrow bytes of the next row group, less where the file is nearly full."""
        written = partition.file.size if partition.file else 0
        room = int((self._target.file_bytes - written) / self._ratio)
        return max(min(self._target.row_group_bytes, room), 1)

    def _keep_budget(self) -> None:
        if self._held_bytes <= BUFFER_BYTES:
            return
        # A little below, so that the partitions are not ranked again for every batch.
        for key, _ in sorted(self._partitions.items(), key=lambda item: -item[1].held_bytes):
            self._flush(key)
            if self._held_bytes <= BUFFER_BYTES // 8 * 7:
                return

    def _flush(self, key: PartitionKey) -> None:
        """Write what waits as one row group, and close the file if it is full."""
        partition = self._partitions[key]
        if not partition.waiting:
            return
        table = pa.Table.from_batches(partition.waiting, self._transform.schema)
        chunks = len(partition.waiting)
        if table.num_rows < _FEW_ROWS * chunks and table.nbytes < _SMALL_BYTES * chunks:
            table = table.combine_chunks()
        if self._dictionaries is None:
            self._dictionaries = dictionary_columns(table)
        wide = wide_columns(table)
        self._wide |= wide
        if partition.file is not None and not wide <= partition.file.wide:
            self._roll(key)  # how a column is encoded is settled when its file is begun
        if partition.file is None:
            self._open[key] = partition.file = self._begin(partition.values)
        file = partition.file
        before = file.size
        file.add(table)
        self._ratio = max((file.size - before) / max(partition.arrow_bytes, 1), 0.001)
        self._held_bytes -= partition.held_bytes
        partition.waiting, partition.arrow_bytes, partition.held_bytes = [], 0, 0
        # Nearer to the size asked for than one more row group would be.
        next_group = min(self._target.row_group_bytes * self._ratio, self._target.file_bytes)
        if file.size + next_group / 2 >= self._target.file_bytes:
            self._roll(key)
        while len(self._open) > OPEN_FILES or self._open_bytes() > OPEN_BYTES:
            # Not the one used longest ago: rows that come round robin would close every file.
            self._roll(max(self._open, key=lambda k: self._open[k].size))

    def _begin(self, values: dict[str, str | None]) -> ParquetFile:
        token = uuid.uuid4().hex
        name = f"{self._prefix}-{token[:8]}.parquet"
        path = folder(values)
        uri = join(self._target.uri, path, name) if path else join(self._target.uri, name)
        return ParquetFile.begin(
            self._storage.stage(uri, join(self._target.uri, ""), token),
            uri,
            self._transform.schema,
            self._target,
            dictionaries=self._dictionaries or frozenset(),
            wide=self._wide,
            metadata=self._metadata,
        )

    def _open_bytes(self) -> int:
        return sum(min(f.size, HELD_BYTES) for f in self._open.values())

    def _roll(self, key: PartitionKey) -> None:
        """Finish the partition's file, if it has one; its next rows begin another."""
        partition = self._partitions[key]
        file = partition.file
        if file is None:
            return
        staged = file.finish()
        partition.file = None
        del self._open[key]
        self._finished.append(WrittenFile(staged, file.rows, partition.values))
        self._finished_bytes += staged.size
