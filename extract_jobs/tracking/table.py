"""The tracking table in DynamoDB: the status of every run.

One item per run, keyed by ``table_id`` (``<source_name>/<extract_table>``) and ``run_id``, and one
item a table with the sort key `LATEST` that has its last commit. An index on ``execution_id`` finds
the runs of an execution. A run's status goes::

    PENDING ──► RUNNING ──► SUCCEEDED            never left
                   │  ▲ └──► FAILED               left only by a new generation: a rerun
                   ▼  │ next attempt
                 RETRYING

Every write is conditional on the *fence* ``(generation, attempt)``, so an abandoned worker or
handler can never overwrite what its successor wrote. The conditions have names, in
`extract_jobs.tracking.item`.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from extract_jobs.errors import ConfigError, ExtractError, WriteFailed
from extract_jobs.tracking.item import (
    BEAT,
    CAN_BE_PENDING,
    CAN_END,
    CAN_RUN,
    ENDED,
    EXECUTION_INDEX,
    IS_LATEST,
    IS_RUNNING,
    IS_WRONG,
    LATEST,
    STARTED,
    STOPPED,
    Status,
    TrackedRun,
    decode,
    encode,
    key,
    operands,
    plain,
)

__all__ = ["Status", "TrackedRun", "Tracking", "client_from_environment", "create_table", "utc_now"]

WRITE_THREADS = 32

_CONFIGURATION_CODES = {
    "AccessDeniedException", "ResourceNotFoundException", "UnrecognizedClientException",
    "InvalidSignatureException", "ValidationException",
}  # fmt: skip
_BATCH = 100
_TRANSACTION_TRIES = 8


@dataclass(frozen=True)
class Tracking:
    """Reads and writes one tracking table. Safe to share between threads.

    Every method raises `ConfigError` if the table is absent or access is denied, and `WriteFailed`
    if DynamoDB still fails after the client's own retries.

    Attributes:
        client: A DynamoDB client (boto3).
        table: Name of the table.
        clock: Returns the present, UTC.
        sleep: Waits some seconds, for colliding transactions.
    """

    client: Any
    table: str
    clock: Callable[[], datetime]
    sleep: Callable[[float], None] = time.sleep

    # --- writing ---------------------------------------------------------------------------

    def announce(self, runs: Iterable[TrackedRun]) -> int:
        """Put a PENDING item for each run, in batches (`CAN_BE_PENDING`).

        Repeating it for the same runs changes nothing: their newer status stays.

        Returns:
            How many items were new.
        """
        with ThreadPoolExecutor(WRITE_THREADS) as pool:
            return sum(pool.map(self._announce_many, _chunks(runs, _BATCH)))

    def start(self, run: TrackedRun) -> bool:
        """Mark an attempt as running (`CAN_RUN`).

        Returns:
            False if the attempt is outdated: it was given up on, or the run has ended. The worker
            must not go on then.
        """
        return self._update(replace(run, status="RUNNING", beat_at=self._now()), CAN_RUN, STARTED)

    def beat(self, run: TrackedRun, progress: str) -> bool:
        """Write the progress of a running attempt (`IS_RUNNING`).

        Returns:
            False if the attempt is no longer the one that runs.
        """
        return self._update(replace(run, beat_at=self._now(), progress=progress), IS_RUNNING, BEAT)

    def mark_stopped(self, run: TrackedRun, because: str) -> bool:
        """Note why a running attempt's job is about to be stopped, if it is silent still.

        Args:
            run: The attempt as it was read.
            because: Why, for its error message.

        Returns:
            False if it has written its progress since, has ended, or another attempt runs.
        """
        return self._update(
            replace(run, stopped_because=because), f"{IS_RUNNING} AND beat_at = :beat_at", STOPPED
        )

    def end(self, run: TrackedRun) -> bool:
        """Write an attempt's outcome: SUCCEEDED, FAILED or RETRYING (`CAN_END`).

        A run that succeeded updates the table's `LATEST` in the same transaction: the time, and its
        commit unless there is a later one.

        Returns:
            False if the item holds a terminal status or a newer fence, and so was left alone.
        """
        if run.status == "SUCCEEDED":
            return self._end_with_latest(run)
        return self._update(run, CAN_END, ENDED)

    def correct(self, run: TrackedRun) -> bool:
        """Set a failed run that is published after all to SUCCEEDED (`IS_WRONG`).

        Moves the table's `LATEST` as `end` does.

        Returns:
            False if the item is no longer that failure, and so was left alone.
        """
        return self._end_with_latest(run, IS_WRONG)

    # --- reading ---------------------------------------------------------------------------

    def read(self, table_id: str, run_id: str) -> TrackedRun | None:
        """Return a run as last written (a consistent read), or None."""
        with _mapped(self.table):
            found = self.client.get_item(
                TableName=self.table, Key=key(table_id, run_id), ConsistentRead=True
            )
        return decode(found["Item"]) if "Item" in found else None

    def latest(self, table_id: str) -> dict[str, Any] | None:
        """Return the table's `LATEST` item, or None before the first commit.

        Its attributes: ``succeeded_at`` (of the last successful run), and of the last commit
        ``latest_run_id``, ``latest_execution_id``, ``commit_seq``, ``rows``, ``bytes``,
        ``updated_at``.
        """
        with _mapped(self.table):
            found = self.client.get_item(
                TableName=self.table, Key=key(table_id, LATEST), ConsistentRead=True
            )
        return plain(found["Item"]) if "Item" in found else None

    def by_table(self, table_id: str) -> Iterator[TrackedRun]:
        """Yield every run of a table, in no order that means anything, over all pages."""
        start: dict[str, Any] = {}
        while True:
            with _mapped(self.table):
                page = self.client.query(
                    TableName=self.table,
                    KeyConditionExpression="table_id = :table",
                    ExpressionAttributeValues={":table": {"S": table_id}},
                    ConsistentRead=True,
                    **start,
                )
            yield from (decode(item) for item in page["Items"] if item["run_id"]["S"] != LATEST)
            if not page.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def last_successes(self, table_ids: Sequence[str]) -> dict[str, datetime]:
        """Return when a run of each table last succeeded, UTC; tables without any are left out."""
        keys = [key(table_id, LATEST) for table_id in table_ids]
        found = {}
        for item in self._read_keys(keys):
            latest = plain(item)
            at = latest.get("succeeded_at") or latest["updated_at"]
            found[str(latest["table_id"])] = datetime.fromisoformat(at)
        return found

    def last_bytes(self, table_ids: Sequence[str]) -> dict[str, int]:
        """Return how much the last commit of each table wrote; tables without one are left out."""
        items = self._read_keys([key(table_id, LATEST) for table_id in table_ids])
        return {
            str(item["table_id"]): int(item["bytes"])
            for item in map(plain, items)
            if "bytes" in item
        }

    def by_execution(self, execution_id: str) -> Iterator[TrackedRun]:
        """Yield every run of an execution, ordered by table, over all pages.

        The index lags the table by moments. A run that it shows as not ended is read again from the
        table, so an outcome written before this call is never missed.
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
            runs = [decode(item) for item in page["Items"]]
            current = self._read_many([run for run in runs if not run.ended])
            yield from (current.get((run.table_id, run.run_id), run) for run in runs)
            if not page.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    # --- inside ----------------------------------------------------------------------------

    def _read_many(self, runs: Sequence[TrackedRun]) -> dict[tuple[str, str], TrackedRun]:
        """Return runs as last written, by key."""
        items = self._read_keys([key(run.table_id, run.run_id) for run in runs])
        return {(run.table_id, run.run_id): run for run in map(decode, items)}

    def _read_keys(self, keys: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the items of some keys as last written, in no order."""
        tries = 0
        while keys:
            wanted, keys = keys[:_BATCH], keys[_BATCH:]
            asked = {self.table: {"Keys": wanted, "ConsistentRead": True}}
            with _mapped(self.table):
                answer = self.client.batch_get_item(RequestItems=asked)
            yield from answer["Responses"].get(self.table, ())
            left = answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", [])
            if left:
                # DynamoDB is throttling, or the answer was larger than 16 MB.
                keys += left
                tries += 1
                self.sleep(min(5.0, 0.05 * 2.0**tries))

    def _announce_many(self, runs: Sequence[TrackedRun]) -> int:
        """Put many items in one call, which takes a tenth of the CPU of single calls.

        All or none are written; if one exists already, each is put by itself.
        """
        with _mapped(self.table):
            try:
                self.client.transact_write_items(
                    TransactItems=[{"Put": self._put_of(run)} for run in runs]
                )
            except self.client.exceptions.TransactionCanceledException:
                return sum(map(self._announce_one, runs))
        return len(runs)

    def _announce_one(self, run: TrackedRun) -> bool:
        with _mapped(self.table):
            try:
                self.client.put_item(**self._put_of(run))
            except self.client.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def _put_of(self, run: TrackedRun) -> dict[str, Any]:
        return {
            "TableName": self.table,
            "Item": encode(replace(run, status="PENDING", updated_at=self._now())),
            "ConditionExpression": CAN_BE_PENDING,
            **operands(run, CAN_BE_PENDING),
        }

    def _update(self, run: TrackedRun, condition: str, fields: frozenset[str]) -> bool:
        with _mapped(self.table):
            try:
                self.client.update_item(**self._update_of(run, condition, fields))
            except self.client.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def _end_with_latest(self, run: TrackedRun, condition: str = CAN_END) -> bool:
        for attempt in range(_TRANSACTION_TRIES):
            with _mapped(self.table):
                try:
                    self.client.transact_write_items(
                        TransactItems=[
                            {"Update": self._update_of(run, condition, ENDED)},
                            {"Update": self._latest_of(run)},
                        ]
                    )
                except self.client.exceptions.TransactionCanceledException as error:
                    reasons = [r.get("Code") for r in error.response["CancellationReasons"]]
                else:
                    return True
            if reasons[0] == "ConditionalCheckFailed":
                return False
            if reasons[1] == "ConditionalCheckFailed":
                return self._update(run, condition, ENDED)
            self.sleep(0.05 * 2**attempt)  # TransactionConflict: another run of the table ends
        raise WriteFailed(
            f"{self.table}: {run.table_id} run {run.run_id} could not be set to {run.status}: "
            f"{_TRANSACTION_TRIES} transactions were cancelled ({reasons}); try again"
        )

    def _update_of(self, run: TrackedRun, condition: str, fields: frozenset[str]) -> dict[str, Any]:
        item = encode(replace(run, updated_at=self._now()))
        written = sorted(fields & item.keys())
        holders = operands(run, condition)
        names = {f"#f{i}": field for i, field in enumerate(written)}
        values = {f":f{i}": item[field] for i, field in enumerate(written)}
        return {
            "TableName": self.table,
            "Key": key(run.table_id, run.run_id),
            "UpdateExpression": "SET " + ", ".join(f"{name} = :{name[1:]}" for name in names),
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {**names, **holders["ExpressionAttributeNames"]},
            "ExpressionAttributeValues": {**values, **holders["ExpressionAttributeValues"]},
        }

    def _latest_of(self, run: TrackedRun) -> dict[str, Any]:
        if run.commit_seq is None:
            return {
                "TableName": self.table,
                "Key": key(run.table_id, LATEST),
                "UpdateExpression": "SET succeeded_at = :now",
                "ExpressionAttributeValues": {":now": {"S": self._now()}},
            }
        # Not named execution_id: the item would appear in the index as a run.
        return {
            "TableName": self.table,
            "Key": key(run.table_id, LATEST),
            "UpdateExpression": (
                "SET commit_seq = :commit_seq, latest_run_id = :run, #rows = :rows, "
                "#bytes = :bytes, latest_execution_id = :execution, updated_at = :now, "
                "succeeded_at = :now"
            ),
            "ConditionExpression": IS_LATEST,
            "ExpressionAttributeNames": {"#rows": "rows", "#bytes": "bytes"},
            "ExpressionAttributeValues": {
                ":commit_seq": {"N": str(run.commit_seq)},
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

    Raises:
        ConfigError: The environment is invalid, or has no region.
    """
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    from extract_jobs.storage.aws_errors import refuse_foreign_answers
    from extract_jobs.storage.aws_session import new_session

    retries = {"mode": "standard", "max_attempts": 8}
    config = Config(retries=retries, max_pool_connections=WRITE_THREADS)
    try:
        return refuse_foreign_answers(new_session().client("dynamodb", config=config))
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"DynamoDB client: {error}; check AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL"
        ) from error


def utc_now() -> datetime:
    """Return the present, UTC."""
    return datetime.now(UTC)


def create_table(client: Any, table: str) -> None:
    """Create the tracking table as in infra/template.yaml, for tests and local use."""
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


def _chunks(runs: Iterable[TrackedRun], size: int) -> Iterator[list[TrackedRun]]:
    rest = iter(runs)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk


@contextlib.contextmanager
def _mapped(table: str) -> Iterator[None]:
    """Map botocore's errors to those of this package."""
    from botocore.exceptions import BotoCoreError, ClientError

    from extract_jobs.storage.aws_errors import PASSES, passes, unanswered

    try:
        yield
    except ExtractError:
        raise
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if passes(error):
            raise WriteFailed(f"tracking table {table}: {code}: {PASSES}") from error
        if code in _CONFIGURATION_CODES:
            raise ConfigError(
                f"tracking table {table}: {code}; give its name, and dynamodb:GetItem, PutItem, "
                "UpdateItem, BatchGetItem and Query on it and on its index"
            ) from error
        raise WriteFailed(f"tracking table {table}: {code} after retries") from error
    except BotoCoreError as error:
        raise unanswered(error, f"tracking table {table}") from error
