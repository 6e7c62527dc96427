"""``python -m infra.local``: the pipeline on this machine, for your own config and database."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from extract_jobs.errors import ExtractError, error_line
from infra.local.board import show, tracking, watch
from infra.local.demo.story import KEPT, run_demo
from infra.local.emulator import EmulatorFailed, aws_environment
from infra.local.messages import (
    DEFAULT_DIRECTORY,
    directory_option,
    exit_code,
    missing_variables,
    read_event,
    rerun_command,
    run_command,
    source_name,
    why_failed,
)
from infra.local.pages import write_execution_page
from infra.local.stack import Stack, StackProblem, find_stack, open_stack, start_stack

WIDTH = 140
"""Width of tables in a log or pipe, which have none of their own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, 78 if configuration or the event is wrong, 1 if the execution or the demo failed
        otherwise, 2 for a wrong command line.
    """
    options = _parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    try:
        return int(options.run(options, console))
    except ExtractError as error:
        print(error_line(error), file=sys.stderr)
        return error.exit_code
    except (StackProblem, EmulatorFailed, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="start an emulator and deploy the pipeline to it")
    up.add_argument("--config", type=Path, help="folder of source configs, *.yml")
    up.add_argument("--port", type=int, default=0, help="default: a free one")
    up.add_argument("--workers", type=int, default=2, help="jobs at once; default: 2")
    up.add_argument(
        "--env", action="append", default=[], metavar="NAME",
        help="a variable of yours that the jobs get too, such as a config's password_env",
    )  # fmt: skip
    up.set_defaults(run=_up)

    run = commands.add_parser("run", help="start an execution and watch it")
    run.add_argument("event", help="JSON, or a file of it: {source_name, extract_tables, …}")
    run.add_argument("--config", type=Path, help="upload this folder's source configs first")
    run.set_defaults(run=_run)

    status = commands.add_parser("status", help="show what runs, and the last executions")
    status.set_defaults(run=_status)
    down = commands.add_parser("down", help="stop the emulator and everything it has started")
    down.set_defaults(run=_down)
    demo = commands.add_parser("demo", help="run the pipeline on a shop database, and check it")
    demo.add_argument(
        "--keep", action="store_true", help=f"leave the lake's files in {KEPT}, to look at them"
    )
    demo.set_defaults(run=lambda options, console: run_demo(console, keep=options.keep))
    for command in (up, run, status, down):
        command.add_argument(
            "--dir", type=Path, default=DEFAULT_DIRECTORY, dest="directory",
            help="folder of the stack; two stacks take two folders; default: .local",
        )  # fmt: skip
    return parser


def _up(options: argparse.Namespace, console: Console) -> int:
    """Start a stack and leave it running."""
    missing = [name for name in options.env if name not in os.environ]
    if missing:
        raise StackProblem(f"--env names variables that are not set: {', '.join(missing)}")
    configs = _configs(options.config)
    stack = start_stack(
        options.directory,
        configs=configs,
        detached=True,
        port=options.port,
        workers=options.workers,
        environment={name: os.environ[name] for name in options.env},
    )
    source = source_name(configs[0]) if len(configs) == 1 else "…"
    event = f'{{"source_name": "{source}", "extract_tables": "*"}}'
    console.print(
        f"{stack.endpoint_url}  (pid {stack.pid}, logs in {stack.directory})\n"
        f"  state machine  {stack.state_machine_arn}\n\n"
        "To reach it from extract-jobs and the AWS CLI in this shell:\n"
        f"{_exports(stack.endpoint_url)}\n\n"
        f"Next: {run_command(event, options.directory)}",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip
    _warn_of_missing(configs, options)
    return 0


def _exports(endpoint_url: str) -> str:
    """Return the commands that point a shell's AWS tools at the emulator."""
    given = aws_environment(endpoint_url)
    lines = (
        ("AWS_ENDPOINT_URL",),
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_REGION", "AWS_DEFAULT_REGION"),
    )
    return "\n".join(
        "export " + " ".join(f"{name}={given[name]}" for name in names) for names in lines
    )


def _warn_of_missing(configs: Sequence[Path], options: argparse.Namespace) -> None:
    """Warn of variables that the configs name and the jobs do not get, with the option for them."""
    missing = missing_variables(configs, options.env)
    for path, key, name in missing:
        print(f"warning: {path}: {key} is {name}, which the jobs do not get", file=sys.stderr)
    if missing:
        names = dict.fromkeys([*options.env, *(name for _, _, name in missing)])
        unset = [name for name in names if name not in os.environ]
        folder = directory_option(options.directory)
        print(
            (f"Set {', '.join(unset)}, then start again: " if unset else "Start again: ")
            + f"python -m infra.local down{folder} && python -m infra.local up{folder} "
            + f"--config {shlex.quote(str(options.config))} "
            + " ".join(f"--env {name}" for name in names),
            file=sys.stderr,
        )


def _run(options: argparse.Namespace, console: Console) -> int:
    """Start an execution, watch it, and show the results of its tables."""
    event = read_event(options.event)
    stack = open_stack(options.directory)
    for config in _configs(options.config):
        stack.put_config(config)
    arn = stack.start(event)
    try:
        outcome = watch(stack, arn, console)
    except KeyboardInterrupt:
        console.print(f"{arn} continues; python -m infra.local down stops it", soft_wrap=True)
        raise
    show(outcome, console, rerun=rerun_command(arn, options.directory))
    if outcome.runs:
        source = outcome.runs[0].source_name
        page = write_execution_page(stack.directory / "report.html", source, stack, outcome.runs)
        console.print(f"A page about it: {page}", highlight=False, soft_wrap=True, markup=False)
    return 0 if outcome.status == "SUCCEEDED" else exit_code(outcome.error)


def _status(options: argparse.Namespace, console: Console) -> int:
    """Show where the stack is and how its last executions ended."""
    stack = open_stack(options.directory)
    console.print(f"{stack.endpoint_url}  pid {stack.pid}", highlight=False)
    _show_executions(stack, console)
    return 0


def _show_executions(stack: Stack, console: Console) -> None:
    """Print one line for each of the last executions, newest last."""
    client = stack.client("stepfunctions")
    executions = client.list_executions(stateMachineArn=stack.state_machine_arn, maxResults=10)
    for execution in sorted(executions["executions"], key=lambda e: e["startDate"]):
        arn = execution["executionArn"]
        described = client.describe_execution(executionArn=arn)
        runs = list(tracking(stack).by_execution(arn))
        done = sum(run.status == "SUCCEEDED" for run in runs)
        given = json.loads(described["input"])
        source = runs[0].source_name if runs else given.get("source_name", "?")
        line = (
            f"{execution['startDate']:%H:%M:%S}  {execution['status']:9}  {source}  "
            f"{done} of {len(runs)} tables  {arn}"
        )
        if execution["status"] not in {"RUNNING", "SUCCEEDED"}:
            why = why_failed(described.get("error", ""), described.get("cause", ""), runs)
            line += f"  {why}" if why else ""
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _down(options: argparse.Namespace, console: Console) -> int:
    """Stop a stack; does nothing if none runs."""
    stack = find_stack(options.directory)
    if stack is None:
        console.print(f"no stack in {options.directory}")
        return 0
    stack.stop()
    console.print(f"stopped {stack.endpoint_url}; logs stay in {stack.directory}", soft_wrap=True)
    return 0


def _configs(folder: Path | None) -> list[Path]:
    """Return the source configs of a folder."""
    if folder is None:
        return []
    found = sorted(folder.glob("*.yml"))
    if not found:
        raise StackProblem(f"{folder} has no source config: expected files named <source>.yml")
    return found


if __name__ == "__main__":
    sys.exit(main())
