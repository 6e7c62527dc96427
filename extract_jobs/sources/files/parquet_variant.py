"""VARIANT of Parquet as JSON: encoded values, and values that are shredded into typed columns.

Both are as in https://github.com/apache/parquet-format, VariantEncoding.md and VariantShredding.md.
A value has one text, however much of it is shredded: fields are sorted by name, decimals are
numbers with all their digits, dates, times, UUIDs and floats that are not finite are text, and
binary is base64.
"""

from __future__ import annotations

import base64
import json
import math
import struct
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from extract_jobs.transform.nested import rows_of

_DEEPEST = 200
"""Levels of lists and objects; Python's own stack ends at a multiple of that."""
_LONGEST_NAMES = 2**28
"""Bytes of all field names of one value, which repeat what the file says once."""
_DAMAGED = (
    AttributeError, IndexError, KeyError, TypeError, UnicodeError, ValueError, struct.error,
)  # fmt: skip
"""What reading a value that is not encoded as the format demands raises."""


class DamagedVariantError(Exception):
    """A value is not encoded as the format demands."""


def variant_texts(values: pa.Array) -> pa.Array:
    """Return a VARIANT column as JSON without blanks. NULL stays NULL; a null inside is ``null``.

    Args:
        values: Structs of ``metadata``, ``value`` and, if shredded, ``typed_value``.

    Raises:
        DamagedVariantError: A value is not valid.
        OverflowError: A date or time lies outside years 1 to 9999.
    """
    try:
        found = [None if row is None else _text(row) for row in rows_of(values, _leaf)]
    except _DAMAGED as error:
        raise DamagedVariantError(type(error).__name__) from None
    return pa.array(found, pa.string())


def _text(row: Mapping[str, Any]) -> str:
    return _assembled(row, _names(row["metadata"])) or "null"


def _assembled(row: Mapping[str, Any], names: list[str]) -> str | None:
    """Return the JSON of ``value`` and ``typed_value``; None for a field that is not there."""
    encoded, typed = row.get("value"), row.get("typed_value")
    if typed is None:
        return None if encoded is None else _Decoder(names, encoded).text()
    if isinstance(typed, list):
        return _array([_assembled(item, names) or "null" for item in typed])
    if not isinstance(typed, dict):
        return _text_of(_base64(typed)) if isinstance(typed, bytes) else str(typed)
    given = {name: _assembled(field, names) for name, field in typed.items() if field is not None}
    fields = {name: text for name, text in given.items() if text is not None}
    rest = {} if encoded is None else _Decoder(names, encoded).fields()
    if fields.keys() & rest.keys():
        raise DamagedVariantError("a field appears twice")
    return _object(fields | rest)


def _names(metadata: bytes) -> list[str]:
    """Return the field names that values refer to by number."""
    if metadata[0] & 0xF != 1:
        raise DamagedVariantError("its version is not 1")
    width = (metadata[0] >> 6) + 1
    count = _unsigned(metadata, 1, width)
    start = 1 + width * (count + 2)
    if start > len(metadata):
        raise DamagedVariantError("cut short")
    ends = [_unsigned(metadata, 1 + width * (i + 1), width) for i in range(count + 1)]
    return [_piece(metadata, start + low, high - low).decode() for low, high in pairwise(ends)]


class _Decoder:
    """Reads one encoded value. Each of its bytes is read once: values may not share any."""

    def __init__(self, names: list[str], data: bytes) -> None:
        self._names, self._data = names, data
        self._left, self._names_left = len(data), _LONGEST_NAMES

    def text(self, at: int = 0, depth: int = 0) -> str:
        """Return the value at an offset as JSON."""
        basic, header = self._data[at] & 3, self._data[at] >> 2
        if basic == _OBJECT:
            return _object(self.fields(at, depth))
        if basic == _ARRAY:
            starts, _ = self._children(at, header & 3, bool(header & 4), 0, depth)
            return _array([self.text(start, depth + 1) for start in starts])
        if basic == _SHORT_STRING:
            return _text_of(self._taken(at + 1, header).decode())
        return self._primitive(at, header)

    def fields(self, at: int = 0, depth: int = 0) -> dict[str, str]:
        """Return the fields of the object at an offset, each as JSON."""
        basic, header = self._data[at] & 3, self._data[at] >> 2
        if basic != _OBJECT:
            raise DamagedVariantError("not an object")
        width = (header >> 2 & 3) + 1
        starts, ids = self._children(at, header & 3, bool(header & 16), width, depth)
        names = [self._names[number] for number in ids]
        self._names_left -= sum(map(len, names))
        if self._names_left < 0 or len(set(names)) < len(names):
            raise DamagedVariantError("its names are too long, or one appears twice")
        return {
            name: self.text(start, depth + 1) for name, start in zip(names, starts, strict=True)
        }

    def _children(
        self, at: int, offset_code: int, is_large: bool, id_width: int, depth: int
    ) -> tuple[list[int], list[int]]:
        """Return where the items of an object or array begin, and the ids of an object's fields."""
        if depth >= _DEEPEST:
            raise DamagedVariantError("nested too deeply")
        width, count_width = offset_code + 1, 4 if is_large else 1
        count = _unsigned(self._data, at + 1, count_width)
        first = at + 1 + count_width
        offsets = first + count * id_width
        self._taken(at, 1 + count_width + count * id_width + (count + 1) * width)
        ids = [_unsigned(self._data, first + i * id_width, id_width) for i in range(count)]
        start = offsets + (count + 1) * width
        starts = [start + _unsigned(self._data, offsets + i * width, width) for i in range(count)]
        return starts, ids if id_width else []

    def _taken(self, at: int, length: int) -> bytes:
        self._left -= length
        if self._left < 0:
            raise DamagedVariantError("values overlap")
        return _piece(self._data, at, length)

    def _primitive(self, at: int, code: int) -> str:
        if code in _WORDS:
            self._taken(at, 1)
            return _WORDS[code]
        if code in (_BINARY, _STRING):
            found = self._taken(at + 5, _unsigned(self._data, at + 1, 4))
            return _text_of(found.decode() if code == _STRING else _base64(found))
        size, printed = _PRIMITIVES[code]
        return printed(self._taken(at + 1, size))


_PRIMITIVE, _SHORT_STRING, _OBJECT, _ARRAY = range(4)
_WORDS = {0: "null", 1: "true", 2: "false"}
_BINARY, _STRING = 15, 16


def _unsigned(data: bytes, at: int, width: int) -> int:
    return int.from_bytes(_piece(data, at, width), "little")


def _piece(data: bytes, at: int, length: int) -> bytes:
    found = data[at : at + length]
    if at < 0 or length < 0 or len(found) < length:
        raise DamagedVariantError("cut short")
    return found


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _object(fields: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{_text_of(name)}:{fields[name]}" for name in sorted(fields)) + "}"


def _array(items: list[str]) -> str:
    return "[" + ",".join(items) + "]"


def _text_of(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _float(number: float) -> str:
    if math.isfinite(number):
        return json.dumps(number)
    return '"NaN"' if math.isnan(number) else '"Infinity"' if number > 0 else '"-Infinity"'


def _float32(number: float) -> str:
    """Return the shortest number that reads back as this one in 32 bits."""
    return _float(float(str(np.float32(number))))


def _decimal(unscaled: int, scale: int) -> str:
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    whole, fraction = digits[: len(digits) - scale], digits[len(digits) - scale :]
    return f"{'-' if unscaled < 0 else ''}{whole}{'.' if scale else ''}{fraction}"


def _encoded_decimal(data: bytes) -> str:
    if data[0] > 38:
        raise DamagedVariantError("its scale is above 38")
    return _decimal(_signed(data[1:]), data[0])


def _day(days: int) -> str:
    return f'"{date(1970, 1, 1) + timedelta(days)}"'


def _moment(units: int, *, zone: bool, nanoseconds: bool = False) -> str:
    whole, rest = divmod(units, 1000) if nanoseconds else (units, 0)
    found = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=whole)
    text = found.replace(tzinfo=None).isoformat(timespec="microseconds")
    return f'"{text}{f"{rest:03}" if nanoseconds else ""}{"Z" if zone else ""}"'


def _time(microseconds: int) -> str:
    if not 0 <= microseconds < 86_400_000_000:
        raise DamagedVariantError("a time is not within a day")
    return f'"{_moment(microseconds, zone=False)[-16:]}'


def _uuid(data: bytes) -> str:
    return f'"{uuid.UUID(bytes=data)}"'


def _whole(data: bytes) -> str:
    return str(_signed(data))


def _of_moment(*, zone: bool, nanoseconds: bool = False) -> Callable[[bytes], str]:
    return lambda data: _moment(_signed(data), zone=zone, nanoseconds=nanoseconds)


_PRIMITIVES: Mapping[int, tuple[int, Callable[[bytes], str]]] = {
    3: (1, _whole),
    4: (2, _whole),
    5: (4, _whole),
    6: (8, _whole),
    7: (8, lambda data: _float(struct.unpack("<d", data)[0])),
    8: (5, _encoded_decimal),
    9: (9, _encoded_decimal),
    10: (17, _encoded_decimal),
    11: (4, lambda data: _day(_signed(data))),
    12: (8, _of_moment(zone=True)),
    13: (8, _of_moment(zone=False)),
    14: (4, lambda data: _float32(struct.unpack("<f", data)[0])),
    17: (8, lambda data: _time(_signed(data))),
    18: (8, _of_moment(zone=True, nanoseconds=True)),
    19: (8, _of_moment(zone=False, nanoseconds=True)),
    20: (16, _uuid),
}
"""Bytes and JSON of each type that is neither null, boolean, string nor binary."""


def _leaf(values: pa.Array) -> list[Any]:
    """Return shredded values as JSON, and binary as its bytes, which may be encoded values."""
    kept, types = values.type, pa.types
    if isinstance(kept, pa.UuidType) or types.is_fixed_size_binary(kept):
        stored = values.storage if isinstance(kept, pa.UuidType) else values
        return _printed(stored, _uuid)
    if types.is_binary(kept) or types.is_large_binary(kept) or types.is_binary_view(kept):
        return list(values.to_pylist())
    if types.is_date(kept):
        return _printed(values.cast(pa.int32()), _day)
    if types.is_timestamp(kept):
        zone, fine = bool(kept.tz), kept.unit == "ns"
        units = values if fine else values.cast(pa.timestamp("us", kept.tz))
        return _printed(units.cast(pa.int64()), lambda n: _moment(n, zone=zone, nanoseconds=fine))
    if types.is_time(kept):
        return _printed(values.cast(pa.time64("us")).cast(pa.int64()), _time)
    if types.is_floating(kept):
        return _printed(values, _float if types.is_float64(kept) else _float32)
    if types.is_decimal(kept):
        return _printed(values, lambda number: format(number, "f"))
    if types.is_boolean(kept):
        return _printed(values, lambda flag: "true" if flag else "false")
    return _printed(values, str if types.is_integer(kept) else _text_of)


def _printed(values: pa.Array, printed: Callable[[Any], str]) -> list[str | None]:
    return [None if value is None else printed(value) for value in values.to_pylist()]
