"""The files that an Iceberg table consists of, for a commit that replaces some of their rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

from extract_jobs.errors import ConfigError
from extract_jobs.iceberg.catalogs import catalog_errors
from extract_jobs.iceberg.change import Layout
from extract_jobs.iceberg.table import IcebergTable, has_delete_files, live_files

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema

_EXACT = Context(prec=76)
"""Keeps all digits of a decimal; the usual context has 28."""


@dataclass(frozen=True)
class Content:
    """A data file of the current snapshot, whoever wrote it.

    Attributes:
        location: As the table names it.
        rows: How many it has.
        partition: As `WrittenFile.partition`.
        ranges: Of some columns, in the order that was asked for: the least and greatest value, or
            values beyond them, as `extract_jobs.commit.merge_keys.range_of` has them; None if they
            are not known.
    """

    location: str
    rows: int
    partition: dict[str, str | None]
    ranges: tuple[tuple[Any, Any] | None, ...]


def contents(
    table: IcebergTable, layout: Layout, columns: Collection[str], *, parent: int
) -> list[Content]:
    """Return the files of a table as it is now. Read-only.

    Args:
        table: The table.
        layout: Columns and partitions after the commit.
        columns: Whose ranges are wanted.
        parent: The last published commit.

    Raises:
        ConfigError: The table is gone or not this log's, or some of its rows are deleted by delete
            files of another tool.
        WriteFailed: The catalog cannot be read.
    """
    from pyiceberg.schema import Schema

    found = table.read(parent=parent, required=True)
    snapshot = None if found is None else found.current_snapshot()
    if found is None or snapshot is None:
        return []
    schema = Schema.model_validate(layout.schema)
    with catalog_errors(table.catalog, "reading"):
        manifests = snapshot.manifests(found.io)
        if has_delete_files(manifests):
            raise ConfigError(
                f"Iceberg table {table.name} has delete files of another tool, and rows that they "
                "delete would come back: compact the table with that tool, or replace all files "
                "with a run in mode full"
            )
        return [
            _content(file, layout, schema, columns)
            for _, files in live_files(manifests, found.io)
            for file in files
        ]


def _content(file: DataFile, layout: Layout, schema: Schema, columns: Collection[str]) -> Content:
    from extract_jobs.iceberg.partitions import partition_of

    return Content(
        file.file_path,
        file.record_count,
        partition_of(file.partition, layout, schema),
        tuple(_range(file, schema, name) for name in columns),
    )


def _range(file: DataFile, schema: Schema, column: str) -> tuple[Any, Any] | None:
    field = schema.find_field(column)
    least = (file.lower_bounds or {}).get(field.field_id)
    greatest = (file.upper_bounds or {}).get(field.field_id)
    if least is None or greatest is None:
        return None
    found = _bound(least, field.field_type), _bound(greatest, field.field_type)
    return None if None in found else found


def _bound(raw: bytes, kind: Any) -> Any:
    """Return a bound's value; of a type that was widened since, it has the older one's bytes."""
    from pyiceberg.types import (
        DateType,
        DecimalType,
        IntegerType,
        LongType,
        StringType,
        TimestampType,
        TimestamptzType,
    )

    if isinstance(kind, IntegerType | LongType | DateType | TimestampType | TimestamptzType):
        return int.from_bytes(raw, "little", signed=True)
    if isinstance(kind, DecimalType):
        return Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-kind.scale, _EXACT)
    return bytes(raw) if isinstance(kind, StringType) else None
