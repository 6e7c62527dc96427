"""A split: one parallel read of the source.

The splits of an attempt are disjoint and exhaustive: every row of the snapshot that the plan asks
for is in exactly one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectRange:
    """One file of a file drop, or a part of it.

    Attributes:
        uri: Where it is.
        etag: Its ETag when it was listed; a file that has another one by now is not read.
        size: Bytes of the whole file.
        start: First byte of the part, inclusive; of Parquet the first row group.
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
        estimated_bytes: What the source thinks the split holds, for balancing slices.
        objects: What a split of a file drop reads, in this order; empty for databases.
        note: Of an only split, why the source was not cut; empty where that needs no word.
    """

    index: int
    predicate: str | None = None
    estimated_bytes: int = 0
    objects: tuple[ObjectRange, ...] = ()
    note: str = ""


def slices(splits: Sequence[Split], count: int) -> list[tuple[Split, ...]]:
    """Cut the splits into runs of neighbours whose estimated bytes are about the same.

    Neighbours, because rows that were written together are often of the same partitions.

    Args:
        splits: At least one.
        count: Most slices, at least 1.

    Returns:
        All splits in their order, none of the slices empty: ``count`` of them, or one for each
        split where there are fewer.
    """
    found: list[tuple[Split, ...]] = []
    rest = list(splits)
    for left in range(min(count, len(rest)), 0, -1):
        # A source that estimates nothing gives 0: then every split counts the same.
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
