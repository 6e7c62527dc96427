"""Inspects files before they are read: their columns, their rows, and where they can be split.

Every byte of CSV and JSON lines is inspected, so that a type fits all values of a column and a row
that does not parse is reported before anything is extracted; of Parquet only the footers.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO, Any

import pyarrow as pa

from extract_jobs.errors import ConfigError, ExtractError, SourceQueryFailed
from extract_jobs.parquet_footer import read_footer
from extract_jobs.sources.files.ahead import Item, Result, in_order
from extract_jobs.sources.files.alike import can_be_joined, joined, runs
from extract_jobs.sources.files.blocks import Block, Stream, blocks, cut_lines
from extract_jobs.sources.files.convert import refuse
from extract_jobs.sources.files.csv_rows import Header, parse_csv, record_blocks, row_blocks
from extract_jobs.sources.files.folders import folders_of, refuse_both
from extract_jobs.sources.files.json_array import json_lines
from extract_jobs.sources.files.jsonl_rows import JsonLines
from extract_jobs.sources.files.listing import Format, compression_of
from extract_jobs.sources.files.objects import DAMAGE, Listed, damaged_objects
from extract_jobs.sources.files.parquet_batches import open_parquet
from extract_jobs.sources.files.parquet_rows import group_bytes, refuse_types, unify
from extract_jobs.sources.files.parquet_types import file_types
from extract_jobs.sources.files.streams import (
    TextStream,
    is_utf8,
    open_object,
    source_errors,
    text_streams,
)
from extract_jobs.sources.files.texts import Texts, check_columns
from extract_jobs.sources.files.type_inference import TEXT, TypeProfile, observe
from extract_jobs.sources.splits import ObjectRange, cores
from extract_jobs.spec.source import FilesSpec
from extract_jobs.storage import ObjectInfo, Storage

THREADS = 8
"""Text files inspected at a time, each with a few blocks in memory."""
FOOTERS = 24
"""Parquet files inspected at a time: they mostly wait for storage and need little memory."""
_AT_A_TIME = 100
_OBSERVED_BYTES = 2**20
"""Of a column of several small files, until they are observed."""
_HANDFUL = 50


@dataclass(frozen=True)
class Columns:
    """What is known about a table's columns, from all files inspected so far.

    Attributes:
        profiles: Type profiles of text formats by column, in the order in which files named them.
        types: For Parquet: each column's type, and a file that has it.
        folders: Columns that folders name.
        witnesses: The files that showed anything that those before them had not: without the
            others, as much is known.
        untyped: Columns without any value in any file, which are text from now on.
    """

    profiles: dict[str, TypeProfile] = field(default_factory=dict)
    types: dict[str, tuple[pa.DataType, str]] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    untyped: tuple[str, ...] = ()

    def without_guesses(self) -> Columns:
        """Return what files have really shown: columns without values may have any type."""
        profiles = self.profiles | dict.fromkeys(self.untyped, TypeProfile())
        return replace(self, profiles=profiles, untyped=())

    def shows_more(self, before: Columns) -> bool:
        """Return whether more is known than before."""
        if self is before:
            return False
        types = {name: kind for name, (kind, _) in self.types.items()}
        return (
            self.profiles != before.profiles
            or self.folders != before.folders
            or types != {name: kind for name, (kind, _) in before.types.items()}
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form of what is known, without how it came to be known."""
        schema = pa.schema([(name, kind) for name, (kind, _) in self.types.items()])
        return {
            "evidence": {name: profile.to_json() for name, profile in self.profiles.items()},
            "schema": base64.b64encode(schema.serialize()).decode(),
            "files": [uri for _, uri in self.types.values()],
            "folders": list(self.folders),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Columns:
        """Read what `to_json` wrote; a list without it has no columns.

        Raises:
            ConfigError: It is damaged.
        """
        found = data.get("evidence", {})
        try:
            profiles = {name: TypeProfile.from_json(item) for name, item in found.items()}
            folders = tuple(data.get("folders", ()))
            if not data.get("schema"):
                return cls(profiles, folders=folders)
            schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(data["schema"])))
            pairs = zip(schema.types, data["files"], strict=True)
            return cls(profiles, dict(zip(schema.names, pairs, strict=True)), folders)
        except DAMAGE as error:
            raise damaged_objects() from error


@dataclass(frozen=True)
class Inspector:
    """Inspects files.

    Attributes:
        storage: Where they are.
        files: How they are written.
        format: The format of all of them.
        target_bytes: Target distance of the records at which a plain text file is split.
        chosen: Whether a column is read.
        folder: Folders below it may name columns.
        as_json: Columns that become JSON.
    """

    storage: Storage
    files: FilesSpec
    format: Format
    target_bytes: int
    chosen: Callable[[Sequence[str]], Sequence[str]]
    folder: str
    as_json: frozenset[str] = frozenset()

    def inspect(
        self, objects: Sequence[ObjectInfo], known: Columns
    ) -> tuple[list[Listed], Columns]:
        """Inspect objects, several at a time.

        Args:
            objects: As they were listed.
            known: What earlier files showed.

        Returns:
            What was found in each, in order, and what is now known about the columns.

        Raises:
            SourceQueryFailed: A file is damaged, or one of its records is not a row.
            TypeNotRepresentable: Columns of Parquet files cannot be read, or have types that cannot
                be unified. The message names all of them.
            SourceUnavailable: An object is not what was listed.
        """
        if not objects:
            return [], self._settled(known)
        found: list[Listed] = []
        witnesses: list[str] = []
        refused: dict[str, str] = {}
        threads = FOOTERS if self.format == "parquet" else THREADS
        handful = _handful(len(objects), threads)
        # There is little to wait for in a local folder, and more threads than cores are in the way.
        at_once = cores() if self.format != "parquet" and "://" not in self.folder else threads
        starts = range(0, len(objects), handful)
        with (
            ThreadPoolExecutor(cores(), thread_name_prefix="parse") as parsers,
            ThreadPoolExecutor(min(threads, at_once), thread_name_prefix="look") as pool,
        ):
            crew = _Crew(parsers, min(cores() + 1, threads // len(objects)))
            # What earlier files have settled is not inspected again; the first few settle most.
            for group in (starts[:1], *_portions(starts[1:], _AT_A_TIME)):
                looks = pool.map(
                    lambda start, k=known: self._few(objects[start : start + handful], k, crew),
                    group,
                )
                for few, together in looks:
                    for listed, columns in few:
                        found.append(listed)
                        before = known
                        known = self._merged(known, columns, listed.info.uri, refused)
                        known = self._with_folders(known, columns, listed.info.uri)
                        if known.shows_more(before):
                            witnesses.append(listed.info.uri)
                    if together:
                        before = known
                        known = self._merged(known, Columns(together), "", refused)
                        if known.shows_more(before):
                            witnesses += [listed.info.uri for listed, _ in few]
        refuse_types(refused)
        known = replace(known, witnesses=tuple(dict.fromkeys([*known.witnesses, *witnesses])))
        return found, self._settled(known)

    def _settled(self, known: Columns) -> Columns:
        """Return the columns with all-NULL columns as text, which they are from now on."""
        untyped = [n for n in self.chosen(list(known.profiles)) if not known.profiles[n].kinds]
        profiles = known.profiles | dict.fromkeys(untyped, TypeProfile(frozenset({TEXT})))
        return replace(known, profiles=profiles, untyped=tuple(untyped))

    def _with_folders(self, known: Columns, its: Columns, uri: str) -> Columns:
        if self.files.partitions == "ignore":
            return known
        folders = folders_of(uri, self.folder)
        refuse_both(folders, [*its.profiles, *its.types], uri)
        return replace(known, folders=tuple(dict.fromkeys([*known.folders, *folders])))

    def _merged(self, known: Columns, more: Columns, uri: str, refused: dict[str, str]) -> Columns:
        if self.format == "parquet":
            schema = pa.schema([(name, kind) for name, (kind, _) in more.types.items()])
            types = unify(
                known.types, schema, uri, self.chosen(schema.names), refused, as_json=self.as_json
            )
            check_columns(len(types), uri)
            return replace(known, types=types)
        shown = {n: one for n, one in more.profiles.items() if known.profiles.get(n) is not one}
        if not shown:
            return known
        profiles = dict(known.profiles)
        for name, one in shown.items():
            profiles[name] = profiles.get(name, TypeProfile()) | one
        check_columns(len(profiles), uri)
        return replace(known, profiles=profiles)

    def _few(
        self, objects: Sequence[ObjectInfo], known: Columns, crew: _Crew
    ) -> tuple[list[tuple[Listed, Columns]], dict[str, TypeProfile]]:
        """Inspect some objects in turn; return what each shows, and what their values together."""
        if len(objects) == 1:
            return [self._one(objects[0], known, crew, None)], {}
        together = _Together(known.profiles)
        found: list[tuple[Listed, Columns]] = []
        for run in runs(objects, lambda info: info.size, self._joins_by):
            alike = self._alike(run, known, together) if len(run) > 1 else None
            found += alike or (self._one(info, known, crew, together) for info in run)
        return found, together.profiles()

    def _joins_by(self, info: ObjectInfo) -> str | None:
        joins = self.files.types is None and can_be_joined(part_of(info), self.files, self.format)
        return self.format if joins else None

    def _alike(
        self, objects: Sequence[ObjectInfo], known: Columns, together: _Together
    ) -> list[tuple[Listed, Columns]] | None:
        """Inspect small files as one; None if each has to be inspected by itself."""
        whole = joined(self.storage, list(map(part_of, objects)), self.files)
        if whole is None:
            return None
        rows, found = 0, dict[str, TypeProfile]()
        seen: list[tuple[str, pa.Array]] = []
        with suppress(
            ExtractError, pa.ArrowException
        ):  # inspecting them one by one says what is wrong, and where
            for header, block in row_blocks(whole.stream(), self.files, objects[0].uri):
                if header.unnamed:  # which one file's first rows decide for that file
                    return None
                for name in header.names:
                    found.setdefault(name, known.profiles.get(name, TypeProfile()))
                wanted = [n for n in self.chosen(header.names) if not found[n].is_settled]
                texts = parse_csv(block, wanted, header=header, files=self.files)
                if texts.faults:
                    return None
                rows += texts.rows
                seen += zip(wanted, texts.columns, strict=True)
            if rows == sum(whole.rows):
                for name, values in seen:
                    together.add(name, values)
                each = zip(objects, whole.rows, strict=True)
                return [(Listed(info, count), Columns(found)) for info, count in each]
        return None

    def _one(
        self, info: ObjectInfo, known: Columns, crew: _Crew, together: _Together | None
    ) -> tuple[Listed, Columns]:
        if info.size == 0:
            if self.format == "parquet":
                raise SourceQueryFailed(
                    f"{info.uri} cannot be read: it has no bytes, so it is no Parquet file. "
                    "Was its upload cut short? Write it again, or move it away"
                )
            return Listed(info, 0), Columns()
        compression = compression_of(info.uri, self.files.compression)
        can_be_cut = compression == "none" and is_utf8(self.files.encoding)
        # Where a file ends in rows that are left out, one split has to see its end.
        can_be_cut = can_be_cut and not self.files.footer_rows
        large = can_be_cut and info.size >= 2 * self.target_bytes
        declared = self.files.types is not None
        if declared and not (large and self.format == "csv"):
            return Listed(info), Columns()  # planning needs nothing in it
        part = part_of(info)
        with source_errors(info.uri), closing(open_object(self.storage, part)) as file:
            if self.format == "parquet":
                return self._parquet(info, file)
            rows, seen, cuts = 0, Columns(), None
            for name, stream in text_streams(file, part, compression, self.files, self.format):
                cuts = _Cuts(self.target_bytes, info.size, stream) if large else None
                if declared and cuts:
                    return self._scanned(info, stream, cuts), Columns()
                if self.format == "csv":
                    count, its = self._csv(
                        name, stream, known, cuts=cuts, crew=crew, together=together
                    )
                else:
                    lines = json_lines(stream, self.files, self.format, name)
                    count, its = self._jsonl(name, lines, known, crew)
                rows, seen = rows + count, self._merged(seen, its, name, {})
            return Listed(info, rows, cuts.found if cuts else ()), seen

    def _parquet(self, info: ObjectInfo, file: IO[bytes]) -> tuple[Listed, Columns]:
        footer = read_footer(file)
        with open_parquet(file, footer.metadata) as opened:
            counts = Counter(opened.schema_arrow.names)
            doubled = sorted(name for name, count in counts.items() if count > 1)
            if doubled:
                raise ConfigError(f"{info.uri} has several columns named {', '.join(doubled)}")
            types = {name: (found, info.uri) for name, found in file_types(opened).items()}
            footer.refuse_encrypted(self.chosen(list(types)), info.uri)
            groups = group_bytes(footer)
            return Listed(info, footer.metadata.num_rows, groups), Columns(types=types)

    def _csv(
        self,
        uri: str,
        stream: Stream,
        known: Columns,
        *,
        cuts: _Cuts | None,
        crew: _Crew,
        together: _Together | None,
    ) -> tuple[int, Columns]:
        rows, found = 0, dict[str, TypeProfile]()

        def seen() -> Iterator[tuple[Block, Header, dict[str, TypeProfile]]]:
            for header, block in row_blocks(stream, self.files, uri, most=self.target_bytes):
                if cuts:
                    cuts.add(block)
                for name in header.names:
                    found.setdefault(name, known.profiles.get(name, TypeProfile()))
                chosen = self.chosen(header.names)
                yield block, header, {n: found[n] for n in chosen if not found[n].is_settled}

        def look(
            item: tuple[Block, Header, dict[str, TypeProfile]],
        ) -> tuple[Texts, dict[str, TypeProfile]]:
            block, header, before = item
            texts = parse_csv(block, list(before), header=header, files=self.files)
            profiles: dict[str, TypeProfile] = {}
            for (name, profile), values in zip(before.items(), texts.columns, strict=True):
                if together:
                    together.add(name, values)
                else:
                    profiles[name] = observe(values, profile)
            texts.columns.clear()
            return texts, profiles

        for texts, profiles in crew.in_order(look, seen(), lambda item: item[0]):
            self._check(texts, uri)
            rows += texts.rows
            _add(profiles, found)
        return rows, Columns(found)

    def _jsonl(self, uri: str, stream: Stream, known: Columns, crew: _Crew) -> tuple[int, Columns]:
        rows, found = 0, dict[str, TypeProfile]()
        lenient = self.files.json_dialect == "lenient"

        def look(
            item: tuple[Block, dict[str, TypeProfile]],
        ) -> tuple[dict[str, TypeProfile], Texts]:
            block, before = item
            parser = JsonLines.of_this_thread()
            return parser.observe(block, before, known.profiles, lenient=lenient, uri=uri)

        seen = ((block, dict(found)) for block in blocks(stream, cut_lines, uri))
        for profiles, texts in crew.in_order(look, seen, lambda item: item[0]):
            self._check(texts, uri)
            rows += texts.rows
            _add(profiles, found)
            check_columns(len(found), uri)
        return rows, Columns(found)

    def _scanned(self, info: ObjectInfo, stream: Stream, cuts: _Cuts) -> Listed:
        """Find where a large CSV with declared columns can be split."""
        for block in record_blocks(stream, self.files, info.uri, most=self.target_bytes):
            cuts.add(block)
        return Listed(info, cuts=cuts.found)

    def _check(self, texts: Texts, uri: str) -> None:
        """Fail for the first fault, unless faults are set aside when rows are read."""
        if texts.faults and self.files.bad_rows == "fail":
            refuse(texts, texts.faults, uri, None)


def _portions(starts: range, most: int) -> Iterator[range]:
    return (starts[first : first + most] for first in range(0, len(starts), most))


def _handful(objects: int, threads: int) -> int:
    """Return how many files a task inspects: a task for each would cost more than the work."""
    return max(1, min(_HANDFUL, objects // (4 * threads)))


@dataclass(frozen=True)
class _Crew:
    """Threads that parse blocks. Few large files take several each, many files one each.

    Attributes:
        pool: The threads, for all files.
        ahead: Maximum blocks of a file in memory.
    """

    pool: Executor
    ahead: int

    def in_order(
        self, look: Callable[[Item], Result], items: Iterator[Item], block: Callable[[Item], Block]
    ) -> Iterator[Result]:
        """Yield what is seen in each item's block. A long record is the only one in memory."""
        return in_order(
            look, items, pool=self.pool, ahead=self.ahead,
            alone=lambda item: block(item).is_long,
        )  # fmt: skip


class _Together:
    """Observes the values of several small files together: few values take as long as many."""

    def __init__(self, known: Mapping[str, TypeProfile]) -> None:
        """Set what earlier files showed, by column."""
        self._known = known
        self._found: dict[str, TypeProfile] = {}
        self._held: dict[str, list[pa.Array]] = {}
        self._bytes: dict[str, int] = {}

    def add(self, name: str, values: pa.Array) -> None:
        """Add a column's values in one file."""
        self._held.setdefault(name, []).append(values)
        self._bytes[name] = self._bytes.get(name, 0) + values.nbytes
        if self._bytes[name] > _OBSERVED_BYTES:
            self._observe(name)

    def profiles(self) -> dict[str, TypeProfile]:
        """Return what is known about the columns after all values."""
        for name in list(self._held):
            self._observe(name)
        return self._found

    def _observe(self, name: str) -> None:
        values = pa.concat_arrays(self._held.pop(name))
        del self._bytes[name]
        before = self._found.get(name) or self._known.get(name, TypeProfile())
        self._found[name] = observe(values, before)


def _add(profiles: dict[str, TypeProfile], found: dict[str, TypeProfile]) -> None:
    """Add what a block shows, as if it had been looked at after all blocks before it."""
    for name, profile in profiles.items():
        before = found.get(name, TypeProfile())
        found[name] = before if before.is_settled else before | profile


class _Cuts:
    """Offsets in the file of records that are at least ``target`` apart."""

    def __init__(self, target: int, size: int, stream: TextStream) -> None:
        self.found: tuple[int, ...] = ()
        self._target, self._size, self._last = target, size, 0
        self._stream = stream

    def add(self, block: Block) -> None:
        offset = self._stream.mark_bytes + block.offset
        if offset - self._last >= self._target and self._size - offset >= self._target // 2:
            self.found += (offset,)
            self._last = offset


def part_of(info: ObjectInfo) -> ObjectRange:
    """Return all of an object as it was listed."""
    return ObjectRange(info.uri, info.etag or "", info.size)


def headers_of(storage: Storage, files: FilesSpec, info: ObjectInfo, form: Format) -> list[Header]:
    """Return the header of a CSV file, of each file in a zip; none for files without a record.

    Raises:
        ConfigError: As `read_header` raises.
    """
    part = part_of(info)
    found = []
    with source_errors(info.uri), closing(open_object(storage, part)) as file:
        compression = compression_of(info.uri, files.compression)
        for name, stream in text_streams(file, part, compression, files, form):
            found += [header for header, _ in islice(row_blocks(stream, files, name), 1)]
    return found
