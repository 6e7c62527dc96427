"""What a snapshot of a PostgreSQL table sees by range of pages, to compare later snapshots with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extract_jobs.sources import Moment, PageSpan
from extract_jobs.sources.postgres.session import execute, session
from extract_jobs.sources.postgres.source import PostgresSource
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
    rows: dict[PageSpan, list[Any]]
    durable: bool


@dataclass(frozen=True)
class Kept:
    """Which ranges a later snapshot would keep.

    Attributes:
        ranges: Those that it takes for unchanged.
        wrong: Those of them whose rows differ.
        reason: Why none was compared; empty if they were.
    """

    ranges: list[PageSpan]
    wrong: list[PageSpan]
    reason: str = ""


def look(source: PostgresSource, before: Seen | None = None) -> tuple[Seen, Kept]:
    """Take a snapshot, read every range in it, and compare it with an earlier one."""
    with snapshot_of(source) as snapshot:
        pages = snapshot.pages()
        if isinstance(pages, str):
            return Seen(None, pages, {}, durable=False), Kept([], [], pages)

        def read_from(table: str, condition: str) -> list[Any]:
            names = ", ".join(f'"{c.name}"::text' for c in snapshot.reader.columns)
            with session(source.connection, "test", snapshot.reader.snapshot_id) as opened:
                return execute(opened, f"select {names} from {table} where {condition}")

        def read(span: PageSpan) -> list[Any]:
            split = pages.split(0, span)
            table = split.table or snapshot.reader.relation.source
            return read_from(table, split.predicate or "true")

        rows = {
            (span := PageSpan(part.name, start, start + SPAN)): read(span)
            for part in pages.parts
            for start in range(0, max(1, part.count), SPAN)
        }
        parts = sorted(row for found in rows.values() for row in found)
        assert parts == sorted(read_from(snapshot.reader.relation.source, "true"))
        seen = Seen(pages.moment, "", rows, pages.is_durable())
        if before is None or before.moment is None:
            return seen, Kept([], [], "nothing to compare with")
        counts = {span: len(found) for span, found in before.rows.items()}
        same = pages.unchanged(before.moment, counts, connections=2, check=lambda: None)
        if isinstance(same, str):
            return seen, Kept([], [], same)
        kept = [span for span in before.rows if span in same]
        return seen, Kept(kept, [one for one in kept if read(one) != before.rows[one]])
