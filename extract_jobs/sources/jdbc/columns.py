"""A JDBC column in conditions: literals, watermarks, the server's clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

from extract_jobs.errors import ConfigError
from extract_jobs.sources.jdbc.dialects import Dialect
from extract_jobs.sources.jdbc.jvm import Opened
from extract_jobs.sources.jdbc.sql import literal, text_of
from extract_jobs.sources.jdbc.types import Typed, quote_name
from extract_jobs.sources.sql.columns import SqlColumn
from extract_jobs.sources.sql.statements import Relation, select
from extract_jobs.watermark import WatermarkValue

_TIME = re.compile(
    r"\s*(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d:\d\d)(?:\.(\d*))?)?\s*(?:Z|UTC|\+0?0(?::?00)?)?\s*"
)


@dataclass(frozen=True, kw_only=True)
class JdbcColumn(SqlColumn):
    """A column.

    Attributes:
        typed: Its type and rule.
        dialect: The database's dialect.
    """

    typed: Typed
    dialect: Dialect

    never: ClassVar[str] = "1 = 0"

    @classmethod
    def of(cls, typed: Typed, dialect: Dialect) -> JdbcColumn:
        """Return a column from the driver's description."""
        described = typed.described
        return cls(
            name=described.name,
            sql=quote_name(described.name, dialect),
            source_type=described.printed,
            kind=typed.watermark,
            typed=typed,
            dialect=dialect,
        )

    def literal(self, text: str) -> str:
        """Return a literal by the dialect's rule for the type."""
        return literal(text, self.typed, self.dialect)

    def greatest(self, relation: Relation, conditions: Sequence[str]) -> str:
        """Return a SELECT of the greatest value as text."""
        highest = text_of(f"max({self.sql})", self.typed, self.dialect)
        if "rowversion" in self.typed.rule.names:
            # Rows of an open transaction may be below rows that are already committed.
            conditions = [*conditions, f"{self.sql} < min_active_rowversion()"]
        return select([highest], relation, *conditions)

    def value(self, found: Any) -> WatermarkValue | str:
        """Return a value printed by the server, truncated to the microsecond.

        The rest of that microsecond is extracted with a later value.
        """
        value = as_watermark(found, self.typed)
        return value or "infinite, NaN, before year 1 or after year 9999"

    def one_row(self, literal: str) -> str:
        """Return a SELECT of a literal, from the dialect's table of one row."""
        return f"select {literal}{self.dialect.one_row}"


def as_watermark(text: str, kind: Typed) -> WatermarkValue | None:
    """Parse a value from the server's text, truncated to the microsecond; None if it is invalid."""
    assert kind.watermark is not None
    if kind.watermark in ("date", "timestamp", "timestamptz"):
        moment = _moment(text)
        if moment is None:
            return None
        fraction = f".{moment.microsecond:06}".rstrip("0") if moment.microsecond else ""
        day = moment.date().isoformat()
        text = day if kind.watermark == "date" else f"{day} {moment:%H:%M:%S}{fraction}"
        text += "+00" if kind.watermark == "timestamptz" else ""
    elif kind.watermark in ("integer", "decimal"):
        text = text.strip().removesuffix(".")
        text = re.sub(r"^(-?)\.", r"\g<1>0.", text)
    try:
        return WatermarkValue(kind.watermark, text)
    except ValueError:
        return None


def _moment(text: str) -> datetime | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    fraction = (found[3] or "")[:6].ljust(6, "0")
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00:00'}.{fraction}")
    except ValueError:
        return None


def latest_by_clock(opened: Opened, column: JdbcColumn, delay: timedelta) -> WatermarkValue:
    """Return the latest value of a time.

    Raises:
        ConfigError: The clock cannot be read.
    """
    kind, dialect = column.kind, column.dialect
    assert kind is not None
    clocks = [dialect.utc_clock] if dialect.utc_clock else []
    if kind != "timestamptz":
        clocks.append(dialect.local_clock)
    printed = opened.rows(f"select {', '.join(clocks)}{dialect.one_row}")[0]
    moments = [moment for text in printed if (moment := _moment(text or ""))]
    if not dialect.utc_clock:
        moments.append(datetime.now(UTC).replace(tzinfo=None))
    if not moments:
        raise ConfigError("watermark.delay: the server's clock cannot be read")
    latest = min(moments) - delay
    if kind == "date":
        return WatermarkValue("date", (latest.date() - timedelta(days=1)).isoformat())
    zone = "+00" if kind == "timestamptz" else ""
    return WatermarkValue(kind, f"{latest.date().isoformat()} {latest:%H:%M:%S.%f}{zone}")


def day_of(text: str) -> date | None:
    """Return the day in the server's text of a date or time; None if it is invalid."""
    moment = _moment(text)
    return moment.date() if moment else None
