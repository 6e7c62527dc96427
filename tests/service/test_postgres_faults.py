"""Connections cut, sessions timed out, statements failing while rows are read: said, not hidden."""

from __future__ import annotations

import dataclasses
import time

import psycopg
import pytest

from extract_jobs.errors import ConfigError, ExtractError, SourceQueryFailed, SourceUnavailable
from extract_jobs.sources.postgres.snapshot import PostgresSnapshot
from extract_jobs.sources.postgres.source import PostgresSource
from extract_jobs.sources.splits import Split
from tests.support.postgres import VERSION, Server
from tests.support.postgres_source import (
    everything_said,
    filled,
    ids,
    read_wide,
    snapshot_of,
    source,
)

BOTH_WAYS = pytest.mark.parametrize("wide", [False, True], ids=["duckdb", "psycopg"])


@pytest.fixture
def large(pg_database: Server) -> Server:
    """More rows than fit into the socket's buffers, which may grow to some 40 MB."""
    pg_database.execute(
        "create table t (id int, pad text)",
        "insert into t select i, repeat(md5(i::text), 25) from generate_series(1, 120000) i",
        "analyze t",
    )
    return pg_database


def opened(server: Server, monkeypatch: pytest.MonkeyPatch, wide: bool, **overrides):
    if wide:
        read_wide(monkeypatch)
    return source(server, monkeypatch, **({"extract_table": "t"} | overrides))


def terminate(server: Server, which: str) -> None:
    """Cut our sessions: the one holding the snapshot, or those reading."""
    holding = "backend_xid is null and state = 'idle in transaction'"
    condition = holding if which == "exporter" else "state = 'active'"
    with server.connect() as connection:
        rows = connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname ="
            " current_database() and pid <> pg_backend_pid() and application_name ="
            f" 'extract-jobs' and {condition}".encode()
        ).fetchall()
    assert rows == [(True,)], rows


@BOTH_WAYS
def test_a_split_cut_while_it_streams_is_retryable_and_can_be_read_again(large, monkeypatch, wide):
    found = opened(large, monkeypatch, wide)
    with snapshot_of(found) as snapshot:
        for _ in range(3):
            batches = snapshot.reader.read(Split(0))
            next(batches)
            terminate(large, "reader")
            with pytest.raises(SourceUnavailable, match="connection was lost") as caught:
                list(batches)
            assert large.password not in everything_said(caught.value)
        snapshot.check()
        assert sorted(ids(snapshot, Split(0))) == list(range(1, 120001))


@BOTH_WAYS
def test_a_reader_given_up_after_its_connection_was_cut(large, monkeypatch, wide):
    found = opened(large, monkeypatch, wide)
    with snapshot_of(found) as snapshot:
        batches = snapshot.reader.read(Split(0))
        next(batches)
        terminate(large, "reader")
        batches.close()
        assert len(ids(snapshot, Split(0))) == 120000


@BOTH_WAYS
def test_the_exporter_cut_is_noticed_and_no_split_can_join(large, monkeypatch, wide):
    found = opened(large, monkeypatch, wide)
    with snapshot_of(found) as snapshot:
        before = snapshot.reader.read(Split(0))
        next(before)
        terminate(large, "exporter")
        with pytest.raises(SourceUnavailable, match="holds the snapshot"):
            snapshot.check()
        with pytest.raises(SourceUnavailable, match="snapshot can no longer be joined"):
            ids(snapshot, Split(0))
        with pytest.raises(SourceUnavailable, match="connection was lost"):
            snapshot.count()
        # A split that had joined before has its snapshot still.
        assert sum(batch.num_rows for batch in before) > 100000


def test_the_heartbeat_itself_notices_a_lost_exporter(large, monkeypatch):
    monkeypatch.setattr("extract_jobs.sources.postgres.snapshot.HEARTBEAT_SECONDS", 0.05)
    found = opened(large, monkeypatch, False)
    with snapshot_of(found) as snapshot:
        terminate(large, "exporter")
        deadline = time.monotonic() + 10
        while snapshot._lost is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@BOTH_WAYS
def test_a_server_that_cuts_idle_transactions_after_a_second(large, monkeypatch, wide):
    limits = {"idle_in_transaction_session_timeout": 0, "statement_timeout": 0,
              "idle_session_timeout": 14, "transaction_timeout": 17}  # fmt: skip
    large.execute(
        *(
            f"alter database \"{large.database}\" set {name} = '1s'"
            for name, version in limits.items()
            if version <= VERSION
        )
    )
    with large.connect() as plain:
        plain.execute("begin")
        time.sleep(1.5)
        with pytest.raises(psycopg.Error, match="terminating connection"):
            plain.execute("select 1")
    found = opened(large, monkeypatch, wide)
    with snapshot_of(found) as snapshot:
        batches = snapshot.reader.read(Split(0))
        rows = next(batches).num_rows
        time.sleep(2)  # a slow consumer, and an exporter that has nothing to do
        rows += next(batches).num_rows
        rows += sum(batch.num_rows for batch in batches)
        assert rows == 120000
        snapshot.check()
        assert snapshot.count() == 120000


@BOTH_WAYS
@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"password": "wr0ng-passw0rd"}, ConfigError),
        ({"port": 9}, SourceUnavailable),
        ({"database": "no such db"}, (ConfigError, SourceUnavailable)),
        ({"sslmode": "require"}, ConfigError),
    ],
)
def test_a_split_that_cannot_connect_never_shows_the_password(
    large, monkeypatch, wide, changed, kind
):
    found = opened(large, monkeypatch, wide)
    with snapshot_of(found) as snapshot:
        reader = dataclasses.replace(
            snapshot.reader, connection=dataclasses.replace(snapshot.reader.connection, **changed)
        )
        with pytest.raises(kind) as caught:
            list(reader.read(Split(0)))
    said = everything_said(caught.value)
    assert large.password not in said
    assert large.password.encode().decode("ascii", "backslashreplace") not in said
    assert "wr0ng" not in said
    assert len(str(caught.value).splitlines()) == 1


@BOTH_WAYS
def test_a_row_that_fails_is_no_connection_trouble_and_its_data_are_not_shown(
    large, monkeypatch, wide
):
    large.execute("create view v as select id, (pad || 'topsecret')::int as bad from t")
    found = opened(large, monkeypatch, wide, extract_table="v")
    with snapshot_of(found) as snapshot, pytest.raises(SourceQueryFailed) as caught:
        list(snapshot.reader.read(Split(0)))
    assert "invalid input syntax for type integer" in str(caught.value)
    assert "topsecret" not in str(caught.value)
    assert isinstance(caught.value, ExtractError)
    assert not caught.value.retryable


def test_the_table_cannot_be_altered_or_dropped_while_a_snapshot_is_held(large, monkeypatch):
    found = opened(large, monkeypatch, False)
    with snapshot_of(found) as snapshot, large.connect() as other:
        other.execute("set lock_timeout = '100ms'")
        for statement in ("alter table t add more int", "drop table t", "truncate t"):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute(statement)
        assert len(ids(snapshot, Split(0))) == 120000
    large.execute("alter table t add more int")


def test_no_session_stays_behind_after_all_this(large, monkeypatch):
    found: PostgresSource = opened(large, monkeypatch, False)
    held: PostgresSnapshot
    with snapshot_of(found) as held:
        ids(held, Split(0))
    with large.connect() as connection:
        deadline = time.monotonic() + 10
        while connection.execute(
            "select 1 from pg_stat_activity where application_name = 'extract-jobs'"
        ).fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_session_cannot_write(large, monkeypatch):
    large.execute(
        "create function sneaky() returns int language plpgsql as"
        " $$ begin insert into t values (-1); return 1; end $$"
    )
    found = opened(large, monkeypatch, False, query="select sneaky() as id")
    with snapshot_of(found) as snapshot, pytest.raises(SourceQueryFailed, match="read-only"):
        list(snapshot.reader.read(Split(0)))
    filled(large, 1, "other")
    with large.connect() as connection:
        row = connection.execute("select count(*) from t where id < 0").fetchone()
    assert row == (0,)
