"""Columns of an Iceberg table: their types and ids.

Readers find a column in a file by its id, so ids are assigned before the files are written. A
column that stays keeps its id; a new one gets the next id that the table has not used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa
from pyiceberg.io.pyarrow import UnsupportedPyArrowTypeException, _pyarrow_to_schema_without_ids
from pyiceberg.schema import Schema
from pyiceberg.types import (
    DecimalType,
    IcebergType,
    ListType,
    MapType,
    NestedField,
    StructType,
)

from extract_jobs.errors import ConfigError
from extract_jobs.iceberg.change import FIELD_ID


def schema_with_ids(
    columns: pa.Schema,
    table: Schema | None,
    last_id: int,
    *,
    replaces: bool,
    known_columns: Collection[str],
    partitioned_by: Collection[int],
) -> Schema:
    """Return the schema of a table once files with some columns are committed.

    Args:
        columns: Of the files.
        table: The table's schema now; None without a table.
        last_id: The greatest id that the table has ever used.
        replaces: Whether the files replace all others: then a column may have any type, under a new
            id, and those that the files lack leave the table.
        known_columns: Columns that leave it then; others are another tool's, and stay.
        partitioned_by: Ids of columns that the table is or was partitioned by. They stay, because
            readers that do not find them fail.

    Returns:
        The columns, then columns of the table that the files lack.

    Raises:
        ConfigError: Iceberg has no type for a column, or does not change its type to this one; or
            a column that the files lack may not be NULL.
    """
    merge = _Merge(last_id, keeps_wider=not replaces)
    known = {field.name: field for field in table.fields} if table else {}
    wanted = [_iceberg_field(field) for field in columns]
    kept = {
        field.name: found
        for field in wanted
        if field.name in known
        and (found := merge.merged(field.field_type, known[field.name].field_type)) is not None
    }
    for field in wanted:
        if field.name in known and field.name not in kept:
            _check_type_change(known[field.name], field, partitioned_by, replaces=replaces)
    # As in Iceberg's Java library: first the ids of all columns, then those inside of them.
    numbers = {f.name: known[f.name].field_id if f.name in kept else merge.next() for f in wanted}
    fields = [
        NestedField(
            field_id=numbers[field.name],
            name=field.name,
            field_type=kept.get(field.name) or merge.assigned(field.field_type),
            required=False,
            doc=known[field.name].doc if field.name in kept else None,
        )
        for field in wanted
    ]
    names = {field.name for field in wanted}
    gone = {*names, *known_columns} if replaces else names
    rest = [
        field
        for field in known.values()
        if field.name not in gone or (field.name not in names and field.field_id in partitioned_by)
    ]
    for field in rest:
        if field.required and field.initial_default is None:
            raise ConfigError(
                f"column {field.name!r} of the Iceberg table is required, and the source has no "
                "such column: another tool added it. Make it optional"
            )
    return Schema(*fields, *rest)


def _check_type_change(
    old: NestedField, new: NestedField, partitioned_by: Collection[int], *, replaces: bool
) -> None:
    """Refuse a type that a column cannot change to.

    Raises:
        ConfigError: Older files stay, or the column is one of those that cannot leave the table.
    """
    change = f"column {new.name!r} is {old.field_type} in the Iceberg table and would become "
    change += str(new.field_type)
    if not replaces:
        raise ConfigError(
            f"{change}, which older files cannot be read as: cast it in columns.cast, or replace "
            "all files with a run in mode full and write_mode overwrite"
        )
    if old.field_id in partitioned_by:
        raise ConfigError(
            f"{change}, and the table is or was partitioned by it, so the old column cannot leave "
            "it: cast it in columns.cast, or start over with another state_uri and target"
        )


def with_field_ids(columns: pa.Schema, schema: Schema) -> pa.Schema:
    """Return the files' columns with the ids of the table's."""
    return pa.schema([_arrow_field(field, schema.find_field(field.name)) for field in columns])


def same_columns(one: Schema, other: Schema) -> bool:
    """Return whether two schemas have the same columns: ids, names and types, in order."""
    shapes = (
        [(f.field_id, f.name, f.field_type, f.required) for f in schema.fields]
        for schema in (one, other)
    )
    return next(shapes) == next(shapes)


def is_readable(file: Schema, table: Schema) -> bool:
    """Return whether a table can have files with some columns as it is."""
    return _reads(table.as_struct(), file.as_struct())


def altered_columns(last: Schema, table: Schema, known: Collection[str]) -> list[str]:
    """Return the columns that a table has no more, or not as its last commit left them.

    A column of the same name with another id counts: it is empty in older files.

    Args:
        last: The table's schema after its last commit.
        table: Its schema now.
        known: The columns to look at.
    """
    now = table.as_struct()
    return sorted(
        field.name
        for field in last.fields
        if field.name in known and not _reads(now, StructType(field))
    )


def _iceberg_field(field: pa.Field) -> NestedField:
    for inner in _leaves(field.type):
        if pa.types.is_unsigned_integer(inner):
            raise ConfigError(
                f"column {field.name!r} is {field.type}, and Iceberg has no unsigned integers "
                "inside of lists, maps and structs: cast the column to json in columns.cast"
            )
    try:
        [found] = _pyarrow_to_schema_without_ids(pa.schema([field])).fields
    except (UnsupportedPyArrowTypeException, TypeError, ValueError) as error:
        raise ConfigError(
            f"column {field.name!r} is {field.type}, which Iceberg has no type for: cast it in "
            "columns.cast, or leave it out with columns.exclude"
        ) from error
    return found


def _leaves(data_type: pa.DataType) -> Iterator[pa.DataType]:
    if pa.types.is_nested(data_type):
        for inner in data_type if pa.types.is_struct(data_type) else _parts(data_type):
            yield from _leaves(inner.type)
    else:
        yield data_type


def _parts(data_type: pa.DataType) -> list[pa.Field]:
    if pa.types.is_map(data_type):
        return [data_type.key_field, data_type.item_field]
    return [data_type.value_field]


def _reads(table: IcebergType, file: IcebergType) -> bool:
    """Return whether a table's type can be read from files of another type."""
    if isinstance(table, StructType) and isinstance(file, StructType):
        current = {field.field_id: field for field in table.fields}
        return all(
            field.field_id in current
            and current[field.field_id].name == field.name
            and _reads(current[field.field_id].field_type, field.field_type)
            for field in file.fields
        )
    if isinstance(table, ListType) and isinstance(file, ListType):
        return table.element_id == file.element_id and _reads(table.element_type, file.element_type)
    if isinstance(table, MapType) and isinstance(file, MapType):
        return (
            (table.key_id, table.value_id) == (file.key_id, file.value_id)
            and _reads(table.key_type, file.key_type)
            and _reads(table.value_type, file.value_type)
        )
    return _promotes(file, table)


def _promotes(older: IcebergType, newer: IcebergType) -> bool:
    if isinstance(older, DecimalType) and isinstance(newer, DecimalType):
        return older.scale == newer.scale and older.precision <= newer.precision
    return older == newer or (str(older), str(newer)) in {("int", "long"), ("float", "double")}


class _Merge:
    """Merges the types of columns with those that a table has, and assigns the next ids."""

    def __init__(self, last: int, *, keeps_wider: bool) -> None:
        self.last = last
        self._keeps_wider = keeps_wider

    def merged(self, wanted: IcebergType, table: IcebergType) -> IcebergType | None:
        """Return a column's new type, with the ids of its fields; None if there is none."""
        if isinstance(wanted, StructType) and isinstance(table, StructType):
            new = {field.name: field for field in wanted.fields}
            fields = []
            for field in table.fields:
                of_new = new.pop(field.name, None)
                kept = of_new and self.merged(of_new.field_type, field.field_type)
                if of_new and kept is None:
                    return None
                fields.append(field.model_copy(update={"field_type": kept or field.field_type}))
            added = self.assigned(StructType(*new.values()))
            assert isinstance(added, StructType)
            return StructType(*fields, *added.fields)
        if isinstance(wanted, ListType) and isinstance(table, ListType):
            element = self.merged(wanted.element_type, table.element_type)
            return element and ListType(table.element_id, element, element_required=False)
        if isinstance(wanted, MapType) and isinstance(table, MapType):
            key = self.merged(wanted.key_type, table.key_type)
            value = self.merged(wanted.value_type, table.value_type)
            if key != table.key_type or value is None:
                return None
            return MapType(table.key_id, key, table.value_id, value, value_required=False)
        if self._keeps_wider and _promotes(wanted, table):
            return table  # another tool has widened it
        return wanted if _promotes(table, wanted) else None

    def next(self) -> int:
        self.last += 1
        return self.last

    def assigned(self, found: IcebergType) -> IcebergType:
        """Return a type with new ids: of one level, then of the levels below it."""
        if isinstance(found, StructType):
            numbers = [self.next() for _ in found.fields]
            return StructType(
                *(
                    NestedField(n, f.name, self.assigned(f.field_type), required=False)
                    for n, f in zip(numbers, found.fields, strict=True)
                )
            )
        if isinstance(found, ListType):
            number = self.next()
            return ListType(number, self.assigned(found.element_type), element_required=False)
        if isinstance(found, MapType):
            key, value = self.next(), self.next()
            return MapType(
                key,
                self.assigned(found.key_type),
                value,
                self.assigned(found.value_type),
                value_required=False,
            )
        return found


def _arrow_field(field: pa.Field, column: NestedField) -> pa.Field:
    data_type = _arrow_type(field.type, column.field_type)
    metadata = {**(field.metadata or {}), FIELD_ID: str(column.field_id).encode()}
    return pa.field(field.name, data_type, field.nullable, metadata)


def _arrow_type(data_type: pa.DataType, column: IcebergType) -> pa.DataType:
    if isinstance(column, StructType):
        fields = {inner.name: inner for inner in column.fields}
        return pa.struct([_arrow_field(field, fields[field.name]) for field in data_type])
    if isinstance(column, ListType):
        item = _arrow_field(data_type.value_field, column.element_field)
        return pa.large_list(item) if pa.types.is_large_list(data_type) else pa.list_(item)
    if isinstance(column, MapType):
        key = _arrow_field(data_type.key_field, column.key_field)
        return pa.map_(key, _arrow_field(data_type.item_field, column.value_field))
    return data_type
