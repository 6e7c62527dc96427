"""Partitions of an Iceberg table: their transforms, and the value of each file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from pyiceberg.exceptions import ValidationError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import parse_transform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    IcebergType,
    IntegerType,
    LongType,
    TimestampType,
    TimestamptzType,
)

from extract_jobs.iceberg.change import Layout

FIRST_FIELD_ID = 1000
"""Id of the first partition field of a table."""
_UNITS = {"year": "Y", "month": "M", "day": "D", "hour": "h"}


def spec_of(layout: Layout, specs: Sequence[PartitionSpec], last_field_id: int) -> PartitionSpec:
    """Return a layout's partition spec: one that the table has, or a new one with the next ids.

    Args:
        layout: Names transforms and columns.
        specs: All that the table has ever had.
        last_field_id: The greatest id of a partition field that the table has ever used.
    """
    wanted = [(p["source-id"], p["transform"], p["name"]) for p in layout.partitions]
    for spec in specs:
        if [_parts(field) for field in spec.fields] == wanted:
            return spec
    # A field that was used before keeps its id.
    known = {_parts(field): field.field_id for spec in specs for field in spec.fields}
    fields = []
    for source_id, transform, name in wanted:
        number = known.get((source_id, transform, name))
        if number is None:
            last_field_id += 1
            number = last_field_id
        fields.append(
            PartitionField(
                source_id=source_id,
                field_id=number,
                transform=parse_transform(transform),
                name=name,
            )
        )
    return PartitionSpec(*fields, spec_id=max((s.spec_id for s in specs), default=-1) + 1)


def _parts(field: PartitionField) -> tuple[int, str, str]:
    return field.source_id, str(field.transform), field.name


def check_layout(layout: Layout, partitions: Iterable[Mapping[str, str | None]]) -> None:
    """Refuse a stored layout that no run could have written, and partitions that do not fit it.

    Raises:
        ValueError: It is damaged. The message has no value of it.
    """
    try:
        schema = Schema.model_validate(layout.schema)
        spec_of(layout, (), 999).check_compatible(schema)
        for partition in {tuple(one.items()): one for one in partitions}.values():
            record_of(partition, layout, schema)
    except _DAMAGE as error:
        raise ValueError("iceberg is not valid") from error


def record_of(partition: Mapping[str, str | None], layout: Layout, schema: Schema) -> Record:
    """Return the values of a file's partition as Iceberg keeps them.

    Args:
        partition: The values as folders spell them, by the field's name.
        layout: The table's.
        schema: Its columns.
    """
    values = []
    for field in layout.partitions:
        text = partition[field["name"]]
        kind = schema.find_field(field["source-id"]).field_type
        values.append(None if text is None else _value(text, field["transform"], kind))
    return Record(*values)


_DAMAGE = (
    ValidationError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip


def _value(text: str, transform: str, kind: IcebergType) -> Any:
    if transform != "identity":
        if transform == "hour":
            text = f"{text[:10]}T{text[11:]}"
        return _since_epoch(text, _UNITS[transform])
    if isinstance(kind, DateType):
        return _since_epoch(text, "D")
    if isinstance(kind, TimestampType | TimestamptzType):
        return _since_epoch(text.replace(" ", "T"), "us")
    if isinstance(kind, IntegerType | LongType):
        return int(text)
    if isinstance(kind, BooleanType):
        return text == "true"
    if isinstance(kind, DecimalType):
        return Decimal(text)
    return text


def _since_epoch(text: str, unit: str) -> int:
    return int(np.array(text, f"datetime64[{unit}]").astype(np.int64))


def partition_of(record: Record, layout: Layout, schema: Schema) -> dict[str, str | None]:
    """Return the partition of a file of another tool, as `record_of` reads it."""
    return {
        field["name"]: None
        if record[position] is None
        else _text(
            record[position], field["transform"], schema.find_field(field["source-id"]).field_type
        )
        for position, field in enumerate(layout.partitions)
    }


def _text(value: Any, transform: str, kind: IcebergType) -> str:
    if transform != "identity":
        return _since(value, _UNITS[transform]).replace("T", "-")
    if isinstance(kind, DateType):
        return _since(value, "D")
    if isinstance(kind, TimestampType | TimestamptzType):
        return _since(value, "us").replace("T", " ")
    if isinstance(kind, BooleanType):
        return "true" if value else "false"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _since(value: int, unit: str) -> str:
    return str(np.array(value, np.int64).astype(f"datetime64[{unit}]"))
