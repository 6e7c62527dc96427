"""Keeps the live files of ranges that have not changed, so that a full extract reads only the rest.

What must hold: the last commit says which files hold which range of pages, in which snapshot; the
source recognizes the range (`extract_jobs.sources.ComparablePages`); and everything else that the
files depend on is as it was. A sample of what is kept is read all the same (`kept_sample`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.reads import VERSION, RangeRead, Reads
from extract_jobs.commit.record import Base, Commit
from extract_jobs.commit.staged_ranges import VERSION as STAGED_VERSION
from extract_jobs.commit.staged_ranges import StagedRange
from extract_jobs.engine.run_splits import SplitResult
from extract_jobs.reporting.report import FIRST_RUN, versions
from extract_jobs.sources import (
    READING_VERSION,
    ComparablePages,
    ComparableSnapshot,
    Moment,
    PageSpan,
    Snapshot,
)
from extract_jobs.sources.splits import RANGE_BYTES, SMALL_TABLE_RANGES, Split
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.rules import RUN_PARTITIONS
from extract_jobs.spec.uris import normal_uri
from extract_jobs.storage import Storage, WrittenFile, join
from extract_jobs.transform.masks import MaskKey
from extract_jobs.transform.transform import Transform

_MOST_RANGES = 20_000
_MOST_PAGES = 2**30
"""Of a range: its end is the number of a page too, and sources count pages in 32 bits."""
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

    def count(self, spec: ExtractSpec) -> int | None:
        """Return the source's count of all rows: of what is read, and of all beyond it.

        None if the source can only count them by reading them.
        """
        ends = _ends([*map(span_of, self.found), *self.spans])
        beyond = [PageSpan(p.name, ends.get(p.name, 0), None) for p in self.pages.parts]
        read = self.pages.rows_in(
            [*self.spans, *beyond], connections=spec.split.max_connections, check=lambda: None
        )
        return None if read is None else sum(one.rows for one in self.found) + read

    def reads(self, results: Sequence[SplitResult]) -> Reads:
        """Return what there is to know about the ranges once the splits are read."""
        read = [_range_read(span, result) for span, result in zip(self.spans, results, strict=True)]
        return Reads(
            VERSION,
            self._moment(),
            self.writing,
            tuple(sorted([*self.found, *read], key=span_of)),
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


def span_of(one: RangeRead) -> PageSpan:
    """Return the pages of a range that was read."""
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
        return _whole(everything, "reuse: reread reads everything", staged)
    before = _before(log, base.published, writing)
    if isinstance(before, str):
        return _whole(everything, before, staged)
    reads, live = before
    unchanged = _unchanged(spec, pages, reads.moment, reads.ranges, check)
    if isinstance(unchanged, str):
        return _whole(everything, unchanged, staged)
    kept = tuple(one for one in reads.ranges if span_of(one) in unchanged)
    if not any(one.rows for one in kept):
        return _whole(everything, "every range that has rows has changed", staged)
    # A part of which nothing is kept may be shorter than it was: it is cut anew.
    cut = {one.part for one in kept}
    before_cut = [one for one in reads.ranges if one.part in cut]
    widths = widths | {one.part: one.end - one.start for one in before_cut if not one.start}
    changed = [span for one in before_cut if (span := span_of(one)) not in unchanged]
    ends = _ends(map(span_of, before_cut))
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
        return f"each of the table's {len(filled)} partitions would have its own small file"
    return ""


def _widths(spec: ExtractSpec, pages: ComparablePages, least: int) -> dict[str, int]:
    """Return how many pages a range has, by part."""
    size = sum(part.count * part.page_bytes for part in pages.parts)
    target = spec.split.target_bytes
    if not spec.target.partition_by:  # each range has a file in each partition
        target = min(target, max(RANGE_BYTES, size // SMALL_TABLE_RANGES))
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
        {span_of(one): one.rows for one in ranges},
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
    found = []
    staged = log.staged.of(spec.run_id, base.seq, spec.target.uri)
    for moment, some in _by_moment(one for one in staged if one.writing == writing):
        same = _unchanged(spec, pages, moment, [one.range for one in some], check)
        if not isinstance(same, str):
            found += [one for one in some if span_of(one.range) in same]
    return found


def _by_moment(
    staged: Iterable[StagedRange],
) -> Iterator[tuple[Mapping[str, Mapping[str, Any]], list[StagedRange]]]:
    """Group ranges of one snapshot, whose parts are asked about together.

    Only PostgreSQL's snapshots tell attempts apart. Ranges of one part that was another for each of
    two attempts are never in one group: the part's moment would be that of either.
    """
    groups: dict[str, list[tuple[dict[str, Any], list[StagedRange]]]] = {}
    for one in staged:
        parts = one.moment["parts"]
        key = json.dumps({**one.moment, "parts": {}}, sort_keys=True)
        alike = groups.setdefault(key, [])
        fitting = (
            group
            for group in alike
            if all(group[0].get(name, moment) == moment for name, moment in parts.items())
        )
        group = next(fitting, None)
        if group is None:
            alike.append(group := ({}, []))
        group[0].update(parts)
        group[1].append(one)
    for alike in groups.values():
        for parts, some in alike:
            yield {**some[0].moment, "parts": parts}, some


_NO_PAGES = "only PostgreSQL and SQLite tables and files in S3 can be compared with the last run"


def _not_for(spec: ExtractSpec) -> str:
    """Return why a spec's files do not show by range what was read; empty if they do."""
    if spec.limit is not None:
        return "the run reads a sample (limit)"
    if spec.mode != "full":
        return "increments read only new rows"
    if spec.target.write_mode != "overwrite":
        return f"target.write_mode is {spec.target.write_mode}, and only overwrite keeps files"
    if any(name in RUN_PARTITIONS for name in spec.target.partition_by):
        return "each run writes its own partitions"
    if spec.watermark is not None:
        return "watermark is set, and its greatest value is found by reading all rows"
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
    if log.table is not None:
        done = log.table.altered(last.seq, [file.staged.uri for file in live])
        if done:
            return f"another tool {done}"
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
    by_span = {span_of(one.range): one for one in staged}
    spans = tuple(span for span in wanted if span not in by_span)
    ends = _ends([*map(span_of, reuse.kept), *wanted])
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
