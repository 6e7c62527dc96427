"""The tracking table: what became of every run, in DynamoDB.

One item a run, keyed by ``table_id`` (``<source_name>/<extract_table>``) and ``run_id``, and one
item a table with the sort key `LATEST` that tells its last commit. An index on ``execution_id``
finds the runs of an execution. A run's status goes::

    PENDING ──► RUNNING ──► SUCCEEDED            never left
                   │  ▲ └──► FAILED               left only by a new generation: a rerun
                   ▼  │ next attempt
                 RETRYING

Every write is conditional on the *fence* ``(generation, attempt)``, so that a worker or handler
that was given up on can never overwrite what its successor wrote. The conditions have names below.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from extract_jobs.errors import ConfigError, ExtractError, WriteFailed

Status = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "RETRYING"]
LATEST = "LATEST"
EXECUTION_INDEX = "execution_id-index"
MAX_MESSAGE = 1_000
"""Characters of an error that an item keeps; the report has the whole of it."""
WRITE_THREADS = 32

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
"""An attempt may start unless it was already given up on: a service that starts the same attempt
twice is let through, one whose outcome the status handler has decided is not."""

CAN_END = (
    f"{UNKNOWN} OR (#status IN (:PENDING, :RUNNING, :RETRYING) AND {NOT_BEHIND})"
    " OR (#status = :FAILED AND generation < :generation)"
)
"""An outcome may be written for this attempt or a later one, never over a terminal status."""

IS_LATEST = "attribute_not_exists(commit_seq) OR commit_seq < :commit_seq"
"""`LATEST` only ever moves to a later commit."""

_CONFIGURATION_CODES = {
    "AccessDeniedException", "ResourceNotFoundException", "UnrecognizedClientException",
    "InvalidSignatureException", "ValidationException", "ExpiredTokenException",
}  # fmt: skip
_TRANSACTION_TRIES = 8
_NUMBERS = {"generation", "attempt", "failures", "rows", "bytes", "files", "commit_seq"}
_IDENTITY = frozenset({
    "status", "generation", "attempt", "execution_id", "source_name", "extract_table", "job_type",
    "spec_uri", "report_uri", "updated_at",
})  # fmt: skip
# A worker knows nothing of earlier failures, and its start takes back an earlier decision.
_STARTED = _IDENTITY | {"decision"}
_ENDED = _STARTED | {
    "failures", "rows", "bytes", "files", "commit_seq", "error_class", "error_message",
}  # fmt: skip


@dataclass(frozen=True)
class TrackedRun:
    """A run as the tracking table knows it.

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
        commit_seq: The commit that holds them; None where there is none.
        error_class: Name of what failed last; empty where nothing did.
        error_message: Its message, cut to `MAX_MESSAGE`.
        updated_at: When the item was written, ISO 8601, UTC.
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
    updated_at: str = ""

    @property
    def fence(self) -> tuple[int, int]:
        """``(generation, attempt)``."""
        return self.generation, self.attempt

    @property
    def ended(self) -> bool:
        """Whether the run has an outcome."""
        return self.status in {"SUCCEEDED", "FAILED"}


@dataclass(frozen=True)
class Tracking:
    """Reads and writes one tracking table. Safe to share between threads.

    Every method raises `ConfigError` where the table is absent or access is denied, `WriteFailed`
    where DynamoDB still fails after the client's own retries.

    Attributes:
        client: A DynamoDB client (boto3).
        table: Name of the table.
        clock: Gives the present, UTC.
        sleep: Waits some seconds; for transactions that collide.
    """

    client: Any
    table: str
    clock: Callable[[], datetime]
    sleep: Callable[[float], None] = time.sleep

    # --- writing ---------------------------------------------------------------------------

    def announce(self, runs: Iterable[TrackedRun]) -> int:
        """Put a PENDING item for each run, many at a time (`CAN_BE_PENDING`).

        Doing it again for the same runs changes nothing: what they have become since stays.

        Returns:
            How many items were new.
        """
        with ThreadPoolExecutor(WRITE_THREADS) as pool:
            return sum(pool.map(self._announce_one, runs))

    def start(self, run: TrackedRun) -> bool:
        """Say that a worker runs an attempt (`CAN_RUN`).

        Returns:
            False if the attempt is outdated: it was given up on, or the run has ended. The worker
            must not go on then.
        """
        return self._update(replace(run, status="RUNNING"), CAN_RUN, _STARTED)

    def end(self, run: TrackedRun) -> bool:
        """Write an attempt's outcome: SUCCEEDED, FAILED or RETRYING (`CAN_END`).

        A run that succeeded with a commit moves the table's `LATEST` in the same transaction,
        unless a later commit is there already.

        Returns:
            False if the item holds a terminal status or a newer fence, and so was left alone.
        """
        if run.status == "SUCCEEDED" and run.commit_seq is not None:
            return self._end_with_latest(run, run.commit_seq)
        return self._update(run, CAN_END, _ENDED)

    # --- reading ---------------------------------------------------------------------------

    def read(self, table_id: str, run_id: str) -> TrackedRun | None:
        """Return a run as last written (a consistent read), or None."""
        with _mapped(self.table):
            found = self.client.get_item(
                TableName=self.table, Key=_key(table_id, run_id), ConsistentRead=True
            )
        return _decode(found["Item"]) if "Item" in found else None

    def latest(self, table_id: str) -> dict[str, Any] | None:
        """Return the table's `LATEST` item, or None before the first commit.

        Its attributes: ``latest_run_id``, ``latest_execution_id``, ``commit_seq``, ``rows``,
        ``bytes``, ``updated_at``.
        """
        with _mapped(self.table):
            found = self.client.get_item(
                TableName=self.table, Key=_key(table_id, LATEST), ConsistentRead=True
            )
        return _plain(found["Item"]) if "Item" in found else None

    def by_execution(self, execution_id: str) -> Iterator[TrackedRun]:
        """Yield every run of an execution, ordered by table, over all pages.

        The index follows the table within moments; a run that it shows as not ended is read again
        from the table itself, so that an outcome written before this call is never missed.
        """
        start: dict[str, Any] = {}
        while True:
            with _mapped(self.table):
                page = self.client.query(
                    TableName=self.table,
                    IndexName=EXECUTION_INDEX,
                    KeyConditionExpression="execution_id = :execution",
                    ExpressionAttributeValues={":execution": {"S": execution_id}},
                    **start,
                )
            for item in page["Items"]:
                run = _decode(item)
                yield run if run.ended else (self.read(run.table_id, run.run_id) or run)
            if not page.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    # --- inside ----------------------------------------------------------------------------

    def _announce_one(self, run: TrackedRun) -> bool:
        item = _encode(replace(run, status="PENDING", updated_at=self._now()))
        with _mapped(self.table):
            try:
                self.client.put_item(
                    TableName=self.table,
                    Item=item,
                    ConditionExpression=CAN_BE_PENDING,
                    **_operands(run, CAN_BE_PENDING),
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def _update(self, run: TrackedRun, condition: str, fields: frozenset[str]) -> bool:
        with _mapped(self.table):
            try:
                self.client.update_item(**self._update_of(run, condition, fields))
            except self.client.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def _end_with_latest(self, run: TrackedRun, commit_seq: int) -> bool:
        for attempt in range(_TRANSACTION_TRIES):
            with _mapped(self.table):
                try:
                    self.client.transact_write_items(
                        TransactItems=[
                            {"Update": self._update_of(run, CAN_END, _ENDED)},
                            {"Update": self._latest_of(run, commit_seq)},
                        ]
                    )
                except self.client.exceptions.TransactionCanceledException as error:
                    reasons = [r.get("Code") for r in error.response["CancellationReasons"]]
                else:
                    return True
            if reasons[0] == "ConditionalCheckFailed":
                return False
            if reasons[1] == "ConditionalCheckFailed":
                return self._update(run, CAN_END, _ENDED)
            self.sleep(0.05 * 2**attempt)  # TransactionConflict: another run of the table ends
        raise WriteFailed(
            f"{self.table}: {run.table_id} run {run.run_id} could not be set to {run.status}: "
            f"{_TRANSACTION_TRIES} transactions were cancelled ({reasons}); try again"
        )

    def _update_of(self, run: TrackedRun, condition: str, fields: frozenset[str]) -> dict[str, Any]:
        item = _encode(replace(run, updated_at=self._now()))
        written = sorted(fields & item.keys())
        operands = _operands(run, condition)
        names = {f"#f{i}": field for i, field in enumerate(written)}
        values = {f":f{i}": item[field] for i, field in enumerate(written)}
        return {
            "TableName": self.table,
            "Key": _key(run.table_id, run.run_id),
            "UpdateExpression": "SET " + ", ".join(f"{name} = :{name[1:]}" for name in names),
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {**names, **operands["ExpressionAttributeNames"]},
            "ExpressionAttributeValues": {**values, **operands["ExpressionAttributeValues"]},
        }

    def _latest_of(self, run: TrackedRun, commit_seq: int) -> dict[str, Any]:
        # Not named execution_id: the item would show up in the index as a run of its own.
        return {
            "TableName": self.table,
            "Key": _key(run.table_id, LATEST),
            "UpdateExpression": (
                "SET commit_seq = :commit_seq, latest_run_id = :run, #rows = :rows, "
                "#bytes = :bytes, latest_execution_id = :execution, updated_at = :now"
            ),
            "ConditionExpression": IS_LATEST,
            "ExpressionAttributeNames": {"#rows": "rows", "#bytes": "bytes"},
            "ExpressionAttributeValues": {
                ":commit_seq": {"N": str(commit_seq)},
                ":run": {"S": run.run_id},
                ":rows": {"N": str(run.rows)},
                ":bytes": {"N": str(run.bytes)},
                ":execution": {"S": run.execution_id},
                ":now": {"S": self._now()},
            },
        }

    def _now(self) -> str:
        return self.clock().isoformat(timespec="milliseconds")


def client_from_environment() -> Any:
    """Return a DynamoDB client that retries throttling and broken connections.

    ``AWS_ENDPOINT_URL`` and everything else that botocore reads is honoured.
    """
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "max_attempts": 8}
    return boto3.client(
        "dynamodb", config=Config(retries=retries, max_pool_connections=WRITE_THREADS)
    )


def utc_now() -> datetime:
    """Return the present, UTC."""
    return datetime.now(UTC)


def create_table(client: Any, table: str) -> None:
    """Create the tracking table as infra/template.yaml does; for tests and the laptop."""
    attributes = ("table_id", "run_id", "execution_id")
    client.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": a, "AttributeType": "S"} for a in attributes],
        KeySchema=[
            {"AttributeName": "table_id", "KeyType": "HASH"},
            {"AttributeName": "run_id", "KeyType": "RANGE"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": EXECUTION_INDEX,
                "KeySchema": [
                    {"AttributeName": "execution_id", "KeyType": "HASH"},
                    {"AttributeName": "table_id", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    )
    client.get_waiter("table_exists").wait(TableName=table)


def _key(table_id: str, run_id: str) -> dict[str, Any]:
    return {"table_id": {"S": table_id}, "run_id": {"S": run_id}}


def _operands(run: TrackedRun, condition: str) -> dict[str, Any]:
    """Return the placeholders that a condition uses; DynamoDB refuses ones that it does not."""
    values: dict[str, Any] = {
        f":{status}": {"S": status}
        for status in ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "RETRYING")
        if f":{status}" in condition
    }
    values[":generation"] = {"N": str(run.generation)}
    if ":attempt" in condition:
        values[":attempt"] = {"N": str(run.attempt)}
    return {
        "ExpressionAttributeNames": {"#status": "status"},
        "ExpressionAttributeValues": values,
    }


def _encode(run: TrackedRun) -> dict[str, Any]:
    """Return the item of a run.

    An attribute that a table's index has as its key must not be empty, so an unknown execution is
    left out; so is a commit that there is none of.
    """
    message = run.error_message
    if len(message) > MAX_MESSAGE:
        message = message[: MAX_MESSAGE - 1] + "…"
    item = {}
    for name, value in replace(run, error_message=message).__dict__.items():
        if name in _NUMBERS and value is not None:
            item[name] = {"N": str(value)}
        elif value or name not in {"execution_id", "commit_seq"}:
            item[name] = {"S": value}
    return item


def _decode(item: dict[str, Any]) -> TrackedRun:
    known = TrackedRun.__dataclass_fields__
    return TrackedRun(**{name: value for name, value in _plain(item).items() if name in known})


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    return {
        name: int(value["N"]) if "N" in value else value.get("S", "")
        for name, value in item.items()
    }


@contextlib.contextmanager
def _mapped(table: str) -> Iterator[None]:
    """Turn what botocore raises into the errors of this package."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ExtractError:
        raise
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _CONFIGURATION_CODES:
            raise ConfigError(
                f"tracking table {table}: {code}; give its name, and dynamodb:GetItem, PutItem, "
                "UpdateItem and Query on it and on its index"
            ) from error
        raise WriteFailed(f"tracking table {table}: {code} after retries") from error
    except BotoCoreError as error:
        raise WriteFailed(f"tracking table {table}: {type(error).__name__}") from error
