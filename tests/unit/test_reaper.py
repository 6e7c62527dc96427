"""The reaper: runs that an execution left behind, and tables that are overdue.

DynamoDB is an emulator's. The job services and the list of executions are stood in for by what
their API answers: no emulator keeps jobs that outlive their execution.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from pathlib import Path

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError

from entrypoints.reap_extract_job_runs import DAYS, Settings, count_overdue, reap, stop_silent
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.config import load_config, with_listed
from extract_jobs.config.known_tables import KnownTables, as_listed, known_tables_uri, news
from extract_jobs.config.model import JobSettings
from extract_jobs.errors import ConfigError, ExtractError, SourceUnavailable
from extract_jobs.reporting.report import Report, ReportedError
from extract_jobs.storage import join, open_storage
from extract_jobs.tracking.map_item import WORKER_ARGUMENTS, first_item, worker_arguments
from extract_jobs.tracking.table import TrackedRun, Tracking, create_table
from tests.support.specs import make_spec

NOW = datetime(2025, 3, 1, tzinfo=UTC)
MACHINE = "arn:aws:states:eu-central-1:123456789012:stateMachine:extract"


class Pages:
    """A client whose paginated calls answer what they are given, and which tells what was asked."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def get_paginator(self, name):
        self.name = name
        return self

    def paginate(self, **asked):
        self.asked.append(asked)
        answer = self.answers[self.name]
        if isinstance(answer, Exception):
            raise answer
        yield answer

    def describe_tasks(self, **asked):
        self.asked.append(asked)
        return self.answers["describe_tasks"]


@pytest.fixture(scope="module")
def client(ministack):
    given = ministack.environment()
    made = boto3.client(
        "dynamodb",
        endpoint_url=ministack.endpoint_url,
        region_name=given["AWS_DEFAULT_REGION"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
    )
    yield made
    made.close()


@pytest.fixture
def tracking(client):
    name = f"tracking-{uuid.uuid4().hex[:8]}"
    create_table(client, name)
    return Tracking(client, name, lambda: NOW)


class Left:
    """An execution that ended some way, with one run in it."""

    def __init__(self, folder, tracking, status="ABORTED", age=timedelta(hours=1), **job):
        self.tracking, self.clients = tracking, {}
        self.execution = f"{MACHINE.replace('stateMachine', 'execution')}:{uuid.uuid4()}"
        self.listed = {
            "executionArn": self.execution, "status": status, "startDate": NOW - age,
        }  # fmt: skip
        run_id = uuid.uuid4().hex
        spec = make_spec(
            folder,
            run_id=run_id,
            report_uri=f"{folder}/reports/attempt-1.json",
            tracking_table=tracking.table,
        )
        self.item = first_item(
            spec,
            JobSettings.model_validate({"job_type": "glue", **job}),
            spec_uri=f"{folder}/specs/{run_id}.json",
            execution_id=self.execution,
            generation=1,
            job_defaults={},
        )
        Path(folder, "tables_to_extract.json").write_text(json.dumps([self.item]))
        self.run = TrackedRun(
            table_id=spec.table_id,
            run_id=run_id,
            execution_id=self.execution,
            source_name=spec.source_name,
            extract_table=spec.extract_table,
            job_type=self.item["job_type"],
            spec_uri=self.item["spec_uri"],
            report_uri=self.item["report_uri"],
        )
        tracking.announce([self.run])

    def start(self):
        assert self.tracking.start(self.run)

    def report(self, error=None, **fields):
        failed = error and ReportedError(
            class_name=type(error).__name__, message=str(error), retryable=error.retryable
        )
        report = Report(
            status="failed" if failed else "succeeded",
            run_id=self.run.run_id,
            attempt=1,
            source_name=self.run.source_name,
            extract_table=self.run.extract_table,
            target_uri="x",
            error=failed,
            **fields,
        )
        uri = self.run.report_uri
        open_storage(uri).put(uri, report.to_json().encode())

    def reap(self, *older, **clients):
        listed = [one.listed for one in (self, *older)]
        clients["stepfunctions"] = Pages(list_executions={"executions": listed})
        settings = Settings(MACHINE, "", timedelta(hours=26))
        return reap(
            settings, tracking=self.tracking, client=clients.__getitem__, open_storage=open_storage
        )

    def tracked(self):
        return self.tracking.read(self.run.table_id, self.run.run_id)


def glue(*states, run_id=""):
    runs = [{"JobRunState": s, "Arguments": {"--run_id": run_id}} for s in states]
    return Pages(get_job_runs={"JobRuns": runs})


def test_a_run_whose_job_is_gone_is_failed_and_can_be_rerun(tmp_path, tracking, capsys):
    left = Left(tmp_path, tracking)
    left.start()
    assert left.reap(glue=glue("STOPPED", run_id=left.run.run_id))["failed"] == 1
    run = left.tracked()
    assert (run.status, run.error_class) == ("FAILED", "ExecutionAborted")
    assert "rerun_failed_of" in run.error_message
    counted = json.loads(capsys.readouterr().out)
    assert (counted["TablesFailed"], counted["run_id"]) == (1, run.run_id)
    again = replace(run, generation=2, status="PENDING")
    assert tracking.announce([again]) == 1


def test_reaping_again_changes_and_counts_nothing(tmp_path, tracking, capsys):
    left = Left(tmp_path, tracking)
    left.start()
    left.reap(glue=glue())
    before = left.tracked()
    capsys.readouterr()
    assert left.reap() == {"succeeded": 0, "failed": 0, "running": 0}
    assert left.tracked() == before
    assert capsys.readouterr().out == ""


def test_a_run_that_never_started_is_failed_without_asking_anybody(tmp_path, tracking):
    left = Left(tmp_path, tracking, status="TIMED_OUT")
    assert left.reap()["failed"] == 1
    assert left.tracked().error_class == "ExecutionTimedOut"


def test_what_a_worker_reported_counts(tmp_path, tracking):
    left = Left(tmp_path, tracking, status="FAILED")
    left.start()
    left.report(rows=7, bytes=512, files=2, commit_seq=1)
    assert left.reap(glue=glue("SUCCEEDED", run_id=left.run.run_id))["succeeded"] == 1
    run = left.tracked()
    assert (run.status, run.rows, run.commit_seq) == ("SUCCEEDED", 7, 1)


def test_a_failure_that_would_be_tried_again_is_final(tmp_path, tracking):
    left = Left(tmp_path, tracking)
    left.start()
    left.report(SourceUnavailable("the server is gone"))
    left.reap(glue=glue())
    run = left.tracked()
    assert (run.status, run.error_class) == ("FAILED", "SourceUnavailable")


def test_a_run_without_its_list_is_failed(tmp_path, tracking):
    left = Left(tmp_path, tracking)
    left.start()
    (tmp_path / "tables_to_extract.json").unlink()
    assert left.reap()["failed"] == 1


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_executions_that_run_or_were_summed_up_are_left_alone(tmp_path, tracking, status):
    left = Left(tmp_path, tracking, status=status)
    left.start()
    assert left.reap() == {"succeeded": 0, "failed": 0, "running": 0}
    assert left.tracked().status == "RUNNING"


def test_an_execution_that_the_machine_itself_has_given_up_is_resolved(tmp_path, tracking):
    machine = json.loads(Path("asl/extract_pipeline.asl.json").read_text())
    age = timedelta(seconds=machine["TimeoutSeconds"], hours=2)
    left = Left(tmp_path, tracking, status="TIMED_OUT", age=age)
    assert left.reap()["failed"] == 1
    assert left.tracked().error_class == "ExecutionTimedOut"


def test_old_executions_are_not_looked_at(tmp_path, tracking):
    left = Left(tmp_path, tracking, age=timedelta(days=DAYS, seconds=1))
    left.start()
    left.reap()
    assert left.tracked().status == "RUNNING"


DENIED = ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetJobRuns")
GONE = ClientError({"Error": {"Code": "EntityNotFoundException"}}, "GetJobRuns")


@pytest.mark.parametrize(
    ("job", "clients"),
    [
        ({"job_type": "glue"}, lambda run: {"glue": glue("RUNNING", run_id=run)}),
        ({"job_type": "glue"}, lambda run: {"glue": glue("WAITING", run_id=run)}),
        ({"job_type": "glue"}, lambda _: {"glue": Pages(get_job_runs=DENIED)}),
        (
            {"job_type": "emr", "emr": {"application_id": "a", "entry_point": "s3://e"}},
            lambda run: {"emr-serverless": Pages(list_job_runs={"jobRuns": [{"name": run}]})},
        ),
        (
            {"job_type": "emr", "emr": {"cluster_id": "j-1", "entry_point": "s3://e"}},
            lambda run: {"emr": Pages(list_steps={"Steps": [{"Name": run}]})},
        ),
        ({"job_type": "ecs"}, lambda run: {"ecs": ecs(run, "RUNNING")}),
    ],
)
def test_a_job_that_runs_or_cannot_be_asked_for_is_waited_for(tmp_path, tracking, job, clients):
    left = Left(tmp_path, tracking, **job)
    left.start()
    assert left.reap(**clients(left.run.run_id))["running"] == 1
    assert left.tracked().status == "RUNNING"


@pytest.mark.parametrize(
    ("job", "clients"),
    [
        ({"job_type": "glue"}, lambda run: {"glue": glue("EXPIRED", "TIMEOUT", run_id=run)}),
        ({"job_type": "glue"}, lambda _: {"glue": glue("RUNNING", run_id="another")}),
        ({"job_type": "glue"}, lambda _: {"glue": Pages(get_job_runs=GONE)}),
        (
            {"job_type": "emr", "emr": {"application_id": "a", "entry_point": "s3://e"}},
            lambda _: {"emr-serverless": Pages(list_job_runs={"jobRuns": [{"name": "another"}]})},
        ),
        (
            {"job_type": "emr", "emr": {"cluster_id": "j-1", "entry_point": "s3://e"}},
            lambda _: {"emr": Pages(list_steps={"Steps": []})},
        ),
        ({"job_type": "ecs"}, lambda run: {"ecs": ecs(run, "STOPPED")}),
        ({"job_type": "ecs"}, lambda _: {"ecs": ecs("another", "RUNNING")}),
    ],
)
def test_a_job_that_no_longer_runs_is_resolved(tmp_path, tracking, job, clients):
    left = Left(tmp_path, tracking, **job)
    left.start()
    assert left.reap(**clients(left.run.run_id))["failed"] == 1


def ecs(run_id, status):
    item = dict.fromkeys(WORKER_ARGUMENTS, "x") | {"run_id": run_id}
    command = worker_arguments(item)
    task = {
        "lastStatus": status,
        "overrides": {"containerOverrides": [{"command": command}]},
    }
    return Pages(list_tasks={"taskArns": ["t"]}, describe_tasks={"tasks": [task]})


def test_a_service_is_asked_once_for_all_that_an_execution_left(tmp_path, tracking):
    left = Left(tmp_path, tracking)
    runs = [replace(left.run, table_id=f"s/{i}", run_id=f"{i:032x}") for i in range(5)]
    tracking.announce(runs)
    items = [{**left.item, "run_id": run.run_id} for run in [left.run, *runs]]
    (tmp_path / "tables_to_extract.json").write_text(json.dumps(items))
    for run in [left.run, *runs]:
        assert tracking.start(run)
    jobs = glue("STOPPED")
    assert left.reap(glue=jobs)["failed"] == 6
    assert len(jobs.asked) == 1


@pytest.mark.parametrize("damage", ["{", "{}", "[1]", '[{"run_id": []}]', '[{"batch": 1}]'])
def test_an_execution_that_cannot_be_resolved_keeps_no_other_from_it(
    tmp_path, tracking, caplog, damage
):
    for name in ("newer", "older"):
        (tmp_path / name).mkdir()
    newer, older = (Left(tmp_path / name, tracking) for name in ("newer", "older"))
    (tmp_path / "newer" / "tables_to_extract.json").write_text(damage)
    with pytest.raises(ExtractError, match=r"tables_to_extract\.json"):
        newer.reap(older)
    assert (newer.tracked().status, older.tracked().status) == ("PENDING", "FAILED")
    assert "is left to the next call" in caplog.text


def commit(left, *outcomes):
    """Write a commit of the run, claimed, and its outcome if one is given."""
    uri = left.item["state_uri"]
    storage = open_storage(uri)
    log = CommitLog(storage, uri, storage)
    log.plans.pin(left.run.run_id, 0, {"any": "plan"})
    made = Commit(
        commit_id="c", seq=1, parent=0, live_since=1, run_id=left.run.run_id, attempt=1,
        table_id=left.run.table_id, target_uri="x", fingerprint={}, interval=None, watermark=None,
        schema=[], files=(), retire=(), report={},
    )  # fmt: skip
    log.prepare(made)
    assert log._claims().stands(made)
    for outcome in outcomes:
        name = join(uri, "outcomes", f"{1:020d}.json")
        storage.put(name, json.dumps({"outcome": outcome, "commit_id": "c"}).encode())


def test_a_run_called_failed_is_corrected_once_its_commit_is_published(tmp_path, tracking, capsys):
    left = Left(tmp_path, tracking, status="FAILED")
    left.start()
    commit(left)
    assert left.reap(glue=glue())["failed"] == 1
    assert left.tracked().status == "FAILED"
    assert left.reap() == {"succeeded": 0, "failed": 0, "running": 0}
    commit(left, "published")
    capsys.readouterr()
    assert left.reap()["succeeded"] == 1
    assert (left.tracked().status, left.tracked().commit_seq) == ("SUCCEEDED", 1)
    assert json.loads(capsys.readouterr().out)["TablesSucceeded"] == 1


def test_a_worker_that_the_reaper_gave_up_on_publishes_nothing(tmp_path, tracking):
    left = Left(tmp_path, tracking)
    left.start()
    left.reap(glue=glue())
    uri = left.item["state_uri"]
    storage = open_storage(uri)
    assert CommitLog(storage, uri, storage).fenced_by(left.run.run_id)


def test_runs_of_glue_from_before_any_that_may_run_are_not_read(tmp_path, tracking):
    left = Left(tmp_path, tracking)
    left.start()
    read = []

    class Runs:
        def get_paginator(self, _name):
            return self

        def paginate(self, **_asked):
            for days in (1, 34, 37, 50):
                read.append(days)
                started = NOW - timedelta(days=days)
                runs = [{"JobRunState": "SUCCEEDED", "StartedOn": started, "Arguments": {}}]
                yield {"JobRuns": runs}

    assert left.reap(glue=Runs())["failed"] == 1
    assert read == [1, 34, 37]


# Silent workers


SILENT = timedelta(minutes=11)


class Stopping(Pages):
    """A job service that keeps what it is asked to stop."""

    def __init__(self, error=None, **answers):
        super().__init__(**answers)
        self.error, self.stopped = error, []

    def _stop(self, called, **asked):
        if self.error:
            raise self.error
        self.called = called
        self.stopped.append(asked)

    batch_stop_job_run = partialmethod(_stop, "BatchStopJobRun")
    cancel_job_run = partialmethod(_stop, "CancelJobRun")
    cancel_steps = partialmethod(_stop, "CancelSteps")
    stop_task = partialmethod(_stop, "StopTask")


class Running(Left):
    """An execution that runs, with one attempt that has written no progress lately."""

    def __init__(self, folder, tracking, silent=SILENT, **job):
        super().__init__(folder, tracking, status="RUNNING", **job)
        self.beat_at = NOW - silent
        then = Tracking(tracking.client, tracking.table, lambda: self.beat_at)
        assert then.start(self.run)

    def stop_silent(self, **clients):
        clients["stepfunctions"] = Pages(list_executions={"executions": [self.listed]})
        settings = Settings(MACHINE, "", timedelta(hours=26))
        answer = stop_silent(
            settings, tracking=self.tracking, client=clients.__getitem__, open_storage=open_storage
        )
        assert clients["stepfunctions"].asked == [
            {"stateMachineArn": MACHINE, "statusFilter": "RUNNING"}
        ]
        return answer


def glue_job(run_id, started=NOW - timedelta(hours=1), **more):
    job = {"Id": "jr_1", "JobRunState": "RUNNING", "Arguments": {"--run_id": run_id}}
    return Stopping(get_job_runs={"JobRuns": [{**job, "StartedOn": started}]}, **more)


def emr_job(run_id):
    return Stopping(list_job_runs={"jobRuns": [{"name": run_id, "id": "j"}]})


def emr_step(run_id):
    return Stopping(list_steps={"Steps": [{"Name": run_id, "Id": "s-1"}]})


def ecs_task(run_id):
    answers = ecs(run_id, "RUNNING").answers
    answers["describe_tasks"]["tasks"][0]["taskArn"] = "arn:task"
    return Stopping(**answers)


@pytest.mark.parametrize(
    ("job", "service", "made", "asked"),
    [
        ({}, "glue", glue_job, {"JobName": "extract", "JobRunIds": ["jr_1"]}),
        (
            {"job_type": "emr", "emr": {"application_id": "a", "entry_point": "s3://e"}},
            "emr-serverless", emr_job, {"applicationId": "a", "jobRunId": "j"},
        ),
        (
            {"job_type": "emr", "emr": {"cluster_id": "j-1", "entry_point": "s3://e"}},
            "emr", emr_step,
            {"ClusterId": "j-1", "StepIds": ["s-1"],
             "StepCancellationOption": "TERMINATE_PROCESS"},
        ),
        (
            {"job_type": "ecs"}, "ecs", ecs_task,
            {"cluster": "extract", "task": "arn:task",
             "reason": "attempt 1 has written no progress since 2025-02-28T23:49:00.000+00:00; its "
                       "worker hung, or lost the network, and was stopped"},
        ),
    ],
)  # fmt: skip
def test_the_job_of_a_silent_attempt_is_stopped(tmp_path, tracking, job, service, made, asked):
    running = Running(tmp_path, tracking, **job)
    jobs = made(running.run.run_id)
    assert running.stop_silent(**{service: jobs}) == {"running": 1, "silent": 1, "stopped": 1}
    (given,) = jobs.stopped
    for name in ("JobName", "cluster"):  # what the config's default says
        asked = {**asked, name: given[name]} if name in asked else asked
    assert given == asked
    model = botocore.session.get_session().get_service_model(service)
    assert given.keys() <= model.operation_model(jobs.called).input_shape.members.keys()
    run = running.tracked()
    assert run.status == "RUNNING", "the state machine decides what becomes of it"
    assert "no progress since 2025-02-28T23:49:00" in run.stopped_because


def test_an_attempt_that_writes_its_progress_is_left_alone(tmp_path, tracking, capsys):
    running = Running(tmp_path, tracking, silent=timedelta(minutes=9))
    assert running.stop_silent() == {"running": 1, "silent": 0, "stopped": 0}
    counted = json.loads(capsys.readouterr().out)
    figures = {k: v for k, v in counted.items() if k.startswith(("Tables", "Rows"))}
    assert figures == {"TablesPending": 0, "TablesRunning": 1, "TablesEnded": 0}
    assert counted["source_name"] == "sales"


def test_progress_is_counted_for_the_execution_and_for_each_running_table(
    tmp_path, tracking, capsys
):
    running = Running(tmp_path, tracking, silent=timedelta(minutes=9))
    progress = {"phase": "extract", "splits": 8, "splits_done": 3, "rows": 1_200, "bytes": 5_000,
                "estimated_rows": None, "moved_at": "2025-03-01T00:00:00+00:00"}  # fmt: skip
    assert tracking.beat(running.run, json.dumps(progress))
    running.stop_silent()
    execution, table = map(json.loads, capsys.readouterr().out.splitlines())
    assert execution["TablesRunning"] == 1
    shown = {"RowsInProgress": 1_200, "BytesInProgress": 5_000, "source_name": "sales",
             "extract_table": running.run.extract_table, "run_id": running.run.run_id}  # fmt: skip
    assert table.items() >= shown.items()
    [directive] = table["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["Pipeline"], ["Pipeline", "source_name"]], "billed"


def test_an_attempt_of_a_version_without_heartbeats_is_left_alone(tmp_path, tracking):
    left = Left(tmp_path, tracking, status="RUNNING")
    left.start()
    silent = Running(tmp_path, tracking)
    silent.run = left.run
    tracking.client.update_item(
        TableName=tracking.table,
        Key={"table_id": {"S": left.run.table_id}, "run_id": {"S": left.run.run_id}},
        UpdateExpression="REMOVE beat_at",
    )
    silent.listed = left.listed
    assert silent.stop_silent() == {"running": 1, "silent": 0, "stopped": 0}


def test_a_job_that_began_after_the_last_sign_of_life_is_another_attempts(tmp_path, tracking):
    running = Running(tmp_path, tracking)
    jobs = glue_job(running.run.run_id, started=NOW - timedelta(minutes=1))
    assert running.stop_silent(glue=jobs) == {"running": 1, "silent": 1, "stopped": 0}
    assert jobs.stopped == []
    assert running.tracked().stopped_because == ""


def test_an_attempt_that_comes_back_in_the_last_moment_is_left_alone(tmp_path, tracking):
    running = Running(tmp_path, tracking)
    jobs = glue_job(running.run.run_id)

    class Slow:
        def __getattr__(self, name):
            if name == "get_paginator":
                assert tracking.beat(running.run, "{}")
            return getattr(jobs, name)

    assert running.stop_silent(glue=Slow()) == {"running": 1, "silent": 1, "stopped": 0}
    assert jobs.stopped == []


def test_a_job_that_may_not_be_stopped_is_reported(tmp_path, tracking, caplog):
    running = Running(tmp_path, tracking)
    jobs = glue_job(running.run.run_id, error=DENIED)
    assert running.stop_silent(glue=jobs) == {"running": 1, "silent": 1, "stopped": 0}
    assert "could not be stopped" in caplog.text


# Overdue tables


CONFIG = """
version: 1
source: {{name: {name}, type: postgres, connection: {{host: db, database: d, user: u}}}}
defaults: {{target: {{uri: "/lake/{{table}}"}}}}
tables: {{public.a: , public.b: }}
"""


def succeed(tracking, table_id, commit_seq):
    run = TrackedRun(table_id=table_id, run_id=uuid.uuid4().hex, commit_seq=commit_seq)
    assert tracking.end(replace(run, status="SUCCEEDED"))


def test_tables_without_a_success_for_too_long_are_counted(tmp_path, client, tracking, capsys):
    (tmp_path / "sales.yml").write_text(CONFIG.format(name="sales"))
    (tmp_path / "broken.yml").write_text("version: 2")
    written = datetime.fromtimestamp((tmp_path / "sales.yml").stat().st_mtime, UTC)
    settings = Settings(MACHINE, str(tmp_path), timedelta(hours=26))

    def overdue(after):
        later = Tracking(client, tracking.table, lambda: written + after)
        capsys.readouterr()
        found = count_overdue(settings, tracking=later, open_storage=open_storage)
        counted = json.loads(capsys.readouterr().out)
        assert counted["TablesOverdue"] == len(found)
        return found

    assert overdue(timedelta(hours=25)) == []
    assert overdue(timedelta(hours=27)) == ["sales/public.a", "sales/public.b"]
    succeeding = Tracking(client, tracking.table, lambda: written + timedelta(hours=20))
    succeed(succeeding, "sales/public.a", 1)
    # Nothing new to extract is a success too, also where there is no commit yet.
    succeed(succeeding, "sales/public.b", None)
    assert overdue(timedelta(hours=27)) == []
    assert overdue(timedelta(hours=47)) == ["sales/public.a", "sales/public.b"]
    later = Tracking(client, tracking.table, lambda: written + timedelta(hours=40))
    succeed(later, "sales/public.a", None)
    assert overdue(timedelta(hours=47)) == ["sales/public.b"]


def test_a_table_of_a_pattern_is_overdue_from_when_a_run_first_took_it(
    tmp_path, client, tracking, capsys
):
    name = f"sales-{uuid.uuid4().hex[:8]}"
    text = CONFIG.format(name=name).replace("public.a: , public.b: ", "public.*: ")
    (tmp_path / f"{name}.yml").write_text(text)
    written = datetime.fromtimestamp((tmp_path / f"{name}.yml").stat().st_mtime, UTC)
    config = load_config(text, "config")
    work = str(tmp_path / "work")
    storage, uri = open_storage(work), known_tables_uri(work, name)
    for hours, names in ((1, ["public.a"]), (100, ["public.a", "public.b"])):
        listed = with_listed(config, as_listed(names))
        known = KnownTables.read(storage, uri)
        found = news(listed, known, names, written + timedelta(hours=hours))
        storage.put(uri, found.known.to_bytes())
    settings = Settings(MACHINE, str(tmp_path), timedelta(hours=26), work)

    def overdue(after):
        later = Tracking(client, tracking.table, lambda: written + after)
        return count_overdue(settings, tracking=later, open_storage=open_storage)

    assert overdue(timedelta(hours=101)) == [f"{name}/public.a"]
    assert overdue(timedelta(hours=127)) == [f"{name}/public.a", f"{name}/public.b"]
    capsys.readouterr()


def test_what_the_deployment_leaves_out_is_named():
    with pytest.raises(ConfigError, match="lacks CONFIG_URI, OVERDUE_HOURS"):
        Settings.from_environment({"STATE_MACHINE_ARN": MACHINE})
    given = {"STATE_MACHINE_ARN": MACHINE, "CONFIG_URI": "s3://b/config", "OVERDUE_HOURS": "x"}
    with pytest.raises(ConfigError, match="OVERDUE_HOURS"):
        Settings.from_environment(given)
    given["OVERDUE_HOURS"] = "26"
    assert Settings.from_environment(given).overdue == timedelta(hours=26)
