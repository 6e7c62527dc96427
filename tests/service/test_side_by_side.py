"""Several tables at a time: each with its own outcome, one budget of connections, one stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.cli.process import stoppable
from extract_jobs.cli.side_by_side import DEFAULT_JOBS, _Tables, tables_at_once
from extract_jobs.engine import placement
from extract_jobs.engine.worker_processes import WorkerProcesses
from extract_jobs.errors import Interrupted, StopRequested
from extract_jobs.reporting.progress import Progress
from extract_jobs.run import run_extract
from extract_jobs.sources.pump import Sockets, pumped
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.postgres import Server
from tests.support.specs import make_description, make_spec
from tests.support.sqlite_source import write

ROOT = Path(__file__).parents[2]


class Shop:
    """A config of some tables, and the command line that runs them."""

    def __init__(self, folder: Path, server: Server, tables: dict[str, Any], **source: Any) -> None:
        self.folder = folder
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "SHOP_PASSWORD": server.password,
        }  # fmt: skip
        connection = {"url": server.url, "password_env": "SHOP_PASSWORD"}
        config = {
            "version": 1,
            "source": {"name": "shop", "type": "postgres", "connection": connection, **source},
            "defaults": {"target": {"uri": "lake/{table}"}},
            "tables": tables,
        }
        (folder / "shop.yml").write_text(json.dumps(config))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "extract_jobs.cli", "run", "shop.yml", *arguments],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str, str]:
        with self.start(*arguments) as process:
            stdout, stderr = process.communicate(timeout=240)
        return process.returncode, stdout, stderr

    def rows(self, table: str) -> int:
        found = (self.folder / "lake" / table).rglob("*.parquet")
        return sum(pq.read_metadata(file).num_rows for file in found)

    def staged(self) -> list[Path]:
        found = (path for path in (self.folder / "lake").rglob("*") if path.is_file())
        return [path for path in found if "staging" in str(path.relative_to(self.folder))]


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_large_and_small_tables_share_processes_and_one_that_fails_stops_no_other(
    pg_database: Server, tmp_path: Path
) -> None:
    many = {"split": {"target_bytes": 200_000, "max_connections": 2}}
    large = [f"large{n}" for n in range(3)]
    pg_database.execute(
        *[f"create table {t} as select g as id, repeat('x', 90) as filler"
          " from generate_series(1, 20000) g" for t in large],
        "create table bad as select g as id, repeat('x', 90) as filler,"
        " (case when g > 15000 then 'NaN' else '1' end)::numeric(9,2) as n"
        " from generate_series(1, 20000) g",
        *[f"create table small{n} as select g as id from generate_series(1, {n + 1}) g"
          for n in range(8)],
        "analyze",
    )  # fmt: skip
    tables = dict.fromkeys([*large, "bad"], many) | {f"small{n}": {} for n in range(8)}
    shop = Shop(tmp_path, pg_database, tables)
    code, stdout, stderr = shop.run("--json", "--jobs", "5")
    assert code == 78, stderr
    reports = {r["extract_table"]: r for r in map(json.loads, stdout.splitlines())}
    assert sorted(reports) == sorted(tables)
    assert {t for t, r in reports.items() if r["status"] == "failed"} == {"bad"}
    assert reports["bad"]["error"]["class"] == "TypeNotRepresentable"
    assert [reports[t]["rows"] for t in large] == [20_000] * 3
    assert all(reports[t]["splits"] > 3 for t in large)
    assert [shop.rows(t) for t in large] == [20_000] * 3
    assert [shop.rows(f"small{n}") for n in range(8)] == [*range(1, 9)]
    assert shop.rows("bad") == 0
    assert shop.staged() == []
    summary = [line.split()[0] for line in stderr.splitlines()[-14:] if " succeeded " in line]
    assert summary == [t for t in tables if t != "bad"], "in the order of the config"


def test_a_signal_that_another_thread_was_given_is_noticed() -> None:
    """The system chooses the thread, and does not wake the one that waits."""
    over, not_noticed = threading.Event(), list[str]()

    def signalled() -> Generator[int]:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        if not over.wait(20):
            not_noticed.append("for 20 s")
        yield 1

    def for_tables() -> object:
        threading.Thread(target=lambda: next(signalled()), daemon=True).start()
        return _Tables([], lambda _: Progress(), WorkerProcesses((), most=1), trace=False).next()

    def for_a_reader() -> object:
        return next(pumped(signalled, Sockets(0), stall_seconds=60, what="reading"))

    for wait in (for_tables, for_a_reader):
        with pytest.raises(Interrupted, match="stopped by SIGTERM"), stoppable():
            wait()
    over.set()
    assert not_noticed == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_tables(pg_database: Server, tmp_path: Path, number: int) -> None:
    """One is between batches, two wait for a lock, another for a worker process; two not begun."""
    pg_database.execute(
        "create table endless as select g as id from generate_series(1, 2000) g",
        *[f"create table locked{n} as select g as id, repeat('x', 90) as filler"
          " from generate_series(1, 20000) g" for n in range(2)],
        "create table waits as select 1 as id", "create table waits_too as select 1 as id",
        "analyze",
    )  # fmt: skip
    query = "select id, pg_sleep(0.01)::text as nothing from endless"
    slow = {"query": query, "split": {"fetch_rows": 100}}
    tables = {
        "endless": slow,
        "locked0": {"split": {"target_bytes": 200_000, "max_connections": 2}},
        "locked1": {"split": {"strategy": "none"}},
        "waits": {}, "waits_too": {},
    }  # fmt: skip
    shop = Shop(tmp_path, pg_database, tables)
    with pg_database.connect(autocommit=False) as locker:
        locker.execute("lock table locked0, locked1 in access exclusive mode")
        with shop.start("--jobs", "3") as process:
            try:
                with pg_database.connect() as watcher:

                    def blocked() -> bool:
                        statement = (
                            "select count(distinct relation) from pg_locks where not granted"
                        )
                        [found] = watcher.execute(statement).fetchone() or (0,)
                        return process.poll() is not None or bool(found == 2)

                    wait_until(blocked)
                process.send_signal(number)
                started = time.monotonic()
                _, stderr = process.communicate(timeout=60)
            finally:
                process.kill()
    assert time.monotonic() - started < 25, stderr
    assert process.returncode == 75, stderr
    by = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    dropped = "staged files are dropped unless a commit names them"
    last = f"Interrupted: stopped by {by}; {dropped}; 2 tables not begun"
    assert stderr.splitlines()[-1] == last
    assert "Traceback" not in stderr
    assert shop.staged() == []
    reports = list((tmp_path / "lake").parent.rglob("reports/**/*.json"))
    assert len(reports) == 3
    assert {json.loads(r.read_text())["error"]["class"] for r in reports} == {"Interrupted"}


def test_no_more_tables_than_the_source_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests of this process may have a session.
    monkeypatch.setattr(placement, "spark_is_set_up", lambda: False)
    specs = [make_spec(extract_table=f"t{n}", source_type="postgres") for n in range(9)]
    assert tables_at_once(None, specs, 40) == DEFAULT_JOBS
    assert tables_at_once(7, specs, 40) == 7
    assert tables_at_once(7, specs, 2) == 2
    assert tables_at_once(7, specs[:3], 40) == 3


@pytest.mark.parametrize(
    ("mode", "first", "expected"),
    [("full", True, True), ("full", False, True), ("incremental", True, True),
     ("incremental", False, False)],
)  # fmt: skip
def test_workers_start_early_only_where_much_is_read(
    monkeypatch: pytest.MonkeyPatch, mode: str, first: bool, expected: bool
) -> None:
    monkeypatch.setattr(placement, "spark_is_set_up", lambda: False)
    monkeypatch.setattr(placement, "processes_for", lambda *_: 2)
    more: dict[str, Any] = {"watermark": {"column": "id"}} if mode == "incremental" else {}
    spec = make_spec(mode=mode, **more)
    large = make_description(pa.schema([("id", pa.int64())]), estimated_bytes=2**40)
    assert placement.will_need_workers(spec, large, None, first=first) is expected


@pytest.mark.parametrize("more", [{"engine": "spark"}, {"source_type": "oracle"}])
def test_tables_that_spark_reads_run_one_after_another(more: dict[str, str]) -> None:
    plain: dict[str, Any] = {"source_type": "postgres"}
    specs: list[ExtractSpec] = [make_spec(**plain), make_spec(**plain | more)]
    assert tables_at_once(8, specs, 40) == 1


def test_the_workers_of_one_extract_are_interrupted_and_no_others() -> None:
    with WorkerProcesses(most=2) as processes:
        mine, other = processes.take("mine"), processes.take("other")
        processes.interrupt("mine")
        assert (mine.stopping, other.stopping) == (True, False)
        processes.give_back(other)
        processes.interrupt("other")
        assert not other.stopping, "it works for nobody now"
        stop = threading.Event()
        assert processes.take("third", stop) is other
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Interrupted, match="before a worker process was free"):
            processes.take("fourth", stop)
        processes.lost(mine)
        assert processes.take("fourth").owner == "fourth"
        processes.stop()
        with pytest.raises(Interrupted):
            processes.take("fifth")


class _StoppedAt(Progress):
    """Stops an extract as it enters a phase, as a Ctrl-C does to a table in a thread."""

    def __init__(self, name: str) -> None:
        self.name = name

    def phase(self, name: str) -> None:
        if name == self.name:
            raise StopRequested("stopped by a test")


@pytest.mark.parametrize("phase", ["recover", "plan", "extract", "reconcile", "commit"])
def test_a_stop_before_the_commit_leaves_nothing_staged(tmp_path: Path, phase: str) -> None:
    database = write(
        tmp_path / "shop.db", "create table t (id integer)", "insert into t values (1)"
    )
    spec = make_spec(
        tmp_path / "lake", source_type="sqlite", connection={"path": str(database)},
        extract_table="t",
    )  # fmt: skip
    with pytest.raises(Interrupted):
        run_extract(spec, progress=_StoppedAt(phase))
    target = tmp_path / "lake"
    assert [file for file in target.rglob("*") if "staging" in str(file) and file.is_file()] == []
    assert list(target.rglob("*.parquet")) == []
