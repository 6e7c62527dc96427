"""Who waits behind an extract's locks is named, or given way; what never ends has a limit."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import extract_jobs.sources.postgres.snapshot as snapshot_module
from extract_jobs.errors import Interrupted, SourceQueryFailed, SourceUnavailable
from extract_jobs.reporting.progress import Progress
from extract_jobs.run import run_extract
from extract_jobs.sources.postgres.session import connect, execute
from tests.support.postgres import Server
from tests.support.postgres_source import filled, read_wide, snapshot_of, source
from tests.support.switch_proxy import SwitchProxy


@contextmanager
def altering(server: Server, table: str) -> Iterator[int]:
    """Have a session wait to alter a table, and give its server process."""
    with server.connect(autocommit=False) as other:
        alter = threading.Thread(
            target=lambda: (other.execute(f"alter table {table} add more int"), other.commit())
        )
        alter.start()
        try:
            with server.connect() as looking:
                waits = f"select from pg_locks where pid = {other.info.backend_pid} and not granted"
                while not looking.execute(waits.encode()).fetchall():
                    time.sleep(0.01)
            yield other.info.backend_pid
        finally:
            alter.join()


class AltersAtFirst(Progress):
    """Has the table altered as soon as rows arrive, and notes what waited for how long."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pid = 0
        self.done = threading.Event()

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        if not self.pid:
            known = threading.Event()

            def alter() -> None:
                with altering(self.server, "t") as self.pid:
                    known.set()
                self.done.set()

            threading.Thread(target=alter).start()
            known.wait(30)
        time.sleep(0.2)


@pytest.mark.parametrize("policy", ["wait", "yield"])
def test_ddl_that_waits_behind_an_extract(
    pg_database: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, policy: str
) -> None:
    monkeypatch.setattr(snapshot_module, "HEARTBEAT_SECONDS", 0.05)
    read_wide(monkeypatch)  # three batches
    filled(pg_database, 20_000)
    progress = AltersAtFirst(pg_database)
    spec = source(pg_database, monkeypatch, tmp_path, extract_table="t", on_waiting_ddl=policy).spec
    if policy == "wait":
        report = run_extract(spec, progress=progress)
        assert (report.rows, report.source_rows) == (20_000, 20_000)
        assert report.read_from["waited_behind"] == [
            f"server process {progress.pid} (user 'postgres') waits for AccessExclusiveLock on t"
        ]
    else:
        with pytest.raises(
            Interrupted, match=r"stopped for server process \d+.*on t, as"
        ) as caught:
            run_extract(spec, progress=progress)
        assert str(progress.pid) in str(caught.value)
        assert caught.value.retryable
        assert not list((tmp_path / "target").rglob("*.parquet"))
    assert progress.done.wait(10), "the table is altered"


def test_others_that_wait_are_none_of_ours(
    pg_database: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pg_database.execute("create table t (id int)", "create table u (id int)")
    found = source(pg_database, monkeypatch, extract_table="t", on_waiting_ddl="yield")
    with (
        caplog.at_level(logging.WARNING),
        snapshot_of(found) as snapshot,
        pg_database.connect(autocommit=False) as reader,
    ):
        reader.execute("select from u")
        end = threading.Timer(0.5, reader.commit)
        end.start()
        with altering(pg_database, "u"):
            snapshot._beat()
            snapshot.give_way()
        assert snapshot.read_from() == {}
    assert not caplog.records


def test_what_never_ends_has_the_limit_that_is_set(
    pg_database: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pg_database.execute("create view endless as select 1 as id from pg_sleep(60)")
    spec = source(
        pg_database, monkeypatch, tmp_path, extract_table="endless", statement_timeout="1s"
    ).spec
    with pytest.raises(SourceQueryFailed, match=r"longer than source\.statement_timeout"):
        run_extract(spec)


def test_a_server_that_logs_in_and_falls_silent_is_not_waited_for(
    pg_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SwitchProxy(pg_database.port) as door:
        found = source(
            replace(pg_database, port=door.port),
            monkeypatch,
            connection={"stall_timeout": "1s", "sslmode": "disable"},
        )
        opened = connect(found.connection)
        door.stalled.set()
        with pytest.raises(SourceUnavailable, match=r"nothing for 1 s.*stall_timeout"):
            execute(opened, "select 1")
        opened.close()


def test_a_snapshot_of_a_server_that_fell_silent_is_left_at_once(
    pg_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that holds it waits for an answer to its heartbeat."""
    monkeypatch.setattr(snapshot_module, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(snapshot_module, "_END_SECONDS", 0.1)
    pg_database.execute("create table t (id int)")
    with SwitchProxy(pg_database.port) as door:
        server = replace(pg_database, port=door.port)
        found = source(server, monkeypatch, extract_table="t", connection={"sslmode": "disable"})
        with snapshot_of(found):
            door.stalled.set()
            time.sleep(0.2)
            left = time.monotonic()
        assert time.monotonic() - left < 10
