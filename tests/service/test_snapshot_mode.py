"""Snapshot mode: no transaction that commits late is missed, and no row comes twice."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from extract_jobs.errors import ConfigError
from extract_jobs.run import run_extract
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.postgres import xmin as postgres_xmin
from extract_jobs.sources.postgres.source import PostgresSource
from extract_jobs.sources.postgres.xmin import Counter, counter, xmin_condition
from extract_jobs.spec.extract_spec import ExtractSpec, parse_spec
from extract_jobs.watermark import Interval, WatermarkValue
from tests.support.crash import Lake
from tests.support.postgres import Cluster, Server, make_cluster, since
from tests.support.postgres_source import ids
from tests.support.specs import make_spec

SNAPSHOT = {"snapshot": True}


class Extracts:
    """Incremental runs of one table, one after the other, into one lake."""

    def __init__(self, folder: Path, server: Server, **spec: Any) -> None:
        self.lake, self.server = Lake(str(folder / "lake")), server
        self.more = {"mode": "incremental", "watermark": SNAPSHOT} | spec
        self._numbers = itertools.count(1)

    def spec(self, **more: Any) -> ExtractSpec:
        os.environ["CRASH_PASSWORD"] = self.server.password
        given = self.lake.spec(self.server, f"run-{next(self._numbers)}", **self.more | more)
        return parse_spec(json.dumps(given))

    def run(self, **more: Any) -> list[int]:
        """Run once and return the ids that it added, sorted."""
        seen = set(self.lake.visible())
        self.report = run_extract(self.spec(**more))
        added = [uri for uri in self.lake.visible() if uri not in seen]
        return sorted(i for uri in added for i in self.lake.table(uri)["id"].to_pylist())


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRASH_PASSWORD", "")


@pytest.fixture
def extracts(pg_database: Server, tmp_path: Path) -> Extracts:
    pg_database.execute("create table t (id int, v int default 0)")
    return Extracts(tmp_path, pg_database)


def add(opened: psycopg.Connection[Any], *ids: int) -> None:
    opened.execute("insert into t (id) select unnest(%s::int[])", [list(ids)])


def test_rows_come_once_and_an_idle_table_commits_nothing(extracts):
    with extracts.server.connect() as opened:
        add(opened, 1, 2)
        assert extracts.run() == [1, 2]
        assert extracts.report.watermark["type"] == "xid"
        assert extracts.report.reconciled
        assert extracts.run() == []
        assert (extracts.report.status, extracts.report.rows) == ("succeeded", 0)
        assert extracts.report.commit_seq is None
        add(opened, 3)
        opened.execute("update t set v = 1 where id = 1")
        assert extracts.run() == [1, 3]
        opened.execute("delete from t where id = 2")
        assert extracts.run() == []


def test_an_empty_table_begins_where_it_stood(extracts):
    assert extracts.run() == []
    with extracts.server.connect() as opened:
        add(opened, 1)
    assert extracts.run() == [1]
    assert extracts.run() == []


def test_a_transaction_that_commits_late_holds_back_what_is_above_it(extracts):
    server = extracts.server
    with server.connect(autocommit=False) as late, server.connect() as quick:
        add(quick, 1)
        add(late, 2)
        add(quick, 3)
        assert extracts.run() == [1]
        add(quick, 4)
        assert extracts.run() == []
        late.commit()
        assert extracts.run() == [2, 3, 4]
    assert extracts.run() == []


def test_savepoints_of_open_transactions_released_and_rolled_back(extracts):
    server = extracts.server
    with server.connect(autocommit=False) as late, server.connect() as quick:
        add(late, 1)
        late.execute("savepoint a")
        add(late, 2)
        late.execute("release a")
        late.execute("savepoint b")
        add(late, 3)
        late.execute("savepoint c")
        add(late, 4)
        late.execute("rollback to b")
        late.execute("savepoint d")
        add(late, 5)
        add(quick, 6)
        assert extracts.run() == []
        add(quick, 7)
        assert extracts.run() == []
        late.commit()
        assert extracts.run() == [1, 2, 5, 6, 7]
    assert extracts.run() == []


def test_a_savepoint_is_the_first_to_write_and_the_top_level_commits_between(extracts):
    server = extracts.server
    with server.connect(autocommit=False) as late, server.connect() as quick:
        late.execute("savepoint a")
        add(late, 1)
        for number in range(2, 80):  # more subtransactions than a backend caches: 64
            late.execute("savepoint s")
            add(late, number)
        add(quick, 100)
        assert extracts.run() == []
        late.rollback()
        assert extracts.run() == [100]


def test_an_older_server(tmp_path):
    with make_cluster(16) as cluster, cluster.serving() as server:
        server.execute("create table t (id int, v int default 0)")
        extracts = Extracts(tmp_path, server)
        with server.connect(autocommit=False) as late, server.connect() as quick:
            add(late, 1)
            add(quick, 2)
            assert extracts.run() == []
            late.commit()
        assert extracts.run() == [1, 2]


def test_the_functions_of_servers_before_13_say_the_same(pg, monkeypatch):
    with pg.connect(autocommit=False) as opened:
        opened.execute("set transaction isolation level repeatable read")
        monkeypatch.setattr(opened, "stall_seconds", 60.0, raising=False)
        modern = counter(opened, "t")
        monkeypatch.setattr(postgres_xmin, "_XID8_SINCE", 10**9)
        assert counter(opened, "t") == modern


def test_a_prepared_transaction_is_open(tmp_path):
    with make_cluster() as cluster, cluster.serving(max_prepared_transactions="2") as server:
        server.execute("create table t (id int, v int)")
        extracts = Extracts(tmp_path, server)
        with server.connect(autocommit=False) as opened:
            add(opened, 1)
            opened.execute("prepare transaction 'p'")
            opened.commit()
        with server.connect() as quick:
            add(quick, 2)
            assert extracts.run() == []
            quick.execute("commit prepared 'p'")
        assert extracts.run() == [1, 2]


def test_updates_between_plan_and_snapshot_come_with_the_next_run(extracts, monkeypatch):
    server = extracts.server
    with server.connect() as quick:
        add(quick, 1, 2, 3)
        original = PostgresSource.snapshot

        def late(self: PostgresSource, request: ReadRequest) -> Any:
            quick.execute("update t set v = v + 1 where id = 2")
            add(quick, 4)
            return original(self, request)

        monkeypatch.setattr(PostgresSource, "snapshot", late)
        assert extracts.run() == [1, 3]
        monkeypatch.undo()
        assert extracts.run() == [2, 4]
        assert extracts.run() == []


def test_vacuum_freeze_full_and_cluster_keep_what_is_known(extracts):
    server = extracts.server
    server.execute("create index i on t (id)")
    with server.connect() as opened:
        for number, statement in enumerate(
            ("vacuum freeze t", "vacuum full t", "cluster t using i", "vacuum (freeze, full) t"), 1
        ):
            add(opened, number)
            assert extracts.run() == [number], statement
            opened.execute(statement.encode())
            assert extracts.run() == [], statement
            add(opened, 100 + number)
            opened.execute(statement.encode())
            assert extracts.run() == [100 + number], statement


def test_copy_freeze_comes_once(extracts):
    server = extracts.server
    with server.connect() as other:
        add(other, 1)
        assert extracts.run() == [1]
        with server.connect(autocommit=False) as opened:
            opened.execute("truncate t")
            with opened.cursor().copy("copy t (id) from stdin with (freeze)") as copy:
                for number in (2, 3):
                    copy.write_row((number,))
            other.execute("create table u (id int)")
            assert extracts_of_another_table(extracts) == []
            opened.commit()
        assert extracts.run() == [2, 3]
        assert extracts.run() == []


def extracts_of_another_table(extracts: Extracts) -> list[int]:
    """Run another table of the source while the first one is locked: its horizon is the same."""
    folder = Path(extracts.lake.uri).parent / "other"
    return Extracts(folder, extracts.server).run(extract_table="public.u")


@since(14)
def test_partitions_and_splits_by_page(pg_database, tmp_path):
    pg_database.execute(
        "create table t (id int, pad text) partition by range (id)",
        "create table t1 partition of t for values from (0) to (5000)",
        "create table t2 partition of t for values from (5000) to (100000)",
        "insert into t select i, repeat('x', 100) from generate_series(1, 6000) i",
    )
    extracts = Extracts(tmp_path, pg_database, split={"target_bytes": 200_000})
    spec = extracts.spec()
    source = PostgresSource.open(spec)
    before = source.highest("xmin")
    pg_database.execute("update t set pad = 'y' where id in (4999, 5000)")
    after = source.highest("xmin", lower=before)
    columns = source.describe().columns
    for interval, expected in (
        (Interval(None, before), {*range(1, 6001)} - {4999, 5000}),
        (Interval(before, after), {4999, 5000}),
    ):
        with source.snapshot(ReadRequest(columns, interval, "xmin")) as snapshot:
            splits = snapshot.splits(spec)
            assert len(splits) > 2
            assert all("ctid" in split.predicate for split in splits)
            found = [i for split in splits for i in ids(snapshot, split)]
            assert snapshot.count() == len(found)
        assert sorted(found) == sorted(expected)


# --- around the counter ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "following", "expected"),
    [
        (700, 1000, 700),
        (999, 1000, 999),
        (2**32 - 5, 2**32 + 10, 2**32 - 5),
        (3, 2**32 + 10, 2**32 + 3),
        (2**32 - 5, 3 * 2**32 + 10, 3 * 2**32 - 5),
        # Its own epoch is over: it seems one epoch younger, never older.
        (11, 3 * 2**32 + 10, 2 * 2**32 + 11),
        # Frozen by a server before 9.4, which overwrote the bits.
        (2, 3 * 2**32 + 10, 2),
        (1, 3 * 2**32 + 10, 1),
    ],
)
def test_bits_are_widened_to_the_last_number_that_ends_in_them(pg, bits, following, expected):
    assert widened(bits, following) == expected
    for lower, upper in ((None, expected), (None, expected - 1), (expected - 1, expected),
                         (expected, following - 1), (2, expected)):  # fmt: skip
        if upper < 2 or lower == 1:
            continue  # before a cluster's first transaction, which is 3
        inside = upper >= expected if lower is None else lower < expected <= upper
        assert chosen(pg, [bits], following, lower, upper) == [inside], (lower, upper)


def widened(bits: int, following: int) -> int:
    """Return what 32 bits stand for when a number is the next one, plainly."""
    if bits < 3:
        return bits
    return max(n for epoch in range(10) if (n := epoch * 2**32 + bits) < following)


def chosen(
    server: Server, bits: list[int], following: int, lower: int | None, upper: int
) -> list[bool]:
    """Ask the server which rows lie in an interval."""
    low = None if lower is None else WatermarkValue("xid", str(lower))
    interval = Interval(low, WatermarkValue("xid", str(upper)))
    condition = xmin_condition(interval, Counter(upper + 1, following), "t")
    statement = (
        f"select {condition} from unnest(%s::text[]) with ordinality as r(b, i),"
        " lateral (select b::xid as xmin) x order by i"
    )
    with server.connect() as opened:
        return [row[0] for row in opened.execute(statement.encode(), [list(map(str, bits))])]


@pytest.mark.parametrize("following", [10**6, 2**32 + 500, 3 * 2**32 + 2**31, 5 * 2**32 + 3])
def test_intervals_tile_the_counter_and_every_row_is_in_one(pg, following):
    """Of intervals one above the other up to ``following``, each row lies in just one."""
    decisions = random.Random(following)
    everything = min(following, 2**32) - 1
    bits = [1, 2, 3, 4, *(decisions.randint(3, everything) for _ in range(200))]
    reach = [0, 1, 5, 1000, 10**6 - 10, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2 * 2**32]
    bounds = sorted({following - 1 - back for back in reach if following - 1 - back >= 2})
    bits += [bound % 2**32 for bound in bounds if bound % 2**32 >= 3]
    found = [chosen(pg, bits, following, None, bounds[0])]
    found += [chosen(pg, bits, following, *pair) for pair in itertools.pairwise(bounds)]
    assert len(found[0]) == len(bits)
    for number, row in enumerate(zip(*found, strict=True)):
        value = widened(bits[number], following)
        expected = next(i for i, bound in enumerate(bounds) if value <= bound)
        assert [i for i, inside in enumerate(row) if inside] == [expected], bits[number]


def freeze_all(server: Server) -> None:
    """Freeze every row of the cluster, so that the counter may go on by up to 2³¹."""
    server.execute("alter database template0 allow_connections true", "vacuum freeze")
    for database in ("template1", "template0"):
        with server.connect(dbname=database) as opened:
            opened.execute("vacuum freeze")


def advance(cluster: Cluster, following: int) -> None:
    """Set a stopped cluster's next transaction, 32 bits, and make the log that it needs."""
    cluster.run("pg_resetwal", "-x", str(following), "-D", cluster.data)
    segment = cluster.data / "pg_xact" / f"{following // 2**20:04X}"
    if not segment.exists():
        segment.write_bytes(bytes(256 * 1024))
        shutil.copystat(cluster.data / "PG_VERSION", segment)
        owner = (cluster.data / "PG_VERSION").stat()
        os.chown(segment, owner.st_uid, owner.st_gid)


def next_transaction(server: Server) -> int:
    with server.connect() as opened:
        row = opened.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::int8")
        return int(row.fetchone()[0])


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with make_cluster() as made:
        yield made


def test_around_the_32_bits_of_the_counter(cluster, tmp_path):
    with cluster.serving() as server:
        server.execute(
            "create table t (id int, v int default 0)",
            "insert into t (id) values (1), (2)",
        )
        extracts = Extracts(tmp_path, server)
        assert extracts.run() == [1, 2]
        freeze_all(server)
    for number, following in enumerate((2_000_000_000, 4_000_000_000, 2**32 - 40), 3):
        advance(cluster, following)
        with cluster.serving() as server:
            assert following <= next_transaction(server) < following + 100
            assert extracts.run() == []
            server.execute(f"insert into t (id) values ({number})")
            assert extracts.run() == [number]
            freeze_all(server)
    # Over the edge, one transaction after the other, with one open all along.
    with (
        cluster.serving() as server,
        server.connect(autocommit=False) as late,
        server.connect() as quick,
    ):
        add(late, 1000)
        late.execute("savepoint s")
        add(late, 1001)
        for number in range(100, 220):
            add(quick, number)
        assert next_transaction(server) > 2**32
        assert extracts.run() == []
        late.commit()
        assert extracts.run() == [*range(100, 220), 1000, 1001]
        assert int(extracts.report.watermark["text"]) > 2**32
        add(quick, 300)
        assert extracts.run() == [300]
        assert extracts.run() == []
        assert sorted(extracts.lake.read()) == [1, 2, 3, 4, 5, *range(100, 220), 300, 1000, 1001]


def test_rows_frozen_an_epoch_ago_may_repeat_but_never_vanish(cluster, tmp_path):
    with cluster.serving() as server:
        server.execute("create table t (id int, v int)", "insert into t values (1, 0), (2, 0)")
        extracts = Extracts(tmp_path, server)
        late = Extracts(tmp_path / "late", server)
        assert extracts.run() == [1, 2]
        written = next_transaction(server)
        freeze_all(server)
    for following in (2_000_000_000, 4_000_000_000, 2**32 - 40):
        advance(cluster, following)
        with cluster.serving() as server:
            freeze_all(server)
    with cluster.serving() as server, server.connect() as quick:
        for number in range(100, 200):
            add(quick, number)
        # The counter is in the second epoch, and before the bits of the old rows.
        assert 2**32 < next_transaction(server) < 2**32 + written - 10
        assert extracts.run() == list(range(100, 200))
        assert late.run() == [1, 2, *range(100, 200)]
        while next_transaction(server) <= 2**32 + written:
            quick.execute("select pg_current_xact_id()")
        assert extracts.run() == [1, 2]
        assert extracts.run() == []


# --- another source ----------------------------------------------------------------------------


def test_a_restored_dump_is_refused(extracts, tmp_path):
    with extracts.server.connect() as opened:
        add(opened, 1)
    assert extracts.run() == [1]
    with make_cluster() as other, other.serving() as restored:
        name = extracts.server.database
        restored.execute(f'create database "{name}"')
        copy = Server(**{**vars(restored), "database": name})
        copy.execute("create table t (id int, v int)", "insert into t values (1, 0)")
        again = Extracts(tmp_path, copy)
        assert next(again._numbers) == 1
        with pytest.raises(ConfigError, match="its commits came from source"):
            again.run()
    assert extracts.lake.read() == [1]


def test_an_older_copy_of_the_same_cluster_is_refused(cluster, tmp_path):
    saved = tmp_path / "saved"
    with cluster.serving() as server:
        server.execute("create table t (id int, v int)", "insert into t values (1, 0)")
        extracts = Extracts(tmp_path, server)
        assert extracts.run() == [1]
    shutil.copytree(cluster.data, saved)
    with cluster.serving() as server:
        server.execute(*(f"insert into t values ({number}, 0)" for number in range(2, 30)))
        assert extracts.run() == list(range(2, 30))
    owner = cluster.data.stat()
    shutil.rmtree(cluster.data)
    shutil.copytree(saved, cluster.data)
    for path in (cluster.data, *cluster.data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    with cluster.serving() as server:
        server.execute("insert into t values (99, 0)")
        with pytest.raises(ConfigError, match=r"counter stands at \d+: it was restored"):
            extracts.run()
    assert extracts.lake.read() == list(range(1, 30))


def test_a_counter_that_went_back_after_the_plan_is_refused(extracts):
    with extracts.server.connect() as opened:
        add(opened, 1)
    spec = extracts.spec()
    source = PostgresSource.open(spec)
    ahead = WatermarkValue("xid", str(next_transaction(extracts.server) + 10))
    request = ReadRequest(source.describe().columns, Interval(None, ahead), "xmin")
    with pytest.raises(ConfigError, match="restored from an older copy"):
        source.snapshot(request).__enter__()
    with pytest.raises(ConfigError, match="restored from an older copy"):
        source.highest("xmin", lower=ahead)


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        ("view", "create view x as select * from t"),
        ("materialized view", "create materialized view x as select * from t"),
    ],
)
def test_what_keeps_no_transaction_is_refused(extracts, kind, statement):
    extracts.server.execute(statement)
    with pytest.raises(ConfigError, match=rf"public\.x is a {kind}, and watermark\.snapshot"):
        extracts.run(extract_table="public.x")


def foreign(server: Server) -> None:
    server.execute(
        "create foreign data wrapper w",
        "create server s foreign data wrapper w",
        "create foreign table f (id int, v int) server s",
    )


def test_foreign_tables_and_partitions_are_refused(pg_database, tmp_path):
    foreign(pg_database)
    extracts = Extracts(tmp_path, pg_database)
    pg_database.execute(
        "create table p (id int, v int) partition by range (id)",
        "create table p1 partition of p for values from (0) to (10)",
        "alter table p attach partition f for values from (10) to (20)",
    )
    for table in ("public.f", "public.p"):
        with pytest.raises(ConfigError, match=rf"{re.escape(table)} is a .*foreign"):
            extracts.run(extract_table=table)


def test_a_standby_is_refused(cluster, tmp_path):
    with cluster.serving() as server:
        server.execute("create table t (id int, v int)")
    (cluster.data / "standby.signal").touch()
    owner = cluster.data.stat()
    os.chown(cluster.data / "standby.signal", owner.st_uid, owner.st_gid)
    refused = pytest.raises(ConfigError, match="the connection leads to a standby")
    with cluster.serving(hot_standby="on") as server, refused:
        Extracts(tmp_path, server).run()


def test_a_server_that_hides_its_identity_is_refused(extracts):
    server = extracts.server
    server.execute(
        "create role snapshot_reader login password 'x'",
        "grant select on t to snapshot_reader",
        "revoke execute on function pg_control_system() from public",
    )
    try:
        connection = {
            "host": server.host, "port": server.port, "database": server.database,
            "user": "snapshot_reader", "password_env": "SNAPSHOT_PASSWORD",
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SNAPSHOT_PASSWORD", "x")
            with pytest.raises(ConfigError, match=r"grant the user EXECUTE on pg_control_system"):
                extracts.run(connection=connection)
            server.execute("grant execute on function pg_control_system() to snapshot_reader")
            assert extracts.run(connection=connection) == []
    finally:
        server.execute("drop owned by snapshot_reader", "drop role snapshot_reader")


def test_after_a_full_extract_rows_would_be_doubled(extracts):
    with extracts.server.connect() as opened:
        add(opened, 1)
        assert extracts.run(mode="full", target={"write_mode": "overwrite"}) == [1]
        with pytest.raises(ConfigError, match="overlap what commits hold already"):
            extracts.run()
        accepting = {"snapshot": True, "duplicates": "accept"}
        assert extracts.run(watermark=accepting) == [1]
        add(opened, 2)
        assert extracts.run(watermark=accepting) == [2]


def test_every_contradiction_is_reported_at_once():
    with pytest.raises(ValueError, match="snapshot") as caught:
        make_spec(
            mode="incremental",
            watermark={
                "snapshot": True, "column": "at", "lag": 1, "delay": "1m", "initial": 1,
                "lower": 1, "upper": 2,
            },
            query="select 1",
            connection={"pooled": True},
            target={"write_mode": "overwrite_partitions", "partition_by": ["day(at)"]},
        )  # fmt: skip
    said = str(caught.value)
    for name in ("column", "lag", "delay", "initial", "lower", "upper"):
        assert f"watermark.{name}" in said
    for text in ("needs a table", "pooler", "needs write_mode append"):
        assert text in said
    with pytest.raises(ValueError, match="write_mode overwrite needs mode full"):
        make_spec(mode="incremental", watermark=SNAPSHOT, target={"write_mode": "overwrite"})
