"""Runs tables for the command line: the result of each, and of all."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from extract_jobs.cli.process import internal_error, note_stop, stop_requested
from extract_jobs.engine.worker_processes import WorkerProcesses
from extract_jobs.errors import (
    EXIT_CATALOG,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_RETRY,
    WORST_FIRST,
    CatalogFailed,
    ExtractError,
)
from extract_jobs.reporting.progress import Progress
from extract_jobs.reporting.report import (
    Report,
    ReportedError,
    catalog_failure,
    failed_report,
    reported,
)
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import open_storage


@dataclass(frozen=True)
class Ended:
    """A table whose run has ended: its report, and the exit code that it alone would give."""

    spec: ExtractSpec
    progress: Progress
    report: Report
    code: int


def one_by_one(
    specs: Sequence[ExtractSpec], begin: Callable[[ExtractSpec], Progress], *, trace: bool
) -> Generator[Ended]:
    """Run tables one after another and yield each when it has ended; after a signal, no other.

    Args:
        specs: The tables.
        begin: Returns the progress to notify of a table.
        trace: Whether the traceback of a failure is printed.
    """
    for spec in specs:
        progress = begin(spec)
        report, code = run_one(spec, progress, trace=trace)
        yield Ended(spec, progress, report, code)
        if stop_requested():
            return


def run_one(
    spec: ExtractSpec,
    progress: Progress,
    *,
    trace: bool,
    workers: WorkerProcesses | None = None,
) -> tuple[Report, int]:
    """Run one table.

    Args:
        spec: What to extract.
        progress: Notified of every step.
        trace: Whether the traceback of a failure is printed.
        workers: Processes that it shares with other tables; None starts its own.

    Returns:
        Its report, even on failure, and the exit code for this table alone.
    """
    try:
        report = run_extract(spec, progress=progress, workers=workers)
        return report, EXIT_CATALOG if report.catalog == "failed" else EXIT_DONE
    except Exception as error:  # noqa: BLE001 - the next table may do better
        note_stop(error)
        if trace:
            traceback.print_exc()
        if isinstance(error, ExtractError):
            failure, code = reported(error), error.exit_code
        else:
            name, _, message = internal_error(error).partition(": ")
            failure = ReportedError(class_name=name, message=message, retryable=False)
            code = EXIT_FAILED
    failed = failed_report(spec, failure)
    return _left_behind(spec, failed) or failed, code


def _left_behind(spec: ExtractSpec, failed: Report) -> Report | None:
    """Return the report that the run itself wrote, which has more detail; None without one."""
    try:
        raw = open_storage(spec.report_uri).read(spec.report_uri)
        found = Report.parse(raw) if raw else None
    except ExtractError:
        return None
    return found if found and found.error == failed.error else None


def worst(failed: Sequence[tuple[Report, int]], of: int, run_id: str) -> tuple[str, int]:
    """Return the last line and the exit code of a command some of whose tables failed.

    Configuration errors come first, then what a retry may fix, then the rest. If tables failed in
    different ways, the line has the command's own class, and each table its class.

    Args:
        failed: Reports and exit codes of the tables that failed, at least one.
        of: How many tables were requested.
        run_id: The run, for trying again.
    """
    code = min((code for _, code in failed), key=WORST_FIRST.index)
    failures = [
        (r.extract_table, r.error or reported(CatalogFailed(catalog_failure(r)))) for r, _ in failed
    ]
    if of == 1:
        [(_, error)] = failures
        return f"{error.class_name}: {' '.join(error.message.split())}", code
    classes = {error.class_name for _, error in failures}
    shown = [
        table if len(classes) == 1 else f"{table} ({error.class_name})"
        for table, error in failures[:10]
    ]
    name = classes.pop() if len(classes) == 1 else "ExtractRunFailed"
    more = f" and {len(failed) - 10} more" if len(failed) > 10 else ""
    again = f"; to repeat this run, add --run-id {run_id}" if code == EXIT_RETRY else ""
    return f"{name}: {len(failed)} of {of} tables failed: {', '.join(shown)}{more}{again}", code


@contextmanager
def reports_only(wanted: bool) -> Iterator[TextIO]:
    """Reserve standard output for reports: other writes to it go to standard error.

    Not only Python writes: the JVM that Spark starts inherits the descriptor.
    """
    if not wanted:
        yield sys.stdout
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as stdout:
            yield stdout
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
