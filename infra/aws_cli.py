"""The AWS CLI as a process, and CloudFormation stacks through it."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_UNMADE = "REVIEW_IN_PROGRESS"
"""Status of a stack that has a change set and nothing else."""
_LONGEST_SECONDS = 3600
"""How long to wait for the end of a change."""


class DeployFailed(RuntimeError):
    """A deployment stopped; the message says why, and what to do next."""


@dataclass(frozen=True, slots=True)
class Aws:
    """The AWS CLI, with the credentials and endpoint of the environment.

    Attributes:
        program: Its name or path.
        region: Where to work; empty leaves that to the CLI's own configuration.
    """

    program: str = "aws"
    region: str = ""

    def run(self, *arguments: str) -> str:
        """Run a command and return what it wrote to its standard output.

        Raises:
            DeployFailed: It failed; the message has its output. Or it is not installed.
        """
        region = ("--region", self.region) if self.region else ()
        try:
            ended = subprocess.run(
                [self.program, *arguments, *region],
                env=os.environ | {"AWS_PAGER": ""},
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise DeployFailed(
                f"{self.program} is not installed: see https://docs.aws.amazon.com/cli/, or name "
                "it with --aws"
            ) from error
        if ended.returncode:
            said = (ended.stderr or ended.stdout).strip()
            raise DeployFailed(f"aws {' '.join(arguments[:2])}: {said}")
        return ended.stdout

    def json(self, *arguments: str) -> Any:
        """Run a command and return its answer; None if there is none."""
        return json.loads(self.run(*arguments, "--output", "json") or "null")

    def default_region(self) -> str:
        """Return the region that the CLI would use.

        Raises:
            DeployFailed: There is none.
        """
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            if os.environ.get(name):
                return os.environ[name]
        try:
            return self.run("configure", "get", "region").strip()
        except DeployFailed as error:
            raise DeployFailed("no region is configured: give --region") from error


@dataclass(frozen=True, slots=True)
class Stack:
    """A CloudFormation stack, whether it exists or not.

    Attributes:
        aws: The AWS CLI.
        name: The stack's name.
        tags: ``key=value`` tags of the stack and what it creates; empty keeps the current tags.
    """

    aws: Aws
    name: str
    tags: tuple[str, ...] = ()

    def parameters(self) -> dict[str, str] | None:
        """Return the parameters that the stack was created with, or None if it does not exist."""
        found = self._described()
        if found is None:
            return None
        return {p["ParameterKey"]: p["ParameterValue"] for p in found.get("Parameters", ())}

    def outputs(self) -> dict[str, str]:
        """Return the stack's outputs; none if it does not exist."""
        found = self._described() or {}
        return {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", ())}

    def deploy(
        self,
        template: Path,
        parameters: Mapping[str, str],
        *,
        confirm: Callable[[Sequence[str]], bool],
        bucket: str = "",
    ) -> bool:
        """Create or change the stack with a change set that is shown first.

        Args:
            template: The template's file.
            parameters: Parameters that are not given keep their values.
            confirm: Takes one line per change, and returns whether to make them.
            bucket: Where the template is uploaded; needed from 51,200 bytes.

        Returns:
            Whether the stack now matches the template; False if the change was not confirmed.

        Raises:
            DeployFailed: CloudFormation refused or rolled back; the message names the resources.
        """
        upload = ("--s3-bucket", bucket, "--s3-prefix", "templates") if bucket else ()
        pairs = [f"{name}={value}" for name, value in parameters.items()]
        said = self.aws.run(
            "cloudformation", "deploy", "--stack-name", self.name,
            "--template-file", str(template), *upload,
            "--capabilities", "CAPABILITY_IAM",
            "--no-execute-changeset", "--no-fail-on-empty-changeset",
            *(("--parameter-overrides", *pairs) if pairs else ()),
            *(("--tags", *self.tags) if self.tags else ()),
        )  # fmt: skip
        found = re.search(r"arn:\S+:changeSet/\S+", said)
        if found is None:
            print(f"{self.name} is up to date")
            return True
        change_set = found[0]
        described = self.aws.json(
            "cloudformation", "describe-change-set", "--stack-name", self.name,
            "--change-set-name", change_set,
        )  # fmt: skip
        if not confirm([f"{self.name}:", *map(_printed_change, described["Changes"])]):
            return False
        self.aws.run(
            "cloudformation", "execute-change-set", "--stack-name", self.name,
            "--change-set-name", change_set,
        )  # fmt: skip
        self._wait({"CREATE_COMPLETE", "UPDATE_COMPLETE"})
        return True

    def delete(self) -> None:
        """Delete the stack and wait until it is gone.

        Raises:
            DeployFailed: CloudFormation could not; the message names the resources.
        """
        self.aws.run("cloudformation", "delete-stack", "--stack-name", self.name)
        self._wait({"", "DELETE_COMPLETE"})

    def _wait(self, wanted: Collection[str]) -> None:
        """Wait for the end of a change; the CLI's own ``wait`` polls only every 30 s.

        Args:
            wanted: Statuses it should end with; empty means that the stack should be gone.

        Raises:
            DeployFailed: It ended otherwise (the message names the resources that failed), or it
                has not ended after an hour.
        """
        deadline = time.monotonic() + _LONGEST_SECONDS
        for seconds in itertools.chain((0.5, 1, 2, 4), itertools.repeat(8)):
            # Sleep first: a change starts only after the call for it has returned, and until then
            # the stack has the status of the previous change.
            time.sleep(seconds)
            found = self._found()
            status = str(found["StackStatus"]) if found else ""
            if not status.endswith("_IN_PROGRESS"):
                break
            if time.monotonic() > deadline:
                raise DeployFailed(
                    f"stack {self.name} is still {status} after an hour; CloudFormation continues, "
                    "and its events say what it waits for"
                )
        if status not in wanted:
            raise DeployFailed(f"stack {self.name} is {status or 'gone'}\n{self._failures()}")

    def _failures(self) -> str:
        events = self.aws.json(
            "cloudformation", "describe-stack-events", "--stack-name", self.name, "--query",
            "StackEvents[?contains(ResourceStatus, 'FAILED')]",
        )  # fmt: skip
        return "\n".join(
            f"  {event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
            for event in reversed(events or [])
        )

    def _described(self) -> dict[str, Any] | None:
        """Return CloudFormation's description of the stack, or None if it was never created."""
        found = self._found()
        return None if found is None or found["StackStatus"] == _UNMADE else found

    def _found(self) -> dict[str, Any] | None:
        """Return what CloudFormation has under the stack's name, or None."""
        try:
            answer = self.aws.json("cloudformation", "describe-stacks", "--stack-name", self.name)
        except DeployFailed as error:
            if "does not exist" in str(error):
                return None
            raise
        found: dict[str, Any] = answer["Stacks"][0]
        return found


def _printed_change(change: Mapping[str, Any]) -> str:
    """Return one change of a change set as a line."""
    resource = change["ResourceChange"]
    replaced = resource.get("Replacement", "False")
    note = {"True": "  (replaced)", "Conditional": "  (perhaps replaced)"}.get(replaced, "")
    return (
        f"  {resource['Action']:8} {resource['LogicalResourceId']:28} "
        f"{resource['ResourceType']}{note}"
    )
