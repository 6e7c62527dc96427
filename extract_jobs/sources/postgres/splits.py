"""Splits a table: by heap page if that is possible, else by a column's values.

Page ranges (``ctid``) need neither key nor index, are even however skewed the values are, and are
read in the order of the disk; PostgreSQL scans them as ranges since 14. The bounds need not
consider rows that come later: the last range is open-ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import date, datetime

from extract_jobs.errors import ConfigError
from extract_jobs.sources.postgres.catalog import Leaf, Table, explain, nodes
from extract_jobs.sources.postgres.session import Connection, execute
from extract_jobs.sources.postgres.sql import (
    EQUALS,
    KINDS,
    ctid_condition,
    literal,
    operator,
    quote_name,
)
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.splits import whole
from extract_jobs.sources.sql.statements import Relation, select, where_clause
from extract_jobs.spec.parts import SplitSpec

TID_RANGE_SCANS_SINCE = 140000
_SAMPLED_ROWS = 20_000
_MAX_RANGES = 10_000


def can_cut_by_page(found: Sequence[Leaf], server_version: int) -> bool:
    """Return whether a table, all its children included, can be scanned by page range."""
    return (
        server_version >= TID_RANGE_SCANS_SINCE
        and bool(found)
        and all(leaf.is_heap for leaf in found)
    )


def by_page(found: Sequence[Leaf], block_size: int, target_bytes: int) -> list[Split]:
    """Split a table by heap page so that splits have about the same number of bytes.

    All leaves of a partitioned table are read through the parent, so one range of page numbers
    selects from every leaf. Leaves differ in length: the splits are cut by the bytes of all leaves
    together, not by page number.

    Args:
        found: The leaves.
        block_size: The server's block size in bytes.
        target_bytes: Target size of a split, out-of-line values included.

    Returns:
        Splits over pages ``[start, end)``, from 0, the last one open-ended.
    """
    sizes = [(leaf.heap_bytes // block_size, leaf.heap_bytes + leaf.toast_bytes) for leaf in found]
    total = sum(size for pages, size in sizes if pages)
    count = min(max(1, -(-total // target_bytes)), max((p for p, _ in sizes), default=1) or 1)
    # Between two leaves' ends the number of bytes per page number is constant.
    ends = sorted({pages for pages, _ in sizes if pages})
    bounds = [0]
    done = 0.0
    for start, end in itertools.pairwise([0, *ends]):
        density = sum(size / pages for pages, size in sizes if pages >= end)
        while len(bounds) < count and (wanted := total * len(bounds) / count) < (
            done + density * (end - start)
        ):
            page = start + round((wanted - done) / density)
            if page <= bounds[-1]:
                page = bounds[-1] + 1
            bounds.append(page)
        done += density * (end - start)
    if len(bounds) == 1:
        # Without a condition: a user who may only read some columns may not read ctid.
        return whole(total)
    edges: list[tuple[int, int | None]] = list(itertools.pairwise(bounds))
    edges.append((bounds[-1], None))
    return [
        Split(index, ctid_condition(start, end), total // len(edges))
        for index, (start, end) in enumerate(edges)
    ]


def through_index(
    opened: Connection,
    relation: Relation,
    target_bytes: int,
    *,
    column: str,
    base_type: str,
    condition: str,
    table_bytes: int,
) -> list[Split] | None:
    """Split an interval that the planner would fetch through an index.

    The planner's row counts come from statistics that do not cover rows since the last ANALYZE,
    which are exactly the rows of an increment. So its choice of the index is believed, but the rows
    are counted, up to what one split can hold.

    Args:
        opened: A connection in the snapshot.
        relation: What is read.
        target_bytes: Target size of a split.
        column: The watermark column.
        base_type: Its base type.
        condition: The interval's condition.
        table_bytes: Size of the whole table.

    Returns:
        One split if the interval is small, else ranges between its least and greatest value; None
        if the planner uses no index, or the interval is so large a part of the table that a scan
        is better.
    """
    statement = select(["1"], relation, condition)
    plan = explain(
        opened, f"select * from {relation.source}{where_clause(relation.where, condition)}"
    )
    if not any("Index" in node["Node Type"] for node in nodes(plan)):
        return None
    width = max(1, plan["Plan Width"])
    enough = target_bytes // width + 1
    counted = f"select pg_catalog.count(*) from ({statement} limit {enough + 1}) s"
    rows = int(execute(opened, counted)[0][0])
    if rows <= enough:
        return whole(rows * width)
    rows = int(execute(opened, select(["pg_catalog.count(*)"], relation, condition))[0][0])
    size = rows * width
    if size * 4 > table_bytes:
        return None
    bounds = _even_bounds(
        opened,
        relation,
        column,
        base_type=base_type,
        condition=condition,
        count=min(-(-size // target_bytes), _MAX_RANGES),
    )
    return _between(bounds, column, base_type, size) if bounds else None


def by_range(
    opened: Connection,
    relation: Relation,
    split: SplitSpec,
    *,
    column: str,
    base_type: str,
    condition: str | None,
    estimated_bytes: int,
) -> list[Split]:
    """Split by a column's values; NULLs belong to the first split.

    A table's bounds are percentiles of a sample, so skewed and sparse values are split evenly, and
    any ordered type works, text under its own collation. A view or query cannot be sampled:
    integers, dates and timestamps are divided evenly between least and greatest value, other types
    make one split.

    Args:
        opened: A connection in the snapshot.
        relation: What is read.
        split: What the spec says about splits.
        column: The column.
        base_type: Its base type.
        condition: The interval's condition, if any.
        estimated_bytes: Size of everything, 0 if unknown.

    Raises:
        ConfigError: The column's type has no order that literals can express.
    """
    if base_type not in KINDS:
        raise ConfigError(
            f"split.column {column} is of type {base_type}, which cannot be split by range; use "
            f"one of the types {', '.join(KINDS)}"
        )
    wanted = -(-estimated_bytes // split.target_bytes)
    if split.strategy == "range" and relation.kind not in ("table", "partitioned"):
        # The size of a query's result is a guess, and splits were explicitly requested.
        wanted = max(wanted, split.max_connections)
    count = min(max(1, wanted), _MAX_RANGES)
    if count == 1:
        return whole(estimated_bytes)
    if relation.kind in ("table", "partitioned"):
        bounds = _sampled_bounds(opened, relation, column, condition, count)
    else:
        bounds = _even_bounds(
            opened, relation, column, base_type=base_type, condition=condition, count=count
        )
    if not bounds:
        return whole(estimated_bytes)
    return _between(bounds, column, base_type, estimated_bytes)


def _between(
    bounds: Sequence[str], column: str, base_type: str, estimated_bytes: int
) -> list[Split]:
    """Return splits between ascending bounds, and one below and one above; NULL is in the first."""
    name = quote_name(column)
    edges = [literal(bound, base_type) for bound in bounds]
    conditions = [f"{name} {operator('<=')} {edges[0]} or {name} is null"]
    conditions += [
        f"{name} {operator('>')} {low} and {name} {operator('<=')} {high}"
        for low, high in itertools.pairwise(edges)
    ]
    conditions.append(f"{name} {operator('>')} {edges[-1]}")
    size = estimated_bytes // len(conditions)
    return [Split(index, text, size) for index, text in enumerate(conditions)]


def _sampled_bounds(
    opened: Connection, relation: Relation, column: str, condition: str | None, count: int
) -> list[str]:
    """Return distinct ascending percentiles of a block sample, as text."""
    name = quote_name(column)
    rows = explain(opened, f"select from {relation.source}")["Plan Rows"]
    percent = min(100.0, 100.0 * max(_SAMPLED_ROWS, 20 * count) / max(1, rows))
    sample = Relation(
        f"{relation.source} tablesample system ({percent:.6f}) repeatable (0)",
        relation.kind,
        relation.where,
    )
    fractions = ",".join(f"{i / count:.6f}" for i in range(1, count))
    found = execute(
        opened,
        # Not named b, or it would be sorted as text.
        "select b::pg_catalog.text as bound from (select distinct"
        " pg_catalog.unnest(pg_catalog.percentile_disc("
        f"array[{fractions}]::pg_catalog.float8[]) within group (order by c0)) as b"
        f" from ({select([name], sample, condition)}) s where c0 is not null) d order by b",
    )
    return [row[0] for row in found if row[0] is not None]


def _even_bounds(
    opened: Connection,
    relation: Relation,
    column: str,
    *,
    base_type: str,
    condition: str | None,
    count: int,
) -> list[str]:
    """Return bounds evenly between a column's least and greatest finite value, as text."""
    kind = KINDS[base_type][0]
    if kind not in ("integer", "date", "timestamp", "timestamptz"):
        return []
    name = quote_name(column)
    finite = "" if kind == "integer" else f"pg_catalog.isfinite({name})"
    statement = select(
        [f"pg_catalog.min({name})::pg_catalog.text", f"pg_catalog.max({name})::pg_catalog.text"],
        relation,
        condition,
        finite,
    )
    least, greatest = execute(opened, statement)[0]
    if least is None or least == greatest:
        return []
    if kind == "integer":
        low, high = int(least), int(greatest)
        return list(dict.fromkeys(str(low + (high - low) * i // count) for i in range(1, count)))
    try:
        first, last = datetime.fromisoformat(least), datetime.fromisoformat(greatest)
    except ValueError:  # BC, or after 9999
        return []
    step = (last - first) / count
    points = [first + step * i for i in range(1, count)]
    if kind == "date":
        return list(dict.fromkeys(str(date.fromordinal(p.toordinal())) for p in points))
    return list(dict.fromkeys(_printed(p) for p in points))


def _printed(point: datetime) -> str:
    return point.isoformat(sep=" ", timespec="microseconds")


def single_integer_key(opened: Connection, table: Table) -> str | None:
    """Return the primary key's column if it is one integer column."""
    rows = execute(
        opened,
        "select a.attname, t.typname from pg_catalog.pg_index i"
        f" join pg_catalog.pg_attribute a on a.attrelid {EQUALS} i.indrelid"
        f" and a.attnum {EQUALS} i.indkey[0]"
        f" join pg_catalog.pg_type t on t.oid {EQUALS} a.atttypid"
        f" where i.indrelid {EQUALS} %s::pg_catalog.int8::pg_catalog.oid and i.indisprimary"
        f" and i.indnatts {EQUALS} 1",
        table.oid,
    )
    return rows[0][0] if rows and rows[0][1] in ("int2", "int4", "int8") else None


def primary_key(opened: Connection, table: Table) -> tuple[str, ...]:
    """Return the primary key's columns in the key's order; empty without one."""
    rows = execute(
        opened,
        "select a.attname from pg_catalog.pg_index i"
        " cross join lateral pg_catalog.unnest(i.indkey::pg_catalog.int2[]) with ordinality"
        " k(attnum, position)"
        f" join pg_catalog.pg_attribute a on a.attrelid {EQUALS} i.indrelid"
        f" and a.attnum {EQUALS} k.attnum"
        f" where i.indrelid {EQUALS} %s::pg_catalog.int8::pg_catalog.oid and i.indisprimary"
        f" and k.position {operator('<=')} i.indnkeyatts order by k.position",
        table.oid,
    )
    return tuple(row[0] for row in rows)
