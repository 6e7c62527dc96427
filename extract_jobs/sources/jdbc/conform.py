"""Converts Spark's batches to batches of the request's columns.

Dates and times arrive as text that the server formats, because JDBC's own classes read a wall clock
in the JVM's zone: an hour that daylight saving skips would arrive as another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.transform.exact_cast import exact_cast

_FORM = (
    r"^[ +]?([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ T]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{0,6})0*)?)?"
    r" ?(?:Z|UTC|\+0?0(?::?00)?)?$"
)
_PARTS = _FORM.replace("(", "(?P<day>", 1).replace("(?:[ T](", "(?:[ T](?P<time>", 1)
_PARTS = _PARTS.replace(r"\.([0-9]", r"\.(?P<fraction>[0-9]", 1)
_YEAR_0 = "0000"


@dataclass(frozen=True)
class JdbcConform:
    """Converts batches to the request's columns. Picklable; has no connection.

    Attributes:
        columns: The request's columns, in the order of the batches.
        null_what_fails: Columns whose values without a faithful form become NULL.
    """

    columns: tuple[Column, ...]
    null_what_fails: frozenset[str]

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Mapping[str, int]]:
        """Return a batch in the request's columns, and the values that became NULL, by column.

        Raises:
            TypeNotRepresentable: A value has no faithful form and ``lossy_types`` is ``refuse``.
        """
        arrays, nulled = [], {}
        for column, values in zip(self.columns, batch.columns, strict=True):
            if pa.types.is_temporal(column.arrow_type):
                found, lost = parse(values, column.arrow_type)
                if lost and column.name not in self.null_what_fails:
                    raise _refused(column)
                if lost:
                    nulled[column.name] = lost
            else:
                found = _exact(values, column)
            arrays.append(found)
        schema = pa.schema([pa.field(c.name, c.arrow_type, c.nullable) for c in self.columns])
        return pa.RecordBatch.from_arrays(arrays, schema=schema), nulled


def _exact(values: pa.Array, column: Column) -> pa.Array:
    with contextlib.suppress(pa.ArrowInvalid):  # its message quotes the value
        return exact_cast(values, column.arrow_type)
    raise TypeNotRepresentable(
        f"column {column.name} ({column.source_type}) holds a value with more digits than its "
        f"driver says: cast it to {column.arrow_type} or to text in a query, or exclude it"
    )


def parse(texts: pa.Array, target: pa.DataType) -> tuple[pa.Array, int]:
    """Parse dates or timestamps from the server's text; invalid ones become NULL and are counted.

    Args:
        texts: ISO 8601, with a blank or a T; fractions of any length whose digits beyond the sixth
            are zeros; of instants the wall clock in UTC, with or without its offset.
        target: ``date32``, or a timestamp in microseconds.
    """
    naive = pa.date32() if pa.types.is_date(target) else pa.timestamp("us")
    try:
        found = _checked(texts, texts.cast(naive))
    except pa.ArrowInvalid:  # its message quotes the value
        found = None
    if found is None:
        parts = pc.extract_regex(texts, pattern=_PARTS)
        day, time, fraction = (pc.struct_field(parts, name) for name in ("day", "time", "fraction"))
        if pa.types.is_date(naive):
            # A value with a time of day other than midnight is not a date.
            whole = pc.and_(
                pc.match_substring_regex(time, "^(00:00:00)?$"),
                pc.match_substring_regex(fraction, "^0*$"),
            )
            joined = pc.if_else(whole, day, pa.scalar(None, pa.string()))
        else:
            time = pc.if_else(pc.equal(time, ""), "00:00:00", time)
            fraction = pc.utf8_rpad(fraction, 6, "0")
            joined = pc.binary_join_element_wise(day, " ", time, ".", fraction, "")
            joined = pc.replace_substring(joined, pattern=" .", replacement=" ")
        found = _one_by_one(joined, naive)
    lost = found.null_count - texts.null_count
    # The wall clock was in UTC.
    return (found.cast(target) if pa.types.is_date(naive) else found.view(target)), lost


def _checked(texts: pa.Array, found: pa.Array) -> pa.Array | None:
    """Return the parsed values; None if a text has the year 0, which Arrow accepts."""
    if pc.any(pc.starts_with(texts, pattern=_YEAR_0)).as_py():
        return None
    return found


def _one_by_one(texts: pa.Array, naive: pa.DataType) -> pa.Array:
    """Parse well-formed texts; days and times that do not exist become NULL."""
    texts = pc.if_else(pc.starts_with(texts, pattern=_YEAR_0), pa.scalar(None, pa.string()), texts)
    try:
        return texts.cast(naive)
    except pa.ArrowInvalid:
        return pa.array([_value(text, naive) for text in texts.to_pylist()], naive)


def _value(text: str | None, naive: pa.DataType) -> object:
    try:
        moment = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.date() if moment and pa.types.is_date(naive) else moment


def _refused(column: Column) -> TypeNotRepresentable:
    what = (
        "a value that is infinite, not a valid date, or outside years 1 to 9999"
        if pa.types.is_date(column.arrow_type)
        else "a value that is infinite, finer than microseconds, not a valid time, or outside "
        "years 1 to 9999"
    )
    return TypeNotRepresentable(
        f"column {column.name} ({column.source_type}) holds {what}. Set lossy_types: null to write "
        f"NULL for it, set columns: {{cast: {{{column.name}: string}}}} to use the server's "
        "text, or leave such rows out with where"
    )
