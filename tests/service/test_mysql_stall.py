"""A MySQL server that sends nothing more, while its connection is up, is waited for for a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from extract_jobs.errors import SourceUnavailable
from extract_jobs.sources.mysql.session import execute, session
from tests.support.mysql_servers import MysqlServer
from tests.support.mysql_source import snapshot_of, source
from tests.support.switch_proxy import SwitchProxy

ROWS = 2**17
STALLED = r"sent nothing for as long as connection\.stall_timeout allows"


@pytest.fixture
def door(mysql_database: MysqlServer) -> Iterator[SwitchProxy]:
    doubled = "insert into t select id + (select max(id) from t), note from t"
    mysql_database.execute(
        "create table t (id int primary key, note varchar(200)) engine innodb",
        "insert into t values (1, repeat('n', 150))",
        *[doubled] * 17,
        "analyze table t",
    )
    with SwitchProxy(mysql_database.port) as door:
        yield door


@pytest.mark.parametrize(
    "one_snapshot", ["never", "require"], ids=["its own session", "a lent one"]
)
def test_a_stall_ends_when_its_time_is_over(
    door: SwitchProxy,
    mysql_database: MysqlServer,
    monkeypatch: pytest.MonkeyPatch,
    one_snapshot: str,
) -> None:
    found = source(
        replace(mysql_database, port=door.port),
        monkeypatch,
        extract_table="t",
        connection={"stall_timeout": "2s", "sslmode": "disable"},
        split={"one_snapshot": one_snapshot, "target_bytes": 2**23},
    )
    with snapshot_of(found) as snapshot:
        splits = snapshot.splits(found.spec)
        assert len(splits) > 1
        shown = snapshot.take(len(splits), len(splits))
        assert shown["one_snapshot"] is (one_snapshot == "require")
        batches = iter(snapshot.reader.read(splits[0]))
        read = next(batches).num_rows
        door.stalled.set()
        started = time.monotonic()
        with pytest.raises(SourceUnavailable, match=STALLED):
            read += sum(batch.num_rows for batch in batches)
        assert time.monotonic() - started < 20
    assert read < ROWS


def test_an_answer_that_does_not_come_is_waited_for_as_long(
    door: SwitchProxy, mysql_database: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = source(
        replace(mysql_database, port=door.port),
        monkeypatch,
        extract_table="t",
        connection={"stall_timeout": "1s"},
    )

    def stall() -> None:
        with session(found.connection, "looking") as opened:
            assert execute(opened, "select 1")
            door.stalled.set()
            execute(opened, "select 1")

    with pytest.raises(SourceUnavailable, match=f"looking failed: .*{STALLED}"):
        stall()


def test_a_query_may_take_longer_than_a_connection(
    mysql_database: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"connect_timeout_seconds": 1, "stall_timeout": "10s"}
    found = source(mysql_database, monkeypatch, extract_table="t", connection=limits)
    with session(found.connection, "x") as opened:
        assert execute(opened, "select sleep(1.5)") == [(0,)]
