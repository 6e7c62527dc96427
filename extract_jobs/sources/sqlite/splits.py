"""Cuts a table into splits: by rowid where there is one, else by a column's values.

Bounds are counted off along the rowid's b-tree, or along the sorted column, so splits hold equally
many rows however sparse or skewed the values are. SQLite steps over some ten million entries a
second, many times faster than rows are read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from extract_jobs.sources.splits import Split, split_count
from extract_jobs.sources.sql import splits as ranges
from extract_jobs.sources.sql.splits import whole
from extract_jobs.sources.sql.statements import Relation, select
from extract_jobs.sources.sqlite.columns import SqliteColumn
from extract_jobs.sources.sqlite.session import Rows
from extract_jobs.sources.sqlite.sql import Value, byte_lengths, literal
from extract_jobs.spec.parts import SplitSpec

_MAX_SPLITS = 10_000
_SAMPLED_ROWS = 500

Run = Callable[[str], Rows]
"""Runs one statement in the snapshot."""


def file_bytes(run: Run) -> int:
    """Return the size of the database, which no table exceeds."""
    return int(run("pragma page_count")[0][0]) * int(run("pragma page_size")[0][0])


def row_bytes(run: Run, relation: Relation, expressions: Sequence[str]) -> int:
    """Estimate the bytes of a row by the first ones."""
    sample = f"{select([byte_lengths(expressions)], relation)} limit {_SAMPLED_ROWS}"
    found = run(f"select avg(c0) from ({sample})")[0][0]
    return int(found or 0) + len(expressions)


def how_many(wanted: SplitSpec, rows: int, size: int) -> int:
    """Return into how many splits so many rows of so many bytes are cut."""
    return min(split_count(wanted, size), max(1, rows), _MAX_SPLITS)


def by_rowid(
    run: Run, relation: Relation, rowid: str, condition: str | None, *, rows: int, count: int
) -> list[int]:
    """Return ascending rowids, each the last of a split but the last one.

    Args:
        run: Runs statements in the snapshot.
        relation: What is read.
        rowid: Its rowid.
        condition: The interval's condition, if any.
        rows: How many rows there are.
        count: Wanted number of splits.
    """
    step = -(-rows // count)
    bounds: list[int] = []
    while len(bounds) < count - 1:
        after = f"{rowid} > {bounds[-1]}" if bounds else None
        hop = select([rowid], relation, condition, after)
        found = run(f"{hop} order by {rowid} limit 1 offset {step - 1}")
        if not found:
            break
        bounds.append(found[0][0])
    return bounds


def by_value(
    run: Run, relation: Relation, column: str, condition: str | None, *, rows: int, count: int
) -> list[Value]:
    """Return ascending distinct values of a column, in its own collation, as `by_rowid` does."""
    step = -(-rows // count)
    ranked = select(
        [column, f"row_number() over (order by {column})"], relation, condition,
        f"{column} is not null",
    )  # fmt: skip
    found = run(f"select c0 from ({ranked}) where c1 % {step} = 0 order by c1")
    return [row[0] for row in found[: count - 1]]


def between(bounds: Sequence[Value], column: str, size: int) -> list[Split]:
    """Return splits between values of a column, given as SQL."""
    if not bounds:
        return whole(size)
    edges = [literal(bound) for bound in dict.fromkeys(bounds)]
    return ranges.between(edges, SqliteColumn(column, column, "", None), size)


def runner(opened: sqlite3.Connection) -> Run:
    """Return what runs statements over a connection, errors as they come."""
    return lambda statement: opened.execute(statement).fetchall()
