"""TPC-H lineitem out of PostgreSQL into Parquet: extract-jobs beside Spark JDBC and DuckDB.

In one sitting, on one machine, from one server: each way is a whole process, start-up included,
and the ways take turns (A B C A B C …) so that a busy minute hurts all of them alike. Files are
zstd everywhere. Afterwards each result is read back and its row count and column sums compared
with the source's, exactly.

    python -m tests.bench.bench_lineitem [--scale 1] [--rounds 3] [--connections 2]
        [--engine both] [--other NAME=COMMAND]

Exits 1 if a result is wrong, or, from scale 1 on, if extract-jobs takes more than half of Spark
JDBC's time on worker processes, three quarters on Spark, or a Python process of it more than
400 MB. No test asserts these figures: they are this machine's, on this day.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from tests.bench.measure import CommandFailed, Measured, measure, print_runs
from tests.support.postgres import Server, run_server

CACHE = Path(".bench")
OURS = "extract-jobs"
MAX_RATIOS = {"processes": 0.5, "spark": 0.75}
"""Of Spark JDBC's median time."""
MAX_PYTHON_BYTES = 400 * 10**6
JUDGED_FROM_SCALE = 1.0
"""Below, start-up outweighs the work and the figures say nothing."""

COLUMNS = {
    "l_orderkey": "bigint",
    "l_partkey": "bigint",
    "l_suppkey": "bigint",
    "l_linenumber": "integer",
    "l_quantity": "numeric(15,2)",
    "l_extendedprice": "numeric(15,2)",
    "l_discount": "numeric(15,2)",
    "l_tax": "numeric(15,2)",
    "l_returnflag": "varchar(1)",
    "l_linestatus": "varchar(1)",
    "l_shipdate": "date",
    "l_commitdate": "date",
    "l_receiptdate": "date",
    "l_shipinstruct": "varchar(25)",
    "l_shipmode": "varchar(10)",
    "l_comment": "varchar(44)",
}


class BenchFailed(Exception):
    """The bench cannot be run here, or a result is wrong; the message says what to do."""


@dataclass(frozen=True)
class Contender:
    """One way to extract the table.

    Attributes:
        name: As printed.
        command: Gives the command that writes into a folder that does not exist yet.
    """

    name: str
    command: Callable[[Path], Sequence[str]]


def main() -> int:
    """Run the bench and return the exit code."""
    parser = argparse.ArgumentParser(description="TPC-H lineitem: extract-jobs, Spark, DuckDB.")
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale factor")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way")
    parser.add_argument(
        "--connections", type=int, default=os.cpu_count(), help="splits extract-jobs reads at once"
    )
    parser.add_argument(
        "--engine", choices=("processes", "spark", "both"), default="both",
        help="what runs extract-jobs' splits; both take part",
    )  # fmt: skip
    parser.add_argument(
        "--other", metavar="NAME=COMMAND", type=lambda text: text.split("=", 1),
        help="an extract-jobs of another environment, such as an earlier version's",
    )  # fmt: skip
    parser.add_argument("--jdbc-jar", type=Path, help="PostgreSQL's JDBC driver")
    arguments = parser.parse_args()
    both = arguments.engine == "both"
    engines = ("processes", "spark") if both else (arguments.engine,)
    CACHE.mkdir(exist_ok=True)
    try:
        jar = arguments.jdbc_jar or jdbc_driver()
        data = lineitem_csv(arguments.scale)
        with run_server(maintenance_work_mem="512MB") as server:
            print(f"loading {data.name} ({data.stat().st_size / 1e6:,.0f} MB) …", flush=True)
            load(server, data)
            contenders = (
                *(extract_jobs(server, arguments.connections, engine) for engine in engines),
                *(
                    [other(server, arguments.connections, *arguments.other)]
                    if arguments.other
                    else []
                ),
                spark_jdbc(server, jar),
                duckdb_copy(server),
            )
            runs = race(contenders, arguments.rounds, server)
            expected = source_sums(server)
    except (BenchFailed, CommandFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    wrong = [c.name for c in contenders if not verify(c, expected)]
    return judge(runs, wrong, arguments.scale)


# The data


def lineitem_csv(scale: float) -> Path:
    """Return lineitem as CSV with a header, generated once and kept."""
    final = CACHE / f"lineitem-{scale:g}.csv"
    if not final.exists():
        print(f"generating lineitem at scale {scale:g} …", flush=True)
        folder = CACHE / "generating"
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(
            [executable("tpchgen-cli"), "csv", "--scale-factor", f"{scale:g}", "--tables",
             "lineitem", "--output-dir", folder, "--quiet"],
            check=True,
        )  # fmt: skip
        (folder / "lineitem.csv").rename(final)
        folder.rmdir()
    return final


def load(server: Server, data: Path) -> None:
    """Create and fill the table as an operational database holds it: with its key, analyzed."""
    columns = ", ".join(f"{name} {kind} not null" for name, kind in COLUMNS.items())
    with server.connect() as connection:
        with connection.transaction():
            connection.execute(f"create table lineitem ({columns})".encode())
            statement = "copy lineitem from stdin (format csv, header, freeze)"
            with (
                data.open("rb") as file,
                connection.cursor() as cursor,
                cursor.copy(statement) as copy,
            ):
                while chunk := file.read(1 << 20):
                    copy.write(chunk)
        connection.execute("alter table lineitem add primary key (l_orderkey, l_linenumber)")
        connection.execute("analyze lineitem")
        connection.execute("checkpoint")


# The ways


def extract_jobs(server: Server, connections: int, engine: str) -> Contender:
    """This project, by its command line, full extract into a folder."""
    before = other(server, connections, f"{OURS}, {engine}", executable("extract-jobs"))
    return Contender(before.name, lambda target: [*before.command(target), "--engine", engine])


def config_text(server: Server, table: dict[str, Any]) -> str:
    """Return a config of lineitem alone."""
    settings = {
        "version": 1,
        "source": {
            "name": "bench",
            "type": "postgres",
            "connection": {"url": server.url, "password_env": "BENCH_PASSWORD"},
        },
        "tables": {"public.lineitem": table},
    }
    return json.dumps(settings)  # JSON is YAML too


def other(server: Server, connections: int, name: str, program: str) -> Contender:
    """An extract-jobs of any version, by its command line."""
    config = CACHE.absolute() / "bench.yml"

    def command(target: Path) -> Sequence[str]:
        table = {
            "max_connections": connections,
            "target": {"uri": str(target.absolute()), "compression": "zstd"},
            "state_uri": str(target.absolute().with_suffix(".state")),
        }
        config.write_text(config_text(server, table))
        # Elsewhere than here, where Python would import this version's package.
        return ["env", "--chdir=/", program, "run", str(config), "public.lineitem", "--json"]

    return Contender(name, command)


def spark_jdbc(server: Server, jar: Path) -> Contender:
    """Spark's JDBC source, eight partitions by order key."""
    with server.connect() as connection:
        bounds = connection.execute("select min(l_orderkey), max(l_orderkey) from lineitem")
        lower, upper = bounds.fetchone() or (0, 0)

    def command(target: Path) -> Sequence[str]:
        return [
            sys.executable, "-m", "tests.bench.spark_jdbc", "--jar", str(jar),
            "--url", f"jdbc:postgresql://{server.host}:{server.port}/{server.database}",
            "--user", server.user, "--table", "lineitem", "--column", "l_orderkey",
            "--lower", str(lower), "--upper", str(upper), "--partitions", "8",
            "--fetchsize", "10000", "--target", str(target),
        ]  # fmt: skip

    return Contender("Spark JDBC", command)


def duckdb_copy(server: Server) -> Contender:
    """DuckDB's own COPY of an attached database."""

    def command(target: Path) -> Sequence[str]:
        return [
            sys.executable, "-m", "tests.bench.duckdb_copy", "--host", server.host,
            "--port", str(server.port), "--user", server.user, "--database", server.database,
            "--schema", "public", "--table", "lineitem", "--target", str(target),
        ]  # fmt: skip

    return Contender("DuckDB COPY", command)


def race(contenders: Sequence[Contender], rounds: int, server: Server) -> dict[str, list[Measured]]:
    """Run the contenders in turns and return their runs in order."""
    environment = dict(os.environ) | {
        "BENCH_PASSWORD": server.password,
        "PGPASSWORD": server.password,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "TZ": "UTC",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs have bytecode
    runs: dict[str, list[Measured]] = {contender.name: [] for contender in contenders}
    for number in range(1, rounds + 1):
        for contender in contenders:
            target = folder_of(contender)
            shutil.rmtree(target, ignore_errors=True)
            shutil.rmtree(target.with_suffix(".state"), ignore_errors=True)
            log = target.with_suffix(".log")
            run = measure(contender.command(target), environment, log)
            runs[contender.name].append(run)
            print(f"round {number}  {contender.name:<23} {run.seconds:6.1f} s", flush=True)
    return runs


# The judgement


def source_sums(server: Server) -> dict[str, int | str]:
    """Return the source's row count and a sum of each column, as `result_sums` does."""
    with server.connect() as connection:
        query = sql.SQL("select count(*), {} from lineitem").format(
            sql.SQL(", ").join(
                sql.SQL(
                    "sum(({column} - date '1970-01-01')::bigint)"
                    if kind == "date"
                    else "sum(('x' || substr(md5({column}), 1, 8))::bit(32)::bigint)"
                    if kind.startswith("varchar")
                    else "sum({column})"
                ).format(column=sql.Identifier(name))
                for name, kind in COLUMNS.items()
            )
        )
        row = connection.execute(query).fetchone() or ()
    return dict(zip(["rows", *COLUMNS], map(str, row), strict=True))


def result_sums(folder: Path) -> dict[str, int | str]:
    """Return row count and column sums of Parquet files; texts by the sum of their hashes."""
    import duckdb

    sums = ", ".join(
        f"sum({name} - date '1970-01-01')"
        if kind == "date"
        else f"sum(('0x' || md5({name})[1:8])::uinteger)"
        if kind.startswith("varchar")
        else f"sum({name})"
        for name, kind in COLUMNS.items()
    )
    row = duckdb.execute(
        f"select count(*), {sums} from read_parquet($files)", {"files": f"{folder}/**/*.parquet"}
    ).fetchone()
    return dict(zip(["rows", *COLUMNS], map(str, row or ()), strict=True))


def verify(contender: Contender, expected: dict[str, int | str]) -> bool:
    """Return whether the last result equals the source; print what differs."""
    found = result_sums(folder_of(contender))
    for key, value in expected.items():
        if found[key] != value:
            print(f"{contender.name}: {key} is {found[key]}, in the source it is {value}")
    return found == expected


def judge(runs: dict[str, list[Measured]], wrong: Sequence[str], scale: float) -> int:
    """Print the table, keep it in the cache folder, and return the exit code."""
    median = print_runs(f"lineitem, scale {scale:g}", runs)
    allowed = {f"{OURS}, {engine}": ratio for engine, ratio in MAX_RATIOS.items()}
    ours = [name for name in runs if name in allowed]
    ratios = {name: median[name] / median["Spark JDBC"] for name in ours}
    peak = max(run.python_peak_bytes for name in ours for run in runs[name])
    problems = [f"{name}: the result differs from the source" for name in wrong]
    if scale < JUDGED_FROM_SCALE:
        print(f"time and memory are judged from scale {JUDGED_FROM_SCALE:g} on")
    else:
        for name, ratio in ratios.items():
            if ratio > (most := allowed[name]):
                problems.append(f"{name} took {ratio:.2f} of Spark JDBC's time, over {most}")
        if peak > MAX_PYTHON_BYTES:
            problems.append(
                f"a Python process of extract-jobs took {peak / 1e6:.0f} MB, "
                f"over {MAX_PYTHON_BYTES / 1e6:.0f} MB"
            )
    if not wrong:
        print("row counts and all column sums equal the source's")
    for problem in problems:
        print(f"FAILED: {problem}")
    record = {"scale": scale, "median_seconds": median, "ratios": ratios, "python_peak_bytes": peak}
    (CACHE / "lineitem.json").write_text(json.dumps(record, indent=2) + "\n")
    return 1 if problems else 0


# What it needs


def folder_of(contender: Contender) -> Path:
    """Return where a contender's result goes."""
    return CACHE / contender.name.lower().replace(" ", "-").replace(",", "")


def executable(name: str) -> str:
    """Return the path of a command of this environment."""
    return str(Path(sys.executable).parent / name)


def jdbc_driver() -> Path:
    """Return PostgreSQL's JDBC driver: Debian's package, unpacked into the cache, not installed.

    Raises:
        BenchFailed: Not Debian, or the package cannot be had.
    """
    inside = Path("usr/share/java/postgresql.jar")
    folder = CACHE / "jdbc"
    for found in (Path("/") / inside, folder / inside):
        if found.exists():
            return found
    folder.mkdir(exist_ok=True)
    download = ["apt-get", "download", "-qq", "libpostgresql-jdbc-java"]
    try:
        if subprocess.run(download, cwd=folder, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(download, cwd=folder, check=True)
        (package,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise BenchFailed(
            f"no PostgreSQL JDBC driver ({error}); name its file with --jdbc-jar"
        ) from error
    return folder / inside


if __name__ == "__main__":
    sys.exit(main())
