"""The pipeline with real workers on a real database: what arrives, and what a killed one leaves."""

from __future__ import annotations

import contextlib
import json
import signal
import time

import psutil
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from infra.local.emulator import session_members
from tests.e2e.conftest import runs_of
from tests.support.sampling import sample
from tests.support.worker_processes import forked_workers

pytestmark = pytest.mark.e2e
KINDS = {
    "glue": {"job_type": "glue"},
    "emr": {"job_type": "emr"},
    "step": {"job_type": "emr", "emr": {"cluster_id": "j-1", "entry_point": "s3://b/emr.py"}},
    "ecs": {"job_type": "ecs"},
}
SLOW = """
create table pace (seconds float8);
insert into pace values (0.002);
create function dawdle() returns int language plpgsql volatile as
    'begin perform pg_sleep(seconds) from pace; return 1; end';
create table numbers as select i as n, repeat(md5(i::text), 20) as filler
    from generate_series(1, 20000) i;
create view slow as select n, filler, dawdle() as one from numbers;
"""


@pytest.fixture
def source(real, pg_database):
    """A source named after the test's database, with a secret of its own."""
    name = pg_database.database.replace(" ", "_")
    real.stack.put_secret(f"lake/{name}", {
        "host": pg_database.host, "port": pg_database.port, "username": pg_database.user,
        "password": pg_database.password, "dbname": pg_database.database,
    })  # fmt: skip
    return name


def read(pipeline, source, table):
    """Return a table's Parquet as Arrow."""
    endpoint = pipeline.stack.endpoint_url.removeprefix("http://")
    s3 = pyarrow.fs.S3FileSystem(
        endpoint_override=endpoint, scheme="http", access_key="test", secret_key="test",
        region="us-east-1",
    )  # fmt: skip
    return pq.read_table(f"lake/{source}/public/{table}", filesystem=s3)


def uploads(pipeline):
    """Return what is staged and neither completed nor aborted."""
    return pipeline.stack.client("s3").list_multipart_uploads(Bucket="lake").get("Uploads", [])


def report(pipeline, run, attempt):
    """Return the report of one attempt."""
    folder = run.report_uri.rsplit("/", 1)[0].removeprefix("s3://")
    bucket, _, prefix = folder.partition("/")
    key = f"{prefix}/attempt-{attempt}.json"
    return json.loads(pipeline.stack.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())


def wait_for(condition, seconds=90, pause=0.05):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)
    return found


def reading(database):
    """Return whether a worker is in the midst of reading the slow view."""
    with database.connect() as connection:
        return connection.execute(
            "select 1 from pg_stat_activity where state = 'active' and wait_event = 'PgSleep' "
            "and pid <> pg_backend_pid() and datname = current_database()"
        ).fetchone()


def listening(leader):
    """Return the addresses that the processes of a session listen on."""
    found = set()
    for process in session_members(leader):
        with contextlib.suppress(psutil.Error):
            found |= {c.laddr.ip for c in process.net_connections("all")
                      if c.status == psutil.CONN_LISTEN}  # fmt: skip
    return found


def workers(pipeline, source):
    """Return the Python and Java processes of the source's workers.

    Those on ECS are forked, and have the command line of the process that forks them: at the time
    only this source's run.
    """
    members = session_members(pipeline.stack.pid)
    started = [p for p in members if source in p.cmdline() and p.pid != pipeline.stack.pid]
    return started + forked_workers(members)


def check_logs_of_workers(pipeline, runs):
    """Every line is JSON and names its run; the metrics are the report's figures."""
    for run in runs.values():
        log = pipeline.stack.directory / "logs" / f"{run.run_id}-1.log"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        shown = {"extract_table": run.extract_table, "run_id": run.run_id, "attempt": 1}
        assert [line for line in lines if not line.items() >= shown.items()] == []
        [counted] = [line for line in lines if "_aws" in line]
        reported = report(pipeline, run, 1)
        timings = {f"{phase.capitalize()}Seconds": s for phase, s in reported["timings"].items()}
        figures = {name.capitalize(): reported[name] for name in ("rows", "bytes", "files")}
        expected = {**figures, **timings, "CatalogFailed": 0, "Retries": 0}
        [directive] = counted["_aws"]["CloudWatchMetrics"]
        assert {m["Name"]: counted[m["Name"]] for m in directive["Metrics"]} == expected


def check_logs_of_functions(pipeline, execution, runs):
    """Every line of the execution is JSON, and one success is counted for each table."""
    client = pipeline.stack.client("logs")
    lines = [
        line
        for group in client.describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]
        for event in client.filter_log_events(logGroupName=group["logGroupName"])["events"]
        for line in event["message"].splitlines()
        if execution in line
    ]
    found = [json.loads(line) for line in lines]
    assert {line["execution_id"] for line in found} == {execution}
    counted = [line for line in found if "_aws" in line]
    assert sorted((c["extract_table"], c["TablesSucceeded"]) for c in counted) == sorted(
        (run.extract_table, 1) for run in runs.values()
    )


def test_tables_arrive_by_glue_emr_serverless_emr_step_and_ecs(real, source, pg_database):
    """Takes over ten seconds: three of the four workers run under spark-submit.

    Those of EMR read one split each: several, on executors, are in test_entrypoints.
    """
    # Small splits are read in parallel: by executors of Spark, and by worker processes.
    several = {kind: {"split": {"target_bytes": "500KB"}} for kind in ("glue", "ecs")}
    for kind in KINDS:
        pg_database.execute(
            f"create table {kind} as select i as n, md5(i::text) as text from "
            "generate_series(1, 30000) i"
        )
    real.configure(source, {
        f"public.{kind}": settings | several.get(kind, {}) for kind, settings in KINDS.items()
    }, defaults={"max_connections": 2})  # fmt: skip
    arn = real.start({"source_name": source, "extract_tables": "*"})
    addresses = set()

    def ended():
        addresses.update(listening(real.stack.pid))
        described = real.stack.client("stepfunctions").describe_execution(executionArn=arn)
        return described["status"] != "RUNNING"

    wait_for(ended, 300, pause=0.5)  # a look at all sockets costs more than a worker does
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    outcome = real.wait(arn)
    runs = runs_of(outcome)
    assert {t: (r.status, r.attempt, r.error_message) for t, r in runs.items()} == {
        f"public.{kind}": ("SUCCEEDED", 1, "") for kind in KINDS
    }
    assert outcome.status == "SUCCEEDED"
    check_logs_of_workers(real, runs)
    check_logs_of_functions(real, arn, runs)
    for kind in KINDS:
        assert runs[f"public.{kind}"].rows == 30000
        assert sorted(read(real, source, kind)["n"].to_pylist()) == list(range(1, 30001))
        assert (report(real, runs[f"public.{kind}"], 1)["splits"] > 1) == (kind in several)
    assert uploads(real) == []


def test_a_table_that_fails_says_why_and_stops_no_other(real, source, pg_database):
    pg_database.execute("create table good as select 1 as n", "create table prices (p money)")
    real.configure(source, {
        "public.good": {}, "public.prices": {}, "public.goood": {},
    }, defaults={"job_type": "ecs"})  # fmt: skip
    outcome = real.run({"source_name": source, "extract_tables": "*"})
    runs = runs_of(outcome)
    assert runs["public.good"].status == "SUCCEEDED"
    assert runs["public.prices"].error_class == "TypeNotRepresentable"
    assert runs["public.goood"].error_class == "ConfigError"
    assert "public.good" in runs["public.goood"].error_message
    assert {r.attempt for r in outcome.runs} == {1}
    assert (outcome.status, outcome.error) == ("FAILED", "ExtractRunFailed")

    pg_database.execute("alter table prices alter p type numeric(9,2)")
    pg_database.execute("create table goood as select 2 as n")
    again = real.run({"rerun_failed_of": outcome.arn})
    assert sorted(runs_of(again)) == ["public.goood", "public.prices"]
    assert again.status == "SUCCEEDED"


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_a_damaged_spec_fails_its_table_with_the_reason(real, source, pg_database, damage):
    pg_database.execute("create table a as select 1 as n", "create table b as select 1 as n")
    real.configure(source, {"public.a": {"job_type": "glue"}, "public.b": {"job_type": "ecs"}})
    # Glue is busy until the spec is damaged.
    real.fail({"call": "glue:", "error": "Glue.ConcurrentRunsExceededException", "times": 99})
    arn = real.start({"source_name": source, "extract_tables": "*"})
    s3 = real.stack.client("s3")

    def specs():
        keys = [k for k in real.objects("extract-work") if "/specs/" in k and source in k]
        return keys if len(keys) == 2 else None

    for key in wait_for(specs):
        spec = json.loads(s3.get_object(Bucket="extract-work", Key=key)["Body"].read())
        if spec["extract_table"] == "public.a":
            if damage == "missing":
                s3.delete_object(Bucket="extract-work", Key=key)
            else:
                s3.put_object(Bucket="extract-work", Key=key, Body=b'{"version": 1')
    real.fail()
    runs = runs_of(real.wait(arn))
    assert runs["public.b"].status == "SUCCEEDED"
    assert (runs["public.a"].status, runs["public.a"].error_class) == ("FAILED", "ConfigError")
    assert "spec" in runs["public.a"].error_message


@pytest.mark.parametrize("kind", sample(KINDS, 2))
def test_a_worker_killed_in_the_midst_is_retried_and_the_data_is_whole(
    real, source, pg_database, kind
):
    pg_database.execute(SLOW)
    real.configure(source, {"public.slow": KINDS[kind]})
    arn = real.start({"source_name": source, "extract_tables": "*"})
    wait_for(lambda: reading(pg_database))
    pg_database.execute("update pace set seconds = 0")
    for process in workers(real, source):
        process.send_signal(signal.SIGKILL)
    outcome = real.wait(arn)
    run = runs_of(outcome)["public.slow"]
    assert (run.status, run.attempt, run.rows) == ("SUCCEEDED", 2, 20000)
    assert sorted(read(real, source, "slow")["n"].to_pylist()) == list(range(1, 20001))


def test_sigterm_to_the_ecs_worker_aborts_what_it_staged(real, source, pg_database):
    pg_database.execute(SLOW)
    real.configure(source, {"public.slow": KINDS["ecs"]})
    arn = real.start({"source_name": source, "extract_tables": "*"})
    wait_for(lambda: reading(pg_database))
    pg_database.execute("update pace set seconds = 0")
    stopped = workers(real, source)
    for process in stopped:
        process.terminate()
    # ECS kills 30 s after it has said so.
    assert psutil.wait_procs(stopped, timeout=20)[1] == []
    outcome = real.wait(arn)
    run = runs_of(outcome)["public.slow"]
    assert (run.status, run.attempt, run.rows) == ("SUCCEEDED", 2, 20000)
    first = report(real, run, 1)
    assert (first["status"], first["error"]["class"]) == ("failed", "Interrupted")
    assert uploads(real) == []
    assert sorted(read(real, source, "slow")["n"].to_pylist()) == list(range(1, 20001))


SLICES = {
    "overwrite": {"target": {"write_mode": "overwrite"}},
    "incremental": {"mode": "incremental", "watermark": {"column": "n"},
                    "target": {"write_mode": "append"}},
}  # fmt: skip


@pytest.mark.parametrize("slices", SLICES)
def test_two_executions_of_the_same_tables_leave_each_row_once(real, source, pg_database, slices):
    """The loser plans again on the winner's commit, where nothing is left of the same slice."""
    pg_database.execute(*(
        f"create table {t} as select i as n from generate_series(1, 5000) i" for t in "ab"
    ))  # fmt: skip
    defaults = {"job_type": "ecs", **SLICES[slices]}
    target = {"uri": "s3://lake/{source_name}/{schema}/{table}", **defaults["target"]}
    real.configure(
        source, {"public.a": {}, "public.b": {}}, defaults={**defaults, "target": target}
    )
    arns = [real.start({"source_name": source, "extract_tables": "*"}) for _ in range(2)]
    outcomes = [real.wait(arn) for arn in arns]
    for outcome in outcomes:
        for run in outcome.runs:
            assert run.status == "SUCCEEDED" or run.error_class == "CommitConflict"
    for table in "ab":
        assert {runs_of(o)[f"public.{table}"].status for o in outcomes} >= {"SUCCEEDED"}
        assert sorted(read(real, source, table)["n"].to_pylist()) == list(range(1, 5001))
    assert uploads(real) == []
