"""PostgreSQL as a source: describe a table, hold one snapshot, cut it into splits, count it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import psycopg

from extract_jobs.connections import PostgresConnection, resolve_connection
from extract_jobs.errors import ConfigError, SourceUnavailable, TypeNotRepresentable
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import ReadRequest
from extract_jobs.sources import postgres_splits as cutting
from extract_jobs.sources.postgres_catalog import (
    Connection,
    Leaf,
    Table,
    begin,
    check_texts,
    column_types,
    connect,
    execute,
    explain,
    find_table,
    fingerprint,
    leaves,
    query_relation,
    relation_of,
    session,
    toast_below,
)
from extract_jobs.sources.postgres_errors import statement_error
from extract_jobs.sources.postgres_reader import PostgresReader
from extract_jobs.sources.postgres_sql import (
    KINDS,
    Relation,
    interval_condition,
    literal,
    quote_name,
    select,
)
from extract_jobs.sources.postgres_types import PostgresType, make_column
from extract_jobs.sources.postgres_width import batch_rows, size_expression, width_of
from extract_jobs.spec import ExtractSpec
from extract_jobs.splits import Split
from extract_jobs.watermark import WatermarkValue

HEARTBEAT_SECONDS = 30.0


@dataclass(frozen=True)
class PostgresSource:
    """One table, view or query of a PostgreSQL database. Meets `extract_jobs.sources.Source`.

    Attributes:
        spec: What is extracted.
        connection: Where from, credentials resolved.
    """

    spec: ExtractSpec
    connection: PostgresConnection

    @classmethod
    def open(cls, spec: ExtractSpec) -> PostgresSource:
        """Resolve a spec's credentials; nothing is connected yet.

        Raises:
            ConfigError: They cannot be resolved.
        """
        return cls(spec, resolve_connection(spec.connection))

    def describe(self) -> TableDescription:
        """Read the catalogue. See `extract_jobs.sources.Source.describe`."""
        with session(self.connection, f"describing {self._name}") as opened:
            table, relation = self._find(opened)
            check_texts(opened, relation, self.spec.query)
            found = column_types(opened, table, relation)
            columns = self._columns(found)
            rows, size = self._estimates(opened, table, relation)
            return TableDescription(
                table=self.spec.extract_table,
                kind=relation.kind,
                columns=columns,
                key=cutting.primary_key(opened, table) if table else (),
                estimated_rows=rows,
                estimated_bytes=size,
                fingerprint=fingerprint(opened, self.connection),
                source_version=f"PostgreSQL {opened.info.parameter_status('server_version')}",
            )

    def highest(self, column: str, upper: str | int | None) -> WatermarkValue | None:
        """Return the greatest value. See `extract_jobs.sources.Source.highest`.

        Raises:
            ConfigError: No such column, a type that does not order, or a malformed ``upper``.
            TypeNotRepresentable: The greatest value is infinite, NaN or before year 1: as a
                watermark it would stop every later extract.
        """
        with session(self.connection, f"reading the highest {column} of {self._name}") as opened:
            table, relation = self._find(opened)
            base = _base_type(column_types(opened, table, relation), column)
            if base not in KINDS:
                raise ConfigError(
                    f"column {column} is of type {base}, which cannot be a watermark; use one of "
                    f"{', '.join(KINDS)}"
                )
            name = quote_name(column)
            bound = f"{name} <= {literal(str(upper), base)}" if upper is not None else None
            statement = select([f"{name}::text"], relation, f"{name} is not null", bound)
            found = execute(opened, f"{statement} order by {name} desc limit 1")
        if not found:
            return None
        try:
            return WatermarkValue(KINDS[base][0], found[0][0])
        except ValueError:
            value = found[0][0]
        kind = "infinite" if "infinity" in value else "NaN, before year 1 or after year 9999"
        raise TypeNotRepresentable(
            f"the highest value of watermark column {column} is {kind}: as a watermark it would "
            "hide every later row; correct it, leave it out with where, or give watermark.upper"
        )

    @contextlib.contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[PostgresSnapshot]:
        """Take a snapshot and hold it. See `extract_jobs.sources.Source.snapshot`.

        Behind a pooler, or where the server cannot export one, there is none to share: then there
        is one split, and what `PostgresSnapshot.count` counts is a snapshot of its own.
        """
        with contextlib.closing(connect(self.connection)) as opened:
            what = f"taking a snapshot of {self._name}"
            try:
                snapshot_id = _export(opened, self.connection)
                table, relation = self._find(opened)
                types = column_types(opened, table, relation)
                found = leaves(opened, table) if table else []
                reader = self._reader(opened, request, relation, types, found, snapshot_id)
            except psycopg.Error as error:
                raise statement_error(error, what) from error
            held = PostgresSnapshot(opened, self.connection, table, tuple(found), types, reader)
            with held.heartbeat():
                yield held

    @property
    def _name(self) -> str:
        return self.spec.extract_table

    def _find(self, opened: Connection) -> tuple[Table | None, Relation]:
        if self.spec.query is not None:
            return None, query_relation(self.spec.query, self.spec.where)
        table = find_table(opened, self.spec.extract_table)
        return table, relation_of(opened, table, self.spec.where)

    def _columns(self, found: list[tuple[str, bool, PostgresType]]) -> tuple[Column, ...]:
        names = [name for name, _, _ in found]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ConfigError(f"query gives several columns named {', '.join(doubled)}: alias them")
        if not names:
            raise ConfigError(f"{self._name} has no columns")
        columns, refused = [], []
        for name, nullable, kind in found:
            cast = self.spec.columns.cast.get(name)
            if not _is_chosen(self.spec, name):
                cast = cast or "string"  # never read, so nothing to refuse
            made = make_column(
                name,
                kind,
                nullable=nullable,
                cast=cast,
                null_what_fails=self.spec.lossy_types == "null",
            )
            (refused if isinstance(made, str) else columns).append(made)  # type: ignore[arg-type]
        if refused:
            raise TypeNotRepresentable(f"{self._name}: {'; '.join(map(str, refused))}")
        return tuple(columns)

    def _estimates(
        self, opened: Connection, table: Table | None, relation: Relation
    ) -> tuple[int | None, int | None]:
        found = leaves(opened, table) if table else []
        if not found:
            if relation.kind == "partitioned":
                return 0, 0
            plan = explain(opened, f"select * from {relation.source}")
            return plan["Plan Rows"], plan["Plan Rows"] * plan["Plan Width"]
        rows = [leaf.rows for leaf in found]
        known = [count for count in rows if count is not None]
        return (
            sum(known) if len(known) == len(rows) else None,
            sum(leaf.heap_bytes + leaf.toast_bytes for leaf in found),
        )

    def _reader(
        self,
        opened: Connection,
        request: ReadRequest,
        relation: Relation,
        types: list[tuple[str, bool, PostgresType]],
        found: list[Leaf],
        snapshot_id: str | None,
    ) -> PostgresReader:
        version = opened.info.server_version
        column = request.watermark_column
        interval = interval_condition(request, column and _base_type(types, column))
        plan = explain(opened, f"select * from {relation.source}")
        toast = sum(leaf.toast_bytes for leaf in found) or toast_below(opened, plan)
        return PostgresReader(
            connection=self.connection.at(opened.info.hostaddr),
            server_version=version,
            snapshot_id=snapshot_id,
            relation=relation,
            interval=interval,
            columns=request.columns,
            width=width_of(request.columns, toast, may_read_twice=bool(found and snapshot_id)),
            size=size_expression(request.columns, version),
            batch_rows=batch_rows(found, plan["Plan Width"]),
            null_what_fails=self.spec.lossy_types == "null",
            validate_text=opened.info.parameter_status("server_encoding") == "SQL_ASCII",
            what=f"reading {self._name}",
        )


class PostgresSnapshot:
    """A snapshot held by a connection of its own. Meets `extract_jobs.sources.Snapshot`.

    Attributes:
        reader: Reads its splits.
        shared: Whether splits and `count` see this very snapshot.
    """

    def __init__(
        self,
        opened: Connection,
        connection: PostgresConnection,
        table: Table | None,
        found: tuple[Leaf, ...],
        types: list[tuple[str, bool, PostgresType]],
        reader: PostgresReader,
    ) -> None:
        """Hold what `PostgresSource.snapshot` found; not for other callers."""
        self._opened = opened
        self._connection = connection
        self._table = table
        self._leaves = found
        self._types = types
        self._lost: psycopg.Error | None = None
        self.reader = reader
        self.shared = reader.snapshot_id is not None

    def splits(self, spec: ExtractSpec) -> list[Split]:
        """Cut the request into splits. See `extract_jobs.sources.Snapshot.splits`."""
        try:
            return self._cut(spec)
        except psycopg.Error as error:
            raise statement_error(error, f"cutting {spec.extract_table} into splits") from error

    def _cut(self, spec: ExtractSpec) -> list[Split]:
        wanted, reader = spec.split, self.reader
        size = sum(leaf.heap_bytes + leaf.toast_bytes for leaf in self._leaves)
        version = reader.server_version
        by_page = cutting.can_cut_by_page(self._leaves, version)
        if not self.shared or wanted.strategy == "none":
            return cutting.whole(size)
        if wanted.strategy == "ctid" and not by_page:
            raise ConfigError(
                f"split.strategy ctid: {spec.extract_table} is a {reader.relation.kind}, or not "
                "stored in heap tables, or the server is older than PostgreSQL 14; use auto, range "
                "or none"
            )
        column = wanted.column if wanted.strategy in ("auto", "range") else None
        if column is None and by_page:
            if wanted.strategy == "auto" and cutting.small_by_index(
                self._opened, reader.relation, reader.interval, wanted.target_bytes
            ):
                return cutting.whole(min(size, wanted.target_bytes))
            block_size = int(execute(self._opened, "show block_size")[0][0])
            return cutting.by_page(self._leaves, block_size, wanted.target_bytes)
        if column is None and self._table is not None and self._leaves:
            column = cutting.single_integer_key(self._opened, self._table)
        if column is None:
            return cutting.whole(size)
        base = _base_type(self._types, column)
        return cutting.by_range(
            self._opened, reader.relation, wanted, column, base, reader.interval, size
        )

    def count(self) -> int:
        """Count the request's rows under the very same predicate, over its own connection.

        In the shared snapshot, where there is one (`shared`).
        """
        reader = self.reader
        statement = select(["count(*)"], reader.relation, reader.interval)
        what = reader.what.replace("reading", "counting", 1)
        with session(reader.connection, what, reader.snapshot_id) as opened:
            return int(execute(opened, statement)[0][0])

    def check(self) -> None:
        """Raise SourceUnavailable if the snapshot's connection was lost."""
        self._beat()
        if self._lost is not None:
            raise SourceUnavailable(
                f"the connection that holds the snapshot for {self.reader.what} was lost; run again"
            ) from self._lost

    def _beat(self) -> None:
        try:
            execute(self._opened, "select 1")
        except psycopg.Error as error:
            self._lost = self._lost or error

    @contextlib.contextmanager
    def heartbeat(self, seconds: float = HEARTBEAT_SECONDS) -> Iterator[None]:
        """Use the connection now and then, so that no firewall or proxy forgets it."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(seconds) and self._lost is None:
                self._beat()

        thread = threading.Thread(target=beat, name="postgres-snapshot-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _export(opened: Connection, connection: PostgresConnection) -> str | None:
    """Begin the transaction and export its snapshot; None where that cannot be."""
    begin(opened, connection, None)
    if connection.pooled:
        return None
    try:
        return str(execute(opened, "select pg_catalog.pg_export_snapshot()")[0][0])
    except psycopg.OperationalError:
        raise
    except psycopg.DatabaseError:
        # Some replicas and forks of PostgreSQL cannot export one.
        execute(opened, "rollback")
        begin(opened, connection, None)
        return None


def _base_type(types: list[tuple[str, bool, PostgresType]], column: str) -> str:
    for name, _, found in types:
        if name == column:
            return found.printed if found.is_array or not found.built_in else found.base
    raise ConfigError(
        f"there is no column {column!r}; there are {', '.join(name for name, _, _ in types)}"
    )


def _is_chosen(spec: ExtractSpec, name: str) -> bool:
    chosen = spec.columns
    return (
        chosen.include is None or any(fnmatchcase(name, glob) for glob in chosen.include)
    ) and not any(fnmatchcase(name, glob) for glob in chosen.exclude)
