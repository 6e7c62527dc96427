"""Which interval an incremental run extracts, and the watermark after it.

Each commit records the intervals that commits cover since the last overwrite; no two of them touch.
They show which rows of an interval may already be committed. The watermark alone does not, because
a backfill may lie above it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

from extract_jobs.commit.record import Commit
from extract_jobs.errors import ConfigError
from extract_jobs.planning.overwrite_partitions import widened
from extract_jobs.schema import Column, TableDescription
from extract_jobs.sources import Source
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import WatermarkSpec
from extract_jobs.storage import WrittenFile
from extract_jobs.watermark import (
    TIME_TYPES,
    Interval,
    WatermarkType,
    WatermarkValue,
    is_before,
    minus,
    parse_value,
)

_ROW_XMIN = Column(
    "xmin",
    "xid",
    pa.int64(),
    False,
    "lossless",
    "system column, widened to 64 bits; orders rows and is not extracted",
    "xmin",
    watermark="xid",
)
"""PostgreSQL's system column with the transaction that wrote a row, as a watermark."""

Precedes = Callable[[WatermarkValue, WatermarkValue], bool]
"""Whether one value comes before another in the order of the watermark column."""


@dataclass(frozen=True)
class Bounds:
    """The spec's bounds, as values of the column's type."""

    initial: WatermarkValue | None
    lower: WatermarkValue | None
    upper: WatermarkValue | None


@dataclass(frozen=True)
class Step:
    """What one incremental run does to the table.

    Attributes:
        interval: Rows to extract.
        watermark: The watermark after the commit; never lower than before.
    """

    interval: Interval
    watermark: WatermarkValue | None


def next_step(
    spec: ExtractSpec, last: Commit | None, description: TableDescription, source: Source
) -> Step | None:
    """Return what an incremental run extracts; None for a full extract and for files.

    ``(lower, upper]``: ``lower`` is the spec's own, else the last watermark less the lag, else
    ``initial``, else unbounded; ``upper`` is the greatest value that the source has above
    ``lower``, at most the spec's own and at most the source's clock less ``delay``. A backfill (an
    explicit ``lower``) moves the watermark only if it continues from it.

    Args:
        spec: The run's spec.
        last: The last published commit.
        description: The table as it is now.
        source: Queried for the greatest value, and for the order of strings.

    Raises:
        ConfigError: The column cannot be a watermark, is not the last commit's, or a bound, lag or
            delay does not fit its type. The message names all problems.
        TypeNotRepresentable: The greatest value is infinite or not a number.
    """
    if spec.mode == "full" or spec.files is not None:
        return None
    column = watermark_column(spec, description)
    wanted, kind = spec.watermark or WatermarkSpec(), column.watermark
    assert kind is not None
    before = order_of(source, column.name)
    bounds = _bounds(spec, column, kind, last, before)
    previous = WatermarkValue.from_json(last.watermark) if last else None
    lower = bounds.lower or (_lowered(previous, wanted.lag) if previous else bounds.initial)
    found = source.highest(column.name, lower=lower, upper=bounds.upper, delay=wanted.delay)
    watermark = previous
    moves_up = found is not None and (previous is None or before(previous, found))
    if moves_up and _goes_on(bounds, previous, before):
        watermark = found
    replaces = spec.target.write_mode == "overwrite_partitions"
    if found is None and not (replaces and (bounds.lower or bounds.upper)):
        return Step(Interval(lower, None, empty=True), previous)
    if not replaces:
        return Step(Interval(lower, found), watermark)
    # A backfill also empties partitions without rows above the greatest value.
    upper = bounds.upper or (None if bounds.lower else found)
    return Step(widened(Interval(lower, upper), spec), watermark)


def watermark_column(spec: ExtractSpec, description: TableDescription) -> Column:
    """Return the watermark column of an incremental spec; in snapshot mode the system column.

    Raises:
        ConfigError: There is no such column, or its type does not order rows.
    """
    if spec.watermark and spec.watermark.snapshot:
        return _ROW_XMIN
    name = spec.watermark.column if spec.watermark else None
    column = description.column(name or "")
    if column is None:
        raise ConfigError(f"{spec.extract_table}: there is no watermark column {name!r}")
    if column.watermark is None:
        raise ConfigError(
            f"{spec.extract_table}: column {column.name} is of type {column.source_type}, which "
            "cannot be a watermark; it takes integers, decimals, dates, timestamps and text"
        )
    return column


def order_of(source: Source, column: str) -> Precedes:
    """Return the order of a column's values; strings are compared by the source."""

    def precedes(left: WatermarkValue, right: WatermarkValue) -> bool:
        if left.type == right.type == "string":
            return left != right and source.precedes(column, left, right)
        return is_before(left, right)

    return precedes


def _lowered(previous: WatermarkValue, lag: timedelta | int | None) -> WatermarkValue | None:
    return minus(previous, lag) if lag else previous


def _goes_on(bounds: Bounds, previous: WatermarkValue | None, before: Precedes) -> bool:
    """Return whether an interval leaves no gap above the watermark."""
    start = previous or bounds.initial
    if bounds.lower is None or start is None:
        return bounds.lower is None
    return not before(start, bounds.lower)


def _bounds(
    spec: ExtractSpec,
    column: Column,
    kind: WatermarkType,
    last: Commit | None,
    before: Precedes,
) -> Bounds:
    """Parse the spec's bounds. The error names every bound that does not fit the column."""
    wanted = spec.watermark or WatermarkSpec()
    problems = list(_unit_problems(wanted, column, kind))
    if kind == "string" and spec.target.write_mode == "overwrite_partitions":
        problems.append(
            f"write_mode overwrite_partitions cannot decide which partitions of {column.name} an "
            "interval of text covers: use append, or another watermark"
        )
    if last and last.watermark_column not in (None, column.name):
        problems.append(
            f"the watermark of commit {last.seq} is of column {last.watermark_column}, and "
            f"watermark.column is now {column.name}: set it back, or start over with another "
            "state_uri and target"
        )
    elif last and last.watermark and last.watermark["type"] != kind:
        problems.append(
            f"watermark column {column.name} is now of type {kind}, and the watermark of commit "
            f"{last.seq} is of type {last.watermark['type']}: start over with another state_uri "
            "and target"
        )
    elif last and any(v.type != kind for i in covered_by(last) for v in (i.lower, i.upper) if v):
        problems.append(
            f"watermark column {column.name} is now of type {kind}, and commit {last.seq} holds "
            "intervals of another type: start over with another state_uri and target"
        )
    values: dict[str, WatermarkValue | None] = {}
    for name in ("initial", "lower", "upper"):
        value = getattr(wanted, name)
        try:
            values[name] = value if value is None else parse_value(kind, value, f"watermark.{name}")
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(f"{spec.extract_table}: {'; '.join(problems)}")
    bounds = Bounds(values["initial"], values["lower"], values["upper"])
    if bounds.lower and bounds.upper and not before(bounds.lower, bounds.upper):
        raise ConfigError(
            f"{spec.extract_table}: no value is above watermark.lower {wanted.lower!r} and at most "
            f"watermark.upper {wanted.upper!r}: lower is exclusive, upper inclusive"
        )
    return bounds


def _unit_problems(wanted: WatermarkSpec, column: Column, kind: WatermarkType) -> Iterator[str]:
    of = f"watermark column {column.name}, which is of type {kind}"
    if wanted.delay is not None and kind not in TIME_TYPES:
        yield f"watermark.delay needs a watermark that is a time, not {of}"
    if wanted.lag is None:
        return
    if kind == "string":
        yield f"watermark.lag cannot be subtracted from {of}: text has no distance"
    elif kind in TIME_TYPES and not isinstance(wanted.lag, timedelta):
        yield f"watermark.lag is {wanted.lag}: use a duration such as 90s, 1h or 2d for {of}"
    elif kind not in TIME_TYPES and isinstance(wanted.lag, timedelta):
        yield f"watermark.lag is a duration: use a whole number for {of}"


# --- covered intervals --------------------------------------------------------------------------


def covered_by(commit: Commit | None) -> tuple[Interval, ...]:
    """Return the intervals that commits cover since the last overwrite, up to this one."""
    found = (Interval.from_json(item) for item in (commit.covered if commit else ()))
    return tuple(interval for interval in found if interval is not None)


def covered_after(
    spec: ExtractSpec,
    last: Commit | None,
    interval: Interval | None,
    files: Sequence[WrittenFile],
    *,
    full: Interval = Interval(),  # noqa: B008 - frozen
    column: str | None = None,
) -> dict[str, Any]:
    """Return a commit's fields for covered intervals and whether increments are live.

    Args:
        spec: The run's spec.
        last: The last published commit.
        interval: What the run extracted; None for a full extract.
        files: The commit's.
        full: What a full extract covers, unless it finds no rows.
        column: The watermark column of a full extract after which increments go on.
    """
    overwrites = spec.target.write_mode == "overwrite"
    covered = () if overwrites else covered_by(last)
    column = column or (last.watermark_column if last else None)
    if interval is not None:
        column = spec.watermark.orders_by if spec.watermark else None
        covered = with_interval(covered, interval)
    elif any(f.rows for f in files):
        covered = (full,)
    kept = last is not None and not overwrites and last.holds_increments
    return {
        "watermark_column": column,
        "covered": tuple(piece.to_json() for piece in covered),
        "increments": spec.mode == "incremental" or kept,
    }


def overlap(
    covered: Iterable[Interval], interval: Interval, before: Precedes
) -> tuple[Interval, ...]:
    """Return the parts of an interval that commits cover already."""
    if interval.empty:
        return ()
    found = []
    for piece in covered:
        lowers = [v for v in (piece.lower, interval.lower) if v]
        uppers = [v for v in (piece.upper, interval.upper) if v]
        lower = _extreme(lowers, lambda a, b: before(b, a))
        upper = _extreme(uppers, before)
        if lower is None or upper is None or before(lower, upper):
            found.append(Interval(lower, upper))
    return tuple(found)


def _extreme(values: list[WatermarkValue], better: Precedes) -> WatermarkValue | None:
    best = values[0] if values else None
    for value in values[1:]:
        best = value if best is None or better(value, best) else best
    return best


def with_interval(covered: Iterable[Interval], interval: Interval) -> tuple[Interval, ...]:
    """Return covered intervals with one more interval; adjacent intervals are merged.

    Intervals of strings are merged only if one begins with exactly the value that the other ends
    with, because the order of strings is not known here.
    """
    if interval.empty:
        return tuple(covered)
    apart, merged = [], interval
    for piece in covered:
        joined = _joined(piece, merged)
        if joined is None:
            apart.append(piece)
        else:
            merged = joined
    # The new interval may fill the gap between two neighbours.
    return (*apart, merged) if merged == interval else with_interval(apart, merged)


def _joined(left: Interval, right: Interval) -> Interval | None:
    """Merge two intervals; None if there is a gap between them."""
    if Interval() in (left, right):
        return Interval()
    if any(v and v.type == "string" for v in (left.lower, left.upper, right.lower, right.upper)):
        for low, high in ((left, right), (right, left)):
            if low.upper is not None and low.upper == high.lower:
                return Interval(low.lower, high.upper)
        return left if left == right else None
    if not (_reaches(left, right) and _reaches(right, left)):
        return None
    lower = upper = None
    if left.lower and right.lower:
        lower = right.lower if is_before(right.lower, left.lower) else left.lower
    if left.upper and right.upper:
        upper = right.upper if is_before(left.upper, right.upper) else left.upper
    return Interval(lower, upper)


def _reaches(low: Interval, high: Interval) -> bool:
    """Return whether ``low`` does not end below where ``high`` begins."""
    return low.upper is None or high.lower is None or not is_before(low.upper, high.lower)
