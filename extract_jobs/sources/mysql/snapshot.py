"""A snapshot of a MySQL table: one moment if the table may be locked for it, else one per split."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from extract_jobs.errors import ConfigError, SourceUnavailable
from extract_jobs.sources.mysql import splits as cutting
from extract_jobs.sources.mysql.catalog import CatalogEntry
from extract_jobs.sources.mysql.driver import hang_up
from extract_jobs.sources.mysql.lending import ALL_LOST, Lender
from extract_jobs.sources.mysql.one_moment import NoCommonSnapshot, open_together
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
    """Splits of one table. Meets `extract_jobs.sources.JointSnapshot`.

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

    def take(self, splits: int, connections_here: int) -> dict[str, Any]:
        """Open sessions of one moment. See `extract_jobs.sources.JointSnapshot.take`."""
        if splits == 1:
            return {"one_snapshot": True}
        if self._wanted == "never":
            return {"one_snapshot": False, "one_snapshot_missing": "split.one_snapshot is never"}
        try:
            self._open(connections_here)
        except NoCommonSnapshot as error:
            why, passes = str(error), error.passes
        else:
            return {"one_snapshot": True}
        if self._wanted == "require":
            kind = SourceUnavailable if passes else ConfigError
            raise kind(
                f"{self.reader.what} failed: split.one_snapshot is require, and the splits cannot "
                f"share a snapshot: {why}"
            )
        logger.info("%s: each split has a snapshot of its own: %s", self.reader.what, why)
        return {"one_snapshot": False, "one_snapshot_missing": why}

    def _open(self, count: int) -> None:
        if not count:
            why = "the splits are read on other machines, which cannot borrow this one's sessions"
            raise NoCommonSnapshot(why, passes=False)
        table = self._lockable()
        sessions = open_together(self.reader.connection, table, count)
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
        elif (table.engine or "").lower() != "innodb":
            why = f"its engine, {table.engine}, has no snapshots"
        elif where is not None and reads_other_rows(where, "mysql"):
            why = "where has a subquery or a stored function, which may read other tables"
        else:
            return table.quoted
        raise NoCommonSnapshot(why, passes=False)

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
