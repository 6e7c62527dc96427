"""Finds rows that are already committed, by key and watermark.

A row is identified by its key and watermark, in the form that files hold. Only those columns are
read back, and only from files and row groups that may have rows in the given intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extract_jobs.commit.record import LiveFiles
from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import Storage, WrittenFile
from extract_jobs.transform.columns import columns_in_path, partition_fields
from extract_jobs.transform.transform import Transform
from extract_jobs.transform.types import kind
from extract_jobs.watermark import Interval, WatermarkValue, may_meet, python_value

MAX_IN_MEMORY = 4_000_000
"""Number of keys, of 16 bytes each, that one process may hold. Above it Spark finds the rows."""
_DIGEST_BYTES = 16
_DIGESTED_ROWS = 100_000
"""Number of keys that are Python objects at a time."""
_CONCURRENT_READS = 16


@dataclass(frozen=True)
class RowKey:
    """The columns that identify a row, and where files have them. Picklable.

    Attributes:
        columns: The key's columns and the watermark's, by their names in the source, once each.
        file_columns: For each column, its name in the files; None if it is in the folder's name.
        folders: For each column, the partition that holds it, or None.
        watermark: Index of the watermark's column.
    """

    columns: tuple[str, ...]
    file_columns: tuple[str | None, ...]
    folders: tuple[str | None, ...]
    watermark: int

    @classmethod
    def of(cls, spec: ExtractSpec) -> RowKey:
        """Return the key of an incremental spec that has one."""
        assert spec.watermark is not None
        assert spec.watermark.column is not None
        columns = tuple(dict.fromkeys((*spec.columns.key, spec.watermark.column)))
        in_path = columns_in_path(spec)
        by_folder = {f.column: f.name for f in partition_fields(spec) if f.column in in_path}
        rename = spec.columns.rename
        return cls(
            columns,
            tuple(None if c in by_folder else rename.get(c, c) for c in columns),
            tuple(by_folder.get(c) for c in columns),
            columns.index(spec.watermark.column),
        )

    def of_batch(
        self, batch: pa.RecordBatch, transform: Transform, *, checked: bool = True
    ) -> pa.Array:
        """Return the keys of a source batch's rows, as binary values.

        Args:
            batch: As the source gave it; columns beyond the key's may be missing.
            transform: Converts values to the form that files hold.
            checked: Whether to refuse NULL; otherwise the row's key is NULL.

        Raises:
            ConfigError: A value is NULL, so the columns do not identify rows.
        """
        values = transform.stored(batch, self.columns)
        for name, column in zip(self.columns, values, strict=True):
            if checked and column.null_count:
                raise ConfigError(
                    f"columns.key: {name} holds NULL in {column.null_count} rows of a batch, so it "
                    "cannot identify rows; nothing was committed. Name columns that are never "
                    "NULL, or accept duplicates with watermark.duplicates: accept"
                )
        return joined(values)


@dataclass(frozen=True, eq=False)
class CommittedRows:
    """The rows that are already committed. Picklable.

    Keys are kept as 128-bit digests, so one takes 16 bytes whatever its columns are. Of a million
    million rows, two would have the same digest with a probability of one in 10¹⁴.

    Attributes:
        key: How rows are identified.
        digests: Of their keys, sorted.
    """

    key: RowKey
    digests: npt.NDArray[np.bytes_]

    @classmethod
    def of(cls, key: RowKey, keys: Iterable[pa.Array]) -> CommittedRows:
        """Return the rows of binary keys."""
        return cls(key, np.sort(np.concatenate([digests([]), *map(digests_of, keys)])))

    def without(self, batch: pa.RecordBatch, transform: Transform) -> pa.RecordBatch:
        """Return a source batch's rows that are not committed yet.

        Raises:
            ConfigError: A key is NULL.
        """
        keys = self.key.of_batch(batch, transform)
        if not len(self.digests):
            return batch
        wanted = digests_of(keys)
        at = np.searchsorted(self.digests, wanted)
        # A digest above the greatest one is compared with the first, from which it differs.
        known = self.digests[np.where(at < len(self.digests), at, 0)] == wanted
        return batch.filter(pa.array(~known)) if known.any() else batch


def digests_of(keys: pa.Array) -> npt.NDArray[np.bytes_]:
    """Return the digest of each binary key, none of which is NULL."""
    parts = [
        digests(keys.slice(start, _DIGESTED_ROWS).to_pylist())
        for start in range(0, len(keys), _DIGESTED_ROWS)
    ]
    return np.concatenate([digests([]), *parts])


def digests(keys: Sequence[bytes]) -> npt.NDArray[np.bytes_]:
    """Return the digest of each of some binary keys."""
    raw = b"".join(blake2b(key, digest_size=_DIGEST_BYTES).digest() for key in keys)
    # NumPy ignores trailing zeros in comparisons: for digests of equal length that is exact.
    return np.frombuffer(raw, f"S{_DIGEST_BYTES}")


def files_on(live: Iterable[LiveFiles], covered: Sequence[Interval]) -> list[WrittenFile]:
    """Return the live files whose commits may hold rows of some intervals."""
    return [
        file for commit in live for file in commit.files if file.rows and _meets(commit, covered)
    ]


def read_keys(
    file: WrittenFile, covered: Sequence[Interval], key: RowKey, storage: Storage
) -> pa.Array:
    """Return the distinct keys of a file's rows in some intervals, as binary.

    Only the key's columns are read, of row groups whose statistics overlap the intervals. For
    strings, and if the files have another type than the source, all rows count: extra keys are
    harmless.

    Args:
        file: A live file. If it was deleted, its rows are gone and are written again.
        covered: Intervals of the watermark.
        key: How rows are identified.
        storage: Where the file is.
    """
    stream = storage.open(file.staged.uri)
    if stream is None:
        return pa.array([], pa.large_binary())
    with stream, reading(file.staged.uri):
        opened = pq.ParquetFile(stream, page_checksum_verification=True)
        file_column = key.file_columns[key.watermark]
        pieces = covered if _is_ordered(opened.schema_arrow, file_column, covered) else ()
        groups = [
            number
            for number in range(opened.num_row_groups)
            if not pieces or _group_meets(opened.metadata.row_group(number), file_column, pieces)
        ]
        names = [name for name in key.file_columns if name is not None]
        missing = [name for name in names if name not in opened.schema_arrow.names]
        if missing:
            raise ConfigError(
                f"{file.staged.uri} has no column {', '.join(missing)}, so columns.key cannot "
                "identify its rows. All files need the key and watermark columns under the same "
                "names: restore them, accept duplicates with watermark.duplicates: accept, or "
                "start over with another state_uri and target"
            )
        table = opened.read_row_groups(groups, columns=names)
    values = []
    for name, folder in zip(key.file_columns, key.folders, strict=True):
        if name is None:
            text = pa.scalar(file.partition[folder or ""], pa.string())
            values.append(pa.repeat(text, table.num_rows))
        else:
            values.append(table.column(name).combine_chunks())
    keys = joined(values)
    if pieces:
        keys = keys.filter(_lies_in(values[key.watermark], pieces))
    # A row without a watermark is in no interval, so it is never read again.
    return pc.unique(keys.drop_null())


def committed_rows(
    files: Sequence[WrittenFile],
    covered: Sequence[Interval],
    key: RowKey,
    storage: Storage,
    *,
    limit: int,
) -> CommittedRows | None:
    """Return the keys of committed rows, in memory; None if there are more than ``limit``."""
    found: list[npt.NDArray[np.bytes_]] = []
    with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
        for start in range(0, len(files), _CONCURRENT_READS):
            some = files[start : start + _CONCURRENT_READS]
            found += pool.map(lambda file: digests_of(read_keys(file, covered, key, storage)), some)
            if sum(map(len, found)) > limit:
                return None
    return CommittedRows(key, np.sort(np.concatenate([digests([]), *found])))


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Map what Arrow raises while a committed file is read."""
    try:
        yield
    except pa.ArrowException as error:
        # Arrow's message may quote a value.
        raise WriteFailed(
            f"{uri}: its keys could not be read back ({type(error).__name__}), so rows that are "
            "already committed cannot be determined; check that it is the file that was committed"
        ) from None


def joined(values: Sequence[pa.Array]) -> pa.Array:
    """Return one binary value per row, different for different rows; NULL where any value is."""
    empty = pa.scalar(b"", pa.large_binary())
    parts = []
    for found in values:
        # Files of a column that was widened have either type, in which 0.1 is spelled differently.
        value = found.cast(pa.float64()) if pa.types.is_floating(found.type) else found
        text = value if _is_binary(value.type) else value.cast(pa.string())
        data = text.cast(pa.large_binary())
        # Each value is preceded by its length, so that different rows give different bytes.
        length = pc.binary_length(data).cast(pa.string()).cast(pa.large_binary())
        parts += [length, pa.scalar(b":", pa.large_binary()), data]
    return pc.binary_join_element_wise(*parts, empty)


def _is_binary(data_type: pa.DataType) -> bool:
    kinds = pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary
    return any(is_kind(data_type) for is_kind in kinds)


def _meets(commit: LiveFiles, covered: Sequence[Interval]) -> bool:
    interval = Interval.from_json(commit.interval)
    return interval is None or may_meet(interval, covered)


def _is_ordered(schema: pa.Schema, file_column: str | None, covered: Sequence[Interval]) -> bool:
    """Return whether a file orders the watermark as the source does, so that bounds apply."""
    kinds = {v.type for piece in covered for v in (piece.lower, piece.upper) if v}
    if file_column is None or kinds == {"string"} or not kinds:
        return False
    return kinds == {kind(schema.field(file_column).type)}


def _group_meets(group: Any, file_column: str | None, covered: Sequence[Interval]) -> bool:
    """Return whether a row group may hold rows of some intervals, by its statistics."""
    found = next(
        column.statistics
        for column in map(group.column, range(group.num_columns))
        if column.path_in_schema == file_column
    )
    if found is None or not found.has_min_max:
        return True
    least, greatest = (_plain(value) for value in (found.min, found.max))
    for piece in covered:
        lower = python_value(piece.lower) if piece.lower else None
        upper = python_value(piece.upper) if piece.upper else None
        sample = lower if lower is not None else upper
        if type(least) is not type(sample):
            return True  # not every version of Arrow returns those of decimals
        if (lower is None or greatest > lower) and (upper is None or least <= upper):
            return True
    return False


def _plain(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def _lies_in(values: pa.Array, covered: Sequence[Interval]) -> pa.Array:
    """Return for each watermark whether it is, or may be, in an interval."""
    found = pa.repeat(pa.scalar(False), len(values))
    for piece in covered:
        inside = pa.repeat(pa.scalar(True), len(values))
        for bound, compare in ((piece.lower, pc.greater), (piece.upper, pc.less_equal)):
            scalar = bound and _scalar(bound, values.type)
            if scalar is not None:
                inside = pc.and_(inside, compare(values, scalar))
        found = pc.or_(found, inside)
    return found


def _scalar(bound: WatermarkValue, data_type: pa.DataType) -> pa.Scalar | None:
    value = python_value(bound)
    if bound.type == "timestamptz":
        value = value.replace(tzinfo=UTC)
    try:
        return pa.scalar(value, data_type)
    except (pa.ArrowException, OverflowError):
        return None  # beyond what the files' type can hold
