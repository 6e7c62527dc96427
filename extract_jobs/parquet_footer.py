"""The footer of a Parquet file, with what it says about each column chunk.

Arrow ends the process, instead of raising, when its metadata is asked about a chunk that it cannot
describe: one of an encrypted column whose key it lacks, or one of a damaged footer. So chunks are
read from the footer's own bytes, and Arrow is only asked for rows, where it raises. The forms are
those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from extract_jobs.errors import TypeNotRepresentable

_TAIL_BYTES = 64 * 2**10
"""Bytes at a file's end that are read first; most footers are shorter."""
_END_BYTES = 8
"""Length of the footer, and PAR1."""
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
"""Types of the compact protocol."""
_DICTIONARIES = frozenset({2, 8})
"""Encodings whose values are numbers of others, in old files and new."""
_LONGEST = 70
"""No number of the protocol has more bits."""
_MOST = 2**44
"""No column chunk has as many bytes or values, and no file as many rows."""

_Item = TypeVar("_Item")


class Chunk(NamedTuple):
    """What a footer says about one column of one row group.

    Attributes:
        values: Number of values, NULLs included.
        compressed: Bytes in the file.
        uncompressed: Bytes before compression.
        encodings: Encodings of its pages, by number.
        dictionary: Whether it has a page of distinct values, as its place or an encoding shows.
        encrypted: Whether its column is encrypted.
    """

    values: int = 0
    compressed: int = 0
    uncompressed: int = 0
    encodings: tuple[int, ...] = ()
    dictionary: bool = False
    encrypted: bool = False


@dataclass(frozen=True)
class Footer:
    """A file's footer.

    Attributes:
        metadata: As Arrow reads it. Do not ask it for columns of row groups.
        groups: The chunks of each row group, one for each leaf column, in order.
    """

    metadata: pq.FileMetaData
    groups: tuple[tuple[Chunk, ...], ...]

    @cached_property
    def encrypted(self) -> frozenset[int]:
        """Positions of the leaf columns that are encrypted in any row group."""
        return frozenset(
            position
            for group in self.groups
            for position, chunk in enumerate(group)
            if chunk.encrypted
        )

    def refuse_encrypted(self, columns: Sequence[str], uri: str) -> None:
        """Check that columns can be read.

        Args:
            columns: Columns of the file that are read.
            uri: The file, for the message.

        Raises:
            TypeNotRepresentable: One of them is encrypted, or a field inside it is.
        """
        paths = [self.metadata.schema.column(position).path for position in self.encrypted]
        for name in columns:
            # The name of a column may itself contain dots.
            if any(path == name or path.startswith(f"{name}.") for path in paths):
                raise TypeNotRepresentable(
                    f"{uri}: column {name!r} is encrypted, which is not supported: leave it out "
                    "with columns.exclude, or write the file without encryption"
                )


def read_footer(file: IO[bytes]) -> Footer:
    """Read a file's footer, mostly with one read.

    Raises:
        OSError, pyarrow.ArrowInvalid: It is damaged or encrypted, or this is no Parquet file.
    """
    size = file.seek(0, os.SEEK_END)
    tail = _last(file, min(size, _TAIL_BYTES))
    length = int.from_bytes(tail[-_END_BYTES:-4], "little")
    if len(tail) < length + _END_BYTES <= size:
        tail = _last(file, length + _END_BYTES)
    try:
        metadata = pq.read_metadata(pa.BufferReader(tail))
        groups = _row_groups(tail[-length - _END_BYTES : -_END_BYTES])
    except (IndexError, RecursionError, UnicodeDecodeError):
        raise pa.ArrowInvalid("the footer is damaged") from None
    if (
        len(groups) != metadata.num_row_groups
        or any(len(group) != metadata.num_columns for group in groups)
        or not 0 <= metadata.num_rows < _MOST
        or not all(_is_possible(chunk) for group in groups for chunk in group)
    ):
        raise pa.ArrowInvalid("the footer is damaged")
    return Footer(metadata, groups)


def _is_possible(chunk: Chunk) -> bool:
    return (
        0 <= chunk.values < _MOST
        and 0 <= chunk.compressed < _MOST
        and 0 <= chunk.uncompressed < _MOST
    )


def _last(file: IO[bytes], size: int) -> bytes:
    file.seek(-size, os.SEEK_END)
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# What follows reads Thrift's compact protocol from a position, and returns the position after it.
# Reading past the end, or a number that is too long, raises IndexError. A table may have 50,000
# columns, so numbers are passed over without a call for each.


def _row_groups(data: bytes) -> tuple[tuple[Chunk, ...], ...]:
    groups, end = _list_in(data, 0, 4, lambda data, at: _list_in(data, at, 1, _chunk))
    if end > len(data):
        raise IndexError
    return tuple(tuple(group) for group in groups)


def _list_in(
    data: bytes, at: int, wanted: int, read: Callable[[bytes, int], tuple[_Item, int]]
) -> tuple[list[_Item], int]:
    """Read a struct, and return the items of its list with a number."""
    found: list[_Item] = []
    field = 0
    while head := data[at]:
        field, at = _field(data, at, field)
        if field == wanted and head & 15 == _LIST:
            _, count, at = _list_head(data, at)
            for _ in range(count):
                item, at = read(data, at)
                found.append(item)
        else:
            at = _skip(data, at, head & 15)
    return found, at + 1


def _chunk(data: bytes, at: int) -> tuple[Chunk, int]:
    field, found, encrypted = 0, Chunk(), False
    while head := data[at]:
        if head > 15:
            field, at = field + (head >> 4), at + 1
        else:
            field, at = _field(data, at, field)
        if field == 3 and head & 15 == _STRUCT:
            found, at = _chunk_metadata(data, at)
        else:
            encrypted = encrypted or field == 8
            at = _skip(data, at, head & 15)
    return found._replace(encrypted=True) if encrypted else found, at + 1


def _chunk_metadata(data: bytes, at: int) -> tuple[Chunk, int]:
    field, dictionary = 0, False
    encodings: tuple[int, ...] = ()
    numbers = {5: 0, 6: 0, 7: 0}
    while head := data[at]:
        kind = head & 15
        if head > 15:
            field, at = field + (head >> 4), at + 1
        else:
            field, at = _field(data, at, field)
        if kind == _I64 and field in numbers:
            number, at = _number(data, at)
            numbers[field] = number >> 1 ^ -(number & 1)
        elif field == 2 and kind == _LIST:
            _, count, at = _list_head(data, at)
            listed = []
            for _ in range(count):
                number, at = _number(data, at)
                listed.append(number >> 1)
            encodings = tuple(listed)
            dictionary = dictionary or not _DICTIONARIES.isdisjoint(listed)
        elif 4 <= kind <= 6:  # _I16 to _I64
            dictionary = dictionary or field == 11
            while data[at] > 127:
                at += 1
            at += 1
        else:
            at = _skip(data, at, kind)
    values, uncompressed, compressed = numbers.values()
    return Chunk(values, compressed, uncompressed, encodings, dictionary), at + 1


def _field(data: bytes, at: int, last: int) -> tuple[int, int]:
    """Read the head of a struct's field, and return the field's number."""
    step = data[at] >> 4
    if step:
        return last + step, at + 1
    number, at = _number(data, at + 1)
    return number >> 1 ^ -(number & 1), at


def _list_head(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the type and the number of a list's items."""
    head = data[at]
    count, at = (head >> 4, at + 1) if head >> 4 < 15 else _number(data, at + 1)
    return head & 15, count, at


def _number(data: bytes, at: int) -> tuple[int, int]:
    found = place = 0
    while (part := data[at]) > 127:
        found |= (part & 127) << place
        place += 7
        at += 1
        if place > _LONGEST:
            raise IndexError
    return found | part << place, at + 1


def _skip(data: bytes, at: int, kind: int) -> int:
    """Pass over a value; true and false are no more than their type."""
    skip = _SKIPS.get(kind)
    if skip:
        return skip(data, at)
    if 4 <= kind <= 6:  # _I16 to _I64
        while data[at] > 127:
            at += 1
        return at + 1
    return at + {_TRUE: 0, _FALSE: 0, _BYTE: 1, _DOUBLE: 8}.get(kind, len(data))


def _skip_struct(data: bytes, at: int) -> int:
    while head := data[at]:
        at = at + 1 if head > 15 else _number(data, at + 1)[1]
        if 4 <= (kind := head & 15) <= 6:
            while data[at] > 127:
                at += 1
            at += 1
        elif kind == 8 and data[at] < 128:  # _BINARY
            at += 1 + data[at]
        else:
            at = _skip(data, at, kind)
    return at + 1


def _skip_binary(data: bytes, at: int) -> int:
    length, at = _number(data, at)
    return at + length


def _skip_list(data: bytes, at: int) -> int:
    item, count, at = _list_head(data, at)
    if 4 <= item <= 6:
        for _ in range(count):
            while data[at] > 127:
                at += 1
            at += 1
        return at
    skip = _SKIPS.get(item)
    for _ in range(count):
        at = skip(data, at) if skip else _skip_item(data, at, item)
    return at


def _skip_map(data: bytes, at: int) -> int:
    count, at = _number(data, at)
    kinds = data[at] if count else 0
    at += bool(count)
    for _ in range(count):
        at = _skip_item(data, _skip_item(data, at, kinds >> 4), kinds & 15)
    return at


def _skip_item(data: bytes, at: int, kind: int) -> int:
    """Pass over an item of a list, where true and false take a byte."""
    if at >= len(data):
        raise IndexError
    return at + 1 if kind in (_TRUE, _FALSE) else _skip(data, at, kind)


_SKIPS = {
    _STRUCT: _skip_struct, _BINARY: _skip_binary, _LIST: _skip_list, _SET: _skip_list,
    _MAP: _skip_map,
}  # fmt: skip
"""Each reads a byte at least, so that a count of items that is too large raises at the end."""
