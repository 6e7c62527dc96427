"""What the guards of PostgreSQL cost: extracts of a table like lineitem, with and without each.

    python -m tests.bench.bench_guards [--rounds 7] [--rows 400000]

All ways take turns within a round, in one process that has warmed up, and the figure is the median
over the rounds of the time with all guards divided by the time without one. CPU time is this
process's; other work on the machine changes it little, and wall time much. No test asserts these
figures: they are this machine's, on this day.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from extract_jobs.engine.value_limit import ValueLimit
from extract_jobs.run import run_extract
from extract_jobs.sources.postgres import reader
from extract_jobs.sources.postgres.reader import PostgresReader
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.postgres import Server, run_server

ALL = "all guards"
TABLE = """
create table lineitem as select i as l_orderkey, i % 200000 as l_partkey, i % 7 as l_linenumber,
  (i % 50)::numeric(15,2) as l_quantity, (i * 1.37)::numeric(15,2) as l_extendedprice,
  0.05::numeric(15,2) as l_discount, 'N'::varchar(1) as l_returnflag,
  '1992-01-01'::date + i % 2500 as l_shipdate, '1992-01-01'::date + i % 2400 as l_receiptdate,
  'DELIVER IN PERSON'::varchar(25) as l_shipinstruct, 'TRUCK'::varchar(10) as l_shipmode,
  md5(i::text)::varchar(44) as l_comment
from generate_series(1, {rows}) i
"""


def without() -> Mapping[str, contextlib.AbstractContextManager[Any]]:
    """Return what takes each guard away."""
    return {
        ALL: contextlib.nullcontext(),
        "text is UTF-8": mock.patch.object(reader, "damaged_rows", return_value=[]),
        "dates are of years 1 to 9999": mock.patch.object(
            reader, "out_of_range", return_value=False
        ),
        "a limit for silence": mock.patch.object(
            PostgresReader, "_pumped", lambda _, make, sockets: make()
        ),
        "a limit for values": mock.patch.object(ValueLimit, "check"),
    }


def extract(server: Server, run: str) -> tuple[float, float]:
    """Extract the table; return CPU and wall seconds."""
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        spec = ExtractSpec.model_validate({
            "run_id": run, "source_name": "s", "source_type": "postgres",
            "extract_table": "public.lineitem", "split": {"strategy": "none"},
            "connection": {"url": server.url, "password_env": "BENCH_PASSWORD"},
            "target": {"uri": f"{folder}/out"}, "state_uri": f"{folder}/state",
            "report_uri": f"{folder}/report.json",
        })  # fmt: skip
        cpu, wall = time.process_time(), time.perf_counter()
        run_extract(spec)
        return time.process_time() - cpu, time.perf_counter() - wall


def rounds(server: Server, count: int) -> Iterator[dict[str, tuple[float, float]]]:
    """Yield the times of each round, by what was left out."""
    extract(server, "warm")
    for number in range(count):
        found = {}
        names = list(without())
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with without()[name]:
                found[name] = extract(server, f"r{number}")
        yield found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=400_000)
    given = parser.parse_args()
    with run_server(16, jit="off") as server:
        os.environ["BENCH_PASSWORD"] = server.password
        server.execute(TABLE.format(rows=given.rows), "vacuum analyze lineitem")
        measured = list(rounds(server, given.rounds))
    print("| guard | CPU with it | wall |\n| --- | ---: | ---: |")
    for name in without():
        ratios = [
            statistics.median(one[ALL][clock] / one[name][clock] for one in measured)
            for clock in (0, 1)
        ]
        label = f"all, {statistics.median(one[ALL][0] for one in measured):.2f} s" * (name == ALL)
        print(f"| {label or name} | {ratios[0]:.3f} | {ratios[1]:.3f} |")


if __name__ == "__main__":
    main()
