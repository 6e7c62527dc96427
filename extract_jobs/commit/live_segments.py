"""Segments: the live files of a range of commits, as one Parquet file in the state folder.

A row is a file that a commit of the range wrote and none of them retired, newest commits first.
Files of earlier commits that the range retired are named too, so that segments combine as commits
do. Folders, partitions and intervals repeat, so a file takes some 30 bytes; what completing an
upload needs is left out. A segment is checked as commit records are, and can be read in parts.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extract_jobs.commit.record import LiveFiles
from extract_jobs.commit.record_check import is_below, require
from extract_jobs.parquet_footer import Footer, read_footer
from extract_jobs.storage import StagedFile, WrittenFile
from extract_jobs.watermark import Interval

_META = b"extract_jobs.live"
_VERSION = 1
_GROUP_ROWS = 16_384
_GROUP_BYTES = 256 * 2**20
"""No row group that a run writes is as large, uncompressed or in memory."""
_TEXTS = ("interval", "partition", "folder", "name", "token")
SCHEMA = pa.schema(
    [
        pa.field("seq", pa.int64()),
        *(pa.field(name, pa.string()) for name in _TEXTS),
        pa.field("size", pa.int64()),
        pa.field("rows", pa.int64()),
    ]
)
"""Columns of live files: ``interval`` and ``partition`` are JSON; ``folder`` and ``name``, the URI.
In a row that names a retired file all others are NULL."""
_REPEATED = ("interval", "partition", "folder")
"""Columns whose texts repeat. A segment has them as dictionaries, in memory too."""
_PLAIN = frozenset({0, 3})
"""PLAIN, in which each value is stored by itself, and RLE, which is that of NULLs."""


def _with_dictionaries(names: Collection[str]) -> pa.Schema:
    """Return `SCHEMA` with dictionaries in some columns."""
    return pa.schema(
        [
            field.with_type(pa.dictionary(pa.int32(), field.type)) if field.name in names else field
            for field in SCHEMA
        ]
    )


_WRITTEN = _with_dictionaries(_REPEATED)
_PLAIN_NAME = r"^[A-Za-z0-9_=-][A-Za-z0-9_.=-]*$"


@dataclass(frozen=True)
class Span:
    """What a segment holds, besides its files.

    Attributes:
        first: Its first commit.
        last: Its last commit.
        parent: The published commit before its first; 0 if no earlier file is live.
        covered: JSON of the intervals that commits cover up to its last one.
        retired: Number of files of earlier commits that it retires.
    """

    first: int
    last: int
    parent: int
    covered: tuple[dict[str, Any], ...]
    retired: int = 0


def table_of(live: Iterable[LiveFiles]) -> pa.Table:
    """Return live files as a table; raises ValueError for a URI without a folder."""
    columns: dict[str, list[Any]] = {field.name: [] for field in SCHEMA}
    partitions: dict[tuple[Any, ...], str] = {}
    for one in live:
        interval = _text(one.interval)
        for file in one.files:
            folder, _, name = file.staged.uri.rpartition("/")
            require(bool(folder), "a file has no folder")
            key = tuple(file.partition.items())
            if key not in partitions:
                partitions[key] = _text(file.partition)
            values = (one.seq, interval, partitions[key], folder, name, file.staged.token,
                      file.staged.size, file.rows)  # fmt: skip
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return pa.table(columns, schema=SCHEMA)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _checksum(meta: dict[str, Any]) -> int:
    """Return the checksum of what a segment says about itself: a footer has none of its own."""
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())


def live_of(table: pa.Table) -> Iterator[LiveFiles]:
    """Return the live files of a table, by commit. Their ``upload`` is empty."""
    partitions = {text: json.loads(text) for text in table["partition"].unique().to_pylist()}
    rows = zip(*(table[field.name].to_pylist() for field in SCHEMA), strict=True)
    for (seq, interval), of_commit in groupby(rows, key=lambda row: (row[0], row[1])):
        files = tuple(
            WrittenFile(
                StagedFile(f"{folder}/{name}", token, size, {}), count, partitions[partition]
            )
            for _, _, partition, folder, name, token, size, count in of_commit
        )
        yield LiveFiles(seq, json.loads(interval), files)


def uris_of(table: pa.Table) -> pa.ChunkedArray:
    """Return the URIs of a table's files."""
    folder, name = (table[key].cast(pa.string()) for key in ("folder", "name"))
    return pc.binary_join_element_wise(folder, name, "/")


class SegmentWriter:
    """Collects a segment in memory, a row group at a time; its rows are never all there at once."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._writer = pq.ParquetWriter(
            self._buffer, _WRITTEN, compression="zstd", use_dictionary=["seq", *_REPEATED],
            write_statistics=False, write_page_checksum=True, store_schema=False,
        )  # fmt: skip
        self._pending: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Add files, newest commits first: of `table_of`, or of another segment."""
        self._pending.append(_encoded(table))
        self._rows += table.num_rows
        while self._rows >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        joined = pa.concat_tables(self._pending)
        # Parquet takes one dictionary as it is, and writes a column with several without any.
        group = joined.slice(0, _GROUP_ROWS).unify_dictionaries()
        self._writer.write_table(group, row_group_size=_GROUP_ROWS)
        left = joined.slice(_GROUP_ROWS)
        self._pending, self._rows = [left], left.num_rows

    def close(self, span: Span, retired: Sequence[str]) -> bytes:
        """Return the segment.

        Args:
            span: What it holds.
            retired: URIs of the files of earlier commits that it retires.
        """
        parts = [uri.rpartition("/") for uri in retired]
        names = {"folder": [part[0] for part in parts], "name": [part[2] for part in parts]}
        nulls = {f.name: pa.nulls(len(parts), f.type) for f in _WRITTEN if f.name not in names}
        # After the files, in row groups of their own.
        while self._rows:
            self._flush()
        if parts:
            table = _encoded(pa.table({**nulls, **names}).select(SCHEMA.names))
            for start in range(0, len(parts), _GROUP_ROWS):
                self._writer.write_table(table.slice(start, _GROUP_ROWS))
        meta = {**span.__dict__, "retired": len(parts), "version": _VERSION}
        meta["checksum"] = _checksum(meta)
        self._writer.add_key_value_metadata({_META: json.dumps(meta).encode()})
        self._writer.close()
        return self._buffer.getvalue()


@dataclass(frozen=True)
class Segment:
    """A stored segment, opened.

    Attributes:
        span: What it holds.
    """

    span: Span
    _file: pq.ParquetFile
    _target_uri: str

    @classmethod
    def open(cls, stream: IO[bytes], target_uri: str) -> Segment:
        """Read a segment's footer.

        Raises:
            ValueError: It is damaged, or another version wrote it.
        """
        with _damage():
            footer = read_footer(stream)
            # A dictionary takes no more memory than its pages; without one, neither does a column.
            names = [name for name in _TEXTS if name not in _plain_columns(footer)]
            file = pq.ParquetFile(
                stream, metadata=footer.metadata, read_dictionary=names,
                page_checksum_verification=True,
            )  # fmt: skip
            require(file.schema_arrow.equals(_with_dictionaries(names)), "its columns differ")
            meta = json.loads((file.metadata.metadata or {})[_META])
            require(meta.pop("checksum") == _checksum(meta), "it is damaged")
            require(meta.pop("version") == _VERSION, "another version wrote it")
            span = Span(**{**meta, "covered": tuple(meta["covered"])})
            numbers = (span.first, span.last, span.parent, span.retired)
            require(all(type(number) is int for number in numbers), "its range is not valid")
            require(0 <= span.parent < span.first <= span.last, "its range is not valid")
            for interval in span.covered:
                Interval.from_json(interval)
            groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
            require(
                all(g.num_rows <= _GROUP_ROWS and g.total_byte_size <= _GROUP_BYTES for g in groups)
                and 0 <= span.retired <= sum(g.num_rows for g in groups),
                "its size is not valid",
            )
        return cls(span, file, target_uri)

    def tables(self, meets: Callable[[Interval | None], bool] | None = None) -> Iterator[pa.Table]:
        """Return its live files as tables; each is checked before it is returned.

        Args:
            meets: Returns whether a commit's files are wanted, by its interval; None takes all.

        Raises:
            ValueError: It is damaged, or names a file outside the target.
        """
        with _damage():
            for number in range(self._retired_from()):
                wanted = None if meets is None else self._wanted(number, meets)
                if wanted is not None and not len(wanted):
                    continue
                table = _decoded(self._file.read_row_group(number))
                self._check_files(table)
                if wanted is not None:
                    table = table.filter(pc.is_in(table["interval"], value_set=wanted))
                yield table

    def stored(self) -> Iterator[pa.Table]:
        """Return its live files as they are stored, for a longer segment.

        Only what would mix up commits is checked. Whoever reads the longer one checks its values.

        Raises:
            ValueError: It is damaged.
        """
        with _damage():
            for number in range(self._retired_from()):
                table = self._file.read_row_group(number, use_threads=False)
                self._check_commits(table)
                yield table

    def retired(self) -> set[str]:
        """Return the URIs of the files of earlier commits that it retires.

        Raises:
            ValueError: It is damaged.
        """
        found: set[str] = set()
        with _damage():
            for number in range(self._retired_from(), self._file.num_row_groups):
                table = _decoded(self._file.read_row_group(number, columns=["folder", "name"]))
                found.update(uris_of(table).to_pylist())
        return found

    def _retired_from(self) -> int:
        """Return the first row group that names retired files."""
        number, rows = int(self._file.num_row_groups), 0
        while rows < self.span.retired:
            number -= 1
            rows += self._file.metadata.row_group(number).num_rows
        require(rows == self.span.retired, "its retired files are not apart")
        return number

    def _wanted(self, number: int, meets: Callable[[Interval | None], bool]) -> pa.Array:
        found = self._file.read_row_group(number, columns=["interval"])["interval"]
        distinct = {text for chunk in found.chunks for text in chunk.unique().to_pylist()}
        texts = [text for text in distinct if meets(Interval.from_json(json.loads(text)))]
        return pa.array(texts, pa.string())

    def _check_commits(self, table: pa.Table) -> None:
        require(not any(column.null_count for column in table.columns), "a file has no value")
        seqs = pc.min_max(table["seq"]).as_py()
        require(
            self.span.first <= seqs["min"] and seqs["max"] <= self.span.last,
            "a file belongs to another commit",
        )

    def _check_files(self, table: pa.Table) -> None:
        self._check_commits(table)
        least = min(pc.min(table["size"]).as_py(), pc.min(table["rows"]).as_py())
        require(least >= 0, "a file's size or rows are out of range")
        require(pc.min(pc.binary_length(table["token"])).as_py() > 0, "a file has no token")
        outside = "it names a file outside the target"
        for folder in table["folder"].unique().to_pylist():
            require(is_below(f"{folder}/x", self._target_uri), outside)
        plain = pc.match_substring_regex(table["name"], _PLAIN_NAME)
        for uri in uris_of(table.filter(pc.invert(plain))).to_pylist():
            require(is_below(uri, self._target_uri), outside)
        for text in table["interval"].unique().to_pylist():
            Interval.from_json(json.loads(text))
        for text in table["partition"].unique().to_pylist():
            _check_partition(json.loads(text))


def _plain_columns(footer: Footer) -> set[str]:
    """Return the columns in which no text stands for many: those of plain pages alone."""
    schema = footer.metadata.schema
    others = {
        schema.column(position).path
        for group in footer.groups
        for position, chunk in enumerate(group)
        if chunk.dictionary or not _PLAIN.issuperset(chunk.encodings)
    }
    return set(SCHEMA.names) - others


def _decoded(table: pa.Table) -> pa.Table:
    """Return a row group without dictionaries, in which one long text may stand for every row."""
    size = 0
    for column in table.columns:
        for chunk in column.chunks if pa.types.is_dictionary(column.type) else ():
            lengths = pc.binary_length(chunk.dictionary)
            size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    require(size <= _GROUP_BYTES, "its size is not valid")
    return table.cast(pa.schema([SCHEMA.field(name) for name in table.column_names]))


def _encoded(table: pa.Table) -> pa.Table:
    """Return files of any form with dictionaries in those columns that repeat."""
    for position, field in enumerate(_WRITTEN):
        column = table.column(position)
        if field.name in _REPEATED and not pa.types.is_dictionary(column.type):
            table = table.set_column(position, field, column.dictionary_encode())
    others = [name for name in SCHEMA.names if name not in _REPEATED]
    plain = dict(zip(others, _decoded(table.select(others)).columns, strict=True))
    columns = [plain.get(name, table[name]) for name in SCHEMA.names]
    return pa.table(columns, schema=_WRITTEN)


def _check_partition(partition: Any) -> None:
    require(isinstance(partition, dict), "a partition is not valid")
    values = partition.values()
    require(all(v is None or isinstance(v, str) for v in values), "a partition is not valid")


_DAMAGE = (
    pa.ArrowException, OSError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


@contextmanager
def _damage() -> Iterator[None]:
    """Turn whatever a damaged segment raises into ValueError, without its content."""
    try:
        yield
    except MemoryError:
        raise
    except _DAMAGE as error:
        raise ValueError("it is damaged") from error
