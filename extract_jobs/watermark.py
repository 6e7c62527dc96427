"""Watermark values and the intervals between them.

A value is kept as text of its own type, never as a float, so that it survives JSON exactly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

WatermarkType = Literal["integer", "decimal", "date", "timestamp", "timestamptz", "string"]


@dataclass(frozen=True)
class WatermarkValue:
    """One value of a watermark column.

    Attributes:
        type: Its kind; values of different kinds never compare.
        text: The value as the source prints it under ISO settings: integers and decimals as
            digits, dates ``YYYY-MM-DD``, timestamps ``YYYY-MM-DD HH:MM:SS[.ffffff]``, those with
            a zone always in UTC with ``+00``. Strings as they are.
    """

    type: WatermarkType
    text: str

    def __post_init__(self) -> None:
        if self.type not in get_args(WatermarkType):
            raise ValueError(f"unknown watermark type {self.type!r}")
        pattern = _PATTERNS.get(self.type)
        if pattern and not pattern.fullmatch(self.text):
            raise ValueError(f"{self.text!r} is not a watermark of type {self.type}")

    def to_json(self) -> dict[str, str]:
        """Return the JSON form, ``{"type": …, "text": …}``."""
        return {"type": self.type, "text": self.text}

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> WatermarkValue | None:
        """Read what `to_json` wrote; None stays None."""
        return None if data is None else cls(data["type"], data["text"])


_DAY = r"\d{4,6}-\d\d-\d\d"
_TIME = r"[ T]\d\d:\d\d:\d\d(\.\d{1,6})?"
_PATTERNS: dict[str, re.Pattern[str]] = {
    "integer": re.compile(r"-?\d+"),
    "decimal": re.compile(r"-?\d+(\.\d+)?"),
    "date": re.compile(_DAY),
    "timestamp": re.compile(_DAY + _TIME),
    "timestamptz": re.compile(_DAY + _TIME + r"(\+00(:00)?|Z)"),
}


@dataclass(frozen=True)
class Interval:
    """``(lower, upper]``: open below, closed above; None is unbounded.

    Attributes:
        lower: Exclusive lower bound: the watermark of the last published commit, less the lag.
        upper: Inclusive upper bound, pinned in the plan; the watermark after the commit.
    """

    lower: WatermarkValue | None = None
    upper: WatermarkValue | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, ``{"lower": …, "upper": …}``."""
        return {
            "lower": self.lower and self.lower.to_json(),
            "upper": self.upper and self.upper.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> Interval | None:
        """Read what `to_json` wrote; None stays None."""
        if data is None:
            return None
        return cls(
            WatermarkValue.from_json(data["lower"]), WatermarkValue.from_json(data["upper"])
        )
