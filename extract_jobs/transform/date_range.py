"""Finds dates and timestamps that some readers of the lake cannot represent."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_DAY_US = 86_400_000_000
_FIRST_DAY = -719_162
"""0001-01-01 in days from 1970-01-01."""
_LAST_DAY = 2_932_896
"""9999-12-31 in days from 1970-01-01."""


def out_of_range(values: pa.Array) -> bool:
    """Return whether any date or timestamp lies outside years 1 to 9999.

    DuckDB gives infinities as its own sentinels and wraps timestamps after year 294247 around;
    both lie outside, so one comparison of the extremes finds them all.
    """
    if pa.types.is_list(values.type):
        values = values.flatten()
    if pa.types.is_date32(values.type):
        low, high, integers = _FIRST_DAY, _LAST_DAY, values.view(pa.int32())
    elif pa.types.is_timestamp(values.type):
        low, high = _FIRST_DAY * _DAY_US, (_LAST_DAY + 1) * _DAY_US - 1
        integers = values.view(pa.int64())
    else:
        return False
    extremes = pc.min_max(integers)
    least, greatest = extremes["min"].as_py(), extremes["max"].as_py()
    return least is not None and (least < low or greatest > high)
