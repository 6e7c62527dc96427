"""The template on the emulator: deployed by the AWS CLI, run with its roles, changed, destroyed."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from collections import defaultdict

import psutil
import pytest
import yaml
from rich.console import Console

from extract_jobs.tracking.table import Tracking, utc_now
from infra import build, deploy
from infra.deployer import PARTS, deployer_policy
from infra.local.board import Outcome
from infra.local.demo.check import compare
from infra.local.emulator import aws_environment, start_emulator
from infra.local.permissions import ACCOUNT, REGION
from infra.local.postgres import run_postgres
from infra.local.stack import Stack
from tests.support.artifacts import ROOT, WHEELS
from tests.support.java import QUICK_JAVA_ENVIRONMENT
from tests.support.permissions import SEEN, WORKER, WORKER_ROLES
from tests.support.warm_aws import warm_aws
from tests.support.worker_processes import forked_workers

pytestmark = pytest.mark.e2e
DEMO = ROOT / "infra" / "local" / "demo"
"""The demo's source config and its database."""
ON_THE_EMULATOR = {
    "Ecs": "yes",
    "EcsImage": "000000000000.dkr.ecr.us-east-1.amazonaws.com/extract-jobs:test",
    "VpcId": "vpc-00000001",
    "SubnetIds": "subnet-00000001,subnet-00000002",
    "SubnetAvailabilityZone": "us-east-1a",
    "SecurityGroupIds": "sg-00000001",
}
"""What the emulator can make: it has no EMR Serverless, and no rules of security groups."""


def aws_cli():
    """Return the AWS CLI that the Makefile installs."""
    found = sorted((ROOT / ".tools").glob("awscli-*/bin/aws"))
    assert found, "the AWS CLI is missing: make test installs it"
    return found[-1]


class Deployed:
    """An emulator that judges every call, and commands of infra.deploy against it."""

    def __init__(self, emulator, dist, capsys, aws):
        self.emulator, self.dist, self.capsys, self.aws = emulator, dist, capsys, aws
        self.stack = Stack(emulator.data_dir, emulator.endpoint_url, emulator.pid)
        self.deployer = self._make_deployer()

    def _make_deployer(self):
        """Make a user who may do what the printed policies say; return its variables."""
        iam = self.stack.client("iam")
        iam.create_user(UserName="deployer")
        for part in PARTS:
            document = deployer_policy(part, "extract-jobs", ACCOUNT, REGION)
            iam.put_user_policy(
                UserName="deployer", PolicyName=part, PolicyDocument=json.dumps(document)
            )
        key = iam.create_access_key(UserName="deployer")["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}  # fmt: skip

    def run(self, *arguments):
        """Run a command; return its exit code and what it printed."""
        self.capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.deployer.items():
                patch.setenv(name, value)
            code = deploy.main([*arguments, "--aws", self.aws])
        said = self.capsys.readouterr()
        return code, said.out + said.err

    def up(self, **parameters):
        given = [x for name, value in parameters.items() for x in ("--set", f"{name}={value}")]
        code, said = self.run("up", "--yes", "--dist", str(self.dist), *given)
        assert code == 0, said
        return said

    def outputs(self):
        stacks = self.stack.client("cloudformation").describe_stacks(StackName="extract-jobs")
        found = stacks["Stacks"][0]["Outputs"]
        return {o["OutputKey"]: o["OutputValue"] for o in found}

    def start(self, event, outputs):
        """Start an execution; return its ARN."""
        return self.stack.client("stepfunctions").start_execution(
            stateMachineArn=outputs["StateMachineArn"], input=json.dumps(event)
        )["executionArn"]

    def execute(self, event, outputs):
        """Run an execution to its end."""
        return self.wait(self.start(event, outputs), outputs)

    def wait(self, arn, outputs):
        """Wait for an execution's end."""
        states = self.stack.client("stepfunctions")
        deadline = time.monotonic() + 300
        while (found := states.describe_execution(executionArn=arn))["status"] == "RUNNING":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        tracked = Tracking(
            self.stack.client("dynamodb"), outputs["TrackingTableName"], utc_now
        ).by_execution(arn)
        return Outcome(
            arn, found["status"], found.get("error", ""), found.get("cause", ""), tuple(tracked)
        )

    def seen(self):
        """Return the actions that roles asked for: those of workers under their one policy."""
        found = defaultdict(set)
        for name, action, *_ in self.calls():
            role = name.split("-")[2]
            found[WORKER if role in WORKER_ROLES else role].add(action)
        return {role: frozenset(actions) for role, actions in found.items()}

    def calls(self):
        """Return what roles asked for, each once: role, action, resource, whether allowed."""
        lines = (self.emulator.data_dir / "calls.jsonl").read_text().splitlines()
        noted = {tuple(json.loads(line).values()) for line in lines}
        return {call for call in noted if call[0]}


@pytest.fixture
def deployed(tmp_path, monkeypatch, capsys, built):
    # A copy, because other tests add to the folder, and a release is named after what is in it.
    shared, dist = built("wheel", "scripts", "lambda"), tmp_path / "dist"
    for name in ("asl", "entrypoints", "lambda"):
        shutil.copytree(shared / name, dist / name)
    for wheel in shared.glob("*.whl"):
        shutil.copy(wheel, dist)
    build.build(dist, WHEELS, ())
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    with warm_aws(aws_cli()) as aws, start_emulator(
        tmp_path / "emulator", options=["--pipeline"],
        environment={"AUTH": "true", "SFN_WAIT_SCALE": "0.1", **QUICK_JAVA_ENVIRONMENT},
    ) as emulator:  # fmt: skip
        for name, value in aws_environment(emulator.endpoint_url).items():
            monkeypatch.setenv(name, value)
        yield Deployed(emulator, dist, capsys, aws)


@contextlib.contextmanager
def frozen_worker(deployed, execution):
    """Stop the first worker on ECS in its tracks; kill it at the end."""
    states, found = deployed.stack.client("stepfunctions"), []
    while not found:
        described = states.describe_execution(executionArn=execution)
        assert described["status"] == "RUNNING", described.get("cause")
        time.sleep(0.2)  # a look at all processes takes a while
        for process in forked_workers(
            psutil.Process(deployed.emulator.pid).children(recursive=True)
        ):
            process.suspend()
            found.append(process)
    try:
        yield
    finally:
        for process in found:
            process.kill()


def make_cluster(stack):
    """Make a running EMR cluster whose instances have a role of their own; return its id and ARN.

    The role, ``cluster``, may do nothing yet.
    """
    trust = {"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"
    }]}  # fmt: skip
    iam = stack.client("iam")
    iam.create_role(RoleName="cluster", AssumeRolePolicyDocument=json.dumps(trust))
    iam.create_instance_profile(InstanceProfileName="cluster")
    iam.add_role_to_instance_profile(InstanceProfileName="cluster", RoleName="cluster")
    made = stack.client("emr").run_job_flow(
        Name="running", JobFlowRole="cluster", ServiceRole="EMR_DefaultRole",
        Instances={"KeepJobFlowAliveWhenNoSteps": True, "InstanceCount": 1,
                   "MasterInstanceType": "m5.xlarge"},
    )  # fmt: skip
    return made["JobFlowId"], made["ClusterArn"]


def another_release(dist):
    """Change what is built, so that the next deployment has another folder of artifacts."""
    script = dist / "entrypoints" / "emr.py"
    script.write_text(script.read_text() + "# changed\n")
    build.build(dist, WHEELS, ())


MENDED = "shop.gift_cards: {columns: {cast: {balance: 'decimal(12,2)'}}}"


def put_config(deployed, outputs, gift_cards="shop.gift_cards: {}"):
    """Upload the demo's config for a deployed stack, whose emulator has no EMR Serverless."""
    text = (DEMO / "sales.yml").read_text()
    text = text.replace("s3://lake/", f"s3://{outputs['DataBucketName']}/")
    text = text.replace("  emr: {application_id: local}\n", "").replace("emr", "ecs")
    catalog = "{target: {catalog: {database: lake_shop, table: products}}}"
    text = text.replace("shop.products: {}", f"shop.products: {catalog}")
    text = text.replace("shop.gift_cards: {}", gift_cards)
    # One Spark is enough: Glue's.
    text = text.replace("    split: {target_bytes: 2MB}\n", "")
    bucket, prefix = outputs["ConfigUri"].removeprefix("s3://").split("/")
    deployed.stack.client("s3").put_object(
        Bucket=bucket, Key=f"{prefix}/sales.yml", Body=text.encode()
    )


def reap_what_is_left(deployed, outcome, outputs):
    """Leave two runs of an execution behind, one without its report; return the reaper's answer.

    The emulator has no EMR Serverless, and no task runs that ECS could describe: those two calls
    are not made.
    """
    left = {run.job_type: run for run in outcome.runs if run.status == "SUCCEEDED"}
    assert set(left) == {"glue", "ecs"}
    for run in left.values():
        deployed.stack.client("dynamodb").update_item(
            TableName=outputs["TrackingTableName"],
            Key={"table_id": {"S": run.table_id}, "run_id": {"S": run.run_id}},
            UpdateExpression="SET #status = :running",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":running": {"S": "RUNNING"}},
        )
    bucket, _, report = left["glue"].report_uri.removeprefix("s3://").partition("/")
    deployed.stack.client("s3").delete_object(Bucket=bucket, Key=report)
    answer = deployed.stack.client("lambda").invoke(FunctionName=outputs["ReaperFunctionName"])
    return json.loads(answer["Payload"].read())


def test_the_demo_runs_on_a_deployed_stack_that_is_then_changed_and_destroyed(
    deployed, monkeypatch
):
    """Takes over a minute: three deployments by the AWS CLI, and nine extracts by processes."""
    said = deployed.up(**ON_THE_EMULATOR)
    outputs = deployed.outputs()
    assert f"aws s3 cp sales.yml {outputs['ConfigUri']}/sales.yml" in said
    assert {"GlueJobName", "EcsClusterName", "AlarmTopicArn"} <= set(outputs)
    assert "EmrApplicationId" not in outputs

    put_config(deployed, outputs)
    with run_postgres() as database:
        with database.connect() as connection:
            connection.execute((DEMO / "shop.sql").read_bytes())
        deployed.stack.put_secret("lake/sales", database.secret())
        outcome = deployed.execute({"source_name": "sales", "extract_tables": "*"}, outputs)
        runs = {run.extract_table: run for run in outcome.runs}
        assert sorted(call for call in deployed.calls() if not call[3]) == []
        refused = runs.pop("shop.gift_cards")
        assert (refused.status, refused.error_class) == ("FAILED", "TypeNotRepresentable")
        states = {table: (run.status, run.error_message) for table, run in runs.items()}
        assert states == dict.fromkeys(runs, ("SUCCEEDED", ""))
        assert {run.job_type for run in runs.values()} == {"glue", "ecs"}
        assert (outcome.status, outcome.error) == ("FAILED", "ExtractRunFailed")
        monkeypatch.setattr(
            "infra.local.demo.check.TARGET", f"s3://{outputs['DataBucketName']}/raw/sales"
        )
        assert len(runs) == 7
        assert compare(deployed.stack, database, list(runs), Console(quiet=True)) == []
        put_config(deployed, outputs, MENDED)
        again = deployed.execute({"rerun_failed_of": outcome.arn}, outputs)
        assert [(r.extract_table, r.status) for r in again.runs] == [
            ("shop.gift_cards", "SUCCEEDED")
        ]
    settled = reap_what_is_left(deployed, outcome, outputs)
    assert settled == {"succeeded": 2, "failed": 0, "running": 0, "overdue": []}
    assert sorted(call for call in deployed.calls() if not call[3]) == []
    assert deployed.seen() == SEEN
    glue = deployed.stack.client("glue").get_table(DatabaseName="lake_shop", Name="products")
    assert glue["Table"]["Name"] == "products"

    scheduler = deployed.stack.client("scheduler")
    scheduled = {s["Name"] for s in scheduler.list_schedules()["Schedules"]}
    calls = {}
    for name in scheduled:
        schedule = scheduler.get_schedule(Name=name)
        calls[schedule["ScheduleExpression"]] = json.loads(schedule["Target"]["Input"])
    assert calls == {"rate(1 hour)": {}, "rate(5 minutes)": {"action": "stop_silent"}}
    answer = deployed.stack.client("lambda").invoke(
        FunctionName=outputs["ReaperFunctionName"],
        Payload=json.dumps(calls["rate(5 minutes)"]).encode(),
    )
    assert json.loads(answer["Payload"].read()) == {"running": 0, "silent": 0, "stopped": 0}
    code, said = deployed.run("schedule", "sales", "0 3 * * ? *", "--time-zone", "Europe/Berlin",
                              "--tables", "shop.o*", "--yes")  # fmt: skip
    assert code == 0, said
    names = {s["Name"] for s in scheduler.list_schedules()["Schedules"]}
    (name,) = names - scheduled
    schedule = scheduler.get_schedule(Name=name)
    assert schedule["ScheduleExpression"] == "cron(0 3 * * ? *)"
    assert schedule["Target"]["Arn"] == outputs["StateMachineArn"]
    event = {"source_name": "sales", "extract_tables": ["shop.o*"]}
    assert json.loads(schedule["Target"]["Input"]) == event

    said = deployed.up(OverdueHours="12")
    assert "Modify   Reaper " in said
    reaper = deployed.stack.client("lambda").get_function_configuration(
        FunctionName=outputs["ReaperFunctionName"]
    )
    assert reaper["Environment"]["Variables"]["OVERDUE_HOURS"] == "12"

    code, said = deployed.run("destroy", "--yes")
    assert code == 1
    assert "extract-jobs-schedule-sales" in said
    assert deployed.stack.client("stepfunctions").list_state_machines()["stateMachines"]
    deployed.stack.client("cloudformation").delete_stack(StackName="extract-jobs-schedule-sales")
    code, said = deployed.run("destroy", "--yes")
    assert code == 0, said
    assert outputs["DataBucketName"] in said
    assert deployed.stack.client("stepfunctions").list_state_machines()["stateMachines"] == []
    left = deployed.stack.client("s3").list_objects_v2(Bucket=outputs["DataBucketName"])
    assert left["KeyCount"] > 0
    assert "taken over" in deployed.up(Glue="yes")
    assert deployed.outputs()["DataBucketName"] == outputs["DataBucketName"]


def test_an_execution_under_way_ends_by_what_it_began_with_when_its_stack_is_updated(
    deployed, tmp_path
):
    """Takes over ten seconds: two deployments by the AWS CLI, and extracts on ECS and Spark.

    The stack is of this source alone, and its roles reach nothing else.
    """
    cluster, arn = make_cluster(deployed.stack)
    # A cluster unpacks it on its own machines; here it only has to be there.
    (deployed.dist / f"{build.NAME}-emr.tar.gz").write_bytes(b"")
    image = ON_THE_EMULATOR["EcsImage"]
    deployed.up(**ON_THE_EMULATOR, EmrClusterArns=arn, OnlySource="small")
    before = deployed.outputs()
    deployed.stack.client("iam").attach_role_policy(
        RoleName="cluster", PolicyArn=before["WorkerPolicyArn"]
    )
    database = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for table in "abc":
            connection.execute(f"create table {table} (n integer primary key)")
            connection.executemany(f"insert into {table} values (?)", [(n,) for n in range(9)])
    config = {
        "version": 1,
        # One table at a time: the others have not begun when the stack is updated.
        "source": {"name": "small", "type": "sqlite", "connection": {"path": str(database)},
                   "max_connections": 2},
        "defaults": {
            "job_type": "ecs", "retry": {"backoff_seconds": 1}, "max_connections": 1,
            "target": {"uri": f"s3://{before['DataBucketName']}/raw/small/{{table}}"},
        },
        "tables": {"a": {}, "b": {}, "c": {"job_type": "emr", "emr": {"cluster_id": cluster}}},
    }  # fmt: skip
    bucket, prefix = before["ConfigUri"].removeprefix("s3://").split("/")
    deployed.stack.client("s3").put_object(
        Bucket=bucket, Key=f"{prefix}/small.yml", Body=yaml.safe_dump(config).encode()
    )
    event = {"source_name": "small", "extract_tables": "*"}
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as lock:
        lock.execute("begin exclusive")  # the first worker waits until it is found
        running = deployed.start(event, before)
        with frozen_worker(deployed, running):
            lock.execute("rollback")
            another_release(deployed.dist)
            deployed.up(EcsImage=image.replace(":test", ":next"))
            after = deployed.outputs()
    assert after["EcsTaskDefinitionArn"] != before["EcsTaskDefinitionArn"]
    outcome = deployed.wait(running, after)
    runs = {run.extract_table: run for run in outcome.runs}
    ends = {table: (run.status, run.attempt, run.error_message) for table, run in runs.items()}
    assert ends == {"a": ("SUCCEEDED", 2, ""), "b": ("SUCCEEDED", 1, ""), "c": ("SUCCEEDED", 1, "")}
    assert sorted(call for call in deployed.calls() if not call[3]) == []
    started = {resource for _, action, resource, _ in deployed.calls() if action == "ecs:RunTask"}
    assert started == {before["EcsTaskDefinitionArn"]}
    programs = {resource for role, action, resource, _ in deployed.calls()
                if role == "cluster" and resource.endswith(("emr.py", "emr.tar.gz"))}  # fmt: skip
    folders = {resource.split("/")[1] for resource in programs}
    assert (len(programs), len(folders)) == (2, 1)
    # The next one begins with what is new.
    next_ones = deployed.execute({**event, "extract_tables": ["b", "c"]}, after)
    assert next_ones.status == "SUCCEEDED", next_ones.cause
    started = {resource for _, action, resource, _ in deployed.calls() if action == "ecs:RunTask"}
    assert started == {before["EcsTaskDefinitionArn"], after["EcsTaskDefinitionArn"]}
    later = {resource.split("/")[1] for role, _, resource, _ in deployed.calls()
             if role == "cluster" and resource.endswith(("emr.py", "emr.tar.gz"))}  # fmt: skip
    assert len(later) == 2
