"""Arrow types by name, as ``columns.cast`` spells them and as pyarrow prints them, and by kind."""

from __future__ import annotations

import re

import pyarrow as pa

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
JSON = "json"
"""What ``columns.cast`` calls the text of lists, maps and structs."""
TYPE_NAMES = (*_TYPES, "decimal(p,s)", JSON)
"""What ``columns.cast`` takes."""

_SIMPLE = {
    **{str(data_type): data_type for data_type in _TYPES.values()},
    **{str(t): t for t in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.null())},
    "large_string": pa.large_string(),
    "large_binary": pa.large_binary(),
    "time64[us]": pa.time64("us"),
}


def kind(data_type: pa.DataType) -> str:
    """Return the kind of a type: a key of the cast table, or else the type's text."""
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
        "binary": types.is_binary(data_type)
        or types.is_large_binary(data_type)
        or types.is_binary_view(data_type),
    }
    return next((name for name, holds in tests.items() if holds), str(data_type))


def parse_type(name: str) -> pa.DataType | None:
    """Return the Arrow type that a cast names; None if there is no such type."""
    match = re.fullmatch(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)", name)
    if match:
        precision, scale = int(match[1]), int(match[2])
        fits = 1 <= precision <= 38 and scale <= precision
        return pa.decimal128(precision, scale) if fits else None
    return _TYPES.get(name)


def stored_type(data_type: pa.DataType) -> pa.DataType:
    """Return the file type for a source's type: timestamps in microseconds, zones as UTC."""
    if pa.types.is_timestamp(data_type):
        return pa.timestamp("us", "UTC" if data_type.tz else None)
    return data_type


_IN_ICEBERG = {
    pa.int8(): pa.int32(),
    pa.int16(): pa.int32(),
    pa.uint8(): pa.int32(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.large_string(): pa.string(),
    pa.large_binary(): pa.binary(),
}


def iceberg_type(data_type: pa.DataType) -> pa.DataType:
    """Return the file type in an Iceberg table, whose integers are signed, of 32 or 64 bits.

    Most readers take a narrower one too, but Spark fails on it once the column is widened to 64.
    """
    return _IN_ICEBERG.get(data_type, data_type)


def iceberg_promotes(older: pa.DataType, newer: pa.DataType) -> bool:
    """Return whether a column of an Iceberg table may go from one type to another.

    Files with the older type stay and are read as the newer one.
    Source: https://iceberg.apache.org/spec/#schema-evolution
    """
    types = pa.types
    if types.is_signed_integer(older) and types.is_signed_integer(newer):
        return bool(newer.bit_width > older.bit_width)
    if types.is_decimal(older) and types.is_decimal(newer):
        return bool(newer.precision > older.precision and newer.scale == older.scale)
    return (older, newer) == (pa.float32(), pa.float64())


def printed_type(text: str) -> pa.DataType | None:
    """Return the type that pyarrow prints this way; None if it is unknown.

    Commits keep types as text.
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
    if text.startswith("struct<") and text.endswith(">"):
        pairs = [part.partition(": ")[::2] for part in _parts(text[len("struct<") : -1])]
        inner = [(name, printed_type(one)) for name, one in pairs]
        return pa.struct(inner) if inner and all(one is not None for _, one in inner) else None
    if text.startswith("map<") and text.endswith(">"):
        # As Parquet has it, the field of the pairs is named behind them.
        inside = re.sub(r" \('[^']*'\)$", "", text[len("map<") : -1])
        both = [printed_type(part) for part in _parts(inside)]
        return pa.map_(*both) if len(both) == 2 and None not in both else None
    return None


def _parts(text: str) -> list[str]:
    """Return what commas separate, but not inside of brackets."""
    found, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter in "<([") - (letter in ">)]")
        if letter == "," and not depth:
            found.append(text[start:position])
            start = position + 2
    return [*found, text[start:]]
