"""Recognizes ranges of pages that hold exactly the row versions that an earlier snapshot saw.

An earlier run read the pages ``[start, end)`` in snapshot S1 and found n rows. If the present
snapshot S2 sees n rows there, all of them written by transactions below ``pg_snapshot_xmin`` of S1,
they are the same ones: each was committed before S1 and is not deleted, so S1 saw it too, and what
S2 sees is a part of what S1 saw, with as many members. Nothing else is compared, so a range is
checked at a fraction of the cost of reading it. `reading_key` has what must hold besides.

``age(xmin)`` counts back from one transaction number that is fixed within a transaction. A row
frozen by a server before 9.4 has no number any more and the greatest age; its range is read.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

import psycopg

from extract_jobs.errors import ExtractError, SourceUnavailable
from extract_jobs.sources import Moment, PageRange
from extract_jobs.sources.postgres.errors import statement_error
from extract_jobs.sources.postgres.node import wait_until_flushed, wake_wal_writer
from extract_jobs.sources.postgres.reader import PostgresReader
from extract_jobs.sources.postgres.reading_key import ReadingKey
from extract_jobs.sources.postgres.session import Connection, connect, execute, session
from extract_jobs.sources.postgres.sql import ctid_condition, quote_text
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.statements import select

FLUSH_SECONDS = 10.0
"""How long to wait until the server has the snapshot's transactions on its disk."""
_NO_TRANSACTION = 2**31 - 1
"""Age of a row that was frozen without its number."""
_MOST_APART = 2**31 - 2**24
"""Transactions between two snapshots. Ages have 31 bits, and count from a little after the later
one."""
_CHECK_SECONDS = 1.0
_FIRST_CHECKED = 10
"""Of more ranges than this, so many and one in twenty are checked first, chosen at random."""


@dataclass(frozen=True)
class PostgresPages:
    """The pages of one table in one snapshot. Meets `extract_jobs.sources.ComparablePages`.

    Attributes:
        opened: The connection that holds the snapshot.
        reader: Reads its splits.
        key: The snapshot's.
        count: Number of the table's pages.
        page_bytes: Bytes of a page, its share of out-of-line values included.
    """

    opened: Connection
    reader: PostgresReader
    key: ReadingKey
    count: int
    page_bytes: int

    @property
    def keeps_order(self) -> bool:
        """Whether rows are read in the order of their pages."""
        return self.reader.width == "narrow"

    @property
    def moment(self) -> Moment:
        """See `extract_jobs.sources.ComparablePages`."""
        transactions = {"xmin": str(self.key.xmin), "xmax": str(self.key.xmax)}
        return Moment(self.key.parts, transactions | self.key.position.to_json())

    def split(self, index: int, start: int, end: int | None) -> Split:
        """See `extract_jobs.sources.ComparablePages`."""
        pages = (self.count if end is None else end) - start
        return Split(index, ctid_condition(start, end), max(0, pages) * self.page_bytes)

    def unchanged(
        self,
        before: Moment,
        ranges: Sequence[PageRange],
        *,
        connections: int,
        check: Callable[[], None],
    ) -> list[bool] | str:
        """See `extract_jobs.sources.ComparablePages`."""
        for part, value in self.key.parts.items():
            if before.key.get(part) != value:
                return f"{part} changed"
        transactions = _transactions(before)
        if transactions is None:
            return "the record of what was read before is damaged"
        xmin, xmax = transactions
        if self.key.xmin < xmin or self.key.xmax < xmax or self.key.xmax - xmin >= _MOST_APART:
            return "the server's transactions are not those after the last run"
        if self.key.youngest <= self._age(xmin):
            return "a catalog entry of the table is younger than the last run's snapshot"

        def are_unchanged(chosen: Iterable[int]) -> dict[int, bool]:
            numbers = list(chosen)
            found = self._asked([ranges[n] for n in numbers], xmin, connections, check)
            return {
                n: rows == ranges[n].rows
                and (not rows or (youngest > age and oldest < _NO_TRANSACTION))
                for n, (rows, youngest, oldest, age) in zip(numbers, found, strict=True)
            }

        known: dict[int, bool] = {}
        if len(ranges) > _FIRST_CHECKED:
            first = _FIRST_CHECKED + (len(ranges) - _FIRST_CHECKED) // 20
            known = are_unchanged(random.sample(range(len(ranges)), first))
            if not any(known.values()):
                return [False] * len(ranges)
        known |= are_unchanged(n for n in range(len(ranges)) if n not in known)
        return [known[n] for n in range(len(ranges))]

    def rows_in(
        self,
        spans: Sequence[tuple[int, int | None]],
        *,
        connections: int,
        check: Callable[[], None],
    ) -> list[int]:
        """See `extract_jobs.sources.ComparablePages`."""
        asked = [PageRange(start, end, 0) for start, end in spans]
        return [rows for rows, *_ in self._asked(asked, self.key.xmin, connections, check)]

    def is_durable(self) -> bool:
        """See `extract_jobs.sources.ComparablePages`."""
        what = self.reader.what
        try:
            wait_until_flushed(
                self.opened, self.key.position, what, self._wake, seconds=FLUSH_SECONDS
            )
        except (SourceUnavailable, psycopg.Error):
            return False
        return True

    def _wake(self) -> None:
        with (
            contextlib.suppress(ExtractError, psycopg.Error),
            contextlib.closing(connect(self.reader.connection)) as opened,
        ):
            wake_wal_writer(opened)

    def _age(self, xmin: int) -> int:
        try:
            return int(execute(self.opened, f"select {_age(xmin)}")[0][0])
        except psycopg.Error as error:
            failure = statement_error(error, self.reader.what)
        raise failure

    def _asked(
        self,
        spans: Sequence[PageRange],
        xmin: int,
        connections: int,
        check: Callable[[], None],
    ) -> list[tuple[int, int, int, int]]:
        """Return of each span its rows, least and greatest age of ``xmin``, and the age of one."""
        found: dict[int, tuple[int, int, int, int]] = {}
        todo, lock = iter(enumerate(spans)), threading.Lock()
        stop, sessions = threading.Event(), list[Connection]()
        expressions = [
            "pg_catalog.count(*)",
            "coalesce(pg_catalog.min(pg_catalog.age(xmin)), 0)",
            "coalesce(pg_catalog.max(pg_catalog.age(xmin)), 0)",
            _age(xmin),
        ]

        def ask() -> None:
            with session(
                self.reader.connection, self.reader.what, self.reader.snapshot_id
            ) as opened:
                with lock:
                    sessions.append(opened)
                while not stop.is_set():
                    with lock:
                        number, span = next(todo, (None, None))
                    if number is None or span is None:
                        return
                    condition = ctid_condition(span.start, span.end)
                    statement = select(expressions, self.reader.relation, condition)
                    rows, least, greatest, age = execute(opened, statement)[0]
                    found[number] = rows, least, greatest, age

        if spans:
            with ThreadPoolExecutor(min(connections, len(spans))) as pool:
                futures = [pool.submit(ask) for _ in range(min(connections, len(spans)))]
                try:
                    while wait(futures, _CHECK_SECONDS, return_when=FIRST_EXCEPTION)[1]:
                        if any(f.done() and f.exception() for f in futures):
                            break
                        check()
                except BaseException:
                    # One that waits behind an ALTER TABLE, which waits for the snapshot, answers
                    # no sooner than its lock_timeout.
                    stop.set()
                    with lock:
                        for opened in sessions:
                            opened.shut_down()
                    raise
                finally:
                    stop.set()
            for future in futures:
                future.result()
        return [found[number] for number in range(len(spans))]


def _age(xmin: int) -> str:
    return f"pg_catalog.age({quote_text(str(xmin % 2**32))}::pg_catalog.xid)"


def _transactions(before: Moment) -> tuple[int, int] | None:
    """Read what `PostgresPages.moment` wrote; None if it is damaged."""
    try:
        return int(before.snapshot["xmin"]), int(before.snapshot["xmax"])
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
