"""The SQL that the PostgreSQL source sends: quoting, relations, predicates, session settings.

Everything here is text in, text out. A person's own text (``query``, ``where``) is only put between
parentheses after a check that it does not close them (see
`extract_jobs.sources.postgres.user_sql`).
"""

from __future__ import annotations

from collections.abc import Mapping

from extract_jobs.watermark import WatermarkType

LOCK_TIMEOUT_SECONDS = 60
"""How long any statement waits for a lock. Never unlimited: a reader would queue behind a TRUNCATE
that itself waits for the transaction that holds the snapshot."""

_SETTINGS = {
    "lock_timeout": f"{LOCK_TIMEOUT_SECONDS}s",
    # A split waits inside its transaction between opening and reading, and while the writer is
    # slow; the exporting connection waits all the time.
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    # A reader to whom policies apply gets an error instead of a part of the rows.
    "row_security": "off",
    # A pooler's session, or a role, may have a different one.
    "client_encoding": "UTF8",
    # How casts to text print.
    "DateStyle": "ISO,YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
}
IN_PAGE_ORDER = {
    "enable_tidscan": "on",
    "max_parallel_workers_per_gather": "0",
    "synchronize_seqscans": "off",
}
"""Settings under which the rows of a table come in the order of its pages, whatever the server's
costs: parallel workers mix them, and a synchronized scan starts in the middle."""
_SETTINGS_SINCE = {"idle_session_timeout": 140000, "transaction_timeout": 170000}


def quote_name(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def operator(sign: str) -> str:
    """Return an operator that no schema ahead in the search path can replace.

    Its precedence differs from the plain one's: operands other than names and casts need
    parentheses.
    """
    return f"operator(pg_catalog.{sign})"


EQUALS = operator("=")


def quote_text(text: str) -> str:
    """Quote a string literal, whatever ``standard_conforming_strings`` says."""
    if "\\" in text:
        return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + text.replace("'", "''") + "'"


def set_local(server_version: int, settings: Mapping[str, str]) -> str:
    """Return the statements with the settings that each transaction begins with.

    They are local to the transaction, because poolers refuse startup ``options`` or ignore them,
    and pass a session with its settings on to the next client.

    Args:
        server_version: Such as 160002.
        settings: The connection's own, which override the defaults.
    """
    newer = {name: "0" for name, since in _SETTINGS_SINCE.items() if server_version >= since}
    return "; ".join(
        f"set local {name} = {quote_text(value)}"
        for name, value in {**_SETTINGS, **newer, **settings}.items()
    )


KINDS: dict[str, tuple[WatermarkType, str | None]] = {
    "int2": ("integer", "int8"),
    "int4": ("integer", "int8"),
    "int8": ("integer", "int8"),
    "numeric": ("decimal", "numeric"),
    "date": ("date", "date"),
    "timestamp": ("timestamp", "timestamp"),
    "timestamptz": ("timestamptz", "timestamptz"),
    # No cast: an untyped literal takes the column's type and collation.
    "text": ("string", None),
    "varchar": ("string", None),
    "bpchar": ("string", None),
    "uuid": ("string", None),
}
"""Types that order rows: their watermark type, and the type their literals are cast to.

The literals' type has no modifier: a cast to ``timestamp(3)`` would round the bound.
"""


def literal(text: str, base_type: str) -> str:
    """Return a typed literal that compares with a column of a base type of `KINDS`."""
    cast = KINDS[base_type][1]
    if cast == "int8" and not -(2**63) <= int(text) < 2**63:
        cast = "numeric"  # a bound outside the column's range is valid and excludes nothing
    return quote_text(text) + (f"::pg_catalog.{cast}" if cast else "")


def ctid_condition(start: int, end: int | None) -> str:
    """Return the condition for heap pages ``[start, end)``; None is open-ended."""
    condition = f"ctid {operator('>=')} '({start},0)'::pg_catalog.tid"
    if end is None:
        return condition
    return f"{condition} and ctid {operator('<')} '({end},0)'::pg_catalog.tid"
