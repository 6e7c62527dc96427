"""``rollback``: makes a table what it was after an earlier commit."""

from __future__ import annotations

import argparse

from extract_jobs.cli.recover import bring_catalog_up_to_date
from extract_jobs.cli.selection import selected_spec
from extract_jobs.commit.rollback import roll_back, run_id_of_rollback
from extract_jobs.commit.table_log import commit_log
from extract_jobs.errors import EXIT_DONE, printable
from extract_jobs.reporting.figures import counted, size_text


def command(arguments: argparse.Namespace) -> int:
    """Publish a commit that holds what an earlier one held, and update the catalog.

    Raises:
        ConfigError: There is nothing to go back to.
        CatalogFailed: The commit is published, and the catalog is not up to date.
        ExtractError: Storage failed, or a run committed meanwhile.
    """
    spec = selected_spec(arguments)
    log = commit_log(spec)
    run_id = run_id_of_rollback(arguments.to)
    done = roll_back(log, arguments.to, run_id=run_id, keep=spec.keep_retired is not None)
    rows, size = sum(f.rows for f in done.files), sum(f.staged.size for f in done.files)
    is_kept = done.keeps_retired or log.table is not None
    kept = "kept" if is_kept else "deleted (keep_retired keeps them)"
    print(
        printable(
            f"{spec.extract_table}: commit {done.seq} restores commit {arguments.to}: "
            f"{counted(len(done.files), 'file')}, {counted(rows, 'row')}, {size_text(size)}; "
            f"{counted(len(done.retire), 'file')} of commit {done.parent} {kept}"
        ),
        flush=True,
    )
    if done.watermark is not None:
        print(f"  the next increment starts above {printable(done.watermark['text'])}", flush=True)
    bring_catalog_up_to_date(spec, log, done)
    return EXIT_DONE
