"""The keys by which rows of an Iceberg table are replaced and deleted.

A key is the values of `columns.key` in the form that files hold, compared byte by byte: what a
collation of the source takes for equal is not. It is kept as a digest of 128 bits, as
`extract_jobs.commit.deduplication` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.commit.deduplication import digests, digests_of, joined
from extract_jobs.errors import ConfigError, SourceMoved
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.transform import Transform

MAX_KEYS = 16_000_000
"""Number of keys, of 16 bytes each, that a run may change, and that it may compare for deletes."""

_NAME_THEM = "Name the columns that identify a row"

Digests = npt.NDArray[np.bytes_]
Range = tuple[Any, Any] | None
"""Least and greatest value of a column, as Iceberg's bounds have it; None if that is not known."""


@dataclass(frozen=True)
class MergeKey:
    """The columns that identify a row. Picklable.

    Attributes:
        columns: Their names in the source.
        file_columns: Their names in the files.
        collects: Whether keys are collected; otherwise they are only checked for NULL.
    """

    columns: tuple[str, ...]
    file_columns: tuple[str, ...]
    collects: bool

    @classmethod
    def of(cls, spec: ExtractSpec, *, collects: bool) -> MergeKey:
        """Return the key of a spec."""
        names = tuple(spec.columns.rename.get(name, name) for name in spec.columns.key)
        return cls(spec.columns.key, names, collects)

    def values(self, batch: pa.RecordBatch, transform: Transform) -> list[pa.Array]:
        """Return the key's columns of a source batch, as files hold them.

        Raises:
            ConfigError: A value is NULL, so the columns do not identify rows.
        """
        found = transform.stored(batch, self.columns)
        for name, column in zip(self.columns, found, strict=True):
            if column.null_count:
                raise ConfigError(
                    f"columns.key: {name} holds NULL in {column.null_count} rows of a batch, so it "
                    "cannot identify rows; nothing was committed. Name columns that are never NULL"
                )
        return found


@dataclass(frozen=True, eq=False)
class Keys:
    """Keys of some rows. Picklable.

    Attributes:
        digests: One for each row, in any order.
        ranges: Of each column's values.
    """

    digests: Digests
    ranges: tuple[Range, ...]


class KeyCollector:
    """Collects the keys of the rows of a split."""

    def __init__(self, key: MergeKey) -> None:
        self._key = key
        self._digests: list[Digests] = []
        self._ranges: list[Range] | None = None
        self._count = 0

    def add(self, batch: pa.RecordBatch, transform: Transform) -> None:
        """Add a source batch's rows.

        Raises:
            ConfigError: A key is NULL, or there are too many.
        """
        values = self._key.values(batch, transform)
        if not self._key.collects or not batch.num_rows:
            return
        self._count += batch.num_rows
        refuse_too_many(self._count)
        self._digests.append(digests_of(joined(values)))
        found = [range_of(column) for column in values]
        before = self._ranges
        self._ranges = found if before is None else list(map(_both, before, found))

    def keys(self) -> Keys | None:
        """Return what was collected; None if nothing was to be."""
        if not self._key.collects:
            return None
        return Keys(joined_digests(self._digests), tuple(self._ranges or ()))


def refuse_too_many(count: int) -> None:
    """Check the number of rows that a run merges.

    Raises:
        ConfigError: There are more than `MAX_KEYS`.
    """
    if count > MAX_KEYS:
        raise ConfigError(
            f"the interval has more than {MAX_KEYS:,} rows, and merging holds the keys of all in "
            "memory; nothing was committed. Go in steps, with watermark.upper, or replace the "
            "table once: extract-jobs run --set mode=full"
        )


def changed_keys(some: Sequence[Keys], *, one_moment: bool) -> Keys:
    """Return the keys of all rows that a run has read, sorted.

    Args:
        some: Of each split.
        one_moment: Whether all splits saw one state of the source.

    Raises:
        ConfigError: Two rows have the same key.
        SourceMoved: They do, and may be one row of the source.
    """
    found = joined_digests([keys.digests for keys in some])
    found.sort()  # in place: there may be many
    doubled = int((found[1:] == found[:-1]).sum())
    if doubled:
        text = (
            f"columns.key: {doubled:,} of the {len(found):,} rows that were read have the same key "
            "as another row, so it is not the row's key in the source"
        )
        if one_moment:
            raise ConfigError(f"{text}; nothing was committed. {_NAME_THEM}")
        raise SourceMoved(
            f"{text}, or rows moved from one split to another while they were read; nothing was "
            f"committed. Run again. If it repeats: {_NAME_THEM}"
        )
    ranges: list[Range] | None = None
    for keys in some:
        if keys.ranges:
            ranges = list(keys.ranges) if ranges is None else list(map(_both, ranges, keys.ranges))
    return Keys(found, tuple(ranges or ()))


def source_keys(batches: Iterable[pa.RecordBatch], key: MergeKey, transform: Transform) -> Digests:
    """Return the keys of all rows of the source, sorted.

    Args:
        batches: The key's columns of all rows.
        key: The columns.
        transform: Converts values to the form that files hold.

    Raises:
        ConfigError: There are more than `MAX_KEYS`, one is NULL, or two are the same.
    """
    found: list[Digests] = []
    count = 0
    for batch in batches:
        count += batch.num_rows
        if count > MAX_KEYS:
            raise ConfigError(
                f"deletes: detect holds the keys of all rows of the source in memory, and there "
                f"are more than {MAX_KEYS:,}; nothing was committed. Leave it out, and replace the "
                "table from time to time: extract-jobs run --set mode=full"
            )
        found.append(digests_of(joined(key.values(batch, transform))))
    merged = joined_digests(found)
    found.clear()
    merged.sort()
    doubled = int((merged[1:] == merged[:-1]).sum())
    if doubled:
        raise ConfigError(
            f"columns.key: {doubled:,} of the source's {len(merged):,} rows have the same key as "
            f"another row, so it is not the row's key; nothing was committed. {_NAME_THEM}"
        )
    return merged


def keys_of_rows(values: Sequence[pa.Array]) -> Digests:
    """Return the key of each row of a file. A row with a NULL in its key has one that none has."""
    return digests_of(pc.fill_null(joined(values), pa.scalar(b"", pa.large_binary())))


def places(wanted: Digests, within: Digests) -> npt.NDArray[np.int64]:
    """Return for each key its place among sorted ones, or -1."""
    if not len(within):
        return np.full(len(wanted), -1, np.int64)
    at = np.searchsorted(within, wanted)
    at = np.where(at < len(within), at, 0)
    return np.where(within[at] == wanted, at, -1)


def joined_digests(some: Sequence[Digests]) -> Digests:
    """Return several lists of digests as one."""
    return np.concatenate([digests([]), *some])


def range_of(values: pa.Array) -> Range:
    """Return the least and greatest of some values, in the form of Iceberg's bounds.

    Numbers stay what they are, dates and timestamps are their days and microseconds since 1970,
    texts are UTF-8. Other types have none.
    """
    kind = values.type
    if pa.types.is_date32(kind):
        values = values.cast(pa.int32())
    elif pa.types.is_timestamp(kind) and kind.unit == "us":
        values = values.cast(pa.int64())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = values.cast(pa.large_binary())
    elif not (pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        return None
    found = pc.min_max(values).as_py()
    return None if found["min"] is None else (found["min"], found["max"])


def _both(one: Range, other: Range) -> Range:
    if one is None or other is None:
        return None
    return min(one[0], other[0]), max(one[1], other[1])


def key_problems(columns: Sequence[str], schema: pa.Schema) -> Iterator[str]:
    """Yield which columns of the files cannot be in a key."""
    for name in columns:
        kind = schema.field(name).type
        if pa.types.is_floating(kind) or pa.types.is_nested(kind):
            yield (
                f"columns.key: {name} is {kind}, whose values cannot be compared byte by byte: "
                "cast it in columns.cast, or name other columns"
            )
