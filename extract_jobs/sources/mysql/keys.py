"""Values of a split column: as numbers that can be halved, or texts that lie between two others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from extract_jobs.sources.mysql.sql import literal, quote_bytes
from extract_jobs.sources.mysql.types import ONE_BYTE, MysqlType

_NUMBERS = (
    "tinyint", "smallint", "mediumint", "int", "bigint", "year", "decimal", "date", "datetime",
    "timestamp",
)  # fmt: skip
_TEXTS = ("char", "varchar")
_BYTES = ("binary", "varbinary")
KEYS = (*_NUMBERS, *_TEXTS, *_BYTES)
"""Data types whose columns can be split by."""

_UTF8 = ("utf8mb4", "utf8mb3", "utf8")
_EPOCH = datetime(1, 1, 1)  # noqa: DTZ001 - MySQL's own wall clock
_MICROSECOND = timedelta(microseconds=1)
_DIGITS = 12
"""Letters after the common start that count for what lies between two texts."""


@dataclass(frozen=True)
class Number:
    """A column's values as integers in its own order and step: units, days or microseconds."""

    kind: MysqlType

    @property
    def is_temporal(self) -> bool:
        """Whether the column may hold zero dates, which are no number."""
        return self.kind.base in ("date", "datetime", "timestamp")

    def parse(self, text: str) -> int:
        """Read what the server printed."""
        base = self.kind.base
        if base == "decimal":
            return int(Decimal(text).scaleb(self.kind.scale))
        if base == "date":
            return date.fromisoformat(text).toordinal()
        if base in ("datetime", "timestamp"):
            return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
        return int(text)

    def literal(self, value: int) -> str:
        """Write a number as SQL."""
        base = self.kind.base
        if base == "decimal":
            return f"{Decimal(value).scaleb(-self.kind.scale):f}"
        if base == "date":
            return literal(str(date.fromordinal(max(1, value))), base)
        if base in ("datetime", "timestamp"):
            moment = _EPOCH + max(0, value) * _MICROSECOND
            return literal(moment.isoformat(sep=" ", timespec="microseconds"), base)
        return str(value)


def is_number(kind: MysqlType) -> bool:
    """Return whether a type's values are numbers to `Number`."""
    return kind.base in _NUMBERS


def text_literal(value: bytes, kind: MysqlType) -> str:
    """Write a text as SQL, by its bytes in the column's own character set; or a binary value."""
    introducer = "" if kind.base in _BYTES else f"_{kind.charset} "
    return f"{introducer}{quote_bytes(value)}"


def between(low: bytes, high: bytes, kind: MysqlType) -> Iterator[bytes]:
    """Yield guesses at what lies halfway between two values, the likeliest first.

    Only guesses: the column's collation orders texts as it likes, so the server has the last word.
    In character sets of several bytes other than UTF-8 there are none.
    """
    if kind.base in _BYTES:
        yield bytes(_halfway(list(low), list(high), 256, 0))
    elif kind.charset in _UTF8:
        left, right = low.decode(errors="replace"), high.decode(errors="replace")
        for change in (str, str.lower, str.upper):
            start, end = (list(map(ord, change(text))) for text in (left, right))
            base = 128 if max([0, *start, *end]) < 128 else 0xFFFF
            text = "".join(map(chr, _halfway(start, end, base, 32)))
            yield text.encode(errors="replace")
    elif kind.charset in ONE_BYTE or kind.charset == "ascii":
        base = 128 if kind.charset == "ascii" else 256
        for fold in (bytes, bytes.lower, bytes.upper):
            yield bytes(_halfway(list(fold(low)), list(fold(high)), base, 32))


def _halfway(low: list[int], high: list[int], base: int, blank: int) -> list[int]:
    """Return the digits halfway between two numbers after their common start."""
    start = 0
    while start < min(len(low), len(high)) and low[start] == high[start]:
        start += 1
    numbers = []
    for digits in (low, high):
        padded = [*digits[start : start + _DIGITS], *[blank] * _DIGITS][:_DIGITS]
        number = 0
        for digit in padded:
            number = number * base + digit
        numbers.append(number)
    middle = sum(numbers) // 2
    found = []
    for _ in range(_DIGITS):
        middle, digit = divmod(middle, base)
        found.append(max(digit, blank))
    return [*low[:start], *reversed(found)]
