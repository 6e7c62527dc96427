"""Lambda behind two states: "Handle Extract Job Run Status" and "Summarize Extract Run".

The first is called when a job has ended, however it ended, and decides from the worker's report,
the table's commit log and the service's answer. The second is called once all tables have ended.
Both may be called again: the second call returns the first one's answer and changes nothing.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from extract_jobs.errors import ConfigError, Interrupted
from extract_jobs.reporting.logs import in_every_line, log_json_lines
from extract_jobs.storage import OpenStorage, open_storage
from extract_jobs.tracking.batch_item import next_batch, tables_of
from extract_jobs.tracking.execution_page import write_execution_page
from extract_jobs.tracking.finished_attempt import (
    count_outcome,
    ended,
    fields_of,
    is_unresolved,
    judge,
    resolve_run,
    with_turns,
)
from extract_jobs.tracking.listed_items import ListedItems
from extract_jobs.tracking.map_item import Item, next_item, run_of
from extract_jobs.tracking.retry_policy import Decision
from extract_jobs.tracking.table import TrackedRun, Tracking, client_from_environment, utc_now

logger = logging.getLogger(__name__)

Decided = Decision | Literal["superseded"]

NEVER_REPORTED = "NeverReported"
"""The error class of a table that the Map left behind without an outcome."""
MAX_NAMED = 20
"""Maximum failed tables that the summary names."""
_THREADS = 16
_MAX_SUMMARY_MESSAGE = 4_000
_MAX_NAMED_MESSAGE = 300
_MAX_NAMED_BEHIND = 5


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Answer the state machine; see `handle` and `summarize`."""
    log_json_lines()
    in_every_line()
    action = event.get("action")
    if action == "handle":
        item = event["item"]
        in_every_line(**fields_of(run_of(item)))
        return handle(item, tracking=_tracking(item), open_storage=open_storage)
    if action == "summarize":
        in_every_line(execution_id=event["execution_id"])
        return summarize(event, tracking=_tracking(event), open_storage=open_storage)
    raise ConfigError(f"action is {action!r}; expected handle or summarize")


def handle(item: Item, *, tracking: Tracking, open_storage: OpenStorage) -> dict[str, Any]:
    """Decide what happens to a table whose job has ended, and write it to the tracking table.

    Args:
        item: The Map item of the attempt, with the job's result in ``job_result`` and
            ``job_error``.
        tracking: The tracking table.
        open_storage: Returns the storage of a URI.

    Returns:
        ``{"outcome": "succeeded" | "failed" | "superseded", "run_id"}``, or ``{"outcome": "retry",
        "run_id", "wait_seconds", "item"}`` with the next attempt's item. Superseded: a later
        attempt or generation has taken over and counts instead. The tables of a batch are decided
        one by one; the batch is retried with those that need it, if there are any.

    Raises:
        WriteFailed: Storage or the tracking table failed; calling again is safe.
    """
    if not item.get("batch"):
        return _next_step(item, [(item, _decide(item, tracking, open_storage))])
    tables = with_turns(tables_of(item), tracking, open_storage)
    with ThreadPoolExecutor(_THREADS) as pool:
        decided = list(pool.map(lambda table: _decide(table, tracking, open_storage), tables))
    return _next_step(item, list(zip(tables, decided, strict=True)))


def summarize(
    event: dict[str, Any], *, tracking: Tracking, open_storage: OpenStorage
) -> dict[str, Any]:
    """Count the results of an execution's tables, and judge it.

    A table without an outcome is resolved here from its report and its commit log: its child is
    gone, so nothing else would do it soon.

    Args:
        event: ``execution_id``, ``table_count``, ``note`` of the config manager, and ``map_error``
            from the Map's Catch.
        tracking: The tracking table.
        open_storage: Returns the storage of a URI.

    Returns:
        ``outcome`` (``succeeded`` if every table did), ``tables``, ``succeeded``, ``failed``,
        ``rows``, ``bytes``, ``failures_by_class``, ``failed_tables`` (the first `MAX_NAMED`),
        ``catalog_failed`` and ``catalog_failed_tables``, of those whose data is published and whose
        catalog table is not up to date, ``page``, the URI of a page about the execution (None if it
        could not be written), and ``message``, for a person.

    Raises:
        WriteFailed: Storage or the tracking table failed; calling again is safe.
    """
    map_error = event["map_error"]
    why = f"{map_error['Error']}: {map_error.get('Cause', '')}" if map_error["Error"] else ""
    # An execution that started before its stack was updated runs a state machine without a note.
    note = event.get("note", "")
    tracked = list(tracking.by_execution(event["execution_id"]))
    runs = _resolve_all(tracked, why, tracking, open_storage)
    failed = [run for run in runs if run.status != "SUCCEEDED"]
    classes = Counter(run.error_class for run in failed)
    missing = max(0, int(event["table_count"]) - len(runs))
    if missing:
        classes[NEVER_REPORTED] += missing
    count = len(failed) + missing
    good = [run for run in runs if run.status == "SUCCEEDED"]
    behind = [run for run in runs if run.catalog_error]
    figures = {
        "execution_id": event["execution_id"],
        "outcome": "failed" if count else "succeeded",
        "tables": len(runs) + missing,
        "succeeded": len(good),
        "failed": count,
        "rows": sum(run.rows for run in good),
        "bytes": sum(run.bytes for run in good),
        "failures_by_class": dict(sorted(classes.items())),
        "failed_tables": [run.extract_table for run in failed[:MAX_NAMED]],
        "catalog_failed": len(behind),
        "catalog_failed_tables": [run.extract_table for run in behind[:MAX_NAMED]],
    }
    notes = ". ".join(filter(None, (_behind_message(behind), note)))
    page = _write_page(runs, open_storage, tracking)
    return {**figures, "page": page, "message": _message(figures, failed, why, notes, page)}


def _write_page(
    runs: Sequence[TrackedRun], open_storage: OpenStorage, tracking: Tracking
) -> str | None:
    """Write the execution's page and return its URI; None, with a log line, if that fails."""
    try:
        return write_execution_page(runs, open_storage, tracking.clock())
    except Exception:  # the outcome of an execution does not depend on a page
        logger.exception("the page about the execution could not be written")
        return None


@functools.cache
def _client() -> Any:
    """One client per process, created at the first call and not at import."""
    return client_from_environment()


def _tracking(event: dict[str, Any]) -> Tracking:
    return Tracking(_client(), event["tracking_table"], utc_now)


def _decide(item: Item, tracking: Tracking, open_storage: OpenStorage) -> Decided:
    """Decide what becomes of one table, and write it to the tracking table."""
    run = run_of(item)
    known = tracking.read(run.table_id, run.run_id)
    recorded = _recorded(run, known)
    if recorded is not None:
        return recorded
    decision = judge(_with_reason(item, run, known), open_storage)
    logger.info("%s: %s %s", run.extract_table, decision.outcome, decision.error_class)
    if tracking.end(ended(run, item, decision)):
        count_outcome(decision, run, tracking)
        return decision
    # Another call for the same attempt was faster, or the run has moved on.
    return _recorded(run, tracking.read(run.table_id, run.run_id)) or "superseded"


def _recorded(run: TrackedRun, known: TrackedRun | None) -> Decided | None:
    """Return what was decided for this attempt already, or None if it is still to be decided."""
    if known is None or known.fence < run.fence:
        return None
    if known.fence == run.fence and known.decision:
        return Decision.from_json(known.decision)
    if known.fence == run.fence and not known.ended:
        return None
    return "superseded"


def _with_reason(item: Item, run: TrackedRun, known: TrackedRun | None) -> Item:
    """Return the item with our own reason for stopping the job, if we did; a service has none."""
    if known is None or known.fence != run.fence or not known.stopped_because:
        return item
    stopped = {"Error": Interrupted.__name__, "Cause": known.stopped_because}
    return {**item, "job_error": stopped}


def _next_step(item: Item, decided: Sequence[tuple[Item, Decided]]) -> dict[str, Any]:
    decisions = [(table, found) for table, found in decided if isinstance(found, Decision)]
    retried = [(table, decision) for table, decision in decisions if decision.outcome == "retry"]
    if not retried:
        outcomes = {decision.outcome for _, decision in decisions} | {"superseded"}
        outcome = next(one for one in ("failed", "succeeded", "superseded") if one in outcomes)
        return {"outcome": outcome, "run_id": item["run_id"]}
    if item.get("batch"):
        following = next_batch(item, retried)
    else:
        [(_, decision)] = retried
        following = next_item(item, counted=decision.counted, bigger=decision.bigger)
    wait = max(decision.wait_seconds for _, decision in retried)
    answer = {"outcome": "retry", "run_id": item["run_id"]}
    return {**answer, "wait_seconds": wait, "item": following}


def _resolve_all(
    runs: Sequence[TrackedRun], why: str, tracking: Tracking, open_storage: OpenStorage
) -> list[TrackedRun]:
    """Resolve the runs without an outcome, or with one that may be wrong; return all runs."""
    items = ListedItems(open_storage)

    def resolved(run: TrackedRun) -> TrackedRun:
        if not is_unresolved(run):
            return run
        now = resolve_run(
            run,
            items.of(run),
            name=NEVER_REPORTED,
            cause=f"still {run.status} when the Map ended{why and f'; {why}'}",
            tracking=tracking,
            open_storage=open_storage,
        )
        return now or tracking.read(run.table_id, run.run_id) or run

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(resolved, runs))


def _message(
    figures: dict[str, Any],
    failed: list[TrackedRun],
    why: str,
    note: str = "",
    page: str | None = None,
) -> str:
    shown = f". The page about it: {page}" if page else ""
    if not figures["failed"]:
        good = f"{figures['tables']} tables, {figures['rows']} rows, {figures['bytes']} bytes"
        return good + (f". {note}" if note else "") + shown
    named = "; ".join(
        f"{run.extract_table} ({run.error_class}: {_cut(run.error_message, _MAX_NAMED_MESSAGE)})"
        for run in failed[:MAX_NAMED]
    )
    rest = figures["failed"] - len(failed[:MAX_NAMED])
    again = json.dumps({"rerun_failed_of": figures["execution_id"]})
    head = f"{figures['failed']} of {figures['tables']} tables failed"
    tail = f". Start the state machine with {again} to run just these again{shown}"
    body = ": ".join(filter(None, (head, named))) + (f"; and {rest} more" if rest else "")
    body += f". {note}" if note else ""
    body += f". The Map failed: {why}" if why else ""
    return _cut(body, _MAX_SUMMARY_MESSAGE - len(tail)) + tail


def _behind_message(behind: Sequence[TrackedRun]) -> str:
    """Return the message about tables that are published but not up to date in the catalog."""
    if not behind:
        return ""
    named = "; ".join(
        f"{run.extract_table} ({_cut(run.catalog_error or '', _MAX_NAMED_MESSAGE)})"
        for run in behind[:_MAX_NAMED_BEHIND]
    )
    rest = len(behind) - len(behind[:_MAX_NAMED_BEHIND])
    more = f"; and {rest} more" if rest else ""
    return f"The catalog is not up to date for {named}{more}; the next run of each updates it"


def _cut(text: str, most: int) -> str:
    """Return at most ``most`` characters of a text, cut between words if it is longer."""
    if len(text) <= most:
        return text
    kept = text[: most - 2]
    head, _, _ = kept.rpartition(" ")
    # A word that fills half of it is a URI or the like: then a part of it is better than nothing.
    return f"{head if len(head) > most // 2 else kept} …"
