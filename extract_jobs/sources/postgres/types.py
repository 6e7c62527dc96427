"""How PostgreSQL types become Arrow types.

DuckDB's scanner is trusted with an allow-list. It reads ``numeric`` without precision as double,
``NaN`` of ``numeric(p,s)`` as 0, ``24:00`` as ``00:00``, ``timetz`` without its zone, strips the
padding of ``char(n)``, and drops lower bounds of arrays. So every type outside the list is cast to
text by the server, and the values inside it that would be misread are looked for: by SQL
(`failure_condition`) where DuckDB hides them, in Arrow (`out_of_range`) where it does not, because
Arrow is cheaper.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.schema import Column
from extract_jobs.sources.postgres.sql import operator, quote_name, quote_text

_PLAIN: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
MAX_PRECISION = 38
"""Digits of Arrow's decimal128, and of what Athena and Spark know."""

_DAY_US = 86_400_000_000
FIRST_DAY = -719_162
"""0001-01-01 in days from 1970-01-01."""
LAST_DAY = 2_932_896
"""9999-12-31 in days from 1970-01-01."""


@dataclass(frozen=True)
class PostgresType:
    """A column's type as ``pg_type`` tells it, domains resolved.

    Attributes:
        printed: ``format_type`` of the declared type.
        base: ``typname`` of the type below all domains, for an array of its element.
        modifier: ``atttypmod`` in force, -1 for none.
        is_array: Whether it is a true array (``int2vector`` and the like are not).
        is_domain: Whether the declared type, or the array's element, is a domain.
        built_in: Whether ``base`` lies in ``pg_catalog``.
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


def _arrow_type(found: PostgresType) -> pa.DataType | None:
    """Return the Arrow type that DuckDB reads the scalar as, faithfully; None if it cannot."""
    if not found.built_in:
        return None
    if found.base == "numeric":
        digits = precision_and_scale(found.modifier)
        if digits is None:
            return None
        precision, scale = digits
        faithful = 1 <= precision <= MAX_PRECISION and 0 <= scale <= precision
        return pa.decimal128(precision, scale) if faithful else None
    if found.is_array and found.base == "bytea":
        return None  # DuckDB does not know its array type
    return _PLAIN.get(found.base)


def make_column(
    name: str, found: PostgresType, *, nullable: bool, cast: str | None, null_what_fails: bool
) -> Column | str:
    """Decide how a column is read.

    Args:
        name: The column's name.
        found: Its type.
        nullable: Whether it admits NULL.
        cast: What the spec casts it to, if anything: it permits ``money``, and ``string`` takes
            decimals, dates and timestamps as the server's text, so that any value passes.
        null_what_fails: ``lossy_types: null``: what has no faithful form becomes NULL.

    Returns:
        The column, or a sentence why it cannot be read.
    """
    quoted = quote_name(name)
    if found.base == "money" and found.built_in:
        if cast is None:
            return (
                f"{name} is money, whose text depends on the server's locale: cast it, for "
                f"example columns.cast {{{name}: 'decimal(18,2)'}}, or exclude it"
            )
        return Column(
            name, found.printed, pa.string(), nullable, "by_permission",
            "money becomes the digits of its numeric value, as columns.cast allows",
            f"{quoted}::pg_catalog.text" if found.is_array
            else f"{quoted}::pg_catalog.numeric::pg_catalog.text",
        )  # fmt: skip
    scalar = _arrow_type(found)
    as_text = cast in ("string", "text") and not found.is_array
    if scalar is None or (as_text and _element_condition("", scalar) is not None):
        arrow = pa.list_(pa.string()) if found.is_array else pa.string()
        expression = (
            f"{quoted}::pg_catalog.text[]" if found.is_array else f"{quoted}::pg_catalog.text"
        )
        rule = "arrives as PostgreSQL's own text"
        if found.is_array:
            expression = _guarded(quoted, expression, arrow, null_what_fails)
            rule = f"{rule}; {_rule(arrow, null_what_fails)}"
        return Column(
            name, found.printed, arrow, nullable or (found.is_array and null_what_fails),
            "as_text", rule, expression,
        )  # fmt: skip
    expression = quoted
    if found.is_domain and found.base == "bpchar" and not found.is_array and found.modifier > 4:
        # The printed type hides the width that `pad_width` reads from it.
        expression = f"pg_catalog.rpad({quoted}::pg_catalog.text, {found.modifier - 4})"
    elif found.base == "bpchar" and found.modifier < 5 and not found.is_array:
        # Not blank-padded, so blanks at the end are the value's own: `concat` keeps them where a
        # cast to text would not.
        expression = f"case when {quoted} is not null then pg_catalog.concat({quoted}) end"
    elif found.base == "bpchar" and found.is_array and (found.is_domain or found.modifier < 5):
        # As above, element by element; `pad_width` does not see the width of a domain.
        expression = (
            f"array(select case when v is not null then pg_catalog.concat(v) end"
            f" from pg_catalog.unnest({quoted}) with ordinality as u(v, i) order by i)"
        )
    elif found.is_domain and found.is_array:
        expression = f"{quoted}::{_array_cast(found)}[]"
    arrow = pa.list_(scalar) if found.is_array else scalar
    checked = failure_condition(quoted, arrow) is not None
    if expression.startswith("array("):
        expression = f"case when {quoted} is not null then {expression} end"
    expression = _guarded(quoted, expression, arrow, null_what_fails)
    return Column(
        name, found.printed, arrow, nullable or (checked and null_what_fails),
        "lossless", _rule(arrow, null_what_fails), expression,
    )  # fmt: skip


def _array_cast(found: PostgresType) -> str:
    if found.base == "numeric":
        precision, scale = precision_and_scale(found.modifier) or (MAX_PRECISION, 0)
        return f"pg_catalog.numeric({precision},{scale})"
    return f"pg_catalog.{found.base}"


def _guarded(quoted: str, expression: str, arrow: pa.DataType, null_what_fails: bool) -> str:
    # Arrays always: DuckDB fails at several dimensions before anybody can tell the column.
    guarded = null_what_fails or pa.types.is_list(arrow)
    condition = failure_condition(quoted, arrow) if guarded else None
    return f"case when ({condition}) is not true then {expression} end" if condition else expression


def _rule(arrow: pa.DataType, null_what_fails: bool) -> str:
    outcome = "become NULL and are counted" if null_what_fails else "are refused"
    if pa.types.is_list(arrow):
        return (
            "arrays of one dimension starting at 1 arrive as lists; others, and elements without "
            f"a faithful form, {outcome}"
        )
    if pa.types.is_decimal(arrow):
        return f"keeps precision and scale; NaN values {outcome}"
    if pa.types.is_temporal(arrow):
        return f"years 1 to 9999 arrive as they are; infinite and other values {outcome}"
    return "arrives as it is"


def failure_condition(value: str, arrow: pa.DataType) -> str | None:
    """Return SQL that is true for values of an expression without a faithful form.

    Args:
        value: SQL that gives the column's value.
        arrow: The Arrow type it arrives as.

    Returns:
        The condition, possibly NULL for a NULL value; None if every value is faithful.
    """
    if pa.types.is_list(arrow):
        shape = (
            f"pg_catalog.array_ndims({value}) {operator('>')} 1"
            f" or pg_catalog.array_lower({value}, 1) {operator('<>')} 1"
        )
        element = _element_condition(f"any({value})", arrow.value_type)
        return f"{shape} or {element}" if element else shape
    return _element_condition(value, arrow)


def _element_condition(value: str, arrow: pa.DataType) -> str | None:
    # The literal stands on the left so that ``any(array)`` fits on the right.
    if pa.types.is_decimal(arrow):
        return f"'NaN'::pg_catalog.numeric {operator('=')} {value}"
    if pa.types.is_date(arrow):
        kind, last = "date", "9999-12-31"
    elif pa.types.is_timestamp(arrow):
        kind = "timestamptz" if arrow.tz else "timestamp"
        last = "9999-12-31 23:59:59.999999" + ("+00" if arrow.tz else "")
    else:
        return None
    first = {"date": "0001-01-01", "timestamp": "0001-01-01 00:00:00"}.get(
        kind, "0001-01-01 00:00:00+00"
    )
    first, last = (f"{quote_text(text)}::pg_catalog.{kind}" for text in (first, last))
    return f"{first} {operator('>')} {value} or {last} {operator('<')} {value}"


def hidden_by_duckdb(arrow: pa.DataType) -> bool:
    """Tell whether unfaithful values of a type can only be seen by the server."""
    return bool(pa.types.is_list(arrow) or pa.types.is_decimal(arrow))


def out_of_range(values: pa.Array) -> bool:
    """Tell whether any date or timestamp lies outside years 1 to 9999.

    DuckDB gives infinities as its own sentinels and wraps timestamps after year 294247 around;
    both lie outside, so one comparison of the extremes finds them all.
    """
    if pa.types.is_list(values.type):
        values = values.flatten()
    if pa.types.is_date32(values.type):
        low, high, integers = FIRST_DAY, LAST_DAY, values.view(pa.int32())
    elif pa.types.is_timestamp(values.type):
        low, high = FIRST_DAY * _DAY_US, (LAST_DAY + 1) * _DAY_US - 1
        integers = values.view(pa.int64())
    else:
        return False
    extremes = pc.min_max(integers)
    least, greatest = extremes["min"].as_py(), extremes["max"].as_py()
    return least is not None and (least < low or greatest > high)


def pad_width(column: Column) -> int | None:
    """Return n of ``character(n)`` and ``character(n)[]``; None for other types."""
    found = re.fullmatch(r"character\((\d+)\)(\[\])?", column.source_type)
    return int(found[1]) if found else None


def conform(values: pa.Array, column: Column) -> pa.Array:
    """Bring what DuckDB or psycopg gave for a column to exactly its Arrow type.

    ``char(n)`` gets its padding back.
    """
    width = pad_width(column)
    if width is not None and pa.types.is_list(column.arrow_type):
        # Row by row: arrays of char(n) are too rare to be worth offsets arithmetic.
        padded = [
            None if row is None else [item if item is None else item.ljust(width) for item in row]
            for row in values.to_pylist()
        ]
        return pa.array(padded, column.arrow_type)
    if width is not None:
        values = pc.utf8_rpad(values, width)
    return values if values.type == column.arrow_type else values.cast(column.arrow_type)
