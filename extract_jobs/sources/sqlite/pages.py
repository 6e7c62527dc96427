"""Recognizes a whole database that has not changed, byte by byte.

SQLite counts transactions in the file's header, but a copy that is put back counts on from where it
was, and may arrive at the same number with other rows. So the file's digest is compared, which is
read many times faster than rows are. It is that of the snapshot: outside WAL mode the snapshot's
lock keeps every writer from the file. In WAL mode that holds if the ``-wal`` file was empty when
the snapshot was taken: a reader of the database alone keeps checkpoints from writing to it
(``walTryBeginRead`` in https://sqlite.org/src/file/src/wal.c).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from extract_jobs.sources import Moment, PagedPart, PageSpan
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.statements import select
from extract_jobs.sources.sqlite.reader import SqliteReader
from extract_jobs.sources.sqlite.session import SqliteConnection, execute

PAGE_BYTES = 2 * 2**20
"""Rows of so many bytes are a page."""
SMALL_SHARE = 8
"""Of a table that is a smaller part of its database than this, reading is cheaper than a digest."""

Stamp = tuple[int, ...]


def stamp(connection: SqliteConnection) -> Stamp:
    """Return what any write to the database's files would change, as far as ``stat`` shows it."""
    found: list[int] = []
    for path in (Path(connection.path), connection.wal):
        with suppress(FileNotFoundError):
            about = path.stat()
            if path != connection.wal or about.st_size:
                found += [about.st_dev, about.st_ino, about.st_size]
                found += [about.st_mtime_ns, about.st_ctime_ns]
    return tuple(found)


@dataclass(frozen=True)
class SqlitePages:
    """The rows of one table by rowid. Meets `extract_jobs.sources.ComparablePages`.

    Attributes:
        opened: The connection that holds the snapshot.
        reader: Reads its splits, in the order of their rowids.
        bounds: The last rowid of each page but the last.
        digest: Of the database's file.
        stamp: Of the files when the digest was taken.
        keeps_order: True.
    """

    opened: sqlite3.Connection
    reader: SqliteReader
    bounds: tuple[int, ...]
    digest: str
    stamp: Stamp
    keeps_order: bool = True

    @property
    def parts(self) -> Sequence[PagedPart]:
        """See `extract_jobs.sources.ComparablePages`."""
        return (PagedPart(self.reader.relation.name, len(self.bounds) + 1, PAGE_BYTES),)

    @property
    def moment(self) -> Moment:
        """See `extract_jobs.sources.ComparablePages`."""
        key = {
            "SQLite": [sqlite3.sqlite_version, _version("adbc-driver-sqlite")],
            "how rows are read": [*self.reader.statements(Split(0)), str(self.reader.schema)],
            "the table's pages": hashlib.sha256(str(self.bounds).encode()).hexdigest(),
        }
        return Moment(key, {self.reader.relation.name: self.digest}, {})

    def split(self, index: int, span: PageSpan) -> Split:
        """See `extract_jobs.sources.ComparablePages`."""
        count = len(self.bounds) + 1
        pages = max(0, min(span.end or count, count) - span.start)
        return Split(index, self._condition(span), pages * PAGE_BYTES)

    def unchanged(
        self,
        before: Moment,
        rows: Mapping[PageSpan, int],
        *,
        connections: int,
        check: Callable[[], None],
    ) -> frozenset[PageSpan] | str:
        """See `extract_jobs.sources.ComparablePages`."""
        del connections, check
        now = self.moment
        if before.parts != now.parts:
            return "the database's file has changed"
        return now.change_since(before) or frozenset(rows)

    def rows_in(
        self, spans: Sequence[PageSpan], *, connections: int, check: Callable[[], None]
    ) -> int:
        """See `extract_jobs.sources.ComparablePages`."""
        del connections
        rows = 0
        for span in spans:
            check()
            if span.start <= len(self.bounds):
                rows += self._count(span)
        return rows

    def _count(self, span: PageSpan) -> int:
        reader = self.reader
        statement = select(["count(*)"], reader.relation, self._condition(span))
        what = reader.what.replace("reading", "counting", 1)
        return int(execute(self.opened, statement, what=what, path=reader.connection.path)[0][0])

    def is_durable(self) -> bool:
        """Return whether nobody has written to the files, past all locks, since the snapshot."""
        return stamp(self.reader.connection) == self.stamp

    def _condition(self, span: PageSpan) -> str | None:
        """Return SQL of the rows of some pages; None for all."""
        conditions = []
        if span.start:
            conditions.append(f"{self.reader.rowid} > {self.bounds[span.start - 1]}")
        if span.end is not None and span.end <= len(self.bounds):
            conditions.append(f"{self.reader.rowid} <= {self.bounds[span.end - 1]}")
        return " and ".join(conditions) or None


def _version(package: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""
