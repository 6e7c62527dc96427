"""Values of Parquet files in the types that they arrive as: leaves, and what is built of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.sources.files.parquet_calendar import OldCalendarError, rebased
from extract_jobs.transform.date_range import out_of_range
from extract_jobs.transform.exact_cast import exact_cast
from extract_jobs.transform.nested import listed, offsets_of

_ADVICE = "leave the column out, or write the file anew"


def rebuilt(
    values: pa.Array, target: pa.DataType, leaf: Callable[[pa.Array, pa.DataType], pa.Array]
) -> pa.Array:
    """Return values in another type of the same nesting.

    Args:
        values: As Arrow reads them.
        target: From `arrives_as`; of structs it may have more fields, which are NULL.
        leaf: Converts values that are neither lists, maps nor structs.
    """
    values, types = _plain(values), pa.types
    if not types.is_nested(target):
        return leaf(values, target)
    if types.is_null(values.type):
        return pa.nulls(len(values), target)
    if types.is_struct(target):
        names = [field.name for field in values.type]
        # Flattened, so that nothing below a struct that is NULL is looked at.
        given = dict(zip(names, values.flatten(), strict=True))
        inner = [
            rebuilt(given[field.name], field.type, leaf)
            if field.name in given
            else pa.nulls(len(values), field.type)
            for field in target
        ]
        return pa.StructArray.from_arrays(inner, fields=list(target), mask=values.is_null())
    missing, values = values.is_null(), listed(values)
    offsets, items = offsets_of(values), values.flatten()
    if types.is_map(target):
        keys, inner = (
            rebuilt(part, field, leaf)
            for part, field in zip(
                items.flatten(), (target.key_type, target.item_type), strict=True
            )
        )
        return pa.MapArray.from_arrays(offsets, keys, inner, type=target, mask=missing)
    inner = rebuilt(items, target.value_type, leaf)
    return pa.ListArray.from_arrays(offsets, inner, type=target, mask=missing)


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
    """Converts the leaves of a column, each value or none.

    Attributes:
        column: Its name, for messages.
        uri: The file, for messages.
        hybrid: Whether its dates and timestamps are of the old calendar.
        zone: Time zone of the writer, if the file says so.
    """

    column: str
    uri: str
    hybrid: bool
    zone: str | None

    def converted(self, values: pa.Array, target: pa.DataType) -> pa.Array:
        """Return values of one type, which is no nested one, in another.

        Raises:
            TypeNotRepresentable: A value has no faithful form there.
        """
        where = f"{self.uri}: a value of column {self.column!r}, of type {values.type},"
        try:
            found = exact_cast(rebased(values, self.zone) if self.hybrid else values, target)
        except OldCalendarError as error:
            raise TypeNotRepresentable(f"{where} has no sure form: {error}; {_ADVICE}") from None
        except pa.ArrowInvalid:
            raise TypeNotRepresentable(
                f"{where} has no faithful form as {target}; {_ADVICE}"
            ) from None
        if out_of_range(found):
            raise TypeNotRepresentable(f"{where} lies outside years 1 to 9999; {_ADVICE}")
        return found


def _plain(values: pa.Array) -> pa.Array:
    """Return values without the wrappings that a file's schema puts around them."""
    if pa.types.is_dictionary(values.type):
        return values.dictionary_decode()
    if pa.types.is_run_end_encoded(values.type):
        return pc.run_end_decode(values)
    if isinstance(values.type, pa.UuidType):
        texts = [v and str(uuid.UUID(bytes=v)) for v in values.storage.to_pylist()]
        return pa.array(texts, pa.string())
    wrapped = isinstance(values.type, pa.JsonType | pa.OpaqueType)
    return values.storage if wrapped else values
