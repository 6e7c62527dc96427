"""Parquet files: one schema out of all footers, and row groups read as it says."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.sources.files.parquet_batches import (
    bounded_batches,
    open_parquet,
    small_parts,
)
from extract_jobs.sources.files.parquet_calendar import (
    Calendars,
    OldCalendarError,
    calendars_of,
    rebased,
)
from extract_jobs.sources.files.parquet_types import is_geometry, spelled
from extract_jobs.transform.date_range import out_of_range
from extract_jobs.transform.exact_cast import exact_cast
from extract_jobs.transform.types import kind

BATCH_BYTES = 16 * 2**20
"""Arrow bytes of a batch, as the row group's uncompressed size lets expect them."""


@lru_cache(4096)
def arrives_as(data_type: pa.DataType) -> pa.DataType | None:
    """Return the type that values of a file's type arrive as; None where there is none."""
    types = pa.types
    if types.is_dictionary(data_type):
        return arrives_as(data_type.value_type)
    if isinstance(data_type, pa.UuidType | pa.JsonType):
        return pa.string()
    if (
        types.is_list(data_type)
        or types.is_large_list(data_type)
        or types.is_fixed_size_list(data_type)
    ):
        item = arrives_as(data_type.value_type)
        plain = not isinstance(data_type.value_type, pa.BaseExtensionType)
        return pa.list_(item) if plain and item is not None and not types.is_list(item) else None
    if types.is_null(data_type) or kind(data_type) == "string":
        return pa.string()
    is_bytes = kind(data_type) == "binary" or types.is_fixed_size_binary(data_type)
    if is_bytes or is_geometry(data_type):
        return pa.binary()
    if types.is_timestamp(data_type):
        return pa.timestamp("us", "UTC" if data_type.tz else None)
    if types.is_date(data_type):
        return pa.date32()
    if types.is_time(data_type):
        return pa.string()
    if types.is_decimal(data_type):
        fits = data_type.precision <= 38
        return pa.decimal128(data_type.precision, data_type.scale) if fits else pa.string()
    if types.is_unsigned_integer(data_type):
        wider = {8: pa.int16(), 16: pa.int32(), 32: pa.int64()}
        return wider.get(data_type.bit_width, pa.decimal128(20, 0))
    if types.is_float16(data_type):
        return pa.float32()
    plain = types.is_signed_integer(data_type) or types.is_floating(data_type)
    return data_type if plain or types.is_boolean(data_type) else None


def _plain(values: pa.Array) -> pa.Array:
    """Return values without the wrappings that a file's schema puts around them."""
    if pa.types.is_dictionary(values.type):
        return values.dictionary_decode()
    if isinstance(values.type, pa.UuidType):
        texts = [v and str(uuid.UUID(bytes=v)) for v in values.storage.to_pylist()]
        return pa.array(texts, pa.string())
    wrapped = isinstance(values.type, pa.JsonType | pa.OpaqueType)
    return values.storage if wrapped else values


def unified(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Return the type that holds every value of both faithfully; None where there is none."""
    types = pa.types
    if left == right:
        return left
    if types.is_null(left) or types.is_null(right):
        return right if types.is_null(left) else left
    for one, other in ((left, right), (right, left)):
        # Lists of objects that earlier versions wrote have geometries as binary.
        if is_geometry(one) and types.is_binary(other):
            return one
    if types.is_list(left) and types.is_list(right):
        item = unified(left.value_type, right.value_type)
        return item and pa.list_(item)
    if types.is_signed_integer(left) and types.is_signed_integer(right):
        return max(left, right, key=lambda t: t.bit_width)
    if types.is_floating(left) and types.is_floating(right):
        return pa.float64()
    numbers = {t for t in (left, right) if types.is_signed_integer(t)}
    exact = {t for t in (left, right) if types.is_decimal(t)}
    if numbers and {t for t in (left, right) if types.is_floating(t)}:
        return pa.float64() if next(iter(numbers)).bit_width <= 32 else None
    if exact and len(numbers | exact) == 2:
        digits = {8: 3, 16: 5, 32: 10, 64: 19}
        wholes = [t.precision - t.scale for t in exact] + [digits[t.bit_width] for t in numbers]
        scale = max(t.scale for t in exact)
        return pa.decimal128(max(wholes) + scale, scale) if max(wholes) + scale <= 38 else None
    return None


def unify(
    known: dict[str, tuple[pa.DataType, str]], schema: pa.Schema, uri: str, chosen: Iterable[str]
) -> dict[str, tuple[pa.DataType, str]]:
    """Return type and file by column after one more file.

    Args:
        known: Of the files before; the file is one that has the type.
        schema: Of this file.
        uri: This file.
        chosen: Columns that are read; of others any type will do.

    Raises:
        TypeNotRepresentable: A column's type has no faithful form, or none that two files share.
    """
    found, chosen = dict(known), set(chosen)
    for name, raw in zip(schema.names, schema.types, strict=True):
        wanted = arrives_as(raw) or (None if name in chosen else pa.string())
        if is_geometry(raw):
            wanted = raw  # so that files with other reference systems are distinguished
        if wanted is None:
            raise TypeNotRepresentable(
                f"{uri}: column {name!r} is of type {spelled(raw)}, which has no faithful form "
                "here: leave it out with columns.exclude"
            )
        empty = pa.types.is_null(raw)
        before = found.get(name)
        if before is None or (empty and before is not None):
            found.setdefault(name, (pa.null() if empty else wanted, uri))
            continue
        both = unified(before[0], wanted)
        if both is None and name in chosen:
            raise TypeNotRepresentable(
                f"column {name!r} is {spelled(before[0])} in {before[1]} and {spelled(wanted)} in "
                f"{uri}, and no type "
                "holds both faithfully: write one of them anew, narrow files.glob, or leave the "
                "column out with columns.exclude"
            )
        if both is not None and both != before[0]:
            found[name] = (both, uri)
    return found


def group_bytes(metadata: pq.FileMetaData) -> tuple[int, ...]:
    """Return the stored bytes of each row group."""
    return tuple(
        sum(
            metadata.row_group(g).column(c).total_compressed_size
            for c in range(metadata.num_columns)
        )
        for g in range(metadata.num_row_groups)
    )


def read_groups(
    file: IO[bytes], groups: range | None, columns: Sequence[Column], uri: str
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some row groups; columns that the file lacks are NULL.

    Raises:
        TypeNotRepresentable: A value does not fit the column's type.
    """
    with open_parquet(file) as opened:
        names = frozenset(opened.schema_arrow.names)
        present = [c.name for c in columns if c.name in names]
        old = _int96(opened.schema, present)
        calendars = calendars_of(opened.metadata.metadata)
        metadata = opened.metadata
        for group in groups if groups is not None else range(metadata.num_row_groups):
            about = metadata.row_group(group)
            width = max(1, about.total_byte_size // max(1, about.num_rows))
            size = max(1, min(100_000, BATCH_BYTES // width))
            nanoseconds = _Nanoseconds(file, group, old, uri) if old else None
            for batch in bounded_batches(file, opened, group, present, size):
                if nanoseconds:
                    nanoseconds.check(batch)
                for part in small_parts(batch, BATCH_BYTES):
                    yield _conformed(part, columns, uri, calendars, old)


def _int96(schema: pq.ParquetSchema, names: Sequence[str]) -> frozenset[str]:
    """Return the columns that are, or hold, timestamps of the physical type INT96."""
    leaves = [schema.column(i) for i in range(len(schema))]
    paths = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    return frozenset(
        name for name in names for path in paths if path == name or path.startswith(f"{name}.")
    )


class _Nanoseconds:
    """Refuses INT96 that has digits below microseconds, which reading in those cuts off.

    In nanoseconds values far from today wrap around at 64 bits, and so do microseconds times 1,000:
    they agree wherever nothing was cut off.
    """

    def __init__(self, file: IO[bytes], group: int, names: frozenset[str], uri: str) -> None:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            self._table = opened.read_row_group(group, columns=sorted(names), use_threads=False)
        self._at, self._uri = 0, uri

    def check(self, batch: pa.RecordBatch) -> None:
        """Check the rows that follow those of the last call."""
        rows = self._table.slice(self._at, batch.num_rows)
        self._at += batch.num_rows
        for name in rows.schema.names:
            fine = _integers(rows.column(name).combine_chunks())
            coarse = _integers(batch.column(name))
            if (coarse * np.int64(1000) != fine).any():
                raise TypeNotRepresentable(
                    f"{self._uri}: a value of column {name!r}, of type INT96, has digits below "
                    "microseconds, which would be lost; leave the column out, or write the file "
                    "anew"
                )


def _integers(values: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    while pa.types.is_list(values.type):
        values = values.flatten()
    numbers = values.drop_null().view(pa.int64())
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = numbers.to_numpy()
    return found


def _conformed(
    batch: pa.RecordBatch,
    columns: Sequence[Column],
    uri: str,
    calendars: Calendars,
    int96: frozenset[str],
) -> pa.RecordBatch:
    arrays = []
    positions = {name: position for position, name in enumerate(batch.schema.names)}
    for column in columns:
        if column.name not in positions:
            arrays.append(pa.nulls(batch.num_rows, column.arrow_type))
            continue
        values = _plain(batch.column(positions[column.name]))
        where = f"{uri}: a value of column {column.name!r}, of type {values.type},"
        advice = "leave the column out, or write the file anew"
        try:
            if calendars.hybrid_int96 if column.name in int96 else calendars.hybrid:
                values = rebased(values, calendars.zone)
            arrays.append(exact_cast(values, column.arrow_type))
        except OldCalendarError as error:
            raise TypeNotRepresentable(f"{where} has no sure form: {error}; {advice}") from None
        except pa.ArrowInvalid:
            raise TypeNotRepresentable(
                f"{where} has no faithful form as {column.arrow_type}; {advice}"
            ) from None
        if out_of_range(arrays[-1]):
            raise TypeNotRepresentable(f"{where} lies outside years 1 to 9999; {advice}")
    return pa.RecordBatch.from_arrays(arrays, names=[c.name for c in columns])
