"""A MySQL column in conditions: literals, watermarks, the server's clock."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, ClassVar

from extract_jobs.sources.mysql.driver import Connection
from extract_jobs.sources.mysql.session import execute
from extract_jobs.sources.mysql.sql import KINDS, literal, quote_name
from extract_jobs.sources.mysql.types import MysqlType, as_utf8
from extract_jobs.sources.sql.columns import SqlColumn
from extract_jobs.sources.sql.statements import Relation, select
from extract_jobs.watermark import WatermarkValue


@dataclass(frozen=True)
class MysqlColumn(SqlColumn):
    """A column.

    Attributes:
        base: Its ``DATA_TYPE``.
        charset: Character set of a text column.
    """

    base: str = ""
    charset: str | None = None

    orderable: ClassVar[str] = f"one of {', '.join(KINDS)}"

    @classmethod
    def of(cls, name: str, found: MysqlType) -> MysqlColumn:
        """Return a column of a type."""
        kind = KINDS.get(found.base)
        return cls(name, quote_name(name), found.printed, kind, found.base, found.charset)

    def literal(self, text: str) -> str:
        """Return a literal that is compared without rounding."""
        return literal(text, self.base)

    @property
    def is_null(self) -> str:
        """Not IS NULL, which finds the zero dates of a date that is NOT NULL."""
        return f"{self.sql} <=> null"

    @property
    def is_not_null(self) -> str:
        """The opposite of `is_null`."""
        return f"not ({self.is_null})"

    def greatest(self, relation: Relation, conditions: Sequence[str]) -> str:
        """Return a SELECT of the greatest value as text, in UTF-8 whatever the session converts.

        A text that is not valid in its character set gives bytes that are not UTF-8.
        """
        # Not through a subquery: MySQL cannot put such a text into its result.
        highest = f"max({self.sql})"
        if self.kind == "string":
            highest = f"cast({as_utf8(highest, self.charset)} as binary)"
        else:
            highest = f"cast({highest} as char)"
        return select([highest], relation, *conditions)

    def value(self, found: Any) -> WatermarkValue | str:
        """Return a value that the server printed; dates of year 0 give their description."""
        assert self.kind is not None
        with contextlib.suppress(ValueError):
            text = found.decode() if isinstance(found, bytes) else str(found)
            if self.kind in ("date", "timestamp", "timestamptz"):
                date.fromisoformat(text[:10])
            return WatermarkValue(self.kind, text + ("+00" if self.kind == "timestamptz" else ""))
        return "a zero date, of year 0, or not valid text"


def clock_bound(opened: Connection, column: SqlColumn, delay: timedelta) -> str:
    """Return SQL of the latest value of a time."""
    ago = f"interval {round(delay.total_seconds() * 1_000_000)} microsecond"
    if column.kind == "timestamptz":
        return f"(utc_timestamp(6) - {ago})"
    execute(opened, "set session time_zone = @@global.time_zone")
    offset = execute(opened, "select timestampdiff(second, utc_timestamp(), now())")[0][0]
    execute(opened, "set session time_zone = '+00:00'")
    latest = f"(utc_timestamp(6) + interval {min(0, int(offset))} second - {ago})"
    return latest if column.kind == "timestamp" else f"(date({latest}) - interval 1 day)"
