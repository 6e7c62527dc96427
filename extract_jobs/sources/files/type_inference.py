"""Infers a column's type from its values, block by block and file by file.

A type profile only ever grows, and profiles may be combined in any order: the type depends neither
on the order of files nor on which of them an earlier run inspected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.sources.files.plain_texts import (
    PlainNumbers,
    not_just_text,
    plain_numbers,
    plain_times,
)
from extract_jobs.transform.exact_cast import exact_cast

INTEGER, WIDE, NUMBER, BOOLEAN = "integer", "wide", "number", "boolean"
DATE, TIMESTAMP, TIMESTAMPTZ = "date", "timestamp", "timestamptz"
TEXT, OBJECT, ARRAY = "text", "object", "array"

NUMBERS = frozenset({INTEGER, WIDE, NUMBER})
_DAY = r"(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-[0-9]{2}-[0-9]{2}"
_TIME = _DAY + r"[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
_PATTERNS = {
    INTEGER: r"^(?:0|-?[1-9][0-9]*)$",
    NUMBER: r"^-?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?$"
    r"|^-?(?:0|[1-9][0-9]*)[eE][+-]?[0-9]{1,3}$|^(?:-0|NaN|nan|-?inf|-?Infinity)$",
    DATE: rf"^{_DAY}$",
    TIMESTAMP: rf"^{_TIME}$",
    TIMESTAMPTZ: rf"^{_TIME}(?:Z|[+-][0-9]{{2}}(?::?[0-9]{{2}})?)$",
}
"""Kinds that no text shares; `_BOOLEANS` are one more."""
_BOOLEANS = pa.array(["true", "false", "True", "False", "TRUE", "FALSE"])
_TYPES = {
    BOOLEAN: pa.bool_(),
    DATE: pa.date32(),
    TIMESTAMP: pa.timestamp("us"),
    TIMESTAMPTZ: pa.timestamp("us", "UTC"),
}
_DOUBLE_DIGITS = 15
"""Decimal digits that always survive a double (IEEE 754)."""


@dataclass(frozen=True)
class TypeProfile:
    """What was seen so far in a column.

    Attributes:
        kinds: Kinds of its values; empty if all are NULL.
        whole: Maximum digits of an integer.
        digits: Maximum digits before the point of any other number.
        scale: Maximum digits after the point.
        exponents: Whether a number has an exponent, or is not a number (NaN).
        exact: Whether every number that is not an integer is what the nearest double prints.
        items: Profile of the elements of arrays; None without any.
    """

    kinds: frozenset[str] = frozenset()
    whole: int = 0
    digits: int = 0
    scale: int = 0
    exponents: bool = False
    exact: bool = True
    items: TypeProfile | None = None

    def __or__(self, other: TypeProfile) -> TypeProfile:
        """Return the profile of both."""
        if self == other:
            return self
        items = self.items or other.items
        if self.items and other.items:
            items = self.items | other.items
        return TypeProfile(
            self.kinds | other.kinds,
            max(self.whole, other.whole),
            max(self.digits, other.digits),
            max(self.scale, other.scale),
            self.exponents or other.exponents,
            self.exact and other.exact,
            items,
        )

    @property
    def is_settled(self) -> bool:
        """Whether no further value can change the type."""
        return TEXT in self.kinds or OBJECT in self.kinds

    def arrow_type(self) -> pa.DataType:
        """Return the narrowest type that faithfully holds every value."""
        if len(self.kinds) == 1 and self.kinds <= _TYPES.keys():
            return _TYPES[next(iter(self.kinds))]
        if self.kinds == {ARRAY}:
            items = self.items or TypeProfile()
            nested = items.kinds & {ARRAY, OBJECT}
            return pa.string() if nested else pa.list_(items.arrow_type())
        if self.kinds == {INTEGER}:
            return pa.int64()
        if self.kinds and self.kinds <= NUMBERS:
            return self._number_type()
        return pa.string()

    def _number_type(self) -> pa.DataType:
        if NUMBER in self.kinds and self.exact and self.whole <= _DOUBLE_DIGITS:
            return pa.float64()
        scale = self.scale if NUMBER in self.kinds else 0
        if self.exponents or max(self.whole, self.digits) + scale > 38:
            return pa.string()
        return pa.decimal128(38, scale)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        data = {**self.__dict__, "kinds": sorted(self.kinds)}
        return data | {"items": self.items and self.items.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TypeProfile:
        """Read what `to_json` wrote."""
        items = data["items"] and cls.from_json(data["items"])
        return cls(**{**data, "kinds": frozenset(data["kinds"]), "items": items})


def observe(values: pa.Array, known: TypeProfile) -> TypeProfile:
    """Return what is known about a column after more of its values.

    Args:
        values: Strings; NULLs are ignored.
        known: What was seen before; if that settles the type, values are not examined.
    """
    if known.is_settled or values.null_count == len(values):
        return known
    values = values.drop_null() if values.null_count else values
    plain = _plain(values)
    if plain is not None:
        return known | plain
    other = not_just_text(values)
    if pc.all(other).as_py():
        return by_patterns(values, known)
    values, text = values.filter(other), TypeProfile(frozenset({TEXT}))
    return text | (by_patterns(values, known) if len(values) else known)


def by_patterns(values: pa.Array, known: TypeProfile) -> TypeProfile:
    """Do the same as `observe` for values of any form, at least one and none of them NULL."""
    if known.kinds <= {INTEGER}:
        digits = _integers(values)
        if digits is not None:
            return known | TypeProfile(frozenset({INTEGER}), whole=digits)
    found = known
    # Kinds that a column had before are likely again.
    for kind in sorted(_EVIDENCE, key=lambda kind: kind not in known.kinds):
        fits = _fits(values, kind)
        if pc.all(fits).as_py():
            return found | _EVIDENCE[kind](values, kind)
        if pc.any(fits).as_py():
            found |= _EVIDENCE[kind](values.filter(fits), kind)
            values = values.filter(pc.invert(fits))
    return found | TypeProfile(frozenset({TEXT}))


def _fits(values: pa.Array, kind: str) -> pa.Array:
    if kind == BOOLEAN:
        return pc.is_in(values, _BOOLEANS)
    return pc.match_substring_regex(values, _PATTERNS[kind])


def of_plain_numbers(numbers: PlainNumbers) -> TypeProfile:
    """Return the profile of plain numbers."""
    has = {INTEGER: numbers.has_integers, NUMBER: numbers.has_fractions}
    kinds = frozenset(kind for kind, found in has.items() if found)
    return TypeProfile(kinds, numbers.whole, numbers.digits, numbers.scale)


def _plain(values: pa.Array) -> TypeProfile | None:
    """Return the profile of values that are all plain numbers, or all plain days or times."""
    numbers = plain_numbers(values)
    if numbers is not None:
        return of_plain_numbers(numbers)
    kind = plain_times(values)
    return _of_times(values, kind) if kind else None


def _integers(values: pa.Array) -> int | None:
    """Return the maximum digits, if every value is exactly the text of a 64-bit integer."""
    try:
        same = pc.equal(values.cast(pa.int64()).cast(values.type), values)
    except pa.ArrowInvalid:
        return None
    return _digits(values) if pc.all(same).as_py() else None


def _digits(values: pa.Array) -> int:
    return int(pc.max(pc.binary_length(pc.utf8_ltrim(values, "-"))).as_py())


def _of_integers(values: pa.Array, kind: str) -> TypeProfile:
    narrow = _integers(values) is not None
    return TypeProfile(frozenset({kind if narrow else WIDE}), whole=_digits(values))


def _of_numbers(values: pa.Array, kind: str) -> TypeProfile:
    raised = pc.match_substring_regex(values, "[eEfNn]")
    plain, exponents = pc.invert(raised), pc.any(raised).as_py()
    digits = scale = 0
    bare = pc.utf8_ltrim(values.filter(plain), "-")
    if len(bare):
        length, point = pc.binary_length(bare), pc.find_substring(bare, ".")
        pointed = pc.greater_equal(point, 0)
        behind = pc.if_else(pointed, pc.subtract(pc.subtract(length, point), 1), 0)
        scale = pc.max(behind).as_py()
        digits = pc.max(pc.if_else(pointed, point, length)).as_py()
    try:
        doubles = values.cast(pa.float64())
    except pa.ArrowInvalid:
        return TypeProfile(frozenset({TEXT}))
    exact = _are_exact(values, doubles, raised)
    if exact is None:
        return TypeProfile(frozenset({TEXT}))
    return TypeProfile(frozenset({kind}), 0, digits, scale, exponents, exact)


def _are_exact(values: pa.Array, doubles: pa.Array, raised: pa.Array) -> bool | None:
    """Return whether doubles print as exactly the numbers; None if one is out of their range."""
    long = pc.greater(pc.binary_length(values), _DOUBLE_DIGITS + 1)
    suspect = pc.or_(long, raised)
    texts, numbers = values.filter(suspect), doubles.filter(suspect)
    unlike = pc.not_equal(numbers.cast(pa.string()), texts)
    exact = True
    for text, number in zip(
        texts.filter(unlike).to_pylist(), numbers.filter(unlike).to_pylist(), strict=True
    ):
        if math.isnan(number) or "inf" in text.lower():
            continue
        if math.isinf(number) or (number == 0) != (Decimal(text) == 0):
            return None
        exact = exact and Decimal(text) == Decimal(repr(number))
    return exact


def _of_times(values: pa.Array, kind: str) -> TypeProfile:
    """Return whether texts of the right form are existing days and times."""
    try:
        exact_cast(values, _TYPES[kind])
    except pa.ArrowInvalid:
        return TypeProfile(frozenset({TEXT}))
    return TypeProfile(frozenset({kind}))


_EVIDENCE = {
    INTEGER: _of_integers,
    NUMBER: _of_numbers,
    BOOLEAN: _of_times,
    DATE: _of_times,
    TIMESTAMP: _of_times,
    TIMESTAMPTZ: _of_times,
}
