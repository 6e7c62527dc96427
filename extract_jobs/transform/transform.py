"""Turns the source's batches into batches as the files hold them.

Columns are chosen, renamed, cast and masked, two audit columns are added, and every row gets the
value of each of its Hive partitions. All of it uses Arrow compute, never row by row.

Masks: ``hash`` replaces each value with a keyed hash, see `masks`; ``redact`` replaces each text
with `REDACTED` (NULL stays NULL) and each value of another type with NULL, since any fixed value
could be taken for a real one; ``null`` makes all values NULL.

If older files stay, or the policy keeps columns as they were, a layout lists the files' columns,
their order and their types: see `extract_jobs.planning.schema_comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache, partial

import pyarrow as pa
import pyarrow.compute as pc

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.schema import Column
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import Mask
from extract_jobs.transform.casts import cast, keep
from extract_jobs.transform.columns import (
    audit_fields,
    cast_type,
    choose_columns,
    columns_in_path,
    file_type,
    inner_masks,
    partition_fields,
    problems,
    refuse,
)
from extract_jobs.transform.masks import MaskKey
from extract_jobs.transform.nested import Path, changed_at
from extract_jobs.transform.partitions import PartitionField, parse_partitions, partition_values

__all__ = ["PartitionField", "Transform", "choose_columns", "parse_partitions"]

REDACTED = "***"
"""What the mask ``redact`` replaces a text with."""

SOURCE_TYPE_KEY = b"extract.source_type"
"""Key of each field's metadata that holds the column's type as the source prints it."""


@dataclass(frozen=True)
class _Output:
    """How one column of the source becomes one of the files.

    ``cast_type`` is what the spec requests, ``file_type`` what the files have in the end: text for
    a hash, or the type of older files. ``inner`` are the masks of fields inside of it.
    """

    position: int
    column: str
    source_type: pa.DataType
    cast_type: pa.DataType
    file_type: pa.DataType
    mask: Mask | None
    key: MaskKey | None
    inner: tuple[tuple[Path, Mask], ...] = ()

    def apply(self, array: pa.Array) -> pa.Array:
        if self.mask is not None and self.mask != "hash":
            return self._hidden(array, self.mask, self.file_type)
        for path, mask in self.inner:
            change = partial(self._field, mask=mask)
            array = changed_at(array, path, change)
        found = cast(array, self.cast_type, self.column)
        if self.mask == "hash":
            return self._hidden(found, "hash", self.file_type)
        return keep(found, self.file_type, self.column)

    def _field(self, array: pa.Array, mask: Mask) -> pa.Array:
        return self._hidden(array, mask, array.type)

    def _hidden(self, array: pa.Array, mask: Mask, data_type: pa.DataType) -> pa.Array:
        if mask == "hash":
            assert self.key is not None
            return self.key.hashed(array)
        if mask == "redact" and pa.types.is_string(data_type):
            return pc.if_else(array.is_valid(), REDACTED, pa.scalar(None, pa.string()))
        return pa.nulls(len(array), data_type)


@dataclass(frozen=True)
class Transform:
    """Converts source batches to file batches; frozen and picklable.

    Attributes:
        schema: Schema of the files. Every field is nullable: a lossy type, a mask or a column that
            is dropped later put NULL where the source has none.
        partitions: Fields of the target's folders, in path order, under their final names.
        run_id: Value of ``_run_id``, and of the partition ``run_id``.
        extracted_at: Value of ``_extracted_at``, UTC.
        extract_date: Value of the partition ``extract_date``.
        lossy: Columns in which a partition value without a folder becomes NULL.
        is_iceberg: Whether the partitions are an Iceberg table's.
    """

    schema: pa.Schema
    partitions: tuple[PartitionField, ...]
    run_id: str
    extracted_at: datetime
    extract_date: date
    lossy: frozenset[str]
    is_iceberg: bool
    _names: tuple[str, ...]
    _outputs: tuple[_Output | None, ...]
    _keys: tuple[_Output | None, ...]

    @classmethod
    def build(
        cls,
        columns: Sequence[Column],
        spec: ExtractSpec,
        *,
        run_id: str,
        extracted_at: datetime,
        extract_date: date,
        layout: pa.Schema | None = None,
        mask_key: MaskKey | None = None,
    ) -> Transform:
        """Decide everything that does not depend on rows.

        Args:
            columns: Columns of the batches, in order, from `choose_columns`.
            spec: Renames, casts, masks and partitions.
            run_id: The run.
            extracted_at: When the attempt started to extract; with a zone.
            extract_date: The run's date, UTC.
            layout: Columns of the files without the audit columns; those missing in ``columns`` are
                NULL. None uses ``columns`` unchanged.
            mask_key: Key of the mask ``hash``; without it only the schema can be built.

        Raises:
            ConfigError: Names collide, or a cast or partition is not possible. The message names
                all problems.
        """
        refuse(spec, list(problems(columns, spec, [c.name for c in columns])))
        rename = spec.columns.rename
        kept = {f.name: f for f in layout or ()}
        outputs = {
            c.name: _output(i, c, spec, kept.get(rename.get(c.name, c.name)), mask_key)
            for i, c in enumerate(columns)
        }
        partitions = tuple(partition_fields(spec))
        folders = columns_in_path(spec)
        found = {rename.get(c.name, c.name): c for c in columns if c.name not in folders}
        names = list(found if layout is None else kept)
        fields = [
            pa.field(
                name,
                outputs[found[name].name].file_type,
                metadata={SOURCE_TYPE_KEY: found[name].source_type.encode()},
            )
            if name in found
            else kept[name]
            for name in names
        ]
        return cls(
            schema=pa.schema([*fields, *audit_fields(spec)]),
            partitions=partitions,
            run_id=run_id,
            extracted_at=extracted_at,
            extract_date=extract_date,
            lossy=spec.made_null(c.name for c in columns),
            is_iceberg=spec.target.is_iceberg,
            _names=tuple(c.name for c in columns),
            _outputs=tuple(outputs[found[n].name] if n in found else None for n in names),
            _keys=tuple(outputs[f.column] if f.column else None for f in partitions),
        )

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch in `schema`, row for row.

        Raises:
            TypeNotRepresentable: A value cannot be cast, or the batch has other columns than this
                was built for. The message never holds a value.
        """
        self._check(batch)
        columns = [
            pa.nulls(batch.num_rows, field.type)
            if output is None
            else output.apply(batch.column(output.position))
            for field, output in zip(self.schema, self._outputs, strict=False)
        ]
        added: tuple[str | date, ...] = (self.run_id, self.extracted_at, self.extract_date)
        for field, value in zip(list(self.schema)[len(columns) :], added, strict=False):
            columns.append(_constant(value, field.type, batch.num_rows))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def partition_keys(self, batch: pa.RecordBatch) -> list[pa.DictionaryArray]:
        """Return each row's value of every partition field.

        Args:
            batch: As the source gave it; the same rows as in `apply`.

        Returns:
            One array per field, dictionary-encoded strings, not escaped; NULL is the NULL
            partition (in the indices or in the dictionary).

        Raises:
            TypeNotRepresentable: A value cannot be cast, or has no folder of its own.
        """
        self._check(batch)
        return [
            pa.DictionaryArray.from_arrays(
                pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows), [self._fixed(partition)]
            )
            if key is None
            else partition_values(
                key.apply(batch.column(key.position)),
                partition,
                empty_is_null=key.column in self.lossy,
                is_iceberg=self.is_iceberg,
            )
            for partition, key in zip(self.partitions, self._keys, strict=True)
        ]

    def stored(self, batch: pa.RecordBatch, columns: Sequence[str]) -> list[pa.Array]:
        """Return values of some source columns as files hold them, or their folder's text.

        Args:
            batch: As the source gave it; it may lack other columns.
            columns: Names in the source.

        Raises:
            TypeNotRepresentable: As in `apply` and `partition_keys`.
        """
        outputs = {output.column: output for output in self._outputs if output}
        folders = {
            key.column: (key, field)
            for key, field in zip(self._keys, self.partitions, strict=True)
            if key is not None and field.function is None
        }
        found = []
        for name in columns:
            if name in outputs:
                found.append(outputs[name].apply(batch.column(name)))
            else:
                key, field = folders[name]
                values = key.apply(batch.column(name))
                texts = partition_values(values, field, empty_is_null=key.column in self.lossy)
                found.append(texts.cast(pa.string()))
        return found

    def fixed_partition(self) -> dict[str, str | None] | None:
        """Return the one partition of all rows; None if it depends on the row."""
        if any(f.column for f in self.partitions):
            return None
        return {f.name: self._fixed(f) for f in self.partitions}

    def text_partitions(self) -> list[str]:
        """Return the names of partitions that hold a column's text unchanged."""
        return [
            field.name
            for key, field in zip(self._keys, self.partitions, strict=True)
            if key is not None and not field.function and pa.types.is_string(key.file_type)
        ]

    def _fixed(self, partition: PartitionField) -> str:
        return self.run_id if partition.name == "run_id" else self.extract_date.isoformat()

    def _check(self, batch: pa.RecordBatch) -> None:
        if tuple(batch.schema.names) != self._names:
            raise TypeNotRepresentable(
                f"expected columns {list(self._names)}, the source gave {batch.schema.names}; "
                "the table changed while it was read: run the extract again"
            )
        for output in filter(None, (*self._outputs, *self._keys)):
            found = batch.schema.field(output.position).type
            if found != output.source_type:
                raise TypeNotRepresentable(
                    f"column {output.column!r}: expected {output.source_type}, the source gave "
                    f"{found}; the table changed while it was read: run the extract again"
                )


def _constant(value: str | date, data_type: pa.DataType, length: int) -> pa.Array:
    """Return a slice of a cached array: its length is rounded up to a power of two."""
    return _repeated(value, data_type, 1 << max(10, (length - 1).bit_length())).slice(0, length)


@lru_cache(maxsize=8)
def _repeated(value: str | date, data_type: pa.DataType, length: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, data_type), length)


def _output(
    position: int,
    column: Column,
    spec: ExtractSpec,
    kept: pa.Field | None,
    mask_key: MaskKey | None,
) -> _Output:
    mask = spec.columns.mask.get(column.name)
    inner = tuple(inner_masks(column, spec).items())
    return _Output(
        position,
        column.name,
        column.arrow_type,
        cast_type(column, spec),
        file_type(column, spec) if kept is None else kept.type,
        mask,
        mask_key if "hash" in (mask, *(of_field for _, of_field in inner)) else None,
        inner,
    )
