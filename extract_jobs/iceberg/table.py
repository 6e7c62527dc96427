"""One Iceberg table: what a run plans against, and the snapshot that publishes a commit.

A snapshot is made by a conditional write of the catalog, on top of the snapshot that was read. The
same write sets the table's property `SEQ` to the commit's position in the log. Whoever loses the
write reads the table again: if `SEQ` has reached the commit, another process has published it.
Otherwise somebody else wrote to the table, and the snapshot is made on top of theirs.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.iceberg.catalogs import catalog_errors, open_catalog
from extract_jobs.iceberg.change import METADATA_FOLDER, Layout, TableCommit
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import CatalogSpec
from extract_jobs.spec.uris import normal_uri
from extract_jobs.storage import OpenStorage, StagedFile, WrittenFile, join, open_storage

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.catalog import Catalog
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table, Transaction

    from extract_jobs.transform.partitions import PartitionField

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class References:
    """Locations of the files that a table names.

    Attributes:
        current: Data files of the current snapshot.
        files: Data and delete files of any snapshot.
        metadata: Metadata, manifests and their lists, and statistics.
    """

    current: frozenset[str]
    files: frozenset[str]
    metadata: frozenset[str]


SEQ = "extract-jobs.commit-seq"
"""Property of a table: the last commit of the log that it has."""
STATE = "extract-jobs.state"
"""Property of a table: the state folder of the log that it belongs to."""
COMMIT_ID = "extract-jobs.commit-id"
"""Property of a snapshot's summary: the commit that it publishes."""

_TRIES = 20
_LONGEST_SLEEP = 5.0
_LOADS_CODE = ("py-io-impl", "write.py-location-provider.impl")


@dataclass(frozen=True)
class IcebergTable:
    """The table of one spec.

    Attributes:
        catalog: Names it.
        target_uri: Its location.
        state_uri: State folder of the log that it belongs to.
        file_bytes: Size of its files, for others that write to it.
        open_storage: Where its files and metadata are.
    """

    catalog: CatalogSpec
    target_uri: str
    state_uri: str
    file_bytes: int
    open_storage: OpenStorage = open_storage

    @classmethod
    def of(cls, spec: ExtractSpec, open_storage: OpenStorage = open_storage) -> IcebergTable | None:
        """Return the table of a spec; None if its target is a folder of Parquet files."""
        target = spec.target
        if not target.is_iceberg or target.catalog is None:
            return None
        return cls(target.catalog, target.uri, spec.state_uri, target.file_bytes, open_storage)

    @property
    def name(self) -> str:
        """``database.table``."""
        return f"{self.catalog.database}.{self.catalog.table}"

    def plan(
        self,
        columns: pa.Schema,
        partitions: Collection[PartitionField],
        *,
        source_names: dict[str, str],
        parent: int,
        overwrite: bool,
        known: Collection[str],
        is_in_log: Callable[[int], bool],
    ) -> Layout:
        """Check that a run can write to the table, and assign ids to its columns. Read-only.

        Args:
            columns: Of the files.
            partitions: Fields of the target's partitions.
            source_names: For each source column, its name in the files.
            parent: The last published commit; 0 for none.
            overwrite: Whether the run replaces every row.
            known: Columns of the last commit's files.
            is_in_log: Returns whether the log has a commit with that position.

        Raises:
            ConfigError: The table is not this log's, is gone, has commits that the log has lost, or
                was altered in a way that the run does not fit; or Iceberg has no type for a column.
            WriteFailed: The catalog cannot be read.
        """
        catalog = self._open(create=False)
        table = None if catalog is None else self._load(catalog)
        self._check(table, parent=parent, overwrite=overwrite)
        seq = 0 if table is None else _last_seq(table)
        if seq > parent and not is_in_log(seq):
            # A new commit would get the position of one that the table has, and pass for it.
            raise ConfigError(
                f"Iceberg table {self.name} has commit {seq}, which {self.state_uri} has not: "
                "records of the state folder were deleted, or restored from an earlier time. "
                "Restore the newest ones, or start over with another state_uri and target"
            )
        from extract_jobs.iceberg.schema import schema_with_ids

        metadata = table.metadata if table else None
        current = metadata.schema() if metadata else None
        schema = schema_with_ids(
            columns,
            current,
            metadata.last_column_id if metadata else 0,
            replaces=overwrite,
            known_columns=known,
        )
        layout = Layout(
            schema.model_dump(mode="json", by_alias=True),
            (metadata.current_schema_id, metadata.last_column_id) if metadata else None,
            tuple(_partition(field, schema, source_names) for field in partitions),
        )
        if table is not None and not overwrite:
            self._check_altered(table, layout, known)
        return layout

    def publish(self, commit: TableCommit) -> bool:
        """Make a commit's snapshot, unless the table has it already.

        Any number of processes may do so at once, while others write to the table.

        Returns:
            Whether the table has the commit. False if another tool altered the table's columns or
            partitions since the commit was planned, so that its files do not fit.

        Raises:
            ConfigError: The table is gone or belongs to another log.
            WriteFailed: The catalog or storage failed; whether the snapshot was made is unknown.
        """
        catalog = self._open(create=True)
        assert catalog is not None
        for number in range(_TRIES):
            if number:
                # No secret depends on the waiting time.
                time.sleep(random.uniform(0.5, 1) * min(_LONGEST_SLEEP, 0.05 * 2**number))  # noqa: S311
            table = self._load(catalog)
            self._check(table, parent=commit.parent, overwrite=commit.overwrite)
            if table is not None and _has(table, commit.seq, commit.commit_id):
                return True
            if table is not None and not _fits(table, commit):
                return False
            if self._commit(catalog, table, commit):
                return True
            logger.info("%s: another writer was faster; publishing on top of it", self.name)
        raise WriteFailed(
            f"Iceberg table {self.name}: other writers were faster {_TRIES} times in a row, so "
            f"commit {commit.seq} is not published yet; run again"
        )

    def has(self, seq: int, commit_id: str) -> bool:
        """Return whether a snapshot of the table published a commit. Read-only."""
        catalog = self._open(create=False)
        table = None if catalog is None else self._load(catalog)
        return table is not None and _has(table, seq, commit_id)

    def current(
        self, wanted: Sequence[WrittenFile], committed: Sequence[WrittenFile]
    ) -> list[WrittenFile]:
        """Return the files that hold the rows of some committed files now. Read-only.

        Args:
            wanted: Some of the committed files.
            committed: All files that are live by the log.

        Returns:
            Those wanted that the current snapshot has, and every file of it that the log does not
            know: another tool may have put any rows there, as compaction does.
        """
        from extract_jobs.iceberg.data_files import location

        catalog = self._open(create=False)
        table = None if catalog is None else self._load(catalog)
        if table is None:
            return list(wanted)
        with catalog_errors(self.catalog, "reading"):
            current = {f.file_path: f for f in _live(table)}
        known = {location(file.staged.uri) for file in committed}
        foreign = [
            WrittenFile(StagedFile(uri, "", file.file_size_in_bytes, {}), file.record_count, {})
            for uri, file in current.items()
            if uri not in known
        ]
        return [f for f in wanted if location(f.staged.uri) in current] + foreign

    def referenced(self, *, parent: int) -> References:
        """Return the files that the table names. Read-only.

        Args:
            parent: The last published commit; 0 for none.

        Raises:
            ConfigError: The table is not this log's, or is gone.
        """
        catalog = self._open(create=False)
        table = None if catalog is None else self._load(catalog)
        self._check(table, parent=parent, overwrite=False)
        if table is None:
            return References(frozenset(), frozenset(), frozenset())
        with catalog_errors(self.catalog, "reading"):
            return _references(table)

    def sweep(self, before: datetime) -> list[str]:
        """Delete metadata that no snapshot names: a killed publisher, or a slower one, left it.

        Nothing is deleted unless the catalog has the table, and it is this log's: what a table
        names is known from the catalog alone.

        Args:
            before: Younger files are left: their snapshot may be about to be made.

        Returns:
            What was deleted.
        """
        storage = self.open_storage(self.target_uri)
        folder = join(self.target_uri, METADATA_FOLDER, "")
        old = [
            one.uri
            for one in storage.list(folder)
            if one.modified_at
            and one.modified_at <= before
            and one.uri.endswith((".avro", ".metadata.json"))
        ]
        if not old:
            return []
        catalog = self._open(create=False)
        table = None if catalog is None else self._load(catalog)
        if table is None:
            return []
        self._check(table, parent=0, overwrite=False)
        with catalog_errors(self.catalog, "reading"):
            found = _references(table)
        # By name, which holds a random UUID: other tools spell locations in their own way.
        named = {_file_name(path) for path in found.metadata | found.files}
        gone = [uri for uri in old if _file_name(uri) not in named]
        for uri in gone:
            storage.delete(uri)
        return gone

    def _open(self, *, create: bool) -> Catalog | None:
        catalog = open_catalog(self.catalog, self.open_storage, create=create)
        if catalog is not None and create:
            with catalog_errors(self.catalog, "opening"):
                if not catalog.namespace_exists(self.catalog.database):
                    catalog.create_namespace_if_not_exists(self.catalog.database)
        return catalog

    def _load(self, catalog: Catalog) -> Table | None:
        """Return the table as it is now, or None.

        Raises:
            ConfigError: What has its name is not an Iceberg table, or would load foreign code.
        """
        from pyiceberg.exceptions import (
            NoSuchIcebergTableError,
            NoSuchNamespaceError,
            NoSuchPropertyException,
            NoSuchTableError,
        )

        try:
            with catalog_errors(self.catalog, "reading"):
                table = catalog.load_table((self.catalog.database, self.catalog.table))
        except (NoSuchIcebergTableError, NoSuchPropertyException) as error:
            raise ConfigError(
                f"catalog table {self.name} is not an Iceberg table: choose another name in "
                "target.catalog, or drop it in the catalog if nobody needs it"
            ) from error
        except (NoSuchTableError, NoSuchNamespaceError):
            return None
        for name in _LOADS_CODE:
            if name in table.properties:
                raise ConfigError(
                    f"Iceberg table {self.name} has the property {name}, which names code to load: "
                    "remove it"
                )
        return table

    def _check(self, table: Table | None, *, parent: int, overwrite: bool) -> None:
        way_out = "start over with another state_uri and target"
        if table is None:
            if parent and not overwrite:
                raise ConfigError(
                    f"Iceberg table {self.name} is gone from the catalog, and with it the rows of "
                    f"{parent} commits: register it again, or {way_out}"
                )
            return
        state = table.properties.get(STATE)
        if state is None or normal_uri(state) != normal_uri(self.state_uri):
            whose = "was created by someone else" if state is None else f"belongs to {state}"
            raise ConfigError(
                f"Iceberg table {self.name} {whose}, and not to {self.state_uri}: choose another "
                "name in target.catalog, or drop it in the catalog if nobody needs it"
            )
        if normal_uri(table.location()) != normal_uri(self.target_uri):
            raise ConfigError(
                f"Iceberg table {self.name} lies at {table.location()}, and target.uri is "
                f"{self.target_uri}: put one of them back, or {way_out}"
            )

    def _check_altered(self, table: Table, layout: Layout, known: Collection[str]) -> None:
        """Refuse a run that does not fit what another tool has made of the table."""
        fields = table.metadata.spec().fields
        found = [(f.source_id, str(f.transform), f.name) for f in fields]
        if found != [(p["source-id"], p["transform"], p["name"]) for p in layout.partitions]:
            listed = ", ".join(f"{f.transform} {f.name}" for f in fields) or "nothing"
            raise ConfigError(
                f"Iceberg table {self.name} is now partitioned by {listed}, unlike "
                "target.partition_by: put it back, or replace all files with a run in mode full "
                "and write_mode overwrite"
            )
        gone = sorted(set(known) - {field.name for field in table.schema().fields})
        if gone:
            raise ConfigError(
                f"Iceberg table {self.name} has no column {', '.join(gone)} any more: another tool "
                "renamed or dropped it. Undo that, or replace all files with a run in mode full "
                "and write_mode overwrite"
            )

    def _commit(self, catalog: Catalog, table: Table | None, commit: TableCommit) -> bool:
        """Make the snapshot on top of a table as it was read; False if it has changed since."""
        from pyiceberg.exceptions import (
            CommitFailedException,
            NoSuchTableError,
            TableAlreadyExistsError,
        )
        from pyiceberg.table import CreateTableTransaction
        from pyiceberg.table.update import AssertTableUUID

        with catalog_errors(self.catalog, "publishing to"):
            transaction = self._begin(catalog, table, commit)
            transaction.set_properties({SEQ: str(commit.seq)})
            self._add_snapshot(transaction, commit)
            try:
                if isinstance(transaction, CreateTableTransaction):
                    transaction.commit_transaction()
                else:
                    # Not `commit_transaction`: on a conflict it would add the files again without
                    # looking for `SEQ`, and delete manifests of a commit whose answer was lost.
                    uuid = AssertTableUUID(uuid=transaction.table_metadata.table_uuid)
                    requirements = (*transaction._requirements, uuid)  # noqa: SLF001
                    transaction._table._do_commit(transaction._updates, requirements)  # noqa: SLF001
            except (CommitFailedException, TableAlreadyExistsError, NoSuchTableError):
                return False
        return True

    def _begin(self, catalog: Catalog, table: Table | None, commit: TableCommit) -> Transaction:
        """Return a transaction in which the table has the commit's columns and partitions."""
        from pyiceberg.schema import Schema
        from pyiceberg.table import Transaction

        from extract_jobs.iceberg.data_files import location
        from extract_jobs.iceberg.partitions import FIRST_FIELD_ID, spec_of
        from extract_jobs.iceberg.schema import same_columns

        schema = Schema.model_validate(commit.layout.schema)
        if table is None:
            made = catalog.create_table_transaction(
                (self.catalog.database, self.catalog.table),
                schema,
                location=location(self.target_uri),
                partition_spec=spec_of(commit.layout, (), FIRST_FIELD_ID - 1),
                properties=self._properties(),
            )
            if not same_columns(made.table_metadata.schema(), schema):
                raise ConfigError(
                    f"Iceberg table {self.name} was dropped after commit {commit.seq} was planned, "
                    "and a new table would give its columns other ids than the commit's files "
                    "have: register the table again, or start over with another state_uri and "
                    "target"
                )
            return made
        transaction = Transaction(table)
        transaction._stage(*_alterations(table, commit, schema))  # noqa: SLF001
        return transaction

    def _properties(self) -> dict[str, str]:
        return {
            STATE: self.state_uri if "://" in self.state_uri else normal_uri(self.state_uri),
            "format-version": "2",
            "write.target-file-size-bytes": str(self.file_bytes),
            "write.metadata.delete-after-commit.enabled": "true",
            "write.metadata.previous-versions-max": "100",
        }

    def _add_snapshot(self, transaction: Transaction, commit: TableCommit) -> None:
        from extract_jobs.iceberg.data_files import data_files
        from extract_jobs.iceberg.partitions import record_of

        metadata = transaction.table_metadata
        schema = metadata.schema()
        summary = {
            **commit.summary,
            COMMIT_ID: commit.commit_id,
            SEQ: str(commit.seq),
        }
        goes = []
        if commit.overwrite or commit.replaces:
            records = {record_of(p, commit.layout, schema) for p in commit.replaces}
            goes = [
                file
                for file in _live(transaction._table)  # noqa: SLF001
                if commit.overwrite or file.partition in records
            ]
        update = transaction.update_snapshot(snapshot_properties=summary)
        with update.overwrite() if goes else update.merge_append() as snapshot:
            for file in goes:
                snapshot.delete_data_file(file)
            for file in data_files(
                commit.files,
                commit.layout,
                schema,
                spec_id=metadata.default_spec_id,
                properties=metadata.properties,
                open_storage=self.open_storage,
            ):
                snapshot.append_data_file(file)


def _file_name(location: str) -> str:
    return location.rpartition("/")[2]


def _last_seq(table: Table) -> int:
    """Return the position of the last commit that a table has; 0 for none."""
    known = table.properties.get(SEQ, "0")
    return int(known) if known.isdecimal() else 0


def _has(table: Table, seq: int, commit_id: str) -> bool:
    if _last_seq(table) >= seq:
        return True
    return any(
        snapshot.summary is not None
        and snapshot.summary.additional_properties.get(COMMIT_ID) == commit_id
        for snapshot in table.metadata.snapshots
    )


def _fits(table: Table, commit: TableCommit) -> bool:
    """Return whether the commit's files may be added to the table as it is now."""
    from pyiceberg.schema import Schema

    from extract_jobs.iceberg.schema import is_readable

    schema = Schema.model_validate(commit.layout.schema)
    schema_fits = _is_unaltered(table, commit) or is_readable(schema, table.schema())
    fields = table.metadata.spec().fields
    found = [(f.source_id, str(f.transform), f.name) for f in fields]
    wanted = [(p["source-id"], p["transform"], p["name"]) for p in commit.layout.partitions]
    return schema_fits and (commit.overwrite or found == wanted)


def _is_unaltered(table: Table, commit: TableCommit) -> bool:
    """Return whether the table's columns are still those that the commit's ids were based on."""
    metadata = table.metadata
    return commit.layout.base == (metadata.current_schema_id, metadata.last_column_id)


def _alterations(table: Table, commit: TableCommit, schema: Schema) -> tuple[Any, Any]:
    """Return the updates that give the table a commit's columns and partitions."""
    from pyiceberg.table.update import (
        AddPartitionSpecUpdate,
        AddSchemaUpdate,
        AssertCurrentSchemaId,
        AssertLastAssignedFieldId,
        SetCurrentSchemaUpdate,
        SetDefaultSpecUpdate,
    )

    from extract_jobs.iceberg.partitions import FIRST_FIELD_ID, spec_of
    from extract_jobs.iceberg.schema import same_columns

    metadata = table.metadata
    updates: list[Any] = []
    if _is_unaltered(table, commit) and not same_columns(schema, table.schema()):
        known = next((s for s in metadata.schemas if same_columns(schema, s)), None)
        number = max(s.schema_id for s in metadata.schemas) + 1
        if known is None:
            added = schema.model_copy(update={"schema_id": number})
            updates.append(AddSchemaUpdate(schema_=added))
        updates.append(
            SetCurrentSchemaUpdate(schema_id=known.schema_id if known is not None else number)
        )
    specs = metadata.partition_specs
    last = metadata.last_partition_id or FIRST_FIELD_ID - 1
    spec = spec_of(commit.layout, specs, last)
    if all(spec.spec_id != one.spec_id for one in specs):
        updates.append(AddPartitionSpecUpdate(spec=spec))
    if spec.spec_id != metadata.default_spec_id:
        updates.append(SetDefaultSpecUpdate(spec_id=spec.spec_id))
    requirements = (
        AssertCurrentSchemaId(current_schema_id=metadata.current_schema_id),
        AssertLastAssignedFieldId(last_assigned_field_id=metadata.last_column_id),
    )
    return tuple(updates), requirements if updates else ()


def _live(table: Table) -> list[Any]:
    """Return the data files of the current snapshot."""
    from pyiceberg.manifest import DataFileContent

    snapshot = table.current_snapshot()
    if snapshot is None:
        return []
    return [
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        if entry.data_file.content == DataFileContent.DATA
    ]


def _partition(
    field: PartitionField, schema: Schema, source_names: dict[str, str]
) -> dict[str, Any]:
    if field.column is None:
        column = "_run_id" if field.name == "run_id" else field.name
    else:
        column = source_names.get(field.column, field.column)
    return {
        "name": field.name,
        "transform": field.function or "identity",
        "source-id": schema.find_field(column).field_id,
    }


def _references(table: Table) -> References:
    from pyiceberg.manifest import DataFileContent

    metadata, io = table.metadata, table.io
    manifests: dict[str, Any] = {}
    lists, current = set(), set()
    for snapshot in metadata.snapshots:
        lists.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(io):
            manifests[manifest.manifest_path] = manifest
            if snapshot.snapshot_id == metadata.current_snapshot_id:
                current.add(manifest.manifest_path)
    files: dict[bool, set[str]] = {True: set(), False: set()}
    for path, manifest in manifests.items():
        for entry in manifest.fetch_manifest_entry(io, discard_deleted=True):
            is_data = entry.data_file.content == DataFileContent.DATA
            files[path in current and is_data].add(entry.data_file.file_path)
    named = {table.metadata_location, *(log.metadata_file for log in metadata.metadata_log)}
    statistics = {
        one.statistics_path for one in (*metadata.statistics, *metadata.partition_statistics)
    }
    return References(
        current=frozenset(files[True]),
        files=frozenset(files[True] | files[False]),
        metadata=frozenset(named | statistics | lists | manifests.keys()),
    )


def with_ids_of(layout: Layout, columns: pa.Schema) -> pa.Schema:
    """Return the files' columns with the ids of a layout, as the Parquet writer takes them."""
    from pyiceberg.schema import Schema

    from extract_jobs.iceberg.schema import with_field_ids

    return with_field_ids(columns, Schema.model_validate(layout.schema))
