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


def parse_bytes(value: Any) -> Any:
    """Turn ``"256MB"`` or ``"64 MiB"`` into bytes; other values pass through."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s*([a-z]*)\s*", value.lower())
        if not match or match[2] not in _BYTE_UNITS:
            raise ValueError(f"{value!r} is not a size such as 268435456, 256MB or 256MiB")
        return int(match[1]) * _BYTE_UNITS[match[2]]
    return value


def parse_duration(value: Any) -> Any:
    """Turn ``"90s"``, ``"1m"``, ``"2h"`` or ``"1d"`` into a timedelta; others pass through."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s*([smhd])\s*", value.lower())
        if not match:
            raise ValueError(f"{value!r} is not a duration such as 90s, 1m, 2h or 1d")
        return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
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
