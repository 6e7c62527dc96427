"""Deploys to AWS with just the AWS CLI: ``python -m infra.deploy up``, or ``make deploy``.

``up`` uploads what ``make dist`` has built into a folder named after its contents, shows what
CloudFormation would change, changes it, and prints the stack's outputs. ``schedule`` starts a
source at fixed times. ``destroy`` deletes the stack and keeps all data. Credentials, region and
endpoint are those of the AWS CLI.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from extract_jobs import __version__
from infra.aws_cli import Aws, DeployFailed, Stack
from infra.deployer import PARTS, deployer_policy
from infra.finishing import finish, key_there
from infra.images import check_image, repository_of
from infra.kept import DATA, STATE, TABLE, Kept, find_kept
from infra.needed import check_needed

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
TEMPLATES = ROOT / "infra"
_LONGEST_BUCKET_NAME = 63
_STACK_NAME = r"[a-z][a-z0-9-]*"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 1 if it failed."""
    options = _parser().parse_args(arguments)
    aws = Aws(options.aws, options.region)
    try:
        options.command(options, aws)
    except DeployFailed as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 1
    return 0


def up(options: argparse.Namespace, aws: Aws) -> None:
    """Upload the artifacts, then create or change the stack.

    Raises:
        DeployFailed: Nothing is built, a name is too long, or AWS refused; CloudFormation then
            rolls back, so nothing is half changed.
    """
    account, region = _whereabouts(options.stack, aws)
    stack = Stack(aws, options.stack, tuple(options.tags))
    given = _parameters(options)
    before = stack.parameters()
    check_image({**(before or {}), **given}, region)
    check_needed({**(before or {}), **given})
    if before is None:
        given = _taken_over(find_kept(aws, stack.name, account, region), given)
    elif before.get("Adopt") == "yes":
        # From a stack with an older template, which adopted either everything or nothing.
        given = {DATA: "yes", STATE: "yes", TABLE: "yes"} | given
    artifacts = Stack(aws, f"{stack.name}-artifacts", stack.tags)
    key = key_there(stack, given)
    artifacts.deploy(
        TEMPLATES / "artifacts.yaml", {"KmsKey": key} if key else {}, confirm=lambda _: True
    )
    bucket = artifacts.outputs()["ArtifactsBucket"]
    prefix = release(options.dist)
    _upload(options.dist, f"s3://{bucket}/{prefix}", {**(before or {}), **given}, aws)
    given |= {"ArtifactsBucket": bucket, "ArtifactsPrefix": prefix, "Version": __version__}
    image = {**(before or {}), **given}.get("EcsImage", "")
    if "EcsImage" in given or not (before or {}).get("EcsRepositoryArn"):
        given = {"EcsRepositoryArn": repository_of(image)} | given
    done = stack.deploy(
        TEMPLATES / "template.yaml", given, bucket=bucket, confirm=_confirm(options.yes)
    )
    if done:
        finish(stack, aws)
        _show_outputs(stack)


def schedule(options: argparse.Namespace, aws: Aws) -> None:
    """Schedule a source, or change its schedule; one stack per source.

    Raises:
        DeployFailed: There is no such pipeline, or AWS refused.
    """
    pipeline = Stack(aws, options.stack)
    if pipeline.parameters() is None:
        raise DeployFailed(f"there is no stack {options.stack}; deploy it first: make deploy")
    tables = "*" if options.tables == ["*"] else options.tables
    given = {
        "Pipeline": options.stack,
        "SourceName": options.source,
        "Schedule": options.when if "(" in options.when else f"cron({options.when})",
        "TimeZone": options.time_zone,
        "ExtractTables": json.dumps(tables),
        "State": "DISABLED" if options.disabled else "ENABLED",
    }
    # A stack's name may not contain an underscore.
    name = f"{options.stack}-schedule-{options.source.replace('_', '-')}"
    Stack(aws, name, tuple(options.tags)).deploy(
        TEMPLATES / "schedule.yaml", given | _parameters(options), confirm=_confirm(options.yes)
    )


def destroy(options: argparse.Namespace, aws: Aws) -> None:
    """Delete the stack. Buckets, tracking table and key stay, with everything in them.

    Raises:
        DeployFailed: There is no such stack, its schedules still use it, or AWS refused.
    """
    stack = Stack(aws, options.stack)
    if stack.parameters() is None:
        raise DeployFailed(f"there is no stack {options.stack}")
    outputs = stack.outputs()
    names = ("DataBucketName", "StateBucketName", "TrackingTableName", "KeyArn")
    kept = [f"  {name:18} {outputs[name]}" for name in names if name in outputs]
    print(f"Stack {stack.name} is deleted; these are kept, with all that is in them:")
    print("\n".join([*kept, f"  {'artifacts':18} stack {stack.name}-artifacts and its bucket"]))
    if not _confirm(options.yes)([]):
        return
    stack.delete()
    print(f"Deleted. `make deploy` with the same name ({stack.name}) takes them over again.")


def show(options: argparse.Namespace, aws: Aws) -> None:
    """Print the outputs of a stack.

    Raises:
        DeployFailed: There is no such stack.
    """
    stack = Stack(aws, options.stack)
    if stack.parameters() is None:
        raise DeployFailed(f"there is no stack {options.stack}; deploy it first: make deploy")
    _show_outputs(stack)


def policy(options: argparse.Namespace, aws: Aws) -> None:
    """Print a part of the policy for whoever deploys the stack.

    Raises:
        DeployFailed: The AWS CLI has no account or Region.
    """
    account = aws.json("sts", "get-caller-identity")["Account"]
    region = aws.region or aws.default_region()
    print(json.dumps(deployer_policy(options.part, options.stack, account, region), indent=2))


def release(dist: Path) -> str:
    """Return the folder for what is built: the version, and a digest of all contents.

    Different contents go to a different folder, so that CloudFormation sees the change and a
    rollback finds the previous files.

    Raises:
        DeployFailed: Nothing is built.
    """
    sums = dist / "SHA256SUMS"
    if not sums.exists():
        raise DeployFailed(f"{sums} is missing; build first: make dist")
    return f"{__version__}-{hashlib.sha256(sums.read_bytes()).hexdigest()[:12]}"


def wanted(parameters: Mapping[str, str]) -> list[str]:
    """Return the artifacts that a stack with these parameters uses, as patterns of `dist`."""
    found = ["SHA256SUMS", "asl/*", "entrypoints/*", "lambda/*"]
    if parameters.get("Glue", "yes") == "yes":
        found.append(f"*-glue{parameters.get('GlueVersion', '5.1')}.gluewheels.zip")
    serverless = parameters.get("Emr", "no") == "yes" and not parameters.get("EmrImage")
    if serverless or parameters.get("EmrClusterArns"):
        found.append("*-emr.tar.gz")
    return found


def _upload(dist: Path, uri: str, parameters: Mapping[str, str], aws: Aws) -> None:
    """Upload what the stack uses and the bucket's folder lacks."""
    included = [part for pattern in wanted(parameters) for part in ("--include", pattern)]
    print(f"Uploading to {uri}")
    aws.run(
        "s3", "sync", str(dist), uri, "--exclude", "*", *included, "--size-only", "--no-progress"
    )


def _whereabouts(name: str, aws: Aws) -> tuple[str, str]:
    """Return account and Region, if buckets can be named after the stack there."""
    account = aws.json("sts", "get-caller-identity")["Account"]
    region = aws.region or aws.default_region()
    longest = f"{name}-artifacts-{account}-{region}"
    if not re.fullmatch(_STACK_NAME, name) or len(longest) > _LONGEST_BUCKET_NAME:
        most = _LONGEST_BUCKET_NAME - len(longest) + len(name)
        raise DeployFailed(
            f"{name!r} cannot be the stack's name, because buckets are named after it: expected "
            f"lower-case letters, digits and hyphens, at most {most}"
        )
    print(f"Stack {name} in account {account}, {region}")
    return account, region


def _taken_over(kept: Kept, given: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters, plus those that let a new stack take over what exists."""
    parameters = {**kept.parameters(given), **given}
    if kept.names:
        names = ", ".join(kept.names.values())
        print(f"Left by an earlier stack, and taken over: {names}")
    for text in kept.unlike(parameters):
        print(f"Differs from the template, and left unchanged: {text}")
    return parameters


def _parameters(options: argparse.Namespace) -> dict[str, str]:
    """Return the parameters from file and command line; the command line wins."""
    found: dict[str, str] = {}
    if options.parameters is not None:
        try:
            read = json.loads(options.parameters.read_text(encoding="utf-8"))
            found = {str(name): _text(value) for name, value in read.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise DeployFailed(
                f"{options.parameters}: {error}; expected a JSON object of parameters"
            ) from error
    for pair in options.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise DeployFailed(f"--set {pair}: expected Name=value")
        found[name] = value
    return found


def _text(value: Any) -> str:
    """Return a parameter as CloudFormation expects it: lists are joined with commas."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _confirm(yes: bool) -> Callable[[Sequence[str]], bool]:
    """Return a function that shows changes and asks whether to make them."""

    def ask(changes: Sequence[str]) -> bool:
        print("\n".join(changes))
        if yes:
            return True
        if not sys.stdin.isatty():
            print("Nothing was changed: there is no terminal to confirm on. Use --yes to continue.")
            return False
        return input("Continue? [y/N] ").strip().lower() in {"y", "yes"}

    return ask


def _show_outputs(stack: Stack) -> None:
    outputs = stack.outputs()
    for name, value in sorted(outputs.items()):
        print(f"  {name:22} {value}")
    event = json.dumps({"source_name": "sales", "extract_tables": "*"})
    print(
        "\nNext, for a source config sales.yml:\n"
        f"  aws s3 cp sales.yml {outputs['ConfigUri']}/sales.yml\n"
        f"  aws stepfunctions start-execution --state-machine-arn {outputs['StateMachineArn']} "
        f"--input {shlex.quote(event)}"
    )


def _parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    make = commands.add_parser("up", help="create or change the stack")
    make.add_argument("--dist", type=Path, default=DIST, help="what make dist has built")
    make.set_defaults(command=up)
    clock = commands.add_parser("schedule", help="start a source at fixed times")
    clock.add_argument("source", help="its name, as in <source>.yml")
    clock.add_argument(
        "when", help="six fields of EventBridge's cron, such as '0 3 * * ? *'; or rate(1 hour)"
    )
    clock.add_argument("--time-zone", default="UTC", help="such as Europe/Berlin; default: UTC")
    clock.add_argument("--tables", nargs="+", default=["*"], help="names and globs; default: all")
    clock.add_argument("--disabled", action="store_true", help="keep it, but start nothing")
    clock.set_defaults(command=schedule)
    outputs = commands.add_parser("outputs", help="print the stack's outputs")
    outputs.set_defaults(command=show)
    rights = commands.add_parser("policy", help="print the policies for whoever deploys")
    rights.add_argument(
        "part", choices=list(PARTS), help="one policy cannot hold both parts: attach both"
    )
    rights.set_defaults(command=policy)
    end = commands.add_parser("destroy", help="delete the stack, and keep all data")
    end.set_defaults(command=destroy)
    for command in (make, clock):
        command.add_argument(
            "--tags", nargs="+", default=[], metavar="KEY=VALUE",
            help="tags of the stack and all that it creates; default: no change",
        )  # fmt: skip
        command.add_argument("--parameters", type=Path, help="JSON object of stack parameters")
        command.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="one parameter"
        )
    for command in (make, clock, end):
        command.add_argument("--yes", action="store_true", help="do not ask")
    for command in (make, clock, outputs, rights, end):
        command.add_argument("--stack", default="extract-jobs", help="default: extract-jobs")
        command.add_argument("--region", default="", help="default: the AWS CLI's")
        command.add_argument("--aws", default="aws", help="the AWS CLI, version 1.29 or later")
    return parser


if __name__ == "__main__":
    sys.exit(main())
