"""Values of a split column: numbers that can be halved, or texts that lie between two others."""

from __future__ import annotations

import itertools
from calendar import monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
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
"""Data types of columns that tables can be split by."""

_CODECS = {
    "utf8mb4": "utf-8", "utf8mb3": "utf-8", "utf8": "utf-8", "ucs2": "utf-16-be",
    "utf16": "utf-16-be", "utf16le": "utf-16-le", "utf32": "utf-32-be",
}  # fmt: skip
_SCRIPTS = [
    range(0xC0, 0x180), range(0x391, 0x3CA), range(0x410, 0x450), range(0x5D0, 0x5EB),
    range(0x621, 0x64B), range(0x3041, 0x3097), range(0x4E00, 0x9FA0, 128),
    range(0xAC00, 0xD7A0, 256),
]  # fmt: skip
"""Letters of the basic plane that common texts begin with; of scripts with thousands, samples."""
_EPOCH = datetime(1, 1, 1)  # noqa: DTZ001 - MySQL's own wall clock
_MICROSECOND = timedelta(microseconds=1)
_YEAR_ZERO = 1900
"""Stands for the year 0000: the next one is 1901, and MariaDB reads numbers below 100 that a year
is compared with as two-digit years, 63 as 2063."""
_DIGITS = 12
"""Letters after the common start that are used to find what lies between two texts."""


@dataclass(frozen=True)
class Number:
    """A column's values as integers in its own order: units, days or microseconds."""

    kind: MysqlType

    @property
    def is_temporal(self) -> bool:
        """Whether the column may hold zero dates, which have no number."""
        return self.kind.base in ("date", "datetime", "timestamp")

    def parse(self, text: str) -> int:
        """Parse what the server printed."""
        base = self.kind.base
        if base == "decimal":
            return int(Decimal(text).scaleb(self.kind.scale))
        if base in ("date", "datetime", "timestamp"):
            day = _nearest_day(text[:10])
            if base == "date":
                return day.toordinal()
            moment = datetime.combine(day, time.fromisoformat(text[11:]))
            return (moment - _EPOCH) // _MICROSECOND
        return max(int(text), _YEAR_ZERO) if base == "year" else int(text)

    def literal(self, value: int) -> str:
        """Return a number as SQL."""
        base = self.kind.base
        if base == "decimal":
            return f"{Decimal(value).scaleb(-self.kind.scale):f}"
        if base == "date":
            return literal(str(date.fromordinal(max(1, value))), base)
        if base in ("datetime", "timestamp"):
            moment = _EPOCH + max(0, value) * _MICROSECOND
            return literal(moment.isoformat(sep=" ", timespec="microseconds"), base)
        if base == "year" and value <= _YEAR_ZERO:
            return "0" if value == _YEAR_ZERO else "-1"
        return str(value)


def _nearest_day(text: str) -> date:
    """Parse a day; one that no calendar has (``2024-00-10``, ``2024-02-31``) becomes a near one."""
    year, month, day = map(int, text.split("-"))
    year = max(1, year)
    if not month:
        return date(year, 1, 1)
    return date(year, month, min(max(1, day), monthrange(year, month)[1]))


def is_number(kind: MysqlType) -> bool:
    """Return whether `Number` can represent a type's values."""
    return kind.base in _NUMBERS


def text_literal(value: bytes, kind: MysqlType) -> str:
    """Return SQL of a text, as bytes in the column's own character set, or of a binary value."""
    introducer = "" if kind.base in _BYTES else f"_{kind.charset} "
    return f"{introducer}{quote_bytes(value)}"


def letters(kind: MysqlType) -> dict[bytes, str]:
    """Return letters for texts between two others, by their bytes in the character set."""
    if kind.base in _BYTES:
        return {}
    codec = _codec(kind)
    known = [range(0x20, 0x7F)]
    if codec != "latin-1":
        known += _SCRIPTS
    elif kind.charset in ONE_BYTE:
        known += [range(0xA1, 0x100)]
    codes = itertools.chain.from_iterable(known)
    return {chr(code).encode(codec): chr(code) for code in codes}


def _codec(kind: MysqlType) -> str:
    """Return Python's codec for a character set, or one that keeps bytes unchanged."""
    return _CODECS.get(kind.charset or "", "latin-1")


def between(low: bytes, high: bytes, kind: MysqlType, letters: Sequence[str]) -> Iterator[bytes]:
    """Yield guesses at a value halfway between two others, the likeliest first.

    They are only guesses: the server decides what is between.

    Args:
        low: The lower value.
        high: The upper value.
        kind: Their type.
        letters: Letters in the order of the column's collation; not used for binary values.
    """
    if kind.base in _BYTES:
        digits = _halfway(list(low), list(high), 256)
        yield bytes(digits)
        return
    codec = _codec(kind)
    ranks = {letter: rank for rank, letter in enumerate(letters, 1)}
    start, end = (
        [ranks.get(letter, ranks.get(letter.lower(), 0)) for letter in text]
        for text in (low.decode(codec, errors="replace"), high.decode(codec, errors="replace"))
    )
    digits = _halfway(start, end, len(letters) + 1)
    yield "".join(letters[max(digit, 1) - 1] for digit in digits).encode(codec, errors="replace")


def _halfway(low: list[int], high: list[int], base: int) -> list[int]:
    """Return the digits halfway between two numbers, after their common start."""
    start = 0
    while start < min(len(low), len(high)) and low[start] == high[start]:
        start += 1
    numbers = []
    for digits in (low, high):
        padded = [*digits[start : start + _DIGITS], *[0] * _DIGITS][:_DIGITS]
        number = 0
        for digit in padded:
            number = number * base + digit
        numbers.append(number)
    middle = sum(numbers) // 2
    found = []
    for _ in range(_DIGITS):
        middle, digit = divmod(middle, base)
        found.append(digit)
    return [*low[:start], *reversed(found)]
