"""``expire``: deletes old snapshots of Iceberg tables, and the files that only they name."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

from extract_jobs.cli.each_table import one_by_one
from extract_jobs.cli.selection import selected_specs
from extract_jobs.commit.expiry import expire_snapshots
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.table_log import commit_log
from extract_jobs.errors import EXIT_DONE, ConfigError
from extract_jobs.reporting.figures import counted
from extract_jobs.spec.extract_spec import ExtractSpec


def command(arguments: argparse.Namespace) -> int:
    """Expire snapshots of each Iceberg table; one that fails does not stop the others.

    Raises:
        ExtractError: The worst failure of a table, or none of the tables is an Iceberg table.
    """
    specs = [spec for spec in selected_specs(arguments) if spec.target.is_iceberg]
    if not specs:
        raise ConfigError(
            "none of the tables is an Iceberg table (target.format: iceberg): there are no "
            "snapshots to expire"
        )
    one_by_one(specs, lambda spec: _expire(spec, arguments), traceback=arguments.traceback)
    return EXIT_DONE


def _expire(spec: ExtractSpec, arguments: argparse.Namespace) -> None:
    older_than = arguments.older_than
    if older_than is None:
        older_than = spec.keep_retired
    if older_than is None:
        raise ConfigError(
            "give the age of snapshots to expire, such as --older-than 7d, or set keep_retired"
        )
    print_expired(
        commit_log(spec), older_than, datetime.now(UTC),
        dry_run=arguments.dry_run, prefix=f"{spec.extract_table}: ",
    )  # fmt: skip


def print_expired(
    log: CommitLog, older_than: timedelta, now: datetime, *, dry_run: bool, prefix: str = ""
) -> None:
    """Expire a table's snapshots that were replaced longer ago than a period, and say so.

    Args:
        log: The table's.
        older_than: The period.
        now: The present, UTC.
        dry_run: Change nothing; only say what would be done.
        prefix: What the line begins with.

    Raises:
        ExtractError: The catalog or storage failed.
    """
    expired = expire_snapshots(log, older_than, now, dry_run=dry_run)
    verb = "would be expired" if dry_run else "expired"
    files = counted(len(expired.files), "file")
    snapshots = counted(expired.snapshots, "snapshot")
    print(f"{prefix}{snapshots} {verb}, and {files} deleted", flush=True)
