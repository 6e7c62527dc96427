"""Watermark values and the intervals between them, compared and moved exactly.

A value is kept as the text of its type, never as a float, so that it survives JSON exactly.
Strings are ordered by their column's collation, which only the source knows: nothing here
compares them.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Literal, get_args

from extract_jobs.errors import ConfigError

WatermarkType = Literal["integer", "decimal", "date", "timestamp", "timestamptz", "string", "xid"]
TIME_TYPES = ("date", "timestamp", "timestamptz")


@dataclass(frozen=True)
class WatermarkValue:
    """One value of a watermark column.

    Attributes:
        type: Its kind; values of different kinds never compare.
        text: The value as the source prints it under ISO settings: integers and decimals as
            digits, dates ``YYYY-MM-DD``, timestamps ``YYYY-MM-DD HH:MM:SS[.ffffff]``, those with
            a zone always in UTC with ``+00``. Strings unchanged. An ``xid`` is a transaction's
            number, widened to 64 bits: the watermark of snapshot mode.
    """

    type: WatermarkType
    text: str

    def __post_init__(self) -> None:
        if self.type not in get_args(WatermarkType):
            raise ValueError(f"unknown watermark type {self.type!r}")
        if not isinstance(self.text, str):
            raise TypeError("a watermark's text must be a string")
        pattern = _PATTERNS.get(self.type)
        if pattern and not pattern.fullmatch(self.text):
            raise ValueError(f"{self.text!r} is not a watermark of type {self.type}")

    def to_json(self) -> dict[str, str]:
        """Return the JSON form, ``{"type": …, "text": …}``."""
        return {"type": self.type, "text": self.text}

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> WatermarkValue | None:
        """Read what `to_json` wrote; None stays None.

        Raises:
            ValueError: There is no such value, as of a 13th month.
        """
        if data is None:
            return None
        value = cls(data["type"], data["text"])
        if value.type != "string":
            python_value(value)
        return value


_DAY = r"\d{4}-\d\d-\d\d"
_TIME = r"[ T]\d\d:\d\d:\d\d(\.\d{1,6})?"
_PATTERNS: dict[str, re.Pattern[str]] = {
    "integer": re.compile(r"-?\d+", re.ASCII),
    "decimal": re.compile(r"-?\d+(\.\d+)?", re.ASCII),
    "date": re.compile(_DAY, re.ASCII),
    "timestamp": re.compile(_DAY + _TIME, re.ASCII),
    "timestamptz": re.compile(_DAY + _TIME + r"(\+00(:00)?|Z)", re.ASCII),
    "xid": re.compile(r"\d+", re.ASCII),
}
_GIVEN_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"([ T](?P<time>\d\d:\d\d(:\d\d(\.\d{1,6})?)?)\s?(?P<zone>Z|[+-]\d\d(:?\d\d)?)?)?",
    re.ASCII,
)
_EXAMPLES = {
    "integer": "1000",
    "decimal": "10.25",
    "date": "2026-01-31",
    "timestamp": "2026-01-31 12:00:00.123456",
    "timestamptz": "2026-01-31 12:00:00.123456+00 (no offset means UTC)",
}


def parse_value(kind: WatermarkType, given: str | int, where: str) -> WatermarkValue:
    """Parse a bound as people write it.

    Args:
        kind: The watermark column's.
        given: Digits for numbers; ``YYYY-MM-DD`` for dates; for timestamps a date, or one with a
            time of at most microseconds and, for ``timestamptz``, an offset (without one: UTC).
            A date alone is its midnight. Strings are taken as they are.
        where: The key that it was given for, for the message.

    Returns:
        The value, spelled as the source would.

    Raises:
        ConfigError: It is not of that kind.
    """
    text = str(given).strip() if kind != "string" else str(given)
    try:
        if kind == "integer":
            return _number(kind, re.fullmatch(r"[+-]?\d{1,1000}", text, re.ASCII))
        if kind == "decimal":
            return _number(kind, re.fullmatch(r"[+-]?\d{1,1000}(\.\d{1,1000})?", text, re.ASCII))
        if kind == "date":
            return watermark_value(kind, date.fromisoformat(text) if len(text) == 10 else None)
        if kind in TIME_TYPES:
            return watermark_value(kind, _moment(kind, text))
    except ValueError:
        raise ConfigError(
            f"{where}: {given!r} is not a value of the watermark column, which is of type {kind}; "
            f"expected a value such as {_EXAMPLES[kind]}"
        ) from None
    return WatermarkValue(kind, text)


def _number(kind: WatermarkType, found: re.Match[str] | None) -> WatermarkValue:
    if found is None:
        raise ValueError
    return watermark_value(kind, int(found[0]) if kind == "integer" else Decimal(found[0]))


def _moment(kind: WatermarkType, text: str) -> datetime:
    found = _GIVEN_TIME.fullmatch(text)
    if found is None or (found["zone"] and kind != "timestamptz"):
        raise ValueError
    zone = (found["zone"] or "Z").replace("Z", "+00:00")
    moment = datetime.fromisoformat(f"{found['day']}T{found['time'] or '00:00'}{zone}")
    try:
        return moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise ValueError from None


def watermark_value(
    kind: WatermarkType, value: int | Decimal | date | datetime | None
) -> WatermarkValue:
    """Spell a Python value as the source would; timestamps are the UTC wall clock, naive.

    Raises:
        ValueError: It is None.
    """
    if value is None:
        raise ValueError("a watermark is not NULL")
    if isinstance(value, datetime):
        fraction = f".{value.microsecond:06}".rstrip("0") if value.microsecond else ""
        text = f"{value:%H:%M:%S}{fraction}"
        zone = "+00" if kind == "timestamptz" else ""
        # Not by %Y, which leaves out zeros before year 1000.
        return WatermarkValue(kind, f"{value.date().isoformat()} {text}{zone}")
    if isinstance(value, date):
        return WatermarkValue(kind, value.isoformat())
    return WatermarkValue(kind, f"{value:f}" if isinstance(value, Decimal) else str(value))


def python_value(value: WatermarkValue) -> Any:
    """Return a Python value that compares as this one does; timestamps as naive UTC.

    Raises:
        TypeError: A string: only the source knows its order.
    """
    if value.type in ("integer", "xid"):
        return int(value.text)
    if value.type == "decimal":
        return Decimal(value.text)
    if value.type == "date":
        return date.fromisoformat(value.text)
    if value.type == "string":
        raise TypeError("strings are ordered by the source's collation: ask the source")
    return datetime.fromisoformat(re.sub(r"(\+00(:00)?|Z)$", "", value.text))


def is_before(left: WatermarkValue, right: WatermarkValue) -> bool:
    """Return whether one value is less than another of its kind, exactly.

    Raises:
        ValueError: Of different kinds.
        TypeError: Strings: only the source knows their order.
    """
    if left.type != right.type:
        raise ValueError(f"a {left.type} does not compare with a {right.type}")
    before: bool = python_value(left) < python_value(right)
    return before


def minus(value: WatermarkValue, lag: timedelta | int) -> WatermarkValue | None:
    """Return the value minus a lag, exactly; None, which is unbounded, below year 1.

    Args:
        value: A number or a time.
        lag: In the value's own unit: a duration for times, an integer for numbers. A date goes
            back by whole days; part of a day counts as one.
    """
    found = python_value(value)
    if isinstance(lag, timedelta) != (value.type in TIME_TYPES):
        raise TypeError(f"a {value.type} has no lag of {lag!r}")
    try:
        if value.type == "date" and isinstance(lag, timedelta):
            return watermark_value(value.type, found + timedelta(days=-lag // timedelta(days=1)))
        if value.type == "decimal" and isinstance(lag, int):
            # The default context would round to 28 digits.
            digits = len(value.text) + len(str(lag)) + 1
            return watermark_value(value.type, Context(prec=digits).subtract(found, Decimal(lag)))
        return watermark_value(value.type, found - lag)
    except OverflowError:
        return None


# --- partitions by time --------------------------------------------------------------------------


def first_of_period(value: WatermarkValue, unit: str) -> WatermarkValue:
    """Return the first value of the year, month, day or hour that contains a time, UTC."""
    return watermark_value(value.type, _floor(python_value(value), unit))


def last_of_period(value: WatermarkValue, unit: str) -> WatermarkValue:
    """Return the last value of the year, month, day or hour that contains a time, UTC.

    To the microsecond, or to the day for a date.
    """
    last = _floor(python_value(value), unit)
    if unit == "year":
        last = last.replace(month=12, day=31)
    elif unit == "month":
        last = last.replace(day=monthrange(last.year, last.month)[1])
    if isinstance(last, datetime):
        last = last.replace(minute=59, second=59, microsecond=999_999)
        last = last if unit == "hour" else last.replace(hour=23)
    return watermark_value(value.type, last)


def just_before(value: WatermarkValue) -> WatermarkValue | None:
    """Return the greatest time below one: a microsecond or a day less; None below year 1."""
    tick = timedelta(days=1) if value.type == "date" else timedelta(microseconds=1)
    return minus(value, tick)


def just_after(value: WatermarkValue) -> WatermarkValue | None:
    """Return the least time above one: a microsecond or a day more; None after year 9999."""
    tick = timedelta(days=1) if value.type == "date" else timedelta(microseconds=1)
    return minus(value, -tick)


def _floor(value: Any, unit: str) -> Any:
    if isinstance(value, datetime):
        value = value.replace(minute=0, second=0, microsecond=0)
        value = value if unit == "hour" else value.replace(hour=0)
    if unit in ("year", "month"):
        value = value.replace(day=1)
    return value.replace(month=1) if unit == "year" else value


@dataclass(frozen=True)
class Interval:
    """``(lower, upper]``: open below, closed above; None is unbounded.

    Attributes:
        lower: Exclusive lower bound: the watermark of the last published commit, less the lag.
        upper: Inclusive upper bound, pinned in the plan.
        empty: It has no values, whatever the bounds: the source had none when it was planned, and
            rows that came later belong to the next run.
    """

    lower: WatermarkValue | None = None
    upper: WatermarkValue | None = None
    empty: bool = False

    def __str__(self) -> str:
        """Return ``(lower, upper]``, with ``…`` for an unbounded side."""
        lower = self.lower.text if self.lower else "…"
        upper = self.upper.text if self.upper else "…"
        return f"({lower}, {upper}]"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, ``{"lower": …, "upper": …}``, and ``"empty": true`` if it is."""
        bounds = {
            "lower": self.lower and self.lower.to_json(),
            "upper": self.upper and self.upper.to_json(),
        }
        return {**bounds, "empty": True} if self.empty else bounds

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> Interval | None:
        """Read what `to_json` wrote; None stays None.

        Raises:
            ValueError: It is damaged.
        """
        if data is None:
            return None
        lower = WatermarkValue.from_json(data["lower"])
        upper = WatermarkValue.from_json(data["upper"])
        if lower and upper and lower.type != upper.type:
            raise ValueError("its bounds are of different kinds")
        return cls(lower, upper, bool(data.get("empty", False)))


def may_meet(interval: Interval, others: Iterable[Interval]) -> bool:
    """Return whether an interval may share a value with one of others.

    Intervals of strings, and those of different kinds of values, always may.
    """
    return any(
        _may_be_before(one.lower, interval.upper) and _may_be_before(interval.lower, one.upper)
        for one in others
    )


def _may_be_before(lower: WatermarkValue | None, upper: WatermarkValue | None) -> bool:
    if lower is None or upper is None or lower.type == "string" or lower.type != upper.type:
        return True
    return is_before(lower, upper)
