"""Judges one value of a Parquet file against what the database's own client prints of it.

The judge knows families of types, not tools: what a decimal, an instant or an array has to keep.
A value is *equal* if it is the printed one in the family's own Arrow type, *equal by another type*
if everything that was printed can be told from it (a number in text, an instant without its zone
but in UTC, a range in a struct), and *wrong in silence* otherwise, a NULL for a value included.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import math
import re
import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, NamedTuple

import pyarrow as pa


class Verdict(StrEnum):
    """What became of a value, the best first."""

    EQUAL = "equal"
    OTHER = "other type"
    REFUSED = "refused"
    CRASHED = "crashed"
    WRONG = "wrong"

    @property
    def rank(self) -> int:
        """0 is the best."""
        return list(Verdict).index(self)


class Stored(NamedTuple):
    """A date or time that Python has no form for, such as one in the year 294247.

    Attributes:
        number: Days or microseconds since 1970; None if the value has no such number.
        text: What it is, for a person.
    """

    number: int | None
    text: str


Printed = str | bytes | None

_DAY = 86_400_000_000
"""Microseconds. A time of Arrow is less, but a file may hold PostgreSQL's 24:00, and keep it."""


def judge(
    printed: Printed, family: str, value: Any, kind: pa.DataType, wire: bytes | None = None
) -> Verdict:
    """Compare a value with what the client prints.

    Args:
        printed: The client's text; bytes for a binary column that the client prints raw; None for
            NULL.
        family: A key of `FAMILIES`, or ``list:`` and one, for an array of it.
        value: The value as `values_of` gives it.
        kind: The Arrow type of its column.
        wire: The value as the server sends it in its binary protocol: bytes that are the same
            keep everything.
    """
    if printed is None or value is None:
        return Verdict.EQUAL if printed is value else Verdict.WRONG
    if family.startswith("list:"):
        return _judge_list(printed, family.removeprefix("list:"), value, kind, wire)
    natural, same = FAMILIES[family]
    try:
        exact = same(printed, value)
    except (ValueError, TypeError, AttributeError, InvalidOperation, OverflowError):
        exact = None
    if exact is None:
        return Verdict.OTHER if _is_wire(value, wire) else Verdict.WRONG
    return Verdict.EQUAL if exact and natural(kind) else Verdict.OTHER


def _is_wire(value: Any, wire: bytes | None) -> bool:
    found = value.encode() if isinstance(value, str) else value
    return wire is not None and found == wire


def values_of(column: pa.ChunkedArray) -> Iterator[Any]:
    """Return a column's values as Python's, times in microseconds."""
    for chunk in column.chunks:
        for item in chunk:
            yield _python_value(item)


def _python_value(item: Any) -> Any:
    kind = item.type
    try:
        if isinstance(kind, pa.BaseExtensionType):
            return _python_value(item.value) if item.is_valid else None
        if item.is_valid and (pa.types.is_timestamp(kind) or pa.types.is_time(kind)):
            return _in_microseconds(item, kind)
        if item.is_valid and pa.types.is_list(kind) and pa.types.is_time(kind.value_type):
            return [_python_value(one) for one in item.values]
        return item.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        number = getattr(item, "value", None)
        if not isinstance(number, int):
            return Stored(None, f"{kind} out of Python's range")
        factors = {"s": (10**6, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}
        times, by = factors[kind.unit] if pa.types.is_timestamp(kind) else (1, 1)
        return Stored(number * times // by, f"{kind}: {number}")


def _in_microseconds(item: Any, kind: pa.DataType) -> Any:
    if pa.types.is_timestamp(kind):
        value = item.cast(pa.timestamp("us", kind.tz)).as_py()
        return value.astimezone(UTC) if value.tzinfo else value
    clock = item.cast(pa.time64("us"))
    if clock.value >= _DAY:  # 24:00, which Python shows as 0:00
        return Stored(clock.value, f"{kind}: {clock.value}")
    return clock.as_py()


# Comparisons. Each returns True for the same value in its own form, False for the same value in
# another, None for another value; errors of parsing mean another value.


def _bool(printed: Printed, value: Any) -> bool | None:
    truths = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
    found = value.lower() if isinstance(value, str) else str(int(value))
    return isinstance(value, bool) if truths[_text(printed)] == truths[found] else None


def _int(printed: Printed, value: Any) -> bool | None:
    if isinstance(value, float) and not value.is_integer():
        return None
    return not isinstance(value, bool) if int(value) == int(_text(printed)) else None


def _bits(printed: Printed, value: Any) -> bool | None:
    if isinstance(value, bytes):
        value = int.from_bytes(value, "big")
    return int(value) == int(_text(printed)) or None


def _float(code: str) -> Callable[[Printed, Any], bool | None]:
    def same(printed: Printed, value: Any) -> bool | None:
        meant, found = float(_text(printed)), float(value)
        if math.isnan(meant) or math.isnan(found):
            return True if math.isnan(meant) and math.isnan(found) else None
        return struct.pack(code, meant) == struct.pack(code, found) or None

    return same


def _fixed(printed: Printed, value: Any) -> bool | None:
    """Compare a float that the server shows with three digits after the point, or fewer."""
    return f"{float(value):.3f}" == f"{float(_text(printed)):.3f}" or None


def _decimal(printed: Printed, value: Any) -> bool | None:
    meant = Decimal(_text(printed))
    found = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if meant.is_nan() or found.is_nan():
        return True if meant.is_nan() and found.is_nan() else None
    return True if meant == found else None


def _string(printed: Printed, value: Any) -> bool | None:
    if isinstance(value, bytes):
        return False if value == _bytes_of(printed) else None
    return True if value == _text(printed) else None


def _set(printed: Printed, value: Any) -> bool | None:
    """Compare labels, which a tool may give as a list, in JSON or in Arrow, in any order."""
    text = _text(printed)
    if value == text:
        return True
    labels = json.loads(value) if isinstance(value, str) else value
    return False if sorted(labels) == sorted(filter(None, text.split(","))) else None


def _padded(printed: Printed, value: Any) -> bool | None:
    if value == _text(printed):
        return True
    return False if value.rstrip(" ") == _text(printed).rstrip(" ") else None


def _bytes(printed: Printed, value: Any) -> bool | None:
    meant = _bytes_of(printed)
    if isinstance(value, bytes):
        return value == meant or None
    hexadecimal = value.removeprefix("\\x").removeprefix("0x")
    for decode in (bytes.fromhex, lambda text: base64.b64decode(text, validate=True)):
        try:
            if decode(hexadecimal) == meant:
                return False
        except (ValueError, binascii.Error):
            continue
    return False if value.encode() == meant else None


def _days(text: str) -> int:
    """Return the days since 1970 of a date of any year, as PostgreSQL prints it."""
    year, month, day = (int(part) for part in text.removesuffix(" BC").rsplit("-", 2))
    year = 1 - year if text.endswith(" BC") else year
    shifted = year % 400 + 400  # the calendar repeats every 400 years
    return (date(shifted, month, day) - date(1970, 1, 1)).days + (year - shifted) // 400 * 146_097


def _stored_moment(text: str) -> int:
    """Return the microseconds since 1970 of a time of any year, in UTC if it says nothing else."""
    day, _, clock = text.removesuffix(" BC").removesuffix("+00").partition(" ")
    era = " BC" if text.endswith(" BC") else ""
    return _days(day + era) * 86_400_000_000 + _microseconds(clock)


def _date(printed: Printed, value: Any) -> bool | None:
    text = _text(printed)
    if isinstance(value, Stored):
        return True if value.number == _days(text) else None
    if isinstance(value, str):
        midnight = re.escape(text) + r"[T ]00:00:00(\.0+)?(Z|\+00:?0?0?)?"
        return False if value == text or re.fullmatch(midnight, value) else None
    if isinstance(value, datetime):
        naive = value.replace(tzinfo=None)
        midnight = naive.time() == time()
        return False if midnight and naive.date().isoformat() == text else None
    return True if isinstance(value, date) and value.isoformat() == text else None


def _timestamp(printed: Printed, value: Any) -> bool | None:
    text = _text(printed)
    if value == text:
        return False
    if isinstance(value, Stored):
        return True if value.number == _stored_moment(text) else None
    meant = datetime.fromisoformat(text)
    found = _moment(value)
    if found.replace(tzinfo=None) != meant:
        return None
    return found.tzinfo is None


def _instant(printed: Printed, value: Any) -> bool | None:
    text = _text(printed)
    if value == text:
        return False
    if isinstance(value, Stored):
        return True if value.number == _stored_moment(text) else None
    meant = datetime.fromisoformat(text)
    if meant.tzinfo is None:  # MySQL's client, whose session is in UTC
        meant = meant.replace(tzinfo=UTC)
    found = _moment(value)
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found.tzinfo is not None if aware == meant else None


def _moment(value: Any) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _time(printed: Printed, value: Any) -> bool | None:
    if isinstance(value, Stored):
        return False if value.number == _microseconds(printed) else None
    return not isinstance(value, str) if _microseconds(value) == _microseconds(printed) else None


def _microseconds(value: Any) -> int:
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if isinstance(value, time):
        value = value.isoformat()
    found = re.fullmatch(r"(-?)(\d+):(\d\d)(?::(\d\d)(?:\.(\d{1,6})0*)?)?", _text(value))
    if not found:
        raise ValueError(value)
    sign, hours, minutes, seconds, fraction = found.groups()
    whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds or 0)
    return (-1 if sign else 1) * (whole * 10**6 + int((fraction or "").ljust(6, "0")))


def _interval(printed: Printed, value: Any) -> bool | None:
    text = _text(printed)
    if isinstance(value, str):
        return True if value == text else None
    units = {"year": 12, "mon": 1}
    months = sum(int(n) * units[u] for n, u in re.findall(r"([-+]?\d+) (year|mon)s?", text))
    days = sum(int(n) for n in re.findall(r"([-+]?\d+) days?", text))
    clock = re.search(r"[-+]?\d+:\d\d:\d\d(?:\.\d+)?$", text)
    if not (months or days or clock):
        return None
    if isinstance(value, bytes):  # Parquet's INTERVAL, which Arrow reads as its bytes
        length, whole, milliseconds = struct.unpack("<III", value)
        value = (length, whole, milliseconds * 10**6)
    nanoseconds = 1000 * _microseconds(clock[0].removeprefix("+")) if clock else 0
    if isinstance(value, timedelta):
        meant = timedelta(days=days, microseconds=nanoseconds // 1000)
        return False if not months and value == meant else None
    return True if tuple(value) == (months, days, nanoseconds) else None


def _json(printed: Printed, value: Any) -> bool | None:
    text = _text(printed)
    if value == text:
        return True
    if isinstance(value, bytes):
        value = value.decode()
    found = json.loads(value, **_EXACT_JSON) if isinstance(value, str) else _in_pairs(value)
    meant = json.loads(text, **_EXACT_JSON)
    return False if found == meant else None


def _in_pairs(value: Any) -> Any:
    if isinstance(value, dict):
        return [(name, _in_pairs(item)) for name, item in value.items()]
    if isinstance(value, list):
        return [_in_pairs(item) for item in value]
    return Decimal(repr(value)) if isinstance(value, float) else value


_EXACT_JSON: dict[str, Any] = {"parse_float": Decimal, "object_pairs_hook": lambda pairs: pairs}


def _uuid(printed: Printed, value: Any) -> bool | None:
    found = uuid.UUID(bytes=value) if isinstance(value, bytes) else uuid.UUID(str(value))
    return True if str(found) == _text(printed) else None


def _own_text(printed: Printed, value: Any) -> bool | None:
    """Compare what has no type in Arrow: the client's text, or a structure of the same parts."""
    text = _text(printed)
    if isinstance(value, bytes) and re.fullmatch("[01]+", text):  # bits, filled up with zeros
        bits = "".join(f"{byte:08b}" for byte in value)
        return False if bits.startswith(text) and "1" not in bits[len(text) :] else None
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        return False if _parts(value) == list(_tokens(text)) else None
    if value == text:
        return True
    if value.replace(" ", "") == text.replace(" ", ""):
        return False
    if value.startswith("{") and _is_json(value):
        return False if _parts(json.loads(value)) == list(_tokens(text)) else None
    return False if ipaddress.ip_interface(value) == ipaddress.ip_interface(text) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _tokens(text: str) -> Iterator[Any]:
    for token in re.findall(r"[^\s,(){}\[\]<>\"]+", text):
        if token != "NULL":
            yield _number(token)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict) and value.get("empty") is True:  # a range
        return ["empty"]
    if isinstance(value, bool):  # that a range is not empty
        return []
    if isinstance(value, dict):
        return [part for item in value.values() for part in _parts(item)]
    if isinstance(value, list | tuple):
        return [part for item in value for part in _parts(item)]
    if value is None:
        return []
    return list(_tokens(str(value)))


def _number(token: str) -> Any:
    try:
        return Decimal(token)
    except InvalidOperation:
        return token


def _money(printed: Printed, value: Any) -> bool | None:
    text = _text(printed)
    if value == text:
        return True
    meant = Decimal(text.replace("$", "").replace(",", ""))
    if isinstance(value, str):
        value = value.replace("$", "").replace(",", "")
    cents = isinstance(value, int) and Decimal(value) == meant * 100
    return False if cents or _decimal(str(meant), value) else None


def _any(printed: Printed, value: Any) -> bool | None:
    """Compare a value of a column that may hold any type: its text, or its number."""
    if isinstance(value, str) and value == printed:
        return True
    if isinstance(value, bytes):
        if value == _bytes_of(printed):
            return False
        value = value.decode()
    if isinstance(value, datetime):
        return False if _moment(_text(printed)) == value else None
    if isinstance(value, str):
        return False if Decimal(value) == Decimal(_text(printed)) else None
    return False if _decimal(printed, value) else None


def _judge_list(
    printed: Printed, family: str, value: Any, kind: pa.DataType, wire: bytes | None
) -> Verdict:
    text = _text(printed)
    if isinstance(value, str):
        if value == text:
            return Verdict.OTHER
        if not _is_json(value):
            return Verdict.WRONG
        value, kind = json.loads(value), pa.list_(pa.null())
    if not isinstance(value, list):
        return Verdict.WRONG
    if "=" in text.partition("{")[0]:  # bounds that a list cannot have
        return Verdict.WRONG
    try:
        items = array_items(text)
        sent = None if wire is None else wire_items(wire)
        return _items_verdict(items, family, value, kind, sent)
    except ValueError:
        return Verdict.WRONG


def _items_verdict(
    meant: list[Any],
    family: str,
    found: Any,
    kind: pa.DataType,
    sent: Sequence[bytes | None] | None,
) -> Verdict:
    if not isinstance(found, list) or len(meant) != len(found):
        return Verdict.WRONG
    inner = getattr(kind, "value_type", pa.null())
    wires = sent if sent is not None and len(sent) == len(meant) else [None] * len(meant)
    verdicts = [
        _items_verdict(one, family, other, inner, None)
        if isinstance(one, list)
        else judge(one, family, other, inner, wire)
        for one, other, wire in zip(meant, found, wires, strict=True)
    ]
    return max(verdicts, key=lambda verdict: verdict.rank, default=Verdict.EQUAL)


def wire_items(wire: bytes) -> list[bytes | None]:
    """Return the items of an array as PostgreSQL sends it, all dimensions in one list."""
    dimensions = int.from_bytes(wire[:4], "big")
    at, items = 12 + 8 * dimensions, []
    while at < len(wire):
        length = int.from_bytes(wire[at : at + 4], "big", signed=True)
        at += 4 + max(length, 0)
        items.append(None if length < 0 else wire[at - length : at])
    return items


def array_items(text: str) -> list[Any]:
    """Parse an array as PostgreSQL prints it, of any number of dimensions."""
    tokens = re.findall(r'[{},]|"(?:[^"\\]|\\.)*"|[^{},"]+', text, re.DOTALL)
    stack: list[list[Any]] = [[]]
    for token in tokens:
        if token == "{":
            stack.append([])
        elif token == "}":
            done = stack.pop()
            stack[-1].append(done)
        elif token != ",":
            plain = re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
            stack[-1].append(plain if token.startswith('"') else None if token == "NULL" else token)
    if len(stack) != 1 or len(stack[0]) != 1 or not isinstance(stack[0][0], list):
        raise ValueError(f"no array: {text}")
    return stack[0][0]


def _text(printed: Any) -> str:
    return printed.decode() if isinstance(printed, bytes) else printed


def _bytes_of(printed: Printed) -> bytes:
    if isinstance(printed, bytes):
        return printed
    assert printed is not None
    return bytes.fromhex(printed[2:]) if printed.startswith("\\x") else printed.encode()


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or isinstance(kind, pa.BaseExtensionType)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _is_uuid(kind: pa.DataType) -> bool:
    return _is_text(kind) or pa.types.is_fixed_size_binary(kind)


def _is_timestamp(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is None


def _is_instant(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is not None


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_time(kind) or pa.types.is_duration(kind)


def _is_interval(kind: pa.DataType) -> bool:
    return pa.types.is_interval(kind) or _is_text(kind)


def _is_bits(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_bytes(kind)


FAMILIES: dict[str, tuple[Callable[[pa.DataType], bool], Callable[[Printed, Any], bool | None]]] = {
    "bool": (pa.types.is_boolean, _bool),
    "int": (pa.types.is_integer, _int),
    "bits": (_is_bits, _bits),
    "float4": (pa.types.is_float32, _float("<f")),
    "float8": (pa.types.is_float64, _float("<d")),
    "fixed": (pa.types.is_floating, _fixed),
    "decimal": (pa.types.is_decimal, _decimal),
    "text": (_is_text, _string),
    "set": (_is_text, _set),
    "padded": (_is_text, _padded),
    "bytes": (_is_bytes, _bytes),
    "date": (pa.types.is_date, _date),
    "timestamp": (_is_timestamp, _timestamp),
    "instant": (_is_instant, _instant),
    "time": (_is_time, _time),
    "interval": (_is_interval, _interval),
    "json": (_is_text, _json),
    "uuid": (_is_uuid, _uuid),
    "money": (lambda kind: pa.types.is_decimal(kind) or _is_text(kind), _money),
    "own text": (_is_text, _own_text),
    "any": (_is_text, _any),
}
"""By family: which Arrow types are its own, and how a value is compared with its text."""
