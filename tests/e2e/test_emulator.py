"""The emulator's process: where it listens, when it ends, and where it is like Step Functions."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import boto3
import psutil
import pytest

from infra.local.emulator import EmulatorFailed, session_members, start_emulator

pytestmark = pytest.mark.e2e
ROLE = "arn:aws:iam::000000000000:role/test"

STUB = """
import sys, time
given = dict(zip(sys.argv, sys.argv[1:]))
time.sleep(float(given.get("--sleep", 0)))
if "--exit" in given:
    print("ConfigError: as asked", file=sys.stderr)
    sys.exit(int(given["--exit"]))
"""

FUNCTION = """
import os
class Refused(Exception): pass
def handler(event, context):
    if event.get("refuse"):
        raise Refused(f"no,\\nnever by {os.getpid()}")
    return {"execution": event["execution"]}
"""


def client(emulator, service):
    return boto3.client(
        service, endpoint_url=emulator.endpoint_url, region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test", aws_session_token=None,
    )  # fmt: skip


def gone(pid, seconds=10):
    deadline = time.monotonic() + seconds
    while session_members(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not session_members(pid)


def listening(pid):
    return {
        (c.laddr.ip, c.laddr.port)
        for member in session_members(pid)
        for c in member.net_connections("all")
        if c.status == psutil.CONN_LISTEN
    }


def test_listens_only_on_127_0_0_1_and_stops_without_a_trace(tmp_path):
    with start_emulator(tmp_path / "data") as emulator:
        client(emulator, "s3").create_bucket(Bucket="bucket")
        port = int(emulator.endpoint_url.rsplit(":", 1)[1])
        assert listening(emulator.pid) == {("127.0.0.1", port)}
    assert session_members(emulator.pid) == []
    emulator.stop()


def test_a_port_that_is_taken_is_reported(tmp_path):
    with start_emulator(tmp_path / "one") as first:
        port = int(first.endpoint_url.rsplit(":", 1)[1])
        with pytest.raises(EmulatorFailed, match="Address already in use"):
            start_emulator(tmp_path / "two", port=port)


def test_ends_when_its_starter_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from infra.local.emulator import *\n"
        f"print(start_emulator(Path({str(tmp_path)!r})).pid, flush=True); time.sleep(600)"
    )
    root = Path(__file__).parents[2]
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE)
    try:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert session_members(pid)
    finally:
        starter.kill()
        starter.communicate()
    assert gone(pid)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """An emulator that runs jobs by a stub, with one Lambda."""
    folder = tmp_path_factory.mktemp("machine")
    stub = folder / "stub.py"
    stub.write_text(STUB)
    options = ["--pipeline", "--workers", "2", "--stub", f"{sys.executable} {stub}"]
    with start_emulator(folder / "data", options=options) as emulator:
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("function.py", FUNCTION)
        client(emulator, "lambda").create_function(
            FunctionName="function", Runtime="python3.13", Role=ROLE,
            Handler="function.handler", Code={"ZipFile": package.getvalue()},
        )  # fmt: skip
        client(emulator, "s3").create_bucket(Bucket="work")
        yield emulator


def run(emulator, definition, given):
    """Run a definition to its end; return its description and its children's histories."""
    states = client(emulator, "stepfunctions")
    arn = states.create_state_machine(
        name=f"m{time.monotonic_ns()}", definition=json.dumps(definition), roleArn=ROLE
    )["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=arn, input=json.dumps(given))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ended = states.describe_execution(executionArn=execution["executionArn"])
        if ended["status"] != "RUNNING":
            break
        time.sleep(0.05)
    children = {}
    for map_run in states.list_map_runs(executionArn=execution["executionArn"])["mapRuns"]:
        for child in states.list_executions(mapRunArn=map_run["mapRunArn"])["executions"]:
            history = states.get_execution_history(executionArn=child["executionArn"])
            children[child["executionArn"]] = history["events"]
    return ended, children


def job(arguments, **more):
    return {
        "Type": "Task", "Resource": "arn:aws:states:::glue:startJobRun.sync",
        "Parameters": {"JobName": "job", "Arguments": arguments}, **more,
    }  # fmt: skip


def alone(state):
    return {"StartAt": "Only", "States": {"Only": {**state, "End": True}}}


def test_a_job_that_runs_out_of_its_time_is_ended(machine):
    state = job({"--sleep": "60"}, TimeoutSecondsPath="$.seconds")
    before = time.monotonic()
    ended, _ = run(machine, alone(state), {"seconds": 1})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Timeout")
    assert time.monotonic() - before < 20
    others = [p for p in session_members(machine.pid) if p.pid != machine.pid]
    assert not [p for p in others if "stub.py" in " ".join(p.cmdline())]


def test_a_timeout_that_is_no_positive_integer_is_a_runtime_error(machine):
    ended, _ = run(machine, alone(job({}, TimeoutSecondsPath="$.seconds")), {"seconds": 0})
    assert ended["error"] == "States.Runtime"


def test_a_failed_job_reports_its_state_and_message(machine):
    ended, _ = run(machine, alone(job({"--exit": "78"})), {})
    cause = json.loads(ended["cause"])
    assert ended["error"] == "States.TaskFailed"
    assert cause["JobRunState"] == "FAILED"
    assert cause["ErrorMessage"].endswith("ConfigError: as asked")


def test_a_job_without_sync_is_refused(machine):
    state = job({}) | {"Resource": "arn:aws:states:::glue:startJobRun"}
    ended, _ = run(machine, alone(state), {})
    assert ended["error"] == "States.Runtime"


def test_states_all_does_not_catch_a_runtime_error(machine):
    state = job({}, TimeoutSecondsPath="$.seconds", Catch=[
        {"ErrorEquals": ["States.ALL"], "Next": "Caught"}])  # fmt: skip
    definition = alone(state)
    definition["States"]["Caught"] = {"Type": "Succeed"}
    ended, _ = run(machine, definition, {"seconds": "soon"})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")


def test_an_exception_in_a_lambda_arrives_with_its_class_and_leaves_its_process(machine):
    state = {
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": "function", "Payload": {"refuse": True}},
    }  # fmt: skip
    messages = set()
    for _ in range(2):
        ended, _ = run(machine, alone(state), {})
        cause = json.loads(ended["cause"])
        assert ended["error"] == "Refused"
        assert cause["errorType"] == "Refused"
        assert cause["errorMessage"].startswith("no,\nnever by ")
        messages.add(cause["errorMessage"])
    assert len(messages) == 1


def test_children_of_a_map_are_executions_of_their_own(machine):
    items = [{"n": n} for n in range(5)]
    client(machine, "s3").put_object(Bucket="work", Key="items.json", Body=json.dumps(items))
    task = {
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": True,
        "Parameters": {
            "FunctionName": "function", "Payload": {"execution.$": "$$.Execution.Id"}
        },
        "OutputPath": "$.Payload",
    }  # fmt: skip
    each = {
        "Type": "Map", "MaxConcurrencyPath": "$.most",
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": {"InputType": "JSON"},
            "Parameters": {"Bucket": "work", "Key": "items.json"},
        },
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "Ask", "States": {"Ask": task},
        },
        "ResultWriter": {
            "Resource": "arn:aws:states:::s3:putObject",
            "Parameters": {"Bucket": "work", "Prefix": "results"},
        },
    }  # fmt: skip
    ended, children = run(machine, alone(each), {"most": 2})
    assert ended["status"] == "SUCCEEDED"
    written = json.loads(ended["output"])
    assert written["ResultWriterDetails"]["Key"].startswith("results/")
    assert len(children) == 5
    for arn, events in children.items():
        assert [e["type"] for e in events] == [
            "TaskStateEntered", "TaskScheduled", "TaskSucceeded", "TaskStateExited",
            "ExecutionSucceeded",
        ]  # fmt: skip
        assert json.loads(events[-1]["executionSucceededEventDetails"]["output"]) == {
            "execution": arn
        }


def test_jobs_end_with_the_emulator_even_where_it_is_killed(tmp_path):
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    options = ["--pipeline", "--stub", f"{sys.executable} {stub}"]
    emulator = start_emulator(tmp_path / "data", options=options)
    try:
        states = client(emulator, "stepfunctions")
        arn = states.create_state_machine(
            name="m", definition=json.dumps(alone(job({"--sleep": "600"}))), roleArn=ROLE
        )["stateMachineArn"]
        states.start_execution(stateMachineArn=arn, input="{}")
        deadline = time.monotonic() + 20
        while len(session_members(emulator.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(session_members(emulator.pid)) == 2
        os.kill(emulator.pid, signal.SIGKILL)
    finally:
        emulator.stop()
    assert session_members(emulator.pid) == []
