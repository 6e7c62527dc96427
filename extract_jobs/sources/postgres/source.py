"""PostgreSQL as a source: describe a table, hold one snapshot, split it, count it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import psycopg

from extract_jobs.connections import DatabaseConnection, resolve_connection
from extract_jobs.errors import (
    ConfigError,
    ExtractError,
    SourceMoved,
    SourceUnavailable,
)
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import Features, ReadRequest
from extract_jobs.sources.postgres.catalog import (
    column_types,
    explain,
    find_table,
    fingerprint,
    leaves,
    nodes,
    relation_of,
    toast_below,
)
from extract_jobs.sources.postgres.catalog_entry import CatalogEntry
from extract_jobs.sources.postgres.columns import clock_bound
from extract_jobs.sources.postgres.errors import hidden_rows, primary, statement_error
from extract_jobs.sources.postgres.inheritance import children
from extract_jobs.sources.postgres.listing import list_tables
from extract_jobs.sources.postgres.locks import (
    export_snapshot,
    locked_relations,
    rewritten,
    waited_too_long,
)
from extract_jobs.sources.postgres.node import (
    POSITION,
    Position,
    check_history,
    check_lag,
    position,
    recovery,
    wait_until_reached,
)
from extract_jobs.sources.postgres.reader import PostgresReader
from extract_jobs.sources.postgres.session import Connection, connect, execute, session
from extract_jobs.sources.postgres.snapshot import PostgresSnapshot
from extract_jobs.sources.postgres.splits import primary_key
from extract_jobs.sources.postgres.sql import EQUALS, IN_PAGE_ORDER, quote_name, quote_text
from extract_jobs.sources.postgres.types import make_column
from extract_jobs.sources.postgres.user_sql import check_texts, query_relation
from extract_jobs.sources.postgres.width import BATCH_BYTES, batch_rows, size_expression, width_of
from extract_jobs.sources.postgres.xmin import (
    check_identified,
    check_table,
    counter,
    is_snapshot_mode,
    reached,
    xmin_condition,
)
from extract_jobs.sources.sql.columns import SqlColumn, interval_condition
from extract_jobs.sources.sql.source import Rows, SqlSource
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.watermark import WatermarkValue

FEATURES = Features(
    reads_by="DuckDB (binary COPY to Arrow); rows too wide for that, psycopg",
    shared_snapshot=True,
    strategies=("auto", "ctid", "range", "none"),
    incremental=("watermark column", "watermark.snapshot: transactions (xmin)"),
    queries=True,
    where=True,
    run_live=(
        "PostgreSQL 15, 16 and 18",
        "PostgreSQL 13, 14 and 17 by hand",
        "a hot standby",
        "PgBouncer",
    ),
    unverified=("Aurora and RDS for PostgreSQL", "PostgreSQL 12"),
)
_SNAPSHOT_TRIES = 3


@dataclass(frozen=True)
class PostgresSource(SqlSource[Connection, CatalogEntry]):
    """One table, view or query of a PostgreSQL database.

    Attributes:
        spec: What is extracted.
        connection: The database, credentials resolved.
        reached: Latest position in its history that the source is known to have reached.
        seen: Its position when `highest` last ran; empty before that, and if it reports none.
    """

    spec: ExtractSpec
    connection: DatabaseConnection
    reached: Position | None = None
    seen: list[Position] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def open(cls, spec: ExtractSpec) -> PostgresSource:
        """Resolve a spec's credentials; does not connect yet.

        Raises:
            ConfigError: They cannot be resolved, or the spec requests unsupported splits.
        """
        if spec.split.strategy not in FEATURES.strategies:
            raise ConfigError(
                f"{spec.extract_table}: split.strategy {spec.split.strategy}: PostgreSQL has "
                f"{', '.join(FEATURES.strategies)}"
            )
        connection = resolve_connection(spec.connection)
        settings = {"row_security": "on" if spec.row_security == "apply" else "off"}
        if spec.statement_timeout is not None:
            settings["statement_timeout"] = f"{spec.statement_timeout.total_seconds():.0f}s"
        return cls(spec, replace(connection, settings=settings))

    def tables(self) -> list[ListedTable]:
        """List what the user may read. See `extract_jobs.sources.ListingSource`."""
        return list_tables(self.spec.connection)

    def position(self) -> dict[str, str] | None:
        """Return the position at `highest`. See `extract_jobs.sources.ReplicatedSource`."""
        return self.seen[-1].to_json() if self.seen else None

    def having_reached(self, position: Mapping[str, str]) -> PostgresSource:
        """Require nodes to have reached it. See `extract_jobs.sources.ReplicatedSource`."""
        return replace(self, reached=Position.from_json(position))

    @contextlib.contextmanager
    def _session(self, what: str) -> Iterator[tuple[Connection, CatalogEntry]]:
        with session(self.connection, what) as opened:
            yield opened, self._find(opened)
            self._note(opened)

    def _note(self, opened: Connection) -> None:
        """Keep the node's position, read after the rows, so that it covers them."""
        here = position(opened)
        if here is not None:
            self.seen[:] = [here.later(self.seen[0]) if self.seen else here]

    def _rows(self, opened: Connection, statement: str) -> Rows:
        return execute(opened, statement)

    def _describe(self, opened: Connection, found: CatalogEntry) -> TableDescription:
        node = recovery(opened)
        check_lag(node, self.spec.max_lag, f"describing {self.name}")
        read_from = node.to_json() | self._row_security(opened, found) | self.connection.trust
        check_texts(opened, found.relation, self.spec.query)
        rows, size = _estimates(opened, found)
        identity = fingerprint(opened, self.connection)
        if is_snapshot_mode(self.spec):
            check_table(found, self.name)
            check_identified(identity, self.name)
        return TableDescription(
            table=self.name,
            kind=found.relation.kind,
            columns=self._described(found),
            key=primary_key(opened, found.table) if found.table else (),
            estimated_rows=rows,
            estimated_bytes=size,
            fingerprint=identity,
            source_version=f"PostgreSQL {opened.info.parameter_status('server_version')}",
            read_from=read_from,
        )

    def highest(
        self,
        column: str,
        *,
        lower: WatermarkValue | None = None,
        upper: WatermarkValue | None = None,
        delay: timedelta | None = None,
    ) -> WatermarkValue | None:
        """Return the greatest value, in snapshot mode the last transaction that has ended."""
        if not is_snapshot_mode(self.spec):
            return super().highest(column, lower=lower, upper=upper, delay=delay)
        with session(self.connection, f"reading the highest {column} of {self.name}") as opened:
            found = reached(counter(opened, self.name), lower, self.name)
            check_history(position(opened), self.reached, self.name)
            self._note(opened)
            return found

    def _latest(self, opened: Connection, column: SqlColumn, delay: timedelta) -> str:
        # The zone of the user's sessions that set none, unlike ours.
        zone = execute(
            opened, f"select reset_val from pg_catalog.pg_settings where name {EQUALS} 'TimeZone'"
        )
        return clock_bound(column, delay, str(zone[0][0]), recovery(opened))

    def _check_bound(self, opened: Connection, column: SqlColumn, bound: WatermarkValue) -> None:
        super()._check_bound(opened, column, bound)
        if bound.type != "string":
            return  # already typed
        kind = column.source_type
        try:
            execute(opened, f"select {quote_text(bound.text)}::pg_catalog.{kind}")
        except psycopg.DataError as error:
            raise ConfigError(
                f"{bound.text!r} is not a bound for watermark column {column.name}, which is "
                f"{kind}: {primary(error)}"
            ) from error

    @contextlib.contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[PostgresSnapshot]:
        """Take a snapshot and hold it until the context ends.

        Behind a pooler, or if the server cannot export one, there is none to share: then there is
        one split, and `PostgresSnapshot.count` counts in a snapshot of its own.
        """
        with contextlib.closing(connect(self.connection)) as opened:
            held = self._hold(opened, request)
            with held.heartbeat():
                yield held

    def _row_security(self, opened: Connection, found: CatalogEntry) -> dict[str, str]:
        """Return whether policies hide rows from the reader; refuse that unless it is requested.

        For views and queries the server itself refuses, when it plans them.
        """
        applies = self.spec.row_security == "apply"
        if found.table is None or found.table.relkind == "v":
            return {"row_security": "applied"} if applies else {}
        statement = "select pg_catalog.row_security_active(%s::pg_catalog.int8::pg_catalog.oid)"
        if not execute(opened, statement, found.table.oid)[0][0]:
            return {}
        if not applies:
            raise hidden_rows(f"{self.name} cannot be read in full")
        return {"row_security": "applied"}

    def _hold(self, opened: Connection, request: ReadRequest) -> PostgresSnapshot:
        what = f"taking a snapshot of {self.name}"
        failure: ExtractError
        try:
            for _ in range(_SNAPSHOT_TRIES):
                found, reader = self._try_snapshot(opened, request)
                changed = rewritten(opened)
                if not changed:
                    return self._held(opened, request, found, reader)
                execute(opened, "rollback")
            failure = SourceUnavailable(
                f"{what} failed: {', '.join(changed)} was truncated, rewritten or recreated "
                f"meanwhile, {_SNAPSHOT_TRIES} times in a row; run again when that has stopped"
            )
        except psycopg.errors.LockNotAvailable:
            failure = waited_too_long(opened, what)
        except psycopg.Error as error:
            failure = statement_error(error, what)
        # Not from within the handler: the original may quote rows.
        raise failure

    def _held(
        self, opened: Connection, request: ReadRequest, found: CatalogEntry, reader: PostgresReader
    ) -> PostgresSnapshot:
        by_xmin = is_snapshot_mode(self.spec)
        return PostgresSnapshot(
            opened,
            found,
            reader,
            # No index holds xmin: in snapshot mode the table is scanned.
            watermark_column=None if by_xmin else request.watermark_column,
            parents=(read := tuple(locked_relations(opened))),
            parts=children(opened, read),
            written_to=position(opened) if by_xmin else None,
            yields=self.spec.on_waiting_ddl == "yield",
        )

    def _try_snapshot(
        self, opened: Connection, request: ReadRequest
    ) -> tuple[CatalogEntry, PostgresReader]:
        """Take a snapshot younger than the table's lock, then plan, which locks the rest."""
        what, table = f"reading {self.name}", None
        if self.spec.query is None:
            table = find_table(opened, self.spec.extract_table)
        if self.reached is not None:
            wait_until_reached(lambda: execute(opened, POSITION)[0], self.reached, what)
        if self.spec.max_lag is not None:
            check_lag(recovery(opened), self.spec.max_lag, what)
        snapshot_id = export_snapshot(opened, self.connection, table)
        found = self._find(opened)
        self._check_unaltered(request, found)
        return found, self._reader(opened, request, found, snapshot_id)

    def _check_unaltered(self, request: ReadRequest, found: CatalogEntry) -> None:
        """Compare the columns that the snapshot's locks protect with those that were planned."""
        now = {name: (kind.printed, nullable) for name, nullable, kind in found.types}
        altered = [
            f"{column.name} was {column.source_type}, and is {now.get(column.name, ('gone',))[0]}"
            for column in request.columns
            if now.get(column.name, ("",))[0] != column.source_type
        ]
        altered += [
            f"{column.name} was NOT NULL, and admits NULL"
            for column in request.columns
            if not column.nullable and now.get(column.name, ("", False))[-1]
        ]
        if altered:
            raise SourceMoved(
                f"{self.name} was altered since the run was planned: {'; '.join(altered)}; run "
                "again"
            )

    def _find(self, opened: Connection) -> CatalogEntry:
        where = self.spec.where
        if self.spec.query is not None:
            relation, table = query_relation(self.spec.query, where), None
        else:
            table = find_table(opened, self.spec.extract_table)
            relation = relation_of(table, where)
        return CatalogEntry(
            table,
            relation,
            tuple(leaves(opened, table)) if table else (),
            tuple(column_types(opened, table, relation)),
        )

    def _described(self, found: CatalogEntry) -> tuple[Column, ...]:
        made = self._columns(
            found.types,
            lambda name, nullable, kind, cast: make_column(
                name, kind, nullable=nullable, cast=cast, lossy_types=self.spec.lossy_type(name)
            ),
        )
        return tuple(replace(c, watermark=found.column(c.name).kind) for c in made)

    def _reader(
        self, opened: Connection, request: ReadRequest, found: CatalogEntry, snapshot_id: str | None
    ) -> PostgresReader:
        version = opened.info.server_version
        # Not ``*``: the user may only read some columns.
        names = ", ".join(quote_name(column.name) for column in request.columns)
        plan = explain(opened, f"select {names} from {found.relation.source}")
        toast = sum(leaf.toast_bytes for leaf in found.leaves) or toast_below(opened, plan)
        twice = bool(found.leaves and snapshot_id)
        connection = self.connection.at(opened.info.hostaddr)
        if found.leaves and self.spec.reuse != "never":
            connection = replace(connection, settings=connection.settings | IN_PAGE_ORDER)
        return PostgresReader(
            connection=connection,
            server_version=version,
            snapshot_id=snapshot_id,
            relation=found.relation,
            interval=self._condition(opened, request, found, snapshot_id),
            columns=request.columns,
            width=width_of(request.columns, toast, may_read_twice=twice),
            size=size_expression(request.columns, version),
            batch_rows=batch_rows(found.leaves, plan["Plan Width"]),
            # The planner guesses 32 bytes for any text that an expression makes.
            batch_bytes=None if found.leaves else BATCH_BYTES,
            reads_foreign_tables=any(n["Node Type"] == "Foreign Scan" for n in nodes(plan)),
            null_what_fails=self.spec.made_null(c.name for c in request.columns),
            most_bytes=self.spec.max_value_bytes,
            # Another connection may reach another node.
            reached=self.reached if self.connection.pooled else None,
            what=f"reading {self.name}",
        )

    def _condition(
        self, opened: Connection, request: ReadRequest, found: CatalogEntry, snapshot_id: str | None
    ) -> str | None:
        """Return the interval's condition, in snapshot mode for exactly the held snapshot."""
        column = request.watermark_column
        if column is None or not is_snapshot_mode(self.spec):
            return interval_condition(request, found.column)
        check_table(found, self.name)
        if snapshot_id is None:
            raise ConfigError(
                f"{self.name}: watermark.snapshot needs a server that can export a snapshot, and "
                "this one cannot: name a watermark.column"
            )
        return xmin_condition(request.interval, counter(opened, self.name), self.name)


def _estimates(opened: Connection, found: CatalogEntry) -> tuple[int | None, int | None]:
    """Return estimated rows and bytes; the planner estimates what is not stored."""
    if not found.leaves:
        if found.relation.kind == "partitioned":
            return 0, 0
        plan = explain(opened, f"select * from {found.relation.source}")
        return plan["Plan Rows"], plan["Plan Rows"] * plan["Plan Width"]
    rows = [leaf.rows for leaf in found.leaves]
    known = [count for count in rows if count is not None]
    return (
        sum(known) if len(known) == len(rows) else None,
        sum(leaf.heap_bytes + leaf.toast_bytes for leaf in found.leaves),
    )
