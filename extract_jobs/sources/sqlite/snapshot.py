"""One snapshot of a SQLite database, held by a read transaction of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from extract_jobs.errors import ConfigError, SourceUnavailable
from extract_jobs.sources.splits import Split, split_count
from extract_jobs.sources.sql.splits import whole
from extract_jobs.sources.sql.statements import select
from extract_jobs.sources.sqlite import splits as cutting
from extract_jobs.sources.sqlite.catalog import SqliteTable
from extract_jobs.sources.sqlite.errors import RAISED, sqlite_error
from extract_jobs.sources.sqlite.file_digest import file_digest
from extract_jobs.sources.sqlite.pages import PAGE_BYTES, SMALL_SHARE, SqlitePages, stamp
from extract_jobs.sources.sqlite.reader import SqliteReader
from extract_jobs.sources.sqlite.session import execute, version
from extract_jobs.spec.extract_spec import ExtractSpec

STRATEGIES = ("auto", "rowid", "range", "none")


class SqliteSnapshot:
    """A snapshot held by a read transaction. Meets `extract_jobs.sources.ComparableSnapshot`.

    Outside WAL mode its lock keeps writers from committing until it ends. In WAL mode writers
    continue, and every other connection that reads a split checks that none has committed since.

    Attributes:
        reader: Reads its splits.
        shared: True: splits and `count` see one version, or fail.
    """

    shared = True

    def __init__(
        self,
        opened: sqlite3.Connection,
        found: SqliteTable,
        reader: SqliteReader,
        spec: ExtractSpec,
        file: tuple[int, int],
    ) -> None:
        """Created by `SqliteSource.snapshot` only."""
        self._opened = opened
        self._found = found
        self.reader = reader
        self._spec = spec
        self._file = file

    def pages(self) -> SqlitePages | str:
        """Return the table's rows by rowid. See `extract_jobs.sources.ComparableSnapshot`.

        Raises:
            SourceUnavailable: The file cannot be read.
            ExtractError: As `splits`.
        """
        reader = self.reader
        if self._found.rowid is None or not self._found.is_plain or self._spec.where is not None:
            return "only plain SQLite tables with rowids, and without where, can be compared"
        if reader.version is None or (reader.version.wal and reader.version.written[0]):
            return "the database's -wal file is not empty: only a checkpoint empties it"
        found, path = stamp(reader.connection), reader.connection.path
        try:
            run = cutting.runner(self._opened)
            rows = int(run(select(["count(*)"], reader.relation))[0][0])
            width = cutting.row_bytes(run, reader.relation, [c.expression for c in reader.columns])
            size = rows * width
            if cutting.file_bytes(run) > SMALL_SHARE * max(size, PAGE_BYTES):
                return "the table is a small part of its database, whose digest would take longer"
            bounds = cutting.by_rowid(
                run, reader.relation, self._found.rowid, None,
                rows=rows, count=min(max(1, size // PAGE_BYTES), max(1, rows)),
            )  # fmt: skip
        except RAISED as error:
            failure = sqlite_error(error, f"comparing {self._spec.extract_table}", path)
        else:
            digest = file_digest(path)
            if not digest.file == self._file == found[:2]:
                return "the database's file was replaced meanwhile"
            return SqlitePages(self._opened, reader, tuple(bounds), digest.sha256, found)
        raise failure

    def splits(self, spec: ExtractSpec) -> list[Split]:
        """Split the request. See `extract_jobs.sources.Snapshot.splits`.

        Raises:
            ConfigError: The strategy is not available here, or there is no such column.
        """
        try:
            return self._cut(spec)
        except RAISED as error:
            failure = sqlite_error(
                error, f"cutting {spec.extract_table} into splits", self.reader.connection.path
            )
        # Raised outside the handler: the original may quote rows.
        raise failure

    def _cut(self, spec: ExtractSpec) -> list[Split]:
        wanted, reader, relation = spec.split, self.reader, self._found.relation
        run = cutting.runner(self._opened)
        self._check(spec)
        database = cutting.file_bytes(run)
        # A writer in WAL mode may commit at any time, and other connections could not join: with
        # auto such a database is read through the snapshot's own connection.
        alone = reader.version is None or (reader.version.wal and wanted.strategy == "auto")
        if alone or wanted.strategy == "none":
            return whole(database)
        column = self._column(spec)
        is_small = split_count(wanted, database) == 1
        if column is None or (is_small and wanted.strategy == "auto"):
            return whole(database)
        rows = int(run(select(["count(*)"], relation, reader.interval))[0][0])
        width = cutting.row_bytes(run, relation, [c.expression for c in reader.columns])
        size = min(rows * width, database)
        count = cutting.how_many(wanted, rows, size)
        if wanted.strategy == "range" and relation.kind != "table":
            # The size of a query's result is only a guess, and splits were requested explicitly.
            count = max(count, min(wanted.max_connections, max(1, rows)))
        if count == 1:
            return whole(size)
        cut = cutting.by_rowid if column == self._found.rowid else cutting.by_value
        bounds = cut(run, relation, column, reader.interval, rows=rows, count=count)
        return cutting.between(bounds, column, size)

    def _check(self, spec: ExtractSpec) -> None:
        wanted = spec.split
        if wanted.strategy not in STRATEGIES:
            raise ConfigError(
                f"split.strategy {wanted.strategy}: SQLite has {', '.join(STRATEGIES)}"
            )
        if wanted.strategy == "rowid" and self._found.rowid is None:
            raise ConfigError(
                f"split.strategy rowid: {spec.extract_table} is a {self._found.relation.kind} "
                "without an accessible rowid; use range with split.column, auto or none"
            )
        names = [column.name for column in self._found.columns]
        if wanted.strategy == "range" and wanted.column not in names:
            raise ConfigError(
                f"there is no column {wanted.column!r}; the columns are {', '.join(names)}"
            )

    def _column(self, spec: ExtractSpec) -> str | None:
        """Return what to split by: the rowid, the key's first column, or the requested one."""
        found, wanted = self._found, spec.split
        if wanted.column is not None and wanted.strategy in ("auto", "range"):
            return found.relation.column(wanted.column)
        if found.rowid is not None:
            return found.rowid
        return found.relation.column(found.key[0]) if found.key else None

    def every_row(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read all rows. See `extract_jobs.sources.KeyedSnapshot.every_row`."""
        return replace(self.reader.only(columns), interval=None).read(Split(0))

    def count(self) -> int:
        """Count the request's rows in this snapshot, under the same predicate."""
        reader = self.reader
        statement = select(["count(*)"], reader.relation, reader.interval)
        what = reader.what.replace("reading", "counting", 1)
        return int(execute(self._opened, statement, what=what, path=reader.connection.path)[0][0])

    def check(self) -> None:
        """Raise SourceUnavailable if the database has moved on, so that no split could join."""
        wanted, connection = self.reader.version, self.reader.connection
        if wanted is not None and version(connection, wal=wanted.wal) != wanted:
            raise SourceUnavailable(
                f"{connection.path} was written to or replaced while {self.reader.what}; run again"
            )
