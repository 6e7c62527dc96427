"""Splits by ranges of a column's values, for every dialect."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.columns import SqlColumn


def whole(estimated_bytes: int, why: str = "") -> list[Split]:
    """Return the one split that reads everything, and why there is only one."""
    return [Split(0, None, estimated_bytes, note=why)]


def between(edges: Sequence[str], column: SqlColumn, estimated_bytes: int) -> list[Split]:
    """Return the splits below, between and above some values; NULL is in the first.

    Args:
        edges: Literals in ascending order, at least one. There is nothing between equal ones, in
            any collation.
        column: The column of the values.
        estimated_bytes: Size of everything.
    """
    conditions = [f"{column.compare('<=', edges[0])} or {column.is_null}"]
    conditions += [
        f"{column.compare('>', low)} and {column.compare('<=', high)}"
        for low, high in itertools.pairwise(edges)
    ]
    conditions.append(column.compare(">", edges[-1]))
    size = estimated_bytes // len(conditions)
    return [Split(index, text, size) for index, text in enumerate(conditions)]
