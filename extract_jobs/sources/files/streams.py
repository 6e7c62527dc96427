"""The bytes of one object as they were listed: read in parts, decompressed, decoded."""

from __future__ import annotations

import codecs
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import IO, cast

import pyarrow as pa

from extract_jobs.errors import ConfigError, SourceQueryFailed, SourceUnavailable, WriteFailed
from extract_jobs.sources.files.blocks import Stream
from extract_jobs.sources.files.listing import (
    Compression,
    Format,
    compression_of,
    named_format,
)
from extract_jobs.sources.splits import ObjectRange
from extract_jobs.spec.source import FilesSpec
from extract_jobs.storage import ObjectInfo, Storage, changed_message

GET_BYTES = 8 * 2**20
"""Bytes of an object that are read at a time, with one GET."""
_BOM = codecs.BOM_UTF8


@contextmanager
def source_errors(uri: str) -> Iterator[None]:
    """Map the errors of reading an object to `extract_jobs.errors`.

    Raises:
        SourceUnavailable: Storage failed, or the object is no longer what was listed.
        SourceQueryFailed: Its bytes are damaged or cut short.
    """
    try:
        yield
    except WriteFailed as error:
        raise SourceUnavailable(f"reading {uri}: {error}") from error
    except UnicodeError:
        raise SourceQueryFailed(
            f"{uri}: its bytes are not in the expected encoding; set files.encoding to the "
            "one that it is written in"
        ) from None
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
        cut = isinstance(error, EOFError)
        reason = "it is cut short" if cut else "it is damaged, or compressed in another way"
        raise SourceQueryFailed(
            f"{uri} cannot be read: {reason}. Does its compression match its name or files?"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            # An error of the operating system, such as a network file system that went away.
            raise SourceUnavailable(f"reading {uri}: {error.strerror}") from error
        # Arrow's messages may quote data.
        reason = "it is damaged"
        if "CRC checksum" in str(error):
            reason = "a page is damaged, its checksum does not match"
        elif "compress" in str(error) or "inflate" in str(error):
            reason = str(error)
        if "Expected all lists to be of size" in str(error):
            raise SourceQueryFailed(
                f"{uri} cannot be read: a list of fixed size is NULL in it, which Arrow writes and "
                "does not read. Write the column as a list without a fixed size, or write the file "
                "with store_schema=False"
            ) from None
        raise SourceQueryFailed(
            f"{uri} cannot be read: {reason}. Was it cut short, or does it have another format or "
            "compression than its name or files says?"
        ) from None


def open_object(storage: Storage, part: ObjectRange) -> IO[bytes]:
    """Open an object as it was listed. Reading it later raises as `Storage.open` does.

    Raises:
        SourceUnavailable: It was replaced or deleted.
    """
    opened = storage.open(part.uri, ObjectInfo(part.uri, part.size, etag=part.etag))
    if opened is None:
        raise SourceUnavailable(changed_message(part.uri))
    return opened


class Bytes:
    """Bytes of an open file from ``start`` to before ``end``, fetched in large parts."""

    closed = False

    def __init__(self, file: IO[bytes], start: int, end: int) -> None:
        """Seek to the first byte; reads nothing yet."""
        self._file, self._left = file, end - start
        self._held, self._at = b"", 0
        file.seek(start)

    def readable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Do nothing, since whoever opened the file closes it. Arrow requires the method."""
        self._left, self._held, self._at = 0, b"", 0

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, none only at the end."""
        if not self._held and self._left > 0:
            self._held = self._file.read(min(self._left, GET_BYTES))
            self._left = self._left - len(self._held) if self._held else 0
        # What is left stays where it is: a decompressor reads a few kilobytes at a time.
        given = self._held[self._at : None if size < 0 else self._at + size]
        self._at += len(given)
        if self._at == len(self._held):
            self._held, self._at = b"", 0
        return given


class TextStream:
    """A stream whose reads are full, without a byte order mark at the beginning of a file.

    Attributes:
        mark_bytes: Length of the byte order mark that was left out; 0 before the first read.
    """

    def __init__(self, inner: Stream, *, begins: bool) -> None:
        """Read nothing yet.

        Args:
            inner: Text, UTF-8.
            begins: Whether this is the beginning of the file.
        """
        self.mark_bytes = 0
        self._inner = inner
        self._begins = begins

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, fewer only before the end, none at the end."""
        parts: list[bytes] = []
        while size > 0:
            part = self._inner.read(size)
            if not part:
                break
            if self._begins:
                text = part.removeprefix(_BOM)
                self.mark_bytes = len(part) - len(text)
                part, self._begins = text, False
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Decoded:
    """A stream in another encoding, as UTF-8."""

    def __init__(self, inner: Stream, encoding: str) -> None:
        self._inner = inner
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._done = False

    def read(self, size: int) -> bytes:
        while not self._done:
            part = self._inner.read(size)
            self._done = not part
            text = self._decoder.decode(part, final=self._done)
            if text:
                return text.encode()
        return b""


def is_utf8(encoding: str) -> bool:
    """Return whether text in an encoding is already UTF-8.

    Raises:
        ConfigError: There is no such encoding.
    """
    try:
        found = codecs.lookup(encoding)
        "".encode(encoding)  # some codecs, such as rot13 and base64, are not text encodings
        return found.name in {"utf-8", "ascii", "utf-8-sig"}
    except (LookupError, ValueError):
        raise ConfigError(
            f"files.encoding: {encoding!r} is not a text encoding that Python supports; expected "
            "a name such as utf-8, latin-1 or cp1252"
        ) from None


def _decompressed(inner: Bytes, compression: Compression) -> Stream:
    """Return the bytes of a whole object, decompressed on demand; not of a zip."""
    if compression == "none":
        return inner
    if compression == "gzip":
        # Several members are one stream, and zeros may follow the last.
        return gzip.GzipFile(fileobj=cast("IO[bytes]", inner), mode="rb")
    if compression == "xz":
        return lzma.LZMAFile(cast("IO[bytes]", inner))
    opened: Stream = pa.CompressedInputStream(pa.PythonFile(inner, mode="r"), compression)
    return opened


def text_streams(
    file: IO[bytes], part: ObjectRange, compression: Compression, files: FilesSpec, form: Format
) -> Generator[tuple[str, TextStream]]:
    """Yield each file of an object's part as text, with its name for messages.

    A zip has as many as were put into it, in their order there; read each before the next. Every
    other object is one file.

    Args:
        file: From `open_object`.
        part: The part; a zip's is all of it.
        compression: The object's.
        files: How files are written.
        form: The format of all of them.

    Raises:
        ConfigError: A zip has no member, or one that its name says is not such a file.
        SourceQueryFailed: It is not a zip, or has a password.
    """
    if compression != "zip" or not part.size:
        yield part.uri, text_stream(file, part, compression, files.encoding)
        return
    archive = zipfile.ZipFile(file)
    members = [one for one in archive.infolist() if not one.is_dir() and not _is_macos(one)]
    if not members:
        raise ConfigError(f"{part.uri}: there is no file in this zip")
    for member in members:
        name = part.uri if len(members) == 1 else f"{part.uri}, {member.filename}"
        if member.flag_bits & 1:
            raise SourceQueryFailed(f"{name}: it is encrypted; unpack it")
        if len(members) > 1:
            _check_member(name, member.filename, files, form)
        with archive.open(member) as opened:
            decoded = opened if is_utf8(files.encoding) else _Decoded(opened, files.encoding)
            yield name, TextStream(decoded, begins=True)


def _is_macos(member: zipfile.ZipInfo) -> bool:
    """Return whether a member is what macOS adds: its file system's metadata of the others."""
    name = member.filename
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1] == ".DS_Store"


def _check_member(where: str, name: str, files: FilesSpec, form: Format) -> None:
    """Check that one of several members is a file of the table.

    Raises:
        ConfigError: Its name says that it is not.
    """
    if compression_of(name, None) != "none":
        raise ConfigError(f"{where}: it is compressed within the zip; unpack it")
    if files.format is None and named_format(name) != form:
        raise ConfigError(
            f"{where}: its name does not say that it is {form}, as the zip's does. All files of a "
            "zip are read: unpack it, or set files.format if this one has the table's rows too"
        )


def text_stream(
    file: IO[bytes],
    part: ObjectRange,
    compression: Compression,
    encoding: str,
    start: int | None = None,
) -> TextStream:
    """Return an object's part as text. A part of an object is plain and UTF-8; none is a zip's.

    Args:
        file: From `open_object`.
        part: The part.
        compression: The object's.
        encoding: The text's.
        start: Read from here instead of the part's start.
    """
    begin = part.start if start is None else start
    end = part.size if part.end is None else part.end
    plain = Bytes(file, begin, end)
    inner = _decompressed(plain, compression) if part.size else plain
    decoded = inner if is_utf8(encoding) else _Decoded(inner, encoding)
    return TextStream(decoded, begins=begin == 0)
