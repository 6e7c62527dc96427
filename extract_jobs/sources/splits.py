"""A split: one parallel read of the source.

The splits of an attempt are disjoint and exhaustive: every row of the snapshot that the plan
requests is in exactly one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
    """

    index: int
    predicate: str | None = None
    estimated_bytes: int = 0
    objects: tuple[ObjectRange, ...] = ()
    note: str = ""


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
