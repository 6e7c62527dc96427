"""Dates and timestamps of Parquet files whose writers counted days in the old calendar.

Spark 2, Hive, and Spark 3 on request (``LEGACY``) write the days of Java's hybrid calendar: Julian
before 1582-10-15. The format has only the proleptic Gregorian calendar, in which the same number of
days is another date: 1500-01-01 arrives as 1500-01-10. What a footer says about its writer decides;
dates then keep the label that was written. A timestamp's label also depends on a time zone and its
history, so one before 1900 is refused unless the zone was UTC.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_UTC = frozenset({"UTC", "Etc/UTC", "GMT", "Z", "Etc/GMT", "+00:00", "Zulu"})
_DAY_US = 86_400_000_000
_SWITCH = -141_427
"""1582-10-15 in days from 1970-01-01: from here on the calendars agree."""
_OLD_ZONES_US = -25_567 * _DAY_US
"""1900-01-01, before which zones had local mean times."""


def _julian_day(year: int, month: int, day: int) -> int:
    """Return a day of the Julian calendar in days from 1970-01-01."""
    before = (14 - month) // 12
    years, months = year + 4800 - before, month + 12 * before - 3
    number = day + (153 * months + 2) // 5 + 365 * years + years // 4 - 32083
    return number - 2_440_588


_LEAP_DAYS = np.array([_julian_day(y, 2, 29) for y in range(100, 1501, 100) if y % 400])
"""29 February of the years that are leap years only in the Julian calendar."""


class OldCalendarError(Exception):
    """A value has no certain form in the new calendar; the argument says why, without the value."""


@dataclass(frozen=True)
class Calendars:
    """How a file counts days.

    Attributes:
        hybrid: Whether dates and timestamps use the hybrid calendar.
        hybrid_int96: Whether timestamps of the physical type INT96 do.
        zone: Time zone of the writer, if the file names it.
    """

    hybrid: bool
    hybrid_int96: bool
    zone: str | None = None


def calendars_of(metadata: Mapping[bytes, bytes] | None) -> Calendars:
    """Return what a footer's key-value metadata says about calendars.

    Spark has written its version since 3.0 and marks what it wrote in the old calendar; Hive writes
    ``writer.date.proleptic`` since 3.1, and before only its version. Any other writer is assumed to
    follow the format.
    """
    found = {k.decode(): v.decode(errors="replace") for k, v in (metadata or {}).items()}
    spark = found.get("org.apache.spark.version")
    if spark is not None:
        version = tuple(int(n) for n in re.findall(r"\d+", spark)[:2])
        return Calendars(
            version < (3, 0) or "org.apache.spark.legacyDateTime" in found,
            version < (3, 1) or "org.apache.spark.legacyINT96" in found,
            found.get("org.apache.spark.timeZone"),
        )
    proleptic = found.get("writer.date.proleptic")
    hive = re.match(r"\d+\.\d+", found.get("writer.model.name", "")) is not None
    old = proleptic == "false" if proleptic is not None else hive
    old = old or "org.apache.spark.sql.parquet.row.metadata" in found
    return Calendars(old, old, found.get("writer.time.zone"))


def rebased(values: pa.Array, zone: str | None) -> pa.Array:
    """Return dates and timestamps of the hybrid calendar as those of the same label.

    Args:
        values: Of any type that is not nested; other types are returned unchanged.
        zone: Time zone of the writer; None if the file does not say.

    Raises:
        OldCalendarError: A day that the new calendar lacks, or a timestamp before 1900 in a zone
            that is not known to be UTC.
    """
    kind = values.type
    if pa.types.is_date32(kind):
        days = values.view(pa.int32()).fill_null(0).to_numpy().astype(np.int64)
        moved = pa.array(_new_days(days).astype(np.int32), mask=_nulls(values))
        return moved.view(kind)
    if pa.types.is_timestamp(kind):
        return _rebased_timestamps(values, zone)
    return values


def _rebased_timestamps(values: pa.Array, zone: str | None) -> pa.Array:
    per_day = _DAY_US * {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}[values.type.unit] // 10**6
    instants = values.view(pa.int64()).fill_null(0).to_numpy()
    if zone not in _UTC:
        if (instants < _OLD_ZONES_US // _DAY_US * per_day).any():
            where = f"in the zone {zone}" if zone else "in a zone that it does not name"
            raise OldCalendarError(
                f"the file's writer counted days in the old calendar {where}, so the day and "
                "minute of a timestamp before 1900 are not known"
            )
        return values
    days, rest = np.divmod(instants, per_day)
    moved = pa.array(_new_days(days) * per_day + rest, mask=_nulls(values))
    return moved.view(values.type)


def _new_days(
    days: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return days from 1970 with the same labels: two days off before year 100, and so on."""
    old = days < _SWITCH
    if not old.any():
        return days
    if np.isin(days[old], _LEAP_DAYS).any():
        raise OldCalendarError(
            "the file's writer counted days in the old calendar, and a date is 29 February of a "
            "year that has no such day in the new one"
        )
    apart = np.searchsorted(_LEAP_DAYS, days) - 2
    return np.where(old, days - apart, days)


def _nulls(values: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
    return values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
