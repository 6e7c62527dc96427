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
import functools
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

import psycopg

from extract_jobs.errors import ExtractError, SourceUnavailable
from extract_jobs.sources import Moment, PagedPart, PageSpan
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
        parts: The table, or its partitions; out-of-line values count as bytes of their pages.
        tables: SQL of each part by name; None for the whole of what is read.
    """

    opened: Connection
    reader: PostgresReader
    key: ReadingKey
    parts: tuple[PagedPart, ...]
    tables: Mapping[str, str | None]

    @functools.cached_property
    def _by_name(self) -> dict[str, PagedPart]:
        return {part.name: part for part in self.parts}

    @property
    def keeps_order(self) -> bool:
        """Whether rows are read in the order of their pages."""
        return self.reader.width == "narrow"

    @property
    def moment(self) -> Moment:
        """See `extract_jobs.sources.ComparablePages`."""
        transactions = {"xmin": str(self.key.xmin), "xmax": str(self.key.xmax)}
        snapshot = transactions | self.key.position.to_json()
        return Moment(self.key.topics, self.key.parts, snapshot)

    def split(self, index: int, span: PageSpan) -> Split:
        """See `extract_jobs.sources.ComparablePages`."""
        part = self._by_name[span.part]
        pages = (part.count if span.end is None else span.end) - span.start
        condition = ctid_condition(span.start, span.end)
        size = max(0, pages) * part.page_bytes
        return Split(index, condition, size, table=self.tables[span.part])

    def unchanged(
        self,
        before: Moment,
        rows: Mapping[PageSpan, int],
        *,
        connections: int,
        check: Callable[[], None],
    ) -> frozenset[PageSpan] | str:
        """See `extract_jobs.sources.ComparablePages`."""
        if change := self.moment.change_since(before):
            return change
        transactions = _transactions(before)
        if transactions is None:
            return "the record of what was read before is damaged"
        xmin, xmax = transactions
        if self.key.xmin < xmin or self.key.xmax < xmax or self.key.xmax - xmin >= _MOST_APART:
            return "the server's transactions are not those after the last run"
        age = self._age(xmin)
        if self.key.youngest <= age:
            return "a catalog entry of the table is younger than the last run's snapshot"
        same = {
            name
            for name, digest in self.key.parts.items()
            if before.parts.get(name) == digest and self.key.youngest_of[name] > age
        }

        def are_unchanged(spans: Sequence[PageSpan]) -> set[PageSpan]:
            found = self._asked(spans, xmin, connections, check)
            return {
                span
                for span, (count, youngest, oldest, since) in zip(spans, found, strict=True)
                if count == rows[span]
                and (not count or (youngest > since and oldest < _NO_TRANSACTION))
            }

        rest = [span for span in rows if span.part in same]
        kept: set[PageSpan] = set()
        if len(rest) > _FIRST_CHECKED:
            count = _FIRST_CHECKED + (len(rest) - _FIRST_CHECKED) // 20
            first = random.sample(rest, count)
            kept = are_unchanged(first)
            if not kept:
                return frozenset()
            chosen = set(first)
            rest = [span for span in rest if span not in chosen]
        return frozenset(kept | are_unchanged(rest))

    def rows_in(
        self, spans: Sequence[PageSpan], *, connections: int, check: Callable[[], None]
    ) -> int:
        """See `extract_jobs.sources.ComparablePages`."""
        return sum(rows for rows, *_ in self._asked(spans, self.key.xmin, connections, check))

    def is_durable(self) -> bool:
        """See `extract_jobs.sources.ComparablePages`. Only the first call may wait."""
        return self._flushed

    @functools.cached_property
    def _flushed(self) -> bool:
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
        spans: Sequence[PageSpan],
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
                    relation = self.reader.relation_of(self.tables[span.part])
                    condition = ctid_condition(span.start, span.end)
                    statement = select(expressions, relation, condition)
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
