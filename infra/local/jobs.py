"""Glue, EMR and ECS as the state machine sees them: each job is a local process.

Each handler starts the same entrypoint file as AWS would, with the arguments that the state machine
passes, and answers as the service's ``.sync`` integration does: with the job's description if it
succeeded, else ``States.TaskFailed`` with that description as the Cause.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.interpreter import TASK_SECONDS, register_task, task_failed
from infra.local.job_checks import check_glue_run, check_step, check_task
from infra.local.permissions import (
    ACCOUNT,
    REGION,
    role_of_cluster,
    role_of_glue_job,
    role_of_task,
    session_of,
)
from infra.local.workers import Ended, Workers

ROOT = Path(__file__).parents[2]

# A Fargate task has 30 s between SIGTERM and SIGKILL unless configured for more; Glue and EMR
# promise nothing. Shorter here, because tests wait for it.
ECS_GRACE_SECONDS = 15.0
SPARK_GRACE_SECONDS = 3.0

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Jobs:
    """The job services.

    Attributes:
        workers: Runs the processes.
        stub: A command that runs instead of each entrypoint, with the same arguments, for tests of
            the state machine itself. None runs the entrypoints.
    """

    workers: Workers
    stub: tuple[str, ...] | None = None

    def register(self) -> None:
        """Make the emulator's state machines run these jobs."""
        services: dict[str, Callable[[Parameters], Parameters]] = {
            "glue:startJobRun": self.glue,
            "emr-serverless:startJobRun": self.emr_serverless,
            "elasticmapreduce:addStep": self.emr_step,
            "ecs:runTask": self.ecs,
        }
        for name, run in services.items():
            register_task(f"arn:aws:states:::{name}", _sync_only(name, run))

    def glue(self, parameters: Parameters) -> Parameters:
        """Answer ``glue:startJobRun.sync``: the job run, as GetJobRun describes it.

        https://docs.aws.amazon.com/step-functions/latest/dg/connect-glue.html
        """
        check_glue_run(parameters)
        arguments = {str(k): str(v) for k, v in parameters.get("Arguments", {}).items()}
        name, run_id = parameters["JobName"], f"jr_{uuid.uuid4().hex}{uuid.uuid4().hex}"
        started = time.time()
        # Glue passes a script its own parameters before the job's.
        flags = ["--JOB_NAME", name, "--JOB_RUN_ID", run_id]
        flags += [part for pair in arguments.items() for part in pair]
        ended = self._run(
            self._spark_submit("glue.py"), flags, SPARK_GRACE_SECONDS,
            session_of(role_of_glue_job(name)),
        )  # fmt: skip
        run = {
            "Id": run_id,
            "Attempt": 0,
            "JobName": name,
            "StartedOn": _milliseconds(started),
            "CompletedOn": _milliseconds(time.time()),
            "LastModifiedOn": _milliseconds(time.time()),
            "JobRunState": "SUCCEEDED" if ended.code == 0 else "FAILED",
            "Arguments": arguments,
            "PredecessorRuns": [],
            "ExecutionTime": round(time.time() - started),
            "WorkerType": parameters.get("WorkerType", "G.1X"),
            "NumberOfWorkers": parameters.get("NumberOfWorkers", 2),
            "LogGroupName": "/aws-glue/jobs",
            "GlueVersion": "5.1",
        }
        if ended.code:
            run["ErrorMessage"] = (
                f"Error Category: UNCLASSIFIED_ERROR; {ended.last_line()}"
                if ended.code < 128
                else f"Command failed with exit code {ended.code}"
            )
        return _answer(run, ended)

    def emr_serverless(self, parameters: Parameters) -> Parameters:
        """Answer ``emr-serverless:startJobRun.sync``: what GetJobRun describes.

        https://docs.aws.amazon.com/step-functions/latest/dg/connect-emr-serverless.html
        """
        submit = parameters["JobDriver"]["SparkSubmit"]
        application, run_id = parameters["ApplicationId"], uuid.uuid4().hex[:16]
        started = time.time()
        arguments = [str(x) for x in submit.get("EntryPointArguments", [])]
        ended = self._run(
            self._spark_submit("emr.py"), arguments, SPARK_GRACE_SECONDS,
            session_of(parameters.get("ExecutionRoleArn", "")),
        )  # fmt: skip
        run = {
            "ApplicationId": application,
            "JobRunId": run_id,
            "Name": parameters.get("Name", ""),
            "Arn": f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:"
            f"/applications/{application}/jobruns/{run_id}",
            "CreatedBy": f"arn:aws:sts::{ACCOUNT}:assumed-role/states/local",
            "CreatedAt": _milliseconds(started),
            "UpdatedAt": _milliseconds(time.time()),
            "ExecutionRole": parameters.get("ExecutionRoleArn", ""),
            "State": "SUCCESS" if ended.code == 0 else "FAILED",
            "StateDetails": "" if ended.code == 0 else (
                "Job failed, please check complete logs in configured logging destination. "
                f"ExitCode: {ended.code}. Last few exceptions: {ended.last_line()}..."
            ),
            "ReleaseLabel": "emr-7.13.0",
            "JobDriver": parameters["JobDriver"],
            "Attempt": 1,
        }  # fmt: skip
        return _answer(run, ended)

    def emr_step(self, parameters: Parameters) -> Parameters:
        """Answer ``elasticmapreduce:addStep.sync``: the step, as DescribeStep describes it.

        https://docs.aws.amazon.com/step-functions/latest/dg/connect-emr.html
        """
        check_step(parameters)
        step = parameters["Step"]
        jar = step["HadoopJarStep"]
        arguments = _after_script([str(x) for x in jar["Args"]], "emr.py")
        ended = self._run(
            self._spark_submit("emr.py"), arguments, SPARK_GRACE_SECONDS,
            session_of(role_of_cluster(str(parameters["ClusterId"]))),
        )  # fmt: skip
        status: Parameters = {"State": "COMPLETED" if ended.code == 0 else "FAILED"}
        status |= {"StateChangeReason": {}, "Timeline": {}}
        if ended.code:
            status["FailureDetails"] = {
                "Reason": "Unknown Error.",
                "Message": ended.last_line(),
                "LogFile": str(ended.errors),
            }
        description = {
            "Id": f"s-{uuid.uuid4().hex[:13].upper()}",
            "Name": step.get("Name", ""),
            "Config": {"Jar": jar.get("Jar", ""), "Properties": {}, "Args": jar["Args"]},
            "ActionOnFailure": step.get("ActionOnFailure", "CONTINUE"),
            "Status": status,
        }
        return _answer({"Step": description}, ended)

    def ecs(self, parameters: Parameters) -> Parameters:
        """Answer ``ecs:runTask.sync``: the stopped task, as DescribeTasks describes it.

        https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html
        """
        check_task(parameters)
        container = parameters["Overrides"]["ContainerOverrides"][0]
        environment = {x["Name"]: str(x["Value"]) for x in container.get("Environment", [])}
        environment |= session_of(role_of_task(parameters.get("TaskDefinition", "")))
        arguments = _after_script([str(x) for x in container.get("Command", [])], "ecs.py")
        started = time.time()
        command = [sys.executable, str(ROOT / "entrypoints" / "ecs.py")]
        ended = self._run(command, arguments, ECS_GRACE_SECONDS, environment)
        cluster = str(parameters.get("Cluster", "default")).rsplit("/", 1)[-1]
        task_id = uuid.uuid4().hex
        arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{cluster}/{task_id}"
        stopped: Parameters = {
            "ContainerArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:container/{cluster}/{task_id}/1",
            "ExitCode": ended.code,
            "LastStatus": "STOPPED",
            "Name": container.get("Name", ""),
            "TaskArn": arn,
        }
        if ended.code == 137:
            stopped["Reason"] = "Container killed"
        task = {
            "ClusterArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{cluster}",
            "Containers": [stopped],
            "CreatedAt": _milliseconds(started),
            "DesiredStatus": "STOPPED",
            "LastStatus": "STOPPED",
            "LaunchType": parameters.get("LaunchType", "FARGATE"),
            "Overrides": parameters["Overrides"],
            "StartedAt": _milliseconds(started),
            "StopCode": "EssentialContainerExited",
            "StoppedAt": _milliseconds(time.time()),
            "StoppedReason": "Essential container in task exited",
            "TaskArn": arn,
            "TaskDefinitionArn": parameters.get("TaskDefinition", ""),
        }
        return _answer(task, ended)

    def _run(
        self,
        command: Sequence[str],
        arguments: Sequence[str],
        grace_seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a worker within the task's timeout.

        Raises:
            Exception: ``States.Timeout`` for the interpreter, after the worker was ended.
        """
        seconds = TASK_SECONDS.get()
        ended = self.workers.run(
            [*(self.stub or command), *arguments],
            log_name=_log_name(arguments),
            seconds=seconds,
            grace_seconds=grace_seconds,
            environment=environment,
        )
        if ended.timed_out:
            raise task_failed("States.Timeout", "")
        return ended

    def _spark_submit(self, script: str) -> list[str]:
        """Return the command that runs an entrypoint under Spark, in one JVM on this machine."""
        program = shutil.which("spark-submit", path=str(Path(sys.executable).parent))
        if program is None:
            raise task_failed("States.Runtime", "spark-submit is not installed beside this Python")
        settings = {
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.speculation": "false",
        }
        flags = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
        java = "-XX:-UsePerfData -XX:TieredStopAtLevel=1"
        return [
            program, "--master", "local[2]", "--driver-memory", "1g",
            "--driver-java-options", java, *flags, str(ROOT / "entrypoints" / script),
        ]  # fmt: skip


def _sync_only(
    name: str, run: Callable[[Parameters], Parameters]
) -> Callable[[str, Parameters], Parameters]:
    """Adapt a service to the interpreter; a resource without ``.sync`` is an error here."""

    def integration(resource: str, parameters: Parameters) -> Parameters:
        if not resource.endswith(f"{name}.sync"):
            raise task_failed("States.Runtime", f"{resource} is not run here: use {name}.sync")
        return run(parameters)

    return integration


def _answer(description: Parameters, ended: Ended) -> Parameters:
    """Return a job's description, or raise it as the Cause of States.TaskFailed."""
    if ended.code:
        raise task_failed("States.TaskFailed", json.dumps(description))
    return description


def _after_script(arguments: list[str], script: str) -> list[str]:
    """Return the arguments after the entrypoint's file in a command; all if there is none."""
    for position, argument in enumerate(arguments):
        if argument.rsplit("/", 1)[-1] == script:
            return arguments[position + 1 :]
    return arguments


def _log_name(arguments: Sequence[str]) -> str:
    """Return ``<run>-<attempt>`` from a worker's arguments, or a random name."""
    given = dict(itertools.pairwise(arguments))
    run = given.get("--run_id") or given.get("--run-id") or uuid.uuid4().hex
    return f"{run}-{given.get('--attempt', '1')}"


def _milliseconds(seconds: float) -> int:
    """Return a time in the form of Step Functions' service answers."""
    return int(seconds * 1000)
