"""The tracking table, on two emulators and in memory: who may write what over what."""

from __future__ import annotations

import itertools
import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ProfileNotFound,
)

from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.tracking.item import LATEST, MAX_MESSAGE, TrackedRun
from extract_jobs.tracking.table import Tracking, client_from_environment, create_table
from tests.support.memory_dynamodb import MemoryDynamoDB, Table
from tests.support.memory_storage import Process

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
STATUSES = ("PENDING", "RUNNING", "RETRYING", "SUCCEEDED", "FAILED")


@pytest.fixture(params=["ministack", "moto_server", "memory"])
def tracking(request):
    if request.param == "memory":
        client = MemoryDynamoDB(Table(), Process("test"))
        yield Tracking(client, "tracking", lambda: NOW, lambda _seconds: None)
        return
    emulator = request.getfixturevalue(request.param)
    given = emulator.environment()
    client = boto3.client(
        "dynamodb",
        endpoint_url=emulator.endpoint_url,
        region_name=given["AWS_DEFAULT_REGION"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        config=Config(max_pool_connections=32),
    )
    name = f"tracking-{uuid.uuid4().hex[:8]}"
    create_table(client, name)
    yield Tracking(client, name, lambda: NOW, lambda _seconds: None)
    client.delete_table(TableName=name)
    client.close()


def make_run(table="public.orders", **overrides):
    minimal = {
        "table_id": f"sales/{table}",
        "run_id": "run-1",
        "execution_id": "arn:execution:1",
        "source_name": "sales",
        "extract_table": table,
        "job_type": "glue",
        "spec_uri": "s3://work/specs/run-1.json",
        "report_uri": "s3://work/reports/run-1/1.json",
    }
    return TrackedRun(**{**minimal, **overrides})


def put(tracking, run):
    """Put an item as it is, whatever the conditions say."""
    from extract_jobs.tracking.item import encode

    tracking.client.put_item(TableName=tracking.table, Item=encode(run))


def read(tracking, run):
    return tracking.read(run.table_id, run.run_id)


def test_a_run_goes_from_pending_over_running_to_succeeded(tracking):
    run = make_run()
    assert tracking.announce([run]) == 1
    assert read(tracking, run) == replace(run, updated_at="2025-03-01T12:00:00.000+00:00")
    assert tracking.start(run)
    assert read(tracking, run).status == "RUNNING"
    done = replace(run, status="SUCCEEDED", rows=7, bytes=512, files=2, commit_seq=1,
                   decision='{"outcome":"succeeded"}')  # fmt: skip
    assert tracking.end(done)
    assert read(tracking, run) == replace(done, updated_at="2025-03-01T12:00:00.000+00:00")


def test_a_run_that_is_not_known_reads_as_none(tracking):
    assert tracking.read("sales/none", "run-1") is None
    assert tracking.latest("sales/none") is None


def allowed(write, status, stored, mine):
    """What the module's text promises, written down a second time."""
    if status == "SUCCEEDED":
        return False
    if status == "FAILED":
        return mine[0] > stored[0]
    if write == "announce":
        return mine[0] > stored[0]
    if write == "start" and status == "RETRYING":
        return mine > stored
    return mine >= stored


FENCES = [(1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize("write", ["announce", "start", "end"])
def test_every_write_over_every_status_and_fence(tracking, write):
    wrong = []
    for number, (status, stored, mine) in enumerate(itertools.product(STATUSES, FENCES, FENCES)):
        run = make_run(run_id=f"run-{number}")
        old = replace(run, status=status, generation=stored[0], attempt=stored[1])
        new = replace(run, status="FAILED", generation=mine[0], attempt=mine[1])
        put(tracking, old)
        written = tracking.announce([new]) if write == "announce" else getattr(tracking, write)(new)
        expected = allowed(write, status, stored, mine)
        found = read(tracking, run)
        if bool(written) != expected or found.fence != (mine if expected else stored):
            wrong.append((status, stored, mine, written))
    assert wrong == []


def test_a_worker_that_was_started_by_hand_needs_no_pending_item(tracking):
    run = make_run(execution_id="")
    assert tracking.start(run)
    assert read(tracking, run).status == "RUNNING"
    assert list(tracking.by_execution("arn:execution:1")) == []


def test_a_start_keeps_what_the_handler_counted(tracking):
    run = make_run()
    tracking.announce([run])
    tracking.start(run)
    tracking.end(replace(run, status="RETRYING", failures=1, decision="{}", error_class="X"))
    assert tracking.start(replace(run, attempt=2))
    found = read(tracking, run)
    assert (found.failures, found.attempt, found.decision) == (1, 2, "")


def test_announcing_again_changes_nothing(tracking):
    run = make_run()
    tracking.announce([run])
    tracking.start(run)
    assert tracking.announce([run]) == 0
    assert read(tracking, run).status == "RUNNING"


def test_latest_moves_with_the_commit_and_never_back(tracking):
    runs = [make_run(run_id=f"run-{seq}", commit_seq=seq, rows=seq, status="SUCCEEDED")
            for seq in (2, 3, 1)]  # fmt: skip
    for run in runs:
        assert tracking.end(run)
        assert read(tracking, run).status == "SUCCEEDED"
    latest = tracking.latest("sales/public.orders")
    assert (latest["run_id"], latest["latest_run_id"], latest["commit_seq"]) == (LATEST, "run-3", 3)
    assert latest["rows"] == 3


def test_latest_does_not_move_for_a_run_that_is_fenced_off(tracking):
    run = make_run(status="SUCCEEDED", commit_seq=5)
    put(tracking, replace(run, generation=2, status="RUNNING"))
    assert not tracking.end(run)
    assert tracking.latest(run.table_id) is None


def test_a_run_without_a_commit_leaves_latest_alone(tracking):
    tracking.end(make_run(run_id="run-1", status="SUCCEEDED", commit_seq=4))
    tracking.end(make_run(run_id="run-2", status="SUCCEEDED", commit_seq=None))
    assert tracking.latest("sales/public.orders")["latest_run_id"] == "run-1"


def test_the_runs_of_an_execution_over_several_pages(tracking):
    # A page holds 1 MB.
    runs = [make_run(f"public.t{n:04d}", spec_uri="s" * 150_000) for n in range(20)]
    assert tracking.announce(runs) == 20
    tracking.announce([make_run("public.other", execution_id="arn:execution:2")])
    tracking.end(replace(runs[3], status="SUCCEEDED", commit_seq=1))
    found = list(tracking.by_execution("arn:execution:1"))
    assert [run.extract_table for run in found] == [run.extract_table for run in runs]
    assert [run.status for run in found].count("SUCCEEDED") == 1


def test_a_long_message_is_cut(tracking):
    run = make_run(status="FAILED", error_class="WriteFailed", error_message="é" * 100_000)
    tracking.end(run)
    message = read(tracking, run).error_message
    assert len(message) == MAX_MESSAGE
    assert message.endswith("…")


def test_of_two_attempts_that_end_at_once_only_one_is_terminal(tracking):
    run = make_run()
    tracking.announce([run])
    barrier = threading.Barrier(8)
    won = []

    def end(number):
        barrier.wait()
        status = "SUCCEEDED" if number % 2 else "FAILED"
        if tracking.end(replace(run, status=status, rows=number)):
            won.append(number)

    threads = [threading.Thread(target=end, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert read(tracking, run).rows == won[0]


def test_a_table_that_is_absent_is_a_config_error(tracking):
    absent = replace(tracking, table="absent")
    for call in (
        lambda: absent.announce([make_run()]),
        lambda: absent.start(make_run()),
        lambda: absent.end(make_run(status="SUCCEEDED", commit_seq=1)),
        lambda: absent.read("a", "b"),
        lambda: list(absent.by_execution("a")),
    ):
        with pytest.raises(ConfigError, match="tracking table absent: ResourceNotFound"):
            call()


def test_a_table_that_cannot_be_reached_is_a_write_failed():
    client = boto3.client(
        "dynamodb",
        endpoint_url="http://127.0.0.1:9",
        config=Config(retries={"total_max_attempts": 1}),
    )
    tracking = Tracking(client, "any", lambda: NOW)
    with pytest.raises(WriteFailed, match=r"tracking table any: Could not connect.*AWS_REGION"):
        tracking.read("a", "b")


class Failing:
    """A client whose every call raises."""

    def __init__(self, error):
        self.error = error

    def get_item(self, **_):
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NoCredentialsError(), ConfigError),
        (ProfileNotFound(profile="x"), ConfigError),
        (CredentialRetrievalError(provider="x", error_msg="away"), WriteFailed),
        (ClientError({"Error": {"Code": "ExpiredTokenException"}}, "GetItem"), WriteFailed),
        (ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetItem"), ConfigError),
    ],
)
def test_botocores_errors_mean_the_same_as_for_storage(error, expected):
    with pytest.raises(expected, match=r"^tracking table any: "):
        Tracking(Failing(error), "any", lambda: NOW).read("a", "b")


def test_a_client_without_a_region_is_a_config_error(monkeypatch, tmp_path):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with pytest.raises(ConfigError, match=r"DynamoDB client: .*region.*check .*AWS_REGION"):
        client_from_environment()


class Colliding:
    """A client whose transactions are cancelled by others' so many times."""

    def __init__(self, client, times):
        self.client, self.times = client, times

    def __getattr__(self, name):
        return getattr(self.client, name)

    def transact_write_items(self, **given):
        if self.times:
            self.times -= 1
            reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
            raise self.client.exceptions.TransactionCanceledException(
                {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons},
                "TransactWriteItems",
            )
        return self.client.transact_write_items(**given)


def test_a_transaction_that_collides_is_tried_again(tracking):
    run = make_run(status="SUCCEEDED", commit_seq=1)
    assert replace(tracking, client=Colliding(tracking.client, 3)).end(run)
    assert tracking.latest(run.table_id)["commit_seq"] == 1


def test_a_transaction_that_always_collides_is_a_write_failed(tracking):
    run = make_run(status="SUCCEEDED", commit_seq=1)
    with pytest.raises(WriteFailed, match="8 transactions were cancelled"):
        replace(tracking, client=Colliding(tracking.client, 99)).end(run)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("fence", [(1, 1), (1, 2), (2, 1)])
def test_only_that_very_failure_is_corrected(tracking, status, fence):
    generation, attempt = fence
    run = make_run(status=status, generation=generation, attempt=attempt, error_class="X")
    put(tracking, run)
    right = replace(run, generation=1, attempt=1, error_class="", commit_seq=4, status="SUCCEEDED")
    corrected = tracking.correct(right)
    assert corrected == ((status, fence) == ("FAILED", (1, 1)))
    assert (read(tracking, run).status == "SUCCEEDED") == (corrected or status == "SUCCEEDED")
    latest = tracking.latest(run.table_id)
    assert (latest and latest["commit_seq"]) == (4 if corrected else None)
