"""A split: one parallel read of the source.

The splits of an attempt are disjoint and exhaustive: every row of the snapshot that the plan asks
for is in exactly one of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """One parallel read, picklable and small.

    Attributes:
        index: Position among the attempt's splits, from 0; unique within the attempt.
        predicate: SQL in the source's dialect that selects this split's rows, built by the source
            from its own literals; None reads everything.
        estimated_bytes: What the source thinks the split holds, for balancing slices.
        start_page: For a split by ctid, the first heap page, inclusive.
        end_page: For a split by ctid, the page after the last one; None is open-ended.
    """

    index: int
    predicate: str | None = None
    estimated_bytes: int = 0
    start_page: int | None = None
    end_page: int | None = None
