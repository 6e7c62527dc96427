"""What an Iceberg manifest says of a Parquet file: its partition, sizes, counts and bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    MetricModeTypes,
    MetricsMode,
    StatisticsCollector,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.types import StringType

from extract_jobs.errors import WriteFailed
from extract_jobs.iceberg.change import FIELD_ID, Layout
from extract_jobs.iceberg.partitions import record_of
from extract_jobs.spec.uris import normal_uri
from extract_jobs.storage import OpenStorage, WrittenFile

_CONCURRENT_FOOTERS = 16
_NONE = MetricsMode(MetricModeTypes.NONE)


def location(uri: str) -> str:
    """Return a URI as an Iceberg table names it: of a local file, its path, which all read."""
    return uri if uri.startswith("s3://") else normal_uri(uri)


def data_files(
    files: Sequence[WrittenFile],
    layout: Layout,
    schema: Schema,
    *,
    spec_id: int,
    properties: dict[str, str],
    open_storage: OpenStorage,
) -> Iterator[DataFile]:
    """Yield the entry of each file; footers that are not known are read, several at a time.

    Args:
        files: Files that are in place.
        layout: Of the table.
        schema: The files' columns.
        spec_id: The partition spec's.
        properties: The table's: which columns get bounds.
        open_storage: Where the files are.

    Raises:
        WriteFailed: A footer cannot be read.
    """
    plan, paths = compute_statistics_plan(schema, properties), parquet_path_to_id_mapping(schema)
    statistics = _Statistics(plan, paths)

    def entry(file: WrittenFile, footer: pq.FileMetaData) -> DataFile:
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=location(file.staged.uri),
            file_format=FileFormat.PARQUET,
            partition=record_of(file.partition, layout, schema),
            file_size_in_bytes=file.staged.size,
            sort_order_id=None,
            spec_id=spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.of(footer),
        )

    with ThreadPoolExecutor(_CONCURRENT_FOOTERS) as pool:
        unknown = [file.staged.uri for file in files if file.footer is None]
        read = pool.map(lambda uri: _footer(uri, open_storage), unknown)
        for file in files:
            yield entry(file, next(read) if file.footer is None else file.footer)


def _footer(uri: str, open_storage: OpenStorage) -> pq.FileMetaData:
    stream = open_storage(uri).open(uri)
    if stream is None:
        raise WriteFailed(f"{uri} is gone, and its commit was about to be published; run again")
    try:
        with stream:
            return pq.read_metadata(stream)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise WriteFailed(
            f"{uri}: its footer could not be read back ({type(error).__name__}); a retry is safe"
        ) from None


class _Statistics:
    """Sizes, counts and bounds of files by column id. Files of one schema in a row cost less."""

    def __init__(self, plan: dict[int, StatisticsCollector], paths: dict[str, int]) -> None:
        self._plan, self._paths = plan, paths
        self._schema: pq.ParquetSchema | None = None
        self._of_schema: tuple[dict[int, StatisticsCollector], dict[str, int]] = plan, paths

    def of(self, footer: pq.FileMetaData) -> dict[str, Any]:
        """Return those of a file.

        A column without statistics in some row group (floats, and wide values) has its sizes alone.
        """
        if self._schema is None or not self._schema.equals(footer.schema):
            paths = _ids(footer) or self._paths
            # Files that are written again may have columns that have left the table.
            gone = {i: StatisticsCollector(i, StringType(), _NONE, "") for i in paths.values()}
            self._schema, self._of_schema = footer.schema, ({**gone, **self._plan}, paths)
        plan, paths = self._of_schema
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        unknown = {
            paths[column.path_in_schema]
            for group in groups
            for column in map(group.column, range(group.num_columns))
            if not column.is_stats_set
        }
        modes = {i: _with_mode(c, _NONE) if i in unknown else c for i, c in plan.items()}
        try:
            found = data_file_statistics_from_parquet_metadata(footer, modes, paths)
        except (ValueError, OverflowError):  # a date that Python has none for
            counts = MetricsMode(MetricModeTypes.COUNTS)
            modes = {i: c if i in unknown else _with_mode(c, counts) for i, c in modes.items()}
            found = data_file_statistics_from_parquet_metadata(footer, modes, paths)
        return dict(found.to_serialized_dict())


def _ids(footer: pq.FileMetaData) -> dict[str, int] | None:
    """Return the id of each Parquet column by its path; None if the file has no ids."""
    found = list(_leaf_ids(footer.schema.to_arrow_schema()))
    paths = [footer.schema.column(number).path for number in range(footer.num_columns)]
    if len(found) != len(paths) or None in found:
        return None
    return {path: int(number) for path, number in zip(paths, found, strict=True) if number}


def _leaf_ids(fields: Iterable[pa.Field]) -> Iterator[bytes | None]:
    for field in fields:
        kind = field.type
        if pa.types.is_struct(kind):
            yield from _leaf_ids(kind)
        elif pa.types.is_map(kind):
            yield from _leaf_ids([kind.key_field, kind.item_field])
        elif pa.types.is_nested(kind):
            yield from _leaf_ids([kind.value_field])
        else:
            yield (field.metadata or {}).get(FIELD_ID)


def _with_mode(collector: StatisticsCollector, mode: MetricsMode) -> StatisticsCollector:
    return StatisticsCollector(
        collector.field_id, collector.iceberg_type, mode, collector.column_name
    )
