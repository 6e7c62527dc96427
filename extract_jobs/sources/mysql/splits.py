"""Splits a table by ranges of an index, even if its keys are sparse or skewed.

InnoDB estimates the number of rows in an index range from the index itself (a "dive"): it looks at
a few pages, includes rows that are newer than any statistics, and costs the same for any range. So
ranges are halved until each is small, and neighbours are joined until each split has its share. If
halving leads nowhere, or takes more dives than the splits are worth, the index itself is walked to
the next bound. If one value of the first key column has too many rows, its range is split by the
next column.

Every bound is a value that the server compares, in the column's own collation: the splits are
disjoint and exhaustive however it treats case, accents and trailing blanks, and the outer ones are
open, so that rows that come meanwhile are in one of them too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from extract_jobs.sources.mysql.catalog import CatalogEntry, Index
from extract_jobs.sources.mysql.driver import Connection
from extract_jobs.sources.mysql.keys import (
    KEYS,
    Number,
    between,
    is_number,
    letters,
    text_literal,
)
from extract_jobs.sources.mysql.session import execute
from extract_jobs.sources.mysql.sql import quote_name
from extract_jobs.sources.mysql.types import MysqlType
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.splits import whole
from extract_jobs.sources.sql.statements import select
from extract_jobs.spec.parts import SplitSpec

__all__ = ["KEYS", "cut"]

_MAX_SPLITS = 10_000
_PIECES_PER_SPLIT = 4
_DIVES_PER_SPLIT = 40
_SPARE_DIVES = 400
"""Maximum dives for finding a few clusters in a sparse 64-bit key."""


def cut(
    opened: Connection,
    found: CatalogEntry,
    wanted: SplitSpec,
    *,
    interval: str | None,
    watermark_column: str | None,
) -> list[Split]:
    """Split what is read into splits of about ``target_bytes``.

    Args:
        opened: A connection.
        found: What is read.
        wanted: What the spec says about splits; its column, if any, is one of `KEYS`.
        interval: The interval's condition, if any.
        watermark_column: The column of ``interval``.

    Returns:
        Ranges of the column that the spec names; for an interval that is a small part of the table,
        ranges of the watermark's index; else ranges of the primary key, or of the first unique
        index; one split if there is none.
    """
    size = (found.table and found.table.data_bytes) or 0
    if found.table is None or found.table.is_view:
        if wanted.column is None:
            what = "a query" if found.table is None else "a view"
            return whole(size, f"{what} is split only by split.column, with strategy: range")
        return _evenly(
            opened, found, wanted.column, interval=interval, count=wanted.max_connections, size=size
        )
    rows = max(1, found.table.rows or 0)
    if wanted.column is None and interval is not None and watermark_column is not None:
        index = _index_on(found, watermark_column)
        if index is not None:
            walk = _Walk(opened, found, index, 1, interval)
            bytes_in = walk.estimate("") * size // rows
            if bytes_in <= wanted.target_bytes:
                return whole(bytes_in)
            if bytes_in * 4 <= size:
                return _by_index(walk, bytes_in, wanted.target_bytes)
    count = min(-(-size // wanted.target_bytes), _MAX_SPLITS)
    if wanted.column is not None:
        index = _index_on(found, wanted.column)
        if index is None:
            return _evenly(opened, found, wanted.column, interval=interval, count=count, size=size)
    else:
        index = next((i for i in found.indexes if i.unique and _problem(found, i) is None), None)
    if count < 2:
        return whole(size)
    if index is None:
        return whole(size, _why_whole(found))
    return _by_index(_Walk(opened, found, index, 1, None), size, wanted.target_bytes)


def _index_on(found: CatalogEntry, column: str) -> Index | None:
    usable = (index for index in found.indexes if _problem(found, index) is None)
    return next((index for index in usable if index.columns[0] == column), None)


def _problem(found: CatalogEntry, index: Index) -> str | None:
    """Return why a table cannot be split by an index; None if it can."""
    if index.problem is not None:
        return index.problem
    kind = found.type_of(index.columns[0])
    if kind.base not in KEYS:
        return f"its column {index.columns[0]} is of type {kind.printed}"
    return None


def _why_whole(found: CatalogEntry) -> str:
    given = [
        f"{index.name} cannot be used, because {_problem(found, index)}"
        for index in found.indexes
        if index.unique
    ]
    reason = "; ".join(given) or "there is none"
    return (
        f"without a primary key or unique index to split by, a table is one split ({reason}); name "
        "a column with split.column, with strategy: range"
    )


@dataclass(frozen=True)
class _Piece:
    """A range of one column, with fixed values in the columns before it.

    Attributes:
        prefix: Condition that fixes them; empty for the index's first column.
        column: The column.
        low: Literal of the exclusive lower bound; None is open.
        high: Literal of the upper bound; None is open.
        closed: Whether ``high`` itself is included.
        rows: Estimated number of rows.
    """

    prefix: str
    column: str
    low: str | None
    high: str | None
    closed: bool
    rows: int

    def predicate(self, *, or_null: bool) -> str | None:
        """Return its condition; None if it includes everything."""
        name = quote_name(self.column)
        sides = [f"{name} > {self.low}"] if self.low is not None else []
        if self.high is not None:
            sides.append(f"{name} {'<=' if self.closed else '<'} {self.high}")
        range_ = " and ".join(sides)
        if range_ and self.low is None and or_null:
            range_ = f"({range_} or {name} <=> null)"
        return " and ".join(filter(None, [self.prefix, range_])) or None


@dataclass
class _Walk:
    """Queries the server about ranges of one index."""

    opened: Connection
    found: CatalogEntry
    index: Index
    rows_per_piece: int
    base: str | None
    dives_left: int = field(default=0)

    def table(self, hint: str) -> str:
        return f"{self.found.relation.source} {hint} index ({quote_name(self.index.name)})"

    def conditions(self, *given: str) -> str:
        listed = [f"({text})" for text in (self.base, *given) if text]
        return f" where {' and '.join(listed)}" if listed else ""

    def estimate(self, *conditions: str) -> int:
        """Return about how many rows a range has."""
        self.dives_left -= 1
        # MySQL makes no dive if it is forced to use an index.
        table = f"{self.table('use')}{self.conditions(*conditions)}"
        with self.opened.cursor() as cursor:
            cursor.execute(f"explain format=traditional select 1 from {table}")
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True))["rows"] for row in cursor.fetchall()]
        return int(rows[0] or 0) if rows else 0

    def value(self, expression: str, *conditions: str) -> str | bytes | None:
        """Return one value of the index, or None; ``min`` and ``max`` take one step."""
        table = f"{self.table('force')}{self.conditions(*conditions)}"
        found = execute(self.opened, f"select {expression} from {table}")
        return found[0][0] if found else None

    def step(self, column: str, expression: str, *conditions: str) -> str | bytes | None:
        """Return the last value of the next piece of a range, read from the index."""
        name = quote_name(column)
        rows = (
            f"(select {name} from {self.table('force')}{self.conditions(*conditions)}"
            f" order by {name} limit {self.rows_per_piece}) as walked"
        )
        found: str | bytes | None = execute(self.opened, f"select {expression} from {rows}")[0][0]
        return found


def _by_index(walk: _Walk, size: int, target_bytes: int) -> list[Split]:
    count = min(max(1, -(-size // target_bytes)), _MAX_SPLITS)
    total = max(1, walk.estimate(""))
    walk.rows_per_piece = max(1, total // (count * _PIECES_PER_SPLIT))
    walk.dives_left = _SPARE_DIVES + _DIVES_PER_SPLIT * count
    pieces = list(_level(walk, "", 0, total))
    # The sum of the dives themselves: they may all be wrong by the same factor.
    rows = max(1, sum(piece.rows for piece in pieces))
    groups = list(_grouped(pieces, -(-rows // count)))
    return [
        Split(
            index,
            group.predicate(or_null=_is_nullable(walk.found, group.column)),
            size * group.rows // rows,
        )
        for index, group in enumerate(groups)
    ]


def _is_nullable(found: CatalogEntry, column: str) -> bool:
    return next(nullable for name, nullable, _ in found.types if name == column)


def _grouped(pieces: Iterable[_Piece], share: int) -> Iterator[_Piece]:
    """Join neighbours until a group has its share of rows."""
    group: _Piece | None = None
    for piece in pieces:
        if group is None:
            group = piece
        elif (
            group.prefix == piece.prefix
            and group.closed
            and group.high == piece.low
            and (group.rows + piece.rows) <= share
        ):
            group = replace(
                group, high=piece.high, closed=piece.closed, rows=group.rows + piece.rows
            )
        else:
            yield group
            group = piece
    if group is not None:
        yield group


def _level(walk: _Walk, prefix: str, depth: int, rows: int) -> Iterator[_Piece]:
    """Yield the pieces of one column of the index, in order; the outer ones are open."""
    column = walk.index.columns[depth]
    kind = walk.found.type_of(column)
    bounds = (
        _number_bounds(walk, prefix, column, kind, rows)
        if is_number(kind)
        else _text_bounds(walk, prefix, column, kind, rows)
    )
    low: str | None = None
    held: _Piece | None = None
    for high, count, is_one_value in bounds:
        goes_on = is_one_value and _can_go_on(walk, depth, count)
        if held is not None:
            yield held
        held = _Piece(prefix, column, low, high, closed=not goes_on, rows=0 if goes_on else count)
        if goes_on:
            yield held
            held = None
            fixed = " and ".join(filter(None, [prefix, f"{quote_name(column)} = {high}"]))
            yield from _level(walk, fixed, depth + 1, count)
        low = high
    if held is not None:
        yield replace(held, high=None)
    else:
        yield _Piece(prefix, column, low, None, closed=True, rows=0)


def _can_go_on(walk: _Walk, depth: int, count: int) -> bool:
    """Return whether one value has too many rows and there is a next column to split by."""
    if count <= walk.rows_per_piece * _PIECES_PER_SPLIT or walk.dives_left <= 0:
        return False
    columns = walk.index.columns
    return depth + 1 < len(columns) and walk.found.type_of(columns[depth + 1]).base in KEYS


_Bound = tuple[str, int, bool]
"""A literal, the rows from the last one up to it, and whether they all have its value."""


def _number_bounds(
    walk: _Walk, prefix: str, column: str, kind: MysqlType, rows: int
) -> Iterator[_Bound]:
    name, number = quote_name(column), Number(kind)
    least_day = f"{name} >= date'0001-01-01'" if number.is_temporal else ""
    # A zerofill column prints leading zeros, which int() accepts.
    ends = [walk.value(f"cast({f}({name}) as char)", prefix, least_day) for f in ("min", "max")]
    if None in ends:
        return
    first, last = (number.parse(str(end)) for end in ends)
    todo = [(first - 1, last, rows)]
    while todo:
        low, high, count = todo.pop()
        if count <= walk.rows_per_piece or high - low <= 1:
            yield number.literal(high), count, high - low == 1
            continue
        above, below = f"{name} > {number.literal(low)}", f"{name} < {number.literal(high)}"
        middle = (low + high) // 2
        if walk.dives_left <= 0:
            step = walk.step(column, f"cast(max({name}) as char)", prefix, above, below)
            if step is None:
                yield number.literal(high), count, False
                continue
            middle = min(max(number.parse(str(step)), low + 1), high - 1)
            bound = number.literal(middle)
            taken = walk.estimate(prefix, above, f"{name} <= {bound}")
            # Not ``count`` minus the rest: for a large range that may be far too little.
            left = walk.estimate(prefix, f"{name} > {bound}", f"{name} <= {number.literal(high)}")
            todo.append((middle, high, left))
            yield number.literal(middle), taken, middle - low == 1
            continue
        halves = []
        for start, end in ((low, middle), (middle, high)):
            condition = f"{name} > {number.literal(start)} and {name} <= {number.literal(end)}"
            halves.append((start, end, walk.estimate(prefix, condition)))
        todo += reversed(halves)


@dataclass
class _Texts:
    """Halves ranges of a text or binary column of an index."""

    walk: _Walk
    prefix: str
    column: str
    kind: MysqlType

    @property
    def name(self) -> str:
        return quote_name(self.column)

    def end(self, function: str, *conditions: str) -> bytes | None:
        """Return the least or greatest value that meets conditions."""
        return self._bytes(self.walk.value(self._printed(function), self.prefix, *conditions))

    def above(self, low: bytes | None) -> str:
        return f"{self.name} > {text_literal(low, self.kind)}" if low is not None else ""

    def count(self, *conditions: str) -> int:
        return self.walk.estimate(self.prefix, *conditions)

    def guess(self, low: bytes, high: bytes, above: str) -> bytes | None:
        """Return a value of the index about halfway between two others; None if no guess hits."""
        below = f"{self.name} < {text_literal(high, self.kind)}"
        for guess in between(low, high, self.kind, self.letters):
            bound = text_literal(guess, self.kind)
            for function, sign in (("min", ">="), ("max", "<=")):
                self.walk.dives_left -= 1
                found = self.end(function, above, below, f"{self.name} {sign} {bound}")
                if found is not None and (found != low or not above):
                    return found
        return None

    def step(self, high: bytes, above: str) -> bytes | None:
        """Return the next bound, read from the index; None if there is no value between."""
        below = f"{self.name} < {text_literal(high, self.kind)}"
        return self._bytes(
            self.walk.step(self.column, self._printed("max"), self.prefix, above, below)
        )

    @cached_property
    def letters(self) -> list[str]:
        """Letters in the order of the column's collation, one of those that it treats as equal."""
        known = letters(self.kind)
        if not known:
            return []
        # The column gives the literals its collation; no row is read.
        nothing = f"select {self.name} as c from {self.walk.found.relation.source} where false"
        listed = " union all ".join(
            [nothing, *(f"select {text_literal(value, self.kind)}" for value in known)]
        )
        rows = execute(
            self.walk.opened,
            f"select cast(min(c) as binary) from ({listed}) as letters group by c order by c",
        )
        return [known[value] for [value] in rows if value in known]

    def _printed(self, function: str) -> str:
        return f"cast({function}({self.name}) as binary)"

    @staticmethod
    def _bytes(value: str | bytes | None) -> bytes | None:
        return value.encode() if isinstance(value, str) else value


def _text_bounds(
    walk: _Walk, prefix: str, column: str, kind: MysqlType, rows: int
) -> Iterator[_Bound]:
    texts = _Texts(walk, prefix, column, kind)
    first, last = texts.end("min"), texts.end("max")
    if first is None or last is None:
        return
    todo: list[tuple[bytes | None, bytes, int]] = [(None, last, rows)]
    while todo:
        low, high, count = todo.pop()
        top, above = text_literal(high, kind), texts.above(low)
        if count <= walk.rows_per_piece:
            yield top, count, False
            continue
        if walk.dives_left > 0:
            middle = texts.guess(first if low is None else low, high, above)
            if middle is not None:
                bound = text_literal(middle, kind)
                left = texts.count(above, f"{texts.name} <= {bound}")
                right = texts.count(f"{texts.name} > {bound}", f"{texts.name} <= {top}")
                # A sliver is not worth its queries.
                if min(left, right) * _PIECES_PER_SPLIT >= walk.rows_per_piece:
                    todo += [(middle, high, right), (low, middle, left)]
                    continue
        middle = texts.step(high, above)
        if middle is None:
            yield top, count, True  # all of them have one value
            continue
        bound = text_literal(middle, kind)
        taken = texts.count(above, f"{texts.name} <= {bound}")
        is_large = taken > walk.rows_per_piece * _PIECES_PER_SPLIT
        yield bound, taken, is_large and texts.end("min", above) == middle
        # Not ``count`` minus the rest: for a large range that may be far too little.
        todo.append(
            (middle, high, texts.count(f"{texts.name} > {bound}", f"{texts.name} <= {top}"))
        )


def _evenly(
    opened: Connection,
    found: CatalogEntry,
    column: str,
    *,
    interval: str | None,
    count: int,
    size: int,
) -> list[Split]:
    """Split by even steps between a column's least and greatest value, which takes a scan.

    For views, queries and columns without an index. Texts make one split, because nothing is known
    about what lies between two of them.
    """
    kind = found.type_of(column)
    if not is_number(kind) or count < 2:
        return whole(size)
    name, number = quote_name(column), Number(kind)
    least_day = f"{name} >= date'0001-01-01'" if number.is_temporal else None
    listed = [f"cast({f}({name}) as char)" for f in ("min", "max")]
    ends = execute(opened, select(listed, found.relation, interval, least_day))[0]
    if ends[0] is None or ends[0] == ends[1]:
        return whole(size)
    first, last = (number.parse(str(end)) for end in ends)
    steps: Sequence[int] = sorted({first + (last - first) * i // count for i in range(1, count)})
    edges: list[str | None] = [None, *(number.literal(step) for step in steps), None]
    pieces = [
        _Piece("", column, low, high, closed=True, rows=1)
        for low, high in itertools.pairwise(edges)
    ]
    return [
        Split(index, piece.predicate(or_null=True), size // len(pieces))
        for index, piece in enumerate(pieces)
    ]
