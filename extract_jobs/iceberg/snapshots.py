"""Snapshots that add and replace files, with few manifests, which all readers can read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestFile,
    ManifestWriter,
    write_manifest,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import TableProperties
from pyiceberg.table.snapshots import Summary, UpdateMetrics, update_snapshot_summaries
from pyiceberg.table.update.snapshot import (
    _FastAppendFiles,
    _ManifestMergeManager,
    _OverwriteFiles,
    _SnapshotProducer,
)
from pyiceberg.typedef import EMPTY_DICT, Record
from pyiceberg.utils.properties import property_as_bool, property_as_int

_AVRO_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def has_live_files(manifest: ManifestFile) -> bool:
    """Return whether a manifest adds or keeps any file."""
    return manifest.has_added_files() or manifest.has_existing_files()


class _Manifests(_SnapshotProducer):  # type: ignore[type-arg]
    """Writes manifests in which a partition's name is one that Avro allows.

    pyiceberg writes any name, at which readers that check Avro's names fail: DuckDB ends the
    process. Names in manifests mean nothing; readers go by ids.

    Manifests without a live file leave the table, and small ones are merged, by the properties and
    defaults of Iceberg's Java library. Otherwise every commit would add one that all later commits
    and readers have to read.
    """

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        properties = self._transaction.table_metadata.properties

        def number(name: str, default: int) -> int:
            return property_as_int(properties, name, default) or default

        names = TableProperties
        merging: _ManifestMergeManager[_Manifests] = _ManifestMergeManager(
            target_size_bytes=number(
                names.MANIFEST_TARGET_SIZE_BYTES, names.MANIFEST_TARGET_SIZE_BYTES_DEFAULT
            ),
            min_count_to_merge=number(
                names.MANIFEST_MIN_MERGE_COUNT, names.MANIFEST_MIN_MERGE_COUNT_DEFAULT
            ),
            merge_enabled=property_as_bool(properties, names.MANIFEST_MERGE_ENABLED, True),
            snapshot_producer=self,
        )
        of: dict[ManifestContent, list[ManifestFile]] = {one: [] for one in ManifestContent}
        for one in manifests:
            if one.added_snapshot_id == self._snapshot_id or has_live_files(one):
                of[one.content].append(one)
        return merging.merge_manifests(of[ManifestContent.DATA]) + of[ManifestContent.DELETES]

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        """Return the snapshot's summary; pyiceberg's own spells each file's partition for it."""
        metadata = self._transaction.table_metadata
        if property_as_int(metadata.properties, TableProperties.WRITE_PARTITION_SUMMARY_LIMIT):
            return super()._summary(snapshot_properties)
        changes = UpdateMetrics()
        for file in self._added_data_files:
            changes.add_file(file)
        for file in self._deleted_data_files:
            changes.remove_file(file)
        changed = {file.partition for file in (*self._added_data_files, *self._deleted_data_files)}
        changed.discard(Record())
        counts = changes.to_dict()
        if changed:
            counts["changed-partition-count"] = str(len(changed))
        parent = self._parent_snapshot_id
        before = None if parent is None else metadata.snapshot_by_id(parent)
        return update_snapshot_summaries(
            summary=Summary(operation=self._operation, **counts, **snapshot_properties),
            previous_summary=before.summary if before else None,
        )

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


class Append(_Manifests, _FastAppendFiles):
    """Adds files."""


class Replacement(_Manifests, _OverwriteFiles):
    """Adds files, and removes others by their locations.

    pyiceberg's own looks for the others by the values of their partitions, which it reads by the
    types that the columns have now. It fails if a column left the table or changed its type.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._changed: set[str] = set()

    def remove(self, file: DataFile, manifest: ManifestFile) -> None:
        """Remove a file that a manifest of the table adds or keeps."""
        self.delete_data_file(file)
        self._changed.add(manifest.manifest_path)

    def _build_delete_files_partition_predicate(self) -> None:
        pass

    def _build_manifest_evaluator(self, spec_id: int) -> Callable[[ManifestFile], bool]:  # noqa: ARG002
        return lambda manifest: manifest.manifest_path in self._changed


def _schema_of(spec: PartitionSpec, schema: Schema, schemas: list[Schema]) -> Schema:
    """Return a table's schema, or the newest that has all columns of a partition spec."""
    wanted = {field.source_id for field in spec.fields}
    newest = sorted(schemas, key=lambda one: one.schema_id, reverse=True)
    return next((one for one in (schema, *newest) if wanted <= one.field_ids), schema)
