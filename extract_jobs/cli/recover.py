"""``recover``: finishes last commits, drops abandoned staged files, brings catalogs up to date."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

from extract_jobs.cli.each_table import one_by_one
from extract_jobs.cli.expire import print_expired
from extract_jobs.cli.history import age_text, younger
from extract_jobs.cli.selection import selected_specs
from extract_jobs.commit.log import ABANDON_AFTER, CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.commit.table_log import commit_log, last_published
from extract_jobs.errors import EXIT_DONE, CatalogFailed
from extract_jobs.reporting.figures import counted
from extract_jobs.spec.extract_spec import ExtractSpec


def command(arguments: argparse.Namespace) -> int:
    """Recover each table; one that fails does not stop the others.

    Raises:
        ExtractError: The worst failure of a table.
    """
    one_by_one(
        selected_specs(arguments),
        lambda spec: _recover(spec, arguments),
        traceback=arguments.traceback,
    )
    return EXIT_DONE


def _recover(spec: ExtractSpec, arguments: argparse.Namespace) -> None:
    """Publish or void the last commit, drop what nobody can use any more, update the catalog."""
    now, age = datetime.now(UTC), arguments.abandon_after
    if age is None:
        age = ABANDON_AFTER
    log = commit_log(spec)
    dropped = log.recover(spec.target.uri, abandon_after=age, now=now, dry_run=arguments.dry_run)
    young = younger(log, spec.target.uri, now - age)
    verb = "would be dropped" if arguments.dry_run else "dropped"
    line = f"{spec.extract_table}: {counted(len(dropped), 'staged file')} {verb}"
    if young:
        are = "is" if young == 1 else "are"
        line += f"; {young} younger than {age_text(age)} {are} left (see --abandon-after)"
    print(line, flush=True)
    for upload in dropped:
        print(f"  {upload.uri} ({upload.started_at.isoformat(timespec='seconds')})")
    if log.table is not None:
        if spec.keep_retired is not None:
            print("  ", end="")
            print_expired(log, spec.keep_retired, now, dry_run=arguments.dry_run)
        return
    kept = log.kept.drop(spec.keep_retired or timedelta(0), now, dry_run=arguments.dry_run)
    if kept:
        print(f"  {counted(len(kept), 'kept file')} {verb}, whose time is over", flush=True)
    commit = last_published(log)
    if commit is not None and not arguments.dry_run:
        bring_catalog_up_to_date(spec, log, commit)


def bring_catalog_up_to_date(spec: ExtractSpec, log: CommitLog, commit: Commit) -> None:
    """Update a table's catalog table, if it has one, to the last published commit.

    Raises:
        CatalogFailed: It could not be updated.
    """
    if spec.target.catalog is None or spec.target.is_iceberg:
        return  # an Iceberg table is up to date with its commit
    from extract_jobs.catalog import update_catalog

    assert spec.target.catalog is not None
    catalog = update_catalog(spec, log, commit)
    name = f"{spec.target.catalog.database}.{spec.target.catalog.table}"
    if catalog.state == "failed":
        raise CatalogFailed(f"catalog table {name} is not up to date: {catalog.error}")
    print(f"  catalog table {name} is up to date", flush=True)
