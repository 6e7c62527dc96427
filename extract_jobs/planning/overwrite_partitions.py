"""``write_mode: overwrite_partitions``: whole partitions are read and replaced.

In mode incremental, the interval is widened to whole partitions, so that a partition is never
replaced by a part of its rows. In mode full, the partitions that the run wrote are replaced. If
partitions come from the run itself (``extract_date``, ``run_id``), all with the run's own values
are replaced, so that a repeated snapshot keeps no row of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date

from extract_jobs.errors import ConfigError
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.rules import PARTITION_FUNCTIONS, RUN_PARTITIONS
from extract_jobs.storage import WrittenFile
from extract_jobs.transform.columns import partition_fields
from extract_jobs.transform.partitions import PartitionField
from extract_jobs.watermark import (
    Interval,
    WatermarkType,
    WatermarkValue,
    first_of_period,
    is_before,
    just_after,
    just_before,
    last_of_period,
    parse_value,
)

_BEGINNINGS = {"year": "-01-01", "month": "-01", "day": "", "hour": ""}


def widened(interval: Interval, spec: ExtractSpec) -> Interval:
    """Widen an interval to the whole of every partition that it touches.

    Args:
        interval: Not empty.
        spec: Names a partition of the watermark column.
    """
    unit = _finest(spec).function
    if unit is None:
        return interval  # a partition is a single value
    lower, upper = interval.lower, interval.upper
    if lower is not None:
        first = just_after(lower)
        lower = just_before(first_of_period(first, unit)) if first else lower
    return Interval(lower, upper and last_of_period(upper, unit))


def replaced_by_interval(
    spec: ExtractSpec, interval: Interval, kind: WatermarkType
) -> Callable[[WrittenFile], bool]:
    """Return a predicate for the files that a commit of an interval replaces.

    These are the files of partitions inside it, including partitions without rows left. Rows with a
    NULL watermark are in no interval, and neither is their partition.

    Args:
        spec: Names a partition of the watermark column.
        interval: What was read, from `widened`.
        kind: The watermark column's type; not ``string``, whose order only the source knows.
    """
    field = _finest(spec)

    def replaces(file: WrittenFile) -> bool:
        if not file.rows and field.name not in file.partition:
            return False  # it holds only the schema
        if field.name not in file.partition:
            raise ConfigError(
                f"{spec.extract_table}: {file.staged.uri} was written when target.partition_by "
                f"had no {field.name}: overwrite_partitions cannot decide whether to replace it. "
                "Start over with another state_uri and target, or replace all with mode full and "
                "write_mode overwrite"
            )
        text = file.partition[field.name]
        return text is not None and _holds(interval, _beginning(text, field, kind))

    return replaces


def run_partition(spec: ExtractSpec, extract_date: date) -> dict[str, str]:
    """Return the partition values that every row of the run has, in path order."""
    values = {"extract_date": extract_date.isoformat(), "run_id": spec.run_id}
    return {name: values[name] for name in spec.target.partition_by if name in RUN_PARTITIONS}


def replaced_by_snapshot(
    spec: ExtractSpec, extract_date: date, files: Iterable[WrittenFile]
) -> Callable[[WrittenFile], bool]:
    """Return a predicate for the files that a full extract replaces.

    Args:
        spec: The run's.
        extract_date: The run's, UTC.
        files: What the run wrote. Without run partitions, files in the same partitions are
            replaced.
    """
    written = {tuple(sorted(f.partition.items())) for f in files}
    own = run_partition(spec, extract_date)

    def replaces(file: WrittenFile) -> bool:
        if own and file.partition:
            return all(file.partition.get(name) == value for name, value in own.items())
        return tuple(sorted(file.partition.items())) in written

    return replaces


def _finest(spec: ExtractSpec) -> PartitionField:
    """Return the watermark column's finest partition: the one with the fewest values."""
    column = spec.watermark.column if spec.watermark else None
    fields = [f for f in partition_fields(spec) if f.column == column]
    order = (*PARTITION_FUNCTIONS, None)
    return max(fields, key=lambda field: order.index(field.function))


def _beginning(text: str, field: PartitionField, kind: WatermarkType) -> WatermarkValue:
    """Return the first value of a partition."""
    if field.function == "hour":
        text = f"{text[:10]} {text[11:]}:00"
    elif field.function:
        text += _BEGINNINGS[field.function]
    return parse_value(kind, text, f"partition {field.name}")


def _holds(interval: Interval, value: WatermarkValue) -> bool:
    above = interval.lower is None or is_before(interval.lower, value)
    return above and not (interval.upper is not None and is_before(interval.upper, value))
