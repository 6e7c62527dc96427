"""TPC-H lineitem out of MySQL or MariaDB into Parquet: extract-jobs beside Spark JDBC and DuckDB.

As ``bench_lineitem`` for PostgreSQL: each way is a whole process, the ways take turns, and each
result is read back and its row count and column sums compared with the source's, exactly.

    python -m tests.bench.bench_mysql [--server mariadb] [--scale 0.333] [--rounds 3]

Exits 1 if a result is wrong, or, from a million rows on, if extract-jobs takes more than 0.6 of
DuckDB's time, more than 0.45 of Spark JDBC's, or a Python process of it more than 600 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tests.bench.bench_lineitem import (
    CACHE,
    MAX_PYTHON_BYTES,
    OURS,
    Contender,
    executable,
    folder_of,
    lineitem_csv,
    race,
)
from tests.bench.measure import CommandFailed, Measured, print_runs
from tests.support.debian import jar
from tests.support.mysql_servers import SERVERS, MysqlServer, run_server

TABLE = "lineitem"
NO_TLS = f"{OURS}, no TLS"
MAX_RATIOS = {"DuckDB COPY": 0.6, "Spark JDBC": 0.45}
"""Of extract-jobs' time to each other's. The server does most of the work, and for all alike."""
JUDGED_FROM_ROWS = 1_000_000
"""Below, start-up outweighs the work and the figures say nothing."""

COLUMNS = {
    "l_orderkey": "bigint not null", "l_partkey": "bigint not null", "l_suppkey": "bigint not null",
    "l_linenumber": "int not null", "l_quantity": "decimal(15,2) not null",
    "l_extendedprice": "decimal(15,2) not null", "l_discount": "decimal(15,2) not null",
    "l_tax": "decimal(15,2) not null", "l_returnflag": "char(1) not null",
    "l_linestatus": "char(1) not null", "l_shipdate": "date not null",
    "l_commitdate": "date not null", "l_receiptdate": "date not null",
    "l_shipinstruct": "varchar(25) not null", "l_shipmode": "varchar(10) not null",
    "l_comment": "varchar(44) not null",
}  # fmt: skip


def main() -> int:
    """Run the bench and return the exit code."""
    parser = argparse.ArgumentParser(description="MySQL: extract-jobs, Spark, DuckDB.")
    parser.add_argument("--server", choices=SERVERS, default="mysql")
    parser.add_argument("--scale", type=float, default=0.333, help="1 is six million rows")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way")
    parser.add_argument(
        "--connections", type=int, default=os.cpu_count(), help="splits extract-jobs reads at once"
    )
    arguments = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    try:
        data = lineitem_csv(arguments.scale).absolute()
        with run_server(
            SERVERS[arguments.server],
            innodb_buffer_pool_size="1G",
            secure_file_priv=str(data.parent),
        ) as server:
            rows = load(server, data)
            print(f"loaded {rows:,} rows", flush=True)
            # Where the server has TLS, the driver passes on what the lent sessions read.
            without_tls = [] if server.is_mariadb else [NO_TLS]
            contenders = (
                extract_jobs(server, arguments.connections),
                *(extract_jobs(server, arguments.connections, name) for name in without_tls),
                spark_jdbc(server),
                duckdb_copy(server),
            )
            # Of the server it reads the password alone.
            runs = race(contenders, arguments.rounds, cast(Any, server))
            expected = source_sums(server)
    except CommandFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    wrong = [c.name for c in contenders if not verify(c, expected)]
    return judge(runs, wrong, rows, arguments.server)


def load(server: MysqlServer, data: Path) -> int:
    """Create and fill the table, in the order of its key, and analyze it; return its rows."""
    listed = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    server.execute(
        f"set global sql_select_limit = {2**64 - 1}",  # nobody else sees to it
        f"create table {TABLE} ({listed}, primary key (l_orderkey, l_linenumber))",
        f"load data infile '{data}' into table {TABLE} character set utf8mb4"
        """ fields terminated by ',' optionally enclosed by '"' ignore 1 lines""",
        f"analyze table {TABLE}",
    )
    return int(server.rows(f"select count(*) from {TABLE}")[0][0])


def extract_jobs(server: MysqlServer, connections: int, name: str = OURS) -> Contender:
    """This project, by its command line, full extract into a folder."""
    config = CACHE / "bench-mysql.yml"
    connection = {"url": server.url, "password_env": "BENCH_PASSWORD"}
    if name == NO_TLS:
        connection["sslmode"] = "disable"

    def command(target: Path) -> Sequence[str]:
        settings = {
            "version": 1,
            "source": {
                "name": "bench",
                "type": "mysql",
                "connection": connection,
            },
            "tables": {
                TABLE: {
                    "max_connections": connections,
                    "target": {"uri": str(target.absolute()), "compression": "zstd"},
                    "state_uri": str(target.absolute().with_suffix(".state")),
                }
            },
        }
        config.write_text(json.dumps(settings))  # JSON is YAML too
        return [executable("extract-jobs"), "run", str(config), TABLE, "--json"]

    return Contender(name, command)


def spark_jdbc(server: MysqlServer) -> Contender:
    """Spark's JDBC source, eight partitions by key."""
    low, high = server.rows(f"select min(l_orderkey), max(l_orderkey) from {TABLE}")[0]
    url = f"jdbc:mariadb://{server.host}:{server.port}/{server.database}"
    variables = "sql_mode='ANSI_QUOTES',time_zone='+00:00'"

    def command(target: Path) -> Sequence[str]:
        return [
            sys.executable, "-m", "tests.bench.spark_jdbc",
            "--jar", str(jar("mariadb-java-client")), "--driver", "org.mariadb.jdbc.Driver",
            "--url", f"{url}?allowPublicKeyRetrieval=true&sessionVariables={variables}",
            "--user", server.user, "--table", TABLE, "--column", "l_orderkey",
            "--lower", str(low), "--upper", str(high), "--partitions", "8",
            "--fetchsize", "10000",
            "--target", str(target),
        ]  # fmt: skip

    return Contender("Spark JDBC", command)


def duckdb_copy(server: MysqlServer) -> Contender:
    """DuckDB's own COPY of an attached database."""

    def command(target: Path) -> Sequence[str]:
        return [
            sys.executable, "-m", "tests.bench.duckdb_mysql_copy", "--host", server.host,
            "--port", str(server.port), "--user", server.user, "--database", server.database,
            "--table", TABLE, "--target", str(target),
        ]  # fmt: skip

    return Contender("DuckDB COPY", command)


def source_sums(server: MysqlServer) -> dict[str, str]:
    """Return the source's row count and a sum of each column, as `result_sums` does."""

    def total(name: str, kind: str) -> str:
        if kind.startswith(("datetime", "timestamp")):
            return f"sum(timestampdiff(microsecond, '1970-01-01', {name}))"
        if kind.startswith("date"):
            return f"sum(datediff({name}, '1970-01-01'))"
        if "char" in kind:
            return f"sum(cast(conv(left(sha2({name}, 256), 8), 16, 10) as unsigned))"
        return f"sum({name})"

    sums = [f"cast({total(name, kind)} as decimal(40,6))" for name, kind in COLUMNS.items()]
    row = server.rows(f"select count(*), {', '.join(sums)} from {TABLE}")[0]
    return dict(zip(["rows", *COLUMNS], map(_plain, row), strict=True))


def result_sums(folder: Path) -> dict[str, str]:
    """Return row count and column sums of Parquet files; texts by the sum of their hashes."""
    import duckdb

    def total(name: str, kind: str) -> str:
        if kind.startswith(("datetime", "timestamp")):
            return f"sum(epoch_us({name}))"
        if kind.startswith("date"):
            return f"sum({name} - date '1970-01-01')"
        if "char" in kind:
            return f"sum(('0x' || sha256({name})[1:8])::uinteger)"
        return f"sum({name})"

    sums = ", ".join(f"({total(n, kind)})::decimal(38,6)" for n, kind in COLUMNS.items())
    row = duckdb.execute(
        f"select count(*), {sums} from read_parquet($files)", {"files": f"{folder}/**/*.parquet"}
    ).fetchone()
    return dict(zip(["rows", *COLUMNS], map(_plain, row or ()), strict=True))


def _plain(value: Any) -> str:
    return f"{value:.6f}"


def verify(contender: Contender, expected: dict[str, str]) -> bool:
    """Return whether the last result equals the source; print what differs."""
    found = result_sums(folder_of(contender))
    for key, value in expected.items():
        if found[key] != value:
            print(f"{contender.name}: {key} is {found[key]}, in the source it is {value}")
    return found == expected


def judge(runs: dict[str, list[Measured]], wrong: Sequence[str], rows: int, server: str) -> int:
    """Print the table, keep it in the cache folder, and return the exit code."""
    median = print_runs(f"{server}, {rows:,} rows", runs)
    ratios = {name: median[OURS] / median[name] for name in MAX_RATIOS}
    peak = max(run.python_peak_bytes for run in runs[OURS])
    problems = [f"{name}: the result differs from the source" for name in wrong]
    if rows < JUDGED_FROM_ROWS:
        print(f"time and memory are judged from {JUDGED_FROM_ROWS:,} rows on")
    else:
        problems += [
            f"extract-jobs took {ratio:.2f} of the time of {name}, over {MAX_RATIOS[name]}"
            for name, ratio in ratios.items()
            if ratio > MAX_RATIOS[name]
        ]
    if rows >= JUDGED_FROM_ROWS and peak > MAX_PYTHON_BYTES:
        problems.append(f"a Python process of extract-jobs took {peak / 1e6:.0f} MB")
    if not wrong:
        print("row counts and all column sums equal the source's")
    for problem in problems:
        print(f"FAILED: {problem}")
    cpu = {name: statistics.median(run.cpu_seconds for run in of) for name, of in runs.items()}
    record = {
        "rows": rows,
        "median_seconds": median,
        "median_cpu_seconds": cpu,
        "ratios": ratios,
        "python_peak_bytes": peak,
    }
    (CACHE / f"{server}.json").write_text(json.dumps(record, indent=2) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
