"""``history``, and what else commands read out of a commit log, without an extract's imports."""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta

from extract_jobs.cli.selection import selected_specs
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.table_log import commit_log
from extract_jobs.errors import EXIT_DONE
from extract_jobs.reporting.figures import aligned, count_text, size_text
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import OpenStorage, open_storage


def younger(log: CommitLog, target_uri: str, than: datetime) -> int:
    """Count staged files of a table that started after ``than``, without those of a commit."""
    newest = log.newest()
    committed = {f.staged.uri for f in newest.files} if newest else set()
    staged = log.target.abandoned(target_uri)
    return sum(one.started_at > than and one.uri not in committed for one in staged)


def age_text(age: timedelta) -> str:
    """Return an age in the largest of hours, minutes and seconds that has no remainder."""
    seconds = int(age.total_seconds())
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


_HEADER = ["table", "seq", "outcome", "run", "attempt", "rows", "bytes", "files", "watermark"]


def commit_rows(
    spec: ExtractSpec, limit: int, open_storage: OpenStorage = open_storage
) -> list[list[str]]:
    """Return one row for each of a table's last commits, newest first; one row if it has none.

    Args:
        spec: The spec whose commit log is read.
        limit: Maximum rows.
        open_storage: Returns the storage of a URI.
    """
    rows = [
        [
            spec.extract_table,
            str(commit.seq),
            outcome or "unfinished",
            commit.run_id,
            str(commit.attempt),
            count_text(commit.rows),
            size_text(commit.size),
            str(commit.file_count),
            commit.watermark["text"] if commit.watermark else "-",
        ]
        for commit, outcome in commit_log(spec, open_storage).history(limit)
    ]
    return rows or [[spec.extract_table, "-", "no commit", *["-"] * 6]]


def command(arguments: argparse.Namespace) -> int:
    """Print the commits of tables, newest first."""
    rows = [_HEADER]
    for spec in selected_specs(arguments):
        rows += commit_rows(spec, arguments.commits)
    print("\n".join(aligned(rows)))
    return EXIT_DONE
