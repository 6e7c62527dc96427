"""Cuts a table into splits by ranges of an index, even where its keys are sparse or skewed.

How many rows a range of an index has, InnoDB estimates from the index itself (a "dive"): it looks
at a few pages, knows of rows that came since any statistics, and costs the same for any range. So
ranges are halved until each holds little, and neighbours are put together until each split holds
its share. No row is read. Where one value of the first key column holds too much, the range goes
on in the next column.

Every bound is a value that the server compares, in the column's own collation: the splits are
disjoint and exhaustive whatever it makes of case, accents and trailing blanks, and the outer ones
are open, so that rows which come meanwhile are in one of them too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from extract_jobs.sources.mysql.catalog import Found, Index
from extract_jobs.sources.mysql.driver import Connection
from extract_jobs.sources.mysql.keys import KEYS, Number, between, is_number, text_literal
from extract_jobs.sources.mysql.session import execute
from extract_jobs.sources.mysql.sql import quote_name
from extract_jobs.sources.mysql.types import MysqlType
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.splits import whole
from extract_jobs.sources.sql.statements import select
from extract_jobs.spec.extract_spec import SplitSpec

__all__ = ["KEYS", "cut"]

_MAX_SPLITS = 10_000
_PIECES_PER_SPLIT = 4
_MAX_DIVES = 20_000
_GUESSES = 12
_WALK_ROWS = 20_000
"""Rows of an index that are walked at a time where no guess lies between two texts."""


def cut(
    opened: Connection,
    found: Found,
    wanted: SplitSpec,
    *,
    interval: str | None,
    watermark_column: str | None,
) -> list[Split]:
    """Cut what is read into splits of about ``target_bytes``.

    Args:
        opened: A connection.
        found: What is read.
        wanted: The spec's wishes; its column, if any, is one of `KEYS`.
        interval: The interval's condition, if any.
        watermark_column: What ``interval`` is about.

    Returns:
        Ranges of the column that the spec names; of an interval that is a small part of the table
        ranges of the watermark's index; else ranges of the primary key, or of the first unique
        index; one split where there is none.
    """
    size = (found.table and found.table.data_bytes) or 0
    if found.table is None or found.table.is_view:
        if wanted.column is None:
            return whole(size)
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
        usable = (i for i in found.indexes if i.unique and found.type_of(i.columns[0]).base in KEYS)
        index = next(usable, None)
    if index is None or count < 2:
        return whole(size)
    return _by_index(_Walk(opened, found, index, 1, None), size, wanted.target_bytes)


def _index_on(found: Found, column: str) -> Index | None:
    if found.type_of(column).base not in KEYS:
        return None
    return next((index for index in found.indexes if index.columns[0] == column), None)


@dataclass(frozen=True)
class _Piece:
    """A range of one column where the columns before it are fixed.

    Attributes:
        prefix: What fixes them; empty for the index's first column.
        column: The column.
        low: Literal that it is above; None is open.
        high: Literal that it is up to; None is open.
        closed: Whether ``high`` itself belongs.
        rows: How many, estimated.
    """

    prefix: str
    column: str
    low: str | None
    high: str | None
    closed: bool
    rows: int

    def predicate(self, *, or_null: bool) -> str | None:
        """Return its condition; None if everything belongs."""
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
    """Asks the server about ranges of one index."""

    opened: Connection
    found: Found
    index: Index
    rows_per_piece: int
    base: str | None
    dives: int = field(default=0)

    @property
    def table(self) -> str:
        return f"{self.found.relation.source} force index ({quote_name(self.index.name)})"

    def conditions(self, *given: str) -> str:
        listed = [f"({text})" for text in (self.base, *given) if text]
        return f" where {' and '.join(listed)}" if listed else ""

    def estimate(self, *conditions: str) -> int:
        """Return about how many rows a range has."""
        self.dives += 1
        with self.opened.cursor() as cursor:
            cursor.execute(f"explain select 1 from {self.table}{self.conditions(*conditions)}")
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True))["rows"] for row in cursor.fetchall()]
        return int(rows[0] or 0) if rows else 0

    def value(self, expression: str, *conditions: str) -> str | bytes | None:
        """Return one value of the index, or None; ``min`` and ``max`` take one step."""
        statement = f"select {expression} from {self.table}{self.conditions(*conditions)}"
        found = execute(self.opened, statement)
        return found[0][0] if found else None


def _by_index(walk: _Walk, size: int, target_bytes: int) -> list[Split]:
    count = min(max(1, -(-size // target_bytes)), _MAX_SPLITS)
    total = max(1, walk.estimate(""))
    walk.rows_per_piece = max(1, total // (count * _PIECES_PER_SPLIT))
    pieces = list(_level(walk, "", 0, total))
    # The dives' own sum: they may all be wrong by the same factor.
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


def _is_nullable(found: Found, column: str) -> bool:
    return next(nullable for name, nullable, _ in found.types if name == column)


def _grouped(pieces: Iterable[_Piece], share: int) -> Iterator[_Piece]:
    """Put neighbours together until a group has its share of rows."""
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
    """Return whether one value has too many rows and there is a next column to cut them by."""
    if count <= walk.rows_per_piece * _PIECES_PER_SPLIT or walk.dives >= _MAX_DIVES:
        return False
    columns = walk.index.columns
    return depth + 1 < len(columns) and walk.found.type_of(columns[depth + 1]).base in KEYS


_Bound = tuple[str, int, bool]
"""A literal, the rows above the one before and up to it, and whether they all have its value."""


def _number_bounds(
    walk: _Walk, prefix: str, column: str, kind: MysqlType, rows: int
) -> Iterator[_Bound]:
    name, number = quote_name(column), Number(kind)
    least_day = f"{name} >= date'0001-01-01'" if number.is_temporal else ""
    # A zerofill prints zeros that int() takes.
    ends = [walk.value(f"cast({f}({name}) as char)", prefix, least_day) for f in ("min", "max")]
    if None in ends:
        return
    first, last = (number.parse(str(end)) for end in ends)
    todo = [(first - 1, last, rows)]
    while todo:
        low, high, count = todo.pop()
        if count <= walk.rows_per_piece or high - low <= 1 or walk.dives >= _MAX_DIVES:
            yield number.literal(high), count, high - low == 1
            continue
        middle = (low + high) // 2
        halves = []
        for start, end in ((low, middle), (middle, high)):
            condition = f"{name} > {number.literal(start)} and {name} <= {number.literal(end)}"
            halves.append((start, end, walk.estimate(prefix, condition)))
        todo += reversed(halves)


def _text_bounds(
    walk: _Walk, prefix: str, column: str, kind: MysqlType, rows: int
) -> Iterator[_Bound]:
    name = quote_name(column)
    ends = [_text_value(walk, f"{f}({name})", prefix) for f in ("min", "max")]
    if ends[0] is None or ends[1] is None:
        return
    todo: list[tuple[bytes | None, bytes, int]] = [(None, ends[1], rows)]
    while todo:
        low, high, count = todo.pop()
        top = text_literal(high, kind)
        above = f"{name} > {text_literal(low, kind)}" if low is not None else ""
        middle = None
        if count > walk.rows_per_piece and walk.dives < _MAX_DIVES:
            ends_of = (ends[0] if low is None else low, high)
            middle = _text_middle(walk, prefix, column, ends_of, above)
        if middle is None:
            one = count > walk.rows_per_piece and (
                _text_value(walk, f"min({name})", prefix, above, f"{name} < {top}") is None
            )
            yield top, count, one
            continue
        bound = text_literal(middle, kind)
        left = walk.estimate(prefix, above, f"{name} <= {bound}")
        right = walk.estimate(prefix, f"{name} > {bound}", f"{name} <= {top}")
        todo += [(middle, high, right), (low, middle, left)]


def _text_middle(
    walk: _Walk, prefix: str, column: str, ends: tuple[bytes, bytes], above: str
) -> bytes | None:
    """Return a value of the index about halfway between two others; None if there is none."""
    name, kind, (low, high) = quote_name(column), walk.found.type_of(column), ends
    below = f"{name} < {text_literal(high, kind)}"
    for guess in itertools.islice(between(low, high, kind), _GUESSES):
        bottom = f"{name} >= {text_literal(guess, kind)}"
        walk.dives += 1
        found = _text_value(walk, f"min({name})", prefix, above, below, bottom)
        if found is not None and (found != low or not above):
            return found
    # No guess hit: the next values of the index, one by one, a bounded number of them.
    ordered = (
        f"(select {name} from {walk.table}{walk.conditions(prefix, above, below)}"
        f" order by {name} limit {min(walk.rows_per_piece, _WALK_ROWS)}) as walked"
    )
    rows = execute(walk.opened, f"select cast(max({name}) as binary) from {ordered}")
    return rows[0][0] if rows else None


def _text_value(walk: _Walk, expression: str, *conditions: str) -> bytes | None:
    value = walk.value(f"cast({expression} as binary)", *conditions)
    return value.encode() if isinstance(value, str) else value


def _evenly(
    opened: Connection,
    found: Found,
    column: str,
    *,
    interval: str | None,
    count: int,
    size: int,
) -> list[Split]:
    """Cut by even steps between a column's least and greatest value, which takes a scan.

    For views, queries and columns without an index. Texts are one split: nothing is known of what
    lies between two of them.
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
