"""A split: one parallel read of the source.

The splits of an attempt are disjoint and exhaustive: every row of the snapshot that the plan
requests is in exactly one of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from extract_jobs.spec.parts import SplitSpec

SMALLEST_BYTES = 32 * 2**20
"""Splits are not made smaller than this only to occupy another core."""
SMALLEST_PARQUET_BYTES = 12 * 2**20
"""The same for Parquet, which is compressed: a byte of it is several bytes of rows."""

RANGE_BYTES = 16 * 2**20
SMALL_TABLE_RANGES = 32
"""With `reuse`, a table of fewer ranges of the size that the spec asks for has so many smaller
ones, down to `RANGE_BYTES`, so that a small change does not make a run read a large part of it."""

HANDFUL_BYTES = 128 * 2**20
"""Maximum size of several splits that one task reads. Reading it takes seconds, and a task of Spark
a quarter of one to start; what a lost task has read is read again."""


@dataclass(frozen=True)
class ObjectRange:
    """One file of a file drop, or a part of it.

    Attributes:
        uri: Where it is.
        etag: Its ETag when it was listed; a file whose ETag has changed is not read.
        size: Bytes of the whole file.
        start: First byte of the part, inclusive; for Parquet the first row group.
        end: The byte, or row group, after the part's last; None is the file's end.
    """

    uri: str
    etag: str
    size: int
    start: int = 0
    end: int | None = None


@dataclass(frozen=True)
class Split:
    """One parallel read, picklable and small.

    Attributes:
        index: Position among the attempt's splits, from 0; unique within the attempt.
        predicate: SQL in the source's dialect that selects this split's rows, built by the source
            from its own literals; None reads everything.
        estimated_bytes: The source's estimate of the split's size, for balancing slices.
        objects: What a split of a file drop reads, in this order; empty for databases.
        note: Of a single split, why the table was not split; empty if that is expected.
        table: SQL of the table that is read in place of the request's, one of its partitions; None
            for the request's own.
    """

    index: int
    predicate: str | None = None
    estimated_bytes: int = 0
    objects: tuple[ObjectRange, ...] = ()
    note: str = ""
    table: str | None = None


def slices(splits: Sequence[Split], count: int) -> list[tuple[Split, ...]]:
    """Group the splits into runs of neighbours with about the same estimated bytes.

    Neighbours, because rows that were written together are often in the same partitions.

    Args:
        splits: At least one.
        count: Maximum slices, at least 1.

    Returns:
        All splits in their order, without empty slices: ``count`` of them, or one for each split
        if there are fewer.
    """
    found: list[tuple[Split, ...]] = []
    rest = list(splits)
    for left in range(min(count, len(rest)), 0, -1):
        # A source without estimates gives 0: then every split counts the same.
        share = sum(max(split.estimated_bytes, 1) for split in rest) / left
        taken, size = 1, max(rest[0].estimated_bytes, 1)
        while left > 1 and len(rest) - taken > left - 1:
            following = max(rest[taken].estimated_bytes, 1)
            if size + following / 2 > share:
                break
            taken, size = taken + 1, size + following
        end = taken if left > 1 else len(rest)
        found.append(tuple(rest[:end]))
        rest = rest[end:]
    return found


def handfuls(splits: Sequence[Split], connections: int) -> list[tuple[Split, ...]]:
    """Group small splits into runs of neighbours, where starting a task costs as much as reading.

    Args:
        splits: At least one.
        connections: How many are read at a time.

    Returns:
        All splits in their order, in groups of at most `HANDFUL_BYTES`, and of at most half of a
        connection's share; a larger split is alone. If a size is unknown, every split is.
    """
    if not all(split.estimated_bytes for split in splits):
        return [(split,) for split in splits]
    total = sum(split.estimated_bytes for split in splits)
    most = min(HANDFUL_BYTES, total // (2 * connections))
    found: list[tuple[Split, ...]] = []
    size = 0
    for split in splits:
        if found and size + split.estimated_bytes <= most:
            found[-1] += (split,)
            size += split.estimated_bytes
        else:
            found.append((split,))
            size = split.estimated_bytes
    return found


def cores() -> int:
    """Return how many threads of this process can run at a time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split_count(wanted: SplitSpec, total: int, smallest: int = SMALLEST_BYTES) -> int:
    """Return how many splits there are: at least one, none larger than the spec wants.

    There are more if some cores of this machine would otherwise have no split, or one less than
    others; but not for that below ``smallest``.

    Args:
        wanted: What the spec says.
        total: Bytes of everything that is read.
        smallest: Bytes whose work is worth another worker process.
    """
    count = max(1, -(-total // wanted.target_bytes))
    busy = min(cores(), wanted.max_connections)
    even = -(-count // busy) * busy
    return max(count, min(even, total // smallest))


def split_bytes(wanted: SplitSpec, total: int, smallest: int = SMALLEST_BYTES) -> int:
    """Return the size of such splits: what the spec wants, or less if there are more of them."""
    each = total // split_count(wanted, total, smallest)
    return min(wanted.target_bytes, max(smallest, each))
