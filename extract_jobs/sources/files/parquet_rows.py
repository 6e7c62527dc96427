"""Parquet files: one schema from all footers, and row groups read with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from extract_jobs.errors import SourceQueryFailed, TypeNotRepresentable
from extract_jobs.parquet_footer import Footer, read_footer
from extract_jobs.schema import Column
from extract_jobs.sources.files.parquet_batches import (
    bounded_batches,
    open_parquet,
    small_parts,
)
from extract_jobs.sources.files.parquet_calendar import (
    Calendars,
    calendars_of,
)
from extract_jobs.sources.files.parquet_types import (
    VARIANT,
    arrives_as,
    file_types,
    is_geometry,
    spelled,
    unified,
    without_form,
)
from extract_jobs.sources.files.parquet_values import Leaves, times, unwrapped, with_nanoseconds
from extract_jobs.sources.files.parquet_variant import DamagedVariantError, variant_texts
from extract_jobs.transform.nested import rebuilt
from extract_jobs.transform.sizes import fixed_bytes

_AT_A_TIME = 10_000
"""Rows whose INT96 is read at a time."""


def unify(
    known: dict[str, tuple[pa.DataType, str]],
    schema: pa.Schema,
    uri: str,
    chosen: Iterable[str],
    refused: dict[str, str],
    *,
    as_json: Collection[str] = (),
) -> dict[str, tuple[pa.DataType, str]]:
    """Return type and file by column after one more file.

    Args:
        known: From earlier files; the file is one that has the type.
        schema: This file's schema.
        uri: This file.
        chosen: Columns that are read; others may have any type.
        refused: Receives, by column, why it cannot be read: its type has no faithful form, or two
            files share none.
        as_json: Columns that become JSON, which VARIANT can only arrive as.
    """
    found, chosen = dict(known), set(chosen)
    for name, raw in zip(schema.names, schema.types, strict=True):
        wanted = arrives_as(raw, to_merge=True) or (None if name in chosen else pa.string())
        if is_geometry(raw) or (raw == VARIANT and name in as_json):
            wanted = raw  # so that files with different reference systems are told apart
        if wanted is None:
            inside = [f"{name + path!r} is of type {spelled(t)}" for path, t in without_form(raw)]
            way_out = ": make it text with columns.cast to json" if raw == VARIANT else ""
            refused.setdefault(
                name, f"{uri}: column {', '.join(inside)}, which has no faithful form here{way_out}"
            )
            continue
        before = found.setdefault(name, (wanted, uri))
        both = unified(before[0], wanted)
        if both is None and name in chosen:
            refused.setdefault(
                name,
                f"column {name!r} is {spelled(before[0])} in {before[1]} and {spelled(wanted)} in "
                f"{uri}, and no type holds both faithfully",
            )
        if both is not None and both != before[0]:
            found[name] = (both, uri)
    return found


def refuse_types(refused: dict[str, str]) -> None:
    """Refuse all columns that `unify` found to be unreadable.

    Raises:
        TypeNotRepresentable: There are some; the message has each with its types and files.
    """
    if refused:
        raise TypeNotRepresentable(
            f"{'; '.join(refused.values())}. Leave such columns out with columns.exclude, narrow "
            "files.glob, or rewrite the files"
        )


def group_bytes(footer: Footer) -> tuple[int, ...]:
    """Return the stored bytes of each row group, without those of encrypted columns."""
    encrypted = footer.encrypted
    return tuple(
        sum(chunk.compressed for at, chunk in enumerate(group) if at not in encrypted)
        for group in footer.groups
    )


def read_groups(
    file: IO[bytes],
    groups: range | None,
    columns: Sequence[Column],
    uri: str,
    truncated: dict[str, int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some row groups; columns that the file lacks are NULL.

    Args:
        file: The file.
        groups: Numbers of the row groups; None reads all.
        columns: What batches have.
        uri: The file, for messages.
        truncated: As in `Leaves`.

    Raises:
        TypeNotRepresentable: A value does not fit the column's type, or the column is encrypted.
    """
    footer = read_footer(file)
    with open_parquet(file, footer.metadata) as opened:
        names = frozenset(opened.schema_arrow.names)
        present = [c.name for c in columns if c.name in names]
        footer.refuse_encrypted(present, uri)
        old = _int96(opened.schema, present)
        calendars = calendars_of(opened.metadata.metadata)
        variants = {name for name, found in file_types(opened).items() if found == VARIANT}
        metadata = opened.metadata
        absent = sum(fixed_bytes(c.arrow_type) for c in columns if c.name not in names)
        for group in groups if groups is not None else range(metadata.num_row_groups):
            nanoseconds = (
                _Nanoseconds(file, metadata, group, old, uri, truncated=truncated) if old else None
            )
            for batch in bounded_batches(file, opened, footer, group, present, absent_bytes=absent):
                whole = nanoseconds.added_to(batch) if nanoseconds else batch
                whole = _with_json(whole, variants, uri)
                for part in small_parts(whole):
                    yield _conformed(part, columns, uri, calendars, int96=old, truncated=truncated)


def _with_json(batch: pa.RecordBatch, variants: Collection[str], uri: str) -> pa.RecordBatch:
    """Return a batch with its VARIANT columns as JSON.

    Raises:
        SourceQueryFailed: A value is damaged.
        TypeNotRepresentable: A date or time inside lies outside years 1 to 9999.
    """
    for position, name in enumerate(batch.schema.names):
        if name not in variants:
            continue
        where = f"{uri}: a value of column {name!r}, of type VARIANT,"
        try:
            texts = variant_texts(batch.column(position))
        except DamagedVariantError as error:
            raise SourceQueryFailed(f"{where} is damaged ({error}); rewrite the file") from None
        except OverflowError:
            raise TypeNotRepresentable(
                f"{where} holds a date or time outside years 1 to 9999; leave the column out, or "
                "rewrite the file"
            ) from None
        batch = batch.set_column(position, name, texts)
    return batch


def _int96(schema: pq.ParquetSchema, names: Sequence[str]) -> frozenset[str]:
    """Return the columns that are or contain timestamps of the physical type INT96."""
    leaves = [schema.column(i) for i in range(len(schema))]
    paths = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    return frozenset(
        name for name in names for path in paths if path == name or path.startswith(f"{name}.")
    )


class _Nanoseconds:
    """Finds the digits of INT96 below microseconds, which reading in microseconds drops.

    In nanoseconds values far from today wrap around at 64 bits, and so do microseconds times 1,000:
    they agree wherever nothing was dropped.
    """

    def __init__(
        self,
        file: IO[bytes],
        metadata: pq.FileMetaData,
        group: int,
        names: frozenset[str],
        uri: str,
        *,
        truncated: dict[str, int] | None,
    ) -> None:
        self._truncated, self._uri = truncated, uri
        opened = pq.ParquetFile(file, metadata=metadata, pre_buffer=False)
        self._batches = opened.iter_batches(
            _AT_A_TIME, row_groups=[group], columns=sorted(names), use_threads=False
        )
        self._read = pa.table({})

    def added_to(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with the nanoseconds of INT96. Its rows follow those of the last call.

        Raises:
            TypeNotRepresentable: INT96 inside of another column has such digits, and cutting them
                off is not allowed.
        """
        while self._read.num_rows < batch.num_rows:
            more = pa.Table.from_batches([next(self._batches)])
            self._read = pa.concat_tables([self._read, more]) if self._read.num_rows else more
        rows = self._read.slice(0, batch.num_rows)
        self._read = self._read.slice(batch.num_rows)
        for name in rows.schema.names:
            found = rows.column(name).combine_chunks()
            if pa.types.is_timestamp(found.type):
                both = with_nanoseconds(batch.column(name), found)
                batch = batch.set_column(batch.schema.get_field_index(name), name, both)
                continue
            for small, large in zip(times(found), times(batch.column(name)), strict=True):
                if small.type.unit == large.type.unit:
                    continue  # not INT96
                cut_off = int((_integers(large) * np.int64(1000) != _integers(small)).sum())
                if cut_off and self._truncated is None:
                    raise TypeNotRepresentable(
                        f"{self._uri}: a value of column {name!r}, of type INT96, has digits below "
                        "microseconds; cut them off with files.nanoseconds: truncate, or leave the "
                        "column out"
                    )
                if cut_off and self._truncated is not None:
                    self._truncated[name] = self._truncated.get(name, 0) + cut_off
        return batch


def _integers(values: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    found: np.ndarray[tuple[int], np.dtype[np.int64]]
    found = values.drop_null().view(pa.int64()).to_numpy()
    return found


def _conformed(
    batch: pa.RecordBatch,
    columns: Sequence[Column],
    uri: str,
    calendars: Calendars,
    *,
    int96: frozenset[str],
    truncated: dict[str, int] | None,
) -> pa.RecordBatch:
    arrays = []
    positions = {name: position for position, name in enumerate(batch.schema.names)}
    for column in columns:
        if column.name not in positions:
            arrays.append(pa.nulls(batch.num_rows, column.arrow_type))
            continue
        # A struct with INT96 may have dates beside it.
        hybrid = calendars.hybrid_int96 if column.name in int96 else calendars.hybrid
        leaves = Leaves(
            column.name,
            uri,
            truncated,
            hybrid_dates=calendars.hybrid,
            hybrid_times=hybrid,
            zone=calendars.zone,
        )
        values = batch.column(positions[column.name])
        arrays.append(rebuilt(values, column.arrow_type, leaves.converted, before=unwrapped))
    return pa.RecordBatch.from_arrays(arrays, names=[c.name for c in columns])
