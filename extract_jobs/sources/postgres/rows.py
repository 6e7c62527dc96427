"""Reads rows one by one through psycopg: slow, but never more than a few rows in memory.

For rows so large that 2,048 of them would not fit into memory. With such rows, Python's cost per
row does not matter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.sources.postgres.node import POSITION, Position, wait_until_reached
from extract_jobs.sources.postgres.session import Isolation, execute, session
from extract_jobs.sources.pump import Sockets

_BATCH_BYTES = 16 * 2**20
_BATCH_ROWS = 8_192


def stream_rows(
    connection: DatabaseConnection,
    statement: str,
    *,
    snapshot_id: str | None,
    types: Sequence[pa.DataType],
    columns: Sequence[Column],
    what: str,
    sockets: Sockets,
    reached: Position | None = None,
) -> Generator[pa.RecordBatch]:
    """Stream a SELECT as record batches of about 16 MiB, or of one row that is larger.

    Args:
        connection: The database.
        statement: One SELECT with columns c0, c1, ….
        snapshot_id: Exported snapshot to join; None reads in a snapshot of its own.
        types: Their Arrow types.
        columns: The first of them, for messages.
        what: What is being read, for messages.
        sockets: Registers the connection.
        reached: Position that the node must have reached; the transaction that reads waits for it.

    Raises:
        SourceUnavailable: The connection broke, or the snapshot is gone.
        SourceQueryFailed: The server failed the statement.
        TypeNotRepresentable: A date or timestamp is infinite or outside years 1 to 9999.
    """
    schema = pa.schema([(f"c{i}", kind) for i, kind in enumerate(types)])
    isolation: Isolation = "read committed" if reached else "repeatable read"
    with session(connection, what, snapshot_id, isolation) as opened:
        sockets.hold(opened.fileno())
        if reached is not None:
            wait_until_reached(lambda: execute(opened, POSITION)[0], reached, what)
        cursor = opened.cursor()
        for name in ("text", "varchar", "bpchar"):
            cursor.adapters.register_loader(name, _Text)
        rows: list[tuple[Any, ...]] = []
        size = 0
        with contextlib.closing(_checked(cursor, statement, columns)) as stream:
            for row in stream:
                rows.append(row)
                size += sum(len(value) for value in row if isinstance(value, str | bytes | list))
                if size >= _BATCH_BYTES or len(rows) >= _BATCH_ROWS:
                    batch = _batch(rows, schema, columns)
                    # Keeps nothing of a large row while the consumer has it.
                    rows, size = [], 0
                    del row
                    yield batch
                    del batch
        if rows:
            batch = _batch(rows, schema, columns)
            rows, row = [], ()
            yield batch


def _checked(
    cursor: psycopg.Cursor[tuple[Any, ...]], statement: str, columns: Sequence[Column]
) -> Generator[tuple[Any, ...]]:
    failed = False
    try:
        yield from cursor.stream(statement.encode(), binary=True)
    except psycopg.DataError as error:
        # Without an SQLSTATE it comes from the client: Python has years 1 to 9999 only.
        if error.sqlstate is not None:
            raise
        failed = True
    if failed:
        names = [column.name for column in columns if _is_temporal(column.arrow_type)]
        raise TypeNotRepresentable(
            f"one of the columns {', '.join(names)} holds a value that is infinite or outside "
            "years 1 to 9999: set lossy_types: null to write NULL for it, set columns.cast to "
            "string or lossy_types: string for it, or leave such rows out with where"
        )


class _Text(Loader):
    """Loads text as bytes, without an extra copy; `PostgresReader` checks them."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return data if isinstance(data, bytes) else bytes(data)


def _is_temporal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_temporal(kind.value_type if pa.types.is_list(kind) else kind))


def _batch(
    rows: list[tuple[Any, ...]], schema: pa.Schema, columns: Sequence[Column]
) -> pa.RecordBatch:
    arrays = []
    for i, field in enumerate(schema):
        values = [row[i] for row in rows]
        if pa.types.is_decimal(field.type):
            # Arrow has no NaN here. The flags column marks it; see `PostgresReader`.
            values = [None if value is None or value.is_nan() else value for value in values]
        try:
            if pa.types.is_string(field.type):
                # Not checked for UTF-8, like DuckDB's; `PostgresReader` checks both.
                texts = [v.encode() if isinstance(v, str) else v for v in values]
                arrays.append(pa.array(texts, pa.binary()).view(pa.string()))
            else:
                arrays.append(pa.array(values, field.type))
            continue
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            kind = type(error).__name__
        # Not from within the handler: the original quotes the value.
        name = columns[i].name if i < len(columns) else field.name
        raise TypeNotRepresentable(
            f"column {name} holds a value that {field.type} cannot represent ({kind}); set "
            f"columns: {{cast: {{{name}: string}}}}, or leave such rows out with where"
        )
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
