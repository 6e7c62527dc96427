"""Row groups and files of partitions: rows wait for a full row group, files are rolled by bytes.

Memory: `RollingFiles.held_bytes`, which the caller bounds by `flush_largest`, and `OPEN_BYTES` that
storage has not sent yet; at the end, what `ENDING_FILES` have not sent yet.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pyarrow as pa

from extract_jobs.errors import ExtractError
from extract_jobs.parquet.file import ParquetFile, dictionary_columns, wide_columns
from extract_jobs.parquet.row_group_buffer import BufferedRows
from extract_jobs.spec.parts import TargetSpec
from extract_jobs.storage import StagedFile, Storage, WrittenFile, join
from extract_jobs.transform.partitions import folder

OPEN_FILES = 256
"""Files open at a time in one writer, below what systems allow a process (1,024), whatever
``target.max_open_partitions`` is. Above it the largest is closed, and its partition's next rows
start another."""

OPEN_BYTES = 256 * 2**20
"""Encoded bytes of open files that storage may buffer, at most `HELD_BYTES` each. Above it the
largest file is closed."""

HELD_BYTES = 8 * 2**20
"""Bytes of a file that storage buffers before it sends them: one part of an S3 upload."""

ENDING_FILES = 16
"""Number of files whose last bytes are sent at the same time when the writer is closed. A small
file takes two S3 calls, a tenth of a second, so thousands of them are not sent one by one."""

Values = dict[str, str | None]

logger = logging.getLogger(__name__)


class RollingFiles:
    """The files of partitions that are written at the same time. Not thread-safe.

    The caller assigns the partition numbers. After any exception, `abort` drops all files.
    """

    def __init__(
        self,
        storage: Storage,
        target: TargetSpec,
        schema: pa.Schema,
        values_of: Callable[[int], Values],
        *,
        file_prefix: str,
        metadata: dict[str, str],
    ) -> None:
        """Create nothing yet: files are started with their first row group.

        Args:
            storage: Where the target lives.
            target: Folder, sizes and compression.
            schema: Of the files.
            values_of: Returns the folder of a partition, see `transform.partitions.folder`.
            file_prefix: Prefix of every file's name.
            metadata: Key-value metadata of every file.
        """
        self._storage = storage
        self._target = target
        self._schema = schema
        self._values_of = values_of
        self._prefix = file_prefix
        self._metadata = metadata
        self._partitions: dict[int, BufferedRows] = {}
        self._open: dict[int, ParquetFile] = {}
        self._ending: deque[tuple[Future[StagedFile], ParquetFile, Values]] = deque()
        self._finished_bytes = 0
        self._dictionaries: frozenset[str] | None = None
        self._wide: frozenset[str] = frozenset()
        # Bytes in the file per Arrow byte of the last row group; 1 at first, to be conservative.
        self._ratio = 1.0
        self.held_bytes = 0
        """Arrow bytes that are buffered for their row group."""
        self.finished: list[WrittenFile] = []
        """Staged files; those of a partition in the order of their rows."""

    @property
    def bytes(self) -> int:
        """Compressed bytes handed to storage so far, without buffered rows."""
        return self._finished_bytes + sum(f.size for f in self._open.values())

    def append(self, key: int, rows: pa.RecordBatch) -> None:
        """Buffer rows for their row group; write it when it is full.

        Rows that do not fit are halved until they do, so a row group is nearly full but never
        exceeds its limit by more than a single row.

        Raises:
            WriteFailed: Storage failed.
        """
        partition = self._partitions.get(key)
        if partition is None:
            self._partitions[key] = partition = BufferedRows(self._values_of(key))
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
                if partition.batches:
                    self._flush(key)
            before = partition.held_bytes
            partition.add(part)
            self.held_bytes += partition.held_bytes - before
            if partition.arrow_bytes >= limit:
                self._flush(key)

    def flush_largest(self, limit: int) -> None:
        """Write the largest buffers early, as small row groups, until the rest fits the limit.

        Args:
            limit: Arrow bytes that may stay buffered.

        Raises:
            WriteFailed: Storage failed.
        """
        if self.held_bytes <= limit:
            return
        # A little lower, so that the partitions are not ranked again for every batch.
        for key, _ in sorted(self._partitions.items(), key=lambda item: -item[1].held_bytes):
            self._flush(key)
            if self.held_bytes <= limit // 8 * 7:
                return

    def finish(self, key: int, pool: ThreadPoolExecutor | None = None) -> None:
        """Write a partition's buffered rows and finish its file; later rows start another.

        Args:
            key: The partition.
            pool: Sends the file's last bytes while the caller continues; see `wait_until_staged`.

        Raises:
            WriteFailed: Storage failed, perhaps for a file of an earlier call.
        """
        self._flush(key)
        if pool is None:
            self._roll(key)
        else:
            self._end(key, pool)
        del self._partitions[key]

    def finish_all(self, pool: ThreadPoolExecutor) -> None:
        """Finish every partition, as `finish` does."""
        for key in list(self._partitions):
            self.finish(key, pool)

    def wait_until_staged(self) -> None:
        """Wait until every finished file is staged.

        Raises:
            WriteFailed: Storage failed.
        """
        while self._ending:
            self._await_one()

    def empty_file(self, values: Values) -> None:
        """Finish one file without rows.

        Raises:
            WriteFailed: Storage failed.
        """
        self._partitions[0] = empty = BufferedRows(values)
        self._open[0] = empty.file = self._begin(values)
        self._roll(0)

    def abort(self) -> None:
        """Drop every file, finished or not. Raises nothing.

        What storage fails to drop stays invisible, and `extract-jobs recover` drops it later.
        """
        wait([future for future, _, _ in self._ending if not future.cancel()])
        for _, file, _ in self._ending:
            file.abort()
        for partition in self._partitions.values():
            partition.clear()
            if partition.file:
                partition.file.abort()
        for written in self.finished:
            try:
                self._storage.abort(join(self._target.uri, ""), written.staged)
            except ExtractError as error:
                logger.warning("%s; it is left, invisible, for `extract-jobs recover`", error)

    def _row_group_bytes(self, partition: BufferedRows) -> int:
        """Return the Arrow bytes of the next row group; fewer if the file is nearly full."""
        written = partition.file.size if partition.file else 0
        room = int((self._target.file_bytes - written) / self._ratio)
        return max(min(self._target.row_group_bytes, room), 1)

    def _flush(self, key: int) -> None:
        """Write the buffered rows as one row group, and close the file if it is full."""
        partition = self._partitions[key]
        if not partition.batches:
            return
        table = partition.table(self._schema)
        if self._dictionaries is None:
            self._dictionaries = dictionary_columns(table)
        wide = wide_columns(table)
        self._wide |= wide
        if partition.file is not None and not wide <= partition.file.wide:
            self._roll(key)  # a column's encoding is fixed when its file is started
        if partition.file is None:
            self._open[key] = partition.file = self._begin(partition.values)
        file = partition.file
        before = file.size
        file.add(table)
        self._ratio = max((file.size - before) / max(partition.arrow_bytes, 1), 0.001)
        self.held_bytes -= partition.held_bytes
        partition.clear()
        # Closer to the requested size than with one more row group.
        next_group = min(self._target.row_group_bytes * self._ratio, self._target.file_bytes)
        if file.size + next_group / 2 >= self._target.file_bytes:
            self._roll(key)
        while len(self._open) > OPEN_FILES or self._open_bytes() > OPEN_BYTES:
            # Not the least recently used one: rows in round-robin order would close every file.
            self._roll(max(self._open, key=lambda k: self._open[k].size))

    def _begin(self, values: Values) -> ParquetFile:
        token = uuid.uuid4().hex
        name = f"{self._prefix}-{token[:8]}.parquet"
        path = folder(values)
        uri = join(self._target.files_uri, *filter(None, [path]), name)
        return ParquetFile.begin(
            self._storage.stage(uri, join(self._target.uri, ""), token),
            uri,
            self._schema,
            self._target,
            dictionaries=self._dictionaries or frozenset(),
            wide=self._wide,
            metadata=self._metadata,
        )

    def _open_bytes(self) -> int:
        return sum(min(f.size, HELD_BYTES) for f in self._open.values())

    def _roll(self, key: int) -> None:
        """Finish the partition's file, if it has one; its next rows start another."""
        partition = self._partitions[key]
        file = partition.file
        if file is None:
            return
        self.wait_until_staged()  # an earlier file of the partition may be among them
        staged = file.finish()
        partition.file = None
        del self._open[key]
        self._add(staged, file, partition.values)

    def _end(self, key: int, pool: ThreadPoolExecutor) -> None:
        partition = self._partitions[key]
        file = partition.file
        if file is None:
            return
        self._ending.append((pool.submit(file.finish), file, partition.values))
        partition.file = None
        del self._open[key]
        if len(self._ending) > ENDING_FILES:
            self._await_one()

    def _await_one(self) -> None:
        """Wait for the file that was finished first; a failed one is left to `abort`."""
        future, file, values = self._ending[0]
        staged = future.result()
        self._ending.popleft()
        self._add(staged, file, values)

    def _add(self, staged: StagedFile, file: ParquetFile, values: Values) -> None:
        footer = file.footers[0] if self._target.is_iceberg else None
        self.finished.append(WrittenFile(staged, file.rows, values, footer))
        self._finished_bytes += staged.size
