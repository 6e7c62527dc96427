"""A source in memory that recognizes pages it has shown before: two rows a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from extract_jobs.sources import Moment, PagedPart, PageSpan, ReadRequest
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.memory_source import MemoryReader, MemorySource

PAGE_ROWS = 2
PART = "t"


def _rows(rows: Sequence[int], start: int, end: int | None) -> list[int]:
    return list(rows[start * PAGE_ROWS : None if end is None else end * PAGE_ROWS])


@dataclass(frozen=True)
class PagedReader(MemoryReader):
    """Reads ranges of pages, which a split's predicate names as ``start:end``."""

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        start, end = (split.predicate or "0:").split(":")
        found = _rows(self.rows, int(start), int(end) if end else None)
        yield pa.record_batch([pa.array(found, pa.int64())], names=["id"])


@dataclass(frozen=True)
class Pages:
    """Compares with what any earlier snapshot saw. Meets `extract_jobs.sources.ComparablePages`."""

    seen: list[tuple[int, ...]]
    number: int
    keeps_order: bool = True

    @property
    def rows(self) -> tuple[int, ...]:
        return self.seen[self.number]

    @property
    def parts(self) -> Sequence[PagedPart]:
        return (PagedPart(PART, -(-len(self.rows) // PAGE_ROWS), 8192),)

    @property
    def moment(self) -> Moment:
        return Moment({}, {PART: "same"}, {"number": str(self.number)})

    def split(self, index: int, span: PageSpan) -> Split:
        return Split(index, f"{span.start}:{'' if span.end is None else span.end}", 1)

    def unchanged(
        self,
        before: Moment,
        rows: Mapping[PageSpan, int],
        *,
        connections: int,
        check: Callable[[], None],
    ) -> frozenset[PageSpan] | str:
        then = self.seen[int(before.snapshot["number"])]
        return frozenset(
            span
            for span in rows
            if _rows(then, span.start, span.end) == _rows(self.rows, span.start, span.end)
        )

    def rows_in(
        self, spans: Sequence[PageSpan], *, connections: int, check: Callable[[], None]
    ) -> int:
        return sum(len(_rows(self.rows, span.start, span.end)) for span in spans)

    def is_durable(self) -> bool:
        return True


@dataclass(frozen=True)
class PagedSnapshot:
    """Meets `extract_jobs.sources.ComparableSnapshot`."""

    reader: PagedReader
    found: Pages
    shared: bool = True

    def splits(self, spec: ExtractSpec) -> Sequence[Split]:
        return [Split(0)]

    def count(self) -> int:
        return len(self.reader.rows)

    def check(self) -> None:
        pass

    def pages(self) -> Pages | str:
        return self.found


@dataclass
class PagedSource(MemorySource):
    """The table at the time of a snapshot, and at the time of those before it."""

    seen: list[tuple[int, ...]] = field(default_factory=list)

    @contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[PagedSnapshot]:  # type: ignore[override]
        self.seen.append(tuple(self.rows))
        pages = Pages(self.seen, len(self.seen) - 1)
        yield PagedSnapshot(PagedReader(pages.rows), pages)
