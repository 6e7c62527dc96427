"""What an Iceberg table names, what only some of its snapshots name, and what nothing names."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from extract_jobs.iceberg.catalogs import catalog_errors
from extract_jobs.iceberg.change import METADATA_FOLDER
from extract_jobs.iceberg.table import IcebergTable
from extract_jobs.storage import join

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

_CONCURRENT_READS = 16


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

    @property
    def names(self) -> frozenset[str]:
        """Names without folders: each holds a random UUID, and tools spell locations variously."""
        return frozenset(map(_name, self.files | self.metadata))


@dataclass(frozen=True)
class Expirable:
    """Snapshots that may be expired.

    Attributes:
        snapshot_ids: Theirs.
        files: Files and metadata that no other snapshot names.
    """

    snapshot_ids: tuple[int, ...]
    files: tuple[str, ...]


def referenced(table: IcebergTable, *, parent: int, required: bool = False) -> References | None:
    """Return the files that a table names; None if the catalog does not have the table. Read-only.

    Args:
        table: The table.
        parent: The last published commit; 0 for none.
        required: Whether a table with commits must be there.

    Raises:
        ConfigError: The table is not this log's, lacks commits of it, or is required and gone.
    """
    found = table.read(parent=parent, required=required)
    if found is None:
        return None
    with catalog_errors(table.catalog, "reading"):
        return _references(found)


def expirable(table: IcebergTable, before: datetime | int, *, parent: int) -> Expirable:
    """Return the snapshots that readers have had no reason to use for some time. Read-only.

    A snapshot's time starts when another one replaces it. The current one stays, and so do those
    that branches and tags name.

    Args:
        table: The table.
        before: Snapshots that were replaced later are kept; a number: this many are kept, the
            newest.
        parent: The last published commit; 0 for none.

    Raises:
        ConfigError: The table is not this log's, or lacks commits of it.
    """
    found = table.read(parent=parent)
    if found is None:
        return Expirable((), ())
    going = _all_but(found, before) if isinstance(before, int) else _replaced_before(found, before)
    if not going:
        return Expirable((), ())
    with catalog_errors(table.catalog, "reading"):
        files = _named_by(found, going)
    return Expirable(tuple(s.snapshot_id for s in going), tuple(sorted(files)))


def sweep(table: IcebergTable, before: datetime, *, parent: int) -> list[str]:
    """Delete metadata that no snapshot names: a killed publisher, or a slower one, left it.

    Nothing is deleted unless the catalog has the table, and it is this log's: what a table names is
    known from the catalog alone.

    Args:
        table: The table.
        before: Younger files are left: their snapshot may be about to be made.
        parent: The last published commit; 0 for none.

    Returns:
        What was deleted.
    """
    storage = table.open_storage(table.target_uri)
    old = [
        one.uri
        for one in storage.list(join(table.target_uri, METADATA_FOLDER, ""))
        if one.modified_at
        and one.modified_at <= before
        and one.uri.endswith((".avro", ".metadata.json"))
    ]
    found = referenced(table, parent=parent) if old else None
    if found is None:
        return []
    named = found.names
    gone = [uri for uri in old if _name(uri) not in named]
    storage.delete_all(gone)
    return gone


def delete_unnamed(table: IcebergTable, files: Collection[str], *, parent: int) -> bool:
    """Delete those of some files that the table does not name now.

    Returns:
        False if the catalog does not have the table: nothing was deleted.
    """
    found = referenced(table, parent=parent)
    if found is None:
        return False
    named = found.names
    table.open_storage(table.target_uri).delete_all(u for u in files if _name(u) not in named)
    return True


def _name(location: str) -> str:
    return location.rpartition("/")[2]


def _replaced_before(table: Table, before: datetime) -> list[Snapshot]:
    """Return the snapshots that were replaced before some time, and that no branch or tag needs."""
    log = table.metadata.snapshot_log
    # The last time counts at which a snapshot was current: it may have been rolled back to.
    replaced = {one.snapshot_id: after.timestamp_ms for one, after in itertools.pairwise(log)}
    limit = before.timestamp() * 1000
    return [s for s in _replaced(table) if replaced.get(s.snapshot_id, s.timestamp_ms) <= limit]


def _all_but(table: Table, count: int) -> list[Snapshot]:
    """Return all snapshots but the newest, and but those that a branch or tag needs."""
    newest = sorted(table.metadata.snapshots, key=lambda one: one.sequence_number or 0)[-count:]
    kept = {one.snapshot_id for one in newest}
    return [one for one in _replaced(table) if one.snapshot_id not in kept]


def _replaced(table: Table) -> list[Snapshot]:
    """Return the snapshots that are not current, and that no branch or tag needs."""
    metadata = table.metadata
    needed = {metadata.current_snapshot_id, *(r.snapshot_id for r in metadata.refs.values())}
    return [one for one in metadata.snapshots if one.snapshot_id not in needed]


def _named_by(table: Table, going: Collection[Snapshot]) -> set[str]:
    """Return the files that some snapshots name and no other."""
    ids = {one.snapshot_id for one in going}
    metadata = table.metadata
    kept = _manifests(table, [s for s in metadata.snapshots if s.snapshot_id not in ids])
    lost = {uri: one for uri, one in _manifests(table, going).items() if uri not in kept}
    files = {file.file_path for file in _files(table, lost.values())}
    if files:  # they are read only if something may go
        files -= {file.file_path for file in _files(table, kept.values())}
    lists = {one.manifest_list for one in going}
    statistics = {
        one.statistics_path
        for one in (*metadata.statistics, *metadata.partition_statistics)
        if one.snapshot_id in ids
    }
    return files | lost.keys() | lists | statistics


def _references(table: Table) -> References:
    from pyiceberg.manifest import DataFileContent

    metadata = table.metadata
    manifests = _manifests(table, metadata.snapshots)
    snapshot = table.current_snapshot()
    now = set(_manifests(table, [snapshot] if snapshot else []))
    current = _files(table, [one for uri, one in manifests.items() if uri in now])
    older = _files(table, [one for uri, one in manifests.items() if uri not in now])
    named = {table.metadata_location, *(log.metadata_file for log in metadata.metadata_log)}
    statistics = {
        one.statistics_path for one in (*metadata.statistics, *metadata.partition_statistics)
    }
    lists = {one.manifest_list for one in metadata.snapshots}
    return References(
        current=frozenset(f.file_path for f in current if f.content == DataFileContent.DATA),
        files=frozenset(file.file_path for file in (*current, *older)),
        metadata=frozenset(named | statistics | lists | manifests.keys()),
    )


def _manifests(table: Table, snapshots: Iterable[Snapshot]) -> dict[str, ManifestFile]:
    """Return the manifests of some snapshots, by location."""
    with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
        found = pool.map(lambda snapshot: snapshot.manifests(table.io), snapshots)
        return {one.manifest_path: one for some in found for one in some}


def _files(table: Table, manifests: Iterable[ManifestFile]) -> list[Any]:
    """Return the data and delete files that some manifests add or keep."""
    with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
        found = pool.map(lambda one: one.fetch_manifest_entry(table.io), manifests)
        return [entry.data_file for entries in found for entry in entries]
