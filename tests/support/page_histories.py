"""What a snapshot of a PostgreSQL table sees by range of pages, to compare later snapshots with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extract_jobs.sources import Moment, PageRange
from extract_jobs.sources.postgres.session import execute, session
from extract_jobs.sources.postgres.source import PostgresSource
from extract_jobs.sources.postgres.sql import ctid_condition
from tests.support.postgres_source import snapshot_of

SPAN = 2


@dataclass(frozen=True)
class Seen:
    """What one snapshot saw.

    Attributes:
        moment: Of the snapshot; None if it has none.
        reason: Why it has none.
        rows: Text of each row, by range, in the order of the pages.
        durable: Whether the server had written all that it saw.
    """

    moment: Moment | None
    reason: str
    rows: dict[PageRange, list[Any]]
    durable: bool


@dataclass(frozen=True)
class Kept:
    """Which ranges a later snapshot would keep.

    Attributes:
        ranges: Those that it takes for unchanged.
        wrong: Those of them whose rows differ.
        reason: Why none was compared; empty if they were.
    """

    ranges: list[PageRange]
    wrong: list[PageRange]
    reason: str = ""


def look(source: PostgresSource, before: Seen | None = None) -> tuple[Seen, Kept]:
    """Take a snapshot, read every range in it, and compare it with an earlier one."""
    with snapshot_of(source) as snapshot:
        pages = snapshot.pages()
        if isinstance(pages, str):
            return Seen(None, pages, {}, durable=False), Kept([], [], pages)

        def read(start: int, end: int) -> list[Any]:
            table, condition = snapshot.reader.relation.source, ctid_condition(start, end)
            names = ", ".join(f'"{c.name}"::text' for c in snapshot.reader.columns)
            with session(source.connection, "test", snapshot.reader.snapshot_id) as opened:
                return execute(opened, f"select {names} from {table} where {condition}")

        ends = range(0, max(1, pages.count), SPAN)
        found = {(start, start + SPAN): read(start, start + SPAN) for start in ends}
        rows = {PageRange(*span, len(one)): one for span, one in found.items()}
        seen = Seen(pages.moment, "", rows, pages.is_durable())
        if before is None or before.moment is None:
            return seen, Kept([], [], "nothing to compare with")
        ranges = list(before.rows)
        same = pages.unchanged(before.moment, ranges, connections=2, check=lambda: None)
        if isinstance(same, str):
            return seen, Kept([], [], same)
        kept = [one for one, unchanged in zip(ranges, same, strict=True) if unchanged]
        wrong = [one for one in kept if read(one.start, one.end or 0) != before.rows[one]]
        return seen, Kept(kept, wrong)
