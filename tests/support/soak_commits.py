"""A table of thousands of commits whose processes are killed, and then an account of every file.

    python -m tests.support.soak_commits --commits 20000 --folder /tmp/lake

The real `run_extract` commits small increments to a local folder, from a source in memory whose
rows are in a file. Runs append with a lag or replace partitions, now and then one replaces the
table. Some rows come late, just below the watermark. A process makes a dozen runs, is killed by
SIGKILL around one of its storage calls, and sometimes shares the table with another one. At the
end:

- each row is in the lake once;
- the live files are in the folder, and nothing else is;
- segments of live files say what the commits say.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import extract_jobs.run
from extract_jobs.commit.table_log import commit_log
from extract_jobs.errors import CommitConflict
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import open_storage
from tests.support.crash_driver import KillingStorage
from tests.support.memory_source import MemorySource

LAG = 6
RUNS, CALLS_OF_A_RUN = 12, 100
REPLACED_EVERY = 3000
"""One of so many runs replaces the table, which writes each of its rows to a file of its own."""


class Table:
    """The source and the lake, both in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.source.touch()

    def rows(self) -> list[int]:
        """Return the source's rows; two processes may have added the same one."""
        return sorted(set(map(int, self.source.read_text().split())))

    def add(self, chance: random.Random) -> None:
        """Add a few rows, which may come late."""
        rows = self.rows()
        last = rows[-1] if rows else 0
        new = [last + 1 + n * chance.randint(1, 2) for n in range(chance.randint(0, 2))]
        late = [row for row in range(last - 2, last) if row > 0 and row not in rows]
        new += late if chance.random() < 0.3 else []
        with self.source.open("a") as file:  # one write, so another process adds before or after
            file.write("".join(f"{row}\n" for row in sorted(set(new))))

    def spec(self, run_id: str, attempt: int, *, mode: str) -> ExtractSpec:
        """Return a run's spec; ``mode`` is ``append``, ``overwrite_partitions`` or ``full``."""
        increment = {"mode": "incremental", "watermark": {"column": "id", "lag": LAG}}
        replaces = {"mode": "full", "watermark": {"column": "id"}}
        return ExtractSpec.model_validate(
            {
                "run_id": run_id, "attempt": attempt, "source_name": "s",
                "source_type": "postgres", "connection": {"host": "nowhere"},
                "extract_table": "t", "columns": {"key": ["id"]},
                "target": {
                    "uri": str(self.folder / "lake"), "partition_by": ["id"],
                    "write_mode": "overwrite" if mode == "full" else mode,
                },
                "state_uri": str(self.folder / "state"),
                "report_uri": str(self.folder / "report.json"),
                **(replaces if mode == "full" else increment),
            }
        )  # fmt: skip


def process(table: Table, seed: str) -> int:
    """Run a dozen times in this process, unless a kill ends it."""
    chance = random.Random(seed)
    counter, kill = [0], chance.randint(1, RUNS * CALLS_OF_A_RUN) * chance.choice((1, -1))
    storage: Any = KillingStorage(open_storage(str(table.folder)), counter, kill)
    for number in range(RUNS):
        table.add(chance)
        mode = chance.choice(["append", "overwrite_partitions"])
        if chance.randrange(REPLACED_EVERY) == 0:
            mode = "full"
        spec = table.spec(f"{seed}-{number}-{uuid.uuid4().hex[:6]}", 1, mode=mode)
        rows = table.rows()
        extract_jobs.run.open_source = lambda *_, rows=rows: MemorySource(rows)  # type: ignore[attr-defined]
        try:
            extract_jobs.run.run_extract(spec, open_storage=lambda _: storage)
        except CommitConflict:
            continue  # the other process was faster, three times
    return 0


def forked(table: Table, seed: str) -> int:
    """Start a process; return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = process(table, seed)
    except BaseException:  # noqa: BLE001 - the child ends here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def commits(table: Table) -> int:
    """Return the number of the newest commit."""
    newest = commit_log(table.spec("x", 1, mode="append")).newest()
    return newest.seq if newest else 0


def soak(table: Table, wanted: int, seed: int, until: float) -> Counter[str]:
    """Commit until there are so many commits or time is up.

    Raises:
        AssertionError: A process ended otherwise than well or by a kill.
    """
    chance, counts = random.Random(seed), Counter[str]()
    for number in itertools.count():
        if number % 20 == 0 and (commits(table) >= wanted or time.monotonic() > until):
            return counts
        some = 2 if chance.random() < 0.1 else 1
        children = [forked(table, f"{seed}-{number}-{n}") for n in range(some)]
        for pid in children:
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            assert code in (0, -signal.SIGKILL), f"process {pid} ended with {code}"
            counts["processes"] += 1
            counts["killed"] += code != 0
        counts["two at once"] += some == 2
    raise AssertionError("unreachable")


def account(table: Table) -> Counter[str]:
    """Compare the lake with the source and with the log.

    Raises:
        AssertionError: A row or file is missing, there twice, or nobody's.
    """
    for n in range(3):  # what came last, with the lag
        spec = table.spec(f"last-{n}-{uuid.uuid4().hex[:6]}", 1, mode="append")
        rows = table.rows()
        extract_jobs.run.open_source = lambda *_, rows=rows: MemorySource(rows)  # type: ignore[attr-defined]
        extract_jobs.run.run_extract(spec)
    log = commit_log(spec)
    log.recover(spec.target.uri, abandon_after=timedelta(0), now=datetime.now(UTC))
    last = log.finish_last().published
    assert last is not None
    live = {file.staged.uri: file.rows for file in log.live_files(last)}
    lake = table.folder / "lake"
    found = {str(path) for path in lake.rglob("*") if path.is_file()}
    assert found == live.keys(), f"{len(found - live.keys())} more, {len(live.keys() - found)} less"
    there = Counter[int]()
    for uri, count in live.items():
        assert pq.read_metadata(uri).num_rows == count, uri
        if count:  # the first run wrote one that has the columns only, if there was no row
            there[int(uri.rsplit("/", 2)[1].removeprefix("id="))] += count
    assert there == Counter(table.rows()), "rows are missing or there twice"
    stored = sum(p.stat().st_size for p in (table.folder / "state/live").rglob("*.parquet"))
    for segment in (table.folder / "state/live").rglob("*.parquet"):
        segment.unlink()
    assert {file.staged.uri for file in log.live_files(last)} == live.keys()
    voided = sum(
        b"voided" in path.read_bytes() for path in (table.folder / "state/outcomes").glob("*.json")
    )
    return Counter(
        commits=last.seq, voided=voided, files=len(live), rows=sum(there.values()), segments=stored
    )


def main() -> int:
    """Soak and print the figures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="an empty one, which is kept")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    until = time.monotonic() + given.minutes * 60
    for folder in _folder(given.folder):
        table = Table(folder)
        counts = soak(table, given.commits, seed, until)
        counts += account(table)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = usage.ru_utime + usage.ru_stime
        print(f"seed {seed}: {dict(counts)}, {cpu:.0f} s of CPU", flush=True)
    return 0


def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        yield Path(name)


if __name__ == "__main__":
    sys.exit(main())
