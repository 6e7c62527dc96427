"""How wide rows are, from the catalogue, and how to read them in bounded memory.

DuckDB fills vectors of 2,048 rows whatever their bytes, so 2,048 rows of 20 MB would need 40 GB.
The server knows a value's length without fetching it from TOAST (``octet_length`` of text and
bytea reads only the pointer), so wide rows can be distinguished from narrow ones during an ordinary
scan.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from extract_jobs.schema import Column
from extract_jobs.sources.postgres.catalog import Leaf
from extract_jobs.sources.postgres.duckdb_reader import VECTOR_ROWS
from extract_jobs.sources.postgres.reader import Width, exact_size
from extract_jobs.sources.postgres.sql import operator, quote_name

_TOAST_BYTES = 2**19
"""With less TOAST than this, rows count as narrow. Stored values may be compressed, by pglz at
best 1:90, so one vector has 45 MB of text at worst."""
BATCH_BYTES = 8 * 2**20
_MOST_ROWS = 64 * VECTOR_ROWS
_SHORT_LETTERS = 2_000
_COMPRESSION_SINCE = 140000
_FIXED = (
    "uuid", "inet", "cidr", "macaddr", "interval", "time", "oid", "money", "numeric(",
    "point", "line", "lseg", "box", "circle",
)  # fmt: skip


def _is_unbounded(column: Column) -> bool:
    kind = column.arrow_type
    if not (pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_list(kind)):
        return False
    letters = re.fullmatch(r"(?:character varying|character)\((\d+)\)", column.source_type)
    if letters and int(letters[1]) <= _SHORT_LETTERS:
        return False
    fixed = column.source_type == "date" or column.source_type.startswith(_FIXED)
    return "[" in column.source_type or not fixed


def size_expression(columns: Sequence[Column], server_version: int) -> str:
    """Return SQL for about how many bytes a row's variable columns have when read.

    Exact for text and bytea. For others only the stored size is cheap; it is multiplied by ten if
    the value is compressed, or if the server does not know (before 14).
    """
    parts = []
    for column in columns:
        if not _is_unbounded(column):
            continue
        name = quote_name(column.name)
        if exact := exact_size(column):
            parts.append(f"coalesce({exact}, 0)")
        elif server_version >= _COMPRESSION_SINCE:
            parts.append(
                f"coalesce(pg_catalog.pg_column_size({name}) {operator('*')} case when "
                f"pg_catalog.pg_column_compression({name}) is null then 2 else 10 end, 0)"
            )
        else:
            parts.append(f"coalesce(pg_catalog.pg_column_size({name}) {operator('*')} 10, 0)")
    added = f" {operator('+')} ".join(f"{part}::pg_catalog.int8" for part in parts)
    return f"({added or '0'})"


def width_of(columns: Sequence[Column], toast_bytes: int, *, may_read_twice: bool) -> Width:
    """Decide how rows are read.

    Args:
        columns: What is read of each row.
        toast_bytes: Out-of-line values of the tables below, as stored.
        may_read_twice: Whether two reads see the same rows: true of tables in a shared snapshot,
            not of a query with ``random()``.
    """
    if toast_bytes <= _TOAST_BYTES or not any(map(_is_unbounded, columns)):
        return "narrow"
    return "mixed" if may_read_twice else "wide"


def batch_rows(found: Sequence[Leaf], planned_width: int) -> int:
    """Return rows per batch so that a batch of narrow rows has about 8 MiB.

    Args:
        found: The tables read; empty for a view or query.
        planned_width: The planner's estimate of a row's bytes, used if the catalogue has no better.
    """
    rows = sum(leaf.rows or 0 for leaf in found)
    size = sum(leaf.heap_bytes + leaf.toast_bytes for leaf in found)
    width = max(size // rows if rows else planned_width, 16)
    vectors = BATCH_BYTES // width // VECTOR_ROWS
    return min(max(1, vectors) * VECTOR_ROWS, _MOST_ROWS)
