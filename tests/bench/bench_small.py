"""Small extracts out of PostgreSQL, which are start-up and little else.

Help, one table of 1,000 rows, an increment of 5,000 rows of a table of six splits, and 50 tables of
1,000 rows: each a whole process, in turns with another version where one is named.

    python -m tests.bench.bench_small [--rounds 3] [--other NAME=COMMAND]

Exits 1 if a result has other rows than the source. No test asserts these figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from tests.bench.measure import CommandFailed, Measured, measure, print_runs
from tests.support.postgres import Server, run_server

CACHE = Path(".bench/small").absolute()
OURS = "extract-jobs"
ROWS = 1000
TABLES = 50
GROWING = 600_000
INCREMENT = 5000


class WrongResult(Exception):
    """An extract has other rows than its source."""


@dataclass(frozen=True)
class Version:
    """A version of extract-jobs.

    Attributes:
        name: As printed.
        program: Its command.
    """

    name: str
    program: str

    @property
    def folder(self) -> Path:
        """Where its results and its state go."""
        return CACHE / self.name

    def rows(self, table: str) -> int:
        """Return the rows that it has extracted of a table, or of all that begin so."""
        files = self.folder.glob(f"{table}/**/*.parquet")
        return sum(pq.read_metadata(file).num_rows for file in files)


def main() -> int:
    """Run the bench and return the exit code."""
    parser = argparse.ArgumentParser(description="Small extracts: start-up and little else.")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each")
    parser.add_argument(
        "--other", metavar="NAME=COMMAND", type=lambda text: text.split("=", 1),
        help="an extract-jobs of another environment, such as an earlier version's",
    )  # fmt: skip
    arguments = parser.parse_args()
    versions = [Version(OURS, str(Path(sys.executable).with_name("extract-jobs")))]
    if arguments.other:
        versions.append(Version(*arguments.other))
    shutil.rmtree(CACHE, ignore_errors=True)
    try:
        with run_server() as server:
            load(server)
            race(versions, arguments.rounds, server)
    except (CommandFailed, WrongResult) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def load(server: Server) -> None:
    """Create the tables."""
    server.execute(
        *[f"create table small{n:02} as select g as id, md5(g::text) as note,"
          f" g::numeric(12, 2) as price, now() as at from generate_series(1, {ROWS}) g"
          for n in range(TABLES)],
        "create table single as select * from small00",
        "create table growing (id bigint primary key, note text, price numeric(12, 2))",
        f"insert into growing select g, md5(g::text), g from generate_series(1, {GROWING}) g",
        "analyze",
    )  # fmt: skip


def command(version: Version, server: Server, *tables: str) -> Sequence[str]:
    """Return the command that extracts tables into the version's folder."""
    growing = {
        "mode": "incremental", "watermark": {"column": "id"},
        "split": {"target_bytes": 8_000_000, "max_connections": 2},
    }  # fmt: skip
    config = {
        "version": 1,
        "source": {
            "name": "bench", "type": "postgres",
            "connection": {"url": server.url, "password_env": "BENCH_PASSWORD"},
        },
        "defaults": {
            "target": {"uri": f"{version.folder}/{{table}}"}, "state_uri": f"{version.folder}/state"
        },
        "tables": {f"small{n:02}": {} for n in range(TABLES)}
        | {"single": {}, "growing": growing},
    }  # fmt: skip
    path = version.folder.with_suffix(".yml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    # Elsewhere than here, where Python would import this version's package.
    return ["env", "--chdir=/", version.program, "run", str(path), *tables]


def race(versions: Sequence[Version], rounds: int, server: Server) -> None:
    """Run every version in every round, and print a table for each kind of extract."""
    environment = dict(os.environ) | {"BENCH_PASSWORD": server.password, "TZ": "UTC"}
    # Installed programs have bytecode; the first run of each, which is not measured, writes it.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    kinds = {"help": [], "1,000 rows": ["single"], "increment of 5,000 rows": ["growing"],
             "50 tables": ["small*"]}  # fmt: skip
    runs: dict[str, dict[str, list[Measured]]] = {
        kind: {version.name: [] for version in versions} for kind in kinds
    }
    for version in versions:
        measure(command(version, server, "growing"), environment, log(version))
    grown = GROWING
    for _ in range(rounds):
        grown += INCREMENT
        server.execute(
            "insert into growing select g, md5(g::text), g"
            f" from generate_series({grown - INCREMENT + 1}, {grown}) g"
        )
        expected = {"help": grown - INCREMENT, "1,000 rows": ROWS,
                    "increment of 5,000 rows": grown, "50 tables": TABLES * ROWS}  # fmt: skip
        for kind, tables in kinds.items():
            for version in versions:
                words = command(version, server, *tables) if tables else [version.program, "--help"]
                runs[kind][version.name].append(measure(words, environment, log(version)))
                [counted] = tables or ["growing"]
                if version.rows(counted) != expected[kind]:
                    raise WrongResult(f"{version.name}, {kind}: {version.rows(counted)} rows")
        for version in versions:  # what is committed is not extracted again
            for folder in version.folder.glob("**/small*"):
                shutil.rmtree(folder)
            for folder in version.folder.glob("**/single"):
                shutil.rmtree(folder)
    for kind in kinds:
        print_runs(kind, runs[kind], versions[-1].name)


def log(version: Version) -> Path:
    """Return the file of what the version's last command printed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE / f"{version.name}.log"


if __name__ == "__main__":
    sys.exit(main())
