"""SQL that every dialect writes alike: where a person's text stands, and an interval's bounds."""

from __future__ import annotations

import re
from collections.abc import Callable

from extract_jobs.errors import ConfigError
from extract_jobs.sources import ReadRequest
from extract_jobs.watermark import WatermarkValue


def trim_statement(text: str) -> str:
    """Strip blanks and semicolons from the end of a statement."""
    return re.sub(r"[\s;]+\Z", "", text)


def in_parentheses(text: str) -> str:
    """Put text between parentheses so that a comment at its end does not swallow the last one."""
    return f"(\n{text}\n)"


def where_clause(*conditions: str | None) -> str:
    """Return ``where (…) and (…)`` of the conditions that are not None; empty without any."""
    given = [in_parentheses(condition) for condition in conditions if condition]
    return f" where {' and '.join(given)}" if given else ""


def bounds_condition(
    request: ReadRequest,
    compare: Callable[[str, WatermarkValue], str],
    *,
    is_null: str,
    not_null: str,
    nothing: str,
) -> str | None:
    """Return ``column > lower and column <= upper`` for a request; None if all rows belong.

    Args:
        request: What is read.
        compare: Gives SQL that compares the watermark column with a bound, by ``>`` or ``<=``.
        is_null: SQL that is true where the column is NULL.
        not_null: Its opposite.
        nothing: SQL that is never true.

    Raises:
        ConfigError: As ``compare`` raises it.
    """
    interval = request.interval
    if interval is None or request.watermark_column is None:
        return None
    if interval.empty:
        return is_null if request.include_null_watermarks else nothing
    if interval.lower is None and interval.upper is None:
        return None if request.include_null_watermarks else not_null
    sides = ((">", interval.lower), ("<=", interval.upper))
    condition = " and ".join(compare(sign, bound) for sign, bound in sides if bound is not None)
    return f"{condition} or {is_null}" if request.include_null_watermarks else condition


def watermark_changed(name: str, now: str | None, bound: WatermarkValue) -> ConfigError:
    """Return the refusal of a bound of another kind than its column has, or whose column is gone.

    Args:
        name: The watermark column.
        now: Its type as the source prints it; None where it is gone.
        bound: What is kept of it.
    """
    return ConfigError(
        f"watermark column {name} is now {now or 'gone'}, but the watermark kept for it is of type "
        f"{bound.type}: extract the table in full, or give watermark.lower"
    )
