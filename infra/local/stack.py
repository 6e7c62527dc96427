"""Deploys the pipeline to the emulator: what CloudFormation does on AWS, with the same files."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from extract_jobs.tracking.table import create_table
from infra.local.emulator import (
    REGION,
    Emulator,
    session_members,
    start_emulator,
    stop_session,
)

ROOT = Path(__file__).parents[2]
DEFINITION = ROOT / "asl" / "extract_pipeline.asl.json"
CONFIG_BUCKET = "extract-config"
WORK_BUCKET = "extract-work"
TRACKING_TABLE = "extract-tracking"
STATE_MACHINE = "extract-pipeline"
ROLE = "arn:aws:iam::000000000000:role/extract-pipeline"
FUNCTIONS = {
    "ExtractConfigManagerFunctionArn": "extract_config_manager",
    "HandleExtractJobRunStatusFunctionArn": "handle_extract_job_run_status",
}
"""Placeholder in the state machine's definition, and its Lambda."""
JOB_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "emr": {"application_id": "local", "entry_point": f"s3://{WORK_BUCKET}/emr.py"}
}
"""Settings of job services that the deployment provides, so that a config need not."""


class StackProblem(RuntimeError):
    """A stack is missing, already exists, or lacks one of its parts."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A deployed pipeline.

    Attributes:
        directory: Its folder: logs, temporary files, and `stack.json`, which stores this.
        endpoint_url: Its emulator's.
        pid: Its emulator's.
        state_machine_arn: The pipeline's.
        emulator: Its emulator, if this process has started it.
    """

    directory: Path
    endpoint_url: str
    pid: int
    state_machine_arn: str = ""
    emulator: Emulator | None = field(default=None, compare=False, repr=False)

    def client(self, service: str) -> Any:
        """Return a boto3 client of the emulator, whatever the environment says."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - the emulator takes any
            config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard"}),
        )

    def put_config(self, path: Path) -> None:
        """Upload one source config, and create the buckets that it names."""
        text = path.read_text(encoding="utf-8")
        for bucket in buckets_named(text):
            self.create_bucket(bucket)
        self.client("s3").put_object(Bucket=CONFIG_BUCKET, Key=path.name, Body=text.encode())

    def create_bucket(self, name: str) -> None:
        """Create a bucket, unless it exists."""
        client = self.client("s3")
        if name not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=name)

    def put_secret(self, secret_id: str, value: Mapping[str, Any]) -> None:
        """Store a secret in the form that RDS uses."""
        client, text = self.client("secretsmanager"), json.dumps(value)
        try:
            client.create_secret(Name=secret_id, SecretString=text)
        except client.exceptions.ResourceExistsException:
            client.put_secret_value(SecretId=secret_id, SecretString=text)

    def start(self, event: Mapping[str, Any] | str, *, name: str | None = None) -> str:
        """Start an execution; return its ARN."""
        text = event if isinstance(event, str) else json.dumps(event)
        named = {"name": name} if name else {}
        started = self.client("stepfunctions").start_execution(
            stateMachineArn=self.state_machine_arn, input=text, **named
        )
        return str(started["executionArn"])

    def stop(self) -> None:
        """End the emulator and its workers; logs stay, everything else is removed."""
        if self.emulator is not None:
            self.emulator.stop()
        else:
            stop_session(self.pid)
        shutil.rmtree(self.directory / "tmp", ignore_errors=True)
        for name in ("server.json", "stack.json"):
            (self.directory / name).unlink(missing_ok=True)

    def alive(self) -> bool:
        """Return whether the emulator's process is running."""
        return any(process.pid == self.pid for process in session_members(self.pid))

    def save(self) -> None:
        """Write `stack.json`, for `open_stack` in another process."""
        values = {
            "directory": str(self.directory),
            "endpoint_url": self.endpoint_url,
            "pid": self.pid,
            "state_machine_arn": self.state_machine_arn,
        }
        (self.directory / "stack.json").write_text(json.dumps(values, indent=2) + "\n")


def start_stack(
    directory: Path,
    *,
    configs: Sequence[Path] = (),
    detached: bool = False,
    port: int = 0,
    workers: int = 2,
    stub: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    job_defaults: Mapping[str, Mapping[str, Any]] = JOB_DEFAULTS,
) -> Stack:
    """Start an emulator in a folder and deploy the pipeline to it.

    Args:
        directory: Created if missing. Stacks in different folders are independent.
        configs: Source configs to upload.
        detached: Let it outlive this process.
        port: The emulator's port; 0 takes a free port.
        workers: How many jobs run at once.
        stub: A command that runs instead of the workers, for tests of the state machine only.
        environment: Further variables of the emulator, its Lambdas and the workers.
        job_defaults: What the config manager uses if a config does not say.

    Raises:
        StackProblem: One is already running in this folder.
    """
    directory = directory.resolve()
    found = find_stack(directory)
    if found is not None and found.alive():
        raise StackProblem(f"a stack is already running in {directory}, at {found.endpoint_url}")
    options = ["--pipeline", "--workers", str(workers)]
    options += ["--stub", shlex.join(stub)] if stub else []
    emulator = start_emulator(
        directory, port=port, detached=detached, options=options, environment=environment
    )
    try:
        stack = _deploy(emulator, job_defaults)
        for config in configs:
            stack.put_config(config)
    except BaseException:
        emulator.stop()
        raise
    stack.save()
    return stack


def find_stack(directory: Path) -> Stack | None:
    """Return the stack that was started in a folder, running or not; None if there is none."""
    path = directory.resolve() / "stack.json"
    if not path.exists():
        return None
    values = json.loads(path.read_text())
    return Stack(**values | {"directory": Path(values["directory"])})


def open_stack(directory: Path) -> Stack:
    """Return the running stack of a folder.

    Raises:
        StackProblem: There is none.
    """
    stack = find_stack(directory)
    if stack is None or not stack.alive():
        raise StackProblem(f"no stack runs in {directory}; start one: python -m infra.local up")
    return stack


def definition(substitutions: Mapping[str, str]) -> str:
    """Return the state machine's definition with its ``${…}`` filled in as CloudFormation does it.

    Raises:
        StackProblem: A placeholder has no value, or a value has no placeholder.
    """
    text = DEFINITION.read_text(encoding="utf-8")
    found = set(re.findall(r"\$\{(\w+)\}", text))
    if found != set(substitutions):
        raise StackProblem(
            f"{DEFINITION.name} has the placeholders {sorted(found)}, "
            f"the deployment gives {sorted(substitutions)}"
        )
    return re.sub(r"\$\{(\w+)\}", lambda match: substitutions[match[1]], text)


def buckets_named(config_text: str) -> list[str]:
    """Return the buckets of the ``s3://`` URIs in a config; none if it is not YAML."""
    try:
        data = yaml.safe_load(config_text)
    except yaml.YAMLError:
        return []
    return sorted(set(re.findall(r"s3://([a-z0-9][a-z0-9.-]+)", json.dumps(data, default=str))))


def lambda_package() -> bytes:
    """Return the Lambdas' code as a zip: handlers at the root, the package beside them.

    Their dependencies come from this Python's own site-packages, in which the emulator runs them.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name in FUNCTIONS.values():
            package.write(ROOT / "entrypoints" / f"{name}.py", f"{name}.py")
        for path in sorted((ROOT / "extract_jobs").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                package.write(path, path.relative_to(ROOT))
    return buffer.getvalue()


def _deploy(emulator: Emulator, job_defaults: Mapping[str, Any]) -> Stack:
    """Create buckets, tracking table, Lambdas and state machine."""
    stack = Stack(emulator.data_dir, emulator.endpoint_url, emulator.pid, emulator=emulator)
    for bucket in (CONFIG_BUCKET, WORK_BUCKET):
        stack.create_bucket(bucket)
    create_table(stack.client("dynamodb"), TRACKING_TABLE)
    arns = _create_functions(stack, job_defaults)
    machine = stack.client("stepfunctions").create_state_machine(
        name=STATE_MACHINE,
        roleArn=ROLE,
        definition=definition({**arns, "WorkBucketName": WORK_BUCKET}),
    )
    return replace(stack, state_machine_arn=machine["stateMachineArn"])


def _create_functions(stack: Stack, job_defaults: Mapping[str, Any]) -> dict[str, str]:
    """Create the Lambdas; return their ARNs by placeholder."""
    code, client = lambda_package(), stack.client("lambda")
    variables = {
        "CONFIG_URI": f"s3://{CONFIG_BUCKET}",
        "WORK_URI": f"s3://{WORK_BUCKET}",
        "TRACKING_TABLE": TRACKING_TABLE,
        "JOB_DEFAULTS": json.dumps(job_defaults),
        "LIST_TABLES": "yes",
    }
    return {
        placeholder: client.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=ROLE,
            Handler=f"{name}.handler",
            Code={"ZipFile": code},
            Timeout=300,
            MemorySize=512,
            Environment={"Variables": variables},
        )["FunctionArn"]
        for placeholder, name in FUNCTIONS.items()
    }
