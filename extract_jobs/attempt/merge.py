"""Merges what an increment read into an Iceberg table: rows are replaced and deleted by key.

The files that hold such rows are written again without them, beside the files with the new rows.
They are staged like any other, so the commit's one snapshot removes the older files and adds both,
and a crash before it leaves the table as it was. If another tool takes one of the older files away
before the snapshot is made, the commit is voided and the next attempt merges into the newer files.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extract_jobs.commit.deduplication import reading
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.merge_keys import (
    Digests,
    Keys,
    MergeKey,
    changed_keys,
    key_problems,
    keys_of_rows,
    places,
    refuse_too_many,
    source_keys,
)
from extract_jobs.commit.reconcile import refuse_emptying
from extract_jobs.commit.record import Commit
from extract_jobs.commit.record_check import is_below
from extract_jobs.engine.run_splits import SplitResult, SplitTask
from extract_jobs.errors import CommitConflict, ConfigError
from extract_jobs.iceberg.change import FIELD_ID, Layout
from extract_jobs.iceberg.contents import Content, contents
from extract_jobs.parquet.file import ParquetFile, dictionary_columns, wide_columns
from extract_jobs.sources import JointSnapshot, KeyedSnapshot, Snapshot
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.uris import normal_uri
from extract_jobs.storage import WrittenFile, join
from extract_jobs.transform.partitions import folder

_CONCURRENT_FILES = 8
_CONCURRENT_WRITES = 2
"""Files that are written again at a time: each needs the memory of a row group, twice."""


@dataclass(frozen=True)
class Merged:
    """What becomes of the files of a table.

    Attributes:
        files: Files that hold the other rows of those that are removed.
        removes: Locations of the files that are removed.
        inserted: Rows with keys that the table does not have.
        updated: Rows that replace one.
        deleted: Rows whose keys are gone from the source.
        missing: Rows of the source whose keys the table lacks afterwards; 0 unless deletes are
            detected.
    """

    files: tuple[WrittenFile, ...] = ()
    removes: tuple[str, ...] = ()
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    missing: int = 0


def check_merge(spec: ExtractSpec, last: Commit | None, columns: pa.Schema) -> None:
    """Check that the rows of a table can be merged by the spec's key.

    Args:
        spec: The run's.
        last: The last published commit.
        columns: Of the files.

    Raises:
        ConfigError: A column has a type that is not compared, or the table may have several rows
            with one key.
    """
    if not spec.target.merges:
        return
    key = MergeKey.of(spec, collects=False).file_columns
    problems = list(key_problems(key, columns))
    if last is not None and not last.overwrites and last.key != key:
        what = f"by the key {', '.join(last.key)}" if last.key else "without write_mode merge"
        problems.append(
            f"its last commit was made {what}, so several rows of the table may have the same "
            f"{', '.join(key)}: replace all of them once, with extract-jobs run --set mode=full"
        )
    if problems:
        raise ConfigError(f"{spec.extract_table}: {'; '.join(problems)}")


def key_after(spec: ExtractSpec) -> tuple[str, ...]:
    """Return the columns by which a commit's table has every row once; empty if unknown."""
    replaces = spec.target.is_iceberg and spec.target.write_mode in ("merge", "overwrite")
    return MergeKey.of(spec, collects=False).file_columns if replaces else ()


class Counter:
    """Refuses an increment with too many rows, while it is read. Thread-safe."""

    def __init__(self) -> None:
        self._count, self._lock = 0, threading.Lock()

    def add(self, results: Sequence[SplitResult]) -> None:
        """Count the rows of some splits.

        Raises:
            ConfigError: There are too many.
        """
        with self._lock:
            self._count += sum(len(one.keys.digests) for one in results if one.keys)
            refuse_too_many(self._count)


def keys_in_source(snapshot: Snapshot, task: SplitTask, check: Callable[[], None]) -> Digests:
    """Return the keys of all rows of the source in the snapshot of the increment, sorted.

    Raises:
        ConfigError: There are too many, or they do not identify rows.
        ExtractError: As the source raises.
    """
    key = task.key
    assert key is not None
    assert isinstance(snapshot, KeyedSnapshot)

    def checked(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            check()
            yield batch

    with closing(cast("Generator[pa.RecordBatch]", snapshot.every_row(key.columns))) as batches:
        return source_keys(checked(batches), key, task.transform)


def refuse_unkeyed(spec: ExtractSpec, snapshot: Snapshot) -> None:
    """Check that deletes can be found in a snapshot.

    Raises:
        ConfigError: The keys that are read later would be of another moment.
    """
    may_be_shared = snapshot.shared or isinstance(snapshot, JointSnapshot)
    if not (isinstance(snapshot, KeyedSnapshot) and may_be_shared):
        raise ConfigError(
            f"{spec.extract_table}: deletes: detect reads all keys in the snapshot of the "
            "increment, and this source has no snapshot that several statements share: leave it "
            "out, and replace the table from time to time with extract-jobs run --set mode=full"
        )


def merge(
    spec: ExtractSpec,
    log: CommitLog,
    last: Commit,
    layout: Layout,
    task: SplitTask,
    *,
    results: Sequence[SplitResult],
    source: Digests | None,
    one_moment: bool,
    check: Callable[[], None],
) -> Merged:
    """Write the files again that hold rows to be replaced or deleted.

    Args:
        spec: The run's.
        log: The table's.
        last: The last published commit.
        layout: Columns and partitions after the commit.
        task: Has the key, and how files are written.
        results: Of every split.
        source: Keys of all rows of the source, sorted; None if deletes are ignored.
        one_moment: Whether all splits saw one state of the source.
        check: Called before each file; what it raises ends the merge.

    Returns:
        What was staged. If this raises, some of it is staged too.

    Raises:
        ConfigError: The key does not identify rows, or a file cannot be written again.
        ReconcileFailed: The source is empty, and the table would be emptied unasked.
        CommitConflict: Another tool has taken a file away meanwhile.
        ExtractError: As storage raises.
    """
    assert log.table is not None
    key = task.key
    assert key is not None
    changed = changed_keys([one.keys for one in results if one.keys], one_moment=one_moment)
    assert len(changed.digests) == sum(one.rows for one in results)
    rewriting = _Rewriting(task, key, changed, source, _ids_of(layout, key.file_columns))
    found = [
        file
        for file in contents(log.table, layout, key.file_columns, parent=last.seq)
        if file.rows and (source is not None or _meets(file, changed))
    ]
    if source is not None and not len(source):
        refuse_emptying(spec.extract_table, spec.empty_source, sum(file.rows for file in found))
    live = {normal_uri(file.staged.uri): file for file in log.live_files(last)}

    def rewritten(numbered: tuple[int, Content]) -> tuple[Content, WrittenFile | None] | None:
        number, file = numbered
        check()
        known = live.get(normal_uri(file.location))
        return rewriting.without_changed(file, number, known.partition if known else None)

    with ThreadPoolExecutor(_CONCURRENT_FILES, thread_name_prefix="extract-merge") as pool:
        done = [one for one in pool.map(rewritten, enumerate(found)) if one]
    doubled = max(int((rewriting.hits > 1).sum()), rewriting.surplus)
    if doubled:
        raise ConfigError(
            f"{spec.extract_table}: the table has several rows for up to {doubled:,} of the keys "
            "that were read, so columns.key is not the row's key in the source, or another tool "
            "added rows; nothing was committed. Name the columns that identify a row, or replace "
            "all rows once: extract-jobs run --set mode=full"
        )
    updated = int((rewriting.hits > 0).sum())
    removes = tuple(
        known.staged.uri if (known := live.get(normal_uri(file.location))) else file.location
        for file, _ in done
    )
    outside = [uri for uri in removes if not is_below(uri, spec.target.uri)]
    if outside:
        raise ConfigError(
            f"{outside[0]}, a file of Iceberg table {log.table.name}, is not below target.uri, so "
            "no commit removes it: let the tool that wrote it compact the table into its own folder"
        )
    return Merged(
        tuple(file for _, file in done if file),
        removes,
        len(changed.digests) - updated,
        updated,
        rewriting.deleted,
        rewriting.missing,
    )


def _ids_of(layout: Layout, columns: Sequence[str]) -> list[int]:
    numbers = {field["name"]: field["id"] for field in layout.schema["fields"]}
    return [numbers[name] for name in columns]


def _meets(file: Content, changed: Keys) -> bool:
    """Return whether a file may hold one of some keys, by the ranges of their columns."""
    if not len(changed.digests):
        return False
    for of_file, of_keys in zip(file.ranges, changed.ranges, strict=True):
        if of_file is None or of_keys is None:
            continue
        if of_file[1] < of_keys[0] or of_keys[1] < of_file[0]:
            return False
    return True


class _Rewriting:
    """Writes files again without the rows that are replaced or deleted. Thread-safe.

    Attributes:
        hits: For each changed key, how many rows of the table have it.
        deleted: Number of rows that are gone from the source.
        surplus: Number of rows with a key of the source that another row of the table has too;
            counted where deletes are detected.
    """

    def __init__(
        self,
        task: SplitTask,
        key: MergeKey,
        changed: Keys,
        source: Digests | None,
        ids: Sequence[int],
    ) -> None:
        self._task, self._key, self._ids = task, key, ids
        self._changed, self._source = changed.digests, source
        self._lock, self._writes = threading.Lock(), threading.Semaphore(_CONCURRENT_WRITES)
        self.hits: npt.NDArray[np.int64] = np.zeros(len(changed.digests), np.int64)
        self.deleted = 0
        self.surplus = 0
        self._held = np.zeros(0 if source is None else len(source), np.bool_)

    @property
    def missing(self) -> int:
        """Number of the source's keys that were neither read nor found in files."""
        if self._source is None:
            return 0
        at = places(self._changed, self._source)
        return int(np.count_nonzero(~self._held) - np.count_nonzero(~self._held[at[at >= 0]]))

    def _unknown(self, keys: Digests) -> npt.NDArray[np.bool_]:
        """Note the keys of a file's rows; return of each whether the source lacks it."""
        if self._source is None:
            return np.zeros(len(keys), np.bool_)
        at = places(keys, self._source)
        found = np.unique(at[at >= 0])
        with self._lock:
            self.surplus += int((at >= 0).sum() - (~self._held[found]).sum())
            self._held[found] = True
        return at < 0

    def without_changed(
        self, file: Content, number: int, partition: dict[str, str | None] | None
    ) -> tuple[Content, WrittenFile | None] | None:
        """Stage a file's other rows; None if it has no row that goes.

        Args:
            file: The file.
            number: Unique in the attempt.
            partition: As the log spells it; None if another tool wrote the file.
        """
        stream = self._task.open_storage(file.location).open(file.location)
        if stream is None:
            raise CommitConflict(
                f"{file.location} is gone: another tool replaced it while its rows were merged"
            )
        with stream, reading(file.location):
            opened = pq.ParquetFile(stream, page_checksum_verification=True)
            names = self._names(opened.schema_arrow)
            if names is None:
                stays = [None] * opened.num_row_groups if self._source is None else None
            else:
                groups = range(opened.num_row_groups)
                stays = [self._stays(opened, group, names) for group in groups]
            if stays is None:
                raise ConfigError(
                    f"{file.location} lacks a column of columns.key, so its rows cannot be "
                    "compared with those of the source: replace all rows once, with extract-jobs "
                    "run --set mode=full"
                )
            if all(one is None for one in stays):
                return None
            with self._writes:
                staged = self._staged(file, opened, stays, number, partition or file.partition)
        return file, staged

    def _names(self, columns: pa.Schema) -> list[str] | None:
        """Return the key's columns in a file: by id, or by name if it has no ids."""
        by_id = {
            int(field.metadata[FIELD_ID]): field.name
            for field in columns
            if field.metadata and FIELD_ID in field.metadata
        }
        if by_id:
            found = [by_id.get(number) for number in self._ids]
        else:
            found = [name if name in columns.names else None for name in self._key.file_columns]
        names = [name for name in found if name is not None]
        return names if len(names) == len(found) else None

    def _stays(self, opened: pq.ParquetFile, group: int, names: list[str]) -> pa.Array | None:
        """Return of each row of a row group whether it stays; None if all do."""
        table = opened.read_row_group(group, columns=names)
        keys = keys_of_rows([table.column(name).combine_chunks() for name in names])
        at = places(keys, self._changed)
        goes = at >= 0
        unknown = self._unknown(keys) & ~goes
        gone = int(unknown.sum())
        goes = goes | unknown
        if not goes.any():
            return None
        with self._lock:
            np.add.at(self.hits, at[at >= 0], 1)
            self.deleted += gone
        return pa.array(~goes)

    def _staged(
        self,
        file: Content,
        opened: pq.ParquetFile,
        stays: Sequence[pa.Array | None],
        number: int,
        partition: dict[str, str | None],
    ) -> WrittenFile | None:
        """Stage the rows that stay, in the columns, types and ids of their file; None for none."""
        writer: ParquetFile | None = None
        rows = 0
        try:
            for group, kept in enumerate(stays):
                if kept is not None and not pc.any(kept).as_py():
                    continue
                table = opened.read_row_group(group)
                table = table if kept is None else table.filter(kept)
                table = table.replace_schema_metadata(None)
                if writer is None:
                    writer = self._begin(table, number, partition)
                writer.add(table)
                rows += table.num_rows
            if writer is None:
                return None
            staged = writer.finish()
        except BaseException:
            if writer is not None:
                writer.abort()
            raise
        [footer] = writer.footers
        if not footer.schema.equals(opened.metadata.schema):
            raise ConfigError(
                f"{file.location} was written by another tool, and its columns would be written "
                "again in another form: replace all rows once, with extract-jobs run --set "
                "mode=full, or compact the table with a tool that writes lists of three levels, "
                "and decimals of up to 18 digits as integers"
            )
        return WrittenFile(staged, rows, partition, footer)

    def _begin(self, table: pa.Table, number: int, partition: dict[str, str | None]) -> ParquetFile:
        task, token = self._task, uuid.uuid4().hex
        name = f"{task.file_prefix}-m{number:05d}-{token[:8]}.parquet"
        target = task.target
        uri = join(target.files_uri, *filter(None, [folder(partition)]), name)
        wide = wide_columns(table)
        return ParquetFile.begin(
            task.open_storage(target.uri).stage(uri, join(target.uri, ""), token),
            uri,
            table.schema,
            target,
            dictionaries=dictionary_columns(table),
            wide=wide,
            metadata=task.metadata,
        )
