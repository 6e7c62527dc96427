"""Small CSV files whose rows are parsed as if they stood in one file.

To parse a file costs the same for ten rows as for a thousand. So the rows of files that begin with
the same header are joined. If parsing them then finds as many rows as there are lines, every line
is a row, whichever file it is in; only a carriage return within a line could make up for a record
of several lines. Otherwise the files are read one by one, which also names file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from typing import TypeVar

from extract_jobs.sources.files.csv_rows import names_delimiter
from extract_jobs.sources.files.listing import Format, compression_of
from extract_jobs.sources.files.streams import (
    TextStream,
    is_utf8,
    open_object,
    source_errors,
    text_stream,
)
from extract_jobs.sources.splits import ObjectRange
from extract_jobs.spec.source import FilesSpec
from extract_jobs.storage import Storage

JOINED_BYTES = 2 * 2**20
"""Maximum bytes of files that are joined."""
_SMALL_BYTES = 128 * 2**10
"""Larger files are read alone: parsing them costs much more than opening them."""
_AT_A_TIME = 4
"""Objects of remote storage that are fetched at a time; several threads join files."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Joined:
    """Files as one text.

    Attributes:
        text: Their header, and the rows of all of them.
        rows: How many lines each has below its header.
    """

    text: bytes
    rows: tuple[int, ...]

    def stream(self) -> TextStream:
        """Return the text as that of one file."""
        return TextStream(BytesIO(self.text), begins=False)


def can_be_joined(part: ObjectRange, files: FilesSpec, form: Format) -> bool:
    """Return whether a file of a table may be joined to others, going by what was listed."""
    return (
        0 < part.size <= _SMALL_BYTES
        and not part.start
        and part.end is None
        and form == "csv"
        and is_utf8(files.encoding)
        and compression_of(part.uri, files.compression) == "none"
        # A line end that is added to the last line would be a part of it after an escape.
        and not (files.skip_rows or files.footer_rows or files.comment or files.escape)
    )


def runs(
    items: Iterable[Item], size: Callable[[Item], int], key: Callable[[Item], object]
) -> Iterator[list[Item]]:
    """Yield neighbours of the same key, of at most `JOINED_BYTES`; alone where the key is None."""
    held: list[Item] = []
    total, last = 0, None
    for item in items:
        its, more = key(item), size(item)
        if held and (its is None or its != last or total + more > JOINED_BYTES):
            yield held
            held, total = [], 0
        held.append(item)
        total, last = total + more, its
    if held:
        yield held


def joined(storage: Storage, parts: Sequence[ObjectRange], files: FilesSpec) -> Joined | None:
    """Read small files and join them; None if they have to be read one by one.

    Args:
        storage: Where they are.
        parts: Of which `can_be_joined` is true.
        files: How they are written.

    Raises:
        SourceUnavailable: One is not as it was listed.
        ExtractError: Storage failed.
    """

    def text_of(part: ObjectRange) -> bytes:
        with source_errors(part.uri), closing(open_object(storage, part)) as file:
            return text_stream(file, part, "none", files.encoding).read(part.size)

    if "://" in parts[0].uri:
        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="fetch") as pool:
            texts = list(pool.map(text_of, parts))
    else:
        texts = [text_of(part) for part in parts]
    return _joined(texts, has_header=files.header)


def _joined(texts: Sequence[bytes], *, has_header: bool) -> Joined | None:
    header = b""
    if has_header:
        header, end, _ = texts[0].partition(b"\n")
        header += end
        if not end or not header.strip():
            return None
    bodies, rows = [header], []
    for text in texts:
        if not text.startswith(header) or names_delimiter(text):
            return None
        body = text[len(header) :]
        if body and not body.endswith(b"\n"):
            body += b"\n"
        bodies.append(body)
        rows.append(body.count(b"\n"))
    whole = b"".join(bodies)
    if b"\r" in whole and whole.count(b"\r") != whole.count(b"\r\n"):
        return None
    return Joined(whole, tuple(rows))
