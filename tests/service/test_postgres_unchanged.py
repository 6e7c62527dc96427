"""A range that a later snapshot takes for unchanged has the very rows that an earlier one saw.

Each test of `COUNTEREXAMPLES` is a history after which as many rows are visible, none of them
written since, and yet rows or their values are others.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

import extract_jobs.sources.postgres.source as source_module
from extract_jobs.sources.postgres.source import PostgresSource
from tests.support.page_histories import look
from tests.support.postgres import Server, make_cluster, run_server
from tests.support.postgres_source import source
from tests.support.sampling import EXHAUSTIVE

VERSIONS = [15, 18] if EXHAUSTIVE else [18]
TABLE = (
    "create table t (a int, b text)",
    "insert into t select i, repeat(chr(97 + i), 1900) from generate_series(1, 24) i",
)


@pytest.fixture(scope="module", params=VERSIONS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Server]:
    with run_server(request.param, max_prepared_transactions="5") as running:
        yield running


@pytest.fixture
def server(cluster: Server) -> Iterator[Server]:
    cluster.execute("create database own")
    own = replace(cluster, database="own")
    own.execute(*TABLE)
    yield own
    cluster.execute("drop database own with (force)")


@pytest.fixture
def table(server: Server, monkeypatch: pytest.MonkeyPatch) -> PostgresSource:
    return source(server, monkeypatch, extract_table="public.t")


def test_an_untouched_table_is_unchanged_and_one_update_changes_its_own_range(
    server: Server, table: PostgresSource
) -> None:
    before, _ = look(table)
    assert len(before.rows) == 3
    assert before.durable
    again, kept = look(table, before)
    assert kept.ranges == list(before.rows)
    server.execute("update t set a = -1 where a = 12")
    _, kept = look(table, again)
    assert [one.start for one in kept.ranges] == [0, 4]  # the new version is on a new page
    assert not kept.wrong


TOPICS = [
    "the server's history", "the database", "the table", "the table's columns",
    "the table's parents", "the columns' types", "enum labels", "the session's settings",
    "how rows are read",
]  # fmt: skip


def test_every_topic_of_the_key_is_compared(table: PostgresSource) -> None:
    before, _ = look(table)
    assert before.moment is not None
    assert sorted(before.moment.key) == sorted(TOPICS)
    for topic in TOPICS:
        other = {**before.moment.key, topic: ["another"]}
        _, kept = look(table, replace(before, moment=replace(before.moment, key=other)))
        assert kept.reason == f"{topic} changed"


def test_the_tables_own_entry_must_be_older(server: Server, table: PostgresSource) -> None:
    """It may be as old as the oldest transaction that was open: that one is not below it."""
    before, _ = look(table)
    assert before.moment is not None
    with server.connect() as connection:
        row = connection.execute(
            "select xmin::text::int8 from pg_class where oid = 't'::regclass"
        ).fetchone()
    assert row is not None
    for xmin, is_older in ((row[0] + 1, True), (row[0], False)):
        snapshot = {**before.moment.snapshot, "xmin": str(xmin)}
        _, kept = look(table, replace(before, moment=replace(before.moment, snapshot=snapshot)))
        assert ("younger" in kept.reason) != is_older


def test_the_servers_history_is_what_the_server_says(server: Server, table: PostgresSource) -> None:
    """A restart changes its start time, a promotion its timeline, another cluster all of it."""
    before, _ = look(table)
    assert before.moment is not None
    with server.connect() as connection:
        row = connection.execute(
            "select system_identifier::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),"
            " version(), extract(epoch from pg_postmaster_start_time())::text"
            " from pg_control_system()"
        ).fetchone()
    assert row is not None
    cluster, timeline, version, started = before.moment.key["the server's history"]
    assert (cluster, int(timeline), version, started) == (row[0], int(row[1], 16), *row[2:])


HARMLESS = {
    "vacuum": ["vacuum t"],
    "freeze": ["vacuum (freeze) t"],
    "analyze": ["analyze t"],
    "an index": ["create index on t (a)", "drop index t_a_idx"],
    "rolled back": ["begin; update t set b = 'x'; rollback"],
    "row locks": ["begin; select * from t for update; commit"],
    "another table": ["create table other (x int)", "insert into other values (1)"],
}


@pytest.mark.parametrize("statements", HARMLESS.values(), ids=HARMLESS)
def test_what_changes_no_row_keeps_every_range(
    server: Server, table: PostgresSource, statements: list[str]
) -> None:
    before, _ = look(table)
    server.execute(*statements)
    _, kept = look(table, before)
    assert kept.reason == ""
    assert kept.ranges == list(before.rows)
    assert not kept.wrong


COUNTEREXAMPLES = {
    "a deleted row's place is reused": [
        "delete from t where a = 1", "vacuum t", "insert into t values (1, repeat('z', 1900))",
    ],
    "hot update": ["update t set a = 99 where a = 3"],
    "truncate and the same rows": [
        "create temp table k as table t", "truncate t", "insert into t table k",
    ],
    "truncate and freeze": [
        "create temp table k as select a, 'y' || b from t",
        "begin; truncate t; insert into t table k; commit", "vacuum (freeze) t",
    ],
    "vacuum full": ["delete from t where a = 2", "vacuum full t"],
    "cluster": ["create index i on t (b desc)", "cluster t using i"],
    "two renamed columns": ["alter table t rename a to x", "alter table t rename b to a",
                            "alter table t rename x to b"],
    "a column dropped and added": ["alter table t drop a", "alter table t add a int"],
    "swapped with another table": [
        "create table u as select a, 'x' || b as b from t", "alter table t rename to v",
        "alter table u rename to t",
    ],
    "a changed type": ["alter table t alter a type bigint"],
    "unlogged and back": ["alter table t set unlogged", "update t set a = a + 1",
                          "alter table t set logged"],
}  # fmt: skip


@pytest.mark.parametrize("statements", COUNTEREXAMPLES.values(), ids=COUNTEREXAMPLES)
def test_a_changed_table_keeps_no_range_wrongly(
    server: Server, table: PostgresSource, statements: list[str]
) -> None:
    before, _ = look(table)
    server.execute(*statements)
    _, kept = look(table, before)
    assert not kept.wrong
    assert kept.ranges != list(before.rows)


def test_a_transaction_that_was_open_is_noticed_however_it_ends(
    server: Server, table: PostgresSource
) -> None:
    with server.connect(autocommit=False) as first, server.connect(autocommit=False) as second:
        first.execute("update t set a = -1 where a = 1")
        first.execute("savepoint s")
        first.execute("update t set a = -24 where a = 24")
        second.execute("delete from t where a = 12")
        before, _ = look(table)
        first.execute("release s")
        first.commit()
        second.commit()
    _, kept = look(table, before)
    assert not kept.wrong
    assert kept.ranges == []


def test_the_first_transaction_after_the_snapshot_is_not_below_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update within the page leaves as many rows, of the very transaction that is xmin."""
    server.execute("create table e (a int)", "insert into e values (1), (2)")
    found = source(server, monkeypatch, extract_table="public.e")
    with server.connect(autocommit=False) as first:
        first.execute("update e set a = 9 where a = 1")
        before, _ = look(found)
        first.commit()
    _, kept = look(found, before)
    assert (kept.ranges, kept.reason) == ([], "")


def test_a_row_without_a_transaction_is_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rolled back row is made visible, as servers before 9.4 froze rows: without a number."""
    with server.connect() as connection:
        available = "select name from pg_available_extensions where name = 'pg_surgery'"
        if connection.execute(available).fetchone() is None:
            pytest.skip("pg_surgery is not packaged with this server")
    server.execute(
        "create extension pg_surgery",
        "create table e (a int)",
        "insert into e values (1), (2)",
        "begin; insert into e values (3); rollback",
    )
    found = source(server, monkeypatch, extract_table="public.e")
    before, _ = look(found)
    assert len(look(found, before)[1].ranges) == 1
    server.execute(
        "delete from e where a = 1",
        "select heap_force_freeze('e'::regclass, array['(0,3)']::tid[])",
    )
    _, kept = look(found, before)
    assert (kept.ranges, kept.reason) == ([], "")


def test_settings_are_part_of_the_values(server: Server, table: PostgresSource) -> None:
    before, _ = look(table)
    server.execute("alter database own set xmlbinary = 'hex'")
    assert look(table, before)[1].reason == "the session's settings changed"


def test_a_prepared_transaction_is_open(server: Server, table: PostgresSource) -> None:
    server.execute("begin; update t set a = -1 where a = 1; prepare transaction 'p'")
    before, _ = look(table)
    server.execute("commit prepared 'p'")
    _, kept = look(table, before)
    assert not kept.wrong
    assert 0 not in [one.start for one in kept.ranges]


def test_enum_labels_are_part_of_the_values(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.execute(
        "create type mood as enum ('sad', 'glad')",
        "create domain feeling as mood",
        "create table e (m mood[], f feeling)",
        "insert into e values ('{sad,glad}', 'sad')",
    )
    found = source(server, monkeypatch, extract_table="public.e")
    before, _ = look(found)
    _, kept = look(found, before)
    assert len(kept.ranges) == 1
    server.execute("alter type mood rename value 'sad' to 'blue'")
    _, kept = look(found, before)
    assert kept.reason == "enum labels changed"


def test_labels_renamed_and_put_back_while_rows_were_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.execute(
        "create type mood as enum ('sad', 'glad')",
        "create table e (m mood)",
        "insert into e values ('sad')",
    )
    found = source(server, monkeypatch, extract_table="public.e")
    real = source_module.export_snapshot

    def exported(*arguments):
        snapshot = real(*arguments)
        server.execute("alter type mood rename value 'sad' to 'blue'")
        return snapshot

    with monkeypatch.context() as during:
        during.setattr(source_module, "export_snapshot", exported)
        before, _ = look(found)
    server.execute("alter type mood rename value 'blue' to 'sad'")
    _, kept = look(found, before)
    assert kept.ranges == []
    assert not kept.wrong


DEPENDENT = {
    "composite": ["create type c as (x int, y int)", "create table d (v c)"],
    "array of composite": ["create type c as (x int, y int)", "create table d (v c[])"],
    "a table's row": ["create table r (x int)", "create table d (v r)"],
    "range of a type": ["create type f as range (subtype = float8)", "create table d (v f)"],
    "regclass": ["create table d (v regclass)"],
    "regtype[]": ["create table d (v regtype[])"],
    "aclitem": ["create table d (v aclitem[])"],
    "domain over composite": ["create type c as (x int)", "create domain k as c",
                              "create table d (v k)"],
    "money": ["create table d (v money)"],
}  # fmt: skip


@pytest.mark.parametrize("statements", DEPENDENT.values(), ids=DEPENDENT)
def test_types_whose_values_depend_on_more_than_the_row(
    server: Server, monkeypatch: pytest.MonkeyPatch, statements: list[str]
) -> None:
    server.execute(*statements)
    casts = {"cast": {"v": "decimal(20,2)"}} if "money" in statements[-1] else {}
    seen, _ = look(source(server, monkeypatch, extract_table="public.d", columns=casts))
    assert "depend on more than its row" in seen.reason


OTHERS = {
    "a view": (["create view d as table t"], {}, "a view"),
    "no partition": (["create table d (a int) partition by list (a)"], {}, "no partition"),
    "an unlogged partition": (
        [
            "create table d (a int) partition by list (a)",
            "create unlogged table e partition of d default",
        ],
        {},
        "e is unlogged",
    ),
    "an unlogged table": (["create unlogged table d (a int)"], {}, "unlogged"),
    "a condition": (["create table d (a int)"], {"where": "a > 1"}, "condition"),
    "a query": ([], {"query": "select a from t"}, "query"),
    "a materialized view": (["create materialized view d as table t"], {}, "a view"),
}


@pytest.mark.parametrize(("statements", "overrides", "reason"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_plain_table_is_read(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    statements: list[str],
    overrides: dict[str, str],
    reason: str,
) -> None:
    server.execute(*statements)
    seen, _ = look(source(server, monkeypatch, extract_table="public.d", **overrides))
    assert reason in seen.reason


def test_a_column_that_is_computed_when_it_is_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.connect() as connection:
        if connection.info.server_version < 180000:
            pytest.skip("PostgreSQL 18 has virtual columns")
    server.execute("create table d (a int, v int generated always as (a + 1) virtual)")
    seen, _ = look(source(server, monkeypatch, extract_table="public.d"))
    assert seen.reason == "column v is computed when it is read"


def test_row_level_security_shows_what_policies_say(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.execute(
        "create role seer login password 'x'",
        "create table d (a int)",
        "insert into d values (1), (2)",
        "alter table d enable row level security",
        "create policy p on d using (a = 1)",
        "grant select on d to seer",
    )
    try:
        seer = replace(server, user="seer", password="x")
        found = source(seer, monkeypatch, extract_table="public.d", row_security="apply")
        seen, _ = look(found)
        assert seen.reason == "row-level security of d applies to the reader"
    finally:
        server.execute("drop owned by seer", "drop role seer")


PARTITIONED = (
    "alter table t rename to loose",
    "create table t (a int, b text) partition by range (a)",
    "create table low partition of t for values from (minvalue) to (9)",
    # Its columns are in another order, and one was dropped.
    "create table high (b text, gone int, a int)",
    "alter table high drop gone",
    "alter table t attach partition high for values from (9) to (1000)",
    "insert into t select * from loose",
    "drop table loose",
)


def partitioned(server: Server) -> None:
    """Make the table one of two partitions: eight rows on two pages, and sixteen on four."""
    server.execute(*PARTITIONED)


IN_PARTITIONS = {
    "nothing": ([], ["low", "high", "high"]),
    "an update": (["update t set b = 'new' where a = 3"], ["high", "high"]),
    "a row moves": (["update t set a = 2 where a = 24"], ["low", "high"]),
    "a partition comes": (
        ["create table more partition of t for values from (1000) to (2000)",
         "insert into t values (1001, 'more')"],
        ["low", "high", "high"],
    ),
    "a partition goes": (["alter table t detach partition low"], ["high", "high"]),
    "it comes back": (
        ["alter table t detach partition low",
         "alter table t attach partition low for values from (minvalue) to (9)"],
        ["high", "high"],
    ),
    "one is truncated": (
        ["create table k as table low", "truncate low", "insert into t table k"], ["high", "high"],
    ),
    "one is rewritten": (["vacuum full high"], ["low"]),
    "two swap their names": (
        ["alter table low rename to x", "alter table high rename to low",
         "alter table x rename to high"],
        [],
    ),
    "one gives way to another of its name": (
        ["create table k as table low", "drop table low",
         "create table low partition of t for values from (minvalue) to (9)",
         "insert into t select a, 'x' || b from k"],
        ["high", "high"],
    ),
    "the columns of one swap their names": (
        ["alter table t detach partition high", "alter table high rename a to x",
         "alter table high add a int", "update high set a = x + 1",
         "alter table high drop x",
         "alter table t attach partition high for values from (9) to (1000)"],
        ["low"],
    ),
    "one is divided": (
        ["alter table t detach partition low",
         "create table node (b text, a int) partition by list (a)",
         "alter table t attach partition node for values from (minvalue) to (9)",
         "create table node1 partition of node for values in (1)",
         "create table rest partition of node default",
         "insert into t table low"],
        ["high", "high"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statements", "kept_in"), IN_PARTITIONS.values(), ids=IN_PARTITIONS)
def test_each_partition_has_its_own_ranges(
    server: Server, table: PostgresSource, statements: list[str], kept_in: list[str]
) -> None:
    partitioned(server)
    before, _ = look(table)
    with server.connect() as connection:
        names = dict(
            connection.execute("select oid::text, relname from pg_class where relkind = 'r'")
        )
    server.execute(*statements)
    _, kept = look(table, before)
    assert kept.reason == ""
    assert not kept.wrong
    assert sorted(names[span.part] for span in kept.ranges) == sorted(kept_in)


def test_a_partitions_own_entries_are_compared_and_must_be_older(
    server: Server, table: PostgresSource
) -> None:
    server.execute(*PARTITIONED)
    with server.connect() as connection:
        row = connection.execute("select pg_current_xact_id()::text").fetchone()
        (oid,) = connection.execute("select 'low'::regclass::oid::text").fetchone() or ("",)
    assert row is not None
    server.execute("vacuum full low")  # its entry is younger than that
    before, _ = look(table)
    assert before.moment is not None
    assert oid in [span.part for span in look(table, before)[1].ranges]
    earlier = replace(before.moment, snapshot={**before.moment.snapshot, "xmin": row[0]})
    _, kept = look(table, replace(before, moment=earlier))
    assert kept.reason == ""
    assert kept.ranges
    assert oid not in [span.part for span in kept.ranges]
    parts = {**before.moment.parts, oid: "another"}
    _, kept = look(table, replace(before, moment=replace(before.moment, parts=parts)))
    assert kept.ranges
    assert oid not in [span.part for span in kept.ranges]


def test_children_have_ranges_of_their_own(server: Server, table: PostgresSource) -> None:
    server.execute(
        "create table child (c int) inherits (t)",
        "insert into child select a + 100, b, a from only t",
    )
    before, _ = look(table)
    assert len(look(table, before)[1].ranges) == 6
    server.execute("update only t set a = -1 where a = 1")
    _, kept = look(table, before)
    assert len(kept.ranges) == 5  # the new version of the row is on another page
    assert not kept.wrong


def test_a_partition_that_may_not_be_read_by_itself(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads it through its parent needs no right on it, and meets none of its policies."""
    partitioned(server)
    server.execute("create role seer login password 'x'", "grant select on t, low to seer")
    seer = replace(server, user="seer", password="x")
    try:
        seen, _ = look(source(seer, monkeypatch, extract_table="public.t"))
        assert "the user may not lock high" in seen.reason
        server.execute(
            "grant select on high to seer",
            "create schema apart",
            "alter table high set schema apart",
        )
        seen, _ = look(source(seer, monkeypatch, extract_table="public.t"))
        assert "the user may not lock apart.high" in seen.reason
        server.execute(
            "alter table apart.high set schema public", "alter table high enable row level security"
        )
        seen, _ = look(source(seer, monkeypatch, extract_table="public.t"))
        assert seen.reason == "row-level security of high applies to the reader"
    finally:
        server.execute("drop owned by seer", "drop role seer")


@pytest.mark.parametrize("same_oid", [False, True])
def test_another_database_under_the_same_name(
    cluster: Server, monkeypatch: pytest.MonkeyPatch, same_oid: bool
) -> None:
    template = replace(cluster, database="tpl")
    cluster.execute("create database tpl")
    template.execute(*TABLE)
    cluster.execute("create database da template tpl", "create database db template tpl")
    try:
        da = replace(cluster, database="da")
        da.execute("update t set b = 'prod' where a = 1")
        before, _ = look(source(da, monkeypatch, extract_table="public.t"))
        with cluster.connect() as connection:
            row = connection.execute("select oid from pg_database where datname = 'da'").fetchone()
        if same_oid:
            cluster.execute(
                "drop database da with (force)", f"create database da template tpl oid {row[0]}"
            )
        else:
            cluster.execute("alter database da rename to dc", "alter database db rename to da")
        da.execute("update t set b = 'test' where a = 1")
        _, kept = look(source(da, monkeypatch, extract_table="public.t"), before)
        assert kept.reason == "the database changed"
    finally:
        for name in ("da", "db", "dc", "tpl"):
            cluster.execute(f"drop database if exists {name} with (force)")


def test_a_snapshot_too_long_ago_for_ages_to_tell(table: PostgresSource) -> None:
    """Ages have 31 bits, and count back from a little after the snapshot."""
    before, _ = look(table)
    assert before.moment is not None
    xmin = int(before.moment.snapshot["xmax"]) - 2**31 + 10
    long_ago = replace(
        before.moment, snapshot={**before.moment.snapshot, "xmin": str(xmin), "xmax": "1"}
    )
    _, kept = look(table, replace(before, moment=long_ago))
    assert kept.reason == "the server's transactions are not those after the last run"


# --- crashes and copies -------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_crash_undoes_was_never_remembered(
    version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed backend crashes the server, whose start time stays, and unflushed WAL is lost."""
    with (
        make_cluster(version) as made,
        made.serving(wal_writer_delay="3s", bgwriter_lru_maxpages="0") as server,
    ):
        server.execute(*TABLE)
        found = source(server, monkeypatch, extract_table="public.t")
        with monkeypatch.context() as idle:
            idle.setattr("extract_jobs.sources.postgres.pages.FLUSH_SECONDS", 0.0)
            idle.setattr("extract_jobs.sources.postgres.pages.PostgresPages._wake", lambda _: None)
            with server.connect() as session:
                session.execute("set synchronous_commit = off")
                session.execute("update t set b = 'lost' where a = 1")
            lossy, _ = look(found)
        assert not lossy.durable
        before, _ = look(found)
        assert before.durable
        with contextlib.suppress(psycopg.Error), server.connect() as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
        for _ in range(100):
            with contextlib.suppress(psycopg.Error):
                server.execute("update t set b = 'after' where a = 20")
                break
        _, kept = look(found, before)
        assert not kept.wrong
        assert kept.ranges  # the start time is the same, and what was remembered was on the disk


def test_an_older_copy_of_the_server_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with make_cluster(18) as made:
        with made.serving() as server:
            server.execute(*TABLE)
        shutil.copytree(made.data, made.directory / "copy", copy_function=shutil.copy2)
        with made.serving() as server:
            server.execute("update t set b = 'first life' where a = 1")
            before, _ = look(source(server, monkeypatch, extract_table="public.t"))
        shutil.rmtree(made.data)
        (made.directory / "copy").rename(made.data)
        for path in [made.data, *made.data.rglob("*")]:
            os.chown(path, made.identity.get("user", -1), made.identity.get("group", -1))
        with made.serving() as server:
            server.execute("update t set b = 'second life' where a = 1")
            _, kept = look(source(server, monkeypatch, extract_table="public.t"), before)
        assert kept.reason == "the server's history changed"


# --- random histories ---------------------------------------------------------------------------

_STATEMENTS = (
    "insert into t select {n}, repeat('i', 400 + {n} % 1500) from generate_series(1, {k})",
    "update t set a = a + 1 where a % 31 = {k}",
    "update t set b = b where a = {n} % 24",
    "delete from t where a % 37 = {k}",
    "insert into t values ({n}, 'late')",
)
_MAINTENANCE = ("vacuum t", "vacuum (freeze) t", "analyze t", "checkpoint", "vacuum full t")


@pytest.mark.parametrize("seed", range(60 if EXHAUSTIVE else 2))
def test_random_histories(server: Server, table: PostgresSource, seed: int) -> None:
    """Sessions write, with savepoints, rollbacks and prepared transactions, between snapshots.

    Every other table is partitioned.
    """
    chance = random.Random(seed)
    if seed % 2:
        partitioned(server)
    before, total = None, 0
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(server.connect(autocommit=False)) for _ in range(3)]
        for one in sessions:
            one.execute("set lock_timeout = '100ms'")
            one.commit()
        for _ in range(12):
            for _ in range(chance.randrange(5)):
                write(chance, sessions)
            if chance.random() < 0.3:
                with (
                    contextlib.suppress(psycopg.errors.LockNotAvailable),
                    server.connect() as keeper,
                ):
                    keeper.execute("set lock_timeout = '100ms'")
                    keeper.execute(chance.choice(_MAINTENANCE).encode())
            before, kept = look(table, before)
            assert not kept.wrong
            total += len(kept.ranges)
        for one in sessions:
            one.rollback()
        for row in sessions[0].execute("select gid from pg_prepared_xacts").fetchall():
            sessions[0].rollback()
            server.execute(f"rollback prepared '{row[0]}'")
    assert total > 5


def write(chance: random.Random, sessions: list[psycopg.Connection]) -> None:
    """Let one of the sessions do something."""
    one = chance.choice(sessions)
    values = {"n": chance.randrange(1000), "k": chance.randrange(1, 4)}
    try:
        what = chance.random()
        if what < 0.55:
            one.execute(chance.choice(_STATEMENTS).format(**values).encode())
        elif what < 0.65:
            one.execute("savepoint s")
        elif what < 0.7:
            one.execute("rollback to savepoint s")
        elif what < 0.75:
            name = f"p{chance.randrange(10**9)}"
            one.execute(f"prepare transaction '{name}'".encode())
            one.commit()
            one.autocommit = True
            one.execute(f"{chance.choice(['commit', 'rollback'])} prepared '{name}'".encode())
            one.autocommit = False
        elif what < 0.9:
            one.commit()
        else:
            one.rollback()
    except psycopg.Error:
        one.rollback()
        one.autocommit = False
