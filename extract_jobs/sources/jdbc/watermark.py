"""What a database says of a watermark column: greatest values, its order, its NULLs."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.sources.jdbc.catalog import Found
from extract_jobs.sources.jdbc.dialects import Dialect
from extract_jobs.sources.jdbc.jvm import Opened
from extract_jobs.sources.jdbc.sql import literal, select, text_of
from extract_jobs.sources.jdbc.types import Typed, quote_name
from extract_jobs.watermark import WatermarkValue

_TIME = re.compile(
    r"\s*(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d:\d\d)(?:\.(\d*))?)?\s*(?:Z|UTC|\+0?0(?::?00)?)?\s*"
)


def greatest(
    opened: Opened,
    found: Found,
    column: str,
    *,
    lower: WatermarkValue | None,
    upper: WatermarkValue | None,
    delay: timedelta | None,
) -> WatermarkValue | None:
    """Return the greatest non-NULL value within bounds; None without any.

    Parts of a microsecond are left out: the value that has them comes with a later one.

    Raises:
        ConfigError: No such column, a type that does not order, or a bound that is none of it.
        TypeNotRepresentable: The value is infinite or has no year from 1 to 9999: as a watermark it
            would stop every later extract.
    """
    kind, dialect = watermark_type(found, column), found.dialect
    name = quote_name(column, dialect)
    conditions = [f"{name} is not null"]
    if delay is not None:
        latest = _latest(opened, kind, column, delay, dialect)
        conditions.append(f"{name} <= {literal(latest.text, kind, dialect)}")
    if "rowversion" in kind.rule.names:
        # What an open transaction has written may lie below what is committed already.
        conditions.append(f"{name} < min_active_rowversion()")
    for sign, bound in ((">", lower), ("<=", upper)):
        if bound is not None:
            check(bound, kind, column)
            conditions.append(f"{name} {sign} {literal(bound.text, kind, dialect)}")
    highest = text_of(f"max({name})", kind, dialect)
    text = opened.rows(select([highest], found.relation, *conditions))[0][0]
    if text is None:
        return None
    value = as_watermark(text, kind)
    if value is None:
        raise TypeNotRepresentable(
            f"the highest value of watermark column {column} is infinite, NaN, before year 1 or "
            "after year 9999: as a watermark it would hide every later row; correct it, leave it "
            "out with where, or give watermark.upper"
        )
    # Cut to the microsecond it may be the lower bound itself: nothing that could be told is new.
    return None if lower is not None and value == lower else value


def as_watermark(text: str, kind: Typed) -> WatermarkValue | None:
    """Return a value of the server's text, cut to the microsecond; None where it is none."""
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


def _latest(
    opened: Opened, kind: Typed, column: str, delay: timedelta, dialect: Dialect
) -> WatermarkValue:
    """Return the latest value that a column may have by the server's clock less a delay.

    Of dates it is the last day that was over by then. A wall clock without a zone is taken for UTC
    or for the server's own zone, whichever is earlier: too early loses nothing.
    """
    if kind.watermark not in ("date", "timestamp", "timestamptz"):
        raise ConfigError(
            f"watermark.delay needs a time, and column {column} is {kind.described.printed}"
        )
    clocks = [dialect.utc_clock] if dialect.utc_clock else []
    if kind.watermark != "timestamptz":
        clocks.append(dialect.local_clock)
    told = opened.rows(f"select {', '.join(clocks)}{dialect.one_row}")[0]
    moments = [moment for text in told if (moment := _moment(text or ""))]
    if not dialect.utc_clock:
        moments.append(datetime.now(UTC).replace(tzinfo=None))
    if not moments:
        raise ConfigError("watermark.delay: the server's clock cannot be read")
    latest = min(moments) - delay
    if kind.watermark == "date":
        return WatermarkValue("date", (latest.date() - timedelta(days=1)).isoformat())
    zone = "+00" if kind.watermark == "timestamptz" else ""
    return WatermarkValue(kind.watermark, f"{latest.date().isoformat()} {latest:%H:%M:%S.%f}{zone}")


def precedes(
    opened: Opened,
    found: Found,
    column: str,
    left: WatermarkValue,
    right: WatermarkValue,
) -> bool:
    """Return whether one value lies before another in the column's own collation."""
    kind, dialect = watermark_type(found, column), found.dialect
    for value in (left, right):
        check(value, kind, column)
    # The column lends the literals its type and collation; no row is read.
    name, alias = quote_name("c0", dialect), quote_name("v", dialect)
    nothing = select([quote_name(column, dialect)], found.relation, "1 = 0")
    one = f"{nothing} union all select {literal(left.text, kind, dialect)}{dialect.one_row}"
    statement = f"select count(*) from ({one}) {alias} where {name} < "
    return opened.rows(statement + literal(right.text, kind, dialect))[0][0] == "1"


def nulls(opened: Opened, found: Found, column: str) -> int:
    """Count rows with NULL in a column."""
    condition = f"{quote_name(column, found.dialect)} is null"
    return int(opened.rows(select(["count(*)"], found.relation, condition))[0][0] or 0)


def watermark_type(found: Found, column: str) -> Typed:
    """Return a column that orders rows.

    Raises:
        ConfigError: There is no such column, or its type does not order.
    """
    kind = found.column(column)
    if kind.watermark is None:
        raise ConfigError(
            f"column {column} is of type {kind.described.printed}, which cannot be a watermark; "
            "use an integer, a decimal, a date, a timestamp or a text"
        )
    return kind


def check(bound: WatermarkValue, kind: Typed, column: str) -> None:
    """Refuse a bound of another kind than the column."""
    if bound.type != kind.watermark:
        raise ConfigError(
            f"a bound of type {bound.type} does not fit watermark column {column}, which is "
            f"{kind.described.printed}"
        )


def day_of(text: str) -> date | None:
    """Return the day of the server's text for a date or time; None where it is none."""
    moment = _moment(text)
    return moment.date() if moment else None
