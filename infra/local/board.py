"""Shows what an execution is doing: one row per table, live on a terminal, else plain lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from extract_jobs.tracking.batch_item import tables_of
from extract_jobs.tracking.heartbeat import progress_of
from extract_jobs.tracking.table import TrackedRun, Tracking
from infra.local.messages import reason
from infra.local.stack import TRACKING_TABLE, Stack

POLL_SECONDS = 0.4
MAX_LIVE_ROWS = 40
_COLOURS = {
    "SUCCEEDED": "green", "FAILED": "red", "RETRYING": "yellow", "RUNNING": "cyan",
    "PENDING": "dim",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One table of an execution.

    Attributes:
        table: Its name.
        state: Its current state in the state machine; empty before its first.
        run: Its item in the tracking table; None before it has one.
        announced: The class of an error that is meant to happen here.
    """

    table: str
    state: str = ""
    run: TrackedRun | None = None
    announced: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the row's text, in the order of `COLUMNS`."""
        run = self.run
        if run is None:
            return self.table, "", self.state, "", "", "", ""
        error = reason(run.error_class, run.error_message)
        if error and run.error_class == self.announced:
            error = f"(as announced) {error}"
        done = run.rows if run.status == "SUCCEEDED" else progress_of(run).get("rows")
        rows = "" if done is None else f"{done:,}"
        return (
            self.table, run.job_type, self.state, str(run.attempt), run.status, rows, error,
        )  # fmt: skip


NOTHING: Mapping[str, str] = MappingProxyType({})
COLUMNS = ("table", "job type", "state", "attempt", "status", "rows", "error")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution ended: its status, and the cause if it failed."""

    arn: str
    status: str
    error: str
    cause: str
    runs: tuple[TrackedRun, ...]


def tracking(stack: Stack) -> Tracking:
    """Return the stack's tracking table."""
    return Tracking(stack.client("dynamodb"), TRACKING_TABLE, lambda: datetime.now(UTC))


def watch(
    stack: Stack, arn: str, console: Console, *, seconds: float = 3600.0,
    at_each_poll: Callable[[list[Row]], None] = lambda _: None,
    announced: Mapping[str, str] = NOTHING,
) -> Outcome:  # fmt: skip
    """Show an execution until it ends.

    Args:
        stack: Where it runs.
        arn: The execution.
        console: A terminal gets a live table, anything else a line for each change.
        seconds: Maximum time.
        at_each_poll: Called with the rows each time they are read.
        announced: Class of the error that is meant to happen to a table, by table.

    Raises:
        TimeoutError: It has not ended in that time.
    """
    polls = (
        (description, [replace(row, announced=announced.get(row.table, "")) for row in rows])
        for description, rows in _polls(stack, arn, seconds)
    )
    if console.is_terminal:
        with Live(console=console, refresh_per_second=8, transient=True) as live:
            for description, rows in polls:
                live.update(table_of(rows, f"{description['status']}  {arn.rsplit(':', 1)[-1]}"))
                at_each_poll(rows)
    else:
        shown: dict[str, tuple[str, ...]] = {}
        for _, rows in polls:
            for row in rows:
                cells = row.cells()
                if shown.get(row.table) != cells:
                    shown[row.table] = cells
                    console.print("  ".join(x for x in cells if x), soft_wrap=True, markup=False)
            at_each_poll(rows)
    described = stack.client("stepfunctions").describe_execution(executionArn=arn)
    return Outcome(
        arn, described["status"], described.get("error", ""), described.get("cause", ""),
        tuple(tracking(stack).by_execution(arn)),
    )  # fmt: skip


def table_of(rows: list[Row], title: str, *, final: bool = False) -> Table:
    """Return rows as a table; if there are many, the first `MAX_LIVE_ROWS` that have not succeeded.

    Args:
        rows: One per table.
        title: Title of the table.
        final: Errors are shown in full, on as many lines as they need, and states are not shown.
    """
    table = Table(title=title, title_justify="left", expand=True)
    shown = [position for position, name in enumerate(COLUMNS) if not final or name != "state"]
    for position in shown:
        name = COLUMNS[position]
        table.add_column(
            name, no_wrap=not (final and name == "error"), overflow="ellipsis",
            justify="right" if name in {"attempt", "rows"} else "left",
            ratio=1 if name == "error" else None,
        )  # fmt: skip
    open_first = sorted(
        rows, key=lambda r: (r.run is not None and r.run.status == "SUCCEEDED", r.table)
    )
    visible = rows if len(rows) <= MAX_LIVE_ROWS else open_first[:MAX_LIVE_ROWS]
    for row in visible:
        cells = row.cells()
        style = _COLOURS.get(row.run.status if row.run else "", "")
        table.add_row(*(escape(cells[position]) for position in shown), style=style)
    if len(rows) > len(visible):
        table.caption = f"and {len(rows) - len(visible)} more"
    return table


def show(
    outcome: Outcome, console: Console, *, announced: Mapping[str, str] = NOTHING, rerun: str = ""
) -> None:
    """Print the tracking table's items of an execution, and why tables failed.

    Args:
        outcome: How it ended.
        console: Where to print.
        announced: Class of the error that is meant to happen to a table, by table.
        rerun: The command that runs the failed tables again, shown if tables failed.
    """
    rows = [
        Row(run.extract_table, "", run, announced.get(run.extract_table, ""))
        for run in outcome.runs
    ]
    if rows:
        title = f"tracking table, execution {outcome.arn.rsplit(':', 1)[-1]}"
        print_table(table_of(rows, title, final=True), console)
    failed = [row for row in rows if row.run is not None and row.run.status == "FAILED"]
    text, style = outcome.status, "green" if outcome.status == "SUCCEEDED" else "red"
    if failed:
        # The table has the reasons in full; the cause has them shortened.
        text += f": {len(failed)} of {len(rows)} tables failed"
        if all(row.announced == row.run.error_class for row in failed if row.run):
            text += " (as announced)"
    elif outcome.status != "SUCCEEDED":
        text = reason(outcome.error, outcome.cause) or outcome.status
    console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)
    if failed and rerun:
        console.print(
            f"To run just these again: {rerun}", soft_wrap=True, markup=False, highlight=False
        )


def print_table(table: Table, console: Console) -> None:
    """Print a table after a blank line; without trailing blanks if it is not a terminal."""
    console.print()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    text = "\n".join(line.rstrip() for line in captured.get().splitlines())
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _polls(stack: Stack, arn: str, seconds: float) -> Iterator[tuple[dict[str, Any], list[Row]]]:
    """Yield the execution's description and rows until it has ended, including the last state."""
    client, table = stack.client("stepfunctions"), tracking(stack)
    deadline = time.monotonic() + seconds
    while True:
        described = client.describe_execution(executionArn=arn)
        rows = {run.extract_table: Row(run.extract_table, "", run)
                for run in table.by_execution(arn)}  # fmt: skip
        if len(rows) <= MAX_LIVE_ROWS:
            for name, state in _states(client, arn):
                rows[name] = replace(rows.get(name, Row(name)), state=state)
        yield described, list(rows.values())
        if described["status"] != "RUNNING":
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{arn} has not ended within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def _states(client: Any, arn: str) -> Iterator[tuple[str, str]]:
    """Yield table and current state of each child of an execution's Map."""
    for run in client.list_map_runs(executionArn=arn)["mapRuns"]:
        children = client.list_executions(mapRunArn=run["mapRunArn"])["executions"]
        for child in children:
            history = client.get_execution_history(
                executionArn=child["executionArn"], reverseOrder=True, maxResults=20
            )["events"]
            names = [
                e["stateEnteredEventDetails"] for e in history if "stateEnteredEventDetails" in e
            ]
            if names:
                given = json.loads(
                    client.describe_execution(executionArn=child["executionArn"])["input"]
                )
                for item in tables_of(given):
                    yield item["extract_table"], names[0]["name"]
