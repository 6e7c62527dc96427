"""Casts between Arrow types that lose nothing in silence.

Arrow's own safe casts refuse overflow, digits cut off and text that is no value, but let other
losses pass: the time of day of a timestamp cast to a date, the fraction of a double cast to a
decimal, any number but 0 cast to a boolean. Those are found here by casting back. A cast to a
floating-point type is itself the permission to round to its nearest value; only a finite value
that would become infinite is refused. Naive timestamps are taken for UTC when cast to
``timestamptz``, and UTC is what ``timestamptz`` becomes when cast to ``timestamp``.

`keep` is stricter than `cast`: nobody asked for it by name. What it makes of a value must give the
very value back.
"""

from __future__ import annotations

import re
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import TypeNotRepresentable

_TYPES = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "binary": pa.binary(),
}
TYPE_NAMES = (*_TYPES, "decimal(p,s)")
"""What ``columns.cast`` takes."""

_FROM = {
    "string": {
        "string", "boolean", "integer", "float", "decimal", "date", "timestamp", "timestamptz",
        "binary",
    },
    "boolean": {"string", "boolean", "integer"},
    "integer": {"string", "boolean", "integer", "float", "decimal"},
    "float": {"string", "integer", "float", "decimal"},
    "decimal": {"string", "integer", "float", "decimal"},
    "date": {"string", "date", "timestamp", "timestamptz"},
    "timestamp": {"string", "date", "timestamp", "timestamptz"},
    "timestamptz": {"string", "date", "timestamp", "timestamptz"},
    "binary": {"string", "binary"},
}  # fmt: skip
_CHECKED = {
    ("boolean", "integer"),
    ("date", "timestamp"),
    ("date", "timestamptz"),
    ("decimal", "float"),
}
"""(target, source) kinds that Arrow casts with a silent loss."""
_KEPT = {
    "integer": {"integer", "decimal", "float"},
    "decimal": {"integer", "decimal"},
    "float": {"integer", "float"},
    "date": {"timestamp"},
    "timestamp": {"date"},
    "string": {"integer", "decimal", "boolean", "date"},
}
"""Kinds that `keep` takes, by kind of the target. Not text to numbers, whose spelling would be
lost; not timestamps with a zone to ones without, which say another thing."""
_SIMPLE = {
    **{str(data_type): data_type for data_type in _TYPES.values()},
    **{str(t): t for t in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.null())},
    "large_string": pa.large_string(),
    "large_binary": pa.large_binary(),
    "time64[us]": pa.time64("us"),
}


def kind(data_type: pa.DataType) -> str:
    """Return the kind of a type: a key of the cast table, or the type's own text for others."""
    types = pa.types
    tests = {
        "string": types.is_string(data_type)
        or types.is_large_string(data_type)
        or types.is_string_view(data_type),
        "boolean": types.is_boolean(data_type),
        "integer": types.is_integer(data_type),
        "float": types.is_floating(data_type),
        "decimal": types.is_decimal(data_type),
        "date": types.is_date(data_type),
        "timestamptz": types.is_timestamp(data_type) and data_type.tz is not None,
        "timestamp": types.is_timestamp(data_type),
        "binary": types.is_binary(data_type) or types.is_large_binary(data_type),
    }
    return next((name for name, holds in tests.items() if holds), str(data_type))


def parse_type(name: str) -> pa.DataType | None:
    """Return the Arrow type that a cast names, None where there is no such type."""
    match = re.fullmatch(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)", name)
    if match:
        precision, scale = int(match[1]), int(match[2])
        fits = 1 <= precision <= 38 and scale <= precision
        return pa.decimal128(precision, scale) if fits else None
    return _TYPES.get(name)


def stored_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type that files hold for a source's: timestamps in microseconds, zones as UTC."""
    if pa.types.is_timestamp(data_type):
        return pa.timestamp("us", "UTC" if data_type.tz else None)
    return data_type


def can_cast(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether some values of ``source`` have a faithful form in ``target``."""
    return source == target or kind(source) in _FROM.get(kind(target), ())


def can_keep(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether `keep` may bring values of ``source`` to ``target``, if they fit."""
    return source == target or kind(source) in _KEPT.get(kind(target), ())


def is_wider(data_type: pa.DataType, than: pa.DataType) -> bool:
    """Whether a type holds every value of another, as the same kind of thing."""
    pair = kind(data_type), kind(than)
    if pair == ("timestamp", "date"):
        return True
    if pair == ("float", "float"):
        return bool(data_type.bit_width > than.bit_width)
    if pair == ("float", "integer"):
        # Every integer below 2^53, or 2^24, has a floating-point number of its own.
        return bool(than.bit_width < (53 if data_type.bit_width == 64 else 24))
    if pair == ("integer", "integer"):
        signed = pa.types.is_signed_integer(data_type) or pa.types.is_unsigned_integer(than)
        return bool(signed and data_type.bit_width > than.bit_width)
    if pair == ("decimal", "integer"):
        return bool(data_type.precision - data_type.scale >= _digits(than))
    if pair == ("integer", "decimal"):
        return bool(than.scale <= 0 and _digits(data_type) > than.precision - than.scale)
    if pair == ("decimal", "decimal"):
        whole = data_type.precision - data_type.scale >= than.precision - than.scale
        return bool(whole and data_type.scale >= than.scale and data_type != than)
    return False


def _digits(integer: pa.DataType) -> int:
    """Return the digits of an integer type's greatest value."""
    bits = integer.bit_width - pa.types.is_signed_integer(integer)
    return len(str(2**bits - 1))


def printed_type(text: str) -> pa.DataType | None:
    """Return the type that pyarrow prints like this, None where that cannot be told.

    Commits keep types as text. Lists and decimals are understood, structs and maps are not.
    """
    if found := _SIMPLE.get(text):
        return found
    if match := re.fullmatch(r"decimal(128|256)\((\d+), (-?\d+)\)", text):
        make = pa.decimal128 if match[1] == "128" else pa.decimal256
        return make(int(match[2]), int(match[3]))
    if match := re.fullmatch(r"(large_)?list<(\w+): (.+?)( not null)?>", text):
        below = printed_type(match[3])
        if below is None:
            return None
        item = pa.field(match[2], below, nullable=not match[4])
        return pa.large_list(item) if match[1] else pa.list_(item)
    return None


def cast(array: pa.Array, target: pa.DataType, column: str) -> pa.Array:
    """Cast every value, or none.

    Args:
        array: Values of a type that `can_cast` to ``target``.
        target: The type wanted.
        column: Its name, for the message.

    Returns:
        An array of ``target``, as long, with the same NULLs.

    Raises:
        TypeNotRepresentable: Some value has no faithful form in ``target``. The message names
            column and types, never the value.
    """
    return _cast(
        array,
        target,
        f"column {column!r}: a value of type {array.type} cannot be cast to {target} without loss; "
        "mend columns.cast, or leave the column as it is",
    )


def keep(array: pa.Array, target: pa.DataType, column: str) -> pa.Array:
    """Bring every value to the type that older files have, or none.

    Args:
        array: Values of a type that `can_keep` at ``target``.
        target: The older files' type.
        column: Its name, for the message.

    Returns:
        An array of ``target``, as long, with the same NULLs, which cast back is ``array`` again.

    Raises:
        TypeNotRepresentable: Some value does not fit. The message never holds it.
    """
    text = (
        f"column {column!r} is {array.type} now and {target} in the files that are there, and a "
        "value does not fit. Replace the table with mode full, write_mode overwrite and "
        "on_schema_change: evolve, or start over with another state_uri and target"
    )
    kept = _cast(array, target, text)
    if kept is not array and kind(target) != "string":
        try:
            same = pc.equal(_arrow_cast(kept, array.type), array)
        except pa.ArrowInvalid:
            raise TypeNotRepresentable(text) from None
        if kind(array.type) == "float":
            same = pc.or_(same, pc.is_nan(array))
        if pc.all(same).as_py() is False:
            raise TypeNotRepresentable(text)
    return kept


def _cast(array: pa.Array, target: pa.DataType, refused: str) -> pa.Array:
    if array.type == target:
        return array
    refusal = TypeNotRepresentable(refused)
    try:
        result = _arrow_cast(array, target)
        lost = _loses(array, result)
    except pa.ArrowInvalid:
        # Arrow's message quotes the value, and a traceback would print it.
        raise refusal from None
    if lost:
        raise refusal
    return result


def _arrow_cast(array: pa.Array, target: pa.DataType) -> pa.Array:
    if kind(target) == "decimal" and kind(array.type) == "integer":
        # Arrow asks for room for the type's widest value, whatever the values are.
        array = array.cast(pa.decimal128(20, 0))
    return array.cast(target)


def _loses(before: pa.Array, after: pa.Array) -> bool:
    pair = kind(after.type), kind(before.type)
    if pair in _CHECKED:
        # None, not True, where there is no value.
        return pc.all(pc.equal(after.cast(before.type), before)).as_py() is False
    if pair == ("decimal", "string"):
        # Of an exponent far below the scale Arrow makes 0, and refuses a smaller one.
        written = pc.match_substring_regex(before, "[eE]")
        texts, values = before.filter(written).to_pylist(), after.filter(written).to_pylist()
        return any(Decimal(t) != v for t, v in zip(texts, values, strict=True))
    if pair[0] == "float" and pair[1] != "integer":
        infinite = pc.is_inf(after)
        if not pc.any(infinite).as_py():
            return False
        found = before.filter(infinite)
        if pair[1] == "string":
            return not pc.all(pc.match_substring(found, "inf", ignore_case=True)).as_py()
        return pair[1] != "float" or not pc.all(pc.is_inf(found)).as_py()
    return False
