"""The rows of MySQL's text protocol, decoded column by column into Arrow arrays.

A row is a packet: 3 bytes of length, 1 of sequence, then each value as text after its length.
PyMySQL makes Python objects of every value, 15 µs for a row of six; here numpy finds the values of
a whole batch at once and Arrow parses their text, in 2 µs. Rows are decoded as the server sends
them: only one batch of them is in memory at a time.

https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset.html
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pymysql
from pymysql.cursors import SSCursor

from extract_jobs.sources.mysql.driver import Connection, result_of, take_rows

_HEADER = 4
_LARGEST = 0xFFFFFF
"""A packet of this length continues in the next one."""
_NULL, _TWO, _THREE, _EIGHT = 0xFB, 0xFC, 0xFD, 0xFE
_ERROR = 0xFF
_LONG_VALUE = 64
"""Average size in bytes from which values are copied one by one."""
_LOST = pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")

Positions = np.ndarray[Any, np.dtype[np.int64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Field:
    """The server's description of a result's column.

    Attributes:
        name: Its name in the result.
        type_code: ``MYSQL_TYPE_…`` of the protocol.
        charset: Number of its collation; 63 is binary.
        length: Maximum length in bytes.
        flags: ``NOT_NULL`` 1, ``UNSIGNED`` 32, ``ZEROFILL`` 64, ``ENUM`` 256, ``SET`` 2048, ….
        decimals: Digits after the point; 31 or 39 if there is no fixed number.
    """

    name: str
    type_code: int
    charset: int
    length: int
    flags: int
    decimals: int


def fields_of(opened: Connection, statement: str) -> list[Field]:
    """Return the columns of a SELECT, without its rows if it has ``limit 0``."""
    with opened.cursor() as cursor:
        cursor.execute(statement)
        result = result_of(cursor)
        return [
            Field(f.name, f.type_code, f.charsetnr, f.length, f.flags, f.scale)
            for f in result.fields
        ]


def stream(
    opened: Connection, statement: str, *, batch_bytes: int, batch_rows: int
) -> Generator[list[pa.Array], None, int]:
    """Run a SELECT and yield its rows in batches, each value as the bytes that the server sent.

    The connection cannot be used before the last row has been taken.

    Args:
        opened: In the transaction that the rows are read in.
        statement: One SELECT.
        batch_bytes: Bytes of a batch; a row that is larger is a batch of its own.
        batch_rows: Maximum rows of a batch.

    Yields:
        One binary array per column.

    Returns:
        The server's number of warnings about the statement.

    Raises:
        pymysql.Error: The server failed the statement, or went away.
    """
    cursor = opened.cursor(SSCursor)
    cursor.execute(statement)
    result = result_of(cursor)
    if not result.unbuffered_active:
        raise pymysql.err.ProgrammingError(1064, "the statement returns no rows")
    begun, file = take_rows(opened, cursor)
    return (
        yield from decode(
            begun, file, result.field_count, batch_bytes=batch_bytes, batch_rows=batch_rows
        )
    )


def decode(
    begun: bytes, file: Any, field_count: int, *, batch_bytes: int, batch_rows: int
) -> Generator[list[pa.Array], None, int]:
    """Decode rows, up to the packet that ends them and not a byte further.

    Args:
        begun: What has already been read of them.
        file: Returns the others, through ``readinto``.
        field_count: Columns of a row.
        batch_bytes: See `stream`.
        batch_rows: See `stream`.

    Yields:
        One binary array per column.

    Returns:
        The number of warnings in the packet after the last row.

    Raises:
        pymysql.Error: The rows end with an error, or stop short.
    """
    rows = _Rows(begun, file, batch_bytes, batch_rows)
    for data, starts in rows:
        yield [_gather(data, *found) for found in _columns(data, starts, field_count)]
        del data
    return rows.warnings


class _Rows:
    """Iterates over batches of rows: a buffer, and where each row's first value starts in it.

    Attributes:
        warnings: How many there are, known after the last row.
    """

    def __init__(self, begun: bytes, file: Any, batch_bytes: int, batch_rows: int) -> None:
        self.warnings = 0
        self._file = file
        self._buffer = bytearray(max(batch_bytes, len(begun)))
        self._buffer[: len(begun)] = begun
        self._have = len(begun)
        self._batch_rows = batch_rows

    def __iter__(self) -> Iterator[tuple[Bytes, Positions]]:
        done = False
        while not done:
            starts, at, done = self._split()
            if starts:
                data = np.frombuffer(self._buffer, np.uint8, count=self._have)
                yield data, np.array(starts, np.int64)
                del data
            elif not done and self._is_long():
                row = self._long_row()
                yield np.frombuffer(row, np.uint8), np.zeros(1, np.int64)
                continue
            self._drop(at)
            if not done:
                self._fill(may_be_over=bool(starts))

    def _split(self) -> tuple[list[int], int, bool]:
        """Return the buffer's complete rows, where they end, and whether they are the last."""
        buffer, end, at = self._buffer, self._have, 0
        starts: list[int] = []
        add = starts.append
        while at + _HEADER < end and len(starts) < self._batch_rows:
            size = buffer[at] | buffer[at + 1] << 8 | buffer[at + 2] << 16
            if size == _LARGEST or at + _HEADER + size > end:
                break
            first = buffer[at + _HEADER]
            if first == _EIGHT and size < 9:
                self.warnings = int.from_bytes(
                    buffer[at + _HEADER + 1 : at + _HEADER + 3], "little"
                )
                return starts, at + _HEADER + size, True
            if first == _ERROR:
                if starts:  # these first, the error on the next call
                    break
                error = bytes(buffer[at + _HEADER : at + _HEADER + size])
                pymysql.err.raise_mysql_exception(error)
            add(at + _HEADER)
            at += _HEADER + size
        return starts, at, False

    def _drop(self, count: int) -> None:
        rest = self._have - count
        if count:
            self._buffer[:rest] = self._buffer[count : self._have]
        self._have = rest

    def _is_long(self) -> bool:
        return self._have >= _HEADER and self._buffer[:3] == b"\xff\xff\xff"

    def _fill(self, *, may_be_over: bool) -> None:
        """Read until the buffer is full or the rows end; it grows for one row that is larger.

        Args:
            may_be_over: Whether the rest may already be the end. False if that was checked.
        """
        if self._is_long():
            return
        if self._have >= _HEADER:
            size = int.from_bytes(self._buffer[:3], "little") + _HEADER
            if size > len(self._buffer):
                self._buffer.extend(bytes(size - len(self._buffer)))
        with memoryview(self._buffer) as view:
            if may_be_over and self._may_be_over(view):
                return
            while self._have < len(view):
                got = self._file.readinto(view[self._have :])
                if not got:
                    raise _LOST
                self._have += got
                if self._may_be_over(view):
                    return

    def _may_be_over(self, view: memoryview) -> bool:
        """Return whether the last bytes look like a packet that ends the rows.

        Waiting for more after that packet would never end. A value that looks like it costs a
        smaller batch.
        """
        tail = bytes(view[max(0, self._have - 9) : self._have])
        if tail[:3] == b"\5\0\0" and tail[_HEADER : _HEADER + 1] == b"\xfe":
            return True
        last = bytes(view[max(0, self._have - 1024) : self._have])
        at = last.rfind(b"\xff", 0)
        while at >= _HEADER:
            if int.from_bytes(last[at - _HEADER : at - 1], "little") == len(last) - at:
                return True
            at = last.rfind(b"\xff", 0, at)
        return False

    def _long_row(self) -> bytearray:
        """Read a row of several packets."""
        row = bytearray()
        while True:
            header = self._take(_HEADER)
            size = int.from_bytes(header[:3], "little")
            row += self._take(size)
            if size < _LARGEST:
                return row

    def _take(self, count: int) -> bytearray:
        taken = bytearray(count)
        have = min(count, self._have)
        taken[:have] = self._buffer[:have]
        self._drop(have)
        with memoryview(taken) as view:
            while have < count:
                got = self._file.readinto(view[have:])
                if not got:
                    raise _LOST
                have += got
        return taken


def _columns(
    data: Bytes, starts: Positions, count: int
) -> Iterator[tuple[Positions, Positions, np.ndarray[Any, np.dtype[np.bool_]]]]:
    """Yield each column's values: where they start, how long they are, whether they are NULL."""
    at = starts
    for _ in range(count):
        lengths = data[at].astype(np.int64)
        null = lengths == _NULL
        begins = at + 1
        large = np.nonzero(lengths >= _NULL)[0]
        if len(large):
            kinds = lengths[large]
            for kind, width in ((_TWO, 2), (_THREE, 3), (_EIGHT, 8)):
                rows = large[kinds == kind]
                size = np.zeros(len(rows), np.int64)
                for byte in range(width):
                    size |= data[at[rows] + 1 + byte].astype(np.int64) << (8 * byte)
                lengths[rows] = size
                begins[rows] += width
            lengths[null] = 0
        yield begins, lengths, null
        at = begins + lengths


def _gather(
    data: Bytes, begins: Positions, lengths: Positions, null: np.ndarray[Any, np.dtype[np.bool_]]
) -> pa.Array:
    """Copy scattered values into one Arrow array."""
    rows = len(begins)
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    total = int(offsets[-1])
    if total > rows * _LONG_VALUE:
        # Faster than an index with eight bytes for each byte of theirs, and smaller.
        ends = (begins + lengths).tolist()
        values: bytes | Bytes = b"".join(
            data[a:b].data for a, b in zip(begins.tolist(), ends, strict=True)
        )
    else:
        take = np.repeat(begins - offsets[:-1], lengths)
        take += np.arange(total)
        values = data[take]
    validity = pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None
    buffers = [validity, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.binary(), rows, buffers)
