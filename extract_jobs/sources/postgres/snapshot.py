"""One snapshot of a PostgreSQL table, held by the connection that exported it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import psycopg
import pyarrow as pa

from extract_jobs.errors import (
    ConfigError,
    ExtractError,
    Interrupted,
    SourceMoved,
    SourceUnavailable,
)
from extract_jobs.sources import PagedPart
from extract_jobs.sources.postgres import splits as cutting
from extract_jobs.sources.postgres.catalog import Leaf
from extract_jobs.sources.postgres.catalog_entry import CatalogEntry
from extract_jobs.sources.postgres.errors import statement_error
from extract_jobs.sources.postgres.inheritance import Parts, children
from extract_jobs.sources.postgres.locks import Waiting, waiting_behind
from extract_jobs.sources.postgres.node import Position, wait_until_flushed, wake_wal_writer
from extract_jobs.sources.postgres.pages import PostgresPages
from extract_jobs.sources.postgres.reader import PostgresReader
from extract_jobs.sources.postgres.reading_key import reading_key
from extract_jobs.sources.postgres.session import Connection, connect, execute, session
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.splits import whole
from extract_jobs.sources.sql.statements import select
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import SplitSpec

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
"""How often the connection that holds the snapshot is used, to see who waits behind it."""
_END_SECONDS = 2.0


class PostgresSnapshot:
    """A snapshot held by a connection of its own. Meets `extract_jobs.sources.Snapshot`.

    Attributes:
        reader: Reads its splits.
        shared: Whether splits and `count` see this very snapshot.
    """

    def __init__(
        self,
        opened: Connection,
        found: CatalogEntry,
        reader: PostgresReader,
        *,
        watermark_column: str | None,
        parents: tuple[int, ...],
        parts: Parts,
        written_to: Position | None,
        yields: bool = False,
    ) -> None:
        """Keep what `PostgresSource.snapshot` found; not for other callers.

        Args:
            opened: The connection that exported it.
            found: What is read.
            reader: Reads its splits.
            watermark_column: Column whose index may be used to read an interval.
            parents: All tables that are read, by identifier.
            parts: Their partitions and children.
            written_to: What must be on the server's disk before the snapshot's transaction numbers
                can be relied on; None if they are not used.
            yields: ``on_waiting_ddl: yield``.
        """
        self._yields = yields
        self._waiting: dict[int, Waiting] = {}
        self._parents, self._parts, self._written_to = parents, parts, written_to
        self._watermark_column = watermark_column
        self._opened = opened
        self._found = found
        self._lost: psycopg.Error | ExtractError | None = None
        self.reader = reader
        self.shared = reader.snapshot_id is not None and not reader.reads_foreign_tables

    def splits(self, spec: ExtractSpec) -> list[Split]:
        """Split the request. See `extract_jobs.sources.Snapshot.splits`."""
        try:
            return self._cut(spec)
        except psycopg.Error as error:
            failure = statement_error(error, f"splitting {spec.extract_table}")
        # Not from within the handler: the original may quote rows.
        raise failure

    def _cut(self, spec: ExtractSpec) -> list[Split]:
        wanted, reader = spec.split, self.reader
        size = sum(leaf.heap_bytes + leaf.toast_bytes for leaf in self._found.leaves)
        version = reader.server_version
        by_page = cutting.can_cut_by_page(self._found.leaves, version)
        if by_page and wanted.strategy == "auto" and not self._may_read_ctid(wanted, size):
            by_page = False
        if reader.snapshot_id is None or wanted.strategy == "none":
            return whole(size)
        if wanted.strategy == "ctid" and not by_page:
            raise ConfigError(
                f"split.strategy ctid: {spec.extract_table} is a {reader.relation.kind}, or not "
                "stored in heap tables, or the server is older than PostgreSQL 14; use auto, range "
                "or none"
            )
        column = wanted.column if wanted.strategy in ("auto", "range") else None
        if column is None and by_page:
            if wanted.strategy == "auto" and (found := self._cut_interval(wanted, size)):
                return found
            block_size = int(execute(self._opened, "show block_size")[0][0])
            return cutting.by_page(self._found.leaves, block_size, wanted.target_bytes)
        if column is None and self._found.table is not None and self._found.leaves:
            column = cutting.single_integer_key(self._opened, self._found.table)
        if column is None:
            return whole(size)
        base = self._found.base_type(column)
        return cutting.by_range(
            self._opened,
            reader.relation,
            wanted,
            column=column,
            base_type=base,
            condition=reader.interval,
            estimated_bytes=size,
        )

    def _may_read_ctid(self, wanted: SplitSpec, size: int) -> bool:
        """Return whether ctid may be read, which needs SELECT on the table, not just on columns."""
        table = self._found.table
        if table is None or size <= wanted.target_bytes:
            return True  # a single split does not need it
        statement = "select pg_catalog.has_table_privilege(%s::pg_catalog.int8::pg_catalog.oid, %s)"
        return bool(execute(self._opened, statement, table.oid, "select")[0][0])

    def _cut_interval(self, wanted: SplitSpec, table_bytes: int) -> list[Split] | None:
        """Split an interval through the watermark's index; None if the table should be scanned."""
        column, interval = self._watermark_column, self.reader.interval
        if column is None or interval is None:
            return None
        return cutting.through_index(
            self._opened,
            self.reader.relation,
            wanted.target_bytes,
            column=column,
            base_type=self._found.base_type(column),
            condition=interval,
            table_bytes=table_bytes,
        )

    def pages(self) -> PostgresPages | str:
        """Return the table's pages. See `extract_jobs.sources.ComparableSnapshot`."""
        try:
            key = reading_key(self._opened, self._found, self.reader)
            if isinstance(key, str):
                return key
            block_size = int(execute(self._opened, "show block_size")[0][0])
        except psycopg.Error as error:
            failure = statement_error(error, self.reader.what)
        else:
            parts = tuple(_paged(leaf, block_size) for leaf in self._found.leaves)
            return PostgresPages(self._opened, self.reader, key, parts, key.tables)
        # Not from within the handler: the original may quote rows.
        raise failure

    def every_row(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read all rows. See `extract_jobs.sources.KeyedSnapshot.every_row`."""
        return replace(self.reader.only(columns), interval=None).read(Split(0))

    def count(self) -> int:
        """Count the request's rows with exactly the same predicate.

        On the connection that exported the snapshot: it already has its locks, while another one
        would queue behind an ALTER TABLE that waits for them. If no snapshot is shared, on a new
        connection: rows are then read in their current state, while the held connection still sees
        the state at the beginning of the run.
        """
        reader = self.reader
        statement = select(["pg_catalog.count(*)"], reader.relation, reader.interval)
        what = reader.what.replace("reading", "counting", 1)
        if not self.shared:
            with session(reader.connection, what) as opened:
                return int(execute(opened, statement)[0][0])
        try:
            return int(execute(self._opened, statement)[0][0])
        except psycopg.Error as error:
            failure = statement_error(error, what)
        # Not from within the handler: the original may quote rows.
        raise failure

    def verify(self) -> None:
        """Check that all splits read one table. See `extract_jobs.sources.VerifiedSnapshot`."""
        what = self.reader.what
        with session(self.reader.connection, f"checking what was read, {what}") as opened:
            now = children(opened, self._parents)
            if self._written_to is not None:
                wait_until_flushed(opened, self._written_to, what, self._wake_wal_writer)
        if now != self._parts:
            raise SourceMoved(
                f"{what} failed: partitions or children were attached or detached meanwhile, so "
                "some splits may have read them and others not; nothing was committed; run again"
            )

    def _wake_wal_writer(self) -> None:
        """Wake it over a connection of its own; without a spare connection, just wait for it."""
        try:
            with contextlib.closing(connect(self.reader.connection)) as opened:
                wake_wal_writer(opened)
        except (ExtractError, psycopg.Error) as error:
            logger.info("the WAL writer was not woken (%s)", type(error).__name__)

    def check(self) -> None:
        """Raise SourceUnavailable if the snapshot's connection was lost."""
        self._beat()
        if self._lost is not None:
            raise SourceUnavailable(
                f"the connection that holds the snapshot for {self.reader.what} was lost; run again"
            ) from self._lost

    def give_way(self) -> None:
        """End the run if somebody waits for it. See `extract_jobs.sources.CourteousSnapshot`."""
        if self._yields and self._waiting:
            raise Interrupted(
                f"{self.reader.what} was stopped for {self._named()}, as on_waiting_ddl: yield "
                "says; nothing was committed; run again when it is done"
            )

    def read_from(self) -> dict[str, list[str]]:
        """Say who waited. See `extract_jobs.sources.CourteousSnapshot`."""
        return (
            {"waited_behind": [str(one) for one in self._waiting.values()]} if self._waiting else {}
        )

    def _named(self) -> str:
        return "; ".join(map(str, self._waiting.values()))

    def _beat(self) -> None:
        try:
            found = waiting_behind(self._opened)
        except (psycopg.Error, ExtractError) as error:
            self._lost = self._lost or error
            return
        for one in found:
            if one.pid not in self._waiting:
                self._waiting[one.pid] = one
                logger.warning(
                    "%s: %s, and everybody who comes after it waits too, until the rows are read",
                    self.reader.what, one,
                )  # fmt: skip

    @contextlib.contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Use the connection now and then, so that no firewall or proxy drops it.

        Whoever waits behind its locks is noticed then.
        """
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(HEARTBEAT_SECONDS) and self._lost is None:
                self._beat()

        thread = threading.Thread(target=beat, name="postgres-snapshot-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(_END_SECONDS)
            if thread.is_alive():  # the server answers nothing any more
                self._opened.shut_down()
                thread.join()


def _paged(leaf: Leaf, block_size: int) -> PagedPart:
    pages = -(-leaf.heap_bytes // block_size)
    size = (leaf.heap_bytes + leaf.toast_bytes) // pages if pages else block_size
    return PagedPart(str(leaf.oid), pages, size)
