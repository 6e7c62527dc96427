"""Decides the outcome of a run whose attempt has ended, or that is no longer worked on.

The status handler, the summary, the reaper and a rerun all decide here, in the same way: by the
attempt's report, then the table's commit log, then the service's error. Before a run is marked
*failed* it is fenced off in the commit log, so that a worker that is still alive cannot publish it
afterwards.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.errors import ConfigError
from extract_jobs.reporting.metrics import metrics_line
from extract_jobs.reporting.report import Report
from extract_jobs.spec.attempt_names import report_of
from extract_jobs.storage import OpenStorage
from extract_jobs.tracking.map_item import Item, run_of
from extract_jobs.tracking.retry_policy import CATALOG_UNKNOWN, Decision, decide
from extract_jobs.tracking.table import Status, TrackedRun, Tracking

logger = logging.getLogger(__name__)

_MOST_HANDLER_ERROR = 400
_THREADS = 16
_METRICS = {"succeeded": "TablesSucceeded", "retry": "TablesRetried", "failed": "TablesFailed"}
_SUCCEEDED: dict[str, Any] = {
    "outcome": "succeeded", "wait_seconds": 0, "error_class": "", "error_message": ""
}  # fmt: skip
_FAILED: dict[str, Any] = {"outcome": "failed", "wait_seconds": 0}
_STATUS: dict[str, Status] = {"succeeded": "SUCCEEDED", "retry": "RETRYING", "failed": "FAILED"}


def judge(item: Item, open_storage: OpenStorage, *, last: bool = False) -> Decision:
    """Decide a run's outcome from its attempt's report and the table's commit log.

    A failed run can no longer publish anything, unless the decision is not `final`: then its commit
    exists and is not published yet, or the commit log could not be reached.

    Args:
        item: The attempt that ended, with what its service reported.
        open_storage: Returns the storage of a URI.
        last: Whether no further attempt is possible; a run to be retried has then failed.

    Raises:
        WriteFailed: Storage failed; calling again is safe.
    """
    report, note = _read_report(item, open_storage)
    if report is not None and report.status == "succeeded":
        return _as_last(decide(item, report, None, published=False), published=True, last=last)
    log = _log_of(item, open_storage)
    commit, published = _read_commit(log, item)
    decision = decide(item, report, commit, published=published, note=note)
    if published or (decision.outcome == "retry" and not last):
        return _as_last(decision, published=published, last=last)
    if commit is None and (nothing_new := _earlier_success(item, open_storage)) is not None:
        return replace(decide(item, nothing_new, None, published=False), **_SUCCEEDED)
    try:
        commit = log.fence(item["run_id"], by="the pipeline, which marked the run as failed")
        published = commit is not None and log.outcome(commit) == "published"
    except ConfigError as error:
        message = f"{decision.error_message}; it could not be fenced off in its commit log: {error}"
        failed = replace(decision, outcome="failed", wait_seconds=0, error_message=message)
        return replace(failed, final=False)
    if commit is not None:
        decision = decide(item, report, commit, published=published, note=note)
    decision = _as_last(decision, published=published, last=last)
    if decision.outcome == "failed" and commit is not None:
        decision = replace(decision, commit_seq=commit.seq, final=False)
    return decision


def _as_last(decision: Decision, *, published: bool, last: bool) -> Decision:
    """Return a decision without a further attempt, if it is the last one.

    Of a published run only the catalog would be tried again.
    """
    if not last or decision.outcome != "retry":
        return decision
    return replace(decision, **(_SUCCEEDED if published else _FAILED))


def with_turns(
    tables: Sequence[Item], tracking: Tracking, open_storage: OpenStorage
) -> Sequence[Item]:
    """Mark the tables of a batch whose turn had not come when the worker ended (``waits``).

    Whatever ended the worker is no failure of theirs. But where no table's turn had come, the job
    itself has failed, and all of its tables with it. So every attempt ends a table or counts as a
    failure of one, and a batch comes to an end.

    Raises:
        WriteFailed: Storage or the tracking table failed; calling again is safe.
    """
    if len(tables) == 1:
        return tables
    with ThreadPoolExecutor(_THREADS) as pool:
        begun = list(pool.map(lambda table: _has_begun(table, tracking, open_storage), tables))
    alone = not any(begun)
    return [
        {**table, "waits": not (alone or its)} for table, its in zip(tables, begun, strict=True)
    ]


def _has_begun(item: Item, tracking: Tracking, open_storage: OpenStorage) -> bool:
    """Return whether a worker began with a table in this attempt."""
    run = run_of(item)
    known = tracking.read(run.table_id, run.run_id)
    if known is not None and known.fence == run.fence:
        if known.decision:  # by an earlier call for the same attempt
            return not Decision.from_json(known.decision).waited
        if known.status != "PENDING":
            return True
    # Where the tracking table refused its beginning, it has reported that.
    return open_storage(item["report_uri"]).read(item["report_uri"]) is not None


def resolve_run(
    run: TrackedRun,
    item: Item | None,
    *,
    name: str,
    cause: str,
    tracking: Tracking,
    open_storage: OpenStorage,
) -> TrackedRun | None:
    """Record the outcome of a run that is no longer worked on, or correct a wrong one.

    Args:
        run: The run in the tracking table.
        item: Its Map item; None if it is gone.
        name: Error class to record if neither report nor commit log shows what happened.
        cause: Error message to record then.
        tracking: The tracking table.
        open_storage: Returns the storage of a URI.

    Returns:
        The updated run; None if nothing had to be written, or another writer was faster.

    Raises:
        WriteFailed: Storage or the tracking table failed; calling again is safe.
    """
    if item is None:
        asked: Item = {"failures": run.failures}
        decision = Decision("failed", error_class=name, error_message=cause, final=False)
    else:
        asked = {**item, "job_error": {"Error": name, "Cause": cause}}
        decision = _judge_what_can_be_read(asked, open_storage)
    if run.handler_error and decision.outcome == "failed":
        message = (
            f"{decision.error_message}; the status handler failed: {_error_in(run.handler_error)}"
        )
        decision = replace(decision, error_message=message)
    now = ended(run, asked, decision)
    if run.status == "FAILED":
        written = decision.outcome == "succeeded" and tracking.correct(now)
    else:
        written = tracking.end(now)
    if not written:
        return None
    logger.info("resolved: %s %s", decision.outcome, decision.error_class)
    count_outcome(decision, run, tracking)
    return now


def is_unresolved(run: TrackedRun) -> bool:
    """Return whether a run has no outcome yet, or one that may be wrong."""
    if run.status == "FAILED" and run.decision:
        return not Decision.from_json(run.decision).final
    return not run.ended


def ended(run: TrackedRun, item: Item, decision: Decision) -> TrackedRun:
    """Return the run with the outcome of its attempt, ready for the tracking table."""
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
        # What is known stays, if this attempt's worker did not say.
        catalog_error=run.catalog_error
        if decision.catalog_error is None
        else decision.catalog_error,
    )


def _error_in(caught: str) -> str:
    """Return a short form of an error that the state machine recorded."""
    try:
        found = json.loads(caught)
        name, cause = found["Error"], found.get("Cause", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return caught[:_MOST_HANDLER_ERROR]
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        cause = json.loads(cause)["errorMessage"]
    return f"{name}: {cause}"[:_MOST_HANDLER_ERROR]


def _judge_what_can_be_read(item: Item, open_storage: OpenStorage) -> Decision:
    """Decide without retries; a report or commit log that cannot be read is ignored."""
    try:
        return judge(item, open_storage, last=True)
    except ConfigError as error:
        name, cause = item["job_error"]["Error"], item["job_error"]["Cause"]
        message = f"{cause}; its report and commit log cannot be read: {error}"
        return Decision("failed", error_class=name, error_message=message, final=False)


def _earlier_success(item: Item, open_storage: OpenStorage) -> Report | None:
    """Return an earlier attempt's report of success, newest first; None if there is none.

    An attempt that found no new rows commits nothing. If its catalog was busy, another attempt
    follows only for the catalog, and the run has succeeded however that one ends.
    """
    for attempt in range(int(item["attempt"]) - 1, 0, -1):
        uri = report_of(item["report_uri"], attempt)
        report, _ = _read_report({**item, "attempt": attempt, "report_uri": uri}, open_storage)
        if report is not None and report.status == "succeeded":
            return report
    return None


def _read_report(item: Item, open_storage: OpenStorage) -> tuple[Report | None, str]:
    """Return the attempt's report, or None and why there is none."""
    uri = item["report_uri"]
    raw = open_storage(uri).read(uri)
    if raw is None:
        return None, f"the worker left no report at {uri}"
    try:
        report = Report.parse(raw, uri)
    except ConfigError as error:
        return None, str(error)
    if (report.run_id, report.attempt) != (item["run_id"], int(item["attempt"])):
        return None, f"the report at {uri} is from attempt {report.attempt} of run {report.run_id}"
    return report, ""


def _log_of(item: Item, open_storage: OpenStorage) -> CommitLog:
    storage = open_storage(item["state_uri"])
    return CommitLog(storage, item["state_uri"], storage)


def _read_commit(log: CommitLog, item: Item) -> tuple[Commit | None, bool]:
    """Return the run's commit, if there is one, and whether it is published.

    A log that cannot be read counts as empty: a retry is always safe.
    """
    try:
        found = log.find_run(item["run_id"])
        if found is not None:
            return found, True
        newest = log.newest()
        if newest is not None and newest.run_id == item["run_id"]:
            outcome = log.outcome(newest)
            return (newest, outcome == "published") if outcome != "voided" else (None, False)
    except ConfigError as error:
        logger.warning("the commit log at %s cannot be read: %s", log.state_uri, error)
    return None, False


def fields_of(run: TrackedRun) -> dict[str, Any]:
    """Return the fields that identify a run in log lines."""
    names = ("source_name", "extract_table", "run_id", "attempt", "execution_id")
    return {name: getattr(run, name) for name in names}


def count_outcome(decision: Decision, run: TrackedRun, tracking: Tracking) -> None:
    """Emit an outcome's metric. The writer of the outcome calls this, so it is counted once."""
    counts = {_METRICS[decision.outcome]: 1}
    if decision.outcome == "succeeded" and decision.catalog_error == CATALOG_UNKNOWN:
        counts["CatalogFailed"] = 1  # otherwise its worker has counted it
    line = metrics_line(
        counts,
        pipeline=tracking.table,
        now=tracking.clock(),
        error_class=decision.error_class,
        **fields_of(run),
    )
    print(line)  # noqa: T201
