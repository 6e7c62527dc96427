"""The Glue Data Catalog: a table over the target's folder and its partitions.

Outside the commit's outcome and repeatable: what one run could not do, the next one mends. The
table's parameter ``extract_commit`` says up to which commit it is complete, and is written last. A
run that finds its own base there only adds and drops the partitions that its commit touched, so the
cost does not grow with history; any other compares all partitions with the log's live files.

Partitions have no columns of their own: engines take the table's, so that a type that widened holds
for older partitions too.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from extract_jobs.catalog.columns import athena_type, table_columns
from extract_jobs.catalog.partitions import NotDropped, add, below, difference, drop, touched
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
from extract_jobs.commit.log import Commit, CommitLog
from extract_jobs.errors import ConfigError
from extract_jobs.spec.extract_spec import CatalogSpec, ExtractSpec
from extract_jobs.storage import join

__all__ = ["CatalogOutcome", "athena_type", "check_catalog", "update_catalog"]

logger = logging.getLogger(__name__)

_TRIES = 6
_LONGEST_REASON = 500


@dataclass(frozen=True)
class CatalogOutcome:
    """What became of the catalog's table, and why where it failed."""

    state: Literal["none", "updated", "failed"]
    error: str | None = None


def update_catalog(spec: ExtractSpec, log: CommitLog, commit: Commit) -> CatalogOutcome:
    """Create or evolve the catalog table, and bring its partitions to those of this commit.

    Args:
        spec: Names the catalog table; without one nothing is done.
        log: Gives the live files where earlier commits are not in the catalog.
        commit: The commit just published.

    Returns:
        ``none`` without a catalog table, ``updated``, or ``failed`` where anything went wrong:
        the data is published all the same, and the reason is in the log too.
    """
    catalog = spec.target.catalog
    if catalog is None:
        return CatalogOutcome("none")
    try:
        _patiently(lambda: _update(catalog, spec, log, commit))
    except Exception as error:  # noqa: BLE001 - nothing here may fail a published extract
        reason = _reason(error)
        logger.warning(
            "catalog table %s.%s was not brought up to date: %s; the data is published, and the "
            "next run mends the catalog",
            catalog.database, catalog.table, reason,
        )  # fmt: skip
        return CatalogOutcome("failed", reason)
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
    """Refuse, before a row is read, what the catalog could not take or what is not ours in it.

    Where Glue cannot be asked, that is logged and nothing is refused: a denied permission does not
    keep a table from being extracted.

    Args:
        spec: Names the catalog table; without one nothing is checked.
        log: Keeps that the catalog's table is to be moved.
        fingerprint: Of the source.
        columns: Arrow's type of each column that the files will have.
        partition_by: Names of the partition fields, in path order.
        first: Whether the table has no commit yet.

    Raises:
        ConfigError: Names or types that Glue or Athena cannot have; a catalog table that is
            somebody else's, of another location, or partitioned by other fields.
    """
    catalog = spec.target.catalog
    if catalog is None:
        return
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        _, folders = table_columns(columns, partition_by)
    except ValueError as error:
        raise ConfigError(f"{spec.extract_table}: target.catalog: {error}") from error
    patience = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 3})
    try:
        with closing(boto3.client("glue", config=patience)) as glue:
            found = read_table(glue, catalog)
    except (BotoCoreError, ClientError) as error:
        logger.warning("%s: the catalog was not looked at: %s", spec.extract_table, _reason(error))
        return
    if found is not None:
        try:
            _moves(found, spec, log, fingerprint, first=first)
            check_keys(found, folders)
        except ConfigError as error:
            raise ConfigError(f"{spec.extract_table}: {error}") from error


def _update(catalog: CatalogSpec, spec: ExtractSpec, log: CommitLog, commit: Commit) -> None:
    import boto3

    columns, folders = table_columns(commit.columns, commit.partition_by)
    owner = owner_of(spec, commit.fingerprint)
    with closing(boto3.client("glue")) as glue:
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
        if known > commit.seq:
            return  # a later run was faster, and has seen the files of this one
        if folders:
            if known and known in (commit.parent, commit.seq):
                added, dropped = touched(spec.target.uri, commit)
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
    """Return what `is_moved` does, also for the runs after one that could not move the table.

    The first run leaves a note in the state, which lasts until the catalog's table has moved.
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


def _patiently(update: Callable[[], None]) -> None:
    """Do it again where another writer was in between: all of it, since the table is another."""
    for number in range(_TRIES):
        try:
            return update()
        except Exception as error:
            if number == _TRIES - 1 or not _is_concurrent(error):
                raise
            time.sleep(random.uniform(0.5, 1.0) * 0.2 * 2**number)  # noqa: S311 - no secret
    return None


def _is_concurrent(error: Exception) -> bool:
    # awswrangler gives the codes of single partitions as text.
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", "")) or str(error)
    return any(
        word in code for word in ("ConcurrentModification", "VersionMismatch", "OperationTimeout")
    )


def _reason(error: Exception) -> str:
    """Return what a message may say of an error: AWS's own texts may quote partition values."""
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        code = error.response["Error"].get("Code", "?")
        told = f"Glue refused {error.operation_name} ({code})"
        if code == "AccessDeniedException":
            told += f": the role needs glue:{error.operation_name}"
    elif isinstance(error, ValueError | ConfigError):
        told = str(error)
    elif isinstance(error, NotDropped):
        told = f"Glue kept partitions that have no files any more ({error})"
    else:
        told = type(error).__name__
    return told[:_LONGEST_REASON]
