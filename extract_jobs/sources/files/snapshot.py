"""Objects as they were listed, split and counted."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from extract_jobs.sources.files.listing import compression_of
from extract_jobs.sources.files.objects import Listed, ObjectList
from extract_jobs.sources.files.parts import FilesPages, part_bytes, parts_of
from extract_jobs.sources.files.reader import FilesReader
from extract_jobs.sources.files.streams import is_utf8
from extract_jobs.sources.splits import (
    SMALLEST_BYTES,
    SMALLEST_PARQUET_BYTES,
    ObjectRange,
    Split,
    split_bytes,
)
from extract_jobs.spec.extract_spec import ExtractSpec

OPENING_BYTES = 64 * 2**10
"""Cost of opening one more object, as bytes read: it limits the number of tiny objects in a
split."""


@dataclass(frozen=True)
class FilesSnapshot:
    """Objects as they were listed. Meets `extract_jobs.sources.ComparableSnapshot`.

    Attributes:
        spec: What is extracted.
        objects: What was listed.
        reader: Reads their splits.
        shared: True: nothing but what was listed is read.
    """

    spec: ExtractSpec
    objects: ObjectList
    reader: FilesReader
    shared: bool = True

    def pages(self) -> FilesPages | str:
        """Return the objects by part. See `extract_jobs.sources.ComparableSnapshot`."""
        if "://" not in self.reader.folder:
            return "a local file's time and size do not prove that it is unchanged"
        if self.reader.files.bad_rows == "reject":
            return "rows that files.bad_rows sets aside are found by reading all"
        listed = list(self.objects.to_read())
        if not listed or not all(one.info.etag for one in listed):
            return "the storage lists no ETags"
        size = part_bytes(self.spec, sum(one.info.size for one in listed))
        section = section_bytes(self.spec)
        return FilesPages(
            self.reader,
            tuple(parts_of(listed, size, lambda one: list(self._parts(one, section)))),
        )

    def splits(self, spec: ExtractSpec) -> Sequence[Split]:
        """Split the objects. See `extract_jobs.sources.Snapshot.splits`.

        Small objects share a split. Large Parquet is split by row groups, large plain CSV at
        records that inspection found, large plain JSON lines anywhere: a reader begins with the
        next line.
        """
        total = sum(one.info.size for one in self.objects.to_read())
        is_parquet = self.reader.format == "parquet"
        smallest = SMALLEST_PARQUET_BYTES if is_parquet else SMALLEST_BYTES
        target = split_bytes(spec.split, total, smallest)
        splits: list[Split] = []
        held: list[ObjectRange] = []
        weight = 0
        for listed in self.objects.to_read():
            for part, size in self._parts(
                listed, target if spec.split.strategy == "auto" else None
            ):
                if held and weight + size > target and spec.split.strategy == "auto":
                    splits.append(Split(len(splits), None, weight, tuple(held)))
                    held, weight = [], 0
                held.append(part)
                weight += size
        if held or not splits:
            splits.append(Split(len(splits), None, weight, tuple(held)))
        return splits

    def _parts(self, listed: Listed, target: int | None) -> Iterator[tuple[ObjectRange, int]]:
        info, files = listed.info, self.reader.files
        whole = ObjectRange(info.uri, info.etag or "", info.size)
        large = target is not None and info.size >= 2 * target
        if large and target is not None and self.reader.format == "parquet":
            yield from _groups(whole, listed.cuts, target)
            return
        plain = compression_of(info.uri, files.compression) == "none" and is_utf8(files.encoding)
        cuts: Sequence[int] = ()
        if large and target is not None and plain and self.reader.format == "csv":
            cuts = listed.cuts
        elif large and target is not None and plain and self.reader.format == "jsonl":
            cuts = range(target, info.size - target // 2, target)
        bounds = [0, *cuts, info.size]
        for start, end in pairwise(bounds):
            last = end == info.size
            part = replace(whole, start=start, end=None if last else end)
            yield part, end - start + OPENING_BYTES

    def count(self) -> int | None:
        """Return the number of rows that inspection counted in all files, None if it did not.

        It does not with declared columns, or if bad rows are set aside. For Parquet it is the
        number in the footers.
        """
        counts = [one.rows for one in self.objects.to_read()]
        known = [count for count in counts if count is not None]
        if len(known) != len(counts) or self.reader.files.bad_rows == "reject":
            return None
        return sum(known)

    def check(self) -> None:
        """Do nothing: every read checks that its object is as it was listed."""


def section_bytes(spec: ExtractSpec) -> int:
    """Return the size of the parts of a large object, whatever else there is to read."""
    return min(spec.split.target_bytes, SMALLEST_BYTES)


def _groups(
    whole: ObjectRange, sizes: Sequence[int], target: int
) -> Iterator[tuple[ObjectRange, int]]:
    """Yield parts of about the same size, of whole row groups."""
    ends = list(accumulate(sizes, initial=0))
    middles = [(before + after) / 2 for before, after in pairwise(ends)]
    count = max(1, min(len(sizes), round(ends[-1] / target)))
    bounds = {bisect_right(middles, ends[-1] * part / count) for part in range(1, count)}
    for start, end in pairwise(sorted({0, len(sizes)} | bounds)):
        yield replace(whole, start=start, end=end), ends[end] - ends[start] + OPENING_BYTES
