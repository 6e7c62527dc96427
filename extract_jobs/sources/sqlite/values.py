"""Converts SQLite's values, each with its own storage class, to their column's Arrow type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Context, Decimal, Inexact
from typing import Any

import pyarrow as pa

from extract_jobs.schema import Column
from extract_jobs.sources.sqlite.types import Kind, kind_of
from extract_jobs.transform.exact_cast import exact_cast

_EXACT_DOUBLE = 2**53
_ACCEPTED: dict[Kind, set[type]] = {
    "integer": {int},
    "boolean": {int},
    "text": {str},
    "binary": {bytes},
    "real": {float, int},
    "decimal": {int, float},
    "any": {int, float, str},
    "all": {int, float, str, bytes},
}
_STORAGE_CLASS = {int: "integer", float: "real", str: "text", bytes: "blob"}
_EXACT = Context(prec=400, traps=[Inexact])


class Unfaithful(Exception):
    """A value has no faithful form; the argument names the kind of value, never the value."""


def convert(
    values: Sequence[Any], column: Column, *, null_what_fails: bool
) -> tuple[pa.Array, int]:
    """Convert a column's values to its Arrow type.

    Args:
        values: As Python's ``sqlite3`` returns them.
        column: The column.
        null_what_fails: Whether values without a faithful form become NULL and are counted.

    Returns:
        The array, and how many of its NULLs were values.

    Raises:
        Unfaithful: A value has no faithful form.
    """
    kind = kind_of(column)
    found = set(map(type, values))
    if found - {type(None)} <= _ACCEPTED[kind]:
        try:
            return _QUICK[kind](values, found, column.arrow_type), 0
        except (pa.ArrowException, UnicodeError, Unfaithful):
            pass  # one by one, to find the invalid ones
    form = _FORMS[kind]
    made: list[Any] = []
    failed = 0
    for value in values:
        try:
            made.append(None if value is None else form(value, column.arrow_type))
        except Unfaithful:
            if not null_what_fails:
                raise
            failed += 1
            made.append(None)
    return pa.array(made, column.arrow_type), failed


def _as_they_are(values: Sequence[Any], _: set[type], arrow: pa.DataType) -> pa.Array:
    # Arrow refuses integers that a double cannot hold, and text that is not UTF-8.
    return pa.array(values, arrow)


def _quick_boolean(values: Sequence[Any], _: set[type], arrow: pa.DataType) -> pa.Array:
    if not set(values) <= {0, 1, None}:
        raise Unfaithful
    return pa.array(values, pa.int64()).cast(arrow)


def _quick_decimal(values: Sequence[Any], found: set[type], arrow: pa.DataType) -> pa.Array:
    if found <= {int, type(None)}:
        return exact_cast(pa.array(values, pa.int64()), arrow)
    texts = pa.array([v if v is None else repr(v) for v in values], pa.string())
    return exact_cast(texts, arrow)


def _quick_any(values: Sequence[Any], _: set[type], arrow: pa.DataType) -> pa.Array:
    # Arrow refuses text that is not UTF-8.
    return pa.array([printed(v) if isinstance(v, int | float) else v for v in values], arrow)


def _quick_text(values: Sequence[Any], found: set[type], arrow: pa.DataType) -> pa.Array:
    if not found <= {str, type(None)}:
        values = [v if v is None else printed(v) for v in values]
    return pa.array(values, arrow)


_QUICK: dict[Kind, Callable[[Sequence[Any], set[type], pa.DataType], pa.Array]] = {
    "integer": _as_they_are,
    "boolean": _quick_boolean,
    "text": _as_they_are,
    "binary": _as_they_are,
    "real": _as_they_are,
    "decimal": _quick_decimal,
    "any": _quick_any,
    "all": _quick_text,
}


def printed(value: Any) -> str:
    """Return a value as text: reals as the shortest decimal that reads back equal, blobs as X'…'.

    Text that is not UTF-8 is printed as the blob of its bytes.
    """
    if isinstance(value, bytes):
        return f"X'{value.hex().upper()}'"
    if isinstance(value, str):
        if _is_utf8(value):
            return value
        return printed(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, float) and math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return repr(value)


def storage_class(value: Any) -> str:
    """Describe the kind of a value, for messages."""
    return f"a value of storage class {_STORAGE_CLASS[type(value)]}"


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _of_class(*accepted: type) -> Callable[[Any, pa.DataType], Any]:
    def form(value: Any, _: pa.DataType) -> Any:
        if type(value) not in accepted:
            raise Unfaithful(storage_class(value))
        if isinstance(value, str) and not _is_utf8(value):
            raise Unfaithful("text that is not UTF-8")
        return value

    return form


def _boolean(value: Any, _: pa.DataType) -> bool:
    if type(value) is not int:
        raise Unfaithful(storage_class(value))
    if value not in (0, 1):
        raise Unfaithful("an integer other than 0 and 1")
    return bool(value)


def _real(value: Any, _: pa.DataType) -> float:
    if type(value) not in (int, float):
        raise Unfaithful(storage_class(value))
    if isinstance(value, int) and abs(value) > _EXACT_DOUBLE and int(float(value)) != value:
        raise Unfaithful("an integer that a double cannot hold")
    return float(value)


def _decimal(value: Any, arrow: pa.DataType) -> Decimal:
    if type(value) not in (int, float):
        raise Unfaithful(storage_class(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise Unfaithful("an infinite value")
    number = Decimal(repr(value))
    scaled = number.scaleb(arrow.scale, _EXACT)
    if scaled != scaled.to_integral_value() or abs(scaled) >= 10**arrow.precision:
        raise Unfaithful(
            f"a number that does not fit {arrow.precision} digits, {arrow.scale} of them after "
            "the point"
        )
    return number


def _any(value: Any, arrow: pa.DataType) -> str:
    if isinstance(value, bytes):
        raise Unfaithful(storage_class(value))
    return printed(_of_class(int, float, str)(value, arrow))


_FORMS: dict[Kind, Callable[[Any, pa.DataType], Any]] = {
    "integer": _of_class(int),
    "boolean": _boolean,
    "text": _of_class(str),
    "binary": _of_class(bytes),
    "real": _real,
    "decimal": _decimal,
    "any": _any,
    "all": lambda value, _: printed(value),
}
