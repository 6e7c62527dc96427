"""Expires snapshots of an Iceberg table, and deletes the files that only they named.

First ``expired/<random>.json`` in the state folder names what may be deleted, then the snapshots
leave the table in one conditional write of the catalog, and then those of the files are deleted
that the table, read again, does not name. Killed after any step, the next expiry does the rest; any
number may run at once. So nothing is deleted that was not in an expired snapshot: files of running
work, of unfinished commits and of other tools stay.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.commit.record_check import is_below, json_object
from extract_jobs.commit.table_log import last_published
from extract_jobs.errors import ConfigError
from extract_jobs.iceberg.references import delete_unnamed, expirable
from extract_jobs.iceberg.table import IcebergTable
from extract_jobs.storage import join


@dataclass(frozen=True)
class Expired:
    """What was, or would be, expired.

    Attributes:
        snapshots: Number of snapshots.
        files: Files that no other snapshot names: data and metadata.
    """

    snapshots: int
    files: tuple[str, ...]


MOST_SNAPSHOTS = 1000
"""Snapshots that a table keeps at most, but for a few, if no time is given for which they stay."""
_EVERY = 100
"""Commits after which a table is looked through for more."""


def expire_most(log: CommitLog, commit: Commit) -> None:
    """Expire the oldest snapshots of an Iceberg table beyond `MOST_SNAPSHOTS`, now and then.

    Every reader and writer of the table reads the list of all of its snapshots.

    Args:
        log: The table's.
        commit: The last published commit.

    Raises:
        ConfigError: The table is not this log's.
        WriteFailed: The catalog or storage failed; the next expiry does the rest.
    """
    if commit.seq % _EVERY == 0:
        _expire(log, MOST_SNAPSHOTS)


def expire_snapshots(
    log: CommitLog, older_than: timedelta, now: datetime, *, dry_run: bool = False
) -> Expired:
    """Expire the snapshots of an Iceberg table that were replaced longer ago than a period.

    The current snapshot stays, and so do those that branches and tags name.

    Args:
        log: The table's.
        older_than: The period.
        now: The present, UTC.
        dry_run: Change nothing; only report.

    Raises:
        ConfigError: The target is a folder of Parquet files, or the table is not this log's.
        WriteFailed: The catalog or storage failed; the next expiry does the rest.
    """
    return _expire(log, now - older_than, dry_run=dry_run)


def _expire(log: CommitLog, before: datetime | int, *, dry_run: bool = False) -> Expired:
    table = log.table
    if table is None:
        raise ConfigError(
            "only an Iceberg table has snapshots: files that runs replace in a folder of Parquet "
            "files are kept as long as keep_retired says"
        )
    last = last_published(log)
    parent = last.seq if last else 0
    if not dry_run:
        _finish(log, table, parent)
    found = expirable(table, before, parent=parent)
    # Other tools may have added files from anywhere.
    files = tuple(uri for uri in found.files if is_below(uri, table.target_uri))
    if found.snapshot_ids and not dry_run:
        record = join(log.state_uri, "expired", f"{uuid.uuid4()}.json")
        log.state.put(record, json.dumps({"version": 1, "files": files}).encode())
        table.remove_snapshots(found.snapshot_ids)
        if delete_unnamed(table, files, parent=parent):
            log.state.delete(record)
    return Expired(len(found.snapshot_ids), files)


def _finish(log: CommitLog, table: IcebergTable, parent: int) -> None:
    """Delete what earlier expiries named and did not get to."""
    for one in list(log.state.list(join(log.state_uri, "expired") + "/")):
        raw = log.state.read(one.uri)
        files = json_object(raw, one.uri).get("files") if raw is not None else []
        if not isinstance(files, list) or not all(
            isinstance(uri, str) and is_below(uri, table.target_uri) for uri in files
        ):
            raise ConfigError(f"{one.uri} is damaged: delete it; the files that it names stay")
        if delete_unnamed(table, files, parent=parent):
            log.state.delete(one.uri)
