"""How much memory an extract takes, by the shape of its input; the tables of docs/scale.md.

``make bench BENCH=memory``; with ``ARGS=--grid`` two wider tables, of some hundred shapes: each
kind of source by the size of its values, and by the number of its columns. Each input is extracted
by a process of its own, in one split and with one thread for each file, into a local folder. Its
memory is the peak that the kernel kept (``VmHWM``); what Python and the libraries take before the
extract is shown once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from tests.support.mysql_servers import SERVERS, MysqlServer
from tests.support.mysql_servers import run_server as run_mysql
from tests.support.postgres import Server, run_server

Servers = Mapping[str, Server | MysqlServer]
"""By ``source.type``."""

CHILD = """
import json, sys
from extract_jobs.errors import ExtractError
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))

spec = ExtractSpec.model_validate_json(sys.stdin.read())
before, said = peak(), None
try:
    rows = run_extract(spec).rows
except ExtractError as error:
    rows, said = 0, f"{type(error).__name__}: {error}"
print(json.dumps({"before": before, "peak": peak(), "rows": rows, "said": said}))
"""
MB = 2**20


@dataclass(frozen=True)
class Shape:
    """One input.

    Attributes:
        name: Of its row in the table.
        suffix: Of a file that ``make`` writes; empty for a table of a server.
        make: Writes the file, or returns the statements that make table ``t``.
        kind: Type of the source.
    """

    name: str
    suffix: str
    make: Callable[..., Any]
    kind: str = "postgres"


def _parquet(table: Callable[[], pa.Table], **given: Any) -> Callable[[Path], None]:
    return lambda path: pq.write_table(table(), path, compression="zstd", **given)


def _ints(columns: int, rows: int) -> pa.Table:
    values = pa.array(np.arange(rows))
    return pa.table([values] * columns, names=[f"c{n}" for n in range(columns)])


def _texts(count: int, size: int) -> pa.Table:
    return pa.table({"n": range(count), "s": [os.urandom(size // 2).hex() for _ in range(count)]})


def _bomb() -> pa.Table:
    wide = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200_000, "int32")), ["x" * 17_000])
    return pa.table({"n": range(200_000), "s": wide})


def _json(rows: int, keys: int, size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        record = {f"k{n}": "x" * size for n in range(keys)}
        line = json.dumps(record).encode() + b"\n"
        with path.open("wb") as file:
            for _ in range(rows):
                file.write(line)

    return write


def _csv(table: Callable[[], pa.Table]) -> Callable[[Path], None]:
    return lambda path: arrow_csv.write_csv(table(), path)


def _postgres(rows: int, size: int) -> Callable[[], Iterator[str]]:
    def statements() -> Iterator[str]:
        yield "drop table if exists t"
        yield "create table t (id int, v text)"
        yield "alter table t alter column v set storage external"
        yield f"insert into t select i, repeat('x', {size}) from generate_series(1, {rows}) i"
        yield "analyze t"

    return statements


SHAPES = (
    Shape("Parquet, 5 million rows of 2 integers", ".parquet",
          _parquet(lambda: _ints(2, 5 * 10**6))),
    Shape("Parquet, 1,000 columns, 5,000 rows", ".parquet", _parquet(lambda: _ints(1000, 5000))),
    Shape("Parquet, 10,000 columns, 100 rows", ".parquet", _parquet(lambda: _ints(10_000, 100))),
    Shape("Parquet, 64 rows of 1 MiB", ".parquet", _parquet(lambda: _texts(64, MB))),
    Shape("Parquet, 4 rows of 64 MiB", ".parquet", _parquet(lambda: _texts(4, 64 * MB))),
    Shape("Parquet, one value of 17 KB for 200,000 rows", ".parquet",
          _parquet(_bomb, store_schema=False)),
    Shape("CSV, 3,000,000 rows of 2 integers", ".csv", _csv(lambda: _ints(2, 3 * 10**6))),
    Shape("CSV, 1,000 columns, 5,000 rows", ".csv", _csv(lambda: _ints(1000, 5000))),
    Shape("CSV, 32 rows of 1 MiB", ".csv", _csv(lambda: _texts(32, MB))),
    Shape("CSV, one row of 64 MiB", ".csv", _csv(lambda: _texts(1, 64 * MB))),
    Shape("JSON lines, 500,000 rows of 5 keys", ".jsonl", _json(500_000, 5, 8)),
    Shape("JSON lines, 200 rows of 2,000 keys", ".jsonl", _json(200, 2000, 8)),
    Shape("JSON lines, one row of 64 MiB", ".jsonl", _json(1, 1, 64 * MB)),
    Shape("PostgreSQL, 2,000,000 rows of 20 bytes", "", _postgres(2 * 10**6, 20)),
    Shape("PostgreSQL, 20,000 rows of 16 kB", "", _postgres(20_000, 16_000)),
    Shape("PostgreSQL, 20 rows of 20 MB", "", _postgres(20, 20 * 10**6)),
    Shape("PostgreSQL, one value of 200 MB", "", _postgres(1, 200 * 10**6)),
    Shape("PostgreSQL, one value of 500 MB", "", _postgres(1, 500 * 10**6)),
)  # fmt: skip


SIZES = (1, 100, 10_000, MB, 16 * MB, 64 * MB, 300 * MB)
"""Bytes of a value. The last is above what a run accepts by default."""
WIDTHS = (1, 100, 1000, 10_000, 50_000)
"""Columns."""
_BYTES, _MOST_ROWS, _CELLS = 64 * MB, 10**6, 10**6


def _rows_of(size: int) -> int:
    return max(1, min(_MOST_ROWS, _BYTES // size))


def _values(size: int) -> pa.Table:
    rows = _rows_of(size)
    alphabet = "".join(map(chr, range(97, 123)))
    texts = [alphabet[n % 26] * size for n in range(rows)]
    return pa.table({"n": range(rows), "s": texts})


def _mysql(size: int) -> Callable[[], Iterator[str]]:
    def statements() -> Iterator[str]:
        yield "drop table if exists t"
        yield "create table t (id bigint, v longtext)"
        yield (f"insert into t select seq, repeat('x', {size}) from seq_1_to_{_rows_of(size)}")

    return statements


def _packed(codec: str) -> Callable[[int], Callable[[Path], None]]:
    def of(size: int) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            plain = path.with_name("_plain")
            arrow_csv.write_csv(_values(size), plain)
            with pa.CompressedOutputStream(str(path), codec) as packed, plain.open("rb") as file:
                for block in iter(lambda: file.read(MB), b""):
                    packed.write(block)
            plain.unlink()

        return write

    return of


def _by_size(name: str, suffix: str, make: Callable[[int], Any], kind: str = "") -> list[Shape]:
    return [Shape(name, suffix, make(size), kind) for size in SIZES]


def _by_width(name: str, suffix: str, make: Callable[[int], Any]) -> list[Shape]:
    return [Shape(name, suffix, make(width)) for width in WIDTHS]


def grid() -> dict[str, list[list[Shape]]]:
    """Return the shapes of the two wider tables, by the headings of their columns."""
    sizes = ["1 B", "100 B", "10 kB", "1 MiB", "16 MiB", "64 MiB", "300 MiB"]
    plain = {"use_dictionary": False}
    lists = [
        _by_size("Parquet", ".parquet", lambda n: _parquet(lambda: _values(n), **plain)),
        _by_size("Parquet, dictionaries", ".parquet", lambda n: _parquet(lambda: _values(n))),
        _by_size("CSV", ".csv", lambda n: _csv(lambda: _values(n))),
        *(_by_size(f"CSV, {c}", f".csv.{end}", _packed(c))
          for c, end in (("gzip", "gz"), ("zstd", "zst"), ("bz2", "bz2"), ("lz4", "lz4"))),
        _by_size("JSON lines", ".jsonl", lambda n: _json(_rows_of(n), 1, n)),
        _by_size("PostgreSQL", "", lambda n: _postgres(_rows_of(n), n), "postgres"),
        _by_size("MariaDB", "", _mysql, "mysql"),
    ]  # fmt: skip
    widths = [
        _by_width("Parquet", ".parquet", lambda n: _parquet(lambda: _ints(n, _CELLS // n))),
        _by_width("CSV", ".csv", lambda n: _csv(lambda: _ints(n, _CELLS // n))),
        _by_width("JSON lines", ".jsonl", lambda n: _json(_CELLS // n, n, 8)),
    ]
    return {" | ".join(sizes): lists, " | ".join(f"{n:,} columns" for n in WIDTHS): widths}


def print_grid(servers: Servers, only: str) -> None:
    """Print the two wider tables; a cell is the peak in MB, or that the input was refused."""
    for heading, shapes in grid().items():
        print(f"| | {heading} |\n| --- |{' ---: |' * len(shapes[0])}", flush=True)
        for row in shapes:
            if not row[0].name.startswith(only):
                continue
            cells = []
            for shape in row:
                found = measure(shape, servers)
                cells.append(f"{found['peak']}{' refused' if found['said'] else ''}")
                if found["said"]:
                    print(f"<!-- {shape.name}: {found['said'][:200]} -->", flush=True)
            print(f"| {row[0].name} | {' | '.join(cells)} |", flush=True)
        print()


def spec_of(shape: Shape, folder: Path, servers: Servers) -> dict[str, Any]:
    """Make the input and return the spec that extracts it."""
    target = {
        "run_id": "r", "source_name": "s", "extract_table": "t", "split": {"strategy": "none"},
        "target": {"uri": f"{folder}/out"}, "state_uri": f"{folder}/state",
        "report_uri": f"{folder}/report.json",
    }  # fmt: skip
    if shape.suffix:
        (folder / "in").mkdir()
        shape.make(folder / "in" / f"a{shape.suffix}")
        return {
            **target, "source_type": "files", "connection": {"uri": f"{folder}/in"},
            "files": {"glob": f"*{shape.suffix}"},
        }  # fmt: skip
    server = servers[shape.kind]
    server.execute(*shape.make())
    return {
        **target, "source_type": shape.kind,
        "connection": {"url": server.url, "password_env": "BENCH_PASSWORD"},
    }  # fmt: skip


def measure(shape: Shape, servers: Servers) -> dict[str, Any]:
    """Extract a shape in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        spec = spec_of(shape, Path(name), servers)
        password = "" if shape.suffix else servers[shape.kind].password
        done = subprocess.run(
            [sys.executable, "-c", CHILD], input=json.dumps(spec), text=True, check=True,
            capture_output=True, env={**os.environ, "BENCH_PASSWORD": password},
        )  # fmt: skip
        size = sum(p.stat().st_size for p in Path(name, "in").glob("*")) if shape.suffix else 0
    return {**json.loads(done.stdout.splitlines()[-1]), "size": size}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="shapes whose name begins so")
    parser.add_argument("--grid", action="store_true", help="the two wider tables")
    given = parser.parse_args()
    with ExitStack() as stack:
        servers: dict[str, Any] = {"postgres": stack.enter_context(run_server(16, jit="off"))}
        if given.grid:
            large = {"max_allowed_packet": str(2**30)}
            servers["mysql"] = stack.enter_context(run_mysql(SERVERS["mariadb"], **large))
            print_grid(servers, given.only)
            return
        print("| input | size of the file | peak | result |\n| --- | ---: | ---: | --- |")
        for shape in SHAPES:
            if shape.name.startswith(given.only):
                found = measure(shape, servers)
                result = found["said"] or f"{found['rows']:,} rows"
                size = f"{found['size'] / 1e6:,.1f} MB" if shape.suffix else ""
                print(f"| {shape.name} | {size} | {found['peak']} MB | {result} |", flush=True)
        print(f"\nA process takes {found['before']} MB before it extracts.")


if __name__ == "__main__":
    main()
