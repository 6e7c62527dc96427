"""The watermark that a full run leaves, from which increments continue.

A full run reads every row, so what it has read up to some value need not be read again. If all its
rows come from one snapshot, that value is their greatest one. Otherwise a row may have been
inserted below it after its split was read, so it is the greatest value from before the first read,
as for an increment; ``delay`` limits it in the same way. Rows that were read above it are covered,
and the next increment does not add them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from extract_jobs.commit.record import Commit
from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import Source
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.watermark import TIME_TYPES, Interval, WatermarkValue, is_before


def column_of(spec: ExtractSpec, last: Commit | None, columns: Sequence[Column]) -> Column | None:
    """Return the watermark column of a full run that increments can continue from, else None.

    Rows of earlier commits that stay beside the run's may have any value, so the run has to be the
    first or to replace them all. A sample (``limit``) leaves no watermark. Neither does a masked
    column: the commit log and reports would show its greatest value.
    """
    if spec.mode != "full" or spec.watermark is None or spec.limit:
        return None
    if last is not None and spec.target.write_mode != "overwrite":
        return None
    name = spec.watermark.column
    if name in spec.columns.mask:
        return None
    found = next((column for column in columns if column.name == name), None)
    return found if found is not None and found.watermark is not None else None


def highest_before(
    spec: ExtractSpec, last: Commit | None, description: TableDescription, source: Source
) -> WatermarkValue | None:
    """Return the greatest value that a full run is sure to read, before it reads; None without one.

    A value that an increment refuses, such as an infinite one, does not fail a full run: it then
    leaves no watermark, and the next increment says why.
    """
    column = column_of(spec, last, description.columns)
    if column is None or spec.watermark is None:
        return None
    delay = spec.watermark.delay if column.watermark in TIME_TYPES else None
    try:
        return source.highest(column.name, delay=delay)
    except (ConfigError, TypeNotRepresentable):
        return None


def is_followed(column: Column | None) -> bool:
    """Return whether Arrow orders a column's values as the source does."""
    if column is None:
        return False
    kind = column.arrow_type
    if column.watermark == "integer":
        ordered = pa.types.is_integer(kind)
    elif column.watermark == "decimal":
        ordered = pa.types.is_decimal(kind)
    elif column.watermark == "date":
        ordered = pa.types.is_date32(kind)
    else:
        times = column.watermark in TIME_TYPES and pa.types.is_timestamp(kind)
        ordered = times and kind.unit == "us"
    return bool(ordered)


def after_reading(
    planned: WatermarkValue | None,
    read: Iterable[WatermarkValue | None],
    *,
    one_moment: bool,
) -> tuple[WatermarkValue | None, Interval]:
    """Return the watermark after a full run, and the interval that its rows cover.

    Args:
        planned: From `highest_before`.
        read: The greatest value of each split of a followed column; None for a split without one.
        one_moment: Whether every row comes from one snapshot and passed the same condition, and no
            delay is wanted.
    """
    greatest: WatermarkValue | None = None
    for value in read:
        if value is not None and (greatest is None or is_before(greatest, value)):
            greatest = value
    if greatest is None:
        return None, Interval()
    if one_moment:
        return greatest, Interval(None, greatest)
    lower = planned is not None and is_before(planned, greatest)
    return (planned if lower or planned is None else greatest), Interval(None, greatest)
