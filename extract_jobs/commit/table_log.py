"""The commit log of a spec's table, for whoever looks at it from outside of a run."""

from __future__ import annotations

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.iceberg.table import IcebergTable
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import OpenStorage, open_storage


def commit_log(spec: ExtractSpec, open_storage: OpenStorage = open_storage) -> CommitLog:
    """Return the commit log of a spec's table."""
    state, target = open_storage(spec.state_uri), open_storage(spec.target.uri)
    table = IcebergTable.of(spec, open_storage)
    return CommitLog(state, spec.state_uri, target, spec.target.uri, table)


def last_published(log: CommitLog) -> Commit | None:
    """Return the last published commit, leaving one without an outcome as it is."""
    newest = log.newest()
    if newest is None or log.outcome(newest) == "published":
        return newest
    return log.read(newest.parent) if newest.parent else None
