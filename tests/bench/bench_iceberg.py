"""What an Iceberg table costs: publishing many files, and runs on a table with a long history.

    python -m tests.bench.bench_iceberg [--rounds 3] [--files 1000] [--history 10000]

Prints seconds of this process's CPU: those of the emulator of S3 and Glue are not in it. Commits of
many files are published in turns to a folder of Parquet files and to an Iceberg table. A long
history is copies of one snapshot in the table's metadata. No test asserts these figures.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from extract_jobs.commit.log import CommitLog
from extract_jobs.run import run_extract
from infra.local.emulator import Emulator, start_emulator
from tests.support.crash import bucket_of
from tests.support.iceberg import IcebergLake, lengthen
from tests.support.specs import make_spec
from tests.support.sqlite_source import write


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(description="What an Iceberg table costs.")
    parser.add_argument("--rounds", type=int, default=3, help="publishes of each")
    parser.add_argument("--files", type=int, default=1000, help="of a commit")
    parser.add_argument("--history", type=int, default=10_000, help="snapshots of a long history")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-iceberg-"))
    try:
        with start_emulator(folder / "emulator") as emulator:
            os.environ.update(emulator.environment())
            race(folder, emulator, arguments.files, arguments.rounds)
        for count in (0, arguments.history // 10, arguments.history):
            after(count, folder / str(count), arguments.rounds)
    finally:
        shutil.rmtree(folder)
    return 0


def race(folder: Path, emulator: Emulator, files: int, rounds: int) -> None:
    """Publish commits of many files in turns, to folders and to S3."""
    rows = ", ".join(f"({n}, {n % files}, 'some text', {n}.25)" for n in range(files * 2))
    write(folder / "source.db", "create table t (id integer, k integer, note text, price real)",
          f"insert into t values {rows}")  # fmt: skip
    for place, base in (("folder", str(folder)), ("S3", bucket_of(emulator, "bench"))):
        spent: dict[str, list[tuple[float, float]]] = {"parquet": [], "iceberg": []}
        for number in range(rounds + 1):  # the first one imports modules
            for target_format, of in spent.items():
                where: dict[str, Any] = {"database": "lake", "table": "t"}
                if place == "folder":
                    where |= {"type": "sqlite", "path": f"{folder}/catalog.db"}
                target = {"uri": f"{base}/{target_format}", "partition_by": ["k"],
                          "write_mode": "append"}  # fmt: skip
                if target_format == "iceberg":
                    target |= {"format": "iceberg", "catalog": where}
                spec = make_spec(
                    folder, run_id=f"r{number}", source_type="sqlite", extract_table="t",
                    connection={"path": str(folder / "source.db")}, target=target,
                    state_uri=f"{base}/state-{target_format}",
                )  # fmt: skip
                with cpu_of_publishing() as publishing:
                    start = time.process_time()
                    assert run_extract(spec).files == files
                    of.append((publishing[0], time.process_time() - start))
        report(f"{files} files to {place}", spent)


def after(count: int, folder: Path, rounds: int) -> None:
    """Print what runs of one row take on a table in a folder that has some more snapshots."""
    folder.mkdir()
    lake = IcebergLake(folder)
    more: dict[str, Any] = {"mode": "incremental", "watermark": {"column": "id"}}
    lake.source("create table t (id integer primary key)", "insert into t values (1)")
    lake.run("first", **more)
    lengthen(lake, count)
    spent = []
    for number in range(rounds):
        lake.source(f"insert into t values ({number + 2})")
        start = time.process_time()
        assert lake.run(f"r{number}", **more).rows == 1
        spent.append(time.process_time() - start)
    size = Path(lake.table().metadata_location).stat().st_size
    taken = statistics.median(spent)
    print(f"a run after {count + 1} snapshots: {taken:.2f} s, metadata of {size / 1e6:.1f} MB")


@contextmanager
def cpu_of_publishing() -> Iterator[list[float]]:
    """Yield a list of the seconds of CPU that this process publishes for."""
    spent = [0.0]
    publish: Callable[..., Any] = CommitLog.publish

    def timed(*arguments: Any, **more: Any) -> Any:
        start = time.process_time()
        try:
            return publish(*arguments, **more)
        finally:
            spent[0] += time.process_time() - start

    with patch.object(CommitLog, "publish", timed):
        yield spent


def report(heading: str, spent: dict[str, list[tuple[float, float]]]) -> None:
    """Print the medians, and what an Iceberg table takes of what a folder takes."""
    print(f"\n{heading}\n\n| | publishing | all of the run |\n| --- | ---: | ---: |")
    medians = []
    for name, of in spent.items():
        publishing, whole = (statistics.median(one[i] for one in of[1:]) for i in (0, 1))
        medians.append((publishing, whole))
        print(f"| {name} | {publishing:.2f} s | {whole:.2f} s |")
    parquet, iceberg = medians
    print(f"| ratio | {iceberg[0] / parquet[0]:.2f} | {iceberg[1] / parquet[1]:.2f} |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
