"""A table's live files: written by a published commit and not retired by a later one.

They are read from the commits, newest first, back to the last overwrite. So that few are read
however long the history is, the live files of every `LIVE_EVERY` commits are kept as a segment,
``live/segments/<first>-<last>.parquet``, and those of every `LIVE_EVERY` segments are merged into
one, on up to `LEVELS` levels. The numbers in a name are those of its range, published or not.

Segments only save time. Whatever is missing, damaged, or deleted by another process meanwhile is
read from the commits, so a segment may be deleted at any moment once a longer one has its range.
Versions before segments wrote all live files at a commit into ``live/<20-digit seq>.json``; such a
list ends a walk, and the next segment takes its place.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.commit.at_once import each
from extract_jobs.commit.live_segments import (
    Segment,
    SegmentWriter,
    Span,
    live_of,
    table_of,
    uris_of,
)
from extract_jobs.commit.record import Commit, LiveFiles
from extract_jobs.commit.record_check import number_in, require
from extract_jobs.errors import ExtractError
from extract_jobs.storage import ObjectInfo, Storage, WrittenFile, join
from extract_jobs.watermark import Interval, may_meet

logger = logging.getLogger(__name__)

LIVE_EVERY = 64
"""Commits of a segment, and segments that are merged into one."""
LEVELS = 3
MERGED_BYTES = 16 * 2**20
"""Segments that are larger together are not merged."""
_READ_WHOLE = 2**20
_READ_AT_ONCE = 16
_COMMITS_BEFORE_SEGMENTS = 8
"""Commits that are read before segments are looked for, if only some intervals are wanted."""
_LISTINGS = 3
"""Segments may be merged and deleted while they are read; then they are listed again."""
_SEGMENT = re.compile(r"/live/segments/(\d{20})-(\d{20})\.parquet$")


@dataclass(frozen=True)
class LiveFilesLog:
    """The live files of one table.

    Attributes:
        state: Storage of ``state_uri``.
        state_uri: The table's state folder.
        target_uri: The table's folder, if the caller knows it.
        commit: Returns the commit with a sequence number; raises ConfigError if it is gone.
    """

    state: Storage
    state_uri: str
    target_uri: str | None
    commit: Callable[[int], Commit]

    def at(
        self, commit: Commit | None, within: Sequence[Interval] | None = None
    ) -> Iterator[LiveFiles]:
        """Yield the files live when a commit is the last published one, newest commits first.

        Files of one commit may come in several pieces. Those from a segment have no ``upload``.

        Args:
            commit: The commit.
            within: If given, files of commits that hold no rows in any of these intervals may be
                left out, and nothing is read beyond the last commit that may hold some.
        """
        if commit is None:
            return
        retired: set[str] = set()
        for part in _Walk(self, commit, within).parts(self.of_commit(commit)):
            for live in part.live():
                left = tuple(f for f in live.files if f.staged.uri not in retired)
                if left:
                    yield replace(live, files=left)
            retired |= part.retired

    def record(self, commit: Commit) -> None:
        """Write the segments that end before a published commit, and delete what they replace.

        Every process writes the same. A failure is logged only: segments just save time, and the
        commit is published.
        """
        size = 1
        try:
            for _ in range(LEVELS):
                size *= LIVE_EVERY
                last = _end_of_range(commit.parent, size)
                if commit.parent == 0 or commit.seq <= last:
                    return
                self._write(commit.parent, last - size + 1, last)
        except Exception as error:  # noqa: BLE001 - nothing may fail a run that is published
            what = error if isinstance(error, ExtractError) else type(error).__name__
            logger.warning("live files were not listed, which costs later runs time only: %s", what)

    def _write(self, newest: int, first: int, last: int) -> None:
        """Write the segment of a range whose last published commit is given."""
        top = self.commit(newest)
        if top.overwrites:
            return  # the commit itself says as much
        walk = _Walk(self, top, floor=first - 1)
        if walk.bytes_within(first, last) > MERGED_BYTES:
            return
        writer, retired, spans = SegmentWriter(), set[str](), list[Span]()
        for part in walk.parts():
            spans.append(part.span)
            for table in part.tables():
                writer.add(_without(table, retired))
            retired |= part.retired
        if len(spans) == 1:
            return  # so does a commit or a shorter segment
        span = Span(spans[-1].first, top.seq, spans[-1].parent, top.covered)
        raw = writer.close(span, sorted(retired) if span.parent else [])
        uri = self._uri(first, last)
        held = self.state.put_if_absent(uri, raw)
        if held != raw:  # another process's, of the same commits
            Segment.open(io.BytesIO(held), top.target_uri)
        alone = span.parent == 0
        since = top.live_since
        found = [one.uri for one in walk.listed()]
        self.state.delete_all(o for o in found if _is_replaced(o, uri, alone=alone, since=since))

    def _uri(self, first: int, last: int) -> str:
        return join(self.state_uri, "live", "segments", f"{first:020d}-{last:020d}.parquet")

    def of_commit(self, commit: Commit) -> Part:
        """Return a commit as a part of a walk."""
        files = self._absolute_files(commit.files, commit.target_uri)
        ends = commit.overwrites or commit.parent == 0
        span = Span(commit.seq, commit.seq, 0 if ends else commit.parent, commit.covered)
        retired = () if ends else commit.retire
        return _LiveParts(
            span,
            {self._absolute(uri, commit.target_uri) for uri in retired},
            (LiveFiles(commit.seq, commit.held_interval, files),),
        )

    def of_list(self, seq: int, commit: Commit) -> Part | None:
        """Return the list of all files live at a commit, of an earlier version; None if damaged."""
        uri = join(self.state_uri, "live", f"{seq:020d}.json")
        raw = self.state.read(uri)
        try:
            found = [] if raw is None else LiveFiles.from_bytes(raw, commit)
        except ValueError as error:
            logger.warning("%s is not used: %s", uri, error)
            return None
        live = tuple(
            replace(one, files=self._absolute_files(one.files, commit.target_uri)) for one in found
        )
        first = min([seq, *(one.seq for one in live)])
        return None if raw is None else _LiveParts(Span(first, seq, 0, ()), set(), live)

    def _absolute_files(self, files: Sequence[WrittenFile], folder: str) -> tuple[WrittenFile, ...]:
        uris = [self._absolute(file.staged.uri, folder) for file in files]
        return tuple(
            file if file.staged.uri == uri else replace(file, staged=replace(file.staged, uri=uri))
            for file, uri in zip(files, uris, strict=True)
        )

    def _absolute(self, uri: str, folder: str) -> str:
        """Return a file's URI in a form that does not depend on the working folder.

        Records of older versions may have relative paths of files and their target.
        """
        if self.target_uri is None or "://" in uri or uri.startswith("/"):
            return uri
        below = uri.removeprefix(folder.rstrip("/") + "/")
        return join(self.target_uri, below) if below != uri else str(Path(uri).absolute())


def _end_of_range(seq: int, size: int) -> int:
    """Return the last number of the range of so many commits that a commit is in."""
    return -(-seq // size) * size


def _without(table: pa.Table, retired: set[str]) -> pa.Table:
    if not retired or not table.num_rows:
        return table
    gone = pc.is_in(uris_of(table), value_set=pa.array(retired, pa.string()))
    return table.filter(pc.invert(gone))


def _range_of(uri: str) -> tuple[int, int] | None:
    """Return the range of commits in a segment's name; None if the file is not a segment."""
    found = _SEGMENT.search(uri)
    return (int(found[1]), int(found[2])) if found else None


def _is_replaced(uri: str, by: str, *, alone: bool, since: int) -> bool:
    """Return whether a segment or list is of no use beside a new segment.

    Args:
        uri: The segment or list.
        by: The new segment.
        alone: Whether no file that is live after its range is older than it.
        since: The commit from which live files count.
    """
    own, new = _range_of(uri), _range_of(by)
    assert new is not None
    if own is None:
        seq = number_in(uri)
        return seq is not None and (alone or new[0] <= seq) and seq <= new[1]
    return own != new and (own[1] < since or (new[0] <= own[0] and own[1] <= new[1]))


class Part(Protocol):
    """Some commits of a walk: one, those of a segment, or all up to a list of an older version."""

    @property
    def span(self) -> Span:
        """What it holds."""

    @property
    def retired(self) -> set[str]:
        """URIs of files of earlier commits that it retires."""

    def live(self) -> Iterable[LiveFiles]:
        """Return the files that it wrote and did not retire, newest commits first."""

    def tables(self) -> Iterable[pa.Table]:
        """Return the same files as tables."""


@dataclass(frozen=True)
class _LiveParts:
    span: Span
    retired: set[str]
    files: tuple[LiveFiles, ...]

    def live(self) -> Iterable[LiveFiles]:
        return self.files

    def tables(self) -> Iterator[pa.Table]:
        return (table_of([one]) for one in self.files if one.files)


@dataclass(frozen=True)
class _SegmentPart:
    span: Span
    retired: set[str]
    read: Callable[[], Iterable[pa.Table]]
    above: int

    def live(self) -> Iterator[LiveFiles]:
        return (one for table in self.tables() for one in live_of(table))

    def tables(self) -> Iterator[pa.Table]:
        for table in self.read():
            yield (
                table
                if self.above > self.span.last
                else table.filter(pc.less(table["seq"], self.above))
            )


@dataclass
class _Walk:
    """One walk from a commit back to where no earlier file is live, or to a floor.

    Attributes:
        log: The table's.
        top: The newest commit.
        within: As of `LiveFilesLog.at`.
        floor: The commit that the walk ends at and does not include; None for a walk of a reader.
    """

    log: LiveFilesLog
    top: Commit
    within: Sequence[Interval] | None = None
    floor: int | None = None
    _listed: list[ObjectInfo] | None = None
    _listings: int = 0
    _segments: list[tuple[tuple[int, int], ObjectInfo]] = field(default_factory=list)
    _lists: set[int | None] = field(default_factory=set)
    _unusable: set[str] = field(default_factory=set)
    _commits: dict[int, Commit | ExtractError] = field(default_factory=dict)
    _reads: int = 0

    def parts(self, part: Part | None = None) -> Iterator[Part]:
        """Yield the parts of the walk, newest first; ``part`` is the first if it is known."""
        part = part or self._ending_with(self.top.seq, above=self.top.seq + 1)
        while True:
            yield part
            seq = part.span.parent
            if seq == 0:
                return
            if self.floor is not None and seq <= self.floor:
                found = None if self._segments_at(seq) else self._list_at(seq)
                if found is not None:
                    yield found
                return
            part = self._ending_with(seq, above=part.span.first)
            if self._is_below(part.span):
                return

    def listed(self) -> list[ObjectInfo]:
        """Return the segments and lists that there are."""
        if self._listed is None:
            folder = join(self.log.state_uri, "live") + "/"
            self._listed = list(self.log.state.list(folder))
            self._listings += 1
            ranges = [(_range_of(one.uri), one) for one in self._listed]
            self._segments = [(own, one) for own, one in ranges if own]
            self._lists = {number_in(one.uri) for own, one in ranges if not own}
        return self._listed

    def _list_again(self) -> None:
        """Look for segments once more before the next is read: one that is gone was merged."""
        if self._listings < _LISTINGS:
            self._listed = None

    def bytes_within(self, first: int, last: int) -> int:
        """Return the size of all segments in a range."""
        self.listed()
        return sum(one.size for own, one in self._segments if first <= own[0] and own[1] <= last)

    def _ending_with(self, seq: int, *, above: int) -> Part:
        """Return the part that ends with a published commit; ``above`` and later ones are done."""
        if self._may_be_in_segment(seq):
            while segments := self._segments_at(seq):
                part = self._of_segment(segments[0], seq, above)
                if part is not None:
                    return part
            if (listed := self._list_at(seq)) is not None:
                return listed
        return self.log.of_commit(self._commit(seq))

    def _may_be_in_segment(self, seq: int) -> bool:
        if self.floor is not None:
            return True
        if self.within is not None and self._reads < _COMMITS_BEFORE_SEGMENTS:
            return False
        return _end_of_range(seq, LIVE_EVERY) < self.top.seq

    def _segments_at(self, seq: int) -> list[ObjectInfo]:
        """Return the usable segments whose range has a commit, the longest first."""
        self.listed()
        found = [
            (own[0] - own[1], one)
            for own, one in self._segments
            if own[0] <= seq <= own[1] and one.uri not in self._unusable
        ]
        return [one for _, one in sorted(found, key=lambda item: item[0])]

    def _of_segment(self, one: ObjectInfo, seq: int, above: int) -> Part | None:
        """Return a segment as a part, or note that it is of no use for this walk."""
        self._unusable.add(one.uri)
        meets = None if self.within is None else self._meets
        keeps = one.size <= _READ_WHOLE or meets is not None
        try:
            stream = self._open(one)
            if stream is None:
                self._list_again()
                return None
            with closing(stream) if keeps else nullcontext():
                segment = Segment.open(stream, self.top.target_uri)
                span = segment.span
                if span.last > self.top.seq:
                    return None  # it is about later commits too, for a rollback
                require(span.first <= seq <= span.last, "it is not about its commits")
                self._is_below(span)  # raises where an interval's values do not compare
                # All of it is read and checked before any of it is used.
                retired = segment.retired()
                read = partial(segment.tables, meets) if self.floor is None else segment.stored
                tables = [table for table in read() if keeps]
        except (ValueError, ExtractError) as error:
            # It only saves time: the commits before it hold the same.
            logger.warning("%s is not used: %s", one.uri, error)
            if isinstance(error, ExtractError):
                self._list_again()  # it may have gone while it was read
            return None
        return _SegmentPart(span, retired, (lambda: tables) if keeps else read, above)

    def _open(self, one: ObjectInfo) -> IO[bytes] | None:
        if one.size <= _READ_WHOLE or self.within is None:
            raw = self.log.state.read(one.uri)
            return None if raw is None else io.BytesIO(raw)
        return self.log.state.open(one.uri)

    def _list_at(self, seq: int) -> Part | None:
        """Return the list of an older version at a commit; None if there is none."""
        self.listed()
        return self.log.of_list(seq, self.top) if seq in self._lists else None

    def _commit(self, seq: int) -> Commit:
        """Return a commit; reads some before it at the same time.

        Raises:
            ConfigError: It is gone or damaged. Only commits that the walk reaches matter.
        """
        if seq not in self._commits:
            some = _READ_AT_ONCE if self.within is None else min(_READ_AT_ONCE, self._reads + 1)
            least = max(
                seq - some, _end_of_range(seq, LIVE_EVERY) - LIVE_EVERY, self.top.live_since - 1, 0
            )
            wanted = range(seq, min(seq - 1, least), -1)
            self._commits = dict(zip(wanted, each(self._read, wanted), strict=True))
            self._reads += len(wanted)
        found = self._commits.pop(seq)
        if isinstance(found, ExtractError):
            raise found
        return found

    def _read(self, seq: int) -> Commit | ExtractError:
        try:
            return self.log.commit(seq)
        except ExtractError as error:
            return error

    def _meets(self, interval: Interval | None) -> bool:
        return interval is None or may_meet(interval, self.within or ())

    def _is_below(self, span: Span) -> bool:
        """Return whether neither a part nor an earlier one has rows in the wanted intervals."""
        if self.within is None or not span.covered:
            return False
        covered = (Interval.from_json(one) for one in span.covered)
        return not any(self._meets(one) for one in covered)
