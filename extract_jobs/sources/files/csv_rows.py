"""CSV, as in RFC 4180 and its common variants: parsed by Arrow, located by our own lexer.

Arrow reads every field as text; types come later, so no parser's leniency decides what a value is.
Blank lines are skipped.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from extract_jobs.errors import ConfigError, SourceQueryFailed
from extract_jobs.sources.files.blocks import (
    Block,
    Dialect,
    Rest,
    Stream,
    blocks,
    cut_csv,
    lines_in,
    record_starts,
    without_comments,
)
from extract_jobs.sources.files.texts import CONTENT, Fault, Texts, as_text, check_columns
from extract_jobs.spec.source import FilesSpec

NAMELESS = "has a value after the last column that the header names"

_DELIMITER_LINE = re.compile(rb"(?i)\"?sep=([\x01-\x7f])\"?(?:\r\n|\n|\r)")
_VOTES = 3
"""Rows that are checked for a delimiter at the end that the header lacks."""


_DELIMITERS = ";\t|"
"""What separates columns besides the comma; a header with one of them is not a single column."""


class OtherDelimiter(Exception):
    """The delimiter that a file seems to have; the cause of the ConfigError that says so."""


@dataclass(frozen=True)
class Header:
    """The columns of one CSV file.

    Attributes:
        names: In the file's order.
        end: Where its first row begins, in bytes of the text.
        line: The line of its first row.
        unnamed: Whether an unnamed, empty column follows.
    """

    names: tuple[str, ...]
    end: int = 0
    line: int = 1
    unnamed: bool = False


def dialect_of(files: FilesSpec) -> Dialect:
    """Return how a table's files are written."""
    quote = "" if files.quote == "none" else files.quote
    return Dialect(files.delimiter, quote, files.escape, files.comment)


def read_header(first: Block, files: FilesSpec, uri: str) -> Header:
    """Return a file's columns from its first block; no names if it has blank lines only.

    Raises:
        ConfigError: Two columns have the same name, or a column has none.
            Or the file seems to have another delimiter (the cause is `OtherDelimiter`).
    """
    dialect = dialect_of(files)
    starts = record_starts(first.data, dialect, _VOTES + 2)
    if not starts:
        return Header(())
    ends = [*starts[1:], len(first.data)]
    records = [first.data[start:end] for start, end in zip(starts, ends, strict=True)]
    end = ends[0]
    if not files.header:
        given = tuple(files.types or ())
        names = given or tuple(f"c{i}" for i in range(1, len(_fields(records[0], dialect)) + 1))
        longer = _have_empty_ends(records[:_VOTES], len(names), dialect)
        return Header(names, first.offset, first.line, longer)
    try:
        fields = [field.decode() for field in _fields(records[0], dialect)]
    except UnicodeDecodeError:
        raise ConfigError(f"{uri}: its header is not UTF-8; set files.encoding") from None
    if len(fields) == 1 and fields[0] not in (files.types or ()):
        _check_delimiter(records[0], fields[0], dialect, uri)
    check_columns(len(fields), uri)
    nameless_end = len(fields) > 1 and not fields[-1]
    if nameless_end:
        fields.pop()
    unnamed = [str(i) for i, name in enumerate(fields, 1) if not name]
    if unnamed:
        raise ConfigError(
            f"{uri}: column {', '.join(unnamed)} of the header has no name; fix the file, or set "
            "files.header to false and name the columns in files.types"
        )
    name, count = Counter(fields).most_common(1)[0]
    if count > 1:
        places = [str(i) for i, other in enumerate(fields, 1) if other == name]
        raise ConfigError(
            f"{uri}: columns {' and '.join(places)} of the header are both named {name!r}; "
            "fix the file, or set files.header to false and name the columns in files.types"
        )
    line = first.line + lines_in(first.data[:end])
    longer = _have_empty_ends(records[1 : 1 + _VOTES], len(fields), dialect)
    return Header(tuple(fields), first.offset + end, line, nameless_end or longer)


def _check_delimiter(record: bytes, name: str, dialect: Dialect, uri: str) -> None:
    """Refuse a single column whose name has a delimiter in it, unless the name is in quotes.

    Raises:
        ConfigError: It has; the cause is `OtherDelimiter`.
    """
    found = max(_DELIMITERS, key=name.count)
    quoted = f"{dialect.quote}{name}{dialect.quote}".encode()
    if found in name and (not dialect.quote or record.strip() != quoted):
        raise ConfigError(
            f"{uri}: its header is one column, {name!r}: set files.delimiter to {found!r}, or, if "
            "that is the column's name, declare it in files.types"
        ) from OtherDelimiter(found)


def _have_empty_ends(records: Sequence[bytes], columns: int, dialect: Dialect) -> bool:
    """Return whether most rows end in a delimiter; a single bad row does not decide."""
    return 2 * sum(_has_empty_end(row, columns, dialect) for row in records) > len(records)


def _has_empty_end(record: bytes, columns: int, dialect: Dialect) -> bool:
    """Return whether a row ends in a delimiter after its last column."""
    if not record.rstrip(b"\r\n").endswith(dialect.delimiter.encode()):
        return False
    fields = _fields(record, dialect)
    return len(fields) == columns + 1 and not fields[-1]


@lru_cache(maxsize=8)
def _fields(record: bytes, dialect: Dialect) -> Sequence[bytes]:
    """Return the fields of a record; many small files have the same header."""
    # Quoted delimiters make this more than there are, which is harmless.
    most = record.count(dialect.delimiter.encode()) + 1
    if not record.endswith((b"\n", b"\r", (dialect.escape or "\n").encode())):
        record += b"\n"  # Arrow counts no columns in a single line without an end
    table = arrow_csv.read_csv(
        pa.BufferReader(record),
        read_options=arrow_csv.ReadOptions(
            autogenerate_column_names=True, use_threads=False, block_size=len(record) + 1
        ),
        parse_options=parse_options(dialect, record),
        convert_options=arrow_csv.ConvertOptions(
            column_types={f"f{i}": pa.binary() for i in range(most)},
            null_values=[],
            check_utf8=False,
        ),
    )
    return [column[0].as_py() for column in table.columns]


def parse_options(dialect: Dialect, data: bytes) -> arrow_csv.ParseOptions:
    """Return Arrow's options for whole records of a dialect, which it is given as one block.

    ``newlines_in_values`` makes Arrow look for the end of the last record before it parses, which
    takes a quarter of its time. A line end at the end of the data is that end.
    """
    escapes = dialect.escape is not None and dialect.escape.encode() in data
    ends = data.endswith(b"\n") and not escapes
    return arrow_csv.ParseOptions(
        delimiter=dialect.delimiter,
        quote_char=dialect.quote or False,
        double_quote=bool(dialect.quote),
        escape_char=dialect.escape or False,
        newlines_in_values=bool(dialect.quote or dialect.escape) and not ends,
        ignore_empty_lines=True,
    )


def row_blocks(
    stream: Stream,
    files: FilesSpec,
    uri: str,
    header: Header | None = None,
    *,
    offset: int = 0,
    most: int | None = None,
) -> Iterator[tuple[Header, Block]]:
    """Yield the blocks of a file's rows, without its header, each with that header.

    Args:
        stream: Begins at ``offset``.
        files: How the file is written.
        uri: The file.
        header: The file's header, if the stream begins after it; None if the stream begins with it.
        offset: In bytes of the text; lines are counted from there.
        most: Maximum bytes of a block, as for `blocks`.
    """
    found = _behind_header(stream, files, uri, header, offset=offset, most=most)
    return _without_footer(found, files, uri) if files.footer_rows else found


def _behind_header(
    stream: Stream,
    files: FilesSpec,
    uri: str,
    header: Header | None,
    *,
    offset: int,
    most: int | None,
) -> Iterator[tuple[Header, Block]]:
    for block in record_blocks(stream, files, uri, offset=offset, most=most):
        rows = block
        if header is None:
            header = read_header(block, files, uri)
            if not header.names:
                header = None
                continue  # only blank lines so far
            rows = Block(block.data[header.end - block.offset :], header.end, header.line)
        yield header, rows


def _without_footer(
    found: Iterator[tuple[Header, Block]], files: FilesSpec, uri: str
) -> Iterator[tuple[Header, Block]]:
    """Yield blocks without the last rows of the file. Blocks that may hold some are held back.

    Raises:
        SourceQueryFailed: The file has rows, but fewer than its footer should have.
    """
    dialect, footer = dialect_of(files), files.footer_rows
    held: deque[tuple[Header, Block, int]] = deque()
    for header, block in found:
        held.append((header, block, len(record_starts(block.data, dialect, footer))))
        while sum(rows for *_, rows in held) - held[0][2] >= footer:
            yield held.popleft()[:2]
    kept: list[tuple[Header, Block]] = []
    for header, block, _ in reversed(held):
        starts = record_starts(block.data, dialect)
        first_left_out = max(0, len(starts) - footer)
        footer -= len(starts) - first_left_out
        end = starts[first_left_out] if first_left_out < len(starts) else len(block.data)
        kept.append((header, replace(block, data=block.data[:end])))
    if 0 < footer < files.footer_rows:
        raise SourceQueryFailed(
            f"{uri}: it has {files.footer_rows - footer} rows, fewer than files.footer_rows, which "
            f"is {files.footer_rows}: a row of data may be among them. Complete the file, or set "
            "files.footer_rows to what its files have"
        )
    yield from reversed(kept)


def record_blocks(
    stream: Stream, files: FilesSpec, uri: str, *, offset: int = 0, most: int | None = None
) -> Iterator[Block]:
    """Yield the blocks of a file's records, its header among them; see `row_blocks`.

    Comments, and a line that only names the delimiter, are left out.

    Raises:
        ConfigError: That line names another delimiter than ``files.delimiter``.
    """
    line, dialect, begins = 1, dialect_of(files), not offset
    if files.skip_rows and begins:
        stream = rest = Rest(stream, files.skip_rows, uri)
        offset, line = rest.skipped, files.skip_rows + 1
    for block in blocks(stream, cut_csv(dialect), uri, offset=offset, line=line, most=most):
        rest_of_it = _behind_delimiter_line(block, files, uri) if begins else block
        begins = False
        yield without_comments(rest_of_it, dialect)


def names_delimiter(text: bytes) -> bool:
    """Return whether a file begins with a line that only names the delimiter."""
    return _DELIMITER_LINE.match(text) is not None


def _behind_delimiter_line(block: Block, files: FilesSpec, uri: str) -> Block:
    """Return a file's first block without the line ``sep=;`` that Excel puts before the header."""
    found = _DELIMITER_LINE.match(block.data)
    if found is None:
        return block
    delimiter = found[1].decode()
    if delimiter != files.delimiter:
        raise ConfigError(
            f"{uri}: its first line says that the delimiter is {delimiter!r}, and files.delimiter "
            f"is {files.delimiter!r}; set files.delimiter, or files.skip_rows to leave the line out"
        )
    return Block(block.data[found.end() :], block.offset + found.end(), block.line + 1)


def parse_csv(block: Block, wanted: Sequence[str], *, header: Header, files: FilesSpec) -> Texts:
    """Return the rows of a block in some of the file's columns.

    Args:
        block: From `row_blocks`.
        wanted: Names; those that the file lacks are NULL.
        header: The file's columns.
        files: How the file is written.
    """
    dialect = dialect_of(files)
    locate = partial(_locate, block, dialect)
    numbers = [f"{i}" for i in range(len(header.names) + header.unnamed)]
    position = dict(zip(header.names, numbers, strict=False))
    chosen = [position[name] for name in wanted if name in position]
    chosen += numbers[-1:] if header.unnamed else []
    wrong: list[Fault] = []
    if is_blank(block.data):
        return Texts([pa.nulls(0, pa.string()) for _ in wanted], 0, None, locate)
    # Delimiters are ASCII, so fields of a block in UTF-8 are UTF-8, and are not checked again.
    valid = is_utf8_text(block.data)
    kind = pa.string() if valid else pa.binary()
    read = partial(_read_csv, dialect=dialect, names=numbers, chosen=chosen, kind=kind)
    try:
        table = read(block.data, wrong, nulls=list(files.null_values))
    except pa.ArrowInvalid:
        if valid:
            raise
        # Arrow reports rows of the wrong length as text, and gives up on one that is none.
        wrong.clear()
        nulls = [text.encode().decode("latin-1") for text in files.null_values]
        table = _as_latin(read(block.data.decode("latin-1").encode(), wrong, nulls=nulls))
    bad = {fault.record for fault in wrong}
    total = table.num_rows + len(bad)
    records = pa.array([i for i in range(total) if i not in bad], pa.int64()) if bad else None
    texts = Texts([], table.num_rows, records, locate, wrong)
    if header.unnamed:
        values = table.column(numbers[-1]).combine_chunks()
        filled = pc.indices_nonzero(pc.greater(pc.binary_length(values), 0)).to_pylist()
        wrong += [Fault(texts.record_of(row), None, NAMELESS) for row in filled]
    for name in wanted:
        if name not in position:
            texts.columns.append(pa.nulls(table.num_rows, pa.string()))
            continue
        values, failed = as_text(table.column(position[name]).combine_chunks())
        texts.columns.append(values)
        wrong += [Fault(texts.record_of(row), name, CONTENT) for row in failed]
    return texts


def _read_csv(
    data: bytes,
    wrong: list[Fault],
    *,
    nulls: list[str],
    dialect: Dialect,
    names: list[str],
    chosen: list[str],
    kind: pa.DataType,
) -> pa.Table:
    """Return columns as ``kind``, without the rows of another number of fields, which are noted.

    Raises:
        pa.ArrowInvalid: Such a row is not UTF-8, among others.
    """

    def skip(row: arrow_csv.InvalidRow) -> str:
        reason = f"has {row.actual_columns} fields, expected {row.expected_columns}"
        wrong.append(Fault(row.number - 1, None, reason))
        return "skip"

    options = parse_options(dialect, data)
    options.invalid_row_handler = skip
    return arrow_csv.read_csv(
        pa.BufferReader(data),
        read_options=arrow_csv.ReadOptions(
            column_names=names, use_threads=False, block_size=len(data) + 1
        ),
        parse_options=options,
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, kind),
            null_values=nulls,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            include_columns=chosen or names[:1],
            check_utf8=False,
        ),
    )


def is_blank(data: bytes) -> bool:
    """Return whether there are only blank lines."""
    return data[:1] in (b"", b"\r", b"\n") and not data.strip(b"\r\n")


def is_utf8_text(data: bytes) -> bool:
    """Return whether bytes are UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _as_latin(table: pa.Table) -> pa.Table:
    """Return the bytes of columns whose bytes were encoded as if they were Latin-1."""
    columns = [
        pa.array([v and v.decode().encode("latin-1") for v in column.to_pylist()], pa.binary())
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def _locate(block: Block, dialect: Dialect) -> list[tuple[int, bytes]]:
    found, line, last = [], block.line, 0
    for start, end in pairwise([*record_starts(block.data, dialect), len(block.data)]):
        line += lines_in(block.data[last:start])
        found.append((line, block.data[start:end].rstrip(b"\r\n")))
        last = start
    return found
