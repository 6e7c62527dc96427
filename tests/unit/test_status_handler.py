"""The status handler: what a service said, what a worker reported, what the commit log holds."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

import boto3
import pytest

from entrypoints import handle_extract_job_run_status as status_handler
from entrypoints.handle_extract_job_run_status import handle, summarize
from extract_jobs import errors
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.config.model import JobSettings
from extract_jobs.errors import ConfigError, ExtractError, SourceUnavailable
from extract_jobs.reporting.report import Report, ReportedError
from extract_jobs.storage import StagedFile, WrittenFile, join, open_storage
from extract_jobs.storage.local import LocalStorage
from extract_jobs.tracking.map_item import first_item, next_item, worker_arguments
from extract_jobs.tracking.retry_policy import ROLL_FORWARD_LIMIT
from extract_jobs.tracking.table import TrackedRun, Tracking, create_table
from tests.support.specs import make_spec

EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:extract:one"


@pytest.fixture(scope="module")
def table(ministack):
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


class Job:
    """One table's run, and what tests do with it."""

    def __init__(self, folder, tracking, **settings):
        run_id = uuid.uuid4().hex
        spec = make_spec(
            folder,
            run_id=run_id,
            report_uri=f"{folder}/reports/attempt-1.json",
            tracking_table=tracking.table,
        )
        self.tracking = tracking
        self.item = first_item(
            spec,
            JobSettings.model_validate({"job_type": "glue", **settings}),
            spec_uri=f"{folder}/specs/{run_id}.json",
            execution_id=f"{EXECUTION}-{run_id}",
            generation=1,
            job_defaults={},
        )
        self.folder = folder
        self.listed()
        self.run = TrackedRun(
            table_id=spec.table_id,
            run_id=run_id,
            execution_id=self.item["execution_id"],
            source_name="sales",
            extract_table="public.orders",
            spec_uri=self.item["spec_uri"],
            report_uri=self.item["report_uri"],
        )
        tracking.announce([self.run])

    def listed(self):
        uri = f"{self.folder}/tables_to_extract.json"
        open_storage(uri).put(uri, json.dumps([self.item]).encode())

    def start(self):
        now = {"attempt": self.item["attempt"], "report_uri": self.item["report_uri"]}
        assert self.tracking.start(replace(self.run, **now))

    def report(self, error=None, raw=None, **fields):
        failed = None
        if error is not None:
            failed = ReportedError(
                class_name=type(error).__name__, message=str(error), retryable=error.retryable
            )
        report = Report(**{
            "status": "failed" if failed else "succeeded",
            "run_id": self.item["run_id"],
            "attempt": self.item["attempt"],
            "source_name": "sales",
            "extract_table": "public.orders",
            "target_uri": "x",
            "error": failed,
            **fields,
        })  # fmt: skip
        uri = self.item["report_uri"]
        open_storage(uri).put(uri, report.to_json().encode() if raw is None else raw)

    def commit(self, *outcomes, run_id=None):
        """Write a commit of this run's, and its outcome if one is given."""
        uri = self.item["state_uri"]
        storage = open_storage(uri)
        log = CommitLog(storage, uri, storage)
        log.plans.pin(self.item["run_id"], 0, {"any": "plan"})
        files = tuple(
            WrittenFile(StagedFile(f"{uri}/target/{n}", f"t{n}", 512, {}), 7, {}) for n in (1, 2)
        )
        log.prepare(
            Commit(
                commit_id="c", seq=1, parent=0, live_since=1,
                run_id=run_id or self.item["run_id"], attempt=1, table_id="sales/public.orders",
                target_uri=f"{uri}/target", fingerprint={}, interval=None, watermark=None,
                schema=[], files=files, retire=(), report={},
            )
        )  # fmt: skip
        for outcome in outcomes:
            name = join(uri, "outcomes", f"{1:020d}.json")
            storage.put(name, json.dumps({"outcome": outcome, "commit_id": "c"}).encode())

    def log(self):
        uri = self.item["state_uri"]
        return CommitLog(open_storage(uri), uri, open_storage(uri))

    def handle(self, error="", cause="", result=None):
        item = {**self.item, "job_error": {"Error": error, "Cause": cause},
                "job_result": result or {}}  # fmt: skip
        return handle(item, tracking=self.tracking, open_storage=open_storage)

    def tracked(self):
        return self.tracking.read(self.run.table_id, self.run.run_id)

    def go_on(self, answer):
        self.item = answer["item"]
        return self


@pytest.fixture
def job(tmp_path, table):
    return Job(tmp_path, table)


GLUE_FAILED = json.dumps({
    "JobName": "extract-jobs", "JobRunState": "FAILED", "Arguments": {"--run_id": "OutOfMemory"},
    "ErrorMessage": "Error Category: UNCLASSIFIED_ERROR; something happened",
})  # fmt: skip
ECS_KILLED = json.dumps({
    "Containers": [{"ExitCode": 137, "Name": "extract-jobs"}],
    "StoppedReason": "Essential container in task exited",
})  # fmt: skip


def test_a_report_of_success_is_success(job):
    job.start()
    job.report(rows=7, bytes=512, files=2, commit_seq=1)
    assert job.handle() == {"outcome": "succeeded", "run_id": job.run.run_id}
    run = job.tracked()
    assert (run.status, run.rows, run.bytes, run.files, run.commit_seq) == (
        "SUCCEEDED", 7, 512, 2, 1,
    )  # fmt: skip
    assert job.tracking.latest(run.table_id)["latest_run_id"] == run.run_id


def test_success_stands_though_the_service_lost_the_worker_afterwards(job):
    job.report(rows=7)
    assert job.handle("States.TaskFailed", GLUE_FAILED)["outcome"] == "succeeded"


BUSY = {"rows": 7, "commit_seq": 1, "catalog": "failed", "catalog_error": "Glue is throttling"}


def test_a_busy_catalog_is_retried_and_then_reported(tmp_path, table):
    job = Job(tmp_path, table, retry={"max_attempts": 2})
    job.report(**BUSY, catalog_retryable=True)
    answer = job.handle("States.TaskFailed", GLUE_FAILED)
    assert answer["outcome"] == "retry"
    run = job.tracked()
    assert (run.status, run.error_class) == ("RETRYING", "CatalogFailed")
    job.go_on(answer)
    job.report(**BUSY, catalog_retryable=True)
    assert job.handle("States.TaskFailed", GLUE_FAILED)["outcome"] == "succeeded"
    run = job.tracked()
    assert (run.status, run.error_class, run.rows) == ("SUCCEEDED", "", 7)
    assert run.catalog_error == "Glue is throttling"


def test_a_catalog_that_the_second_attempt_updated_is_no_longer_reported(job):
    job.report(**BUSY, catalog_retryable=True)
    job.go_on(job.handle())
    assert job.tracked().catalog_error == "Glue is throttling"
    job.report(rows=7, commit_seq=1, catalog="updated")
    assert job.handle()["outcome"] == "succeeded"
    assert (job.tracked().catalog_error, job.tracked().error_class) == ("", "")


def test_what_became_of_the_catalog_is_not_forgotten_by_a_worker_that_died(job):
    job.report(**BUSY, catalog_retryable=True)
    job.commit("published")
    job.go_on(job.handle())
    assert job.handle("States.TaskFailed", GLUE_FAILED)["outcome"] == "succeeded"
    assert job.tracked().catalog_error == "Glue is throttling"


def test_the_summary_names_the_catalog_of_a_worker_that_died(job):
    job.report(**BUSY, catalog_retryable=True)
    job.commit("published")
    job.go_on(job.handle())
    job.start()
    answer = asked(job.tracking, job.item["execution_id"], 1)
    assert (answer["outcome"], answer["catalog_failed"]) == ("succeeded", 1)
    assert job.tracked().catalog_error == "Glue is throttling"


@pytest.mark.parametrize("reported", [True, False])
def test_a_catalog_that_nobody_said_anything_of_is_updated_by_another_attempt(
    tmp_path, table, capsys, reported
):
    """A worker that is killed, or stopped while Glue is throttling, leaves readers behind."""
    job = Job(tmp_path, table, retry={"max_attempts": 2})
    job.item["catalog"] = True
    job.commit("published")
    if reported:
        job.report(errors.Interrupted("stopped by SIGTERM"))
    answer = job.handle("States.TaskFailed", ECS_KILLED)
    assert answer["outcome"] == "retry"
    assert answer["item"]["glue"]["worker_type"] == job.item["glue"]["worker_type"]
    run = job.tracked()
    assert (run.status, run.error_class, run.commit_seq) == ("RETRYING", "CatalogFailed", 1)
    job.go_on(answer)
    assert job.handle("States.TaskFailed", ECS_KILLED)["outcome"] == "succeeded"
    run = job.tracked()
    assert (run.status, run.error_class, run.rows) == ("SUCCEEDED", "", 14)
    assert "the worker ended before it said" in run.catalog_error
    assert capsys.readouterr().out.count('"CatalogFailed": 1') == 1


def test_a_summary_does_not_wait_for_a_catalog_that_nobody_said_anything_of(job):
    job.item["catalog"] = True
    job.listed()
    job.commit("published")
    job.start()
    answer = asked(job.tracking, job.item["execution_id"], 1)
    assert (answer["outcome"], answer["rows"], answer["catalog_failed"]) == ("succeeded", 14, 1)
    assert (job.tracked().status, job.tracked().error_class) == ("SUCCEEDED", "")


NOTHING_NEW = {"catalog": "failed", "catalog_error": "Glue is throttling"}


@pytest.mark.parametrize("error", [SourceUnavailable("the server is down"), ConfigError("no")])
def test_a_run_without_new_rows_does_not_fail_while_its_catalog_is_busy(tmp_path, table, error):
    job = Job(tmp_path, table, retry={"max_attempts": 3})
    job.report(**NOTHING_NEW, catalog_retryable=True)
    answer = job.handle()
    assert answer["outcome"] == "retry"
    while answer["outcome"] == "retry":
        job.go_on(answer)
        job.start()
        job.report(error)
        answer = job.handle()
    assert answer["outcome"] == "succeeded"
    run = job.tracked()
    assert (run.status, run.error_class, run.rows) == ("SUCCEEDED", "", 0)
    assert run.catalog_error == "Glue is throttling"
    assert run.attempt == (3 if error.retryable else 2)


def test_nor_where_the_execution_ends_before_the_next_attempt_does(job):
    job.report(**NOTHING_NEW, catalog_retryable=True)
    job.go_on(job.handle())
    job.start()
    answer = asked(job.tracking, job.item["execution_id"], 1)
    assert (answer["outcome"], answer["catalog_failed"]) == ("succeeded", 1)


def test_a_catalog_that_refuses_for_good_is_reported_and_not_retried(job):
    job.report(**{**BUSY, "catalog_error": "Glue refused UpdateTable (AccessDeniedException)"})
    assert job.handle("States.TaskFailed", GLUE_FAILED)["outcome"] == "succeeded"
    assert "AccessDenied" in job.tracked().catalog_error
    answer = asked(job.tracking, job.item["execution_id"], 1)
    assert (answer["outcome"], answer["catalog_failed"]) == ("succeeded", 1)
    assert answer["catalog_failed_tables"] == ["public.orders"]
    assert "The catalog is not up to date for public.orders (Glue refused" in answer["message"]


def test_a_summary_does_not_wait_for_a_catalog(job):
    job.start()
    job.report(**BUSY, catalog_retryable=True)
    answer = asked(job.tracking, job.item["execution_id"], 1)
    assert (answer["outcome"], answer["rows"], answer["catalog_failed"]) == ("succeeded", 7, 1)
    assert (job.tracked().status, job.tracked().error_class) == ("SUCCEEDED", "")


@pytest.mark.parametrize("kind", [
    kind for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ExtractError)
])  # fmt: skip
def test_each_class_of_error_is_retried_or_not_as_it_says(job, kind):
    job.report(kind("told"))
    answer = job.handle("States.TaskFailed", GLUE_FAILED)
    assert answer["outcome"] == ("retry" if kind.retryable else "failed")
    run = job.tracked()
    assert (run.status, run.error_class, run.error_message, run.failures) == (
        "RETRYING" if kind.retryable else "FAILED", kind.__name__, "told", 1,
    )  # fmt: skip


def test_attempts_end_and_waits_grow(tmp_path, table):
    job = Job(tmp_path, table, retry={"max_attempts": 4, "backoff_seconds": 100})
    waits = []
    for attempt in (1, 2, 3):
        job.start()
        job.report(errors.SourceUnavailable("away"))
        answer = job.handle("States.TaskFailed")
        waits.append(answer["wait_seconds"])
        assert answer["item"]["attempt"] == attempt + 1
        assert answer["item"]["report_uri"].endswith(f"/reports/attempt-{attempt + 1}.json")
        assert answer["item"]["job_error"] == {"Error": "", "Cause": ""}
        job.go_on(answer)
    assert [75 * 2**n <= wait <= 125 * 2**n for n, wait in enumerate(waits)] == [True] * 3
    job.start()
    job.report(errors.SourceUnavailable("away"))
    assert job.handle("States.TaskFailed") == {"outcome": "failed", "run_id": job.run.run_id}
    assert (job.tracked().failures, job.tracked().attempt) == (4, 4)


@pytest.mark.parametrize("raw", [b"", b"not json", b"{}", b"\xff"])
def test_a_corrupt_report_counts_as_none(job, raw):
    job.report(raw=raw)
    answer = job.handle()
    assert answer["outcome"] == "retry"
    assert "is not a report" in job.tracked().error_message


def test_a_report_of_an_older_attempt_counts_as_none(job):
    job.report(errors.SourceUnavailable("away"))
    job.go_on(job.handle("States.TaskFailed"))
    job.report(attempt=1, rows=9)
    assert job.handle("States.TaskFailed")["outcome"] == "retry"
    assert "is from attempt 1 " in job.tracked().error_message


def test_the_last_attempt_without_a_report_fails_and_says_why(tmp_path, table):
    job = Job(tmp_path, table, retry={"max_attempts": 1})
    assert job.handle("States.TaskFailed", "cut in the mid")["outcome"] == "failed"
    run = job.tracked()
    assert run.error_class == "States.TaskFailed"
    assert run.error_message.startswith("cut in the mid; the worker left no report at ")


@pytest.mark.parametrize(
    ("error", "cause", "expected"),
    [
        ("States.TaskFailed", GLUE_FAILED, ("retry", "States.TaskFailed", False)),
        ("States.TaskFailed", GLUE_FAILED[:70], ("retry", "States.TaskFailed", False)),
        ("States.TaskFailed", ECS_KILLED, ("retry", "WorkerOutOfMemory", True)),
        ("States.TaskFailed", ECS_KILLED[:40], ("retry", "WorkerOutOfMemory", True)),
        ("States.TaskFailed", '{"ErrorMessage": "java.lang.OutOfMemoryError: Java heap space"}',
         ("retry", "WorkerOutOfMemory", True)),
        ("States.TaskFailed", '{"ErrorMessage": "Command failed with exit code 137"}',
         ("retry", "WorkerOutOfMemory", True)),
        ("States.TaskFailed", '{"Containers": [{"ExitCode": 1370}]}',
         ("retry", "States.TaskFailed", False)),
        ("States.TaskFailed", '{"Containers": [{"ExitCode": 78}]}',
         ("failed", "ConfigError", False)),
        ("States.TaskFailed", '{"ErrorMessage": "extract_jobs.errors.SchemaChanged: a column"}',
         ("failed", "SchemaChanged", False)),
        ("States.TaskFailed", '{"StateDetails": "ExitCode: 75. SourceUnavailable: no route"}',
         ("retry", "SourceUnavailable", False)),
        ("States.TaskFailed", "Container killed by YARN for exceeding memory limits. 5.6 of 5.5 GB",
         ("retry", "WorkerOutOfMemory", True)),
        ("States.TaskFailed", "Container [pid=1] is running 9 B beyond the 'PHYSICAL' memory limit",
         ("retry", "WorkerOutOfMemory", True)),
        ("States.TaskFailed", "Container is running beyond physical memory limits",
         ("retry", "WorkerOutOfMemory", True)),
        ("States.TaskFailed", "error='Cannot allocate memory' (errno=12)",
         ("retry", "WorkerOutOfMemory", True)),
        ("States.TaskFailed", "results (1025 MiB) is bigger than spark.driver.maxResultSize (1 GB)",
         ("retry", "WorkerOutOfMemory", True)),
        ("States.TaskFailed", json.dumps({"ErrorMessage": "x" * 900 + " OutOfMemoryError"}),
         ("retry", "WorkerOutOfMemory", True)),
        ("States.TaskFailed", json.dumps({
            "Containers": [{"ExitCode": 137}], "StopCode": "SpotInterruption",
            "StoppedReason": "Your Spot Task was interrupted."}), ("retry", "Interrupted", False)),
        ("States.TaskFailed", json.dumps({
            "Containers": [{"ExitCode": 137}], "StopCode": "UserInitiated",
            "StoppedReason": "by hand"}), ("retry", "Interrupted", False)),
        ("ECS.SdkClientException", "", ("retry", "ECS.SdkClientException", False)),
        ("Glue.SdkClientException", "", ("retry", "Glue.SdkClientException", False)),
        ("ECS.AmazonECSException", ("x (Service: AmazonECS; Status Code: 400; Error Code: "
         "AccessDeniedException; Request ID: 1)"), ("failed", "ECS.AmazonECSException", False)),
        ("ECS.AmazonECSException", ("Rate exceeded (Service: AmazonECS; Status Code: 400; Error "
         "Code: ThrottlingException)"), ("retry", "ECS.AmazonECSException", False)),
        ("EMR.AmazonElasticMapReduceException", ("Maximum number of active steps (State = "
         "'Running', 'Pending') for cluster exceeded. (Error Code: ValidationException)"),
         ("retry", "EMR.AmazonElasticMapReduceException", False)),
        ("ECS.PlatformUnknownException", "", ("failed", "ECS.PlatformUnknownException", False)),
        ("ECS.InvalidParameterException", "", ("failed", "ECS.InvalidParameterException", False)),
        ("ECS.ClientException", "", ("failed", "ECS.ClientException", False)),
        ("States.Timeout", "", ("retry", "States.Timeout", False)),
        ("States.Permissions", "no", ("failed", "States.Permissions", False)),
        ("Glue.ConcurrentRunsExceededException", "full",
         ("retry", "Glue.ConcurrentRunsExceededException", False)),
        ("Glue.EntityNotFoundException", "no job",
         ("failed", "Glue.EntityNotFoundException", False)),
        ("ECS.ClusterNotFoundException", "", ("failed", "ECS.ClusterNotFoundException", False)),
        ("ConfigError", "No service runs this table", ("failed", "ConfigError", False)),
        ("", "", ("retry", "ReportMissing", False)),
    ],
)  # fmt: skip
def test_without_a_report_the_service_is_believed(job, error, cause, expected):
    outcome, name, bigger = expected
    answer = job.handle(error, cause)
    assert (answer["outcome"], job.tracked().error_class) == (outcome, name)
    if outcome == "retry":
        assert (answer["item"]["glue"]["worker_type"] == "G.2X") == bigger


def test_a_silent_attempt_that_was_stopped_says_so_and_needs_no_bigger_worker(job):
    job.start()
    assert job.tracking.mark_stopped(job.tracked(), "no progress since noon")
    answer = job.handle("States.TaskFailed", ECS_KILLED)
    run = job.tracked()
    assert (answer["outcome"], run.error_class) == ("retry", "Interrupted")
    assert run.error_message.startswith("no progress since noon")
    assert answer["item"]["glue"]["worker_type"] == job.item["glue"]["worker_type"]
    # The next attempt has ended by itself.
    job.go_on(answer)
    job.start()
    job.handle("States.TaskFailed", ECS_KILLED)
    assert job.tracked().error_class == "WorkerOutOfMemory"


def test_a_stopped_worker_that_reported_is_believed(job):
    job.start()
    assert job.tracking.mark_stopped(job.tracked(), "no progress since noon")
    job.report(rows=7, commit_seq=1)
    assert job.handle("States.TaskFailed")["outcome"] == "succeeded"


def test_a_worker_that_died_after_it_had_published_has_succeeded(job):
    job.commit("published")
    assert job.handle("States.TaskFailed", ECS_KILLED)["outcome"] == "succeeded"
    run = job.tracked()
    assert (run.status, run.rows, run.bytes, run.files, run.commit_seq) == (
        "SUCCEEDED", 14, 1024, 2, 1,
    )  # fmt: skip
    assert run.error_class == ""


def test_a_reported_failure_after_the_publish_is_success_all_the_same(job):
    job.commit("published")
    job.report(ConfigError("the report's bucket is denied"))
    assert job.handle("States.TaskFailed")["outcome"] == "succeeded"


def test_a_commit_without_its_outcome_is_rolled_forward_and_not_counted(tmp_path, table):
    job = Job(tmp_path, table, retry={"max_attempts": 1, "backoff_seconds": 60})
    job.commit()
    for attempt in range(1, 1 + ROLL_FORWARD_LIMIT):
        answer = job.handle("States.TaskFailed", ECS_KILLED)
        assert (answer["outcome"], answer["wait_seconds"]) == ("retry", 10)
        assert (answer["item"]["attempt"], answer["item"]["failures"]) == (attempt + 1, 0)
        assert job.tracked().failures == 0
        job.go_on(answer)
    assert job.handle("States.TaskFailed", ECS_KILLED)["outcome"] == "failed"


def test_a_voided_commit_is_no_commit(job):
    job.commit("voided")
    answer = job.handle("States.TaskFailed")
    assert (answer["outcome"], answer["item"]["failures"]) == ("retry", 1)


def test_another_runs_commit_is_not_this_runs(job):
    job.commit("published", run_id="another")
    assert job.handle("States.TaskFailed")["outcome"] == "retry"


def test_an_unreadable_commit_log_decides_nothing(job):
    job.commit()
    uri = join(job.item["state_uri"], "commits", f"{1:020d}.json")
    open_storage(uri).put(uri, b"{")
    assert job.handle("States.TaskFailed")["outcome"] == "retry"


@pytest.mark.parametrize("error", [None, errors.WorkerOutOfMemory("x"), ConfigError("x")])
def test_called_twice_it_answers_and_writes_the_same(job, error):
    job.report(error, rows=3, commit_seq=1)
    first = job.handle("States.TaskFailed" if error else "")
    written = job.tracked()
    # What it had read is another's meanwhile, and it must not be read again.
    job.report(raw=b"gone")
    assert job.handle("States.TaskFailed" if error else "") == first
    assert job.tracked() == written


def test_a_late_call_for_an_older_attempt_changes_nothing(job):
    job.report(errors.SourceUnavailable("away"))
    answer = job.handle("States.TaskFailed")
    job.tracking.start(replace(job.run, attempt=2))
    assert job.handle("States.TaskFailed") == {"outcome": "superseded", "run_id": job.run.run_id}
    assert (job.tracked().status, job.tracked().attempt) == ("RUNNING", 2)
    job.go_on(answer).report(rows=1)
    assert job.handle()["outcome"] == "succeeded"


def test_a_worker_given_up_on_cannot_start_any_more(job):
    job.start()
    job.handle("States.Timeout")
    assert not job.tracking.start(job.run)


@pytest.mark.parametrize(
    ("settings", "path", "sizes"),
    [
        ({"job_type": "glue"}, ("glue", "worker_type"),
         ["G.1X", "G.2X", "G.4X", "G.8X", "G.12X", "G.16X", "G.16X"]),
        ({"job_type": "glue", "glue": {"worker_type": "R.4X"}}, ("glue", "worker_type"),
         ["R.4X", "R.8X", "R.8X"]),
        ({"job_type": "ecs"}, ("ecs", "memory_text"), ["4096", "8192", "16384", "32768"]),
        ({"job_type": "ecs"}, ("ecs", "cpu_text"), ["1024", "1024", "2048", "8192"]),
        ({"job_type": "ecs", "ecs": {"cpu": 16384, "memory": 65536}}, ("ecs", "memory"),
         [65536, 122880, 122880]),
        ({"job_type": "emr"}, ("emr", "driver_memory_gb"), [4, 8, 16, 32, 64, 109, 109]),
    ],
)  # fmt: skip
def test_a_bigger_worker_has_twice_the_memory_until_there_is_none(tmp_path, table, settings, path,
                                                                  sizes):  # fmt: skip
    item = Job(tmp_path, table, **settings).item
    seen = [item[path[0]][path[1]]]
    while len(seen) < len(sizes):
        item = next_item(item, counted=True, bigger=True)
        seen.append(item[path[0]][path[1]])
    assert seen == sizes


def test_the_next_attempt_has_its_own_command_line(tmp_path, table):
    item = Job(tmp_path, table, job_type="emr", emr={"cluster_id": "j-1", "entry_point": "s3://e"})
    following = next_item(item.item, counted=True, bigger=True)
    command = following["emr_cluster"]["command"]
    assert command[:3] == ["spark-submit", "--deploy-mode", "cluster"]
    assert "spark.driver.memory=8g" in command
    assert command[command.index("s3://e") + 1 :] == worker_arguments(following)
    assert command[command.index("--attempt") + 1] == "2"
    assert "spark.driver.memory=8g" in following["emr"]["spark_submit_parameters"]


def finished(tracking, execution, **statuses):
    for name, status in statuses.items():
        run = TrackedRun(
            table_id=f"sales/public.{name}", run_id=uuid.uuid4().hex, execution_id=execution,
            source_name="sales", extract_table=f"public.{name}",
        )  # fmt: skip
        tracking.announce([run])
        if status != "PENDING":
            error = {} if status == "SUCCEEDED" else {"error_class": "ConfigError",
                                                      "error_message": "told"}  # fmt: skip
            tracking.end(replace(run, status=status, rows=10, bytes=100, **error))


def asked(tracking, execution, count, error="", note="", storage=open_storage):
    event = {"execution_id": execution, "table_count": count, "note": note,
             "map_error": {"Error": error, "Cause": "why"}}  # fmt: skip
    return summarize(event, tracking=tracking, open_storage=storage)


def test_a_summary_of_success(table):
    finished(table, "e-1", a="SUCCEEDED", b="SUCCEEDED")
    answer = asked(table, "e-1", 2)
    assert answer["outcome"] == "succeeded"
    assert (answer["tables"], answer["rows"], answer["bytes"]) == (2, 20, 200)
    assert answer["message"] == "2 tables, 20 rows, 200 bytes"


def test_a_summary_names_what_failed_and_how_to_run_it_again(table):
    finished(table, "e-2", a="SUCCEEDED", b="FAILED", c="PENDING", d="RUNNING")
    answer = asked(table, "e-2", 5)
    assert answer["outcome"] == "failed"
    assert (answer["tables"], answer["succeeded"], answer["failed"]) == (5, 1, 4)
    assert answer["failures_by_class"] == {"ConfigError": 1, "NeverReported": 3}
    assert answer["failed_tables"] == ["public.b", "public.c", "public.d"]
    assert "4 of 5 tables failed: public.b (ConfigError: told); public.c" in answer["message"]
    assert '{"rerun_failed_of": "e-2"}' in answer["message"]
    assert {r.status for r in table.by_execution("e-2")} == {"SUCCEEDED", "FAILED"}
    assert asked(table, "e-2", 5) == answer


def test_a_map_that_failed_is_reported(table):
    finished(table, "e-3", a="PENDING")
    answer = asked(table, "e-3", 1, "States.ItemReaderFailed")
    assert "The Map failed: States.ItemReaderFailed: why" in answer["message"]


def test_a_summary_of_very_many_failures_stays_small(table):
    finished(table, "e-4", **{f"t{n:03d}" + "x" * 90: "FAILED" for n in range(120)})
    answer = asked(table, "e-4", 120)
    assert len(answer["failed_tables"]) == 20
    assert len(json.dumps(answer)) < 8_000
    assert answer["message"].endswith("to run just these again")
    assert answer["failed"] == 120


@pytest.fixture
def reported(table, tmp_path):
    """An execution of one table that succeeded with a report and one that left none."""
    for name, status in {"orders": "SUCCEEDED", "<b>": "FAILED"}.items():
        run_id = uuid.uuid4().hex
        run = TrackedRun(
            table_id=f"sales/{name}", run_id=run_id, execution_id=f"e-{tmp_path.name}",
            source_name="sales",
            extract_table=name, status=status,
            report_uri=f"{tmp_path}/e/reports/sales/{quote(name)}/{run_id}/attempt-1.json",
            rows=7, error_class="" if status == "SUCCEEDED" else "ConfigError", error_message="no",
        )  # fmt: skip
        table.announce([replace(run, status="PENDING")])
        table.end(run)
        if status == "SUCCEEDED":
            report = Report(
                status="succeeded", run_id=run_id, attempt=1, source_name="sales", rows=7,
                extract_table=name, target_uri="lake", timings={"extract": 2.0},
                watermark={"type": "integer", "text": "41"},
            )  # fmt: skip
            open_storage(run.report_uri).put(run.report_uri, report.to_json().encode())
    return tmp_path / "e"


def test_a_summary_writes_a_page_beside_the_reports(table, reported):
    answer = asked(table, f"e-{reported.parent.name}", 2)
    assert answer["page"] == f"{reported}/report.html"
    assert answer["message"].endswith(f"these again. The page about it: {reported}/report.html")
    page = (reported / "report.html").read_text()
    for said in ("Extracts of sales", "orders", "&lt;b&gt;", "ConfigError: no", "extract 2.0 s",
                 "41"):  # fmt: skip
        assert said in page
    assert asked(table, f"e-{reported.parent.name}", 2) == answer


def test_a_page_is_stored_as_html(table, reported):
    kinds = {}

    class Recording(LocalStorage):
        def put(self, uri, data, **named):
            kinds[uri.rpartition("/")[2]] = named.get("content_type")
            super().put(uri, data, **named)

    asked(table, f"e-{reported.parent.name}", 2, storage=lambda _: Recording())
    assert kinds["report.html"] == "text/html; charset=utf-8"


def test_a_page_that_cannot_be_written_changes_no_outcome(table, reported, caplog):
    answer = asked(
        table, f"e-{reported.parent.name}", 2, storage=denied_to(f"{reported}/report.html")
    )
    assert answer["page"] is None
    assert (answer["succeeded"], answer["failed"]) == (1, 1)
    assert "the page about the execution could not be written" in caplog.text
    assert not (reported / "report.html").exists()


def test_reports_that_are_slow_to_read_leave_an_execution_without_a_page(
    table, reported, monkeypatch, caplog
):
    monkeypatch.setattr("extract_jobs.tracking.execution_page._READ_SECONDS", 0.0)
    read = Report.parse
    monkeypatch.setattr(Report, "parse", lambda *given: time.sleep(0.2) or read(*given))
    answer = asked(table, f"e-{reported.parent.name}", 2)
    assert (answer["page"], answer["succeeded"], answer["failed"]) == (None, 1, 1)
    assert "TimeoutError" in caplog.text


def test_a_page_shows_the_tables_in_most_trouble(table, reported, monkeypatch):
    monkeypatch.setattr("extract_jobs.tracking.execution_page.MOST_TABLES", 1)
    asked(table, f"e-{reported.parent.name}", 2)
    page = (reported / "report.html").read_text()
    assert "1 table more, none of them in more trouble" in page
    assert "&lt;b&gt;" in page
    assert ">orders<" not in page


def test_an_answer_that_ends_a_table_is_small(job):
    job.report(rows=1)
    assert len(json.dumps(job.handle())) < 200


def test_the_handler_refuses_an_action_that_it_does_not_know():
    with pytest.raises(ConfigError, match="action is 'x'; expected handle or summarize"):
        status_handler.handler({"action": "x"}, None)


def test_the_handler_does_both(job, ministack, monkeypatch):
    from tests.support.emulators import use

    use(ministack, monkeypatch)
    status_handler._client.cache_clear()
    job.report(rows=1)
    assert status_handler.handler({"action": "handle", "item": job.item}, None)["outcome"] == (
        "succeeded"
    )
    event = {
        "action": "summarize",
        "execution_id": job.item["execution_id"],
        "table_count": 1,
        "tracking_table": job.tracking.table,
        "map_error": {"Error": "", "Cause": ""},
        "note": "",
    }
    assert status_handler.handler(event, None)["outcome"] == "succeeded"
    status_handler._client.cache_clear()


# --- one judge for handler, summary, reaper and rerun ---------------------------------------------


def denied_to(place, *, put_only=False):
    """Return `open_storage` for somebody who may not touch what lies below a place."""

    def opened(uri):
        storage = open_storage(uri)

        class Denied:
            def __getattr__(self, name):
                def call(uri, *rest, **named):
                    writes = name.startswith("put")
                    if str(uri).startswith(place) and (writes or not put_only):
                        raise ConfigError(f"{uri}: access denied")
                    return getattr(storage, name)(uri, *rest, **named)

                return call

        return Denied()

    return opened


def summed_up(job, **more):
    return asked(job.tracking, job.item["execution_id"], 1, **more)


def test_the_summary_believes_the_report_of_a_table_that_the_handler_could_not_handle(job):
    job.start()
    job.report(rows=7, bytes=512, files=2, commit_seq=1)
    answer = summed_up(job)
    assert (answer["outcome"], answer["rows"]) == ("succeeded", 7)
    run = job.tracked()
    assert (run.status, run.commit_seq) == ("SUCCEEDED", 1)


def test_the_summary_believes_the_commit_log_where_there_is_no_report(job):
    job.start()
    job.commit("published")
    assert summed_up(job)["outcome"] == "succeeded"
    assert (job.tracked().status, job.tracked().rows) == ("SUCCEEDED", 14)


def test_the_summary_says_why_the_handler_failed(job):
    job.start()
    error = json.dumps({"Error": "Lambda.TooManyRequestsException", "Cause": "Rate exceeded"})
    job.tracking.client.update_item(
        TableName=job.tracking.table,
        Key={"table_id": {"S": job.run.table_id}, "run_id": {"S": job.run.run_id}},
        UpdateExpression="SET handler_error = :error",
        ExpressionAttributeValues={":error": {"S": error}},
    )
    answer = summed_up(job)
    assert answer["failures_by_class"] == {"NeverReported": 1}
    assert "the status handler failed: Lambda.TooManyRequestsException: Rate exceeded" in (
        job.tracked().error_message
    )


def test_a_run_called_failed_publishes_nothing_any_more(tmp_path, table):
    job = Job(tmp_path, table, retry={"max_attempts": 1})
    job.start()
    assert job.handle("States.Timeout")["outcome"] == "failed"
    log = job.log()
    assert log.fenced_by(job.run.run_id)
    job.commit()
    assert not log._claims().stands(log.newest())


def test_a_run_that_is_tried_again_may_still_publish(job):
    job.start()
    assert job.handle("States.Timeout")["outcome"] == "retry"
    assert job.log().fenced_by(job.run.run_id) == ""


def test_a_commit_that_stands_after_the_last_attempt_is_checked_later(job):
    job.start()
    job.commit()
    assert job.log()._claims().stands(job.log().newest())
    assert summed_up(job)["outcome"] == "failed"
    run = job.tracked()
    assert (run.status, run.commit_seq) == ("FAILED", 1)
    assert "commit 1 is prepared but not published yet" in run.error_message
    storage = open_storage(job.item["state_uri"])
    name = join(job.item["state_uri"], "outcomes", f"{1:020d}.json")
    storage.put(name, json.dumps({"outcome": "published", "commit_id": "c"}).encode())
    assert summed_up(job)["outcome"] == "succeeded"
    run = job.tracked()
    assert (run.status, run.rows, run.error_message) == ("SUCCEEDED", 14, "")


def test_a_prepared_commit_that_does_not_stand_yet_never_will(job):
    job.start()
    job.commit()
    assert summed_up(job)["outcome"] == "failed"
    assert not job.log()._claims().stands(job.log().newest())
    assert summed_up(job)["outcome"] == "failed"


def test_what_the_judge_may_not_read_is_judged_again_by_whoever_may(job, tmp_path):
    job.start()
    job.commit("published")
    assert summed_up(job, storage=denied_to(job.item["state_uri"]))["outcome"] == "failed"
    assert "access denied" in job.tracked().error_message
    assert summed_up(job)["outcome"] == "succeeded"


def test_a_failure_that_could_not_be_fenced_off_is_looked_at_later(tmp_path, table):
    job = Job(tmp_path, table, retry={"max_attempts": 1})
    job.start()
    deaf = denied_to(job.item["state_uri"], put_only=True)
    item = {**job.item, "job_error": {"Error": "States.Timeout", "Cause": ""}}
    assert handle(item, tracking=table, open_storage=deaf)["outcome"] == "failed"
    job.commit("published")
    assert summed_up(job)["outcome"] == "succeeded"


def test_a_failure_that_is_final_is_not_looked_at_again(tmp_path, table):
    job = Job(tmp_path, table, retry={"max_attempts": 1})
    job.start()
    job.handle("States.Timeout")
    assert summed_up(job, storage=None)["outcome"] == "failed"


def test_a_late_correction_does_not_undo_a_later_generation(job):
    job.start()
    job.handle("States.Permissions")
    failed = job.tracked()
    job.tracking.announce([replace(failed, generation=2)])
    assert not job.tracking.correct(replace(failed, status="SUCCEEDED"))
    assert job.tracked().status == "PENDING"


def test_an_execution_that_began_before_an_update_of_its_stack_is_summed_up(table):
    finished(table, "e-before", a="SUCCEEDED", b="FAILED")
    event = {"execution_id": "e-before", "table_count": 2, "map_error": {"Error": "", "Cause": ""}}
    answer = summarize(event, tracking=table, open_storage=open_storage)
    assert (answer["succeeded"], answer["failed"]) == (1, 1)


def test_a_map_that_failed_without_a_cause_is_summed_up(table):
    finished(table, "e-causeless", a="SUCCEEDED", b="FAILED")
    event = {"execution_id": "e-causeless", "table_count": 2,
             "map_error": {"Error": "States.Timeout"}}  # fmt: skip
    answer = summarize(event, tracking=table, open_storage=open_storage)
    assert "The Map failed: States.Timeout" in answer["message"]


def test_a_note_of_the_config_manager_is_in_the_message(table):
    finished(table, "e-5", a="SUCCEEDED")
    assert asked(table, "e-5", 1, note="1 table left out")["message"].endswith("1 table left out")
    finished(table, "e-6", a="FAILED")
    assert "1 table left out" in asked(table, "e-6", 1, note="1 table left out")["message"]
