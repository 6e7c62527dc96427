"""A snapshot of a MySQL table: one moment if the table may be locked for it, else one per split."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from extract_jobs.errors import ConfigError, SourceUnavailable
from extract_jobs.sources.mysql import splits as cutting
from extract_jobs.sources.mysql.catalog import CatalogEntry, Table
from extract_jobs.sources.mysql.driver import Connection, hang_up
from extract_jobs.sources.mysql.lending import ALL_LOST, Lender
from extract_jobs.sources.mysql.one_moment import NoCommonSnapshot, open_one, open_together
from extract_jobs.sources.mysql.reader import MysqlReader
from extract_jobs.sources.mysql.session import execute, session
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.splits import whole
from extract_jobs.sources.sql.statements import select
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import OneSnapshot
from extract_jobs.spec.predicates import reads_other_rows

logger = logging.getLogger(__name__)


class MysqlSnapshot:
    """Splits of one table. Meets `extract_jobs.sources.JointSnapshot` and `KeyedSnapshot`.

    If `take` got sessions of one moment, all splits and the count see it. Otherwise each reads in
    its own transaction: the count need not equal the rows read; rows that nobody changes while they
    are read arrive exactly once; a row whose key changes meanwhile may arrive twice or not at all.
    With one split (``split.strategy: none``) all rows are of one moment.

    Attributes:
        reader: Reads its splits.
        shared: Whether splits and `count` see one moment.
    """

    def __init__(
        self,
        found: CatalogEntry,
        reader: MysqlReader,
        *,
        watermark_column: str | None,
        one_snapshot: OneSnapshot,
    ) -> None:
        """Keep what `MysqlSource.snapshot` found; not for other callers."""
        self._found = found
        self._watermark_column = watermark_column
        self._wanted = one_snapshot
        self._lender: Lender | None = None
        self.reader = reader
        self.shared = False

    def splits(self, spec: ExtractSpec) -> list[Split]:
        """Split the request. See `extract_jobs.sources.Snapshot.splits`."""
        wanted, found = spec.split, self._found
        if wanted.strategy not in ("auto", "range", "none"):
            raise ConfigError(f"split.strategy {wanted.strategy}: mysql takes auto, range and none")
        size = (found.table and found.table.data_bytes) or 0
        if wanted.strategy == "none" or self.reader.connection.pooled:
            return whole(size)
        if wanted.column is not None and found.type_of(wanted.column).base not in cutting.KEYS:
            raise ConfigError(
                f"split.column {wanted.column} is of type {found.type_of(wanted.column).printed}, "
                f"which cannot be split by range; use one of the types {', '.join(cutting.KEYS)}"
            )
        with session(self.reader.connection, f"splitting {spec.extract_table}") as opened:
            return cutting.cut(
                opened,
                found,
                wanted,
                interval=self.reader.interval,
                watermark_column=self._watermark_column,
            )

    def take(self, splits: int, connections_here: int, *, keyed: bool = False) -> dict[str, Any]:
        """Open sessions of one moment. See `extract_jobs.sources.JointSnapshot.take`.

        Where the table cannot be locked and keys are read too, one session reads everything.
        """
        if splits == 1 and not keyed:
            return {"one_snapshot": True}
        why, passes = "split.one_snapshot is never", False
        try:
            if splits > 1 and self._wanted != "never":
                self._check_here(connections_here)
                self._lend(
                    open_together(self.reader.connection, self._lockable(), connections_here)
                )
        except NoCommonSnapshot as error:
            why, passes = str(error), error.passes
            if self._wanted == "require":
                kind = SourceUnavailable if passes else ConfigError
                raise kind(
                    f"{self.reader.what} failed: split.one_snapshot is require, and the splits "
                    f"cannot share a snapshot: {why}"
                ) from None
        if self.shared:
            return {"one_snapshot": True}
        if keyed:
            self._take_one(connections_here)
            if splits == 1:
                return {"one_snapshot": True}
            logger.info("%s: over one connection: %s", self.reader.what, why)
            return {"one_snapshot": True, "one_connection": why}
        logger.info("%s: each split has a snapshot of its own: %s", self.reader.what, why)
        return {"one_snapshot": False, "one_snapshot_missing": why}

    def _take_one(self, connections_here: int) -> None:
        """Open one session that reads the splits one after another, and the keys after them."""
        table = self._found.table
        try:
            self._check_here(connections_here)
            if table is not None and not table.is_view and not _has_snapshots(table):
                raise NoCommonSnapshot(_no_snapshots(table), passes=False)
            self._lend([open_one(self.reader.connection, self.reader.what)])
        except NoCommonSnapshot as error:
            raise ConfigError(
                f"{self.reader.what} failed: deletes: detect reads rows and keys in one snapshot: "
                f"{error}"
            ) from None

    def _check_here(self, connections_here: int) -> None:
        if not connections_here:
            raise NoCommonSnapshot(
                "the splits are read on other machines, which cannot borrow this one's sessions "
                "(engine: processes reads them here)",
                passes=False,
            )

    def _lend(self, sessions: Sequence[Connection]) -> None:
        try:
            self._lender = Lender(sessions)
        except (
            OSError,
            AttributeError,
            ImportError,
        ):  # this system has no such sockets, or no room for one
            for one in sessions:
                hang_up(one)
            why = "this machine has no Unix socket for lending its sessions"
            raise NoCommonSnapshot(why, passes=False) from None
        self.reader = replace(self.reader, sessions=self._lender.place)
        self.shared = True

    def _lockable(self) -> str:
        """Return the quoted name of the table that is read, if locking it locks everything."""
        table, where = self._found.table, self.reader.relation.where
        if table is None or table.is_view:
            what = "a query" if table is None else "a view"
            why = f"{what} may read other tables than the one that is locked by its name"
        elif not _has_snapshots(table):
            why = _no_snapshots(table)
        elif where is not None and reads_other_rows(where, "mysql"):
            why = "where has a subquery or a stored function, which may read other tables"
        else:
            return table.quoted
        raise NoCommonSnapshot(why, passes=False)

    def every_row(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read all rows. See `extract_jobs.sources.KeyedSnapshot.every_row`."""
        return replace(self.reader.only(columns), interval=None).read(Split(0))

    def count(self) -> int:
        """Count the request's rows with exactly the same predicate.

        In the snapshot if it is `shared`, else in a new transaction of its own.
        """
        reader = self.reader
        statement = select(["count(*)"], reader.relation, reader.interval)
        with reader.transaction(reader.what.replace("reading", "counting", 1)) as opened:
            return int(execute(opened, statement)[0][0])

    def check(self) -> None:
        """Raise SourceUnavailable if all sessions of the snapshot were lost."""
        if self._lender is not None and not self._lender.sessions:
            raise SourceUnavailable(f"{self.reader.what} failed: {ALL_LOST}")

    def close(self) -> None:
        """Close its sessions."""
        if self._lender is not None:
            self._lender.close()


def _has_snapshots(table: Table) -> bool:
    return (table.engine or "").lower() == "innodb"


def _no_snapshots(table: Table) -> str:
    return f"its engine, {table.engine}, has no snapshots"
