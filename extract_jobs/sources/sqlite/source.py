"""SQLite as a source: describe a table, hold one snapshot, cut it into splits, count it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from extract_jobs.errors import ConfigError
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import Features, ReadRequest
from extract_jobs.sources.sqlite import splits as cutting
from extract_jobs.sources.sqlite import watermark
from extract_jobs.sources.sqlite.catalog import Found, find
from extract_jobs.sources.sqlite.reader import SqliteReader
from extract_jobs.sources.sqlite.session import (
    Rows,
    SqliteConnection,
    begin,
    begin_version,
    connect,
    execute,
)
from extract_jobs.sources.sqlite.snapshot import STRATEGIES, SqliteSnapshot
from extract_jobs.sources.sqlite.sql import interval_condition, select
from extract_jobs.sources.sqlite.types import make_column
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.watermark import WatermarkValue

FEATURES = Features(
    reads_by="Python's sqlite3 module",
    shared_snapshot=True,
    strategies=STRATEGIES,
    incremental=("watermark column",),
    queries=True,
    where=True,
    run_live=("the SQLite of the Python that runs the tests, rollback journal and WAL",),
)


@dataclass(frozen=True)
class SqliteSource:
    """One table, view or query of a SQLite file. Meets `extract_jobs.sources.Source`.

    Attributes:
        spec: What is extracted.
        connection: Where from.
    """

    spec: ExtractSpec
    connection: SqliteConnection

    @classmethod
    def open(cls, spec: ExtractSpec) -> SqliteSource:
        """Read the file's place off a spec; nothing is opened yet.

        Raises:
            ConfigError: The spec names no local file, or asks for what SQLite has not.
        """
        if spec.watermark and spec.watermark.snapshot:
            raise ConfigError(
                "watermark.snapshot is for PostgreSQL: SQLite rows do not tell who wrote them; "
                "name a watermark.column"
            )
        return cls(spec, SqliteConnection.of(spec.connection))

    def describe(self) -> TableDescription:
        """Read the schema. See `extract_jobs.sources.Source.describe`.

        ``estimated_bytes`` is the size of the whole file, which SQLite knows; ``estimated_rows``
        what the last ANALYZE left, if there was one.
        """
        what = f"describing {self._name}"
        with self._session(what) as opened:
            found = find(opened, self.connection, self.spec)
            return TableDescription(
                table=self._name,
                kind=found.relation.kind,
                columns=self._columns(found),
                key=found.key,
                estimated_rows=self._analysed(opened, found),
                estimated_bytes=cutting.file_bytes(lambda text: self._run(opened, text, what)),
                fingerprint={"database": self.connection.path},
                source_version=f"SQLite {sqlite3.sqlite_version}",
            )

    def highest(
        self,
        column: str,
        *,
        lower: WatermarkValue | None = None,
        upper: WatermarkValue | None = None,
        delay: timedelta | None = None,
    ) -> WatermarkValue | None:
        """Return the greatest value. See `extract_jobs.sources.Source.highest`."""
        if delay is not None:
            raise ConfigError(
                "watermark.delay needs a time, and SQLite has no type of that kind: leave open "
                "transactions alone by watermark.upper or where"
            )
        what = f"reading the highest {column} of {self._name}"
        with self._session(what) as opened:
            found = find(opened, self.connection, self.spec)
            return watermark.greatest(
                lambda text: self._run(opened, text, what),
                found.relation,
                self._column(found, column),
                lower=lower,
                upper=upper,
            )

    def precedes(self, column: str, left: WatermarkValue, right: WatermarkValue) -> bool:
        """Compare two values. See `extract_jobs.sources.Source.precedes`."""
        what = f"comparing values of {column} of {self._name}"
        with self._session(what) as opened:
            found = find(opened, self.connection, self.spec)
            return watermark.precedes(
                lambda text: self._run(opened, text, what),
                found.relation,
                self._column(found, column),
                left,
                right,
            )

    def null_watermarks(self, column: str) -> int:
        """Count NULLs. See `extract_jobs.sources.Source.null_watermarks`."""
        what = f"counting NULL in {column} of {self._name}"
        with self._session(what) as opened:
            found = find(opened, self.connection, self.spec)
            name = self._column(found, column).expression
            statement = select(["count(*)"], found.relation, f"{name} is null")
            return int(self._run(opened, statement, what)[0][0])

    @contextlib.contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[SqliteSnapshot]:
        """Take a snapshot and hold it. See `extract_jobs.sources.Source.snapshot`."""
        what = f"taking a snapshot of {self._name}"
        with contextlib.closing(connect(self.connection)) as opened:
            version = begin_version(opened, self.connection, what)
            found = find(opened, self.connection, self.spec)
            name = request.watermark_column
            column = next((c for c in self._columns(found) if c.name == name), None)
            reader = SqliteReader(
                connection=self.connection,
                version=version,
                relation=found.relation,
                interval=interval_condition(request, column),
                columns=request.columns,
                lossy_types=self.spec.lossy_types,
                what=f"reading {self._name}",
                held=opened,
            )
            yield SqliteSnapshot(opened, found, reader)

    @property
    def _name(self) -> str:
        return self.spec.extract_table

    @contextlib.contextmanager
    def _session(self, what: str) -> Iterator[sqlite3.Connection]:
        """Open a connection in a read transaction, so that all it is asked is of one moment."""
        with contextlib.closing(connect(self.connection)) as opened:
            begin(opened, self.connection, what)
            yield opened

    def _run(self, opened: sqlite3.Connection, statement: str, what: str) -> Rows:
        return execute(opened, statement, what=what, path=self.connection.path)

    def _columns(self, found: Found) -> tuple[Column, ...]:
        return tuple(
            make_column(
                column.name,
                column.declared,
                expression=found.relation.column(column.name),
                nullable=column.nullable,
                exact=found.strict or column.name == found.rowid_alias,
                cast=self.spec.columns.cast.get(column.name),
                lossy_types=self.spec.lossy_types,
            )
            for column in found.columns
        )

    def _column(self, found: Found, name: str) -> Column:
        columns = self._columns(found)
        column = next((c for c in columns if c.name == name), None)
        if column is None:
            names = ", ".join(c.name for c in columns)
            raise ConfigError(f"there is no column {name!r}; there are {names}")
        return column

    def _analysed(self, opened: sqlite3.Connection, found: Found) -> int | None:
        """Return the rows that ``ANALYZE`` counted, where it has been run."""
        with contextlib.suppress(sqlite3.Error, ValueError, IndexError):
            name = found.relation.name[1:-1].replace('""', '"')
            rows = opened.execute(
                "select stat from sqlite_stat1 where tbl = ? limit 1", [name]
            ).fetchall()
            return int(rows[0][0].split()[0])
        return None
