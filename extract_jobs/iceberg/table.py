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
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.iceberg.catalogs import catalog_errors, open_catalog
from extract_jobs.iceberg.change import Layout, TableCommit
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import CatalogSpec
from extract_jobs.spec.uris import normal_uri
from extract_jobs.storage import OpenStorage, StagedFile, WrittenFile, open_storage

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.catalog import Catalog
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile, ManifestFile
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.table import CreateTableTransaction, Table, Transaction
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

    from extract_jobs.transform.partitions import PartitionField

logger = logging.getLogger(__name__)


SEQ = "extract-jobs.commit-seq"
"""Property of a table: the last commit of the log that it has."""
STATE = "extract-jobs.state"
"""Property of a table: the state folder of the log that it belongs to."""
COMMIT_ID = "extract-jobs.commit-id"
"""Property of a snapshot's summary: the commit that it publishes."""

FORMAT_VERSION = 2
"""Iceberg's version of the tables. pyiceberg reads newer ones, but does not write them."""

_TRIES = 20
_TOLERATED_SKEW = timedelta(minutes=1)
_LONGEST_SLEEP = 5.0
_CONCURRENT_READS = 16
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
        properties: Of the table, set by each commit.
    """

    catalog: CatalogSpec
    target_uri: str
    state_uri: str
    file_bytes: int
    open_storage: OpenStorage = open_storage
    properties: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: ExtractSpec, open_storage: OpenStorage = open_storage) -> IcebergTable | None:
        """Return the table of a spec; None if its target is a folder of Parquet files."""
        target = spec.target
        if not target.is_iceberg or target.catalog is None:
            return None
        return cls(
            target.catalog, target.uri, spec.state_uri, target.file_bytes, open_storage,
            target.properties or {},
        )  # fmt: skip

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
        replaces_some: bool,
        known: Collection[str],
        last: Layout | None,
        is_in_log: Callable[[int], bool],
    ) -> Layout:
        """Check that a run can write to the table, and assign ids to its columns. Read-only.

        Args:
            columns: Of the files.
            partitions: Fields of the target's partitions.
            source_names: For each source column, its name in the files.
            parent: The last published commit; 0 for none.
            overwrite: Whether the run replaces every row.
            replaces_some: Whether it replaces some partitions or rows.
            known: Columns of the last commit's files.
            last: Columns and partitions after the last commit; None before the first.
            is_in_log: Returns whether the log has a commit with that position.

        Raises:
            ConfigError: The table is not this log's, is gone, has commits that the log has lost, or
                was altered in a way that the run does not fit; or Iceberg has no type for a column.
            WriteFailed: The catalog cannot be read.
        """
        catalog = self._open(create=False)
        table = None if catalog is None else self._load(catalog)
        self._check(table, parent=parent, overwrite=overwrite)
        self._check_log(table, parent, is_in_log)
        from extract_jobs.iceberg.schema import schema_with_ids

        metadata = table.metadata if table else None
        current = metadata.schema() if metadata else None
        schema = schema_with_ids(
            columns,
            current,
            metadata.last_column_id if metadata else 0,
            replaces=overwrite,
            known_columns=known,
            partitioned_by=_partitioned_by(metadata) if metadata else (),
        )
        layout = Layout(
            schema.model_dump(mode="json", by_alias=True),
            (metadata.current_schema_id, metadata.last_column_id) if metadata else None,
            tuple(_partition(field, schema, source_names) for field in partitions),
        )
        if table is not None and not overwrite:
            self._check_altered(table, layout, known, last or layout)
            if replaces_some:
                self._check_specs(table)
        return layout

    def publish(self, commit: TableCommit) -> str:
        """Make a commit's snapshot, unless the table has it already.

        Any number of processes may do so at once, while others write to the table.

        Returns:
            Empty if the table has the commit; otherwise what another tool did to the table since
            the commit was planned, so that its files do not fit.

        Raises:
            ConfigError: The table is gone or belongs to another log.
            WriteFailed: The catalog or storage failed; whether the snapshot was made is unknown.
        """
        catalog = self._open(create=True)
        assert catalog is not None
        for number in range(_TRIES):
            _wait(number)
            table = self._load(catalog)
            # A table that is not what a commit stands on takes the next one, which writes all anew.
            anew = commit.overwrite or commit.stands_on is not None
            self._check(table, parent=commit.parent, overwrite=anew)
            if table is not None and _has(table, commit.seq, commit.commit_id):
                return ""
            with catalog_errors(self.catalog, "reading"):
                misfit = _misfit(table, commit)
            if misfit:
                return f"another tool {misfit}"
            if self._commit(catalog, table, commit):
                return ""
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
            current = {f.file_path: f for _, files in _live(table) for f in files}
        known = {location(file.staged.uri) for file in committed}
        foreign = [
            WrittenFile(StagedFile(uri, "", file.file_size_in_bytes, {}), file.record_count, {})
            for uri, file in current.items()
            if uri not in known
        ]
        return [f for f in wanted if location(f.staged.uri) in current] + foreign

    def altered(self, parent: int, files: Collection[str]) -> str:
        """Return what another tool did to the table since a commit; empty if nothing. Read-only.

        Args:
            parent: The last published commit.
            files: The files that are live by the log.

        Raises:
            ConfigError: The table is not this log's.
            WriteFailed: The catalog cannot be read.
        """
        catalog = self._open(create=False)
        table = None if catalog is None else self._load(catalog)
        self._check(table, parent=parent, overwrite=True)
        if table is None or _last_seq(table) != parent:
            return "dropped the Iceberg table, or put it back to an earlier time"
        with catalog_errors(self.catalog, "reading"):
            return _differs(table, files)

    def read(self, *, parent: int, required: bool = False) -> Table | None:
        """Return the table as it is now; None if the catalog does not have it. Read-only.

        Args:
            parent: The last published commit; 0 for none.
            required: Whether a table with commits must be there.

        Raises:
            ConfigError: The table is not this log's, lacks commits of it, or is required and gone.
            WriteFailed: The catalog cannot be read.
        """
        catalog = self._open(create=False)
        table = None if catalog is None else self._load(catalog)
        if table is not None or required:
            self._check(table, parent=parent, overwrite=False)
        return table

    def restored(
        self,
        commit_id: str,
        layout: Layout,
        files: Sequence[WrittenFile],
        *,
        parent: int,
        known: Collection[str],
        is_in_log: Callable[[int], bool],
    ) -> Layout:
        """Return columns and partitions of the table once it holds an earlier commit. Read-only.

        Args:
            commit_id: The earlier commit's.
            layout: Its columns and partitions.
            files: The files that were live then, by the log.
            parent: The last published commit.
            known: Columns of its files; others that the table has are another tool's, and stay.
            is_in_log: Returns whether the log has a commit with that position.

        Raises:
            ConfigError: The commit's snapshot is expired, or has other rows than the files hold; or
                the table has commits that the log has lost.
        """
        from extract_jobs.iceberg.data_files import location

        table = self.read(parent=parent, required=True)
        self._check_log(table, parent, is_in_log)
        snapshot = None if table is None else _snapshot_of(table, commit_id)
        if table is None or snapshot is None:
            raise ConfigError(
                f"Iceberg table {self.name} does not have the snapshot of that commit any more: "
                "it was expired"
            )
        with catalog_errors(self.catalog, "reading"):
            manifests = snapshot.manifests(table.io)
            live = live_files(manifests, table.io)
            there = {file.file_path for _, files in live for file in files}
        if (
            _file_count(manifests) != len(there)
            or has_delete_files(manifests)
            or there != {location(file.staged.uri) for file in files}
        ):
            raise ConfigError(
                f"Iceberg table {self.name} had rows of another tool when that commit was made, or "
                "rows that it had put into other files: return to the snapshot "
                f"{snapshot.snapshot_id} with that tool"
            )
        names = {field["name"] for field in layout.schema["fields"]}
        now = table.schema().model_dump(mode="json", by_alias=True)
        metadata = table.metadata
        fields = list(layout.schema["fields"])
        ids = {field["id"] for field in fields}
        for one in now["fields"]:
            stays = one["name"] not in known or one["id"] in _partitioned_by(metadata)
            if stays and one["name"] not in names and one["id"] not in ids:
                fields.append(one)
        base = (metadata.current_schema_id, metadata.last_column_id)
        return Layout({**layout.schema, "fields": fields}, base, layout.partitions)

    def remove_snapshots(self, snapshot_ids: Collection[int]) -> None:
        """Take snapshots out of the table's history, but none that a branch or tag names.

        Raises:
            ConfigError: The catalog does not remove snapshots.
            WriteFailed: The catalog failed, or others changed the table all the time.
        """
        from pyiceberg.exceptions import CommitFailedException
        from pyiceberg.table.update import (
            AssertRefSnapshotId,
            AssertTableUUID,
            RemoveSnapshotsUpdate,
        )

        for number in range(_TRIES):
            _wait(number)
            table = self.read(parent=0)
            if table is None:
                return
            metadata = table.metadata
            named = {ref.snapshot_id for ref in metadata.refs.values()}
            going = {s.snapshot_id for s in metadata.snapshots} & set(snapshot_ids) - named
            if not going:
                return
            unchanged = [
                AssertRefSnapshotId(ref=name, snapshot_id=ref.snapshot_id)
                for name, ref in metadata.refs.items()
            ]
            try:
                with catalog_errors(self.catalog, "expiring snapshots of"):
                    table._do_commit(  # noqa: SLF001
                        (RemoveSnapshotsUpdate(snapshot_ids=sorted(going)),),
                        (AssertTableUUID(uuid=metadata.table_uuid), *unchanged),
                    )
            except CommitFailedException:
                continue
            if going & {one.snapshot_id for one in table.metadata.snapshots}:
                raise ConfigError(
                    f"Iceberg table {self.name}: the catalog took the removal of snapshots and did "
                    "not do it: expire them with a tool of its own. No file was deleted"
                )
            return
        raise WriteFailed(
            f"Iceberg table {self.name}: other writers were faster {_TRIES} times in a row, so no "
            "snapshot was expired; run again"
        )

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
        if table.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"Iceberg table {self.name} was upgraded to format version {table.format_version}, "
                f"and only version {FORMAT_VERSION} can be written: {way_out}"
            )
        if not overwrite and _last_seq(table) < parent:
            raise ConfigError(
                f"Iceberg table {self.name} lacks commits that {self.state_uri} has published: its "
                f"last one is {_last_seq(table)}, and not {parent}. Its catalog entry or its "
                f"property {SEQ} was put back to an earlier time: register the newest metadata "
                f"file, or {way_out}"
            )

    def _check_log(
        self, table: Table | None, parent: int, is_in_log: Callable[[int], bool]
    ) -> None:
        """Refuse a new commit whose position the table has already: it would pass for that one."""
        seq = 0 if table is None else _last_seq(table)
        if seq > parent and not is_in_log(seq):
            raise ConfigError(
                f"Iceberg table {self.name} has commit {seq}, which {self.state_uri} has not: "
                "records of the state folder were deleted, or restored from an earlier time. "
                "Restore the newest ones, or start over with another state_uri and target"
            )

    def _check_altered(
        self, table: Table, layout: Layout, known: Collection[str], last: Layout
    ) -> None:
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
        from pyiceberg.schema import Schema

        from extract_jobs.iceberg.schema import altered_columns

        before = Schema.model_validate(last.schema)
        if gone := altered_columns(before, table.schema(), known):
            raise ConfigError(
                f"Iceberg table {self.name} does not have column {', '.join(gone)} any more, or "
                "not the one that earlier commits wrote: another tool renamed, dropped or changed "
                "it. Undo that, or replace all files with a run in mode full and write_mode "
                "overwrite"
            )

    def _check_specs(self, table: Table) -> None:
        """Refuse to replace partitions beside files that are partitioned in another way."""
        with catalog_errors(self.catalog, "reading"):
            others = _other_specs(table)
        if others:
            raise ConfigError(
                f"Iceberg table {self.name} has files that another tool partitioned in another "
                "way, so which of them belong to a partition is unknown: rewrite them with the "
                "table's partitions, or replace all files with a run in mode full and write_mode "
                "overwrite"
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

        if table is not None:
            self._check_clock(table)
        elif self.catalog.type == "rest":
            self._create(catalog, commit)
            return False  # it is read, and the commit made on top
        with catalog_errors(self.catalog, "publishing to"):
            transaction = self._begin(catalog, table, commit)
            transaction.set_properties({**self.properties, SEQ: str(commit.seq)})
            self._add_snapshot(transaction, commit)
            try:
                if isinstance(transaction, CreateTableTransaction):
                    transaction.commit_transaction()
                else:
                    # Not `commit_transaction`: on a conflict it would add the files again without
                    # looking for `SEQ`, and delete manifests of a commit whose answer was lost.
                    assert table is not None
                    uuid = AssertTableUUID(uuid=table.metadata.table_uuid)
                    requirements = (*transaction._requirements, uuid)  # noqa: SLF001
                    table._do_commit(transaction._updates, requirements)  # noqa: SLF001
            except (CommitFailedException, TableAlreadyExistsError, NoSuchTableError):
                return False
        return True

    def _create(self, catalog: Catalog, commit: TableCommit) -> None:
        """Create the table without rows: not every REST catalog creates one with its first commit.

        Killed afterwards, it is a table of this log that has no commit yet.
        """
        from pyiceberg.exceptions import TableAlreadyExistsError

        with catalog_errors(self.catalog, "creating"), suppress(TableAlreadyExistsError):
            catalog.create_table(**self._new_table(commit))

    def _new_table(self, commit: TableCommit) -> dict[str, Any]:
        """Return what pyiceberg creates a table with, as arguments."""
        from pyiceberg.schema import Schema

        from extract_jobs.iceberg.data_files import location
        from extract_jobs.iceberg.partitions import FIRST_FIELD_ID, spec_of

        return {
            "identifier": (self.catalog.database, self.catalog.table),
            "schema": Schema.model_validate(commit.layout.schema),
            "location": location(self.target_uri),
            "partition_spec": spec_of(commit.layout, (), FIRST_FIELD_ID - 1),
            "properties": self._properties(),
        }

    def _check_clock(self, table: Table) -> None:
        """Refuse to make a snapshot that is older than the one before it.

        Iceberg's Java library does not read a table whose history goes back by over a minute.
        """
        last = datetime.fromtimestamp(table.metadata.last_updated_ms / 1000, UTC)
        behind = last - datetime.now(UTC)
        if behind > _TOLERATED_SKEW:
            raise WriteFailed(
                f"Iceberg table {self.name} was changed {behind.total_seconds():.0f} s from now: "
                "this machine's clock, or another writer's, is wrong. A retry is safe"
            )

    def _begin(self, catalog: Catalog, table: Table | None, commit: TableCommit) -> Transaction:
        """Return a transaction in which the table has the commit's columns and partitions."""
        from pyiceberg.schema import Schema
        from pyiceberg.table import Transaction

        from extract_jobs.iceberg.schema import same_columns

        if table is None:
            new = self._new_table(commit)
            made = catalog.create_table_transaction(**new)
            if same_columns(made.table_metadata.schema(), new["schema"]):
                return made
            return _with_ids(made, new["schema"], new["partition_spec"])
        schema = Schema.model_validate(commit.layout.schema)
        transaction = Transaction(_without_history(table))
        transaction._stage(*_alterations(table, commit, schema))  # noqa: SLF001
        return transaction

    def _properties(self) -> dict[str, str]:
        return {
            STATE: self.state_uri if "://" in self.state_uri else normal_uri(self.state_uri),
            "format-version": str(FORMAT_VERSION),
            "write.target-file-size-bytes": str(self.file_bytes),
            "write.metadata.delete-after-commit.enabled": "true",
            "write.metadata.previous-versions-max": "100",
        }

    def _add_snapshot(self, transaction: Transaction, commit: TableCommit) -> None:
        from pyiceberg.table.snapshots import Operation

        from extract_jobs.iceberg.data_files import data_files, location
        from extract_jobs.iceberg.partitions import record_of
        from extract_jobs.iceberg.snapshots import Append, Replacement

        metadata = transaction.table_metadata
        schema = metadata.schema()
        summary = {
            **commit.summary,
            COMMIT_ID: commit.commit_id,
            SEQ: str(commit.seq),
        }
        goes = []
        if commit.overwrite or commit.replaces or commit.removes:
            records = {record_of(p, commit.layout, schema) for p in commit.replaces}
            removed = set(map(location, commit.removes))
            goes = [
                (file, manifest)
                for manifest, files in _live(transaction._table)  # noqa: SLF001
                for file in files
                if commit.overwrite or file.partition in records or file.file_path in removed
            ]
        kind, name = (Replacement, "OVERWRITE") if goes else (Append, "APPEND")
        with kind(
            operation=Operation[name],
            transaction=transaction,
            io=transaction._table.io,  # noqa: SLF001
            snapshot_properties=summary,
        ) as snapshot:
            for file, manifest in goes:
                snapshot.remove(file, manifest)
            for file in data_files(
                commit.files,
                commit.layout,
                schema,
                spec_id=metadata.default_spec_id,
                properties=metadata.properties,
                open_storage=self.open_storage,
            ):
                snapshot.append_data_file(file)


def _without_history(table: Table) -> Table:
    """Return a table as it is now, without its earlier snapshots.

    pyiceberg copies a transaction's metadata some 20 times, with every snapshot in it.
    """
    from pyiceberg.table import Table
    from pyiceberg.table.refs import MAIN_BRANCH

    metadata = table.metadata
    now = metadata.current_snapshot_id
    slim = metadata.model_copy(
        update={
            "snapshots": [one for one in metadata.snapshots if one.snapshot_id == now],
            "refs": {name: ref for name, ref in metadata.refs.items() if name == MAIN_BRANCH},
            "snapshot_log": [],
            "metadata_log": [],
            "statistics": [],
            "partition_statistics": [],
        }
    )
    return Table(table.name(), slim, table.metadata_location, table.io, table.catalog)


def _with_ids(made: CreateTableTransaction, columns: Schema, spec: PartitionSpec) -> Transaction:
    """Return the creation of a table whose columns have the ids that files have already.

    pyiceberg gives them new ones. They differ if the table was dropped after its commit was
    planned.
    """
    from pyiceberg.table import CreateTableTransaction, StagedTable

    table = made._table  # noqa: SLF001
    assert isinstance(table, StagedTable)
    metadata = table.metadata.model_copy(
        update={
            "schemas": [columns],
            "current_schema_id": columns.schema_id,
            "last_column_id": columns.highest_field_id,
            "partition_specs": [spec],
            "default_spec_id": spec.spec_id,
        }
    )
    return CreateTableTransaction(
        StagedTable(table.name(), metadata, table.metadata_location, table.io, table.catalog)
    )


def _wait(number: int) -> None:
    """Wait before a try, longer each time, and not before the first one."""
    if number:
        # No secret depends on the waiting time.
        time.sleep(random.uniform(0.5, 1) * min(_LONGEST_SLEEP, 0.05 * 2**number))  # noqa: S311


def _partitioned_by(metadata: TableMetadata) -> set[int]:
    """Return the ids of all columns that a table is or was partitioned by."""
    return {field.source_id for spec in metadata.partition_specs for field in spec.fields}


def _last_seq(table: Table) -> int:
    """Return the position of the last commit that a table has; 0 for none."""
    known = table.properties.get(SEQ, "0")
    return int(known) if known.isdecimal() else 0


def _has(table: Table, seq: int, commit_id: str) -> bool:
    return _last_seq(table) >= seq or _snapshot_of(table, commit_id) is not None


def _snapshot_of(table: Table, commit_id: str) -> Snapshot | None:
    """Return the snapshot that published a commit, if the table still has it."""
    return next(
        (
            snapshot
            for snapshot in reversed(table.metadata.snapshots)
            if snapshot.summary is not None
            and snapshot.summary.additional_properties.get(COMMIT_ID) == commit_id
        ),
        None,
    )


def _misfit(table: Table | None, commit: TableCommit) -> str:
    """Return what was done to a table so that a commit does not fit it; empty if nothing."""
    if table is None:
        return "" if commit.stands_on is None else "dropped the Iceberg table"
    from pyiceberg.schema import Schema

    from extract_jobs.iceberg.schema import is_readable

    schema = Schema.model_validate(commit.layout.schema)
    schema_fits = _is_unaltered(table, commit) or is_readable(schema, table.schema())
    fields = table.metadata.spec().fields
    found = [(f.source_id, str(f.transform), f.name) for f in fields]
    wanted = [(p["source-id"], p["transform"], p["name"]) for p in commit.layout.partitions]
    if not schema_fits:
        return "altered the columns of the Iceberg table"
    if not commit.overwrite and found != wanted:
        return "partitioned the Iceberg table in another way"
    if (commit.replaces or commit.removes) and _other_specs(table):
        return "added files to the Iceberg table that are partitioned in another way"
    if commit.stands_on is not None:
        return _differs(table, commit.stands_on)
    return _lost(table, commit.removes) if commit.removes else ""


def _differs(table: Table, files: Collection[str]) -> str:
    """Return what was done to a table of some files; empty if it has their rows and no others."""
    from extract_jobs.iceberg.data_files import location

    snapshot = table.current_snapshot()
    manifests = [] if snapshot is None else snapshot.manifests(table.io)
    if has_delete_files(manifests):
        return "deleted rows of the Iceberg table"
    there = [file.file_path for _, found in live_files(manifests, table.io) for file in found]
    if len(there) != len(files) or set(there) != set(map(location, files)):
        return "added or replaced files of the Iceberg table"
    return "partitioned the Iceberg table in another way" if _other_specs(table) else ""


def _lost(table: Table, wanted: Collection[str]) -> str:
    """Return what was done to some files of a table, or to their rows; empty if nothing."""
    from extract_jobs.iceberg.data_files import location

    snapshot = table.current_snapshot()
    manifests = [] if snapshot is None else snapshot.manifests(table.io)
    if has_delete_files(manifests):
        return "wrote delete files to the Iceberg table while its rows were merged"
    there = {file.file_path for _, files in live_files(manifests, table.io) for file in files}
    lost = len(set(map(location, wanted)) - there)
    if not lost:
        return ""
    return (
        f"replaced {lost:,} of the {len(wanted):,} files of the Iceberg table that hold the merged "
        "rows, as a compaction does"
    )


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


def _other_specs(table: Table) -> bool:
    """Return whether live files have another partition spec than the table's current one."""
    snapshot = table.current_snapshot()
    spec = table.metadata.default_spec_id
    return snapshot is not None and any(
        manifest.partition_spec_id != spec and _file_count([manifest])
        for manifest in snapshot.manifests(table.io)
    )


def _file_count(manifests: Iterable[ManifestFile]) -> int:
    """Return the number of live data files in some manifests."""
    from pyiceberg.manifest import ManifestContent

    return sum(
        (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
        for manifest in manifests
        if manifest.content == ManifestContent.DATA
    )


def has_delete_files(manifests: Iterable[ManifestFile]) -> bool:
    """Return whether some of the rows of data files are deleted by other files."""
    from pyiceberg.manifest import ManifestContent

    return any(manifest.content == ManifestContent.DELETES for manifest in manifests)


def _live(table: Table) -> list[tuple[ManifestFile, list[DataFile]]]:
    """Return the data files of the current snapshot, by manifest."""
    snapshot = table.current_snapshot()
    return [] if snapshot is None else live_files(snapshot.manifests(table.io), table.io)


def live_files(
    manifests: Iterable[ManifestFile], io: FileIO
) -> list[tuple[ManifestFile, list[DataFile]]]:
    """Return the data files that manifests add or keep; several manifests are read at a time."""
    from pyiceberg.manifest import ManifestContent

    from extract_jobs.iceberg.snapshots import has_live_files

    wanted = [m for m in manifests if m.content == ManifestContent.DATA and has_live_files(m)]
    with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
        read = pool.map(lambda one: one.fetch_manifest_entry(io, discard_deleted=True), wanted)
        return [
            (manifest, [entry.data_file for entry in entries])
            for manifest, entries in zip(wanted, read, strict=True)
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


def with_ids_of(layout: Layout, columns: pa.Schema) -> pa.Schema:
    """Return the files' columns with the ids of a layout, as the Parquet writer takes them."""
    from pyiceberg.schema import Schema

    from extract_jobs.iceberg.schema import with_field_ids

    return with_field_ids(columns, Schema.model_validate(layout.schema))
