"""Any JDBC database as a source: describe a table, cut it into splits, count it.

Spark reads the rows; all other statements use the same driver in Spark's JVM. Splits share no
snapshot: each reads its rows when its turn comes, so rows that move between splits in the meantime
may arrive twice or not at all. If that matters, split by a column that never changes, or do not
split.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from extract_jobs.connections import DatabaseConnection, resolve_connection
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import Features, ReadRequest
from extract_jobs.sources.jdbc.catalog import JdbcTable, list_tables, look_up
from extract_jobs.sources.jdbc.columns import JdbcColumn, latest_by_clock
from extract_jobs.sources.jdbc.dialects import BY_SOURCE_TYPE, Dialect
from extract_jobs.sources.jdbc.jvm import Jvm, Opened, open_jvm
from extract_jobs.sources.jdbc.reader import JdbcReader
from extract_jobs.sources.jdbc.splits import cut
from extract_jobs.sources.jdbc.sql import check_query
from extract_jobs.sources.jdbc.types import Typed, make_column, unread_column
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.columns import SqlColumn, interval_condition
from extract_jobs.sources.sql.source import Rows, SqlSource
from extract_jobs.sources.sql.statements import select
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.spec.predicates import check_where
from extract_jobs.spec.source_types import registration
from extract_jobs.transform.columns import is_chosen

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FEATURES = Features(
    reads_by="Spark's JDBC source, through mapInArrow",
    shared_snapshot=False,
    strategies=("auto", "range", "hash", "rowid", "none"),
    incremental=("watermark column",),
    queries=True,
    where=True,
    run_live=(
        "Apache Derby 10.14 and 10.16",
        "H2 2.1.214, also in its Oracle and SQL Server modes",
        "HSQLDB 2.6",
        "PostgreSQL's driver 42.5.5",
        "MariaDB's driver 2.7.6",
    ),
    unverified=(
        "Oracle, SQL Server and Redshift: from documentation only, no real server was available",
    ),
)


@dataclass(frozen=True)
class JdbcSource(SqlSource[Opened, JdbcTable]):
    """One table, view or query of a JDBC database.

    Attributes:
        spec: What is extracted.
        connection: The connection, with credentials resolved.
        jvm: Has the driver.
        dialect: The database's dialect.
    """

    spec: ExtractSpec
    connection: DatabaseConnection
    jvm: Jvm
    dialect: Dialect

    @classmethod
    def open(cls, spec: ExtractSpec, spark: SparkSession | None) -> JdbcSource:
        """Resolve credentials and find the driver; nothing is connected yet.

        Starts Spark if none is running.

        Raises:
            ConfigError: Credentials or driver cannot be found, or ``where`` or ``query`` is not a
                single condition or statement.
        """
        dialect = registration(spec.source_type).where or "generic"
        if spec.where is not None:
            check_where(spec.where, dialect)
        if spec.query is not None:
            check_query(spec.query, dialect)
        connection = resolve_connection(spec.connection, engine=spec.source_type)
        jvm = open_jvm(spec, connection, spark)
        return cls(spec, connection, jvm, BY_SOURCE_TYPE.get(spec.source_type, jvm.driver.dialect))

    def tables(self) -> list[ListedTable]:
        """List the tables of users. See `extract_jobs.sources.ListingSource`."""
        with self.jvm.connect("listing the tables of the database") as opened:
            return list_tables(opened, self.dialect)

    @contextlib.contextmanager
    def _session(self, what: str) -> Iterator[tuple[Opened, JdbcTable]]:
        with self.jvm.connect(what) as opened:
            yield opened, look_up(opened, self.spec, self.dialect)

    def _rows(self, opened: Opened, statement: str) -> Rows:
        return opened.rows(statement)

    def _describe(self, opened: Opened, found: JdbcTable) -> TableDescription:
        data = opened.java.getMetaData()
        version = f"{data.getDatabaseProductName()} {data.getDatabaseProductVersion()}"
        place = self.jvm.url.partition("?")[0].partition(";")[0]
        return TableDescription(
            table=self.name,
            kind=found.relation.kind,
            columns=self._described(found),
            key=found.key,
            estimated_rows=found.rows,
            estimated_bytes=found.bytes,
            fingerprint={"url": place, "database": str(opened.java.getCatalog() or "")},
            source_version=version,
            read_from=self.connection.trust,
        )

    def _latest(self, opened: Opened, column: SqlColumn, delay: timedelta) -> str:
        assert isinstance(column, JdbcColumn)
        return column.literal(latest_by_clock(opened, column, delay).text)

    def _described(self, found: JdbcTable) -> tuple[Column, ...]:
        names = [column.described.name for column in found.columns]

        def make(name: str, _: bool, typed: Typed, cast: str | None) -> Column | str:
            if not is_chosen(name, self.spec, names):
                return unread_column(typed, self.dialect)  # nothing to refuse
            return make_column(typed, self.dialect, cast=cast, lossy=self.spec.lossy_type(name))

        return self._columns(
            [(typed.described.name, typed.described.nullable, typed) for typed in found.columns],
            make,
        )

    @contextlib.contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[JdbcSnapshot]:
        """Look the table up once more.

        No snapshot is held, and no connection stays open.
        """
        with self._session(f"looking up {self.name}") as (_, found):
            interval = interval_condition(request, found.column)
        reader = JdbcReader(
            jvm=self.jvm,
            relation=found.relation,
            interval=interval,
            columns=request.columns,
            fetch_rows=self.spec.split.fetch_rows,
            row_bytes=found.row_bytes([column.name for column in request.columns]),
            null_what_fails=self.spec.made_null(c.name for c in request.columns),
            what=f"reading {self.name}",
        )
        yield JdbcSnapshot(found, reader)


@dataclass(frozen=True)
class JdbcSnapshot:
    """What an attempt reads, without a shared snapshot. Implements `extract_jobs.sources.Snapshot`.

    Attributes:
        found: What is read, as the catalog describes it.
        reader: Reads its splits.
    """

    found: JdbcTable
    reader: JdbcReader

    @property
    def shared(self) -> bool:
        """False: `count` is taken at a different moment."""
        return False

    def splits(self, spec: ExtractSpec) -> list[Split]:
        """Split the request. See `extract_jobs.sources.Snapshot.splits`."""
        reader, found = self.reader, self.found
        if set(found.key) & set(spec.columns.mask):
            # Spark's event log shows statements, and a key's bounds are values of it.
            found = replace(found, key=())
        with reader.jvm.connect(f"cutting {spec.extract_table} into splits") as opened:
            return cut(opened, found, spec.split, reader.interval)

    def count(self) -> int:
        """Count the request's rows under the same predicate, now."""
        reader = self.reader
        statement = select(["count(*)"], reader.relation, reader.interval)
        with reader.jvm.connect(reader.what.replace("reading", "counting", 1)) as opened:
            return int(opened.rows(statement)[0][0] or 0)

    def check(self) -> None:
        """Do nothing: there is no snapshot to lose."""
