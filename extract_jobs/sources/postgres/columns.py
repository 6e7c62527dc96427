"""A PostgreSQL column in conditions: literals, watermarks, the server's clock."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from extract_jobs.sources.postgres.node import Recovery
from extract_jobs.sources.postgres.sql import KINDS, literal, operator, quote_name, quote_text
from extract_jobs.sources.sql.columns import SqlColumn
from extract_jobs.sources.sql.statements import Relation, select
from extract_jobs.watermark import WatermarkValue


@dataclass(frozen=True)
class PostgresColumn(SqlColumn):
    """A column; its ``source_type`` is the type below its domains."""

    orderable: ClassVar[str] = f"one of {', '.join(KINDS)}"
    count: ClassVar[str] = "pg_catalog.count(*)"

    @classmethod
    def of(cls, name: str, base_type: str) -> PostgresColumn:
        """Return a column of a base type."""
        kind = KINDS[base_type][0] if base_type in KINDS else None
        return cls(name, quote_name(name), base_type, kind)

    def literal(self, text: str) -> str:
        """Return a literal of the base type, without its modifier."""
        return literal(text, self.source_type)

    def compare(self, sign: str, literal: str) -> str:
        """Return a comparison with an operator that no user's schema can replace."""
        return f"{self.sql} {operator(sign)} {literal}"

    def greatest(self, relation: Relation, conditions: Sequence[str]) -> str:
        """Return a SELECT of the greatest value as text; not every type has a ``max``."""
        # The value is cast to text outside: in ORDER BY, a name means an output column first, and
        # the watermark's column may be called c0.
        statement = select([self.sql], relation, self.is_not_null, *conditions)
        return f"select c0::pg_catalog.text from ({statement} order by c0 desc limit 1) as s"

    def value(self, found: Any) -> WatermarkValue | str:
        """Return a value that the server printed; infinity and NaN give their description."""
        assert self.kind is not None
        with contextlib.suppress(ValueError):
            return WatermarkValue(self.kind, found)
        is_infinite = "infinity" in str(found).lower()
        return "infinite" if is_infinite else "NaN, before year 1 or after year 9999"


def clock_bound(column: SqlColumn, delay: timedelta, zone: str, node: Recovery) -> str:
    """Return SQL of the latest value of a time: the source's clock minus a delay.

    A standby's clock stands at the last transaction that it has replayed, since later rows may
    still be on their way. If the standby does not know it, the SQL gives NULL, which selects
    nothing.

    Args:
        column: A time column.
        delay: How far to stay behind the clock.
        zone: Time zone of sessions that set none.
        node: The node that answers.
    """
    ago = f"pg_catalog.make_interval(secs => {delay.total_seconds():.6f})"
    now = "pg_catalog.now()"
    if node.in_recovery:
        complete = quote_text(node.complete_to.isoformat()) if node.complete_to else "null"
        now = (
            f"(case when pg_catalog.now() {operator('<')} {complete}::pg_catalog.timestamptz"
            f" then pg_catalog.now() else {complete}::pg_catalog.timestamptz end)"
        )
    if column.kind == "timestamptz":
        return f"({now} {operator('-')} {ago})"
    clocks = ", ".join(f"{now} at time zone {quote_text(z)}" for z in ("UTC", zone))
    latest = f"(least({clocks}) {operator('-')} {ago})"
    if column.kind == "timestamp":
        return latest
    return f"({latest}::pg_catalog.date {operator('-')} 1)"
