"""Partitions of the catalog's table: touched by a commit, missing, or superfluous."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.spec.parts import CatalogSpec
from extract_jobs.storage import join
from extract_jobs.transform.partitions import DEFAULT_PARTITION, values_of

_DELETED_AT_ONCE = 25  # what BatchDeletePartition takes

Partitions = dict[str, list[str]]
"""Values by location, in awswrangler's form."""


def touched(target_uri: str, log: CommitLog, commit: Commit) -> tuple[Partitions, list[list[str]]]:
    """Return the partitions that a commit has files in, and those that it emptied."""
    base = join(target_uri, "")
    added = {
        _location(f.staged.uri): _values(f.partition.values()) for f in commit.files if f.partition
    }
    left = {_location(uri) for uri in commit.retire} - added.keys() - {base}
    if left:  # a full extract that reads only what changed leaves files
        left -= {_location(file.staged.uri) for file in log.live_files(commit)}
    return added, [_values(values_of(location.removeprefix(base))) for location in sorted(left)]


def difference(
    catalog: CatalogSpec, target_uri: str, log: CommitLog, commit: Commit
) -> tuple[Partitions, list[list[str]]]:
    """Return the partitions that only live files have, and those that only the catalog has."""
    import awswrangler

    from extract_jobs.storage.aws_errors import session_without_foreign_answers

    live = {
        _location(f.staged.uri): _values(f.partition.values())
        for one in log.live(commit)
        for f in one.files
        if f.partition
    }
    listed: Partitions = awswrangler.catalog.get_partitions(
        database=catalog.database,
        table=catalog.table,
        boto3_session=session_without_foreign_answers(),
    )
    base = join(target_uri, "")
    there = {location.rstrip("/") + "/" for location in listed}
    added = {location: values for location, values in live.items() if location not in there}
    # Partitions of other folders were added by a person and stay.
    dropped = [
        values
        for location, values in listed.items()
        if location.startswith(base) and location.rstrip("/") + "/" not in live
    ]
    return added, dropped


def below(catalog: CatalogSpec, uri: str) -> list[list[str]]:
    """Return the values of all partitions of the catalog's table that lie below a folder."""
    import awswrangler

    from extract_jobs.storage.aws_errors import session_without_foreign_answers

    listed: Partitions = awswrangler.catalog.get_partitions(
        database=catalog.database,
        table=catalog.table,
        boto3_session=session_without_foreign_answers(),
    )
    base = join(uri, "")
    return [values for location, values in listed.items() if location.startswith(base)]


def _location(uri: str) -> str:
    return uri.rsplit("/", 1)[0] + "/"


def _values(values: Iterable[str | None]) -> list[str]:
    return [DEFAULT_PARTITION if value is None else value for value in values]


def add(catalog: CatalogSpec, partitions: Partitions) -> None:
    """Add partitions, a hundred per call; existing ones stay."""
    import awswrangler

    from extract_jobs.storage.aws_errors import session_without_foreign_answers

    if partitions:
        awswrangler.catalog.add_parquet_partitions(
            database=catalog.database,
            table=catalog.table,
            partitions_values=partitions,
            boto3_session=session_without_foreign_answers(),
        )


def drop(glue: Any, catalog: CatalogSpec, partitions: list[list[str]]) -> None:
    """Drop partitions; missing ones are no error. awswrangler does not report errors."""
    for batch in _batches(partitions):
        answer = glue.batch_delete_partition(
            DatabaseName=catalog.database,
            TableName=catalog.table,
            PartitionsToDelete=[{"Values": values} for values in batch],
        )
        codes = {error["ErrorDetail"].get("ErrorCode") for error in answer.get("Errors", ())}
        codes.discard("EntityNotFoundException")
        if codes:
            raise NotDropped(", ".join(sorted(map(str, codes))))


class NotDropped(Exception):
    """Glue kept some partitions; the message holds Glue's codes."""


def _batches(partitions: list[list[str]]) -> Iterator[list[list[str]]]:
    for start in range(0, len(partitions), _DELETED_AT_ONCE):
        yield partitions[start : start + _DELETED_AT_ONCE]
