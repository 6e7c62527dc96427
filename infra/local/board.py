"""What an execution is doing: one row a table, live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from extract_jobs.tracking import TrackedRun, Tracking
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
        state: The state of the state machine that it is in; empty before its first.
        run: What the tracking table says; None before it says anything.
    """

    table: str
    state: str = ""
    run: TrackedRun | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the row's text, in the order of `COLUMNS`."""
        run = self.run
        if run is None:
            return self.table, "", self.state, "", "", "", ""
        error = f"{run.error_class}: {run.error_message}" if run.error_class else ""
        rows = f"{run.rows:,}" if run.status == "SUCCEEDED" else ""
        return (
            self.table, run.job_type, self.state, str(run.attempt), run.status, rows,
            error.splitlines()[0] if error else "",
        )  # fmt: skip


COLUMNS = ("table", "job type", "state", "attempt", "status", "rows", "error")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution ended: its status, and the cause where it failed."""

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
) -> Outcome:  # fmt: skip
    """Show an execution until it ends.

    Args:
        stack: Where it runs.
        arn: The execution.
        console: A terminal gets a live table, anything else a line for each change.
        seconds: For how long at most.
        at_each_poll: Called with the rows each time they are read.

    Raises:
        TimeoutError: It has not ended by then.
    """
    polls = _polls(stack, arn, seconds)
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


def table_of(rows: list[Row], title: str, *, without: str = "") -> Table:
    """Return rows as a table; the first `MAX_LIVE_ROWS` that have not ended, of many.

    Args:
        rows: One a table.
        title: Above it.
        without: A column that is left out.
    """
    table = Table(title=title, title_justify="left", expand=True)
    shown = [position for position, name in enumerate(COLUMNS) if name != without]
    for position in shown:
        name = COLUMNS[position]
        table.add_column(
            name, no_wrap=True, overflow="ellipsis",
            justify="right" if name in {"attempt", "rows"} else "left",
            ratio=1 if name == "error" else None,
        )  # fmt: skip
    open_first = sorted(rows, key=lambda r: (r.run is not None and r.run.ended, r.table))
    visible = rows if len(rows) <= MAX_LIVE_ROWS else open_first[:MAX_LIVE_ROWS]
    for row in visible:
        cells = row.cells()
        style = _COLOURS.get(row.run.status if row.run else "", "")
        table.add_row(*(escape(cells[position]) for position in shown), style=style)
    if len(rows) > len(visible):
        table.caption = f"and {len(rows) - len(visible)} more"
    return table


def show(outcome: Outcome, console: Console) -> None:
    """Print what the tracking table says of an execution, and its cause where it failed."""
    rows = [Row(run.extract_table, "", run) for run in outcome.runs]
    title = f"tracking table, execution {outcome.arn.rsplit(':', 1)[-1]}"
    console.print(table_of(rows, title, without="state"))
    style = "green" if outcome.status == "SUCCEEDED" else "red"
    text = f"{outcome.status} {outcome.error} {outcome.cause}".strip()
    console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)


def _polls(stack: Stack, arn: str, seconds: float) -> Iterator[tuple[dict[str, Any], list[Row]]]:
    """Yield the execution's description and rows until it has ended, the last one included."""
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
                yield given["extract_table"], names[0]["name"]
