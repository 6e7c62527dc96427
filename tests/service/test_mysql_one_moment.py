"""One snapshot for all splits of a MySQL table: of one moment, whoever writes, or said why not."""

from __future__ import annotations

import contextlib
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymysql
import pytest

from extract_jobs.errors import ConfigError, SourceUnavailable
from extract_jobs.run import run_extract
from extract_jobs.sources.mysql import one_moment
from extract_jobs.sources.mysql.lending import borrowed
from extract_jobs.sources.mysql.session import execute
from extract_jobs.sources.mysql.snapshot import MysqlSnapshot
from extract_jobs.sources.splits import Split
from tests.support.mysql_servers import MysqlServer
from tests.support.mysql_source import ids, snapshot_of, source
from tests.support.mysql_writer import ROWS, SPLIT, Writer, make_table

Row = tuple[Any, ...]


@pytest.fixture
def server(mysql_database: MysqlServer) -> MysqlServer:
    """A database with a table ``t`` of several splits."""
    make_table(mysql_database)
    return mysql_database


@contextlib.contextmanager
def taken(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch, **overrides: Any
) -> Iterator[tuple[MysqlSnapshot, list[Split], dict[str, Any]]]:
    """Take the snapshot of a table; give what the report would tell, too."""
    here = overrides.pop("here", SPLIT["max_connections"])
    split = SPLIT | overrides.pop("split", {})
    found = source(server, monkeypatch, **{"extract_table": "t", "split": split} | overrides)
    with snapshot_of(found) as snapshot:
        splits = snapshot.splits(found.spec)
        shown = snapshot.take(len(splits), here)
        yield snapshot, splits, shown


def rows(snapshot: MysqlSnapshot, split: Split) -> list[Row]:
    """Read a split as a worker does, through a reader that was pickled."""
    reader = pickle.loads(pickle.dumps(snapshot.reader))
    return [tuple(row.values()) for batch in reader.read(split) for row in batch.to_pylist()]


def test_all_splits_see_one_moment_while_rows_are_moved_and_added(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(server)
    with writer.writing(), taken(server, monkeypatch) as (snapshot, splits, shown):
        assert shown == {"one_snapshot": True}
        assert snapshot.shared
        assert len(splits) > 8
        at = writer.done
        with ThreadPoolExecutor(4) as pool:
            read = [row for part in pool.map(lambda one: rows(snapshot, one), splits)
                    for row in part]  # fmt: skip
        whole = [rows(snapshot, Split(0)) for _ in range(4)]
        counted = snapshot.count()
        assert writer.done > at  # the writer went on meanwhile
    assert all(sorted(read) == sorted(one) for one in whole)
    assert len(read) == counted
    assert {row[1] for row in read} >= set(range(ROWS))
    # A lock that was free is held for a few round trips alone.
    assert writer.slowest < one_moment.LOCK_SECONDS + one_moment.HOLD_SECONDS


def test_without_it_splits_see_moments_of_their_own(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above would see."""
    wanted = {"one_snapshot": "never"}
    with taken(server, monkeypatch, split=wanted) as (snapshot, splits, shown):
        assert shown == {
            "one_snapshot": False,
            "one_snapshot_missing": "split.one_snapshot is never",
        }
        assert not snapshot.shared
        first = rows(snapshot, splits[0])
        server.execute(f"update t set k = {20 * ROWS} where k = {first[0][0]}")
        read = [*first, *(row for one in splits[1:] for row in rows(snapshot, one))]
    assert len(read) == ROWS + 1


def test_an_open_transaction_that_has_written_is_waited_for_but_not_long(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows would come between two snapshots. Other writers queue for a bounded time."""
    monkeypatch.setattr(one_moment, "_PAUSE_SECONDS", 0.1)
    held = server.connect(autocommit=False)
    with contextlib.closing(held), held.cursor() as cursor:
        cursor.execute("update t set note = 'held' where id = 7")
        writer = Writer(server)
        with writer.writing():
            with taken(server, monkeypatch) as (snapshot, splits, shown):
                assert shown["one_snapshot"] is False
                assert "did not end within 1 s" in shown["one_snapshot_missing"]
                assert not snapshot.shared
                assert len(rows(snapshot, splits[0])) > 0
            with (
                pytest.raises(SourceUnavailable, match=r"require.*did not end within 1 s"),
                taken(server, monkeypatch, split={"one_snapshot": "require"}),
            ):
                pass
        assert writer.slowest < one_moment.LOCK_SECONDS + 1.5
        ended = threading.Timer(0.5, held.rollback)
        ended.start()
        with taken(server, monkeypatch) as (_, _, shown):
            assert shown == {"one_snapshot": True}
        ended.join()


def test_rows_that_a_foreign_key_deletes_are_waited_for_too(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction names another table; the server's default may be not to lock in InnoDB."""
    monkeypatch.setattr(one_moment, "_PAUSE_SECONDS", 0.1)
    server.execute(
        "create table parent (id int primary key)",
        "insert into parent select id from t",
        "alter table t add foreign key (id) references parent (id) on delete cascade",
        "set global innodb_table_locks = 0",
    )
    held = server.connect(autocommit=False)
    try:
        with contextlib.closing(held), held.cursor() as cursor:
            cursor.execute("delete from parent where id < 100")
            with taken(server, monkeypatch) as (_, _, shown):
                assert "did not end within 1 s" in shown["one_snapshot_missing"]
    finally:
        server.execute("set global innodb_table_locks = 1")


HOLDER = """
import json, os, signal, sys
from extract_jobs.connections import DatabaseConnection, resolve_connection
from extract_jobs.sources.mysql import one_moment
from extract_jobs.spec.source import ConnectionSpec

one_moment._IDLE_SECONDS = 2
one_moment._in_time = lambda *_: (print("locked", flush=True),
                                  os.kill(os.getpid(), getattr(signal, sys.argv[2])))
connection = ConnectionSpec.model_validate_json(sys.argv[1])
try:
    one_moment.open_together(resolve_connection(connection, engine="mysql"), "t", 3)
except one_moment.NoCommonSnapshot as error:
    print(error, flush=True)
"""
"""A driver that falls silent while it holds the lock."""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_a_driver_that_dies_or_stops_holds_no_lock_and_has_no_snapshot(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    found = source(server, monkeypatch, extract_table="t")
    command = [sys.executable, "-c", HOLDER, found.spec.connection.model_dump_json(), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        begun = time.monotonic()
        server.execute("set lock_wait_timeout = 30", "insert into t values (-1, -1, 'waited')")
        assert time.monotonic() - begun < 20
        if how == "SIGSTOP":
            # Its sessions may have begun after the lock was gone: it must not believe in them.
            holder.send_signal(signal.SIGCONT)
            assert "the connections failed" in holder.stdout.readline()


def test_nothing_is_locked_once_the_snapshot_is_taken(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with taken(server, monkeypatch) as (snapshot, splits, _):
        server.execute("set lock_wait_timeout = 1, innodb_lock_wait_timeout = 1",
                       "delete from t where id < 100")  # fmt: skip
        assert len([row for one in splits for row in rows(snapshot, one)]) == ROWS
        assert snapshot.count() == ROWS


def ended_by_the_server(server: MysqlServer, place: str) -> None:
    with borrowed(place, "reading t", 60) as opened:
        [[number]] = execute(opened, "select connection_id()")
        server.execute(f"kill {number}")
        execute(opened, "select 1")


def test_a_session_that_is_lost_costs_one_try_and_the_moment_stays(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with taken(server, monkeypatch) as (snapshot, splits, _):
        server.execute("delete from t where id >= 100")
        place = snapshot.reader.sessions
        assert place is not None
        # A worker that dies: its end of both sockets closes.
        for _ in range(2):
            with contextlib.suppress(SourceUnavailable), borrowed(place, "reading t", 60):
                raise OSError
        # One whose session the server ends.
        with pytest.raises(SourceUnavailable, match="connection was lost"):
            ended_by_the_server(server, place)
        # Two readers and one session: one waits for the other.
        with ThreadPoolExecutor(2) as pool:
            read = list(pool.map(lambda one: rows(snapshot, one), splits))
        assert sum(map(len, read)) == ROWS
        snapshot.check()
        stopped = snapshot.reader.read(splits[0])
        next(stopped)
        stopped.close()  # type: ignore[attr-defined]
        for _ in range(2):  # the session may be on its way back
            with pytest.raises(SourceUnavailable, match="were all lost"):
                rows(snapshot, splits[0])
        with pytest.raises(SourceUnavailable, match="were all lost"):
            snapshot.check()


REFUSED = {
    "a view": ({"extract_table": "v", "split": SPLIT | {"strategy": "range", "column": "id"}},
               "a view may read other tables"),
    "a query": ({"extract_table": "q", "query": "select * from t",
                 "split": SPLIT | {"strategy": "range", "column": "id"}},
                "a query may read other tables"),
    "MyISAM": ({"extract_table": "m"}, "its engine, MyISAM, has no snapshots"),
    "a subquery": ({"where": "id in (select id from v)"}, "where has a subquery"),
    "a stored function": ({"where": "own(id) > 0"}, "where has a subquery or a stored function"),
    "executors": ({"here": 0}, "read on other machines"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_locked_is_reported(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    overrides, reason = REFUSED[what]
    server.execute(
        "create view v as select * from t",
        "create table m (k int primary key, id int, note varchar(200)) engine = MyISAM",
        "insert into m select * from t",
        "create function own(x int) returns int deterministic return x + 1",
    )
    with taken(server, monkeypatch, **overrides) as (snapshot, splits, shown):
        assert reason in shown["one_snapshot_missing"]
        assert len(splits) > 1
        assert not snapshot.shared
        assert sum(len(ids(snapshot, one)) for one in splits) >= ROWS - 1
    required = (overrides.get("split") or SPLIT) | {"one_snapshot": "require"}
    with (
        pytest.raises(ConfigError, match=reason),
        taken(server, monkeypatch, **overrides | {"split": required}),
    ):
        pass


@pytest.mark.parametrize("asked", [0, 1])
def test_sessions_that_reach_another_server_share_no_snapshot(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    """Before their transaction, or only in it, as behind a proxy that splits reads and writes."""
    prepare = one_moment._prepare

    def prepare_for_a_proxy(coordinator: Any) -> str:
        # The condition holds as often as the session still reaches the server that locks.
        mark = prepare(coordinator)
        return f"(@asked := coalesce(@asked, 0) + 1) <= {asked} and {mark}"

    monkeypatch.setattr(one_moment, "_prepare", prepare_for_a_proxy)
    with taken(server, monkeypatch) as (snapshot, splits, shown):
        assert "lead to different servers" in shown["one_snapshot_missing"]
        assert not snapshot.shared
        assert sum(len(rows(snapshot, one)) for one in splits) == ROWS


def test_a_server_that_ignores_the_lock_has_no_common_snapshot(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TiDB and Vitess answer LOCK TABLES with OK and lock nothing."""
    monkeypatch.setattr(one_moment, "_lock", lambda opened, table: execute(opened, "do 0"))
    with taken(server, monkeypatch) as (snapshot, _, shown):
        assert re.fullmatch(
            r"the server \(.+\) accepts LOCK TABLES but does not enforce it, as TiDB and Vitess do",
            shown["one_snapshot_missing"],
        )
        assert not snapshot.shared
    with (
        pytest.raises(ConfigError, match="does not enforce it"),
        taken(server, monkeypatch, split={"one_snapshot": "require"}),
    ):
        pass


def test_a_user_who_may_not_lock_learns_which_right_is_missing(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"u{random.randrange(10**9)}"
    server.execute(
        f"create user '{name}'@'%' identified by 'secret'",
        f"grant select on `{server.database}`.t to '{name}'@'%'",
    )
    monkeypatch.setenv("TEST_LOCKER", "secret")
    connection = {"user": name, "password_env": "TEST_LOCKER"}
    with taken(server, monkeypatch, connection=connection) as (_, _, shown):
        assert shown["one_snapshot_missing"] == (
            "the user may not lock it (grant LOCK TABLES on its database)"
        )
    server.execute(f"grant lock tables on `{server.database}`.* to '{name}'@'%'")
    with taken(server, monkeypatch, connection=connection) as (_, _, shown):
        assert shown == {"one_snapshot": True}
    server.execute(f"drop user '{name}'@'%'")


def end_all(server: MysqlServer) -> None:
    """End every session in a database, as a server that restarts does."""
    found = server.rows(
        f"select id from information_schema.processlist where db = '{server.database}'"
        " and id <> connection_id()"
    )
    for [number] in found:
        with contextlib.suppress(pymysql.Error):
            server.execute(f"kill {number}")


def test_a_run_that_loses_all_sessions_fails_and_the_next_attempt_succeeds(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A session of now would see another moment than the splits that have been read."""
    first = source(server, monkeypatch, tmp_path, extract_table="t", split=SPLIT).spec
    take = MysqlSnapshot.take

    def take_and_lose(snapshot: MysqlSnapshot, *given: int, keyed: bool) -> dict[str, Any]:
        shown = take(snapshot, *given, keyed=keyed)
        end_all(server)
        return shown

    with monkeypatch.context() as patched:
        patched.setattr(MysqlSnapshot, "take", take_and_lose)
        with pytest.raises(SourceUnavailable, match=r"all lost; run again.*one_snapshot") as error:
            run_extract(first)
    assert error.value.retryable
    assert list(tmp_path.rglob("*.parquet")) == []
    report = run_extract(first.model_copy(update={"attempt": 2}))
    assert report.rows == report.source_rows == ROWS
    assert report.read_from == {"one_snapshot": True}
