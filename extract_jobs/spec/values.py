"""Kinds of values in a spec: sizes, durations, names, and the base of its parts."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

_BYTE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
               "kib": 2**10, "mib": 2**20, "gib": 2**30}  # fmt: skip
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


_LONGEST = timedelta(days=36_500)
"""So that no date from which it is subtracted is out of range."""


def _shown(value: str) -> str:
    return repr(value) if len(value) <= 60 else f"a text of {len(value):,} characters"


def parse_bytes(value: Any) -> Any:
    """Turn ``"256MB"`` or ``"64 MiB"`` into bytes; other values pass through."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,18})\s*([a-z]*)\s*", value.lower(), re.ASCII)
        if not match or match[2] not in _BYTE_UNITS:
            raise ValueError(f"{_shown(value)} is not a size such as 268435456, 256MB or 256MiB")
        return int(match[1]) * _BYTE_UNITS[match[2]]
    return value


def parse_duration(value: Any) -> Any:
    """Turn ``"90s"``, ``"1m"``, ``"2h"`` or ``"1d"`` into a timedelta; others pass through."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,12})\s*([smhd])\s*", value.lower(), re.ASCII)
        if not match:
            raise ValueError(f"{_shown(value)} is not a duration such as 90s, 1m, 2h or 1d")
        seconds = int(match[1]) * _SECONDS[match[2]]
        if seconds > _LONGEST.total_seconds():
            raise ValueError(
                f"{_shown(value)} is longer than {_LONGEST.days}d, the longest duration"
            )
        return timedelta(seconds=seconds)
    return value


def not_negative(value: timedelta | int) -> timedelta | int:
    """Refuse a lag that would skip rows; whole numbers stay numbers."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 0:
        raise ValueError("must not be negative: rows would be skipped")
    return value


Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(lambda d: f"{int(d.total_seconds())}s", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+\s*[smhd]\s*$"}),
]
Lag = Annotated[Duration | int, AfterValidator(not_negative)]
Name = Annotated[str, StringConstraints(min_length=1)]


class SpecPart(BaseModel):
    """Base of the spec's parts: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)
