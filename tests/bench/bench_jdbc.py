"""TPC-H lineitem by the source ``jdbc`` beside plain Spark JDBC to Parquet: one Spark each.

Both read PostgreSQL through the same JDBC driver, in parts by order key, ten thousand rows at
a time, and write zstd. What the source adds is what it adds to any table: quantiles for bounds,
the way from Spark's JVM through Arrow to a Python worker, staging, footers counted, the commit.
Whole processes take turns, and each result is compared with the source's rows and column sums, as
in `tests.bench.bench_lineitem`.

    python -m tests.bench.bench_jdbc [--scale 1] [--rounds 3]

Exits 1 if a result is wrong, or, from scale 1 on, if extract-jobs takes more than 1.15 of Spark's
time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.bench_lineitem import (
    CACHE,
    JUDGED_FROM_SCALE,
    BenchFailed,
    Contender,
    executable,
    lineitem_csv,
    load,
    race,
    source_sums,
    spark_jdbc,
    verify,
)
from tests.bench.measure import CommandFailed, Measured, print_runs
from tests.support.debian import jar
from tests.support.postgres import Server, run_server

MAX_RATIO = 1.15
"""Of plain Spark JDBC's median time."""


def main() -> int:
    """Run the bench and return the exit code."""
    parser = argparse.ArgumentParser(description="TPC-H lineitem: source jdbc, plain Spark JDBC.")
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale factor")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way")
    arguments = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    try:
        data = lineitem_csv(arguments.scale)
        with run_server(maintenance_work_mem="512MB") as server:
            print(f"loading {data.name} ({data.stat().st_size / 1e6:,.0f} MB) …", flush=True)
            load(server, data)
            contenders = (by_jdbc(server), spark_jdbc(server, jar("postgresql")))
            runs = race(contenders, arguments.rounds, server)
            expected = source_sums(server)
    except (BenchFailed, CommandFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    wrong = [contender.name for contender in contenders if not verify(contender, expected)]
    return judge(runs, wrong, arguments.scale)


def by_jdbc(server: Server) -> Contender:
    """This project, by its command line, full extract into a folder, in a Spark of its own."""
    config = CACHE / "bench-jdbc.yml"

    def command(target: Path) -> Sequence[str]:
        settings = {
            "version": 1,
            "source": {
                "name": "bench",
                "type": "jdbc",
                "connection": {
                    "url": f"jdbc:postgresql://{server.host}:{server.port}/{server.database}",
                    "user": server.user,
                    "password_env": "BENCH_PASSWORD",
                    "jars": [str(jar("postgresql"))],
                },
            },
            "tables": {
                "public.lineitem": {
                    "max_connections": os.cpu_count(),
                    "split": {"strategy": "range", "column": "l_orderkey"},
                    "target": {"uri": str(target.absolute()), "compression": "zstd"},
                    "state_uri": str(target.absolute().with_suffix(".state")),
                }
            },
        }
        config.write_text(json.dumps(settings))  # JSON is YAML too
        return [executable("extract-jobs"), "run", str(config), "public.lineitem", "--json"]

    return Contender("jdbc source", command)


def judge(runs: dict[str, list[Measured]], wrong: Sequence[str], scale: float) -> int:
    """Print the table, keep it in the cache folder, and return the exit code."""
    median = print_runs(f"lineitem, scale {scale:g}", runs)
    ratio = median["jdbc source"] / median["Spark JDBC"]
    print(f"the source takes {ratio:.2f} of plain Spark's time")
    problems = [f"{name}: the result differs from the source" for name in wrong]
    if scale < JUDGED_FROM_SCALE:
        print(f"time is judged from scale {JUDGED_FROM_SCALE:g} on")
    elif ratio > MAX_RATIO:
        problems.append(f"the source took {ratio:.2f} of plain Spark's time, over {MAX_RATIO}")
    for problem in problems:
        print(f"FAILED: {problem}")
    record = {"scale": scale, "median_seconds": median, "ratio": ratio}
    (CACHE / "jdbc.json").write_text(json.dumps(record, indent=2) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
