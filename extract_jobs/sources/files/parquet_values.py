"""Values of Parquet files in the types that they arrive as: leaves, and nested values of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.sources.files.parquet_calendar import OldCalendarError, rebased
from extract_jobs.transform.date_range import out_of_range
from extract_jobs.transform.exact_cast import exact_cast
from extract_jobs.transform.nested import Path, listed

_ADVICE = "leave the column out, or rewrite the file"


def times(values: pa.Array) -> Iterator[pa.Array]:
    """Yield the timestamps at the leaves of a column, in the order of the type."""
    if pa.types.is_timestamp(values.type):
        yield values
    elif pa.types.is_struct(values.type):
        for field in values.flatten():
            yield from times(field)
    elif pa.types.is_nested(values.type):
        yield from times(listed(values).flatten())


@dataclass(frozen=True)
class Leaves:
    """Converts the leaves of a column: all values, or none.

    Attributes:
        column: Its name, for messages.
        uri: The file, for messages.
        truncated: Counts values whose digits below microseconds are cut off, by column; None
            refuses such values.
        hybrid_dates: Whether its dates are of the old calendar.
        hybrid_times: Whether its timestamps are.
        zone: Time zone of the writer, if the file says so.
    """

    column: str
    uri: str
    truncated: dict[str, int] | None
    hybrid_dates: bool
    hybrid_times: bool
    zone: str | None

    def converted(self, values: pa.Array, target: pa.DataType, path: Path = ()) -> pa.Array:
        """Return values of one type, which is not nested, in another.

        Args:
            values: The values.
            target: The type wanted.
            path: Where they are inside of the column.

        Raises:
            TypeNotRepresentable: A value has no faithful form there.
        """
        name = ".".join((self.column, *path))
        where = f"{self.uri}: a value of column {name!r}, of type {values.type},"
        try:
            found = self._cast(values, target)
        except OldCalendarError as error:
            raise TypeNotRepresentable(f"{where} has no sure form: {error}; {_ADVICE}") from None
        except _FinerError:
            raise TypeNotRepresentable(
                f"{where} has no faithful form as {target}, it has digits below microseconds; keep "
                "them with columns.cast to string or int64, cut them off with files.nanoseconds: "
                "truncate, or leave the column out"
            ) from None
        except pa.ArrowInvalid:
            raise TypeNotRepresentable(
                f"{where} has no faithful form as {target}; {_ADVICE}"
            ) from None
        except _OutOfRangeError:
            raise TypeNotRepresentable(f"{where} lies outside years 1 to 9999; {_ADVICE}") from None
        return found

    def _cast(self, values: pa.Array, target: pa.DataType) -> pa.Array:
        if not _is_time(values.type):
            found = exact_cast(rebased(values, self.zone) if self.hybrid_dates else values, target)
            return _in_range(found)
        moments, below = _parts_of(values)
        moments = _in_range(rebased(moments, self.zone) if self.hybrid_times else moments)
        if pa.types.is_string(target):
            return _time_texts(moments, below)
        if pa.types.is_integer(target):
            fine = moments.cast(pa.timestamp("ns", moments.type.tz)).view(pa.int64())
            return pc.add_checked(fine, below)
        cut_off = pc.sum(pc.not_equal(below, 0)).as_py() or 0
        if cut_off and self.truncated is None:
            raise _FinerError
        if cut_off and self.truncated is not None:
            self.truncated[self.column] = self.truncated.get(self.column, 0) + cut_off
        return exact_cast(moments, target)


class _FinerError(Exception):
    """A timestamp has digits below microseconds."""


class _OutOfRangeError(Exception):
    """A date or timestamp lies outside years 1 to 9999."""


def _in_range(values: pa.Array) -> pa.Array:
    if out_of_range(values):
        raise _OutOfRangeError
    return values


def with_nanoseconds(coarse: pa.Array, fine: pa.Array) -> pa.Array:
    """Return INT96, read in microseconds and in nanoseconds that may have wrapped, as one array.

    `Leaves.converted` takes it for timestamps.
    """
    below = pc.subtract(fine.view(pa.int64()), pc.multiply(coarse.view(pa.int64()), 1000))
    return pa.StructArray.from_arrays([coarse, below], _PARTS)


_PARTS = ["microseconds", "nanoseconds"]


def _is_time(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(data_type) or pa.types.is_struct(data_type))


def _parts_of(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return timestamps in microseconds, and the nanoseconds above each, 0 to 999."""
    if pa.types.is_struct(values.type):
        moments, below = values.flatten()
        return moments, below
    unit, zone = values.type.unit, values.type.tz
    if unit != "ns":
        moments = values.cast(pa.timestamp("us", zone))
        return moments, pc.multiply(moments.view(pa.int64()), 0)
    numbers = values.view(pa.int64())
    whole = pc.divide(numbers, 1000)
    # Division rounds towards 0, and time before 1970 is counted backwards.
    low = pc.less(pc.subtract(numbers, pc.multiply(whole, 1000)), 0)
    whole = pc.subtract(whole, low.cast(pa.int64()))
    return whole.view(pa.timestamp("us", zone)), pc.subtract(numbers, pc.multiply(whole, 1000))


def _time_texts(moments: pa.Array, below: pa.Array) -> pa.Array:
    """Return timestamps as text: of six digits behind the point, or of nine if it takes them.

    If they have a zone, whichever it is, the text is in UTC.
    """
    end = "Z" if moments.type.tz else ""
    texts = moments.cast(pa.timestamp("us", "UTC" if end else None)).cast(pa.string())
    if not pc.any(pc.not_equal(below, 0)).as_py():
        return texts
    digits = pc.utf8_lpad(below.cast(pa.string()), 3, "0")
    longer = pc.binary_join_element_wise(pc.utf8_rtrim(texts, "Z"), digits, end, "")
    return pc.if_else(pc.equal(below, 0), texts, longer)


def unwrapped(values: pa.Array) -> pa.Array:
    """Return values without the wrappers that a file's schema puts around them."""
    if pa.types.is_dictionary(values.type):
        return values.dictionary_decode()
    if pa.types.is_run_end_encoded(values.type):
        return pc.run_end_decode(values)
    if isinstance(values.type, pa.UuidType):
        texts = [v and str(uuid.UUID(bytes=v)) for v in values.storage.to_pylist()]
        return pa.array(texts, pa.string())
    wrapped = isinstance(values.type, pa.JsonType | pa.OpaqueType)
    return values.storage if wrapped else values
