"""Snapshots that add and replace files, with manifests that all readers can read."""

from __future__ import annotations

import re
from collections.abc import Callable

from pyiceberg.manifest import ManifestFile, ManifestWriter, write_manifest
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.update.snapshot import _MergeAppendFiles, _OverwriteFiles, _SnapshotProducer

_AVRO_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


class _Manifests(_SnapshotProducer):  # type: ignore[type-arg]
    """Writes manifests in which a partition's name is one that Avro allows.

    pyiceberg writes any name, at which readers that check Avro's names fail: DuckDB ends the
    process. Names in manifests mean nothing; readers go by ids.
    """

    def new_manifest_writer(self, spec: PartitionSpec) -> ManifestWriter:
        """Return a writer for entries of files with a partition spec."""
        metadata = self._transaction.table_metadata
        return write_manifest(
            format_version=metadata.format_version,
            spec=PartitionSpec(
                *(
                    field
                    if _AVRO_NAME.fullmatch(field.name)
                    else field.model_copy(update={"name": f"field_{field.field_id}"})
                    for field in spec.fields
                ),
                spec_id=spec.spec_id,
            ),
            schema=_schema_of(spec, metadata.schema(), metadata.schemas),
            output_file=self.new_manifest_output(),
            snapshot_id=self._snapshot_id,
            avro_compression=self._compression,
        )


class Append(_Manifests, _MergeAppendFiles):
    """Adds files."""


class Replacement(_Manifests, _OverwriteFiles):
    """Adds files, and removes others by their locations.

    pyiceberg's own looks for the others by the values of their partitions, which it reads by the
    types that the columns have now. It fails if a column left the table or changed its type.
    """

    def _build_delete_files_partition_predicate(self) -> None:
        pass

    def _build_manifest_evaluator(self, spec_id: int) -> Callable[[ManifestFile], bool]:  # noqa: ARG002
        return lambda _: True


def _schema_of(spec: PartitionSpec, schema: Schema, schemas: list[Schema]) -> Schema:
    """Return a table's schema, or the newest that has all columns of a partition spec."""
    wanted = {field.source_id for field in spec.fields}
    newest = sorted(schemas, key=lambda one: one.schema_id, reverse=True)
    return next((one for one in (schema, *newest) if wanted <= one.field_ids), schema)
