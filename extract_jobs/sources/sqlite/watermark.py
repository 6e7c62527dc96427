"""What SQLite says of a watermark column: greatest values, its order, its NULLs."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.sources.sqlite.session import Rows
from extract_jobs.sources.sqlite.sql import Relation, bound_literal, check_bound, select
from extract_jobs.sources.sqlite.values import printed, storage_class
from extract_jobs.watermark import WatermarkValue, is_before

Run = Callable[[str], Rows]


def greatest(
    run: Run,
    relation: Relation,
    column: Column,
    *,
    lower: WatermarkValue | None,
    upper: WatermarkValue | None,
) -> WatermarkValue | None:
    """Return the greatest non-NULL value within bounds; None without any.

    Args:
        run: Runs one statement.
        relation: What is read.
        column: The watermark column.
        lower: Exclusive.
        upper: Inclusive.

    Raises:
        ConfigError: A type that does not order, or a bound that is none of it.
        TypeNotRepresentable: The value is of another storage class than the column: as a watermark
            it would hide every later row.
    """
    check_orders(column)
    name = column.expression
    conditions = [f"{name} is not null"]
    for sign, bound in ((">", lower), ("<=", upper)):
        if bound is not None:
            check_bound(bound, column)
            conditions.append(f"{name} {sign} {bound_literal(bound)}")
    rows = run(f"{select([name], relation, *conditions)} order by {name} desc limit 1")
    return _value(rows[0][0], column) if rows else None


def _value(value: Any, column: Column) -> WatermarkValue:
    assert column.watermark is not None
    if column.watermark == "integer" and type(value) is int:
        return WatermarkValue("integer", str(value))
    if column.watermark == "decimal" and isinstance(value, int | float) and math.isfinite(value):
        return WatermarkValue("decimal", f"{Decimal(repr(value)):f}")
    if column.watermark == "string" and not isinstance(value, bytes):
        return WatermarkValue("string", printed(value))
    raise TypeNotRepresentable(
        f"the highest value of watermark column {column.name} ({column.source_type or 'no type'}) "
        f"is {storage_class(value)}: as a watermark it would hide every later row; correct it, "
        "leave it out with where, or give watermark.upper"
    )


def precedes(
    run: Run, relation: Relation, column: Column, left: WatermarkValue, right: WatermarkValue
) -> bool:
    """Return whether one value lies before another in the column's own collation."""
    check_orders(column)
    for value in (left, right):
        check_bound(value, column)
    if column.watermark != "string":
        return is_before(left, right)
    # The column lends the literals its collation; no row is read.
    nothing = select([column.expression], relation, "0")
    one = f"({nothing} union all select {bound_literal(left)})"
    return bool(run(f"select c0 < {bound_literal(right)} from {one}")[0][0])


def check_orders(column: Column) -> None:
    """Refuse a watermark column whose type does not order rows.

    Raises:
        ConfigError: It does not.
    """
    if column.watermark is None:
        raise ConfigError(
            f"column {column.name} is {column.source_type or 'of no type'}, which cannot be a "
            "watermark in SQLite; use an integer, a decimal with precision, or text that is in "
            "the order of time, such as ISO dates"
        )
