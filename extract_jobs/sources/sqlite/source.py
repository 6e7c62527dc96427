"""SQLite as a source: describe a table, hold one snapshot, cut it into splits, count it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from extract_jobs.errors import ConfigError
from extract_jobs.schema import TableDescription
from extract_jobs.sources import Features, ReadRequest
from extract_jobs.sources.sql.columns import SqlColumn, interval_condition
from extract_jobs.sources.sql.source import Rows, SqlSource
from extract_jobs.sources.sql.statements import select
from extract_jobs.sources.sqlite import splits as cutting
from extract_jobs.sources.sqlite.catalog import SqliteTable, find
from extract_jobs.sources.sqlite.columns import SqliteColumn
from extract_jobs.sources.sqlite.listing import list_tables
from extract_jobs.sources.sqlite.reader import SqliteReader
from extract_jobs.sources.sqlite.session import (
    Session,
    SqliteConnection,
    begin,
    begin_version,
    connect,
    version,
)
from extract_jobs.sources.sqlite.snapshot import STRATEGIES, SqliteSnapshot
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.watermark import WatermarkValue

FEATURES = Features(
    reads_by="Python's sqlite3 module; ADBC's driver in worker processes",
    shared_snapshot=True,
    strategies=STRATEGIES,
    incremental=("watermark column",),
    queries=True,
    where=True,
    run_live=("the SQLite of the Python that runs the tests, rollback journal and WAL",),
)


@dataclass(frozen=True)
class SqliteSource(SqlSource[Session, SqliteTable]):
    """One table, view or query of a SQLite file.

    Attributes:
        spec: What is extracted.
        connection: The database's file.
    """

    spec: ExtractSpec
    connection: SqliteConnection

    @classmethod
    def open(cls, spec: ExtractSpec) -> SqliteSource:
        """Find the file of a spec; nothing is opened yet.

        Raises:
            ConfigError: The spec names no local file, or requests something that SQLite does not
                have.
        """
        if spec.watermark and spec.watermark.snapshot:
            raise ConfigError(
                "watermark.snapshot is for PostgreSQL: SQLite rows do not record who wrote them; "
                "name a watermark.column"
            )
        return cls(spec, SqliteConnection.of(spec.connection))

    def tables(self) -> list[ListedTable]:
        """List all tables. See `extract_jobs.sources.ListingSource`."""
        return list_tables(self.spec.connection)

    @contextlib.contextmanager
    def _session(self, what: str) -> Iterator[tuple[Session, SqliteTable]]:
        """Open a read transaction, so that all queries see one snapshot."""
        with contextlib.closing(connect(self.connection)) as opened:
            begin(opened, self.connection, what)
            yield (
                Session(opened, what, self.connection.path),
                find(opened, self.connection, self.spec),
            )

    def _rows(self, opened: Session, statement: str) -> Rows:
        return opened.execute(statement)

    def _watermark(
        self, opened: Session, table: SqliteTable, name: str, *bounds: WatermarkValue | None
    ) -> SqlColumn:
        column = super()._watermark(opened, table, name, *bounds)
        _refuse_mixed(opened, table, column)
        return column

    def _describe(self, opened: Session, found: SqliteTable) -> TableDescription:
        """The size is the whole file's; rows are from the last ANALYZE, if there was one."""
        return TableDescription(
            table=self.name,
            kind=found.relation.kind,
            columns=found.columns,
            key=found.key,
            estimated_rows=_analysed(opened.connection, found),
            estimated_bytes=cutting.file_bytes(opened.execute),
            fingerprint={"database": self.connection.path},
            source_version=f"SQLite {sqlite3.sqlite_version}",
        )

    def _may_keep(self) -> bool:
        spec = self.spec
        return (
            spec.reuse != "never"
            and spec.mode == "full"
            and spec.split.strategy == "auto"
            and spec.split.column is None
        )

    @contextlib.contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[SqliteSnapshot]:
        """Take a snapshot and hold it until the context ends."""
        what = f"taking a snapshot of {self.name}"
        # The file that is opened next, unless it is another one by then.
        file = version(self.connection, wal=False).file
        with contextlib.closing(connect(self.connection)) as opened:
            seen = begin_version(opened, self.connection, what)
            found = find(opened, self.connection, self.spec)
            if request.interval is not None and request.watermark_column is not None:
                column = found.column(request.watermark_column)
                _refuse_mixed(Session(opened, what, self.connection.path), found, column)
            rowid = found.rowid if found.is_plain and self.spec.where is None else None
            in_order = rowid is not None and self._may_keep()
            reader = SqliteReader(
                connection=self.connection,
                version=seen,
                # Kept rows are compared in the order in which they were read.
                relation=found.relation.unindexed() if in_order else found.relation,
                interval=interval_condition(request, found.column),
                columns=request.columns,
                null_what_fails=self.spec.made_null(c.name for c in request.columns),
                what=f"reading {self.name}",
                rowid=rowid,
                held=opened,
            )
            yield SqliteSnapshot(opened, found, reader, self.spec, file)


def _refuse_mixed(opened: Session, found: SqliteTable, column: SqlColumn) -> None:
    """Refuse a watermark that is compared as text if some values are not text.

    The bound is text then. SQLite sorts every number before every text, so a number would never be
    above the bound, and its row would be lost silently.

    Raises:
        ConfigError: There is such a value.
    """
    assert isinstance(column, SqliteColumn)
    if column.kind != "string":
        return
    statement = select(["1"], found.relation, column.is_no_text) + " limit 1"
    if opened.execute(statement):
        raise ConfigError(
            f"watermark column {column.name} is {column.source_type}, is compared as text, and "
            "holds values that are not text. SQLite sorts numbers before every text, so their "
            "rows would be lost: name the type of its values, for example columns: {cast: "
            f"{{{column.name}: int64}}}}"
        )


def _analysed(opened: sqlite3.Connection, found: SqliteTable) -> int | None:
    """Return the rows that ``ANALYZE`` counted, if it was run."""
    with contextlib.suppress(sqlite3.Error, ValueError, IndexError):
        name = found.relation.name[1:-1].replace('""', '"')
        rows = opened.execute(
            "select stat from sqlite_stat1 where tbl = ? limit 1", [name]
        ).fetchall()
        return int(rows[0][0].split()[0])
    return None
