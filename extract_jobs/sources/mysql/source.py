"""MySQL as a source: describe a table, split it, read each split in its own transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from extract_jobs.connections import DatabaseConnection, resolve_connection
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import Features, ReadRequest
from extract_jobs.sources.mysql.catalog import CatalogEntry, find, fingerprint
from extract_jobs.sources.mysql.columns import clock_bound
from extract_jobs.sources.mysql.driver import Connection, peer_address
from extract_jobs.sources.mysql.listing import list_tables
from extract_jobs.sources.mysql.reader import MysqlReader
from extract_jobs.sources.mysql.session import execute, is_mariadb, session
from extract_jobs.sources.mysql.snapshot import MysqlSnapshot
from extract_jobs.sources.mysql.sql import quote_name
from extract_jobs.sources.mysql.types import make_column
from extract_jobs.sources.sql.columns import SqlColumn, interval_condition
from extract_jobs.sources.sql.source import Rows, SqlSource
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.transform.columns import is_chosen

FEATURES = Features(
    reads_by="MySQL's own protocol, parsed into Arrow",
    shared_snapshot="where it may lock the table for a moment",
    strategies=("auto", "range", "none"),
    incremental=("watermark column",),
    queries=True,
    where=True,
    run_live=("MySQL 9.7", "MariaDB 10.11"),
    unverified=("MySQL 8.0 and 8.4", "Aurora MySQL", "RDS Proxy"),
)


@dataclass(frozen=True)
class MysqlSource(SqlSource[Connection, CatalogEntry]):
    """One table, view or query of a MySQL database.

    Attributes:
        spec: What is extracted.
        connection: The server, credentials resolved.
    """

    spec: ExtractSpec
    connection: DatabaseConnection

    @classmethod
    def open(cls, spec: ExtractSpec) -> MysqlSource:
        """Resolve a spec's credentials; does not connect yet.

        Raises:
            ConfigError: They cannot be resolved.
        """
        connection = resolve_connection(spec.connection, engine="mysql")
        if spec.statement_timeout is not None:
            seconds = round(spec.statement_timeout.total_seconds())
            limits = {"max_statement_time": f"{seconds}", "max_execution_time": f"{seconds * 1000}"}
            connection = replace(connection, settings=limits)
        return cls(spec, connection)

    def tables(self) -> list[ListedTable]:
        """List what the user may see. See `extract_jobs.sources.ListingSource`."""
        return list_tables(self.spec.connection)

    @contextlib.contextmanager
    def _session(self, what: str) -> Iterator[tuple[Connection, CatalogEntry]]:
        with session(self.connection, what) as opened:
            found = find(
                opened,
                table_name=self.spec.extract_table,
                query=self.spec.query,
                where=self.spec.where,
                database=self.connection.database,
            )
            yield opened, found

    def _rows(self, opened: Connection, statement: str) -> Rows:
        return execute(opened, statement)

    def _describe(self, opened: Connection, found: CatalogEntry) -> TableDescription:
        columns = self._described(found)
        # Not ``*``: the user may only read some columns.
        names = [column.name for column in columns]
        chosen = [quote_name(name) for name in names if is_chosen(name, self.spec, names)]
        listed = ", ".join(chosen) or "1"
        execute(opened, f"select {listed} from {found.relation.source} limit 0")
        server = "MariaDB" if is_mariadb(opened) else "MySQL"
        return TableDescription(
            table=self.name,
            kind=found.relation.kind,
            columns=columns,
            key=found.key,
            estimated_rows=found.table.rows if found.table else None,
            estimated_bytes=found.table.data_bytes if found.table else None,
            fingerprint=fingerprint(opened, self.connection),
            source_version=f"{server} {execute(opened, 'select version()')[0][0]}",
            read_from=self.connection.trust,
        )

    def _latest(self, opened: Connection, column: SqlColumn, delay: timedelta) -> str:
        return clock_bound(opened, column, delay)

    def _described(self, found: CatalogEntry) -> tuple[Column, ...]:
        return self._columns(
            found.types,
            lambda name, nullable, kind, cast: make_column(
                name, kind, nullable=nullable, cast=cast, lossy=self.spec.lossy_type(name)
            ),
        )

    @contextlib.contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[MysqlSnapshot]:
        """Find what is to be read, and hold it until the context ends.

        No connection is held before `MysqlSnapshot.take`, which says what the splits promise.
        """
        with self._session(f"planning how to read {self.name}") as (opened, found):
            reader = MysqlReader(
                connection=self.connection.at(peer_address(opened)),
                relation=found.relation,
                interval=interval_condition(request, found.column),
                columns=request.columns,
                null_what_fails=self.spec.made_null(c.name for c in request.columns),
                what=f"reading {self.name}",
                most_bytes=self.spec.max_value_bytes,
            )
        snapshot = MysqlSnapshot(
            found,
            reader,
            watermark_column=request.watermark_column,
            one_snapshot=self.spec.split.one_snapshot,
        )
        with contextlib.closing(snapshot):
            yield snapshot
