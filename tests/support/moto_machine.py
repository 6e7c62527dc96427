"""The state machine on moto's interpreter, for a stack whose own interpreter is ministack's.

Both run the same definition with the stack's functions, storage and tracking table. moto provides
only the interpreter; it checks which parameters each service integration takes, and refuses others.
Glue and ECS are clients that run a worker as a local process.

What this interpreter cannot do: EMR and EMR Serverless (it has no ``.sync`` of them), redrives, and
the end of a job whose state has timed out. A task of ECS that ends with an exit code is no error of
its state, so the status handler has only the report and the commit log.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import psutil
import pytest

from infra.local.board import Outcome, tracking
from infra.local.emulator import aws_environment
from infra.local.stack import ROLE, WORK_BUCKET, Stack, definition

ROOT = Path(__file__).parents[2]
FUNCTIONS = {
    "ExtractConfigManagerFunctionArn": "extract_config_manager",
    "HandleExtractJobRunStatusFunctionArn": "handle_extract_job_run_status",
}
_SECONDS = 120.0


@dataclass(frozen=True)
class Job:
    """A worker's process, and what it was started with."""

    service: str
    parameters: dict[str, Any]
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def code(self) -> int | None:
        """Return its exit code as a container reports it; None while it runs."""
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def last_line(self) -> str:
        """Return the last line that it wrote on standard error."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else ""


@dataclass
class JobServices:
    """Glue and ECS as clients of boto3: each job is a process."""

    command: Mapping[str, Sequence[str]]
    environment: Mapping[str, str]
    jobs: dict[str, Job] = field(default_factory=dict)

    @property
    def asked(self) -> list[tuple[str, dict[str, Any]]]:
        """What was asked for so far: service and parameters of each job."""
        return [(job.service, job.parameters) for job in list(self.jobs.values())]

    def processes(self) -> list[psutil.Process]:
        """Return the processes of the jobs that run, and theirs."""
        found = []
        for job in list(self.jobs.values()):
            with contextlib.suppress(psutil.NoSuchProcess):  # it may end meanwhile
                if job.code() is None:
                    leader = psutil.Process(job.process.pid)
                    found += [leader, *leader.children(recursive=True)]
        return found

    def end(self) -> None:
        """Kill what still runs."""
        for job in self.jobs.values():
            if job.process.poll() is None:
                job.process.kill()
            job.process.wait()
            job.errors.close()

    def _start(self, service: str, parameters: dict[str, Any], arguments: Sequence[str]) -> str:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the job is known
        process = subprocess.Popen(
            [*self.command[service], *arguments], env=dict(self.environment), cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip
        number = uuid.uuid4().hex
        self.jobs[number] = Job(service, parameters, process, errors)
        return number

    def start_job_run(self, **parameters: Any) -> dict[str, Any]:
        given = [part for pair in parameters["Arguments"].items() for part in pair]
        return {"JobRunId": self._start("glue", parameters, given)}

    def get_job_run(self, *, RunId: str, **_more: Any) -> dict[str, Any]:  # noqa: N803
        job = self.jobs[RunId]
        code = job.code()
        state = "RUNNING" if code is None else "FAILED" if code else "SUCCEEDED"
        run = {"Id": RunId, "JobRunState": state, "Arguments": job.parameters["Arguments"]}
        if code:
            killed = f"Command failed with exit code {code}"
            run["ErrorMessage"] = killed if code > 128 else job.last_line()
        return {"JobRun": run}

    def run_task(self, **parameters: Any) -> dict[str, Any]:
        number = self._start("ecs", parameters, _inside(_container(parameters), "command"))
        return _spelt_twice({"taskArn": number, "clusterArn": "cluster"})

    def describe_tasks(self, *, tasks: Sequence[str], **_more: Any) -> dict[str, Any]:
        return _spelt_twice(*map(self._task, tasks))

    def _task(self, number: str) -> dict[str, Any]:
        job = self.jobs[number]
        code = job.code()
        command = _inside(_container(job.parameters), "command")
        ended = {} if code is None else {"exitCode": code}
        return {"taskArn": number, "clusterArn": "cluster", "containers": [ended],
                "lastStatus": "RUNNING" if code is None else "STOPPED",
                "overrides": {"containerOverrides": [{"command": command}]}}  # fmt: skip

    def get_paginator(self, name: str) -> Pages:
        """Return what lists the jobs that run, as the reaper asks for them."""
        service = {"get_job_runs": "glue", "list_tasks": "ecs"}[name]
        running = [
            number for number, job in list(self.jobs.items())
            if job.service == service and job.code() is None
        ]  # fmt: skip
        if service == "ecs":
            return Pages({"taskArns": running})
        return Pages({"JobRuns": [self.get_job_run(RunId=n)["JobRun"] for n in running]})


@dataclass(frozen=True)
class Pages:
    """A paginator of boto3 with one page."""

    page: dict[str, Any]

    def paginate(self, **_asked: Any) -> Iterator[dict[str, Any]]:
        yield self.page


def _spelt_twice(*tasks: dict[str, Any]) -> dict[str, Any]:
    """Return tasks as ECS spells them, and as Step Functions does.

    moto's integration of ECS expects the second, and leaves out the step that would respell them.
    """
    respelt = [{key[0].upper() + key[1:]: value for key, value in t.items()} for t in tasks]
    return {"tasks": list(tasks), "Tasks": respelt}


def _container(parameters: dict[str, Any]) -> Any:
    (container,) = _inside(parameters, "overrides", "containerOverrides")
    return container


def _inside(value: Any, *names: str) -> Any:
    """Return the value below some names, whose first letters moto may spell in either case."""
    for name in names:
        value = {key[0].lower() + key[1:]: inner for key, inner in value.items()}[name]
    return value


@dataclass
class Faults:
    """Calls of services that are to fail, as infra/local/faults.py has them for ministack."""

    wanted: list[dict[str, Any]] = field(default_factory=list)
    struck: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Let these calls fail from now on, and no others."""
        with self._lock:
            self.wanted = [dict(fault) for fault in faults]

    def of(self, call: str) -> dict[str, Any] | None:
        """Return what a call fails with, if it fails."""
        with self._lock:
            for fault in self.wanted:
                if fault["call"] in call and fault.setdefault("times", 1) > 0:
                    fault["times"] -= 1
                    self.struck += 1
                    return fault
        return None


@dataclass
class MotoMachine:
    """A state machine on moto's interpreter."""

    stack: Stack
    backend: Any
    arn: str
    services: JobServices
    faults: Faults

    def start(self, event: Mapping[str, Any]) -> str:
        """Start an execution; return its ARN."""
        started = self.backend.start_execution(
            self.arn, name=uuid.uuid4().hex, execution_input=json.dumps(event)
        )
        return str(started.exec_arn)

    def status(self, arn: str) -> str:
        """Return an execution's status."""
        status = self.backend.describe_execution(arn).exec_status
        return "RUNNING" if status is None else str(status.value)

    def stop(self, arn: str) -> None:
        """Stop an execution; its jobs go on."""
        worker = self.backend.describe_execution(arn).exec_worker
        while worker.env is None:  # moto cannot stop one whose thread has not begun
            time.sleep(0.01)
        self.backend.stop_execution(arn)

    def fail(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Let calls fail; see `Faults`."""
        self.faults.fail(faults)

    def failed_calls(self) -> int:
        """Return how many calls have failed on purpose so far."""
        return self.faults.struck

    def workers(self) -> list[psutil.Process]:
        """Return the processes of the workers that run."""
        return self.services.processes()

    def client(self, service: str) -> Any:
        """Return a client of boto3 as the reaper uses it."""
        if service == "stepfunctions":
            return SimpleNamespace(get_paginator=lambda _: Pages({"executions": self._listed()}))
        return self.services if service in self.services.command else self.stack.client(service)

    def _listed(self) -> list[dict[str, Any]]:
        return [
            {"executionArn": e.exec_arn, "status": self.status(e.exec_arn),
             "startDate": e.start_date}
            for e in reversed(self.backend.describe_state_machine(self.arn).executions)
        ]  # fmt: skip

    def run(self, event: Mapping[str, Any], seconds: float = _SECONDS) -> Outcome:
        """Run an execution to its end."""
        arn = self.start(event)
        deadline = time.monotonic() + seconds
        while self.status(arn) == "RUNNING":
            assert time.monotonic() < deadline, "the execution has not ended"
            time.sleep(0.05)
        ended = self.backend.describe_execution(arn)
        runs = tuple(tracking(self.stack).by_execution(arn))
        return Outcome(arn, self.status(arn), ended.error or "", ended.cause or "", runs)


@contextlib.contextmanager
def start_machine(
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    command: Mapping[str, Sequence[str]] | None = None,
    environment: Mapping[str, str] | None = None,
    wait_scale: float = 1.0,
) -> Iterator[MotoMachine]:
    """Make the state machine of a stack on moto's interpreter, within this process.

    At the end, jobs that still run are killed.

    Args:
        stack: The stack whose functions, storage and tracking table it uses.
        monkeypatch: Restores moto at the end of the test.
        command: What runs instead of the workers of glue and ecs.
        environment: Further variables of the workers.
        wait_scale: How long it waits before a retry, in proportion to what the definition says.
    """
    import moto.stepfunctions.parser.asl.parse.asl_parser  # noqa: F401 - imports what is patched
    from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
        state_task_service_callback,
    )
    from moto.stepfunctions.parser.models import StepFunctionsParserBackend

    workers = {name: [sys.executable, f"entrypoints/{name}.py"] for name in ("glue", "ecs")}
    services = JobServices(
        command or workers, {**_worker_environment(stack), **(environment or {})}
    )
    lock, faults = threading.Lock(), Faults()
    made = functools.cache(stack.client)

    def client_for(region: str, service: str, state_credentials: Any = None) -> Any:
        with lock:  # boto3 makes clients of one session, one at a time
            return services if service in workers else made(service)

    for name, module in list(sys.modules.items()):
        if name.startswith("moto.stepfunctions") and hasattr(module, "boto_client_for"):
            monkeypatch.setattr(module, "boto_client_for", client_for)
    monkeypatch.setattr(state_task_service_callback, "_DELAY_SECONDS_SYNC_CONDITION_CHECK", 0.05)
    scaled = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds * wait_scale))
    monkeypatch.setattr(retrier_decl, "time", scaled)
    _inject(faults, monkeypatch)

    arns = {
        place: stack.client("lambda").get_function(FunctionName=name)["Configuration"][
            "FunctionArn"
        ]
        for place, name in FUNCTIONS.items()
    }
    backend = StepFunctionsParserBackend("us-east-1", "000000000000")
    machine = backend.create_state_machine(
        f"moto-{uuid.uuid4().hex[:8]}", definition({**arns, "WorkBucketName": WORK_BUCKET}), ROLE
    )
    try:
        yield MotoMachine(stack, backend, machine.arn, services, faults)
    finally:
        services.end()


def _inject(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls of services fail as `Faults` says."""
    from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
    from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import (
        CustomErrorName,
    )
    from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
        FailureEvent,
        FailureEventException,
    )
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
        state_task_service,
    )
    from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails

    task = state_task_service.StateTaskService
    evaluate = task._eval_execution

    def checked(state: Any, env: Any) -> None:
        fault = faults.of(state.resource.resource_arn)
        if fault is None:
            evaluate(state, env)
            return
        error, cause = fault["error"], fault.get("cause", "on purpose")
        details = TaskFailedEventDetails(
            error=error, cause=cause, resource=state.resource.resource_arn, resourceType="aws"
        )
        raise FailureEventException(
            FailureEvent(
                env=env, error_name=CustomErrorName(error), event_type=HistoryEventType.TaskFailed,
                event_details=EventDetails(taskFailedEventDetails=details),
            )
        )  # fmt: skip

    monkeypatch.setattr(task, "_eval_execution", checked)


def _worker_environment(stack: Stack) -> dict[str, str]:
    return {
        **aws_environment(stack.endpoint_url), "PYTHONPATH": str(ROOT), "HOME": "/nonexistent",
        "PATH": str(Path(sys.executable).parent),
    }  # fmt: skip
