"""The state machine on a second interpreter: moto's and ministack's have to agree."""

from __future__ import annotations

import sqlite3

import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import STUB, runs_of
from tests.e2e.test_state_machine import KINDS
from tests.support.moto_machine import start_machine

pytestmark = pytest.mark.e2e
SERVICES = ("glue", "ecs")
"""Of EMR moto has no .sync."""


def answer_of(outcome):
    """Return what an execution leaves for a person: its end, and each table's."""
    tables = {
        table: (run.status, run.attempt, run.failures, run.error_class, run.job_type)
        for table, run in runs_of(outcome).items()
    }
    return outcome.status, outcome.error, tables


def test_both_interpreters_bring_every_table_to_the_same_end(stubbed, monkeypatch):
    """Takes over ten seconds: each attempt is a process, and moto runs them in turn."""
    tables = {
        f"{kind}.{behaviour}_1": settings
        for kind, settings in KINDS.items()
        if kind in SERVICES
        for behaviour in ("ok", "refused", "hungry_once")
    }
    tables["none.ok_1"] = {"job_type": "emr"}
    shared = [f"ecs.{behaviour}_2" for behaviour in ("ok", "busy_once", "refused", "killed_once")]
    tables |= {table: {"job_type": "ecs", "batch": "small"} for table in shared}
    stubbed.committed("agreed", *shared)
    stubbed.configure("agreed", tables, defaults={"retry": {"backoff_seconds": 0}})
    event = {"source_name": "agreed", "extract_tables": "*"}
    ours = answer_of(stubbed.run(event))
    with start_machine(stubbed.stack, monkeypatch, dict.fromkeys(SERVICES, STUB)) as machine:
        assert answer_of(machine.run(event)) == ours
    assert ours[0] == "FAILED"
    assert {kind for kind, _ in machine.services.asked} == set(SERVICES)
    alone = ours[2].keys() - {"none.ok_1", *shared}
    assert len(machine.services.asked) == sum(ours[2][table][1] for table in alone) + 2
    assert [ours[2][table][:2] for table in shared] == [
        ("SUCCEEDED", 1), ("SUCCEEDED", 2), ("FAILED", 1), ("SUCCEEDED", 2),
    ]  # fmt: skip


def test_both_interpreters_fail_the_same_bad_input_at_the_first_state(stubbed, monkeypatch):
    event = {"source_name": "nowhere", "extract_tables": "*"}
    ours = stubbed.run(event)
    with start_machine(stubbed.stack, monkeypatch) as machine:
        theirs = machine.run(event)
    assert (theirs.status, theirs.error) == (ours.status, ours.error) == ("FAILED", "ConfigError")
    assert "nowhere.yml" in theirs.cause


def test_real_workers_extract_under_the_second_interpreter(stubbed, monkeypatch, tmp_path):
    database = tmp_path / "shop.db"
    with sqlite3.connect(database) as connection:
        connection.execute("create table t (n integer primary key, word text)")
        connection.executemany("insert into t values (?, ?)", [(n, f"w{n}") for n in range(500)])
    connection.close()
    stubbed.configure(
        "files", {"t": {"job_type": "ecs"}, "absent": {"job_type": "glue"},
                  "again": {"query": "select n from t", "job_type": "glue"},
                  **{table: {"query": "select n from t", "job_type": "ecs", "batch": "small"}
                     for table in ("small_1", "small_2")}},
        source={"type": "sqlite", "connection": {"path": str(database)}},
        defaults={"target": {"uri": "s3://lake/{source_name}/{table}"}},
    )  # fmt: skip
    stubbed.committed("files", "small_1", "small_2")
    with start_machine(stubbed.stack, monkeypatch) as machine:
        outcome = machine.run({"source_name": "files", "extract_tables": "*"})
    runs = runs_of(outcome)
    assert len(machine.services.asked) == 4, "two tables are small and share a job"
    for table in ("small_1", "small_2"):
        assert (runs[table].status, runs[table].rows) == ("SUCCEEDED", 500)
    assert (runs["t"].status, runs["t"].rows) == ("SUCCEEDED", 500), runs["t"].error_message
    assert (runs["again"].status, runs["again"].rows) == ("SUCCEEDED", 500)
    assert (runs["absent"].status, runs["absent"].error_class) == ("FAILED", "ConfigError")
    assert (outcome.status, outcome.error) == ("FAILED", "ExtractRunFailed")
    s3 = pyarrow.fs.S3FileSystem(
        endpoint_override=stubbed.stack.endpoint_url.removeprefix("http://"), scheme="http",
        access_key="test", secret_key="test", region="us-east-1",
    )  # fmt: skip
    assert pq.read_table("lake/files/t", filesystem=s3).num_rows == 500
