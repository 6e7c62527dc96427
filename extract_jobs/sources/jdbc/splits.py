"""Cuts a table into splits: by ranges of a column, by its hash, or by a hash of row addresses.

A range's bounds are quantiles that the database computes (``ntile``), so skewed and sparse values
are cut evenly and any ordered type works. This reads the column once, through its index if it has
one. Without ``ntile``, the range between the least and greatest value is cut evenly.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from extract_jobs.errors import ConfigError
from extract_jobs.sources.jdbc.catalog import JdbcTable
from extract_jobs.sources.jdbc.columns import JdbcColumn, as_watermark, day_of
from extract_jobs.sources.jdbc.jvm import Opened
from extract_jobs.sources.jdbc.sql import Relation, text_of
from extract_jobs.sources.jdbc.types import quote_name
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.splits import between, whole
from extract_jobs.sources.sql.statements import select
from extract_jobs.spec.parts import SplitSpec

_MAX_SPLITS = 10_000
_INTEGERS = ("int16", "int32", "int64")
_DAYS = ("date", "timestamp", "timestamptz")


def cut(opened: Opened, found: JdbcTable, split: SplitSpec, condition: str | None) -> list[Split]:
    """Cut a request into splits: disjoint, exhaustive, at least one.

    ``auto`` cuts by range over the first column of the primary key, if statistics or a row count
    show that one split would be too large.

    Args:
        opened: A connection.
        found: What is read.
        split: The spec's settings.
        condition: The interval's condition, if any.

    Raises:
        ConfigError: The strategy is not available here, or not for the column.
    """
    strategy, column = split.strategy, split.column
    if strategy == "ctid":
        raise ConfigError("split.strategy ctid is PostgreSQL's own; use auto, range, hash or none")
    if strategy == "rowid":
        return _by_row(found, split)
    if strategy == "auto":
        column = column or (found.key[0] if found.key else None)
        if column is None or found.column(column).kind is None:
            return whole(found.bytes or 0)
    if strategy == "none" or column is None:
        return whole(found.bytes or 0)
    asked = strategy != "auto"
    count = _count(opened, found, split, condition, at_least_connections=asked)
    if count == 1:
        return whole(found.bytes or 0)
    if strategy == "hash":
        return _by_hash(found, found.column(column), count)
    return _by_range(opened, found, found.column(column), count, condition)


def _count(
    opened: Opened,
    found: JdbcTable,
    split: SplitSpec,
    condition: str | None,
    *,
    at_least_connections: bool,
) -> int:
    """Return how many splits to cut; with a named column, one per connection."""
    size = found.bytes
    if condition is not None or (size is None and not at_least_connections):
        # There are no statistics for an interval.
        counted = opened.rows(select(["count(*)"], found.relation, condition))
        rows = int(counted[0][0] or 0)
        width = (size or 0) // found.rows if found.rows else 0
        size = rows * (width or 100)
        if not rows:
            return 1
    wanted = -(-(size or 0) // split.target_bytes)
    if at_least_connections:
        wanted = max(wanted, split.max_connections)
    return min(max(1, wanted), _MAX_SPLITS)


def _by_row(found: JdbcTable, split: SplitSpec) -> list[Split]:
    """Cut by a hash of row addresses. Each split scans the table and sends its own part."""
    dialect = found.dialect
    if dialect.hash_row is None or found.relation.kind != "table":
        raise ConfigError(
            f"split.strategy rowid: {dialect.name} has no rowid for a {found.relation.kind}; use "
            "auto, range, hash or none"
        )
    size = found.bytes or 0
    count = min(max(split.max_connections, -(-size // split.target_bytes)), _MAX_SPLITS)
    expression = dialect.hash_row.replace("{count}", str(count))
    return [Split(i, f"{expression} = {i}", size // count) for i in range(count)]


def _by_hash(found: JdbcTable, column: JdbcColumn, count: int) -> list[Split]:
    dialect = found.dialect
    is_whole = column.typed.kind in _INTEGERS or (
        column.typed.kind == "decimal" and not column.typed.described.scale
    )
    template = dialect.hash_integer if is_whole else dialect.hash_text
    if template is None or not (is_whole or column.kind == "string"):
        others = "integers" if dialect.hash_text is None else "integers and texts"
        raise ConfigError(
            f"split.strategy hash: column {column.name} is {column.source_type}, "
            f"and of {dialect.name} {others} can be hashed; use range, or another column"
        )
    expression = template.replace("{count}", str(count)).replace("{}", column.sql)
    conditions = [f"{expression} = {i}" for i in range(count)]
    conditions[0] += f" or {column.is_null}"
    return [Split(i, text, (found.bytes or 0) // count) for i, text in enumerate(conditions)]


def _by_range(
    opened: Opened, found: JdbcTable, column: JdbcColumn, count: int, condition: str | None
) -> list[Split]:
    column.check_orders("be split by range")
    if found.dialect.quantiles:
        bounds = _quantiles(opened, found.relation, column, count, condition)
    else:
        bounds = _even(opened, found.relation, column, count, condition)
    if not bounds:
        return whole(found.bytes or 0)
    return between([column.literal(bound) for bound in bounds], column, found.bytes or 0)


def _quantiles(
    opened: Opened, relation: Relation, column: JdbcColumn, count: int, condition: str | None
) -> list[str]:
    """Return distinct ascending quantiles, as text."""
    dialect = relation.dialect
    c0, c1, alias = (quote_name(text, dialect) for text in ("c0", "c1", "s"))
    values = select([column.sql], relation, condition, column.is_not_null)
    tiles = f"select {c0}, ntile({count}) over (order by {c0}) as {c1} from ({values}) {alias}"
    highest = text_of(f"max({c0})", column.typed, dialect)
    rows = opened.rows(f"select {c1}, {highest} from ({tiles}) {alias} group by {c1}")
    ordered = sorted((int(tile or 0), text or "") for tile, text in rows)
    # The greatest value is not a bound: new rows above it belong to the last split.
    return _distinct(text for _, text in ordered[:-1]) if ordered else []


def _even(
    opened: Opened, relation: Relation, column: JdbcColumn, count: int, condition: str | None
) -> list[str]:
    """Return evenly spaced bounds between the least and greatest number or day; none for others."""
    dialect = relation.dialect
    extremes = [
        text_of(f"{function}({column.sql})", column.typed, dialect) for function in ("min", "max")
    ]
    least, greatest = opened.rows(select(extremes, relation, condition))[0]
    if least is None or greatest is None:
        return []
    if column.typed.kind in _INTEGERS:
        low, high = int(least), int(greatest)
        return _distinct(str(low + (high - low) * i // count) for i in range(1, count))
    first, last = day_of(least), day_of(greatest)
    if column.typed.kind not in _DAYS or first is None or last is None:
        raise ConfigError(
            f"{dialect.name} has no ntile, so a column of type {column.source_type} cannot "
            "be split by range; use an integer, a date or a timestamp, or strategy hash or none"
        )
    days = (last - first).days + 1
    steps = (first + timedelta(days=days * i // count) for i in range(1, count))
    return _distinct(_midnight(day, column) for day in steps)


def _midnight(day: date, column: JdbcColumn) -> str:
    found = as_watermark(f"{day.isoformat()} 00:00:00", column.typed)
    assert found is not None
    return found.text


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
