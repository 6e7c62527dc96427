"""The footer of a Parquet file, and which columns it says are encrypted.

Arrow ends the process, instead of raising, when it is asked about a chunk of an encrypted column
whose key it lacks, and it does not say which columns those are. So the footer's own words are read:
https://github.com/apache/parquet-format/blob/master/Encryption.md
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from extract_jobs.errors import TypeNotRepresentable

_TAIL_BYTES = 64 * 2**10
"""Bytes at a file's end that are read first; most footers are shorter."""
_END_BYTES = 8
"""Length of the footer, and PAR1."""
_ROW_GROUPS, _CHUNKS, _CRYPTO = 4, 1, 8
"""Fields of FileMetaData, RowGroup and ColumnChunk."""
_COLUMN_KEY = re.compile(
    rb"[\x1c\x2c\x3c\x4c\x5c\x6c\x7c\x8c](?:\x1c\x00\x1c|\x2c)\x19[%s]|\x0c\x10[\x0c\x1c\x2c]"
    % b"".join(b"\\x%02x" % (count << 4 | 8) for count in range(16))
)
"""Bytes by which a chunk says that it has a key of its own: the field, the kind of key, and the
names of the column's path. Minima and maxima may hold the same by chance.
"""
_VARINT_BYTES = 10
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = (
    0, 1, 2, 3, 7, 8, 9, 10, 11, 12,
)  # fmt: skip


@dataclass(frozen=True)
class Footer:
    """A file's footer.

    Attributes:
        metadata: As Arrow reads it. Do not ask it for chunks of encrypted columns.
        encrypted: Positions of the leaf columns that are encrypted in any row group.
    """

    metadata: pq.FileMetaData
    encrypted: frozenset[int] = frozenset()

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
    metadata = pq.read_metadata(pa.BufferReader(tail))
    fields = tail[-length - _END_BYTES : -_END_BYTES]
    # Where columns are encrypted but the footer is not, a signature should follow its fields.
    if metadata.serialized_size == length and not _COLUMN_KEY.search(fields):
        return Footer(metadata)
    try:
        return Footer(metadata, frozenset(_encrypted(_Compact(fields))))
    except (IndexError, RecursionError):
        raise pa.ArrowInvalid("the footer is damaged") from None


def _last(file: IO[bytes], size: int) -> bytes:
    file.seek(-size, os.SEEK_END)
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _encrypted(read: _Compact) -> Iterator[int]:
    for field, kind in read.fields():
        if field != _ROW_GROUPS:
            read.skip(kind)
            continue
        for _ in read.items():
            for inner, inner_kind in read.fields():
                if inner == _CHUNKS:
                    yield from _encrypted_chunks(read)
                else:
                    read.skip(inner_kind)


def _encrypted_chunks(read: _Compact) -> Iterator[int]:
    for position, _ in enumerate(read.items()):
        for field, kind in read.fields():
            if field == _CRYPTO:
                yield position
            read.skip(kind)


class _Compact:
    """Reads Thrift's compact protocol, in which footers are written, from its beginning.

    Reading past the end, or an integer that is too long, raises IndexError.
    https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and type of each field of a struct; the caller reads or skips the value."""
        field = 0
        while (head := self._byte()) != _STOP:
            if head >> 4:
                field += head >> 4
            else:
                number = self._varint()
                field = number >> 1 ^ -(number & 1)
            yield field, head & 15

    def items(self) -> Iterator[int]:
        """Yield the type of each item of a list; the caller reads or skips the value."""
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._count()
        for _ in range(count):
            yield head & 15

    def skip(self, kind: int) -> None:
        """Skip a field's value."""
        if kind in {_TRUE, _FALSE}:
            return  # the type is the value
        if kind == _BYTE:
            self._at += 1
        elif kind == _DOUBLE:
            self._at += 8
        elif kind == _BINARY:
            length = self._varint()
            self._at += length
        elif kind in {_LIST, _SET}:
            for item in self.items():
                self._skip_item(item)
        elif kind == _MAP:
            if count := self._count():
                kinds = self._byte()
                for _ in range(count):
                    self._skip_item(kinds >> 4)
                    self._skip_item(kinds & 15)
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner)
        else:
            self._varint()

    def _skip_item(self, kind: int) -> None:
        self.skip(_BYTE if kind in {_TRUE, _FALSE} else kind)

    def _count(self) -> int:
        count = self._varint()
        if count > len(self._data):  # an item takes a byte at least
            raise IndexError
        return count

    def _byte(self) -> int:
        found = self._data[self._at]
        self._at += 1
        return found

    def _varint(self) -> int:
        found = 0
        for place in range(_VARINT_BYTES):
            part = self._byte()
            found |= (part & 127) << 7 * place
            if part < 128:
                return found
        raise IndexError
