"""TPC-H lineitem as CSV, JSON lines, Parquet and SQLite: extract-jobs, DuckDB's COPY and Spark.

Each is a whole process that writes zstd Parquet, one after the other, in rounds; the last result of
each is compared with the file's text before any time is judged. ``--other`` adds an extract-jobs of
another environment, such as an earlier version's. Everything is kept in ``.bench``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.bench_lineitem import CACHE, COLUMNS, executable, lineitem_csv
from tests.bench.measure import CommandFailed, Measured, measure, print_runs

OURS, DUCKDB, SPARK = "extract-jobs", "DuckDB COPY", "Spark"
MAX_RATIOS = {"csv": 1.5, "jsonl": 2.0, "parquet": 1.3, "sqlite": 1.5}
"""Of the median time of DuckDB's COPY."""
JUDGED_FROM_SCALE = 0.3
_ROWS_AT_A_TIME = 50_000


@dataclass(frozen=True)
class Contender:
    """One way to copy a file.

    Attributes:
        name: As printed.
        command: Gives the command that writes into a folder that does not exist yet.
    """

    name: str
    command: Callable[[Path], Sequence[str]]


def main() -> int:
    """Run the bench and return the exit code."""
    parser = argparse.ArgumentParser(description="lineitem as files: extract-jobs, DuckDB, Spark.")
    parser.add_argument("--scale", type=float, default=0.333, help="1 is six million rows")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way")
    parser.add_argument("--formats", nargs="+", choices=list(MAX_RATIOS), default=list(MAX_RATIOS))
    parser.add_argument("--without-spark", action="store_true", help="DuckDB alone beside ours")
    parser.add_argument(
        "--other", metavar="NAME=COMMAND", type=lambda text: text.split("=", 1),
        help="an extract-jobs of another environment, such as an earlier version's",
    )  # fmt: skip
    arguments = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    text = lineitem_csv(arguments.scale).absolute()
    expected = sums(f"read_csv('{text}', all_varchar = true)")
    problems = []
    for form in arguments.formats:
        source = made(form, text)
        contenders = [extract_jobs(form, source, OURS, executable("extract-jobs"))]
        if arguments.other:
            contenders.append(extract_jobs(form, source, *arguments.other))
        contenders.append(copier("duckdb", form, source, DUCKDB))
        if form != "sqlite" and not arguments.without_spark:
            contenders.append(copier("spark", form, source, SPARK))
        try:
            runs = race(form, contenders, arguments.rounds)
        except CommandFailed as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        for contender in contenders:
            found = sums(f"read_parquet('{folder_of(contender)}/**/*.parquet')")
            wrong = [name for name, value in expected.items() if found[name] != value]
            if wrong:
                problems.append(f"{form}, {contender.name}: {', '.join(wrong)} differ")
        size = source.stat().st_size / 1e6
        median = print_runs(f"lineitem as {form}, {size:,.0f} MB", runs, DUCKDB)
        ratio = median[OURS] / median[DUCKDB]
        if arguments.scale >= JUDGED_FROM_SCALE and ratio > MAX_RATIOS[form]:
            problems.append(f"{form} took {ratio:.2f} of DuckDB's time, over {MAX_RATIOS[form]}")
    for problem in problems:
        print(f"FAILED: {problem}")
    return 1 if problems else 0


# The data


def made(form: str, text: Path) -> Path:
    """Return lineitem in a format, made of the CSV once and kept."""
    import duckdb

    final = text.with_suffix(f".{form}")
    if final.exists():
        return final
    print(f"making {final.name} …", flush=True)
    part = final.with_suffix(".part")
    part.unlink(missing_ok=True)
    if form == "sqlite":
        load_sqlite(text, part)
    else:
        option = "format json" if form == "jsonl" else "format parquet, compression zstd"
        duckdb.execute(f"copy (from read_csv('{text}', types = {types()})) to '{part}' ({option})")
    part.rename(final)
    return final


def types() -> str:
    """Return DuckDB's types of the columns as files have them: prices are doubles."""
    kinds = {n: "double" if k.startswith("numeric") else k for n, k in COLUMNS.items()}
    return "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in kinds.items()) + "}"


def load_sqlite(text: Path, file: Path) -> None:
    """Fill a table of a new database in the order of the CSV."""
    import duckdb

    kinds = {
        name: "real" if kind.startswith("numeric") else "integer" if "int" in kind else "text"
        for name, kind in COLUMNS.items()
    }
    with sqlite3.connect(file) as database:
        listed = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        database.execute(f"create table lineitem ({listed})")
        rows = duckdb.execute(f"from read_csv('{text}', all_varchar = true)")
        marks = ", ".join("?" * len(kinds))
        while found := rows.fetchmany(_ROWS_AT_A_TIME):
            database.executemany(f"insert into lineitem values ({marks})", found)
    database.close()


def sums(relation: str) -> dict[str, str]:
    """Return row count and column sums of DuckDB's ``relation``; texts by the sum of their hashes.

    Numbers are added as decimals, so sums of doubles do not depend on the order.
    """
    import duckdb

    terms = ", ".join(
        f"sum({name}::date - date '1970-01-01')"
        if kind == "date"
        else f"sum(('0x' || md5({name})[1:8])::uinteger)"
        if kind.startswith("varchar")
        else f"sum({name}::decimal(18, 2))"
        for name, kind in COLUMNS.items()
    )
    row = duckdb.execute(f"select count(*), {terms} from {relation}").fetchone()
    return dict(zip(["rows", *COLUMNS], map(str, row or ()), strict=True))


# The ways


def extract_jobs(form: str, source: Path, name: str, program: str) -> Contender:
    """An extract-jobs of any version, by its command line."""

    def command(target: Path) -> Sequence[str]:
        if form == "sqlite":
            given = {"type": "sqlite", "connection": {"path": str(source)}}
            table: dict[str, object] = {}
        else:
            given = {"type": "files", "connection": {"uri": str(source.parent)}}
            table = {"files": {"glob": source.name}}
        target = target.absolute()
        table |= {
            "max_connections": os.cpu_count(),
            "target": {"uri": str(target), "compression": "zstd"},
            "state_uri": str(target.with_suffix(".state")),
        }
        config = CACHE.absolute() / "bench-files.yml"
        config.write_text(
            json.dumps(
                {"version": 1, "source": {"name": "b", **given}, "tables": {"lineitem": table}}
            )
        )
        return ["env", "--chdir=/", program, "run", str(config), "lineitem", "--json"]

    return Contender(name, command)


def copier(program: str, form: str, source: Path, name: str) -> Contender:
    """DuckDB or Spark."""

    def command(target: Path) -> Sequence[str]:
        copy = [sys.executable, "-m", "tests.bench.copy_files", program, form]
        return [*copy, str(source), str(target.absolute())]

    return Contender(name, command)


def race(form: str, contenders: Sequence[Contender], rounds: int) -> dict[str, list[Measured]]:
    """Run the contenders in turns and return their runs in order."""
    environment = dict(os.environ) | {"SPARK_LOCAL_IP": "127.0.0.1", "TZ": "UTC"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs have bytecode
    runs: dict[str, list[Measured]] = {contender.name: [] for contender in contenders}
    for number in range(1, rounds + 1):
        for contender in contenders:
            target = folder_of(contender)
            shutil.rmtree(target, ignore_errors=True)
            shutil.rmtree(target.with_suffix(".state"), ignore_errors=True)
            run = measure(contender.command(target), environment, target.with_suffix(".log"))
            runs[contender.name].append(run)
            print(
                f"round {number}  {form:<8} {contender.name:<16} {run.seconds:6.1f} s", flush=True
            )
    return runs


def folder_of(contender: Contender) -> Path:
    """Return where a contender's result goes."""
    return CACHE / f"files-{contender.name.lower().replace(' ', '-')}"


if __name__ == "__main__":
    sys.exit(main())
