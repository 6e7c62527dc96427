"""Every path of the state machine, with stubs for workers: they end as their tables say."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import runs_of
from tests.e2e.paths import required
from tests.support.sampling import EXHAUSTIVE

pytestmark = pytest.mark.e2e
SERVICE = {"glue": "glue:startJobRun", "emr": "emr-serverless:startJobRun",
           "ecs": "ecs:runTask", "step": "elasticmapreduce:addStep"}  # fmt: skip
JOB_STATES = {
    "glue": "Glue Start Extract Job Run",
    "emr": "EMR Start Extract Job Run",
    "step": "EMR Cluster Start Extract Job Run",
    "ecs": "ECS Start Extract Job Run",
}
KINDS = {
    "glue": {"job_type": "glue"},
    "emr": {"job_type": "emr", "emr": {"application_id": "a-1", "entry_point": "s3://b/emr.py"}},
    "ecs": {"job_type": "ecs"},
    "step": {"job_type": "emr", "emr": {"cluster_id": "j-1", "entry_point": "s3://b/emr.py"}},
}


def tables_of_each_kind(*behaviours):
    return {
        f"{kind}.{behaviour}_1": settings
        for kind, settings in KINDS.items()
        for behaviour in behaviours
    }


def test_each_service_runs_good_bad_retried_and_silent_jobs(stubbed):
    """Takes over ten seconds: each attempt of 24 tables is a process."""
    tables = tables_of_each_kind("ok", "refused", "busy_once", "hungry_once", "killed_once", "busy")
    stubbed.configure("each", tables)
    outcome = stubbed.run({"source_name": "each", "extract_tables": "*"})
    runs = runs_of(outcome)
    assert sorted(runs) == sorted(tables)
    for kind in KINDS:
        assert (runs[f"{kind}.ok_1"].status, runs[f"{kind}.ok_1"].attempt) == ("SUCCEEDED", 1)
        refused = runs[f"{kind}.refused_1"]
        assert (refused.status, refused.attempt) == ("FAILED", 1)
        assert refused.error_class == "TypeNotRepresentable"
        for retried in ("busy_once", "hungry_once", "killed_once"):
            run = runs[f"{kind}.{retried}_1"]
            assert (run.status, run.attempt) == ("SUCCEEDED", 2), retried
        busy = runs[f"{kind}.busy_1"]
        assert (busy.status, busy.attempt, busy.failures) == ("FAILED", 3, 3)
        assert busy.error_class == "SourceUnavailable"
    assert (outcome.status, outcome.error) == ("FAILED", "ExtractRunFailed")
    assert "8 of 24 tables failed" in outcome.cause
    assert "rerun_failed_of" in outcome.cause


def test_an_execution_of_good_tables_succeeds_with_its_figures(stubbed):
    stubbed.configure("good", {f"t.ok_{n}": {"job_type": "ecs"} for n in range(3)})
    outcome = stubbed.run({"source_name": "good", "extract_tables": ["t.ok_0", "t.ok_2"]})
    assert outcome.status == "SUCCEEDED"
    assert {t: r.status for t, r in runs_of(outcome).items()} == {
        "t.ok_0": "SUCCEEDED", "t.ok_2": "SUCCEEDED",
    }  # fmt: skip
    described = stubbed.stack.client("stepfunctions").describe_execution(executionArn=outcome.arn)
    figures = json.loads(described["output"])
    assert (figures["tables"], figures["succeeded"], figures["failed"]) == (2, 2, 0)
    assert figures["rows"] == 14


def test_a_job_that_no_service_runs_fails_as_a_table(stubbed):
    stubbed.configure("none", {
        "t.ok_1": {"job_type": "ecs"},
        "t.ok_2": {"job_type": "emr"},
    })  # fmt: skip
    outcome = stubbed.run({"source_name": "none", "extract_tables": "*"})
    runs = runs_of(outcome)
    assert runs["t.ok_1"].status == "SUCCEEDED"
    assert (runs["t.ok_2"].status, runs["t.ok_2"].error_class) == ("FAILED", "ConfigError")


@pytest.mark.parametrize("kind", KINDS)
def test_faults_of_a_job_service_are_waited_out(stubbed, definition, kind):
    stubbed.configure("faulty", {f"{kind}.ok_1": KINDS[kind]})
    processor = definition["States"]["Iterate Through Extract Tables"]["ItemProcessor"]
    retries = processor["States"][JOB_STATES[kind]]["Retry"]
    errors = [error for retry in retries for error in retry["ErrorEquals"]]
    stubbed.fail(*({"call": SERVICE[kind], "error": error} for error in errors))
    outcome = stubbed.run({"source_name": "faulty", "extract_tables": "*"})
    run = runs_of(outcome)[f"{kind}.ok_1"]
    assert (run.status, run.attempt) == ("SUCCEEDED", 1)


def test_a_job_service_that_stays_at_fault_fails_only_the_table(stubbed):
    stubbed.configure("down", {"t.ok_1": {"job_type": "glue"}, "t.ok_2": {"job_type": "ecs"}})
    stubbed.fail({"call": "glue:", "error": "Glue.EntityNotFoundException", "times": 99})
    outcome = stubbed.run({"source_name": "down", "extract_tables": "*"})
    runs = runs_of(outcome)
    stubbed.fail()
    assert (runs["t.ok_1"].status, runs["t.ok_1"].attempt) == ("FAILED", 1)
    assert runs["t.ok_1"].error_class == "Glue.EntityNotFoundException"
    assert runs["t.ok_2"].status == "SUCCEEDED"


@pytest.mark.parametrize(
    ("state", "about"),
    [
        ("Extract Config Manager", "execution_started_at"),
        ("Handle Extract Job Run Status", '"handle"'),
        ("Summarize Extract Run", '"summarize"'),
    ],
)
def test_faults_of_lambda_are_waited_out(stubbed, definition, state, about):
    states = definition["States"]
    states = states | states["Iterate Through Extract Tables"]["ItemProcessor"]["States"]
    errors = [error for retry in states[state]["Retry"] for error in retry["ErrorEquals"]]
    stubbed.configure("lambdas", {"t.ok_1": {"job_type": "ecs"}})
    stubbed.fail(*({"call": "lambda:invoke", "about": about, "error": e} for e in errors))
    outcome = stubbed.run({"source_name": "lambdas", "extract_tables": "*"})
    stubbed.fail()
    assert outcome.status == "SUCCEEDED"


HANDLES = {"call": "lambda:invoke", "about": '"handle"', "error": "ConfigError", "times": 99}


def test_tables_succeed_though_their_handler_never_does(stubbed):
    stubbed.configure(
        "unhandled", {"t.ok_1": {"job_type": "ecs"}, "t.killed_1": {"job_type": "ecs"}}
    )
    stubbed.fail(HANDLES)
    outcome = stubbed.run({"source_name": "unhandled", "extract_tables": "*"})
    stubbed.fail()
    runs = runs_of(outcome)
    assert (runs["t.ok_1"].status, runs["t.ok_1"].rows) == ("SUCCEEDED", 7)
    assert json.loads(runs["t.ok_1"].handler_error)["Error"] == "ConfigError"
    assert (runs["t.killed_1"].status, runs["t.killed_1"].error_class) == (
        "FAILED",
        "NeverReported",
    )
    assert "the status handler failed: ConfigError: on purpose" in runs["t.killed_1"].error_message
    assert "1 of 2 tables failed" in outcome.cause


def test_why_the_handler_failed_is_kept_as_well_as_may_be(stubbed, definition):
    processor = definition["States"]["Iterate Through Extract Tables"]["ItemProcessor"]
    retries = processor["States"]["Keep Handler Error"]["Retry"]
    errors = [error for retry in retries for error in retry["ErrorEquals"]]
    stubbed.configure("kept", {"t.ok_1": {"job_type": "ecs"}})
    for faults, kept in (
        ([{"call": "dynamodb:", "error": error} for error in errors], True),
        ([{"call": "dynamodb:", "error": "DynamoDB.ResourceNotFoundException", "times": 9}], False),
    ):
        stubbed.fail(HANDLES, *faults)
        outcome = stubbed.run({"source_name": "kept", "extract_tables": "*"})
        stubbed.fail()
        assert outcome.status == "SUCCEEDED"
        assert bool(outcome.runs[0].handler_error) == kept


def test_a_summary_that_never_succeeds_says_so_and_changes_no_outcome(stubbed):
    stubbed.configure("unsummed", {"t.ok_1": {"job_type": "ecs"}})
    about = {"call": "lambda:invoke", "about": '"summarize"', "error": "ConfigError", "times": 99}
    stubbed.fail(about)
    outcome = stubbed.run({"source_name": "unsummed", "extract_tables": "*"})
    stubbed.fail()
    assert (outcome.status, outcome.error) == ("FAILED", "SummaryFailed")
    assert "the tracking table has what became of each" in outcome.cause
    assert runs_of(outcome)["t.ok_1"].status == "SUCCEEDED"


def test_a_list_that_cannot_be_read_fails_every_table_in_the_summary(stubbed):
    stubbed.configure("unread", {"t.ok_1": {"job_type": "ecs"}, "t.ok_2": {"job_type": "ecs"}})
    stubbed.fail({"call": "s3:getObject", "error": "States.ItemReaderFailed"})
    outcome = stubbed.run({"source_name": "unread", "extract_tables": "*"})
    stubbed.fail()
    assert (outcome.status, outcome.error) == ("FAILED", "ExtractRunFailed")
    assert {r.error_class for r in outcome.runs} == {"NeverReported"}
    again = stubbed.run({"rerun_failed_of": outcome.arn})
    assert again.status == "SUCCEEDED"


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({}, "source_name"),
        ({"source_name": "nowhere", "extract_tables": "*"}, "nowhere"),
        ({"source_name": "bad", "extract_tables": []}, "extract_tables"),
        ({"source_name": "bad", "extract_tables": ["t.ok_1", "t.ok_1"]}, "t.ok_1"),
        ({"source_name": "bad", "extract_tables": ["t.ok_l"]}, "t.ok_1"),
        ({"source_name": "bad", "extract_tables": "*", "tables": 1}, "tables"),
        ({"source_name": "broken", "extract_tables": "*"}, "broken.yml:3"),
        ({"source_name": "others", "extract_tables": "*"}, "others"),
        ({"rerun_failed_of": "arn:aws:states:us-east-1:000000000000:execution:x:y"}, "x:y"),
    ],
)
def test_bad_input_fails_at_the_first_state_with_the_reason(stubbed, event, says):
    stubbed.configure("bad", {"t.ok_1": {"job_type": "ecs"}})
    stubbed.put_config("broken", "version: 1\nsource: {name: broken\ntables: [")
    stubbed.configure("another", {"t.ok_1": {}})
    s3 = stubbed.stack.client("s3")
    copied = {"Bucket": "extract-config", "Key": "another.yml"}
    s3.copy_object(Bucket="extract-config", Key="others.yml", CopySource=copied)
    outcome = stubbed.run(event)
    assert (outcome.status, outcome.error) == ("FAILED", "ConfigError")
    caught = json.loads(outcome.cause)
    assert caught["Error"] == "ConfigError"
    assert says in json.loads(caught["Cause"])["errorMessage"]
    assert outcome.runs == ()
    history = stubbed.histories(outcome.arn)[0]
    entered = [e["stateEnteredEventDetails"]["name"] for e in history
               if "stateEnteredEventDetails" in e]  # fmt: skip
    assert entered == ["Extract Config Manager", "Extract Run Not Started"]


def test_hundreds_of_tables_nothing_lost_and_only_the_failed_ones_rerun(stubbed):
    """Takes over ten seconds: it is about more tables than run at once, a process each."""
    count = 500 if EXHAUSTIVE else 60
    tables = {f"t.{'refused' if n % 50 == 7 else 'ok'}_{n}": {"job_type": "ecs"}
              for n in range(count)}  # fmt: skip
    stubbed.configure("many", tables, source={"max_connections": 40},
                      defaults={"max_connections": 1})  # fmt: skip
    outcome = stubbed.run({"source_name": "many", "extract_tables": "*"}, seconds=300)
    runs = runs_of(outcome)
    assert len(outcome.runs) == count
    assert sorted(runs) == sorted(tables)
    failed = {table for table, run in runs.items() if run.status != "SUCCEEDED"}
    assert failed == {table for table in tables if ".refused_" in table}
    assert len(stubbed.histories(outcome.arn)) == 1 + count
    again = stubbed.run({"rerun_failed_of": outcome.arn})
    assert {r.extract_table for r in again.runs} == failed
    assert {r.generation for r in again.runs} == {2}


def test_a_childs_output_is_under_200_bytes(stubbed):
    assert stubbed.executions, "this looks at the executions of the tests above: run them too"
    ends = [h[-1] for arn in stubbed.executions for h in stubbed.histories(arn)[1:]]
    outputs = [e["executionSucceededEventDetails"]["output"] for e in ends
               if e["type"] == "ExecutionSucceeded"]  # fmt: skip
    assert outputs
    assert max(map(len, outputs)) < 200


def test_every_path_was_taken(stubbed, definition, paths_taken):
    assert stubbed.executions, "this looks at the executions of the tests above: run them too"
    assert required(definition) - set(paths_taken) == set()
