"""The SQL that reads a column of a type, so that DuckDB reads it faithfully."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from extract_jobs.sources.postgres.values import failure_condition

MAX_PRECISION = 38
"""Maximum digits of Arrow's decimal128, and of decimals in Athena and Spark."""


@dataclass(frozen=True)
class PostgresType:
    """A column's type from ``pg_type``, domains resolved.

    Attributes:
        printed: ``format_type`` of the declared type.
        base: ``typname`` of the type below all domains; of an array, its element's.
        modifier: ``atttypmod`` in effect, -1 for none.
        is_array: Whether it is a true array (``int2vector`` and the like are not).
        is_domain: Whether the declared type, or the array's element, is a domain.
        built_in: Whether ``base`` is in ``pg_catalog``.
    """

    printed: str
    base: str
    modifier: int
    is_array: bool
    is_domain: bool
    built_in: bool


def precision_and_scale(modifier: int) -> tuple[int, int] | None:
    """Decode the type modifier of ``numeric``; None without one.

    See ``make_numeric_typmod`` in PostgreSQL's numeric.c; the scale has a sign since 15.
    """
    if modifier < 4:
        return None
    packed = modifier - 4
    return (packed >> 16) & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024


def printed(quoted: str, found: PostgresType) -> str:
    """Return SQL of a whole value as the type's output function prints it, and so psql."""
    if found.is_array or not _has_own_cast(found):
        return f"{quoted}::pg_catalog.text"
    # A row of NULLs ``is null``, but is distinct from NULL.
    return f"case when {quoted} is distinct from null then pg_catalog.concat({quoted}) end"


def printed_items(quoted: str, found: PostgresType) -> str:
    """Return SQL of an array with each element as its type prints it."""
    if found.built_in and _has_own_cast(found):
        return _concatenated(quoted)
    return f"{quoted}::pg_catalog.text[]"


def _has_own_cast(found: PostgresType) -> bool:
    """Return whether a cast to text may give a different text than the type's output function.

    inet's cast adds a netmask, and anybody may define a cast for their own types.
    """
    return not found.built_in or found.base in ("inet", "cidr")


def _concatenated(quoted: str) -> str:
    return (
        f"case when {quoted} is not null then"
        " array(select case when v is not null then pg_catalog.concat(v) end"
        f" from pg_catalog.unnest({quoted}) with ordinality as u(v, i) order by i) end"
    )


def as_it_is(quoted: str, found: PostgresType) -> str:
    """Return SQL that passes a column to DuckDB in a type that it reads faithfully."""
    if found.base == "bpchar" and not found.is_array:
        if found.modifier < 5:
            # Not blank-padded, so blanks at the end belong to the value: `concat` keeps them, a
            # cast to text would not.
            return f"case when {quoted} is not null then pg_catalog.concat({quoted}) end"
        if found.is_domain:
            # The printed type hides the width that `pad_width` reads from it.
            return f"pg_catalog.rpad({quoted}::pg_catalog.text, {found.modifier - 4})"
    if found.base == "bpchar" and found.is_array and (found.is_domain or found.modifier < 5):
        # As above, element by element; `pad_width` does not see the width of a domain.
        return _concatenated(quoted)
    if found.is_domain and found.is_array:
        return f"{quoted}::{_array_cast(found)}[]"
    return quoted


def _array_cast(found: PostgresType) -> str:
    if found.base == "numeric":
        precision, scale = precision_and_scale(found.modifier) or (MAX_PRECISION, 0)
        return f"pg_catalog.numeric({precision},{scale})"
    return f"pg_catalog.{found.base}"


def guarded(quoted: str, expression: str, arrow: pa.DataType, to_null: bool) -> str:
    """Return SQL that gives NULL instead of values without a faithful form.

    Args:
        quoted: The column.
        expression: SQL that reads it.
        arrow: The type it arrives as.
        to_null: Whether such values may become NULL. Those of arrays always do: DuckDB fails at
            several dimensions before the column is known; the reader then refuses them.
    """
    condition = None
    if to_null or pa.types.is_list(arrow):
        condition = failure_condition(quoted, arrow)
    if condition is None:
        return expression
    found = f"case when ({condition}) is not true then {expression} end"
    element = arrow.value_type if pa.types.is_list(arrow) else arrow
    if pa.types.is_decimal(element):
        # PostgreSQL drops the precision of a CASE without ELSE, and DuckDB would read doubles.
        kind = f"pg_catalog.numeric({element.precision},{element.scale})"
        found = f"({found})::{kind}{'[]' if pa.types.is_list(arrow) else ''}"
    return found
