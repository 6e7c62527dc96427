"""The Glue Data Catalog: a table over the target's folder and its partitions.

Updates are outside the commit's outcome and repeatable: if one run fails to update the catalog, the
next one does it, whether or not it has new rows. The table's parameter ``extract_commit`` holds the
commit up to which the table is complete, and is written last. A run that finds its own base there
adds and drops only the partitions that its commit touched, so the cost does not grow with history.
Any other run compares all partitions with the log's live files.

Partitions have no columns of their own: engines use the table's, so a widened type applies to older
partitions too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from extract_jobs.catalog.columns import athena_type, table_columns
from extract_jobs.catalog.glue_errors import is_passing, patiently, reason
from extract_jobs.catalog.partitions import add, below, difference, drop, touched
from extract_jobs.catalog.table import (
    check_keys,
    complete_up_to,
    create_table,
    is_moved,
    mark_table,
    move_table,
    owner_of,
    read_table,
    state_of,
)
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.errors import ConfigError
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import CatalogSpec
from extract_jobs.storage import join

__all__ = ["CatalogOutcome", "athena_type", "check_catalog", "update_catalog"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CatalogOutcome:
    """The result of updating the catalog's table.

    Attributes:
        state: ``none`` if the spec names no table.
        error: Why the update failed.
        retryable: Whether the same update may succeed later, because Glue was busy or not
            reachable.
    """

    state: Literal["none", "updated", "failed"]
    error: str | None = None
    retryable: bool = False


def update_catalog(spec: ExtractSpec, log: CommitLog, commit: Commit) -> CatalogOutcome:
    """Create or evolve the catalog table, and update its partitions to this commit.

    A table marked with this commit or a later one is left alone, which costs one call.

    Args:
        spec: Names the catalog table and how long to wait for a busy Glue. Without a table nothing
            is done, nor for an Iceberg table, which its commit has updated.
        log: Has the live files, which are needed if earlier commits are not in the catalog.
        commit: The newest published commit.

    Returns:
        ``none`` without a catalog table, ``updated``, or ``failed`` if anything went wrong. The
        data is published even then, and the reason is logged too.
    """
    catalog = spec.target.catalog
    if catalog is None or spec.target.is_iceberg:
        return CatalogOutcome("none")
    try:
        patiently(lambda: _update(catalog, spec, log, commit), spec.target.catalog_wait_seconds)
    except Exception as error:  # noqa: BLE001 - nothing here may fail a published extract
        said = reason(error)
        logger.warning(
            "catalog table %s.%s was not updated: %s; the data is published, and the next run "
            "updates the catalog, even if it finds no new rows",
            catalog.database, catalog.table, said,
        )  # fmt: skip
        return CatalogOutcome("failed", said, is_passing(error))
    return CatalogOutcome("updated")


def check_catalog(
    spec: ExtractSpec,
    log: CommitLog,
    fingerprint: Mapping[str, str],
    columns: Mapping[str, str],
    partition_by: Sequence[str],
    *,
    first: bool,
) -> None:
    """Check before any row is read that the catalog can take the table, and that it is ours.

    If Glue cannot be queried, that is logged and nothing is refused: a denied permission does not
    stop an extract.

    Args:
        spec: Names the catalog table; without one nothing is checked.
        log: Records that the catalog's table is to be moved.
        fingerprint: The source's.
        columns: Arrow's type of each column that the files will have.
        partition_by: Names of the partition fields, in path order.
        first: Whether the table has no commit yet.

    Raises:
        ConfigError: Glue or Athena does not support a name or type, or the catalog table belongs to
            someone else, has another location or is partitioned by other fields.
    """
    catalog = spec.target.catalog
    if catalog is None or spec.target.is_iceberg:
        return
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        _, folders = table_columns(columns, partition_by)
    except ValueError as error:
        raise ConfigError(f"{spec.extract_table}: target.catalog: {error}") from error
    try:
        with closing(_client()) as glue:
            found = read_table(glue, catalog)
    except (BotoCoreError, ClientError) as error:
        logger.warning("%s: the catalog was not checked: %s", spec.extract_table, reason(error))
        return
    if found is not None:
        try:
            _moves(found, spec, log, fingerprint, first=first)
            check_keys(found, folders)
        except ConfigError as error:
            raise ConfigError(f"{spec.extract_table}: {error}") from error


def _client() -> Any:
    import boto3
    from botocore.config import Config

    from extract_jobs.storage.aws_errors import default_session_lock, refuse_foreign_answers

    bounds = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 3})
    with default_session_lock:
        client = boto3.client("glue", config=bounds)
    return refuse_foreign_answers(client)


def _update(catalog: CatalogSpec, spec: ExtractSpec, log: CommitLog, commit: Commit) -> None:
    from extract_jobs.storage.aws_errors import default_session_lock

    columns, folders = table_columns(commit.columns, commit.partition_by)
    owner = owner_of(spec, commit.fingerprint)
    # awswrangler takes clients from the default session all the way.
    with default_session_lock, closing(_client()) as glue:
        found = read_table(glue, catalog)
        if found is None:
            create_table(catalog, spec.target.uri, columns, folders, owner)
            found = read_table(glue, catalog)
            assert found is not None
        moved = _moves(found, spec, log, commit.fingerprint, first=commit.parent == 0)
        check_keys(found, folders)
        if moved:
            drop(glue, catalog, below(catalog, found["StorageDescriptor"]["Location"]))
            move_table(
                glue, catalog, found, target_uri=spec.target.uri, columns=columns, owner=owner
            )
            found = read_table(glue, catalog)
            assert found is not None
        known = complete_up_to(found, commit.table_id)
        if known >= commit.seq and not moved:
            return  # complete already, or a later run was faster and has added these files
        if folders:
            if known and known == commit.parent:
                added, dropped = touched(spec.target.uri, log, commit)
            else:
                added, dropped = difference(catalog, spec.target.uri, log, commit)
            drop(glue, catalog, dropped)
            add(catalog, added)
        mark_table(glue, catalog, found, columns, commit=commit, owner=owner)
    if moved:
        log.state.delete(_note_of(log))


def _moves(
    found: Mapping[str, Any],
    spec: ExtractSpec,
    log: CommitLog,
    fingerprint: Mapping[str, str],
    *,
    first: bool,
) -> bool:
    """Return `is_moved`, and True for runs after one that could not move the table.

    The first run leaves a note in the state until the catalog's table is moved.
    """
    note = json.dumps({"version": 1, "moves_from": state_of(found)}).encode()
    try:
        moved = is_moved(found, spec, fingerprint, first=first)
    except ConfigError:
        if first or log.state.read(_note_of(log)) != note:
            raise
        moved = is_moved(found, spec, fingerprint, first=True)
    if moved:
        log.state.put_if_absent(_note_of(log), note)
    return moved


def _note_of(log: CommitLog) -> str:
    return join(log.state_uri, "catalog.json")
