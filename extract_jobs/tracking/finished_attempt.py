"""Settles an attempt that has ended: what it left behind is read, judged and counted."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from extract_jobs.commit.log import Commit, CommitLog
from extract_jobs.errors import ConfigError
from extract_jobs.reporting.metrics import metrics_line
from extract_jobs.reporting.report import Report
from extract_jobs.storage import OpenStorage
from extract_jobs.tracking.map_item import Item
from extract_jobs.tracking.retry_policy import Decision, decide
from extract_jobs.tracking.table import Status, TrackedRun, Tracking

logger = logging.getLogger(__name__)

_METRICS = {"succeeded": "TablesSucceeded", "retry": "TablesRetried", "failed": "TablesFailed"}
_STATUS: dict[str, Status] = {"succeeded": "SUCCEEDED", "retry": "RETRYING", "failed": "FAILED"}


def judge(item: Item, open_storage: OpenStorage) -> Decision:
    """Decide what becomes of a table by its attempt's report and the table's commit log.

    Args:
        item: The attempt that ended, with what its service said of it.
        open_storage: Gives the storage of a URI.

    Raises:
        WriteFailed: Storage failed; asking again is safe.
    """
    report, note = _read_report(item, open_storage)
    commit, published = None, False
    if report is None or report.status != "succeeded":
        commit, published = _read_commit(item, open_storage)
    return decide(item, report, commit, published=published, note=note)


def ended(run: TrackedRun, item: Item, decision: Decision) -> TrackedRun:
    """Return a run as the tracking table keeps it once its attempt was decided."""
    failed = decision.outcome != "succeeded" and decision.counted
    return replace(
        run,
        status=_STATUS[decision.outcome],
        failures=int(item["failures"]) + failed,
        decision=decision.to_json(),
        rows=decision.rows,
        bytes=decision.bytes,
        files=decision.files,
        commit_seq=decision.commit_seq,
        error_class=decision.error_class,
        error_message=decision.error_message,
    )


def _read_report(item: Item, open_storage: OpenStorage) -> tuple[Report | None, str]:
    """Return the attempt's own report, or None and why there is none."""
    uri = item["report_uri"]
    raw = open_storage(uri).read(uri)
    if raw is None:
        return None, f"the worker left no report at {uri}"
    try:
        report = Report.parse(raw, uri)
    except ConfigError as error:
        return None, str(error)
    if (report.run_id, report.attempt) != (item["run_id"], int(item["attempt"])):
        return None, f"the report at {uri} is attempt {report.attempt}'s of run {report.run_id}"
    return report, ""


def _read_commit(item: Item, open_storage: OpenStorage) -> tuple[Commit | None, bool]:
    """Return the run's commit, if it made one, and whether it is published.

    A log that cannot be read tells nothing: trying again is safe whatever it holds.
    """
    storage = open_storage(item["state_uri"])
    log = CommitLog(storage, item["state_uri"], storage)
    try:
        found = log.find_run(item["run_id"])
        if found is not None:
            return found, True
        newest = log.newest()
        if newest is not None and newest.run_id == item["run_id"]:
            outcome = log.outcome(newest)
            return (newest, outcome == "published") if outcome != "voided" else (None, False)
    except ConfigError as error:
        logger.warning("the commit log at %s cannot be read: %s", item["state_uri"], error)
    return None, False


def fields_of(run: TrackedRun) -> dict[str, Any]:
    """Return what names a run in lines of the log."""
    names = ("source_name", "extract_table", "run_id", "attempt", "execution_id")
    return {name: getattr(run, name) for name in names}


def count_outcome(decision: Decision, run: TrackedRun, tracking: Tracking) -> None:
    """Count an outcome as a metric: who wrote it to the tracking table does, and so it is once."""
    line = metrics_line(
        {_METRICS[decision.outcome]: 1},
        pipeline=tracking.table,
        now=tracking.clock(),
        error_class=decision.error_class,
        **fields_of(run),
    )
    print(line)  # noqa: T201
