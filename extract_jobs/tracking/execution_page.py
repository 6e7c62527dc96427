"""The page about an execution: what its runs, their reports and the tracking table say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

from extract_jobs.errors import ConfigError
from extract_jobs.reporting.page import TableRun, report_page
from extract_jobs.reporting.report import Report
from extract_jobs.reporting.table_state import TROUBLE, State, TableStatus, moment_of
from extract_jobs.storage import OpenStorage, join
from extract_jobs.tracking.cost_units import cost_units
from extract_jobs.tracking.item import TrackedRun
from extract_jobs.tracking.listed_items import ListedItems
from extract_jobs.watermark import WatermarkValue

PAGE_NAME = "report.html"
MOST_TABLES = 1_000
"""Maximum tables of a page, those in trouble first."""
_THREADS = 16
_READ_SECONDS = 240.0
"""How long reading the reports may take: the function that writes the page has 900 s for all."""
_STATES: dict[str, State] = {"SUCCEEDED": "ok", "FAILED": "failed", "RETRYING": "retrying"}


def write_execution_page(
    runs: Sequence[TrackedRun], open_storage: OpenStorage, now: datetime
) -> str | None:
    """Write the page about an execution beside its reports. Writing it again replaces it.

    Args:
        runs: Those of one execution.
        open_storage: Returns the storage of a URI.
        now: The present, UTC.

    Returns:
        The page's URI; None if no run has a report's URI that shows where the execution's are.

    Raises:
        ConfigError: Access was denied, or Jinja2 is not installed.
        TimeoutError: Reading the reports takes too long.
        WriteFailed: Storage failed.
    """
    folder = next(filter(None, map(_execution_folder, runs)), None)
    if folder is None:
        return None
    items = ListedItems(open_storage)
    newest = {run.extract_table: run for run in sorted(runs, key=lambda run: run.updated_at)}
    found = [
        with_units(run, newest[run.status.table], items)
        for run in table_runs(runs, lambda uri: open_storage(uri).read(uri))
    ]
    page = report_page(runs[0].source_name, found[:MOST_TABLES], now, left_out=found[MOST_TABLES:])
    uri = join(folder, PAGE_NAME)
    open_storage(uri).put(uri, page.encode(), content_type="text/html; charset=utf-8")
    return uri


def _execution_folder(run: TrackedRun) -> str | None:
    """Return the folder of a run's execution: it holds ``reports/<source>/<table>/<run>/…``."""
    parts = run.report_uri.rsplit("/", 5)
    is_one = len(parts) == 6 and parts[1] == "reports" and parts[4] == run.run_id
    return parts[0] if is_one else None


def with_units(run: TableRun, tracked: TrackedRun, items: ListedItems) -> TableRun:
    """Return a run with an estimate of what it used, if its job's size and time are known.

    Raises:
        WriteFailed: Storage failed.
    """
    item = items.of(tracked) if run.report else None
    return replace(run, units=cost_units(item, run.seconds)) if item and run.seconds else run


def table_runs(runs: Iterable[TrackedRun], read: Callable[[str], bytes | None]) -> list[TableRun]:
    """Return each table's newest run with its report, those in trouble first.

    Args:
        runs: Runs of one execution or of several.
        read: Returns an object's bytes; None if there is none.

    Raises:
        TimeoutError: Reading the reports takes too long.
    """
    tables: dict[str, list[TrackedRun]] = {}
    for run in runs:
        tables.setdefault(run.extract_table, []).append(run)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(
            pool.map(lambda own: newest_run(own, read), tables.values(), timeout=_READ_SECONDS)
        )
    return sorted(found, key=lambda run: TROUBLE.index(run.status.state))


def newest_run(runs: Iterable[TrackedRun], read: Callable[[str], bytes | None]) -> TableRun:
    """Return a table's newest run with its report.

    Args:
        runs: One or more of the table's, in any order.
        read: Returns an object's bytes; None if there is none.
    """
    runs = sorted(runs, key=lambda run: run.updated_at)
    newest = runs[-1]
    good = [run for run in runs if run.status == "SUCCEEDED"]
    report = _report(newest.report_uri, read)
    mark = WatermarkValue.from_json(report.watermark) if report else None
    state: State = _STATES.get(newest.status, "running")
    reason = f"{newest.error_class}: {newest.error_message}" if newest.error_class else ""
    if newest.status == "SUCCEEDED" and newest.catalog_error:
        state, reason = "failed", f"CatalogFailed: {newest.catalog_error}"
    status = TableStatus(
        newest.extract_table,
        state,
        reason,
        datetime.fromisoformat(good[-1].updated_at) if good else None,
        mark.text if mark else None,
        moment_of(mark),
        tuple(run.rows for run in good),
    )
    return TableRun(status, report, datetime.fromisoformat(newest.updated_at) if report else None)


def _report(uri: str, read: Callable[[str], bytes | None]) -> Report | None:
    """Return what a page shows of a report; None where a worker left none that can be read."""
    raw = read(uri) if uri else None
    try:
        report = Report.parse(raw, uri) if raw else None
    except ConfigError:
        return None
    # A page has no columns, which make most of a wide table's report.
    return report and report.model_copy(update={"columns": [], "fidelity": {}, "as_text": []})
