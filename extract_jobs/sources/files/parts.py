"""Objects that an earlier run has read, recognized by what was listed: version by version.

Objects are grouped into *parts*, each of which is kept or read as a whole. Where a part ends
depends on the names and sizes of its own objects only, so that an object that is added, replaced or
removed changes one part, or two. A part of a large object has several pages, so that they are read
in parallel; a part of small ones has one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from extract_jobs.sources import Moment, PagedPart, PageSpan
from extract_jobs.sources.files.objects import Listed
from extract_jobs.sources.files.reader import FilesReader
from extract_jobs.sources.files.types import FOLDER_NAME
from extract_jobs.sources.splits import RANGE_BYTES, SMALL_TABLE_RANGES, ObjectRange, Split
from extract_jobs.spec.extract_spec import ExtractSpec

Sections = Callable[[Listed], Sequence[tuple[ObjectRange, int]]]
"""Cuts an object into what is read by itself, each with its bytes."""


@dataclass(frozen=True)
class Part:
    """Objects that are kept or read together: one large one, or neighbours.

    Attributes:
        objects: The objects, in the order in which they were listed.
        pages: What is read by itself, as objects or parts of them, each with its bytes.
    """

    objects: tuple[Listed, ...]
    pages: tuple[tuple[tuple[ObjectRange, ...], int], ...]

    @property
    def name(self) -> str:
        """The first object's URI."""
        return self.objects[0].info.uri

    @cached_property
    def digest(self) -> str:
        """Digest of the version of each object, and of where it is cut."""
        versions = [[one.info.uri, one.info.etag, one.info.size] for one in self.objects]
        cuts = [[(part.start, part.end) for part in parts] for parts, _ in self.pages]
        return hashlib.sha256(json.dumps([versions, cuts]).encode()).hexdigest()


def parts_of(objects: Iterable[Listed], size: int, sections: Sections) -> Iterator[Part]:
    """Group objects into parts.

    Args:
        objects: In the order in which they were listed.
        size: Bytes of a part, on average; a part of several objects has at most twice as many.
        sections: Cuts an object that is a part by itself.
    """
    held: list[Listed] = []
    ranges: list[ObjectRange] = []
    weight = 0

    def together() -> Part:
        return Part(tuple(held), ((tuple(ranges), weight),))

    for one in objects:
        pages = sections(one)
        alone = one.info.size >= size
        more = sum(its for _, its in pages)
        if held and (alone or weight + more > 2 * size):
            yield together()
            held, ranges, weight = [], [], 0
        if alone:
            yield Part((one,), tuple(((part,), its) for part, its in pages))
            continue
        held.append(one)
        ranges.extend(part for part, _ in pages)
        weight += more
        if 2 * weight >= size and _ends_part(one.info.uri, more / size):
            yield together()
            held, ranges, weight = [], [], 0
    if held:
        yield together()


def _ends_part(uri: str, share: float) -> bool:
    """Return whether a part ends here: of objects that have its share of bytes, every other does.

    Nothing but the object decides it.
    """
    number = int.from_bytes(hashlib.sha256(uri.encode()).digest()[:8], "big")
    return number < 2 * share * 2**64


def part_bytes(spec: ExtractSpec, total: int) -> int:
    """Return the average bytes of a part.

    A power of two if the table is small, so that parts stay as they are while it grows.
    """
    target = spec.split.target_bytes
    if spec.target.partition_by:  # each part has a file in each partition
        return target
    share = max(1, total // SMALL_TABLE_RANGES)
    return min(target, max(RANGE_BYTES, 1 << (share.bit_length() - 1)))


@dataclass(frozen=True)
class FilesPages:
    """The objects of a table by part. Meets `extract_jobs.sources.ComparablePages`.

    Attributes:
        reader: Reads its splits.
        found: The parts, at least one.
    """

    reader: FilesReader
    found: tuple[Part, ...]
    keeps_order: bool = False

    @cached_property
    def _by_name(self) -> dict[str, Part]:
        return {part.name: part for part in self.found}

    @cached_property
    def parts(self) -> Sequence[PagedPart]:
        """See `extract_jobs.sources.ComparablePages`."""
        return [
            PagedPart(part.name, len(part.pages), max(1, _size(part.pages) // len(part.pages)))
            for part in self.found
        ]

    @property
    def moment(self) -> Moment:
        """See `extract_jobs.sources.ComparablePages`."""
        typed = self.reader.format == "parquet" or self.reader.files.types is not None
        columns = [
            # What text files were found to hold does not matter, only the type that came of it.
            [c.name, str(c.arrow_type), c.fidelity]
            + ([c.source_type] if typed or c.source_type == FOLDER_NAME else [])
            for c in self.reader.columns
        ]
        key = {"the files' format": self.reader.format, "the columns' types": columns}
        return Moment(key, {part.name: part.digest for part in self.found}, {})

    def split(self, index: int, span: PageSpan) -> Split:
        """See `extract_jobs.sources.ComparablePages`."""
        pages = self._by_name[span.part].pages[span.start : span.end]
        return Split(index, None, _size(pages), tuple(_adjoined(pages)))

    def unchanged(
        self,
        before: Moment,
        rows: Mapping[PageSpan, int],
        *,
        connections: int,
        check: Callable[[], None],
    ) -> frozenset[PageSpan] | str:
        """See `extract_jobs.sources.ComparablePages`."""
        del connections, check
        now = self.moment
        if change := now.change_since(before):
            return change
        same = {name for name, digest in now.parts.items() if before.parts.get(name) == digest}
        return frozenset(span for span in rows if span.part in same)

    def rows_in(
        self, spans: Sequence[PageSpan], *, connections: int, check: Callable[[], None]
    ) -> int | None:
        """Return the rows that inspection counted, if the ranges are whole parts."""
        del connections, check
        pages: dict[str, int] = {}
        for span in spans:
            count = len(self._by_name[span.part].pages[span.start : span.end])
            pages[span.part] = pages.get(span.part, 0) + count
        rows = 0
        for name, count in pages.items():
            part = self._by_name[name]
            counts = [one.rows for one in part.objects if one.rows is not None]
            if count and (count != len(part.pages) or len(counts) != len(part.objects)):
                return None
            rows += sum(counts) if count else 0
        return rows

    def is_durable(self) -> bool:
        """Return True: what is stored under an ETag does not become something else."""
        return True


def _size(pages: Iterable[tuple[Sequence[ObjectRange], int]]) -> int:
    return sum(size for _, size in pages)


def _adjoined(pages: Iterable[tuple[Sequence[ObjectRange], int]]) -> Iterator[ObjectRange]:
    """Yield what pages have, neighbours of one object as one."""
    last: ObjectRange | None = None
    for part in (part for parts, _ in pages for part in parts):
        if last and last.uri == part.uri:
            last = replace(last, end=part.end)
            continue
        if last:
            yield last
        last = part
    if last:
        yield last
