"""Compares a sample of what is kept with the source: nobody can prove a list of causes complete.

Of a hundred kept ranges one is read all the same, at least one in each run, and its rows are
compared with those of its files, bit for bit. The rows of a partition are in the files in the order
in which the source gives them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extract_jobs.attempt.reuse import Reuse, span_of
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.reads import RangeRead
from extract_jobs.commit.record import Base
from extract_jobs.errors import CommitConflict, ExtractError, FilesDamaged
from extract_jobs.sources import PageSpan, Reader, Snapshot, VerifiedSnapshot
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import Storage, WrittenFile
from extract_jobs.transform.columns import audit_fields
from extract_jobs.transform.partitions import PartitionIds, PartitionKey, rows_by_id
from extract_jobs.transform.transform import Transform

if TYPE_CHECKING:
    from collections.abc import Generator

_SHARE = 100
"""Of so many kept ranges, one is read and compared."""
_PAGES = 1024
_PARTITIONS = 16
"""Of more partitions in a range, the rows of so many are compared, and those of the others counted:
each has an open file."""


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
        How many rows were read and compared.

    Raises:
        FilesDamaged: They differ. From now on every run reads everything.
        CommitConflict: Another run has replaced them meanwhile.
        SourceMoved: The table was given children meanwhile, whose rows were read too.
        ExtractError: As the source and storage raise.
    """
    filled = [one for one in reuse.kept if one.rows]
    chosen = random.sample(filled, -(-len(filled) // _SHARE))
    files = {file.staged.uri: file for file in reuse.files}
    names = [f.name for f in transform.schema if f not in audit_fields(spec)]
    by_partition = transform.fixed_partition() is None
    compared = 0
    for one in chosen:
        # How many rows of a partition are before a window is not known.
        span = span_of(one) if by_partition else _window(reuse, one)
        skipped = 0
        if span.start > one.start:
            earlier = PageSpan(one.part, one.start, span.start)
            counted = reuse.pages.rows_in([earlier], connections=1, check=check)
            assert counted is not None
            skipped = counted
        split = reuse.pages.split(0, span)
        stored = [files[uri] for uri in one.files]
        reader = cast("Reader", snapshot.reader)
        with closing(cast("Generator[pa.RecordBatch]", reader.read(split))) as batches:
            read = _checked(batches, check)
            if by_partition:
                rows = _same_partitions(read, log.target, stored, transform, names)
            else:
                read = (transform.apply(batch).select(names) for batch in read)
                rows = _same_rows(read, _StoredRows(log.target, stored, names, skipped))
        if rows is None or (span == span_of(one) and rows != one.rows):
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
    if split.objects:
        first, last = split.objects[0].uri, split.objects[-1].uri
        return first if first == last else f"{first} to {last}"
    return f"pages {span.start} to {span.end}{f' of {split.table}' if split.table else ''}"


def _window(reuse: Reuse, one: RangeRead) -> PageSpan:
    """Return the pages of a range to compare: some at random, or all if their order is not kept."""
    count = next(part.count for part in reuse.pages.parts if part.name == one.part)
    end = min(one.end, max(count, one.start + 1))
    if not reuse.pages.keeps_order or end - one.start <= _PAGES:
        return span_of(one)
    start = random.randrange(one.start, end - _PAGES + 1)  # noqa: S311 - not a secret
    return PageSpan(one.part, start, start + _PAGES)


# --- rows and files -------------------------------------------------------------------------------


def _same_rows(read: Iterator[pa.RecordBatch], stored: _StoredRows) -> int | None:
    """Return how many rows were read, if stored ones begin with the very same; else None."""
    rows = 0
    for batch in read:
        if not stored.begin_with(batch):
            return None
        rows += batch.num_rows
    return rows


def _same_partitions(
    read: Iterator[pa.RecordBatch],
    storage: Storage,
    files: Sequence[WrittenFile],
    transform: Transform,
    names: list[str],
) -> int | None:
    """Return how many rows were read, if the files of each partition have the same; else None."""
    by_partition: dict[PartitionKey, list[WrittenFile]] = {}
    for file in files:
        key = tuple(file.partition.get(f.name) for f in transform.partitions)
        by_partition.setdefault(key, []).append(file)
    chosen = random.sample(list(by_partition), min(_PARTITIONS, len(by_partition)))
    stored = {key: _StoredRows(storage, by_partition[key], names) for key in chosen}
    ids, counts = PartitionIds(), Counter[PartitionKey]()
    for batch in read:
        rows = transform.apply(batch).select(names)
        for number, some in rows_by_id(rows, ids.of(transform.partition_keys(batch))):
            key = ids.key(number)
            counts[key] += some.num_rows
            if key in stored and not stored[key].begin_with(some):
                return None
    expected = Counter({
        key: sum(file.rows for file in some) for key, some in by_partition.items()
    })  # fmt: skip
    return counts.total() if counts == expected else None


class _StoredRows:
    """The rows of some files, in their order."""

    def __init__(
        self, storage: Storage, files: Sequence[WrittenFile], names: list[str], skipped: int = 0
    ) -> None:
        self._batches = _stored(storage, files, names, skipped)
        self._rest: pa.RecordBatch | None = None

    def begin_with(self, rows: pa.RecordBatch) -> bool:
        """Return whether the next rows are the given ones, and pass on to those after them."""
        done = 0
        while done < rows.num_rows:
            while self._rest is None or self._rest.num_rows == 0:
                self._rest = next(self._batches, None)
                if self._rest is None:
                    return False
            count = min(rows.num_rows - done, self._rest.num_rows)
            for left, right in zip(
                rows.slice(done, count).columns, self._rest.slice(0, count).columns, strict=True
            ):
                if not same_values(left, right):
                    return False
            done += count
            self._rest = self._rest.slice(count)
        return True


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


def same_values(left: pa.Array, right: pa.Array) -> bool:
    """Return whether two arrays have the same values, bit for bit: NaN is itself, 0 is not -0."""
    if left.type != right.type or not left.is_valid().equals(right.is_valid()):
        return False
    if pa.types.is_floating(left.type):
        whole = pa.int32() if left.type == pa.float32() else pa.int64()
        return bool(left.drop_null().view(whole).equals(right.drop_null().view(whole)))
    if pa.types.is_list(left.type) or pa.types.is_large_list(left.type):
        lengths = pc.list_value_length(left).equals(pc.list_value_length(right))
        return bool(lengths and same_values(left.flatten(), right.flatten()))
    if pa.types.is_map(left.type):
        inner = pa.list_(pa.struct([("key", left.type.key_type), ("item", left.type.item_type)]))
        return same_values(left.cast(inner), right.cast(inner))
    if pa.types.is_struct(left.type):
        return all(map(same_values, left.flatten(), right.flatten()))
    return bool(left.equals(right))
