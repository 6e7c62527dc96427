"""Decides a table's outcome after a job has ended: succeeded, retried, or failed.

A pure function: the same input always gives the same decision, so a handler that is called twice
gives the same answer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from extract_jobs import errors
from extract_jobs.commit.record import Commit
from extract_jobs.errors import (
    CatalogFailed,
    ConfigError,
    ExtractError,
    Interrupted,
    WorkerOutOfMemory,
)
from extract_jobs.reporting.memory_errors import is_out_of_memory, is_taken_away
from extract_jobs.reporting.report import Report, catalog_failure
from extract_jobs.tracking.map_item import Item
from extract_jobs.tracking.service_errors import no_retry_helps

Outcome = Literal["succeeded", "retry", "failed"]
ROLL_FORWARD_LIMIT = 5
"""Attempts beyond ``max_attempts`` that only finish a commit, before the table fails."""
CATALOG_UNKNOWN = "the worker ended before it said whether the catalog is up to date"
"""The ``catalog_error`` of a table that is published, and whose worker left no report of that."""
_MOST_WAIT_SECONDS = 6 * 3600
_ROLL_FORWARD_WAIT_SECONDS = 10
_MOST_CAUSE = 500

_EXIT_CODE = re.compile(r"exit ?code(\s+is)?[\"':= ]*\s*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Decision:
    """The decision for one attempt.

    Attributes:
        outcome: ``retry`` means another attempt.
        wait_seconds: Wait before that attempt.
        counted: Whether this attempt counts against ``max_attempts``.
        bigger: Whether the next worker gets more memory.
        error_class: A class of `extract_jobs.errors`, or a service's error name.
        error_message: Its message.
        rows: Rows committed by the run.
        bytes: Bytes of Parquet committed.
        files: Files committed.
        commit_seq: The commit that holds them; None if nothing was committed. For a failed run: the
            prepared commit that is still to be published.
        final: Whether a failure can never turn out to be a success.
        catalog_error: Why the catalog does not show the commit; empty if it does, None if unknown.
        waited: Whether the table's turn in its batch had not come.
    """

    outcome: Outcome
    wait_seconds: int = 0
    counted: bool = True
    bigger: bool = False
    error_class: str = ""
    error_message: str = ""
    rows: int = 0
    bytes: int = 0
    files: int = 0
    commit_seq: int | None = None
    final: bool = True
    catalog_error: str | None = None
    waited: bool = False

    def to_json(self) -> str:
        """Return the form stored in the tracking table, to repeat the answer later."""
        kept = {k: getattr(self, k) for k in ("outcome", "wait_seconds", "counted", "bigger")}
        if not self.final:
            kept["final"] = False
        if self.waited:
            kept["waited"] = True
        return json.dumps(kept, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Decision:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed: a name, a message, and what may help."""

    name: str
    message: str
    retryable: bool
    bigger: bool = False


def decide(
    item: Item, report: Report | None, commit: Commit | None, *, published: bool, note: str = ""
) -> Decision:
    """Decide a table's outcome.

    Args:
        item: The attempt that ended, with ``job_result`` and ``job_error`` as the state machine
            filled them in. ``waits`` is true of a table of a batch whose turn had not come when
            the worker ended.
        report: The attempt's report; None if there is none that can be read.
        commit: The run's commit, from any attempt; None if it has none.
        published: Whether that commit is published; otherwise it has no outcome yet.
        note: Why there is no report, for the message.
    """
    if report is not None and report.status == "succeeded":
        return _succeeded(item, report)
    if commit is not None and published:
        return _published(item, commit)
    failure = _reported(report) or _seen_from_outside(item, note)
    if commit is not None:
        return _roll_forward(item, failure, commit)
    if item.get("waits"):
        return _still_waiting(failure)
    failures = int(item["failures"]) + 1
    decision = Decision("failed", error_class=failure.name, error_message=failure.message)
    if failure.retryable and failures < int(item["retry"]["max_attempts"]):
        wait = _backoff_seconds(item, failures)
        return replace(decision, outcome="retry", wait_seconds=wait, bigger=failure.bigger)
    return decision


def _succeeded(item: Item, report: Report) -> Decision:
    """The data is published. Another attempt retries a busy catalog."""
    figures = {k: getattr(report, k) for k in ("bytes", "files", "commit_seq")}
    figures["rows"] = report.table_rows
    if report.catalog != "failed":
        return Decision("succeeded", **figures, catalog_error="")
    error = report.catalog_error or "the worker gave no reason"
    decision = Decision("succeeded", **figures, catalog_error=error)
    if not report.catalog_retryable:
        return decision
    return _with_catalog(item, decision, catalog_failure(report))


def _published(item: Item, commit: Commit) -> Decision:
    """The data is published, and the worker did not get as far as its report."""
    decision = Decision(
        "succeeded",
        rows=commit.rows,
        bytes=sum(f.staged.size for f in commit.files),
        files=len(commit.files),
        commit_seq=commit.seq,
    )
    if not item.get("catalog"):
        return decision
    decision = replace(decision, catalog_error=CATALOG_UNKNOWN)
    return _with_catalog(item, decision, f"the data is published; {CATALOG_UNKNOWN}")


def _with_catalog(item: Item, decision: Decision, message: str) -> Decision:
    """Return a retry that only updates the catalog; the decision itself after the last attempt."""
    failures = int(item["failures"]) + 1
    if failures >= int(item["retry"]["max_attempts"]):
        return decision
    return replace(
        decision, outcome="retry", wait_seconds=_backoff_seconds(item, failures),
        error_class=CatalogFailed.__name__, error_message=message,
    )  # fmt: skip


def _roll_forward(item: Item, failure: Failure, commit: Commit) -> Decision:
    """The run's commit exists and only its outcome is missing: the next attempt finishes it."""
    limit = int(item["retry"]["max_attempts"]) + ROLL_FORWARD_LIMIT + int(item.get("waited", 0))
    message = f"commit {commit.seq} is prepared but not published yet; {failure.message}"
    outcome: Outcome = "retry" if int(item["attempt"]) < limit else "failed"
    wait = min(_ROLL_FORWARD_WAIT_SECONDS, int(item["retry"]["backoff_seconds"]))
    decision = Decision(outcome, wait, False, failure.bigger, failure.name, message)
    return replace(decision, waited=bool(item.get("waits")))


def _still_waiting(failure: Failure) -> Decision:
    """The worker ended over another table of the batch: this one has failed at nothing."""
    message = f"the worker ended before the table's turn in its batch: {failure.message}"
    return Decision(
        "retry", counted=False, waited=True, error_class=failure.name, error_message=message
    )


def _backoff_seconds(item: Item, failures: int) -> int:
    """Doubles with each failure, with jitter of a quarter that depends only on the attempt."""
    base = int(item["retry"]["backoff_seconds"]) << (failures - 1)
    seed = f"{item['run_id']}/{item['generation']}/{item['attempt']}"
    spread = hashlib.sha256(seed.encode()).digest()[0] / 255 * 0.5 + 0.75
    return min(_MOST_WAIT_SECONDS, round(base * spread))


def _reported(report: Report | None) -> Failure | None:
    if report is None or report.error is None:
        return None
    error = report.error
    bigger = error.class_name == WorkerOutOfMemory.__name__
    return Failure(error.class_name, error.message, error.retryable, bigger)


def _seen_from_outside(item: Item, note: str) -> Failure:
    """Decide by the service's error if the worker reported nothing."""
    name, whole = _service_error(item)
    cause = whole[:_MOST_CAUSE]
    message = f"{cause or 'the job ended'}; {note}" if note else cause
    if is_out_of_memory(f"{name} {whole}"):
        return Failure(WorkerOutOfMemory.__name__, message, True, bigger=True)
    spoken = _class_in(f"{name}: {whole}")
    if spoken is not None:
        return Failure(spoken.__name__, message, spoken.retryable)
    if is_taken_away(whole):
        return Failure(Interrupted.__name__, message, True)
    code = _EXIT_CODE.search(whole)
    if code and int(code[2]) == errors.EXIT_CONFIG:
        return Failure(ConfigError.__name__, message, False)
    return Failure(name or "ReportMissing", message, not no_retry_helps(name, whole))


def _service_error(item: Item) -> tuple[str, str]:
    """Return the error's name and the relevant part of its cause, which may be truncated."""
    caught = item.get("job_error")
    caught = caught if isinstance(caught, dict) else {}
    name, cause = str(caught.get("Error") or ""), str(caught.get("Cause") or "")
    try:
        parts = list(_shown_fields(json.loads(cause)))
    except (ValueError, RecursionError):
        parts = []
    return name, " ".join(("; ".join(parts) or cause).split())


_SHOWN_FIELDS = ("ErrorMessage", "StateDetails", "StoppedReason", "StopCode", "Reason", "Message",
            "ExitCode", "JobRunState", "State", "errorMessage")  # fmt: skip


def _shown_fields(value: Any) -> Iterator[str]:
    """Yield the fields of a service's description that show why a job ended, in order."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _SHOWN_FIELDS and isinstance(inner, str | int) and inner != "":
                yield f"{key}: {inner}"
            else:
                yield from _shown_fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _shown_fields(inner)


def _class_in(text: str) -> type[ExtractError] | None:
    """Return our class named in a worker's last line, if the service passed it on."""
    for match in re.finditer(r"\b([A-Z][A-Za-z]+): ", text):
        found = getattr(errors, match[1], None)
        if isinstance(found, type) and issubclass(found, ExtractError):
            return found
    return None
