"""Values without a faithful form in Arrow: how they are found, and how the rest is converted.

What DuckDB would silently misread is found by SQL (`failure_condition`), what stays visible in
Arrow there (`out_of_range`), because Arrow is cheaper.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import SourceMoved
from extract_jobs.schema import Column
from extract_jobs.sources.postgres.sql import operator, quote_text
from extract_jobs.transform.exact_cast import exact_cast
from extract_jobs.transform.types import kind


def failure_condition(value: str, arrow: pa.DataType) -> str | None:
    """Return SQL that is true for values of an expression without a faithful form.

    Args:
        value: SQL of the column's value.
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
    # The literal is on the left so that ``any(array)`` fits on the right.
    if pa.types.is_decimal(arrow):
        return f"'NaN'::pg_catalog.numeric {operator('=')} {value}"
    if pa.types.is_date(arrow):
        name, last = "date", "9999-12-31"
    elif pa.types.is_timestamp(arrow):
        name = "timestamptz" if arrow.tz else "timestamp"
        last = "9999-12-31 23:59:59.999999" + ("+00" if arrow.tz else "")
    else:
        return None
    first = {"date": "0001-01-01", "timestamp": "0001-01-01 00:00:00"}.get(
        name, "0001-01-01 00:00:00+00"
    )
    first, last = (f"{quote_text(text)}::pg_catalog.{name}" for text in (first, last))
    return f"{first} {operator('>')} {value} or {last} {operator('<')} {value}"


def hidden_by_duckdb(arrow: pa.DataType) -> bool:
    """Return whether only the server can see unfaithful values of a type."""
    return bool(pa.types.is_list(arrow) or pa.types.is_decimal(arrow))


def pad_width(column: Column) -> int | None:
    """Return n of ``character(n)`` and ``character(n)[]``; None for others, and for text casts."""
    found = re.fullmatch(r"character\((\d+)\)(\[\])?", column.source_type)
    as_its_type = found and bool(found[2]) == pa.types.is_list(column.arrow_type)
    return int(found[1]) if found and as_its_type else None


def _is_of_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_list(found) and pa.types.is_list(wanted):
        return _is_of_kind(found.value_type, wanted.value_type)
    return kind(found) == kind(wanted)


def conform(values: pa.Array, column: Column) -> pa.Array:
    """Convert what DuckDB or psycopg returned for a column to exactly its Arrow type.

    ``char(n)`` gets its padding back.

    Raises:
        SourceMoved: The values came as another kind, such as doubles for a decimal, so that digits
            may be missing already.
    """
    if not _is_of_kind(values.type, column.arrow_type):
        raise SourceMoved(
            f"column {column.name} ({column.source_type}) came as {values.type} instead of "
            f"{column.arrow_type}, which may have cost digits: its type was changed while it was "
            "read. A retry makes a new plan"
        )
    width = pad_width(column)
    if width is not None and pa.types.is_list(column.arrow_type):
        # Row by row: arrays of char(n) are too rare to justify offset arithmetic.
        padded = [
            None if row is None else [item if item is None else item.ljust(width) for item in row]
            for row in values.to_pylist()
        ]
        return pa.array(padded, column.arrow_type)
    if width is not None:
        values = pc.utf8_rpad(values, width)
    return exact_cast(values, column.arrow_type)
