"""One JSON array of objects, as a stream of JSON lines: one element a line, whatever it is.

Only what lies around the elements is judged here. Each of them is parsed like a line of JSON lines,
so there is one grammar of values. Memory holds one element at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from extract_jobs.errors import SourceQueryFailed
from extract_jobs.sources.files.blocks import MAX_RECORD_BYTES, Stream
from extract_jobs.sources.files.listing import Format
from extract_jobs.spec.source import FilesSpec

_READ_BYTES = 256 * 2**10
_NEST = re.compile(rb'"(?:[^"\\\r\n]++|\\[^\r\n])*+("?)|([{\[])|([}\]])')
"""A string, with its end if that was read, or what opens or closes an object or an array."""
_OPENS, _CLOSES = 2, 3
_BLANKS = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb'[^\s,:{}\[\]"]*+')
_LINE_ENDS_BLANK = bytes.maketrans(b"\r\n", b"  ")


def json_lines(stream: Stream, files: FilesSpec, form: Format, uri: str) -> Stream:
    """Return a stream of JSON lines, which files of the format ``jsonl`` are already."""
    return ArrayLines(stream, files.path, uri) if form == "json" else stream


class ArrayLines:
    """The elements of an array as lines. Meets `extract_jobs.sources.files.blocks.Stream`."""

    def __init__(self, inner: Stream, path: str | None, uri: str) -> None:
        """Read nothing yet.

        Args:
            inner: Text, UTF-8.
            path: Keys that lead to the array, with dots between them; None if the file is the
                array.
            uri: The file, for messages.
        """
        self._lines = _Document(inner, uri).all_lines(path.split(".") if path else [])
        self._held = b""

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, fewer only before the end, none at the end.

        Raises:
            SourceQueryFailed: The file is not an object with such a path, or no array is there, or
                it is cut short, or an element has more than `MAX_RECORD_BYTES`.
        """
        parts, length = [self._held], len(self._held)
        while length < size and (line := next(self._lines, None)):
            parts.append(line)
            length += len(line)
        whole = b"".join(parts)
        self._held = whole[size:]
        return whole[:size]


class _Document:
    """A JSON document that is read from its begin to its end."""

    def __init__(self, inner: Stream, uri: str) -> None:
        self._inner, self._uri = inner, uri
        self._data, self._at, self._before = b"", 0, 0

    def all_lines(self, path: list[str]) -> Iterator[bytes]:
        """Yield the elements of the array that keys lead to, and refuse what follows the end."""
        yield from self.lines(path)
        if self._peek():
            raise self._error("something follows the end")

    def lines(self, path: list[str]) -> Iterator[bytes]:
        """Yield the elements of the array that keys lead to."""
        if not path:
            yield from self._elements()
        else:
            found = False
            for key in self._keys():
                if key != path[0]:
                    self._value(keep=False)
                elif found:
                    raise self._error(f"the key {key!r} appears twice")
                else:
                    found = True
                    yield from self.lines(path[1:]) if path[1:] else self._elements()
            if not found:
                raise self._error(f"there is no key {path[0]!r} of files.path")

    def _keys(self) -> Iterator[str]:
        """Yield the keys of an object; whoever asks for the next has read the value."""
        self._take(b"{")
        if self._peek() == b"}":
            self._at += 1
            return
        while True:
            if self._peek() != b'"':
                raise self._error("a key is expected")
            try:
                key = json.loads(self._value(keep=True))
            except ValueError:
                raise self._error("a key is not a JSON string") from None
            self._take(b":")
            yield key
            if self._take(b",}") == b"}":
                return

    def _elements(self) -> Iterator[bytes]:
        self._take(b"[")
        if self._peek() == b"]":
            self._at += 1
            return
        while True:
            yield self._value(keep=True).translate(_LINE_ENDS_BLANK) + b"\n"
            if self._take(b",]") == b"]":
                return

    def _take(self, wanted: bytes) -> bytes:
        found = self._peek()
        if not found or found not in wanted:
            names = " or ".join(chr(one) for one in wanted)
            raise self._error(f"{names} is expected" + ("" if found else ", and the file ends"))
        self._at += 1
        return found

    def _value(self, *, keep: bool) -> bytes:
        """Read one value and return its bytes, none if they are not kept."""
        first = self._peek()
        if first and first not in b'{["':
            return self._scalar()
        parts: list[bytes] = []
        depth, length, done = 0, 0, False
        while True:
            end, depth, done = self._scanned(depth)
            length += end - self._at
            if keep:
                parts.append(self._data[self._at : end])
            self._at = end
            if done:
                return b"".join(parts)
            if keep and length + len(self._data) - end > MAX_RECORD_BYTES:
                raise self._error(f"a value has more than {MAX_RECORD_BYTES} bytes")
            if not self._more():
                raise self._error("the file ends inside of a value")

    def _scanned(self, depth: int) -> tuple[int, int, bool]:
        """Return how far a value goes in what is held, how deep, and whether it ends there."""
        for token in _NEST.finditer(self._data, self._at):
            what = token.lastindex
            if what == _OPENS:
                depth += 1
            elif what == _CLOSES:
                depth -= 1
            elif not token[1]:
                if len(self._data) - token.end() > 1:
                    raise self._error("a string has a line end in it")
                return token.start(), depth, False  # its end is yet to be read
            if depth <= 0:
                return token.end(), depth, True
        return len(self._data), depth, False

    def _scalar(self) -> bytes:
        while True:
            found = _SCALAR.match(self._data, self._at)
            assert found is not None
            if found.end() < len(self._data) or not self._more():
                break
            if len(self._data) - self._at > MAX_RECORD_BYTES:
                raise self._error(f"a value has more than {MAX_RECORD_BYTES} bytes")
        found = _SCALAR.match(self._data, self._at)
        if not found or not found[0]:
            raise self._error("a value is expected")
        self._at = found.end()
        return found[0]

    def _peek(self) -> bytes:
        """Return the next byte that is not blank; none at the end."""
        while True:
            blanks = _BLANKS.match(self._data, self._at)
            assert blanks is not None
            self._at = blanks.end()
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return b""

    def _more(self) -> bool:
        """Read on, ever more at a time while one token goes on; False at the end."""
        rest = self._data[self._at :]
        more = self._inner.read(max(_READ_BYTES, len(rest)))
        self._before += self._at
        self._data, self._at = rest + more, 0
        return bool(more)

    def _error(self, what: str) -> SourceQueryFailed:
        return SourceQueryFailed(
            f"{self._uri}, byte {self._before + self._at + 1}: {what}. With files.format json a "
            "file is one array of objects, or files.path leads to it; for one object a line set "
            "files.format: jsonl"
        )
