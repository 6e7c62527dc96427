"""A text file as blocks of whole records, with the offset and the line of each.

Where a record of CSV ends depends on quotes: a newline within quotes is data. A quote opens a field
only at its beginning; anywhere else in an unquoted field it is an ordinary character, as in Arrow's
parser. As long as every quote that would open a field follows a delimiter, a line end or another
quote, counting quotes shows what is inside: numpy does that, after it has left out characters that
an escape precedes. Any other block is cut with a regular expression for a record, which is exact
and slower.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from extract_jobs.errors import SourceQueryFailed

BLOCK_BYTES = 4 * 2**20
MAX_RECORD_BYTES = 128 * 2**20
"""A longer record is assumed to have a quote that is never closed."""


LONG_RECORD_BYTES = 16 * 2**20
"""Only one thread of a process at a time reads records longer than this. Reading one takes several
times its length in memory."""


_FEW_BYTES = 4096


class Stream(Protocol):
    """Text, UTF-8 except for mistakes, from beginning to end."""

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, fewer only before the end, none at the end."""


@dataclass(frozen=True)
class Dialect:
    """How CSV is written, in ASCII characters; unused marks are empty or None."""

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None
    comment: str | None = None


@dataclass(frozen=True)
class Block:
    """Whole records.

    Attributes:
        data: Their bytes.
        offset: Byte offset of the first record in the stream.
        line: Line number of the first record, from 1.
    """

    data: bytes
    offset: int
    line: int

    @property
    def is_long(self) -> bool:
        """Whether it may be one long record, beside which no other is to be in memory."""
        return len(self.data) > LONG_RECORD_BYTES


Cut = Callable[[bytes, bool], int]
"""Returns the end of the last whole record; the flag says that no more bytes follow."""


def blocks(
    stream: Stream,
    cut: Cut,
    uri: str,
    *,
    offset: int = 0,
    line: int = 1,
    most: int | None = None,
) -> Iterator[Block]:
    """Yield a stream's records in blocks of about `BLOCK_BYTES`, or of ``most`` if that is less.

    Args:
        stream: Begins with a record.
        cut: Returns where records end.
        uri: The file, for messages.
        offset: Offset of the stream in its file.
        line: Its line there; lines are counted from it.
        most: Maximum bytes of a block, if less than usual.

    Raises:
        SourceQueryFailed: A quote is never closed, or a record is too long.
    """
    rest, usual, turn = b"", min(BLOCK_BYTES, most or BLOCK_BYTES), _Turn()
    try:
        while True:
            more = stream.read(max(usual, len(rest)))
            data = rest + more if rest else more
            if not data:
                return
            end = cut(data, not more)
            if end:
                block = Block(data[:end], offset, line)
                offset += end
                line += lines_in(block.data)
                yield block
                del block
            rest = data[end:]
            del data
            turn.needed(now=len(rest) > LONG_RECORD_BYTES)
            if rest and (not more or len(rest) > MAX_RECORD_BYTES):
                why = f"a record may have {MAX_RECORD_BYTES} bytes. If a quote is not closed, "
                if cut is cut_lines:
                    why = (
                        f"a line may have {MAX_RECORD_BYTES} bytes. Put each object on its own line"
                    )
                else:
                    why = "a quote is not closed; " if not more else why
                    why += "correct the file, or set files.quote and files.escape to what it uses"
                raise SourceQueryFailed(
                    f"{uri}, line {line}: the record that begins here does not end within "
                    f"{len(rest)} bytes: {why}"
                )
    finally:
        turn.give_back()


_long_records = threading.Lock()


class _Turn:
    """The right of one thread to hold a long record. The thread that has it may take it again."""

    _owner: int | None = None

    def __init__(self) -> None:
        self._held = False

    def needed(self, *, now: bool) -> None:
        """Wait for the turn, or give it back if it is no longer needed."""
        if now and not self._held and _Turn._owner != threading.get_ident():
            _long_records.acquire()
            self._held, _Turn._owner = True, threading.get_ident()
        elif not now and self._held:
            self.give_back()

    def give_back(self) -> None:
        """Let another thread have the turn; does nothing if this one does not have it."""
        if self._held:
            self._held, _Turn._owner = False, None
            _long_records.release()


class Rest:
    """A stream after some of its lines.

    Attributes:
        skipped: Bytes of these lines.
    """

    def __init__(self, inner: Stream, lines: int, uri: str) -> None:
        """Read the lines.

        Raises:
            SourceQueryFailed: They are longer than `MAX_RECORD_BYTES`.
        """
        self._inner, self._held, self.skipped = inner, b"", 0
        for _ in range(lines):
            end = self._held.find(b"\n")
            while end < 0 and (more := inner.read(64 * 1024)):
                end = more.find(b"\n")
                end += len(self._held) if end >= 0 else 0
                self._held += more
                if len(self._held) > MAX_RECORD_BYTES:
                    raise SourceQueryFailed(f"{uri}: files.skip_rows: a line does not end")
            if end < 0:
                end = self._held.find(b"\r")  # as `lines_in` counts them
            length = end + 1 if end >= 0 else len(self._held)
            self.skipped += length
            self._held = self._held[length:]

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, fewer only before the end, none at the end."""
        given, self._held = self._held[:size], self._held[size:]
        return given + self._inner.read(size - len(given)) if len(given) < size else given


def lines_in(data: bytes) -> int:
    """Return the number of line ends; lone carriage returns count if there are no others."""
    return _count(data, b"\n") or _count(data, b"\r")


def _count(data: bytes, character: bytes) -> int:
    if len(data) < _FEW_BYTES:
        return data.count(character)
    # Four times as fast as bytes.count, if there are many.
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == character[0]))


def cut_lines(data: bytes, final: bool) -> int:
    """Return the end of the last whole line, as a `Cut` does."""
    return len(data) if final else data.rfind(b"\n") + 1


@lru_cache
def cut_csv(dialect: Dialect) -> Cut:
    """Return the `Cut` of a dialect of CSV."""
    quote, escape = dialect.quote.encode(), (dialect.escape or "").encode()
    before = np.zeros(256, np.bool_)
    before[list(b"\r\n" + quote + dialect.delimiter.encode())] = True

    def cut(data: bytes, final: bool) -> int:
        escapes = bool(escape) and escape in data
        if b"\n" in data:
            if not escapes and (not quote or quote not in data):
                return len(data) if final else data.rfind(b"\n") + 1
            if not _may_have_comments(data, dialect):
                escaped = _escaped(data, escape) if escapes else _NOWHERE
                end = _cut_by_parity(data, quote, before, escaped, final=final)
                if end is not None:
                    return end
        return _cut_by_record(data, dialect, final=final)

    return cut


_NOWHERE = np.zeros(0, np.intp)


def _escaped(data: bytes, escape: bytes) -> npt.NDArray[np.intp]:
    """Return where characters are that an escape precedes, in order. An escape may be one."""
    places = np.flatnonzero(np.frombuffer(data, np.uint8) == escape[0])
    numbers = np.arange(len(places))
    begins = np.flatnonzero(np.diff(places, prepend=-2) > 1)
    run = np.repeat(begins, np.diff(begins, append=len(places)))
    found: npt.NDArray[np.intp] = places[(numbers - run) % 2 == 0] + 1
    return found


def _cut_by_parity(
    data: bytes,
    quote: bytes,
    before: npt.NDArray[np.bool_],
    escaped: npt.NDArray[np.intp],
    *,
    final: bool,
) -> int | None:
    """Return the end of the last whole record, or None if quotes are in unexpected places.

    Args:
        data: Begins with a record.
        quote: The quote; empty if there is none.
        before: For each byte, whether a quote after it opens a field.
        escaped: Where characters are that stand for themselves.
        final: Whether no more bytes follow.
    """
    if len(escaped) and escaped[-1] == len(data):
        return None
    view = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(view == quote[0]) if quote else _NOWHERE
    if len(escaped):
        quotes = np.setdiff1d(quotes, escaped, assume_unique=True)
    opening = quotes[0::2]
    if opening.size and opening[0] == 0:
        opening = opening[1:]
    if not before[view[opening - 1]].all() or np.isin(opening - 1, escaped).any():
        return None
    if final and len(quotes) % 2 == 0:
        return len(data)
    # At the end too: if the last quote stays open, the records before it are whole.
    plain = frozenset(escaped.tolist())
    end = data.rfind(b"\n")
    while end >= 0:
        inside = int(np.searchsorted(quotes, end))
        if inside % 2 == 0 and end not in plain:
            return end + 1
        end = data.rfind(b"\n", 0, int(quotes[inside - 1]) if inside % 2 else end)
    return 0


def _cut_by_record(data: bytes, dialect: Dialect, *, final: bool) -> int:
    pattern, end = _record(dialect), 0
    while end < len(data):
        found = pattern.match(data, end)
        if found is None:
            break
        if not final and (found.end() == len(data) and not found[0].endswith(b"\n")):
            break  # a carriage return, or a text, that may continue
        if found[1] == b"" and not final:
            break
        end = found.end()
    return end


def record_starts(data: bytes, dialect: Dialect, most: int | None = None) -> list[int]:
    """Return where the records of a block begin; blank lines are skipped, as in Arrow.

    Args:
        data: Whole records.
        dialect: How they are written.
        most: Stop after this many.
    """
    found: list[int] = []
    pattern, start = _record(dialect), 0
    while start < len(data) and len(found) != most:
        record = pattern.match(data, start)
        if record is None:
            break
        if record[0].strip(b"\r\n"):
            found.append(start)
        start = record.end()
    return found


@lru_cache
def _record(dialect: Dialect) -> re.Pattern[bytes]:
    """Return the pattern of one record; group 1 is its line end, empty at the end of the data."""
    quote, delimiter = (re.escape(c.encode()) for c in (dialect.quote, dialect.delimiter))
    escape = re.escape(dialect.escape.encode()) if dialect.escape else b""
    escaped = rb"|%s(?s:.)" % escape if escape else b""
    bare = rb"(?:[^%s\r\n%s]%s)*+" % (delimiter, escape, escaped)
    quoted = rb"%s(?:[^%s%s]|%s%s%s)*+%s" % (quote, quote, escape, quote, quote, escaped, quote)
    field = rb"(?:%s%s|(?!%s)%s)" % (quoted, bare, quote, bare) if quote else bare
    fields = rb"%s(?:%s%s)*+" % (field, delimiter, field)
    if dialect.comment is not None:
        fields = rb"(?:%s[^\r\n]*+|%s)" % (re.escape(dialect.comment.encode()), fields)
    return re.compile(rb"%s(\r\n|\n|\r|\Z)" % fields)


def without_comments(block: Block, dialect: Dialect) -> Block:
    """Return a block whose comment lines are blank, so that lines are counted as before."""
    if not _may_have_comments(block.data, dialect):
        return block
    assert dialect.comment is not None
    mark = dialect.comment.encode()
    # Only within quotes or after an escape may a line begin that is not a record's first.
    marks = [one.encode() for one in (dialect.quote, dialect.escape) if one]
    if not any(one in block.data for one in marks):
        text = re.sub(rb"(?:(?<=[\r\n])|\A)%s[^\r\n]*+" % re.escape(mark), b"", block.data)
        return replace(block, data=text)

    def blank(record: re.Match[bytes]) -> bytes:
        return record[1] if record[0].startswith(mark) else record[0]

    return replace(block, data=_record(dialect).sub(blank, block.data))


def _may_have_comments(data: bytes, dialect: Dialect) -> bool:
    if dialect.comment is None:
        return False
    mark = dialect.comment.encode()
    return data.startswith(mark) or any(end + mark in data for end in (b"\n", b"\r"))
