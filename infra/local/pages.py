"""The page about an execution, or about several, as `extract-jobs report` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from extract_jobs.cli.report import write_page
from extract_jobs.cli.report_page import TableRun
from extract_jobs.cli.table_status import State, TableStatus, moment_of
from extract_jobs.reporting.report import Report
from extract_jobs.tracking.item import TrackedRun
from extract_jobs.watermark import WatermarkValue
from infra.local.stack import Stack

_STATES: dict[str, State] = {"SUCCEEDED": "ok", "FAILED": "failed", "RETRYING": "retrying"}


def write_execution_page(path: Path, title: str, stack: Stack, runs: Iterable[TrackedRun]) -> Path:
    """Write a page about each table's newest run of some executions.

    Args:
        path: The page's file; its folder is made.
        title: The page's heading.
        stack: Where the reports are.
        runs: Runs of one execution or of several.

    Returns:
        Where it is, as an absolute path.
    """
    tables: dict[str, list[TrackedRun]] = {}
    for run in sorted(runs, key=lambda run: run.updated_at):
        tables.setdefault(run.extract_table, []).append(run)
    found = [_table_run(stack, of_table) for of_table in tables.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(path, title, found, datetime.now(UTC))
    return path.absolute()


def _table_run(stack: Stack, runs: Sequence[TrackedRun]) -> TableRun:
    """Return a table's newest run with its report; ``runs`` are in the order of their ends."""
    newest = runs[-1]
    good = [run for run in runs if run.status == "SUCCEEDED"]
    report, ended_at = _report(stack, newest.report_uri)
    mark = WatermarkValue.from_json(report.watermark) if report else None
    status = TableStatus(
        newest.extract_table,
        _STATES.get(newest.status, "running"),
        f"{newest.error_class}: {newest.error_message}" if newest.error_class else "",
        datetime.fromisoformat(good[-1].updated_at) if good else None,
        mark.text if mark else None,
        moment_of(mark),
        tuple(run.rows for run in good),
    )
    return TableRun(status, report, ended_at)


def _report(stack: Stack, uri: str) -> tuple[Report | None, datetime | None]:
    """Return a report and when it was left; nothing where a worker left none."""
    client = stack.client("s3")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        answer = client.get_object(Bucket=bucket, Key=key)
    except client.exceptions.NoSuchKey:
        return None, None
    return Report.parse(answer["Body"].read(), uri), answer["LastModified"].astimezone(UTC)
