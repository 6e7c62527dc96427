"""What MySQL says of a watermark column: greatest values, its order, its NULLs."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.sources.mysql.catalog import Found
from extract_jobs.sources.mysql.driver import Connection
from extract_jobs.sources.mysql.session import execute
from extract_jobs.sources.mysql.snapshot import watermark_base
from extract_jobs.sources.mysql.sql import KINDS, literal, quote_name, select
from extract_jobs.watermark import WatermarkValue


def greatest(
    opened: Connection,
    found: Found,
    column: str,
    *,
    lower: WatermarkValue | None,
    upper: WatermarkValue | None,
    latest: str | None,
) -> WatermarkValue | None:
    """Return the greatest non-NULL value within bounds; None without any.

    Args:
        opened: A connection.
        found: What is read.
        column: The watermark column.
        lower: Exclusive.
        upper: Inclusive.
        latest: SQL of one more inclusive upper bound, as `clock_bound` gives it.

    Raises:
        ConfigError: No such column, a type that does not order, or a bound that is none of it.
        TypeNotRepresentable: The value is a zero date or of year 0, or no valid text.
    """
    base, name = watermark_base(found, column), quote_name(column)
    conditions = [f"{name} <= {latest}"] if latest else []
    for sign, bound in ((">", lower), ("<=", upper)):
        if bound is not None:
            _check(bound, base, column)
            conditions.append(f"{name} {sign} {literal(bound.text, base)}")
    value = execute(opened, select([_text(f"max({name})", base)], found.relation, *conditions))
    text = value[0][0]
    if text is None:
        return None
    try:
        return _value(text, base)
    except ValueError:
        pass  # outside: the refusal's text would hold the value, which is row data
    raise TypeNotRepresentable(
        f"the highest value of watermark column {column} is a zero date, of year 0, or no valid "
        "text: as a watermark it would not compare; correct it, leave it out with where, or give "
        "watermark.upper"
    )


def _text(expression: str, base: str) -> str:
    """Return SQL for the bytes of a value's text in UTF-8, however the session converts."""
    if KINDS[base] == "string":
        return f"cast(convert({expression} using utf8mb4) as binary)"
    return f"cast({expression} as char)"


def _value(text: Any, base: str) -> WatermarkValue:
    text = text.decode() if isinstance(text, bytes) else str(text)
    kind = KINDS[base]
    if kind in ("date", "timestamp", "timestamptz"):
        date.fromisoformat(text[:10])
    return WatermarkValue(kind, text + ("+00" if kind == "timestamptz" else ""))


def clock_bound(opened: Connection, found: Found, column: str, delay: timedelta) -> str:
    """Return SQL of the latest value that a column may have by the server's clock less a delay.

    Of dates it is the last day that was over by then: later rows of a day still come. A DATETIME
    is taken for UTC or for the server's own time zone, whichever is earlier: writers use either,
    and too early loses nothing.

    Raises:
        ConfigError: The column is no time.
    """
    base = watermark_base(found, column)
    ago = f"interval {round(delay.total_seconds() * 1_000_000)} microsecond"
    if base == "timestamp":
        return f"(utc_timestamp(6) - {ago})"
    if base not in ("datetime", "date"):
        raise ConfigError(f"watermark.delay needs a time, and column {column} is {base}")
    execute(opened, "set session time_zone = @@global.time_zone")
    offset = execute(opened, "select timestampdiff(second, utc_timestamp(), now())")[0][0]
    execute(opened, "set session time_zone = '+00:00'")
    latest = f"(utc_timestamp(6) + interval {min(0, int(offset))} second - {ago})"
    return latest if base == "datetime" else f"(date({latest}) - interval 1 day)"


def precedes(
    opened: Connection, found: Found, column: str, left: WatermarkValue, right: WatermarkValue
) -> bool:
    """Return whether one value lies before another in the column's own collation."""
    base, name = watermark_base(found, column), quote_name(column)
    for value in (left, right):
        _check(value, base, column)
    if KINDS[base] != "string":
        statement = f"select {literal(left.text, base)} < {literal(right.text, base)}"
        return bool(execute(opened, statement)[0][0])
    # The column lends the literals its collation; no row is read.
    nothing = select([f"{name} as v"], found.relation, "false")
    one = f"({nothing} union all select {literal(left.text, base)}) as v"
    statement = f"select v < {literal(right.text, base)} from {one}"
    return bool(execute(opened, statement)[0][0])


def nulls(opened: Connection, found: Found, column: str) -> int:
    """Count rows with NULL in a column; zero dates are none, whatever IS NULL says of them."""
    condition = f"{quote_name(column)} <=> null"
    return int(execute(opened, select(["count(*)"], found.relation, condition))[0][0])


def _check(bound: WatermarkValue, base: str, column: str) -> None:
    """Refuse a bound of another kind."""
    if bound.type != KINDS[base]:
        raise ConfigError(
            f"a bound of type {bound.type} does not fit watermark column {column}, which is {base}"
        )
