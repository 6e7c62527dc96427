"""Keeps the live files of ranges that have not changed, so that a full extract reads only the rest.

What must hold: the last commit says which files hold which range of pages, in which snapshot; the
source recognizes the range (`extract_jobs.sources.ComparablePages`); and everything else that the
files depend on is as it was. Nobody can prove such a list complete, so each run that keeps ranges
reads a sample of them all the same and compares it with the files, row by row.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.reads import VERSION, RangeRead, Reads
from extract_jobs.commit.record import Base, Commit
from extract_jobs.commit.staged_ranges import VERSION as STAGED_VERSION
from extract_jobs.commit.staged_ranges import StagedRange
from extract_jobs.engine.run_splits import SplitResult
from extract_jobs.errors import CommitConflict, ExtractError, FilesDamaged
from extract_jobs.reporting.report import FIRST_RUN, versions
from extract_jobs.sources import (
    ComparablePages,
    ComparableSnapshot,
    Moment,
    PageSpan,
    Reader,
    Snapshot,
    VerifiedSnapshot,
)
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.uris import normal_uri
from extract_jobs.storage import Storage, WrittenFile, join
from extract_jobs.transform.columns import audit_fields
from extract_jobs.transform.masks import MaskKey
from extract_jobs.transform.transform import Transform

if TYPE_CHECKING:
    from collections.abc import Generator

READING_VERSION = "1"
"""Raised with every change of ours that gives other values for the same rows: a test of the values
of all types fails until it is. Kept files of another version are read again."""

_VERIFIED_SHARE = 100
"""Of so many kept ranges, one is read and compared."""
_VERIFIED_PAGES = 1024
_MOST_RANGES = 20_000
_MOST_PAGES = 2**30
"""Of a range: its end is the number of a page too, and sources count pages in 32 bits."""
_SMALL_TABLE_RANGES = 32
_SMALLEST_BYTES = 16 * 2**20
"""A table that has fewer ranges of the size that the spec asks for has smaller ones, down to this,
so that a change of a few rows does not make a run read a large part of it."""
_MANY_PARTS = 64
_SMALL_PART = 16
"""Of more parts than that which are, on average, so many times smaller than a split, each would
have a small file of its own: such a table is read as without reuse."""
_NEUTRAL = frozenset({
    "run_id", "attempt", "reruns", "report_uri", "tracking_table", "job_type", "engine", "reuse",
    "reconcile", "reconcile_max_bytes", "keep_retired", "spill_folder", "max_lag",
    "statement_timeout", "on_waiting_ddl",
})  # fmt: skip
"""Fields of a spec that no value in a file depends on. Every other field, new ones too, does."""


@dataclass(frozen=True)
class Reuse:
    """What a full extract keeps and what it reads.

    Attributes:
        pages: The table's.
        writing: See `Reads.writing`.
        widths: Pages of a new range, by part.
        kept: Ranges whose live files stay.
        files: Those files.
        spans: Pages that each split reads, by its index. The last of a part is read to its end.
        splits: The splits.
        reason: Why nothing is kept; empty if something is.
        staged: Ranges that an earlier attempt of the run has staged and that have not changed.
    """

    pages: ComparablePages
    writing: dict[str, str]
    widths: dict[str, int]
    kept: tuple[RangeRead, ...] = ()
    files: tuple[WrittenFile, ...] = ()
    spans: tuple[PageSpan, ...] = ()
    splits: tuple[Split, ...] = ()
    reason: str = ""
    staged: tuple[StagedRange, ...] = ()

    @property
    def rows(self) -> int:
        """Rows that are kept."""
        return sum(one.rows for one in self.kept)

    @property
    def found(self) -> list[RangeRead]:
        """Ranges that need not be read."""
        return [*self.kept, *(one.range for one in self.staged)]

    def staged_results(self) -> list[SplitResult]:
        """Return the results of the splits of earlier attempts, numbered after those to read."""
        return [
            SplitResult(
                index, one.range.rows, one.files, one.range.nulled, truncated=one.range.truncated
            )
            for index, one in enumerate(self.staged, len(self.splits))
        ]

    def staged_range(self, result: SplitResult) -> StagedRange:
        """Return the record of a split that was just read."""
        span = self.spans[result.index]
        return StagedRange(
            STAGED_VERSION,
            self._moment(span.part),
            self.writing,
            _range_read(span, result),
            result.files,
        )

    def count(self, spec: ExtractSpec) -> int:
        """Return the source's count of all rows: of what is read, and of all beyond it."""
        ends = _ends([*map(_span, self.found), *self.spans])
        beyond = [PageSpan(p.name, ends.get(p.name, 0), None) for p in self.pages.parts]
        read = self.pages.rows_in(
            [*self.spans, *beyond], connections=spec.split.max_connections, check=lambda: None
        )
        return sum(one.rows for one in self.found) + read

    def reads(self, results: Sequence[SplitResult]) -> Reads:
        """Return what there is to know about the ranges once the splits are read."""
        read = [_range_read(span, result) for span, result in zip(self.spans, results, strict=True)]
        return Reads(
            VERSION,
            self._moment(),
            self.writing,
            tuple(sorted([*self.found, *read], key=_span)),
        )

    def _moment(self, part: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the snapshot as records have it, with all parts or one."""
        moment = self.pages.moment
        parts = moment.parts if part is None else {part: moment.parts[part]}
        return {"key": dict(moment.key), "parts": dict(parts), "snapshot": dict(moment.snapshot)}


def _range_read(span: PageSpan, result: SplitResult) -> RangeRead:
    assert span.end is not None
    uris = tuple(file.staged.uri for file in result.files)
    return RangeRead(
        span.part, span.start, span.end, result.rows, uris, result.nulled, result.truncated
    )


def _span(one: RangeRead) -> PageSpan:
    return PageSpan(one.part, one.start, one.end)


def _ends(spans: Iterable[PageSpan]) -> dict[str, int]:
    """Return the end of the last of some ranges, by part."""
    ends: dict[str, int] = {}
    for span in spans:
        ends[span.part] = max(ends.get(span.part, 0), span.end or 0)
    return ends


def plan_reuse(
    spec: ExtractSpec,
    log: CommitLog,
    snapshot: Snapshot,
    transform: Transform,
    *,
    base: Base,
    key: MaskKey | None,
    check: Callable[[], None],
) -> Reuse | str:
    """Decide which ranges of a table are kept and which are read.

    Args:
        spec: The run's.
        log: The table's.
        snapshot: What is read.
        transform: Has the files' columns.
        base: What the run builds on.
        key: Key of the mask ``hash``, if a column has that mask.
        check: Called all the time; what it raises ends the run.

    Returns:
        What is read, by range; or why the table cannot be read by range.

    Raises:
        ExtractError: As the source and storage raise.
    """
    reason = _not_for(spec)
    if reason:
        return reason
    pages = snapshot.pages() if isinstance(snapshot, ComparableSnapshot) else _NO_PAGES
    if isinstance(pages, str):
        return pages
    reason = _too_small(spec, pages)
    if reason:
        return reason
    writing = _writing(spec, transform, key)
    staged = _staged(spec, log, pages, base=base, writing=writing, check=check)
    least = -(-sum(part.count for part in pages.parts) // _MOST_RANGES)
    widths = _widths(spec, pages, least)
    # The table may have grown since, and with it the ranges.
    widths |= {
        one.range.part: width
        for one in staged
        if least <= (width := one.range.end - one.range.start) <= _MOST_PAGES
    }
    everything = Reuse(pages, writing, widths)
    if spec.reuse == "reread":
        return _whole(everything, "the run was to read everything", staged)
    before = _before(log, base.published, writing)
    if isinstance(before, str):
        return _whole(everything, before, staged)
    reads, live = before
    unchanged = _unchanged(spec, pages, reads.moment, reads.ranges, check)
    if isinstance(unchanged, str):
        return _whole(everything, unchanged, staged)
    kept = tuple(one for one in reads.ranges if _span(one) in unchanged)
    if not any(one.rows for one in kept):
        return _whole(everything, "no range that has rows is unchanged", staged)
    # A part of which nothing is kept may be shorter than it was: it is cut anew.
    cut = {one.part for one in kept}
    before_cut = [one for one in reads.ranges if one.part in cut]
    widths = widths | {one.part: one.end - one.start for one in before_cut if not one.start}
    changed = [span for one in before_cut if (span := _span(one)) not in unchanged]
    ends = _ends(map(_span, before_cut))
    wanted = sorted([*changed, *_grid(pages, ends, widths)])
    if len(kept) + len(wanted) > _MOST_RANGES + len(pages.parts):
        return _whole(everything, "the table has grown to too many ranges", staged)
    named = {uri for one in kept for uri in one.files}
    files = tuple(live[uri] for uri in sorted(named))
    return _reading(replace(everything, widths=widths, kept=kept, files=files), wanted, staged)


def _too_small(spec: ExtractSpec, pages: ComparablePages) -> str:
    """Return why the parts of a table are not read one by one; empty if they are."""
    filled = [part for part in pages.parts if part.count]
    size = sum(part.count * part.page_bytes for part in filled)
    if len(filled) > _MANY_PARTS and size * _SMALL_PART < len(filled) * spec.split.target_bytes:
        return f"each of the table's {len(filled)} partitions would have a small file of its own"
    return ""


def _widths(spec: ExtractSpec, pages: ComparablePages, least: int) -> dict[str, int]:
    """Return how many pages a range has, by part."""
    size = sum(part.count * part.page_bytes for part in pages.parts)
    target = min(spec.split.target_bytes, max(_SMALLEST_BYTES, size // _SMALL_TABLE_RANGES))
    return {
        part.name: min(max(1, target // part.page_bytes, least), _MOST_PAGES)
        for part in pages.parts
    }


def _unchanged(
    spec: ExtractSpec,
    pages: ComparablePages,
    moment: Mapping[str, Mapping[str, Any]],
    ranges: Iterable[RangeRead],
    check: Callable[[], None],
) -> frozenset[PageSpan] | str:
    return pages.unchanged(
        Moment(moment["key"], moment["parts"], moment["snapshot"]),
        {_span(one): one.rows for one in ranges},
        connections=spec.split.max_connections,
        check=check,
    )


def _staged(
    spec: ExtractSpec,
    log: CommitLog,
    pages: ComparablePages,
    *,
    base: Base,
    writing: Mapping[str, str],
    check: Callable[[], None],
) -> list[StagedRange]:
    """Return the unchanged ranges that earlier attempts of the run have staged."""
    by_moment: dict[str, list[StagedRange]] = {}
    for one in log.staged.of(spec.run_id, base.seq, spec.target.uri):
        if one.writing == writing:
            moment = {**one.moment, "parts": {}}
            by_moment.setdefault(json.dumps(moment, sort_keys=True), []).append(one)
    found = []
    for some in by_moment.values():
        parts = {name: digest for one in some for name, digest in one.moment["parts"].items()}
        same = _unchanged(
            spec, pages, {**some[0].moment, "parts": parts}, [one.range for one in some], check
        )
        if not isinstance(same, str):
            found += [one for one in some if _span(one.range) in same]
    return found


_NO_PAGES = "only tables of PostgreSQL are compared with what was read"


def _not_for(spec: ExtractSpec) -> str:
    """Return why a spec's files do not show by range what was read; empty if they do."""
    if spec.limit is not None:
        return "a sample is read"
    if spec.mode != "full":
        return "increments read new rows only"
    if spec.target.write_mode != "overwrite":
        return f"target.write_mode is {spec.target.write_mode}, and only overwrite keeps files"
    if spec.target.is_iceberg:
        return "files of an Iceberg table are not kept yet"
    if spec.target.partition_by:
        return "a partition's files hold rows of many ranges"
    if spec.watermark is not None:
        return "the watermark's greatest value is in the rows"
    if spec.split.strategy not in ("auto", "ctid"):
        return f"split.strategy {spec.split.strategy} does not read by page"
    if spec.split.column is not None:
        return "split.column cuts the table by its values"
    return ""


def _writing(spec: ExtractSpec, transform: Transform, key: MaskKey | None) -> dict[str, str]:
    """Return what the files depend on besides the source, by what it is about."""
    fields = spec.model_dump(mode="json")
    parts = {name: value for name, value in fields.items() if name not in _NEUTRAL}
    used = {k: v for k, v in versions().items() if k not in ("pyspark", "python")}
    parts |= {
        "split": spec.split.target_bytes,
        "the mask's key": key.fingerprint if key else None,
        "the files' columns": transform.schema.serialize().to_pybytes().hex(),
        "versions": {**used, "reading": READING_VERSION},
    }
    return {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        for name, value in parts.items()
    }


def _before(
    log: CommitLog, last: Commit | None, writing: Mapping[str, str]
) -> tuple[Reads, dict[str, WrittenFile]] | str:
    """Return what the last commit has read and its live files; or why that is of no use."""
    if last is None:
        return FIRST_RUN
    live = log.live_files(last)
    reads = log.reads.of(last, live)
    if isinstance(reads, str):
        return reads
    for part in sorted(writing.keys() | reads.writing.keys()):
        if writing.get(part) != reads.writing.get(part):
            return f"{part} changed"
    if not _has_all(log.target, last.target_uri, live):
        return "a live file is missing or has another size"
    return reads, {file.staged.uri: file for file in live}


def _has_all(storage: Storage, folder: str, live: Sequence[WrittenFile]) -> bool:
    listed = {normal_uri(o.uri): o.size for o in storage.list(join(folder, ""))}
    return all(listed.get(normal_uri(file.staged.uri)) == file.staged.size for file in live)


def _whole(reuse: Reuse, reason: str, staged: Sequence[StagedRange]) -> Reuse:
    """Return that nothing of the last commit is kept."""
    first = reuse.pages.parts[0].name
    spans = list(_grid(reuse.pages, {}, reuse.widths)) or [PageSpan(first, 0, reuse.widths[first])]
    return _reading(replace(reuse, reason=reason), spans, staged)


def _grid(
    pages: ComparablePages, ends: Mapping[str, int], widths: Mapping[str, int]
) -> Iterator[PageSpan]:
    """Yield ranges of all pages beyond some ends; the last of a part may reach beyond it."""
    for part in pages.parts:
        start, width = ends.get(part.name, 0), widths[part.name]
        while start < part.count:
            yield PageSpan(part.name, start, start + width)
            start += width


def _reading(reuse: Reuse, wanted: Sequence[PageSpan], staged: Sequence[StagedRange]) -> Reuse:
    """Return what is read of the ranges that are wanted: those that nobody has staged.

    The last range of a part, if it is read, has all pages that follow.
    """
    by_span = {_span(one.range): one for one in staged}
    spans = tuple(span for span in wanted if span not in by_span)
    ends = _ends([*map(_span, reuse.kept), *wanted])
    splits = tuple(
        reuse.pages.split(index, replace(span, end=None) if span.end == ends[span.part] else span)
        for index, span in enumerate(spans)
    )
    taken = tuple(by_span[span] for span in wanted if span in by_span)
    return replace(reuse, spans=spans, splits=splits, staged=taken)


def all_but(kept: Sequence[WrittenFile]) -> Callable[[WrittenFile], bool]:
    """Return a predicate for the live files that a commit replaces when it keeps some."""
    uris = {file.staged.uri for file in kept}
    return lambda file: file.staged.uri not in uris


# --- the sample -----------------------------------------------------------------------------------


def verify_kept(
    reuse: Reuse,
    spec: ExtractSpec,
    log: CommitLog,
    base: Base,
    *,
    snapshot: Snapshot,
    transform: Transform,
    check: Callable[[], None],
) -> int:
    """Read a sample of the kept ranges and compare it with their files.

    Args:
        reuse: What is kept.
        spec: The run's.
        log: The table's.
        base: What the run builds on.
        snapshot: What is read.
        transform: Of the run.
        check: Called after each batch; what it raises ends the comparison.

    Returns:
        How many rows were compared.

    Raises:
        FilesDamaged: They differ. From now on every run reads everything.
        CommitConflict: Another run has replaced them meanwhile.
        SourceMoved: The table was given children meanwhile, whose rows were read too.
        ExtractError: As the source and storage raise.
    """
    filled = [one for one in reuse.kept if one.rows]
    chosen = random.sample(filled, -(-len(filled) // _VERIFIED_SHARE))
    files = {file.staged.uri: file for file in reuse.files}
    names = [f.name for f in transform.schema if f not in audit_fields(spec)]
    compared = 0
    for one in chosen:
        span = _window(reuse, one)
        skipped = 0
        if span.start > one.start:
            earlier = PageSpan(one.part, one.start, span.start)
            skipped = reuse.pages.rows_in([earlier], connections=1, check=check)
        split = reuse.pages.split(0, span)
        reader = cast("Reader", snapshot.reader)
        with closing(cast("Generator[pa.RecordBatch]", reader.read(split))) as batches:
            read = (transform.apply(batch).select(names) for batch in _checked(batches, check))
            stored = _stored(log.target, [files[uri] for uri in one.files], names, skipped)
            rows = _same_rows(read, stored)
        if rows is None or (span == _span(one) and rows != one.rows):
            if isinstance(snapshot, VerifiedSnapshot):
                snapshot.verify()
            raise _difference(spec, log, base, one, _named(span, split))
        compared += rows
    return compared


def _checked(
    batches: Iterator[pa.RecordBatch], check: Callable[[], None]
) -> Iterator[pa.RecordBatch]:
    """Yield batches, and call ``check`` after each."""
    for batch in batches:
        yield batch
        check()


def _difference(
    spec: ExtractSpec, log: CommitLog, base: Base, one: RangeRead, pages: str
) -> ExtractError:
    """Return the error for rows that differ from those of their file; keep nothing from now on.

    If another run has committed meanwhile, the file was its to delete.
    """
    newest = log.newest()
    if newest is None or newest.seq != base.seq or not all(map(log.target.head, one.files)):
        return CommitConflict(
            f"{spec.extract_table}: files that were to be kept were replaced or deleted meanwhile"
        )
    log.reads.mistrust({"run_id": spec.run_id, "pages": pages, "files": list(one.files)})
    return FilesDamaged(
        f"{spec.extract_table}: {pages} were to be kept as unchanged, but "
        f"rows in {', '.join(one.files)} differ from the source's; nothing was committed. Either "
        "the file was changed, or a change of the table went unnoticed: please report it. From now "
        f"on every run reads everything, until {log.reads.mistrusted} is deleted"
    )


def _named(span: PageSpan, split: Split) -> str:
    return f"pages {span.start} to {span.end}{f' of {split.table}' if split.table else ''}"


def _window(reuse: Reuse, one: RangeRead) -> PageSpan:
    """Return the pages of a range to compare: some at random, or all if their order is not kept."""
    count = next(part.count for part in reuse.pages.parts if part.name == one.part)
    end = min(one.end, max(count, one.start + 1))
    if not reuse.pages.keeps_order or end - one.start <= _VERIFIED_PAGES:
        return _span(one)
    start = random.randrange(one.start, end - _VERIFIED_PAGES + 1)  # noqa: S311 - not a secret
    return PageSpan(one.part, start, start + _VERIFIED_PAGES)


def _stored(
    storage: Storage, files: Sequence[WrittenFile], names: list[str], skipped: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of files after the first ones, reading only the row groups that hold them."""
    for file in files:
        if skipped >= file.rows:
            skipped -= file.rows
            continue
        stream = storage.open(file.staged.uri)
        if stream is None:
            return
        try:
            with stream, pq.ParquetFile(stream, page_checksum_verification=True) as found:
                groups: list[int] = []
                for number in range(found.metadata.num_row_groups):
                    rows = found.metadata.row_group(number).num_rows
                    if not groups and skipped >= rows:
                        skipped -= rows
                    else:
                        groups.append(number)
                for batch in found.iter_batches(row_groups=groups, columns=names):
                    yield batch.slice(skipped)
                    skipped = max(0, skipped - batch.num_rows)
        except (pa.ArrowException, OSError, UnicodeDecodeError):  # it is damaged
            return


def _same_rows(read: Iterator[pa.RecordBatch], stored: Iterator[pa.RecordBatch]) -> int | None:
    """Return how many rows were read, if stored ones begin with the very same; else None."""
    rows, rest = 0, None
    for batch in read:
        done = 0
        while done < batch.num_rows:
            while rest is None or rest.num_rows == 0:
                rest = next(stored, None)
                if rest is None:
                    return None
            count = min(batch.num_rows - done, rest.num_rows)
            for left, right in zip(
                batch.slice(done, count).columns, rest.slice(0, count).columns, strict=True
            ):
                if not same_values(left, right):
                    return None
            done += count
            rest = rest.slice(count)
        rows += batch.num_rows
    return rows


def same_values(left: pa.Array, right: pa.Array) -> bool:
    """Return whether two arrays have the same values, bit for bit: NaN is itself, 0 is not -0."""
    if left.type != right.type or not left.is_valid().equals(right.is_valid()):
        return False
    if pa.types.is_floating(left.type):
        whole = pa.int32() if left.type == pa.float32() else pa.int64()
        return bool(left.drop_null().view(whole).equals(right.drop_null().view(whole)))
    if pa.types.is_list(left.type):
        lengths = pc.list_value_length(left).equals(pc.list_value_length(right))
        return bool(lengths and same_values(left.flatten(), right.flatten()))
    return bool(left.equals(right))
