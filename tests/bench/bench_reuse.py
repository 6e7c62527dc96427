"""A full refresh of a table of which little, much or nothing has changed since the last run.

    python -m tests.bench.bench_reuse [--scale 1] [--rounds 3] [--connections 2]

lineitem in PostgreSQL. Per round: DuckDB's COPY, a run that reads everything (``reuse: never``), a
first run that also notes what it has read, an attempt that is killed when nine tenths of its splits
are staged and the next one of its run, and runs after nothing, 2 % of the rows in one place with
1,000 rows deleted, and every row has changed. Each is a whole process, start-up included, and all
take turns. Lakes are compared with the table. No test asserts these figures: they are this
machine's, on this day.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import bench_lineitem
from tests.bench.bench_lineitem import CACHE, config_text, executable, lineitem_csv, load
from tests.bench.measure import CommandFailed, Measured, measure, print_runs
from tests.support.postgres import Server, run_server

CHANGES = {
    "nothing changed": (),
    "2 % updated, 1,000 deleted": (
        "update lineitem set l_comment = 'new' where l_orderkey between {low} and {high}",
        "delete from lineitem where l_orderkey between {high} + 1 and {high} + 1000",
    ),
    "every row updated": ("update lineitem set l_tax = l_tax + 0.01",),
}
BROKEN, RESUMED = "killed at nine tenths", "the next attempt"
FIRST, NEVER = "first run", "reuse: never"


def command(server: Server, folder: Path, connections: int, reuse: str) -> Sequence[str]:
    """Return the command of one run into a folder."""
    config = CACHE.absolute() / "reuse.yml"
    table = {
        "max_connections": connections,
        "reuse": reuse,
        "target": {"uri": str(folder / "lake")},
        "state_uri": str(folder / "state"),
    }
    config.write_text(config_text(server, table))
    return ["env", "--chdir=/", executable("extract-jobs"), "run", str(config), "--json"]


def attempt(server: Server, folder: Path, connections: int, number: int) -> Sequence[str]:
    """Return the command of one attempt of a run; the first breaks off."""
    spec = folder.with_suffix(".json")
    fields = {
        "run_id": "r", "attempt": number, "source_name": "bench", "source_type": "postgres",
        "connection": {"url": server.url, "password_env": "BENCH_PASSWORD"},
        "extract_table": "public.lineitem", "reuse": "auto",
        "split": {"max_connections": connections},
        "target": {"uri": str(folder / "lake")}, "state_uri": str(folder / "state"),
        "report_uri": str(folder / "report.json"),
    }  # fmt: skip
    spec.write_text(json.dumps(fields))
    begin = [sys.executable, "-m", "tests.bench.one_attempt", str(spec)]
    return [*begin, "--break-off-after", "0.9"] if number == 1 else begin


def rounds(
    server: Server, data: Path, count: int, connections: int
) -> tuple[dict[str, list[Measured]], bool]:
    """Run everything in turns; return the runs and whether the lake equalled the table."""
    environment = dict(os.environ) | {
        "BENCH_PASSWORD": server.password, "PGPASSWORD": server.password, "TZ": "UTC",
    }  # fmt: skip
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs have bytecode
    folder, log, equal = CACHE.absolute() / "reuse", CACHE / "reuse.log", True
    runs: dict[str, list[Measured]] = {}
    copy = bench_lineitem.duckdb_copy(server)

    def timed(name: str, arguments: Sequence[str]) -> None:
        runs.setdefault(name, []).append(measure(arguments, environment, log))
        print(f"{name:<28} {runs[name][-1].seconds:6.1f} s", flush=True)

    for turn in range(count):
        if turn:
            server.execute("drop table lineitem")
            load(server, data)
        shutil.rmtree(bench_lineitem.folder_of(copy), ignore_errors=True)
        timed(copy.name, copy.command(bench_lineitem.folder_of(copy)))
        for name, reuse in ((NEVER, "never"), (FIRST, "auto")):
            shutil.rmtree(folder, ignore_errors=True)
            timed(name, command(server, folder, connections, reuse))
        for number, name in ((1, BROKEN), (2, RESUMED)):
            timed(name, attempt(server, folder.with_suffix(".3"), connections, number))
        sums = bench_lineitem.result_sums(folder.with_suffix(".3") / "lake")
        equal = equal and sums == bench_lineitem.source_sums(server)
        shutil.rmtree(folder.with_suffix(".3"))
        for name, statements in CHANGES.items():
            with server.connect() as connection:
                found = connection.execute("select max(l_orderkey) from lineitem").fetchone()
            most = int(found[0]) if found else 0
            low = most // 3
            for text in statements:
                server.execute(text.format(low=low, high=low + most // 50))
            # Whoever reads changed rows first also marks them as committed, for all who follow.
            server.execute("select count(*) from lineitem")
            timed(name, command(server, folder, connections, "auto"))
        # The table has twice the pages now.
        timed(
            f"{NEVER}, after that", command(server, folder.with_suffix(".2"), connections, "never")
        )
        shutil.rmtree(folder.with_suffix(".2"))
        sums = bench_lineitem.result_sums(folder / "lake")
        equal = equal and sums == bench_lineitem.source_sums(server)
    return runs, equal


def main() -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(description="Full refreshes: what changed decides the time.")
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale factor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    try:
        data = lineitem_csv(given.scale)
        with run_server(maintenance_work_mem="512MB") as server:
            load(server, data)
            runs, equal = rounds(server, data, given.rounds, given.connections)
    except (bench_lineitem.BenchFailed, CommandFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print_runs(f"lineitem, scale {given.scale:g}, full refresh", runs, FIRST)
    print("the lake equals the table" if equal else "FAILED: the lake differs from the table")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
