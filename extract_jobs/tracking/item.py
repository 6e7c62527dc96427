"""Items of the tracking table: what they hold, and the named conditions for writing them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

Status = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "RETRYING"]
LATEST = "LATEST"
EXECUTION_INDEX = "execution_id-index"
MAX_MESSAGE = 1_000
"""Maximum characters of an error in an item; the report has all of it."""

NOT_BEHIND = "(generation < :generation OR (generation = :generation AND attempt <= :attempt))"
"""The stored fence is this writer's or an older one."""

STRICTLY_AHEAD = "(generation < :generation OR (generation = :generation AND attempt < :attempt))"
"""The stored fence is older than this writer's."""

UNKNOWN = "attribute_not_exists(generation)"
"""There is no such item yet."""

CAN_BE_PENDING = f"{UNKNOWN} OR (generation < :generation AND #status <> :SUCCEEDED)"
"""A run is announced once per generation; a succeeded one is never announced again."""

CAN_RUN = (
    f"{UNKNOWN} OR (#status IN (:PENDING, :RUNNING) AND {NOT_BEHIND})"
    f" OR (#status = :RETRYING AND {STRICTLY_AHEAD})"
    " OR (#status = :FAILED AND generation < :generation)"
)
"""An attempt may start unless it was given up on: a service may start the same attempt twice, but
not after the status handler has decided its outcome."""

CAN_END = (
    f"{UNKNOWN} OR (#status IN (:PENDING, :RUNNING, :RETRYING) AND {NOT_BEHIND})"
    " OR (#status = :FAILED AND generation < :generation)"
)
"""An outcome may be written for this attempt or a later one, never over a terminal status."""

IS_WRONG = "#status = :FAILED AND generation = :generation AND attempt = :attempt"
"""A failure of this same attempt that turned out to be a success."""

IS_RUNNING = "#status = :RUNNING AND generation = :generation AND attempt = :attempt"
"""This very attempt is running."""

IS_LATEST = "attribute_not_exists(commit_seq) OR commit_seq < :commit_seq"
"""`LATEST` only moves to a later commit."""

_NUMBERS = {"generation", "attempt", "failures", "rows", "bytes", "files", "commit_seq"}
_IDENTITY = frozenset({
    "status", "generation", "attempt", "execution_id", "source_name", "extract_table", "job_type",
    "spec_uri", "report_uri", "updated_at",
})  # fmt: skip
# A worker does not know earlier failures, and its start revokes an earlier decision.
STARTED = _IDENTITY | {"decision", "beat_at", "progress", "stopped_because"}
BEAT = frozenset({"beat_at", "progress"})
STOPPED = frozenset({"stopped_because"})
ENDED = STARTED | {
    "failures", "rows", "bytes", "files", "commit_seq", "error_class", "error_message",
    "catalog_error",
}  # fmt: skip


@dataclass(frozen=True)
class TrackedRun:
    """A run in the tracking table.

    Attributes:
        table_id: ``<source_name>/<extract_table>``.
        run_id: The run.
        generation: 1, and one more for each rerun of a failed table.
        attempt: The attempt that wrote last.
        status: See the module.
        execution_id: ARN of the execution that the run belongs to.
        source_name: The source.
        extract_table: The table.
        job_type: Where the worker runs.
        spec_uri: The run's spec.
        report_uri: The report of the attempt that wrote last.
        failures: Attempts that counted as failed.
        decision: What the status handler decided for this attempt, JSON; empty before.
        rows: Rows committed.
        bytes: Bytes of Parquet committed.
        files: Files committed.
        commit_seq: The commit that holds them; None without one.
        error_class: Name of the last error; empty without one.
        error_message: Its message, cut to `MAX_MESSAGE`.
        catalog_error: Why the catalog does not show the commit; empty if it does, None if unknown.
        handler_error: JSON of the error that the status handler finally failed with, written by the
            state machine; empty if it succeeded.
        beat_at: When the running attempt last wrote its progress, ISO 8601, UTC; empty for one of a
            version that writes none.
        progress: That progress, JSON; see `extract_jobs.tracking.heartbeat`.
        stopped_because: Why the attempt's job was stopped by us; empty if it was not.
        updated_at: When the status was written, ISO 8601, UTC.
    """

    table_id: str
    run_id: str
    generation: int = 1
    attempt: int = 1
    status: Status = "PENDING"
    execution_id: str = ""
    source_name: str = ""
    extract_table: str = ""
    job_type: str = ""
    spec_uri: str = ""
    report_uri: str = ""
    failures: int = 0
    decision: str = ""
    rows: int = 0
    bytes: int = 0
    files: int = 0
    commit_seq: int | None = None
    error_class: str = ""
    error_message: str = ""
    catalog_error: str | None = None
    handler_error: str = ""
    beat_at: str = ""
    progress: str = ""
    stopped_because: str = ""
    updated_at: str = ""

    @property
    def fence(self) -> tuple[int, int]:
        """``(generation, attempt)``."""
        return self.generation, self.attempt

    @property
    def ended(self) -> bool:
        """Whether the run has an outcome."""
        return self.status in {"SUCCEEDED", "FAILED"}


def key(table_id: str, run_id: str) -> dict[str, Any]:
    """Return the primary key of a run."""
    return {"table_id": {"S": table_id}, "run_id": {"S": run_id}}


def operands(run: TrackedRun, condition: str) -> dict[str, Any]:
    """Return the placeholders that a condition uses; DynamoDB refuses unused ones."""
    values: dict[str, Any] = {
        f":{status}": {"S": status}
        for status in ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "RETRYING")
        if f":{status}" in condition
    }
    values[":generation"] = {"N": str(run.generation)}
    if ":attempt" in condition:
        values[":attempt"] = {"N": str(run.attempt)}
    if ":beat_at" in condition:
        values[":beat_at"] = {"S": run.beat_at}
    return {
        "ExpressionAttributeNames": {"#status": "status"},
        "ExpressionAttributeValues": values,
    }


def encode(run: TrackedRun) -> dict[str, Any]:
    """Return the item of a run.

    An index's key attribute must not be empty, so an unknown execution is left out; so are None
    values.
    """
    message = run.error_message
    if len(message) > MAX_MESSAGE:
        message = message[: MAX_MESSAGE - 1] + "…"
    item = {}
    for name, value in replace(run, error_message=message).__dict__.items():
        if value is None or (name == "execution_id" and not value):
            continue
        item[name] = {"N": str(value)} if name in _NUMBERS else {"S": value}
    return item


def decode(item: dict[str, Any]) -> TrackedRun:
    """Return the run of an item; unknown attributes are left out."""
    known = TrackedRun.__dataclass_fields__
    return TrackedRun(**{name: value for name, value in plain(item).items() if name in known})


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item's attributes as Python values, which are whole numbers and text."""
    return {
        name: int(value["N"]) if "N" in value else value.get("S", "")
        for name, value in item.items()
    }
