"""A split: one parallel read of the source.

The splits of an attempt are disjoint and exhaustive: every row of the snapshot that the plan asks
for is in exactly one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def slices(splits: Sequence[Split], connections: int) -> list[list[Split]]:
    """Deal splits into at most ``connections`` slices of about equal bytes.

    Longest first, each to the slice that is lightest so far (Graham's LPT rule), so no slice is
    above 4/3 of the best possible.

    Args:
        splits: All splits of an attempt.
        connections: How many may read at the same time, at least 1.

    Returns:
        Non-empty slices, each in ascending split index; together exactly ``splits``.

    Raises:
        ValueError: ``connections`` is below 1.
    """
    if connections < 1:
        raise ValueError(f"connections must be at least 1, got {connections}")
    loads = [0] * min(connections, len(splits))
    dealt: list[list[Split]] = [[] for _ in loads]
    for split in sorted(splits, key=lambda s: (-s.estimated_bytes, s.index)):
        lightest = min(range(len(loads)), key=lambda i: (loads[i], len(dealt[i])))
        loads[lightest] += split.estimated_bytes
        dealt[lightest].append(split)
    return [sorted(part, key=lambda s: s.index) for part in dealt]
