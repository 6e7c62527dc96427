"""What PostgreSQL says of a watermark column: greatest values, its order, its NULLs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta

import psycopg

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.sources.postgres.errors import primary
from extract_jobs.sources.postgres.session import Connection, connect, execute
from extract_jobs.sources.postgres.snapshot import Found
from extract_jobs.sources.postgres.sql import (
    KINDS,
    Relation,
    literal,
    operator,
    quote_name,
    quote_text,
    select,
)
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
        TypeNotRepresentable: The value is infinite, NaN or has no year from 1 to 9999: as a
            watermark it would stop every later extract.
    """
    base, name = _base(found, column), quote_name(column)
    conditions = [
        f"{name} is not null",
        *filter(None, [latest and f"{name} {operator('<=')} {latest}"]),
    ]
    for sign, bound in ((">", lower), ("<=", upper)):
        if bound is not None:
            _check(opened, bound, base, column)
            conditions.append(f"{name} {operator(sign)} {literal(bound.text, base)}")
    # The value is made text outside: in ORDER BY, a name means first of all an output column, and
    # the watermark's column may be called c0.
    statement = f"{select([name], found.relation, *conditions)} order by c0 desc limit 1"
    rows = execute(opened, f"select c0::pg_catalog.text from ({statement}) as s")
    if not rows:
        return None
    value = rows[0][0]
    # Outside a handler: the refusal's text holds the value, which is row data.
    with contextlib.suppress(ValueError):
        return WatermarkValue(KINDS[base][0], value)
    kind = "infinite" if "infinity" in value.lower() else "NaN, before year 1 or after year 9999"
    raise TypeNotRepresentable(
        f"the highest value of watermark column {column} is {kind}: as a watermark it would "
        "hide every later row; correct it, leave it out with where, or give watermark.upper"
    )


def clock_bound(connection: DatabaseConnection, found: Found, column: str, delay: timedelta) -> str:
    """Return SQL of the latest value that a column may have by the server's clock less a delay.

    Of dates it is the last day that was over by then: later rows of a day still come. A wall clock
    without a zone is taken for UTC or for the database's own zone, whichever is earlier: writers
    use either, and too early loses nothing.

    Raises:
        ConfigError: The column is no time.
    """
    base = _base(found, column)
    ago = f"pg_catalog.make_interval(secs => {delay.total_seconds():.6f})"
    if base == "timestamptz":
        return f"(pg_catalog.now() {operator('-')} {ago})"
    if base not in ("timestamp", "date"):
        raise ConfigError(f"watermark.delay needs a time, and column {column} is {base}")
    zones = ("UTC", _default_zone(connection))
    clocks = ", ".join(f"pg_catalog.now() at time zone {quote_text(zone)}" for zone in zones)
    latest = f"(least({clocks}) {operator('-')} {ago})"
    return latest if base == "timestamp" else f"({latest}::pg_catalog.date {operator('-')} 1)"


def _default_zone(connection: DatabaseConnection) -> str:
    """Return the time zone of sessions that set none, as ours do."""
    with contextlib.closing(connect(replace(connection, pooled=True))) as plain:
        return str(execute(plain, "show timezone")[0][0])


def precedes(
    opened: Connection, found: Found, column: str, left: WatermarkValue, right: WatermarkValue
) -> bool:
    """Return whether one value lies before another in the column's own collation."""
    base, name = _base(found, column), quote_name(column)
    for value in (left, right):
        _check(opened, value, base, column)
    # The column lends the literals its type and collation; no row is read.
    nothing = select([name], found.relation, "false")
    one = f"({nothing} union all select {literal(left.text, base)}) as v"
    statement = f"select c0 {operator('<')} {literal(right.text, base)} from {one}"
    return bool(execute(opened, statement)[0][0])


def nulls(opened: Connection, relation: Relation, column: str) -> int:
    """Count rows with NULL in a column."""
    statement = select(["pg_catalog.count(*)"], relation, f"{quote_name(column)} is null")
    return int(execute(opened, statement)[0][0])


def _base(found: Found, column: str) -> str:
    base = found.base_type(column)
    if base not in KINDS:
        raise ConfigError(
            f"column {column} is of type {base}, which cannot be a watermark; use one of "
            f"{', '.join(KINDS)}"
        )
    return base


def _check(opened: Connection, bound: WatermarkValue, base: str, column: str) -> None:
    """Refuse a bound of another kind, and text that is no value of the column's type."""
    if bound.type != KINDS[base][0]:
        raise ConfigError(
            f"a bound of type {bound.type} does not fit watermark column {column}, which is {base}"
        )
    if bound.type != "string":
        return  # typed already
    try:
        execute(opened, f"select {quote_text(bound.text)}::pg_catalog.{base}")
    except psycopg.DataError as error:
        raise ConfigError(
            f"{bound.text!r} is not a bound for watermark column {column}, which is {base}: "
            f"{primary(error)}"
        ) from error
