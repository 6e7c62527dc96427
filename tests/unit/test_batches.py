"""Batches: several small tables in one job, each a run of its own whatever becomes of the others.

The config manager, the worker and the status handler are real; DynamoDB is an emulator's. What ends
a job is stood in for by the error that its service reports, and a kill by an exception that nothing
in the worker handles.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
import yaml

import extract_jobs.run
from entrypoints.extract_config_manager import Settings, list_tables
from entrypoints.handle_extract_job_run_status import handle, summarize
from entrypoints.reap_extract_job_runs import Settings as ReaperSettings
from entrypoints.reap_extract_job_runs import stop_silent
from extract_jobs import worker
from extract_jobs.engine.shutdown import Stop
from extract_jobs.errors import EXIT_CONFIG, EXIT_DONE, EXIT_RETRY, ConfigError, StopRequested
from extract_jobs.storage import open_storage
from extract_jobs.tracking.batch import parse_batch
from extract_jobs.tracking.batch_item import MOST_TABLES, SMALL_BYTES
from extract_jobs.tracking.listed_items import ListedItems
from extract_jobs.tracking.map_item import worker_arguments
from extract_jobs.tracking.running_jobs import Job, RunningJobs
from extract_jobs.tracking.table import TrackedRun, Tracking, create_table

EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:extract:"
TABLES = ("a", "b", "c", "d")
ROWS = 5
KILLED = ("States.TaskFailed", json.dumps({"Containers": [{"ExitCode": 137}]}))


class Killed(BaseException):
    """Stands in for SIGKILL: nothing in the worker handles it."""


@pytest.fixture(scope="module")
def tracking(ministack):
    given = ministack.environment()
    client = boto3.client(
        "dynamodb",
        endpoint_url=ministack.endpoint_url,
        region_name=given["AWS_DEFAULT_REGION"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
    )
    name = f"tracking-{uuid.uuid4().hex[:8]}"
    create_table(client, name)
    yield Tracking(client, name, lambda: datetime(2025, 3, 1, tzinfo=UTC))
    client.close()


class Pipeline:
    """A source of four tables, and the three parts of the pipeline, which a test calls in turn."""

    def __init__(self, folder, tracking):
        self.folder, self.tracking = folder, tracking
        self.name = f"shop-{uuid.uuid4().hex[:8]}"
        with sqlite3.connect(folder / "shop.db") as database:
            for table in TABLES:
                database.execute(f"create table {table} (id integer primary key, t text)")
                database.executemany(
                    f"insert into {table} values (?, ?)", [(n, table) for n in range(ROWS)]
                )
        database.close()
        self.configure({table: {} for table in TABLES})

    def configure(self, tables, **defaults):
        """Write the config, for an execution that is yet to start."""
        self.execution = EXECUTION + uuid.uuid4().hex
        path = self.folder / "config" / f"{self.name}.yml"
        path.parent.mkdir(exist_ok=True)
        source = {"name": self.name, "type": "sqlite",
                  "connection": {"path": str(self.folder / "shop.db")}}  # fmt: skip
        target = {"uri": str(self.folder / "lake/{table}"), "write_mode": "overwrite"}
        retry = {"max_attempts": 2, "backoff_seconds": 0}
        common = {"batch": "small", "job_type": "ecs", "target": target, "retry": retry}
        config = {"version": 1, "source": source, "defaults": common | defaults, "tables": tables}
        path.write_text(yaml.safe_dump(config))

    def committed(self, **sizes):
        """Let tables have a last commit of some bytes."""
        for table, size in sizes.items():
            run = TrackedRun(f"{self.name}/{table}", "before", commit_seq=1, bytes=size)
            assert self.tracking.end(replace(run, status="SUCCEEDED"))

    def list(self, **event):
        """Return the Map's items of an execution."""
        given = {"source_name": self.name, "extract_tables": "*", **event}
        answer = list_tables(
            {"input": given, "execution_id": self.execution,
             "execution_started_at": "2025-03-01T12:00:00.123Z"},
            settings=Settings(str(self.folder / "config"), str(self.folder / "work"), {}),
            tracking=self.tracking,
            open_storage=open_storage,
        )  # fmt: skip
        self.answer = answer
        return json.loads(Path(answer["key"]).read_bytes())

    def batch(self):
        """Return the one item of an execution of all tables."""
        self.committed(**dict.fromkeys(TABLES, 100))
        [item] = self.list()
        return item

    def work(self, item, stop=None):
        return worker.main(worker_arguments(item), stop=stop or Stop())

    def handle(self, item, error="", cause=""):
        ended = {**item, "job_error": {"Error": error, "Cause": cause}}
        return handle(ended, tracking=self.tracking, open_storage=open_storage)

    def runs(self):
        return {
            run.extract_table: (run.status, run.attempt, run.failures)
            for run in self.tracking.by_execution(self.execution)
        }

    def rows(self):
        files = self.folder.glob("lake/*/*.parquet")
        return Counter({f.parent.name: pq.read_metadata(f).num_rows for f in files})


@pytest.fixture
def shop(tmp_path, tracking, ministack, monkeypatch):
    for name, value in ministack.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    return Pipeline(tmp_path, tracking)


@pytest.fixture
def extract(monkeypatch):
    """Lets something be raised in place of a table's extract; counts those that are begun."""
    begun, real = Counter(), extract_jobs.run.run_extract

    def run(spec, **more):
        begun[spec.extract_table] += 1
        raised = raise_at.get(spec.extract_table)
        if raised is not None:
            raise raised
        return real(spec, **more)

    raise_at: dict[str, BaseException] = {}
    monkeypatch.setattr("extract_jobs.run.run_extract", run)
    run.raise_at, run.begun = raise_at, begun
    return run


def tables_in(item):
    return [own["extract_table"] for own in item["batch"]]


SUCCEEDED = ("SUCCEEDED", 1, 0)


# --- which tables share a job ------------------------------------------------------------------


def test_small_tables_share_a_job_and_all_others_have_their_own(shop):
    shop.configure({"a": {}, "b": {"ecs": {"cpu": 2048}}, "c": {"batch": "none"}, "d": {}})
    shop.committed(a=SMALL_BYTES, b=1, c=1, d=SMALL_BYTES + 1)
    assert [(i["extract_table"], i["batch"]) for i in shop.list()] == [
        (table, []) for table in ("c", "d", "a", "b")
    ]
    shop.configure({"a": {}, "b": {}, "c": {"job_type": "glue"}, "d": {}})
    *single, shared = shop.list()
    assert {item["extract_table"] for item in single} == {"c", "d"}
    assert tables_in(shared) == ["a", "b"]
    assert shop.answer["table_count"] == 4


def test_a_table_of_unknown_size_has_its_own_job(shop):
    shop.committed(b=1, c=1)
    *single, shared = shop.list()
    assert ({item["extract_table"] for item in single}, tables_in(shared)) == (
        {"a", "d"},
        ["b", "c"],
    )


def test_a_backfill_shares_no_job(shop):
    shop.committed(**dict.fromkeys(TABLES, 1))
    assert len(shop.list(overrides={"mode": "full"})) == 4


def test_a_batch_is_no_longer_than_it_may_be_and_its_item_stays_small(shop):
    tables = {f"{'long' * 60}{n}": {"query": "select * from a"} for n in range(MOST_TABLES + 2)}
    shop.configure(tables)
    shop.committed(**dict.fromkeys(tables, 1))
    first, second = shop.list()
    assert [len(first["batch"]), len(second["batch"])] == [MOST_TABLES, 2]
    assert len(json.dumps(first)) < 128 * 1024, "of 256 KiB, with the service's answer beside it"
    # ECS takes 8,192 characters of overrides: the tables are in a file.
    assert len(json.dumps(worker_arguments(first))) < 2000
    listed = parse_batch(Path(first["spec_uri"]).read_bytes(), "")
    assert [table.extract_table for table in listed] == tables_in(first)


def test_an_item_has_the_same_keys_with_and_without_a_batch(shop):
    shop.committed(a=1, b=1)
    alone, _, shared = shop.list()
    assert alone.keys() == shared.keys()
    assert all(own.keys() == shared["batch"][0].keys() for own in shared["batch"])


def test_calling_again_gives_the_same_jobs(shop):
    assert shop.list() == shop.list()
    item = shop.batch()
    assert [item] == shop.list()


# --- what becomes of each table ----------------------------------------------------------------


def test_each_table_is_a_run_of_its_own(shop):
    item = shop.batch()
    assert shop.work(item) == EXIT_DONE
    assert shop.handle(item) == {"outcome": "succeeded", "run_id": item["run_id"]}
    assert shop.runs() == dict.fromkeys(TABLES, SUCCEEDED)
    assert shop.rows() == dict.fromkeys(TABLES, ROWS)
    for own in item["batch"]:
        report = json.loads(Path(own["report_uri"]).read_bytes())
        assert (report["extract_table"], report["run_id"], report["rows"]) == (
            own["extract_table"], own["run_id"], ROWS,
        )  # fmt: skip


def test_a_table_that_fails_stops_no_other(shop):
    with sqlite3.connect(shop.folder / "shop.db") as database:
        database.execute("drop table b")
    database.close()
    item = shop.batch()
    assert shop.work(item) == EXIT_CONFIG
    assert shop.handle(item, *KILLED)["outcome"] == "failed", "reports count, not what ended it"
    assert shop.runs() == {**dict.fromkeys("acd", SUCCEEDED), "b": ("FAILED", 1, 1)}
    assert shop.rows() == dict.fromkeys("acd", ROWS)


def test_a_defect_in_one_table_stops_no_other(shop, extract):
    item = shop.batch()
    extract.raise_at["b"] = KeyError("a row's value")
    assert shop.work(item) != EXIT_DONE
    assert extract.begun == dict.fromkeys(TABLES, 1)


def test_only_what_did_not_succeed_is_tried_again(shop, extract):
    item = shop.batch()
    Path(spec_of(item, "b")).rename(hidden := shop.folder / "b.json")
    assert shop.work(item) == EXIT_CONFIG
    Path(report_of(item, "b")).write_bytes(
        Path(report_of(item, "b")).read_bytes().replace(b'"retryable":false', b'"retryable":true')
    )
    answer = shop.handle(item)
    assert answer["outcome"] == "retry"
    assert tables_in(answer["item"]) == ["b"]
    hidden.rename(spec_of(item, "b"))
    assert shop.work(answer["item"]) == EXIT_DONE
    assert shop.handle(answer["item"])["outcome"] == "succeeded"
    assert shop.runs() == {**dict.fromkeys("acd", SUCCEEDED), "b": ("SUCCEEDED", 2, 1)}
    assert extract.begun == dict.fromkeys(TABLES, 1)
    assert shop.rows() == dict.fromkeys(TABLES, ROWS)


def spec_of(item, table):
    return next(own["spec_uri"] for own in item["batch"] if own["extract_table"] == table)


def report_of(item, table):
    return next(own["report_uri"] for own in item["batch"] if own["extract_table"] == table)


def test_a_kill_counts_only_for_the_table_at_work(shop, extract):
    item = shop.batch()
    extract.raise_at["b"] = Killed()
    with pytest.raises(Killed):
        shop.work(item)
    answer = shop.handle(item, *KILLED)
    assert answer["outcome"] == "retry"
    assert tables_in(answer["item"]) == ["c", "d", "b"], "what killed the worker comes last"
    assert shop.runs() == {
        "a": SUCCEEDED, "b": ("RETRYING", 1, 1), "c": ("RETRYING", 1, 0), "d": ("RETRYING", 1, 0),
    }  # fmt: skip
    assert answer["item"]["ecs"]["memory"] > item["ecs"]["memory"]
    assert shop.handle(item, *KILLED) == answer, "a second call gives the first one's answer"
    extract.raise_at.clear()
    assert shop.work(answer["item"]) == EXIT_DONE
    assert extract.begun == {"a": 1, "b": 2, "c": 1, "d": 1}
    assert shop.handle(answer["item"])["outcome"] == "succeeded"
    assert shop.rows() == dict.fromkeys(TABLES, ROWS)


def test_tables_that_kill_their_worker_fail_and_the_others_do_not(shop, extract):
    item, attempts = shop.batch(), 0
    extract.raise_at.update(b=Killed(), d=Killed())
    while True:
        attempts += 1
        try:
            code = shop.work(item)
        except Killed:
            answer = shop.handle(item, *KILLED)
        else:
            assert code == EXIT_DONE
            answer = shop.handle(item)
        if answer["outcome"] != "retry":
            break
        item = answer["item"]
    outcomes = {table: (status, failures) for table, (status, _, failures) in shop.runs().items()}
    assert outcomes == {
        "a": ("SUCCEEDED", 0), "b": ("FAILED", 2), "c": ("SUCCEEDED", 0), "d": ("FAILED", 2),
    }  # fmt: skip
    assert extract.begun == {"a": 1, "b": 2, "c": 1, "d": 2}
    assert attempts == 4


def test_a_kill_between_commit_and_report_doubles_nothing(shop, monkeypatch):
    item = shop.batch()
    real = extract_jobs.run.leave_report

    def leave(spec, report, context):
        if spec.extract_table == "b":
            raise Killed
        real(spec, report, context)

    monkeypatch.setattr("extract_jobs.run.leave_report", leave)
    with pytest.raises(Killed):
        shop.work(item)
    monkeypatch.setattr("extract_jobs.run.leave_report", real)
    answer = shop.handle(item, *KILLED)
    assert tables_in(answer["item"]) == ["c", "d"], "the commit log has b"
    assert shop.work(answer["item"]) == EXIT_DONE
    shop.handle(answer["item"])
    assert {status for status, _, failures in shop.runs().values()} == {"SUCCEEDED"}
    assert shop.rows() == dict.fromkeys(TABLES, ROWS)


def test_a_stop_leaves_the_tables_whose_turn_had_not_come(shop, extract):
    item = shop.batch()
    extract.raise_at["b"] = StopRequested("stopped by SIGTERM")
    assert shop.work(item) == EXIT_RETRY
    assert extract.begun == {"a": 1, "b": 1}
    answer = shop.handle(item, "States.TaskFailed", '{"Containers": [{"ExitCode": 75}]}')
    assert tables_in(answer["item"]) == ["c", "d", "b"]
    assert shop.runs()["c"] == ("RETRYING", 1, 0)


def test_a_job_that_never_began_is_a_failure_of_all_its_tables(shop):
    item = shop.batch()
    for attempt in (1, 2):
        assert item["attempt"] == attempt
        answer = shop.handle(item, "ECS.AmazonECSException", "no image")
        item = answer.get("item", item)
    assert answer["outcome"] == "failed"
    assert shop.runs() == dict.fromkeys(TABLES, ("FAILED", 2, 2))


def test_an_outdated_worker_touches_no_table(shop, extract):
    item = shop.batch()
    answer = shop.handle(item, "States.Timeout", "")
    assert answer["outcome"] == "retry"
    assert shop.work(item) == EXIT_DONE
    assert extract.begun == {}
    assert shop.work(answer["item"]) == EXIT_DONE
    assert extract.begun == dict.fromkeys(TABLES, 1)


def test_a_batch_whose_file_is_damaged_fails_with_its_reason(shop, capsys):
    item = shop.batch()
    Path(item["spec_uri"]).write_text('{"batch": [7]}')
    assert shop.work(item) == EXIT_CONFIG
    assert "is damaged" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is damaged"):
        parse_batch('{"batch": {"a": 1}}', "here")


# --- who else looks at the list ----------------------------------------------------------------


def test_the_summary_judges_each_table_of_a_batch(shop, extract):
    item = shop.batch()
    extract.raise_at["c"] = Killed()
    with pytest.raises(Killed):
        shop.work(item)
    answer = summarize(
        {"execution_id": shop.execution, "table_count": 4, "map_error": {"Error": ""}},
        tracking=shop.tracking,
        open_storage=open_storage,
    )
    assert (answer["succeeded"], answer["failed"]) == (2, 2)
    assert set(answer["failed_tables"]) == {"c", "d"}
    assert shop.work(item) == EXIT_DONE, "given up on: another worker of it publishes nothing"
    assert extract.begun["d"] == 0
    shop.execution += "-again"
    extract.raise_at.clear()
    given = {"rerun_failed_of": shop.execution.removesuffix("-again")}
    [again] = list_again(shop, given)
    assert tables_in(again) == ["c", "d"]
    assert shop.work(again) == EXIT_DONE
    assert shop.handle(again)["outcome"] == "succeeded"
    assert {status for status, _, _ in shop.runs().values()} == {"SUCCEEDED"}
    assert shop.rows() == dict.fromkeys(TABLES, ROWS)


def list_again(shop, given):
    answer = list_tables(
        {"input": given, "execution_id": shop.execution,
         "execution_started_at": "2025-03-02T12:00:00.123Z"},
        settings=Settings(str(shop.folder / "config"), str(shop.folder / "work"), {}),
        tracking=shop.tracking,
        open_storage=open_storage,
    )  # fmt: skip
    return json.loads(Path(answer["key"]).read_bytes())


def test_a_table_that_waits_in_a_batch_runs_as_long_as_the_batchs_job(shop):
    item = shop.batch()
    [run, *_] = shop.tracking.by_execution(shop.execution)
    found = ListedItems(open_storage).of(run)
    for listed, expected in (([item["run_id"]], True), ([], False)):
        running = [Job(frozenset({batch_id}), print) for batch_id in listed]
        place = ("ecs", item["ecs"]["cluster"])
        jobs = RunningJobs(lambda _: None, datetime.now(UTC), {place: running})
        assert jobs.may_run(run, found) is expected


class Answers:
    """A client whose paginated calls all give one page."""

    def __init__(self, page):
        self.page = page

    def get_paginator(self, _):
        return self

    def paginate(self, **_):
        yield self.page


def test_a_table_that_a_batchs_worker_is_done_with_is_not_silent(shop, extract):
    """It counts as running until the batch has ended, and writes no progress any more."""
    item = shop.batch()
    extract.raise_at["b"] = Killed()
    with pytest.raises(Killed):
        shop.work(item)
    clients = {
        "stepfunctions": Answers({"executions": [{"executionArn": shop.execution}]}),
        "ecs": Answers({"taskArns": []}),
    }
    hours_later = datetime.now(UTC) + timedelta(hours=1)
    found = stop_silent(
        ReaperSettings("", "", timedelta(hours=1)),
        tracking=Tracking(shop.tracking.client, shop.tracking.table, lambda: hours_later),
        client=clients.__getitem__,
        open_storage=open_storage,
    )
    assert found == {"running": 2, "silent": 1, "stopped": 0}, "b alone, whose job is gone"
