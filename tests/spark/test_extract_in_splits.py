"""Extracts of several splits, on either engine: one snapshot, losses, no doubling."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession

from extract_jobs.engine import run_splits
from extract_jobs.engine.arrow_splits import run_on_spark
from extract_jobs.errors import ExtractError, SourceUnavailable
from extract_jobs.reporting.progress import Progress
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.crash import Lake
from tests.support.postgres import Server

ROWS = 30_000
WORKERS = ("extract_jobs.engine.worker_server", "pyspark.daemon")
"""Modules whose processes have workers for children, without Spark and with it."""


@dataclass
class Scene:
    server: Server
    lake: Lake
    spark: SparkSession | None

    def extract(
        self,
        run_id: str = "r",
        attempt: int = 1,
        progress: Progress | None = None,
        **more: Any,
    ) -> Report:
        split = {"target_bytes": 1_000_000, "max_connections": 2, **more.pop("split", {})}
        engine = "spark" if self.spark else "processes"
        spec = self.lake.spec(self.server, run_id, attempt, split=split, engine=engine, **more)
        return run_extract(ExtractSpec.model_validate(spec), spark=self.spark, progress=progress)


@pytest.fixture
def scene(spark_or_none: SparkSession | None, pg_database: Server, bucket_lake: Lake) -> Scene:
    pg_database.execute(
        "create table public.t (id int primary key, version int not null, padding text)",
        "insert into public.t select g, 1, repeat(md5(g::text), 4)"
        f" from generate_series(1, {ROWS}) g",
        "analyze public.t",
    )
    return Scene(pg_database, bucket_lake, spark_or_none)


class During(Progress):
    """Calls back once, when the first split has ended."""

    def __init__(self, action: Any) -> None:
        self.action, self.splits, self.called = action, 0, threading.Event()

    def planned(self, splits: int, rows: int | None, size: int | None) -> None:
        self.splits = splits

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        if done and not self.called.is_set():
            self.called.set()
            self.action()


def test_all_splits_see_one_snapshot(scene: Scene) -> None:
    def change_everything() -> None:
        scene.server.execute(
            "update public.t set version = 2 where id % 2 = 0",
            "delete from public.t where id % 5 = 0",
            "insert into public.t select g, 3, 'new' from generate_series(100001, 105000) g",
        )

    during = During(change_everything)
    report = scene.extract(progress=during)
    assert during.called.is_set()
    assert report.splits > 4
    assert (report.rows, report.source_rows, report.reconciled) == (ROWS, ROWS, True)
    assert scene.lake.read() == list(range(1, ROWS + 1))
    assert set(scene.lake.read("version")) == {1}
    assert scene.lake.staged() == []


@pytest.mark.parametrize("spark_or_none", [True], indirect=True)
@pytest.mark.spark
def test_small_splits_go_to_spark_in_handfuls(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    units: list[int] = []

    def counted(task: Any, reader: Any, unit: Any, *more: Any) -> Any:
        units.append(len(unit))
        return run_on_spark(task, reader, unit, *more)

    monkeypatch.setattr(run_splits, "run_on_spark", counted)
    report = scene.extract(split={"target_bytes": 100_000})
    assert (sum(units), report.splits > 30) == (report.splits, True)
    assert 4 <= len(units) <= 6, "two for each connection, and what is left over"
    assert (report.rows, report.files) == (ROWS, report.splits)
    assert scene.lake.read() == list(range(1, ROWS + 1))
    assert scene.lake.staged() == []


@pytest.mark.parametrize("spark_or_none", [True], indirect=True)
@pytest.mark.spark
def test_the_callers_session_is_used_and_left_alone(scene: Scene) -> None:
    assert scene.spark
    scene.extract()
    assert scene.spark.range(3).count() == 3


def test_a_python_worker_killed_in_mid_split_costs_one_retry(scene: Scene) -> None:
    killed: list[int] = []
    daemon = WORKERS[bool(scene.spark)]

    def kill_workers() -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # a process that has ended meanwhile
                if not killed and daemon in process.cmdline():
                    for worker in process.children():
                        worker.send_signal(signal.SIGKILL)
                        killed.append(worker.pid)

    report = scene.extract(progress=During(kill_workers))
    assert killed
    assert report.rows == ROWS
    assert scene.lake.read() == list(range(1, ROWS + 1))
    assert scene.lake.staged() == []


def terminate(server: Server, which: str) -> int:
    """End backends whose session matches a condition; return how many."""
    with server.connect() as connection:
        return terminated(connection, which)


def terminated(connection: Any, which: str) -> int:
    """As `terminate`, on a connection that is there."""
    return connection.execute(
        f"select count(pg_terminate_backend(pid)) from pg_stat_activity"
        f" where datname = current_database() and pid <> pg_backend_pid() and {which}".encode()
    ).fetchone()[0]


@pytest.mark.any_spark
def test_a_reading_connection_that_is_cut_is_read_again_in_the_same_snapshot(scene: Scene) -> None:
    """Within one task of Spark, which notices nothing."""

    cut = threading.Event()

    def cut_readers() -> None:
        deadline = time.monotonic() + 20
        with scene.server.connect() as connection:
            while not cut.is_set() and time.monotonic() < deadline:
                if terminated(connection, "query ilike 'copy%'"):
                    cut.set()
                time.sleep(0.002)

    watcher = threading.Thread(target=cut_readers)
    watcher.start()
    report = scene.extract()
    cut.set()
    watcher.join()
    assert report.rows == ROWS
    assert scene.lake.read() == list(range(1, ROWS + 1))
    assert scene.lake.staged() == []


@pytest.mark.any_spark
def test_the_exporting_connection_cut_is_retryable_and_leaves_nothing(scene: Scene) -> None:
    def cut_exporter() -> None:
        assert terminate(scene.server, "state like 'idle in transaction%'") >= 1

    with pytest.raises(SourceUnavailable):
        scene.extract(progress=During(cut_exporter))
    assert scene.lake.visible() == []
    assert scene.lake.staged() == []
    assert scene.lake.report("r")["error"]["retryable"] is True
    report = scene.extract(attempt=2)
    assert report.rows == ROWS
    assert scene.lake.read() == list(range(1, ROWS + 1))


def test_the_first_error_stops_the_other_splits(scene: Scene) -> None:
    """A value in the last page that no policy allows: nothing is staged, nobody waits for all."""
    scene.server.execute(
        "alter table public.t add column at timestamp default '2026-01-01'",
        f"update public.t set at = 'infinity' where id = {ROWS}",
    )
    with pytest.raises(ExtractError, match="at"):
        scene.extract()
    assert scene.lake.visible() == []
    assert scene.lake.staged() == []


@pytest.mark.any_spark
def test_a_short_idle_in_transaction_timeout_of_the_server_does_no_harm(scene: Scene) -> None:
    scene.server.execute(
        f"alter database \"{scene.server.database}\" set idle_in_transaction_session_timeout = '1s'"
    )
    during = During(lambda: time.sleep(2.5))
    report = scene.extract(split={"max_connections": 1}, progress=during)
    assert report.rows == ROWS


@pytest.mark.any_spark
@pytest.mark.parametrize("connections", [1, 2])
def test_the_number_of_connections_is_never_above_what_is_allowed(
    scene: Scene, connections: int
) -> None:
    most, stop = [0], threading.Event()

    def watch() -> None:
        with scene.server.connect() as connection:
            while not stop.is_set():
                [count] = connection.execute(
                    "select count(*) from pg_stat_activity where datname = current_database()"
                    " and pid <> pg_backend_pid()"
                ).fetchone()
                most[0] = max(most[0], count)
                time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    scene.extract(split={"max_connections": connections})
    stop.set()
    watcher.join()
    assert 1 <= most[0] <= connections + 1  # the splits, and what holds the snapshot


def test_the_password_is_in_no_process_list_spark_setting_or_statement(scene: Scene) -> None:
    seen: list[str] = []

    def look() -> None:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                seen.append(" ".join(process.cmdline()))
        with scene.server.connect() as connection:
            found = connection.execute("select query, application_name from pg_stat_activity")
            seen.extend(" ".join(map(str, row)) for row in found.fetchall())

    scene.extract(progress=During(look))
    if scene.spark:
        seen.extend(f"{k}={v}" for k, v in scene.spark.sparkContext.getConf().getAll())
    assert any("extract" in text.lower() or "copy" in text.lower() for text in seen)
    assert not [text for text in seen if scene.server.password in text]
