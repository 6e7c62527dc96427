"""MySQL as a source: describe a table, cut it into splits, read each in its own transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from extract_jobs.connections import DatabaseConnection, resolve_connection
from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import Features, ReadRequest
from extract_jobs.sources.mysql.catalog import Found, find, fingerprint
from extract_jobs.sources.mysql.driver import Connection, peer_address
from extract_jobs.sources.mysql.reader import MysqlReader
from extract_jobs.sources.mysql.session import execute, is_mariadb, session
from extract_jobs.sources.mysql.snapshot import MysqlSnapshot
from extract_jobs.sources.mysql.sql import interval_condition, quote_name
from extract_jobs.sources.mysql.types import make_column
from extract_jobs.sources.mysql.watermark import clock_bound, greatest, nulls, precedes
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.columns import is_chosen, refuse_doubled
from extract_jobs.watermark import WatermarkValue

FEATURES = Features(
    reads_by="MySQL's own protocol, parsed into Arrow",
    shared_snapshot=False,
    strategies=("auto", "range", "none"),
    incremental=("watermark column",),
    queries=True,
    where=True,
    run_live=("MariaDB 10.11",),
    unverified=("MySQL 5.7 to 9", "Aurora MySQL", "RDS Proxy"),
)


@dataclass(frozen=True)
class MysqlSource:
    """One table, view or query of a MySQL database. Meets `extract_jobs.sources.Source`.

    Attributes:
        spec: What is extracted.
        connection: Where from, credentials resolved.
    """

    spec: ExtractSpec
    connection: DatabaseConnection

    @classmethod
    def open(cls, spec: ExtractSpec) -> MysqlSource:
        """Resolve a spec's credentials; nothing is connected yet.

        Raises:
            ConfigError: They cannot be resolved.
        """
        return cls(spec, resolve_connection(spec.connection, engine="mysql"))

    def describe(self) -> TableDescription:
        """Read the catalogue. See `extract_jobs.sources.Source.describe`."""
        with session(self.connection, f"describing {self._name}") as opened:
            found = self._find(opened)
            columns = self._columns(found)
            # Not ``*``: the user may be allowed some columns only.
            chosen = [quote_name(c.name) for c in columns if self._is_chosen(c.name, found)]
            listed = ", ".join(chosen) or "1"
            execute(opened, f"select {listed} from {found.relation.source} limit 0")
            server = "MariaDB" if is_mariadb(opened) else "MySQL"
            return TableDescription(
                table=self.spec.extract_table,
                kind=found.relation.kind,
                columns=columns,
                key=found.key,
                estimated_rows=found.table.rows if found.table else None,
                estimated_bytes=found.table.data_bytes if found.table else None,
                fingerprint=fingerprint(opened, self.connection),
                source_version=f"{server} {execute(opened, 'select version()')[0][0]}",
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
        with session(self.connection, f"reading the highest {column} of {self._name}") as opened:
            found = self._find(opened)
            latest = None
            if delay is not None:
                latest = clock_bound(opened, found, column, delay)
            return greatest(opened, found, column, lower=lower, upper=upper, latest=latest)

    def precedes(self, column: str, left: WatermarkValue, right: WatermarkValue) -> bool:
        """Compare two values. See `extract_jobs.sources.Source.precedes`."""
        with session(self.connection, f"comparing values of {column} of {self._name}") as opened:
            return precedes(opened, self._find(opened), column, left, right)

    def null_watermarks(self, column: str) -> int:
        """Count NULLs. See `extract_jobs.sources.Source.null_watermarks`."""
        with session(self.connection, f"counting NULL in {column} of {self._name}") as opened:
            found = self._find(opened)
            found.type_of(column)
            return nulls(opened, found, column)

    @contextlib.contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[MysqlSnapshot]:
        """Find what is read, for as long as the context lasts; no connection is held.

        See `MysqlSnapshot` for what its splits are promised.
        """
        with session(self.connection, f"planning the reading of {self._name}") as opened:
            found = self._find(opened)
            column = request.watermark_column
            reader = MysqlReader(
                connection=self.connection.at(peer_address(opened)),
                relation=found.relation,
                interval=interval_condition(request, column and found.type_of(column).base),
                columns=request.columns,
                null_what_fails=self.spec.lossy_types == "null",
                what=f"reading {self._name}",
            )
        yield MysqlSnapshot(found, reader, request.watermark_column)

    @property
    def _name(self) -> str:
        return self.spec.extract_table

    def _find(self, opened: Connection) -> Found:
        return find(
            opened,
            table_name=self.spec.extract_table,
            query=self.spec.query,
            where=self.spec.where,
            database=self.connection.database,
        )

    def _is_chosen(self, name: str, found: Found) -> bool:
        return is_chosen(name, self.spec, [known for known, _, _ in found.types])

    def _columns(self, found: Found) -> tuple[Column, ...]:
        names = [name for name, _, _ in found.types]
        refuse_doubled(names)
        if not names:
            raise ConfigError(f"{self._name} has no columns")
        made = [
            make_column(
                name,
                kind,
                nullable=nullable,
                # A column that is not chosen is never read: nothing to refuse.
                cast=self.spec.columns.cast.get(name)
                or (None if self._is_chosen(name, found) else "string"),
                lossy=self.spec.lossy_types,
            )
            for name, nullable, kind in found.types
        ]
        refused = [reason for reason in made if isinstance(reason, str)]
        if refused:
            raise TypeNotRepresentable(f"{self._name}: {'; '.join(refused)}")
        return tuple(column for column in made if isinstance(column, Column))
