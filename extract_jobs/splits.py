"""A split: one parallel read of the source.

The splits of an attempt are disjoint and exhaustive: every row of the snapshot that the plan asks
for is in exactly one of them.
"""

from __future__ import annotations

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
    """

    index: int
    predicate: str | None = None
    estimated_bytes: int = 0
    objects: tuple[ObjectRange, ...] = ()
