"""Casts values from one Arrow type, or from text, to another without loss.

Every cast of the package goes through `exact_cast`: ``columns.cast`` of every source, the fields of
CSV, the values of JSON, Parquet files of another type. What a text means therefore never depends on
where it came from:

- an integer is ``-`` or nothing, then digits; leading zeros are allowed;
- a decimal is digits with or without a point, a sign and an exponent (``1.``, ``.5``, ``-2e3``);
- a float is spelled like a decimal, or ``nan``, ``inf`` or ``infinity`` in any case;
- a boolean is ``true``, ``false`` in any case, ``1`` or ``0``;
- a date is ``YYYY-MM-DD``, a timestamp a date that may be followed by a blank or ``T`` and ``hh``,
  ``hh:mm`` or ``hh:mm:ss`` with up to six digits of a fraction. A timestamp with a zone has a time
  and ``Z``, ``±hh``, ``±hhmm`` or ``±hh:mm`` behind it. Years are 1 to 9999, in UTC too.

Blanks, non-ASCII digits, underscores and hexadecimal numbers are not accepted in numbers.

Arrow's own safe cast does the same, except that it is not safe in these cases (25.0): text to
integer reads ``0x10``; text to float turns ``1e999`` into infinity and reads ``nan(x)``; text and
numbers to decimals wrap around at 128 bits, so 70.57 as decimal(38,37) is 2.51…, and lose exponents
far below the scale; text to dates accepts the year 0, and a zone can lead to the year 10000. Arrow
allows other losses on purpose: the time of day of a timestamp cast to a date, the fraction of a
double cast to a decimal, any number but 0 cast to a boolean. All of these are detected here by
checking the result.
"""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.transform.date_range import out_of_range
from extract_jobs.transform.types import kind

_CAST_BACK = {
    ("boolean", "integer"),
    ("date", "timestamp"),
    ("date", "timestamptz"),
    ("decimal", "float"),
}
"""(target, source) kinds for which Arrow silently drops a part of the value."""
_NOT_FINITE = r"^[+-]?(?i:nan|inf|infinity)$"
_WRAPS = 1e-6
"""A decimal that wrapped around is off by at least two thirds; a double is exact to 1e-15."""


def exact_cast(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Cast every value, or none.

    A cast to a floating-point type is itself the permission to round to its nearest value.

    Args:
        array: Values of any type that Arrow casts to ``target``.
        target: The type wanted.

    Returns:
        An array of ``target``, as long, with the same NULLs.

    Raises:
        ArrowInvalid: Some value has no faithful form in ``target``. Arrow's message may quote it,
            so raise another one ``from None``.
    """
    if array.type == target:
        return array
    source = array
    pair = kind(target), kind(array.type)
    if pair == ("decimal", "integer"):
        # Arrow requires room for the type's widest value, whatever the values are.
        source = array.cast(pa.decimal128(20, 0))
    found = source.cast(target)
    if _is_lost(array, found):
        raise pa.ArrowInvalid(f"a value of {array.type} has no faithful form as {target}")
    return found


def _is_lost(before: pa.Array, after: pa.Array) -> bool:
    if pa.types.is_list(after.type):
        return _is_lost(before.flatten(), after.flatten())
    pair = to, of = kind(after.type), kind(before.type)
    if pair in _CAST_BACK:
        # None, not True, where there is no value.
        return pc.all(pc.equal(after.cast(before.type), before)).as_py() is False
    if to == "decimal":
        return _is_another_number(before, after)
    if to == "float" and of != "integer":
        return _is_overflown(before, after)
    if of == "string" and to == "integer":
        return bool(pc.any(pc.starts_with(before, "0x", ignore_case=True)).as_py())
    if of == "string":
        return out_of_range(after)
    return False


def _is_another_number(before: pa.Array, after: pa.Array) -> bool:
    if kind(before.type) == "string":
        raised = pc.or_(*(pc.greater_equal(pc.find_substring(before, e), 0) for e in "eE"))
        # Arrow turns an exponent far below the scale into 0 or something near it.
        texts, values = before.filter(raised).to_pylist(), after.filter(raised).to_pylist()
        if any(Decimal(t) != v for t, v in zip(texts, values, strict=True)):
            return True
        plain = pc.invert(raised)
        before, after = before.filter(plain), after.filter(plain)
    meant = before.cast(pa.float64(), safe=False)
    off = pc.abs(pc.subtract(after.cast(pa.float64()), meant))
    return bool(pc.any(pc.greater(off, pc.multiply(pc.abs(meant), _WRAPS))).as_py())


def _is_overflown(before: pa.Array, after: pa.Array) -> bool:
    odd = pc.invert(pc.is_finite(after))
    if not pc.any(odd).as_py():
        return False
    found = before.filter(odd)
    if kind(before.type) == "string":
        return not pc.all(pc.match_substring_regex(found, _NOT_FINITE)).as_py()
    return kind(before.type) != "float" or bool(pc.any(pc.is_finite(found)).as_py())
