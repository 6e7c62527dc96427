"""The state machine on moto's interpreter, for a stack whose own interpreter is ministack's.

Both run the same definition with the stack's functions, storage and tracking table. moto provides
only the interpreter; it checks which parameters each service integration takes, and refuses others.
Glue and ECS are clients that run a worker as a local process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass
class JobServices:
    """Glue and ECS as clients of boto3: each runs its worker to the end."""

    command: Mapping[str, Sequence[str]]
    environment: Mapping[str, str]
    codes: dict[str, int] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def _run(self, service: str, parameters: dict[str, Any], arguments: Sequence[str]) -> str:
        self.asked.append((service, parameters))
        ended = subprocess.run(
            [*self.command[service], *arguments], env=dict(self.environment), cwd=ROOT,
            capture_output=True, text=True, check=False, timeout=_SECONDS,
        )  # fmt: skip
        job = uuid.uuid4().hex
        self.codes[job], self.lines[job] = ended.returncode, ended.stderr.splitlines()
        return job

    def start_job_run(self, **parameters: Any) -> dict[str, Any]:
        given = [part for pair in parameters["Arguments"].items() for part in pair]
        return {"JobRunId": self._run("glue", parameters, given)}

    def get_job_run(self, *, RunId: str, **_more: Any) -> dict[str, Any]:  # noqa: N803
        code, lines = self.codes[RunId], self.lines[RunId]
        run = {"Id": RunId, "JobRunState": "FAILED" if code else "SUCCEEDED"}
        last = lines[-1] if lines else ""
        killed = f"Command failed with exit code {128 - code}"
        return {"JobRun": run | ({"ErrorMessage": killed if code < 0 else last} if code else {})}

    def run_task(self, **parameters: Any) -> dict[str, Any]:
        (container,) = _inside(parameters, "overrides", "containerOverrides")
        job = self._run("ecs", parameters, _inside(container, "command"))
        return {"tasks": [{"taskArn": job, "clusterArn": "cluster"}]}

    def describe_tasks(self, *, tasks: Sequence[str], **_more: Any) -> dict[str, Any]:
        (job,) = tasks
        container = {"exitCode": self.codes[job]}
        return {"tasks": [{"taskArn": job, "clusterArn": "cluster", "lastStatus": "STOPPED",
                           "containers": [container]}]}  # fmt: skip


def _inside(value: Any, *names: str) -> Any:
    """Return the value below some names, whose first letters moto may spell in either case."""
    for name in names:
        value = {key[0].lower() + key[1:]: inner for key, inner in value.items()}[name]
    return value


@dataclass
class MotoMachine:
    """A state machine on moto's interpreter."""

    stack: Stack
    backend: Any
    arn: str
    services: JobServices

    def run(self, event: Mapping[str, Any], seconds: float = _SECONDS) -> Outcome:
        """Run an execution to its end."""
        execution = self.backend.start_execution(
            self.arn, name=uuid.uuid4().hex, execution_input=json.dumps(event)
        )
        deadline = time.monotonic() + seconds
        while execution.exec_status in {None, "RUNNING"}:
            assert time.monotonic() < deadline, "the execution has not ended"
            time.sleep(0.05)
        arn = execution.exec_arn
        runs = tuple(tracking(self.stack).by_execution(arn))
        return Outcome(
            arn, execution.exec_status.value, execution.error or "", execution.cause or "", runs
        )


def start_machine(
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    command: Mapping[str, Sequence[str]] | None = None,
) -> MotoMachine:
    """Make the state machine of a stack on moto's interpreter, within this process.

    Args:
        stack: The stack whose functions, storage and tracking table it uses.
        monkeypatch: Restores moto's clients at the end of the test.
        command: What runs instead of the workers of glue and ecs.
    """
    import moto.stepfunctions.parser.asl.parse.asl_parser  # noqa: F401 - imports what is patched
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
        state_task_service_callback,
    )
    from moto.stepfunctions.parser.models import StepFunctionsParserBackend

    workers = {name: [sys.executable, f"entrypoints/{name}.py"] for name in ("glue", "ecs")}
    services = JobServices(command or workers, _worker_environment(stack))
    own = {"glue", "ecs"}

    def client_for(region: str, service: str, state_credentials: Any = None) -> Any:
        return services if service in own else stack.client(service)

    for name, module in list(sys.modules.items()):
        if name.startswith("moto.stepfunctions") and hasattr(module, "boto_client_for"):
            monkeypatch.setattr(module, "boto_client_for", client_for)
    monkeypatch.setattr(state_task_service_callback, "_DELAY_SECONDS_SYNC_CONDITION_CHECK", 0.05)

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
    return MotoMachine(stack, backend, machine.arn, services)


def _worker_environment(stack: Stack) -> dict[str, str]:
    return {
        **aws_environment(stack.endpoint_url), "PYTHONPATH": str(ROOT), "HOME": "/nonexistent",
        "PATH": str(Path(sys.executable).parent),
    }  # fmt: skip
