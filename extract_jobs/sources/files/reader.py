"""Reads splits of files: objects, or parts of them, exactly as they were listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import IO

import pyarrow as pa

from extract_jobs.errors import ConfigError, SourceQueryFailed
from extract_jobs.schema import Column
from extract_jobs.sources.files.ahead import in_order
from extract_jobs.sources.files.alike import can_be_joined, joined, runs
from extract_jobs.sources.files.blocks import BLOCK_BYTES, Block, blocks, cut_lines, lines_in
from extract_jobs.sources.files.convert import batch_of
from extract_jobs.sources.files.csv_rows import Header, parse_csv, row_blocks
from extract_jobs.sources.files.csv_typed import typed_batch
from extract_jobs.sources.files.folders import (
    Folders,
    folder_column,
    folders_of,
    refuse_both,
)
from extract_jobs.sources.files.inspection import headers_of
from extract_jobs.sources.files.json_array import json_lines
from extract_jobs.sources.files.jsonl_rows import JsonLines
from extract_jobs.sources.files.jsonl_typed import can_be_typed, typed_lines
from extract_jobs.sources.files.listing import Format, compression_of
from extract_jobs.sources.files.parquet_rows import read_groups
from extract_jobs.sources.files.rejects import Rejects
from extract_jobs.sources.files.streams import (
    GET_BYTES,
    TextStream,
    open_object,
    source_errors,
    text_streams,
)
from extract_jobs.sources.files.text_forms import Forms, forms_of
from extract_jobs.sources.files.texts import Texts
from extract_jobs.sources.splits import ObjectRange, Split
from extract_jobs.spec.source import FilesSpec
from extract_jobs.storage import ObjectInfo, OpenStorage, Storage
from extract_jobs.transform.sizes import fixed_bytes

NO_ROW = 10
"""If this many rows of a file are set aside and none parses, the file itself is wrong."""
_JOINED_BYTES = 2**20
"""Arrow bytes of batches that are joined."""
_ABSENT_BYTES = 16 * 2**20
"""Of a batch, for columns that the file lacks."""
_SCAN_BYTES = 64 * 2**10
"""Bytes read at a time in search of a line's end."""


@dataclass
class FilesReader:
    """Reads splits of files. Meets `extract_jobs.sources.Reader`.

    Attributes:
        files: How they are written.
        format: The format of all of them.
        columns: Columns of batches, in order.
        open_storage: Returns the storage of a URI.
        folder: Folders below it may name columns.
        rejected_folder: Folder for rows that do not parse; None fails at the first.
        rejected_text: Whether their text is stored too, and not just their file and line.
        rejected_rows: How many the last read that began has set aside so far.
        truncated: Timestamps whose digits below microseconds it has cut off, by column.
    """

    files: FilesSpec
    format: Format
    columns: tuple[Column, ...]
    open_storage: OpenStorage
    folder: str
    rejected_folder: str | None = None
    rejected_text: bool = True
    rejected_rows: int = field(default=0, compare=False)
    truncated: dict[str, int] = field(default_factory=dict, compare=False)

    @property
    def nulled(self) -> Mapping[str, int]:
        """Always empty: a value that does not fit makes its row a bad one."""
        return {}

    @property
    def forms(self) -> Forms:
        """Columns that are declared to be written in a way of their own."""
        return forms_of(self.files)

    @property
    def schema(self) -> pa.Schema:
        """Schema of the batches."""
        return pa.schema([(column.name, column.arrow_type) for column in self.columns])

    def only(self, columns: Sequence[str]) -> FilesReader:
        """Return a reader of some columns. See `extract_jobs.sources.Reader.only`.

        Rows that are set aside are those of these columns; they are not written anywhere.
        """
        chosen = tuple(column for column in self.columns if column.name in columns)
        return replace(self, columns=chosen, rejected_folder=None)

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        """Yield the split's rows. See `extract_jobs.sources.Reader.read`.

        Raises:
            SourceUnavailable: An object was replaced or deleted since it was listed.
            SourceQueryFailed: A file is damaged, or a record of it is not a row and such rows are
                not set aside, or no row of a file is one.
            TypeNotRepresentable: A value is not of its column's type.
        """
        self.rejected_rows, self.truncated = 0, {}
        rejects = None
        if self.rejected_folder is not None:
            storage = self.open_storage(self.rejected_folder)
            rejects = Rejects(
                storage, self.rejected_folder, split.index, with_text=self.rejected_text
            )
        yield from _joined(self._batches(split, rejects))
        if rejects is not None:
            rejects.flush()
            self.rejected_rows = rejects.count

    def _batches(self, split: Split, rejects: Rejects | None) -> Iterator[pa.RecordBatch]:
        for run in runs(split.objects, lambda part: part.size, self._joins_by):
            alike = self._alike(run) if len(run) > 1 else None
            if alike is None:
                yield from self._one_by_one(run, rejects)
                continue
            for batch in alike:
                for rows in self._small_enough(batch):
                    yield self._completed(rows, self._folders(run[0]), run[0].uri)

    def _joins_by(self, part: ObjectRange) -> Folders | None:
        joins = self.files.types is None and can_be_joined(part, self.files, self.format)
        return self._folders(part) if joins else None

    def _alike(self, parts: Sequence[ObjectRange]) -> list[pa.RecordBatch] | None:
        """Return the rows of small files, parsed as one; None if each has to be read alone."""
        uri = parts[0].uri
        found: list[pa.RecordBatch] = []
        try:
            whole = joined(self.open_storage(uri), parts, self.files)
            if whole is None:
                return None
            for header, block in row_blocks(whole.stream(), self.files, uri):
                batch = typed_batch(block, self._of(header), header=header, files=self.files)
                if batch is None:
                    return None
                found.append(batch)
        except (
            ConfigError,
            SourceQueryFailed,
            pa.ArrowException,
        ):  # reading them one by one says where
            return None
        return found if sum(batch.num_rows for batch in found) == sum(whole.rows) else None

    def _one_by_one(
        self, parts: Sequence[ObjectRange], rejects: Rejects | None
    ) -> Iterator[pa.RecordBatch]:
        for part in parts:
            before, rows = rejects.count if rejects else 0, 0
            for batch in self._read(part, rejects):
                rows += batch.num_rows
                yield batch
            if rejects is not None and not rows and rejects.count - before >= NO_ROW:
                raise SourceQueryFailed(
                    f"{part.uri}: none of {rejects.count - before} rows parses, so the file "
                    "probably does not have the format that files describes. Check "
                    "files.delimiter, header and types, or leave the file out of files.glob"
                )

    def _read(self, part: ObjectRange, rejects: Rejects | None) -> Iterator[pa.RecordBatch]:
        if part.size == 0:
            return
        storage = self.open_storage(part.uri)
        folders = self._folders(part)
        with source_errors(part.uri), closing(open_object(storage, part)) as file:
            if self.format == "parquet":
                groups = None if part.end is None else range(part.start, part.end)
                may_cut = self.files.nanoseconds == "truncate"
                counts = self.truncated if may_cut else None
                batches = read_groups(file, groups, self.columns, part.uri, counts)
            else:
                batches = self._texts(storage, file, part, rejects)
            for batch in batches:
                for rows in self._small_enough(batch):
                    yield self._completed(rows, folders, part.uri)

    def _folders(self, part: ObjectRange) -> Folders:
        """Return the columns that a file's folders are."""
        return folders_of(part.uri, self.folder) if self.files.partitions == "columns" else {}

    def _small_enough(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Yield a batch in parts that stay small once they have the columns that a file lacks."""
        there = frozenset(batch.schema.names)
        absent = sum(fixed_bytes(c.arrow_type) for c in self.columns if c.name not in there)
        most = max(1, _ABSENT_BYTES // max(1, absent))
        for start in range(0, batch.num_rows, most):
            yield batch.slice(start, most)

    def _completed(self, batch: pa.RecordBatch, folders: Folders, uri: str) -> pa.RecordBatch:
        """Return the rows of a file with all columns: of other files, and those of its folders."""
        arrays = []
        given = dict(zip(batch.schema.names, batch.columns, strict=True))
        for column in self.columns:
            values = given.get(column.name)
            if values is None:
                values = pa.nulls(batch.num_rows, column.arrow_type)
            if column.name in folders:
                if values.null_count < len(values):
                    refuse_both(folders, [column.name], uri)
                form = self.forms.get(column.name)
                values = folder_column(folders[column.name], column, batch.num_rows, uri, form)
            arrays.append(values)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _texts(
        self, storage: Storage, file: IO[bytes], part: ObjectRange, rejects: Rejects | None
    ) -> Iterator[pa.RecordBatch]:
        header: Header | None = None
        if self.format == "csv" and part.start:
            info = ObjectInfo(part.uri, part.size, etag=part.etag)
            [header] = headers_of(storage, self.files, info, self.format)
        if self.format != "csv" and (part.start or part.end is not None):
            end = part.size if part.end is None else line_begin(file, part.end, part.size)
            part = replace(part, start=line_begin(file, part.start, part.size), end=end)
        compression = compression_of(part.uri, self.files.compression)
        for name, stream in text_streams(file, part, compression, self.files, self.format):
            its = replace(part, uri=name)
            if self.format == "csv":
                yield from self._csv(file, its, stream, header, rejects)
            else:
                yield from self._jsonl(file, its, stream, rejects)

    def _csv(
        self,
        file: IO[bytes],
        part: ObjectRange,
        stream: TextStream,
        header: Header | None,
        rejects: Rejects | None,
    ) -> Iterator[pa.RecordBatch]:
        found = row_blocks(stream, self.files, part.uri, header, offset=part.start)
        inferred = self.files.types is None

        def typed(item: tuple[Header, Block]) -> tuple[Header, Block, pa.RecordBatch | None]:
            header, block = item
            return *item, typed_batch(block, self._of(header), header=header, files=self.files)

        with _parser(part, inferred) as (pool, ahead):
            for its_header, block, batch in in_order(
                typed if inferred else lambda item: (*item, None), found,
                pool=pool, ahead=ahead, alone=lambda item: item[1].is_long,
            ):  # fmt: skip
                if batch is not None:
                    yield batch
                    continue
                columns = self._of(its_header)
                names = [column.name for column in columns]
                texts = parse_csv(block, names, header=its_header, files=self.files)
                texts = _placed(texts, file, part)
                yield batch_of(texts, columns, part.uri, rejects, forms=self.forms)

    def _of(self, header: Header) -> Sequence[Column]:
        """Return the columns that a file has, and at least one: a batch counts rows by its own."""
        names = frozenset(header.names)
        return [column for column in self.columns if column.name in names] or self.columns[:1]

    def _jsonl(
        self, file: IO[bytes], part: ObjectRange, stream: TextStream, rejects: Rejects | None
    ) -> Iterator[pa.RecordBatch]:
        names = [column.name for column in self.columns]
        # With inferred types, planning has inspected every line of this very object.
        checked = self.files.types is None and self.files.bad_rows == "fail"
        lenient = self.files.json_dialect == "lenient"
        parser = JsonLines.of_this_thread()
        lines = json_lines(stream, self.files, self.format, part.uri)
        typed = checked and can_be_typed(self.columns)
        found = blocks(lines, cut_lines, part.uri, offset=part.start)

        def straight(block: Block) -> tuple[Block, pa.RecordBatch | None]:
            return block, typed_lines(block, self.columns) if typed else None

        with _parser(part, typed) as (pool, ahead):
            for block, batch in in_order(
                straight, found, pool=pool, ahead=ahead, alone=lambda block: block.is_long
            ):
                if batch is not None:
                    yield batch
                    continue
                typed = False  # the next block is likely to be refused too
                for texts in parser.parse(block, names, lenient=lenient, checked=checked):
                    placed = _placed(texts, file, part)
                    yield batch_of(
                        placed, self.columns, part.uri, rejects, parser, forms=self.forms
                    )


def _joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of batches, those of small ones copied into larger ones.

    What becomes of a batch costs the same for few rows and for many.
    """
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if batch.nbytes >= _JOINED_BYTES:
            if held:
                yield pa.concat_batches(held)
            yield batch
            held, size = [], 0
            continue
        held.append(batch)
        size += batch.nbytes
        if size >= _JOINED_BYTES:
            yield pa.concat_batches(held)
            held, size = [], 0
    if held:
        yield pa.concat_batches(held)


@contextmanager
def _parser(part: ObjectRange, typed: bool) -> Iterator[tuple[Executor, int]]:
    """Yield a thread that parses one block while the next is read, and how many may be in memory.

    Args:
        part: What is read. For a small one it would cost more than it saves.
        typed: Whether blocks are parsed there at all.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="parse") as pool:
        yield pool, 2 if typed and part.size > BLOCK_BYTES else 1


def line_begin(file: IO[bytes], position: int, size: int) -> int:
    """Return where the first line begins that begins at or after a position."""
    if position == 0:
        return 0
    file.seek(position - 1)
    at = position - 1
    while at < size:
        data = file.read(min(_SCAN_BYTES, size - at))
        found = data.find(b"\n")
        if found >= 0:
            return at + found + 1
        if not data:
            break
        at += len(data)
    return size


def _placed(texts: Texts, file: IO[bytes], part: ObjectRange) -> Texts:
    """Return texts whose lines are counted from the beginning of the file."""
    return replace(texts, locate=partial(_locate, texts, file, part)) if part.start else texts


def _locate(texts: Texts, file: IO[bytes], part: ObjectRange) -> list[tuple[int, bytes]]:
    before, at, position = 0, 0, file.tell()
    file.seek(0)
    while at < part.start:
        data = file.read(min(GET_BYTES, part.start - at))
        before += lines_in(data)
        at += len(data)
    file.seek(position)
    return [(line + before, raw) for line, raw in texts.locate()]
