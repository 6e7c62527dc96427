"""The demo, step by step; each step has its expected results, and any surprise fails the demo."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from extract_jobs.tracking.item import TrackedRun
from infra.local.board import Outcome, show, watch
from infra.local.demo.check import compare, rows_by_snapshot
from infra.local.demo.kill import Killed, killed_midway, resumed
from infra.local.pages import write_execution_page
from infra.local.postgres import Database, run_postgres
from infra.local.stack import Stack, start_stack

HERE = Path(__file__).parent
PAGE = Path("build/demo.html")
"""What the demo leaves behind."""
KEPT = Path("build/demo")
"""Where its files stay on request."""
SECRET_ID = "lake/sales"  # noqa: S105 - the name of a secret
EXECUTION_SECONDS = 300.0
GOOD = (
    "shop.customers", "shop.products", "shop.orders", "shop.events", "big_spenders",
)  # fmt: skip
KILLED = "shop.order_items"
FLAKY = "shop.payments"
BAD = "shop.gift_cards"
ANNOUNCED = {
    KILLED: "WorkerOutOfMemory", FLAKY: "SourceUnavailable", BAD: "TypeNotRepresentable",
}  # fmt: skip
SHOWN_FILES = 6


@dataclass(slots=True)
class Surprises:
    """What was not as expected; empty in a good demo."""

    found: list[str]

    def expect(self, what: str, actual: object, expected: object) -> None:
        """Note a difference."""
        if actual != expected:
            self.found.append(f"{what}: expected {expected!r}, found {actual!r}")


def run_demo(console: Console, *, keep: bool = False) -> int:
    """Run the demo in its own folder, and leave nothing behind but `PAGE`.

    Args:
        console: Shows what happens.
        keep: Whether `KEPT` gets the files of the lake too, in place of those of another demo.

    Returns:
        0 if everything was as expected, else 1 after printing what was not.
    """
    started, surprises = time.monotonic(), Surprises([])
    with tempfile.TemporaryDirectory(prefix="extract-jobs-demo-") as folder:
        console.print(
            "Demo: extracts a shop's tables to Parquet and Iceberg in a minute or two; everything "
            f"runs on this machine, and a page about it stays behind, {PAGE}.\n"
            "Starting PostgreSQL and an embedded AWS …",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        with run_postgres() as database, _stack(Path(folder)) as stack:
            with database.connect() as connection:
                connection.execute((HERE / "shop.sql").read_bytes())
            stack.put_secret(SECRET_ID, database.secret())
            console.print(
                f"PostgreSQL with a shop of 430,000 rows on port {database.port}, AWS at "
                f"{stack.endpoint_url}, pipeline deployed, "
                f"after {time.monotonic() - started:.0f} s.\n",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            runs = [
                *_first_execution(stack, database, console, surprises),
                *_repair_and_rerun(stack, database, console, surprises),
            ]
            _show_files(stack, console, surprises)
            page = write_execution_page(PAGE, "the demo's shop", stack, runs)
            console.print(f"\nA page about these runs: {page}", highlight=False, soft_wrap=True)
            if keep:
                count = _keep_files(stack)
                console.print(f"The lake's {count} files: {KEPT}", highlight=False, soft_wrap=True)
    return _verdict(console, surprises, time.monotonic() - started)


@contextlib.contextmanager
def _stack(folder: Path) -> Iterator[Stack]:
    """Run a stack with the demo's source config until the context ends."""
    stack = start_stack(folder, configs=[HERE / "sales.yml"])
    try:
        yield stack
    finally:
        stack.stop()


def _first_execution(
    stack: Stack, database: Database, console: Console, surprises: Surprises
) -> tuple[TrackedRun, ...]:
    """Extract everything, while a migration holds one table and an administrator is impatient."""
    tables = [*GOOD, KILLED, FLAKY, BAD]
    console.print(
        f"Extracting {len(tables)} tables with Glue, EMR and ECS jobs.\n"
        "Three failures are planned:\n"
        f"  {BAD} has a type that is refused unless its config says how to cast it: it fails.\n"
        f"  A migration holds {FLAKY}: the session that waits for it is terminated once, and the "
        "table is retried.\n"
        f"  The worker of {KILLED} is killed midway: the retry reads only what it had not read.\n",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    with (
        _held_once(database, FLAKY) as terminated,
        killed_midway(stack, database, KILLED) as killed,
    ):
        arn = stack.start({"source_name": "sales", "extract_tables": tables})
        outcome = watch(stack, arn, console, seconds=EXECUTION_SECONDS, announced=ANNOUNCED)
    show(outcome, console, announced=ANNOUNCED)
    surprises.expect("sessions terminated", terminated.is_set(), True)
    surprises.expect("worker killed", killed.done.is_set(), True)
    surprises.expect("status of the execution", outcome.status, "FAILED")
    surprises.expect("error of the execution", outcome.error, "ExtractRunFailed")
    _expect_runs(outcome, surprises)
    _show_resumed(stack, outcome, killed, console, surprises)
    surprises.found += compare(stack, database, [*GOOD, KILLED, FLAKY], console)
    return outcome.runs


def _expect_runs(outcome: Outcome, surprises: Surprises) -> None:
    """Check status and attempts of each table of the first execution."""
    runs = {run.extract_table: run for run in outcome.runs}
    surprises.expect("tables tracked", sorted(runs), sorted([*GOOD, KILLED, FLAKY, BAD]))
    for table in GOOD:
        if table in runs:
            actual = (runs[table].status, runs[table].attempt)
            surprises.expect(f"{table}: status, attempt", actual, ("SUCCEEDED", 1))
    for table in {KILLED, FLAKY} & runs.keys():
        surprises.expect(f"{table}: status", runs[table].status, "SUCCEEDED")
        surprises.expect(f"{table}: retried", runs[table].attempt >= 2, True)
    if BAD in runs:
        bad = (runs[BAD].status, runs[BAD].error_class)
        surprises.expect(f"{BAD}: status, error", bad, ("FAILED", "TypeNotRepresentable"))


def _show_resumed(
    stack: Stack, outcome: Outcome, killed: Killed, console: Console, surprises: Surprises
) -> None:
    """Show what the retry of the killed worker has taken over."""
    for run in outcome.runs:
        if run.extract_table == KILLED and run.status == "SUCCEEDED":
            taken, splits = resumed(stack, run)
            console.print(
                f"\n{KILLED}: the worker was killed when it had staged {killed.staged} of {splits} "
                f"ranges or a few more; the retry took over {taken} and read {splits - taken}.",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            surprises.expect("ranges taken over", killed.staged <= taken < splits, True)


def _repair_and_rerun(
    stack: Stack, database: Database, console: Console, surprises: Surprises
) -> tuple[TrackedRun, ...]:
    """Fix the config, run just the failed table again, then replace the orders."""
    console.print(f"\nThe config now casts {BAD}.balance; rerunning what failed …\n")
    first = stack.client("stepfunctions").list_executions(stateMachineArn=stack.state_machine_arn)[
        "executions"
    ][0]["executionArn"]
    text = (HERE / "sales.yml").read_text(encoding="utf-8")
    fixed = f"  {BAD}: {{columns: {{cast: {{balance: 'decimal(12,2)'}}}}}}"
    repaired = stack.directory / "sales.yml"
    repaired.write_text(text.replace(f"  {BAD}: {{}}", fixed), encoding="utf-8")
    stack.put_config(repaired)
    rerun = watch(
        stack, stack.start({"rerun_failed_of": first}), console, seconds=EXECUTION_SECONDS
    )
    show(rerun, console)
    tables = [(run.extract_table, run.status) for run in rerun.runs]
    surprises.expect("tables rerun", tables, [(BAD, "SUCCEEDED")])

    console.print("\n500 orders come in; the next execution replaces the table …\n")
    with database.connect() as connection:
        connection.execute(
            "insert into shop.orders select 80000 + i, i, 'open', i, now(), now(), null "
            "from generate_series(1, 500) i"
        )
    event = {"source_name": "sales", "extract_tables": ["shop.orders"]}
    outcome = watch(stack, stack.start(event), console, seconds=EXECUTION_SECONDS)
    show(outcome, console)
    rows = [(run.extract_table, run.status, run.rows) for run in outcome.runs]
    surprises.expect("replacement", rows, [("shop.orders", "SUCCEEDED", 80_500)])
    surprises.found += compare(stack, database, ["shop.orders", BAD], console)
    _show_snapshots(stack, console, surprises)
    return (*rerun.runs, *outcome.runs)


def _show_snapshots(stack: Stack, console: Console, surprises: Surprises) -> None:
    """Show that each commit of the Iceberg table can still be read."""
    counts = rows_by_snapshot(stack, "shop.orders")
    console.print(
        "\nshop.orders is an Iceberg table: earlier commits stay readable", highlight=False
    )
    for number, (one, other) in enumerate(counts, 1):
        console.print(
            f"  commit {number}: {one:,} rows by pyiceberg, {other:,} by DuckDB", highlight=False
        )
    surprises.expect("rows of shop.orders by snapshot", counts, [(80_000,) * 2, (80_500,) * 2])


def _show_files(stack: Stack, console: Console, surprises: Surprises) -> None:
    """Show the files of one table: some of them, and how many there are."""
    client, prefix = stack.client("s3"), "raw/sales/shop/events/"
    listed = client.list_objects_v2(Bucket="lake", Prefix=prefix).get("Contents", [])
    files = [(x["Key"].removeprefix(prefix), x["Size"]) for x in listed]
    console.print(f"\nshop.events by kind, s3://lake/{prefix}", highlight=False, soft_wrap=True)
    for key, size in files[:SHOWN_FILES]:
        console.print(f"{size:>12,} bytes  {key}", highlight=False, soft_wrap=True, markup=False)
    if len(files) > SHOWN_FILES:
        console.print(f"  and {len(files) - SHOWN_FILES} more", highlight=False)
    surprises.expect("shop.events has files", bool(files), True)


def _keep_files(stack: Stack) -> int:
    """Copy the lake's bucket to `KEPT`, and return how many files it has."""
    shutil.rmtree(KEPT, ignore_errors=True)
    client, count = stack.client("s3"), 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="lake"):
        for found in page.get("Contents", ()):
            path = KEPT / found["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file("lake", found["Key"], str(path))
            count += 1
    return count


@contextlib.contextmanager
def _held_once(database: Database, table: str) -> Iterator[threading.Event]:
    """Lock a table until a session waits for it, then terminate that session and release the lock.

    Yields:
        An event that is set once it has happened.
    """
    done, stop = threading.Event(), threading.Event()

    def hold() -> None:
        with database.connect() as holder, database.connect() as administrator:
            holder.execute("begin")
            holder.execute(f"lock table {table} in access exclusive mode")
            ready.set()
            while not stop.is_set() and not done.is_set():
                waiting = administrator.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where %s = any(pg_blocking_pids(pid))", (holder.info.backend_pid,),
                ).fetchall()  # fmt: skip
                if waiting:
                    done.set()
                time.sleep(0.1)
            holder.execute("rollback")

    ready = threading.Event()
    thread = threading.Thread(target=hold, name="migration", daemon=True)
    thread.start()
    ready.wait(30)
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def _verdict(console: Console, surprises: Surprises, seconds: float) -> int:
    """Print how the demo went."""
    if surprises.found:
        console.print("\nNot as expected:", style="red")
        for line in surprises.found:
            console.print(f"  {line}", style="red", soft_wrap=True, markup=False)
        return 1
    console.print(f"\nAll as expected, in {seconds:.0f} s.", style="green")
    console.print(
        "Now your own: extract-jobs init sales.yml writes a config to start from; "
        "docs/pipeline.md describes how to run it in this pipeline.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    return 0
