"""Reading a primary, its hot standby, and both through PgBouncer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import extract_jobs.sources.postgres.snapshot as snapshot_module
from extract_jobs.errors import (
    ConfigError,
    ReconcileFailed,
    SourceUnavailable,
    TypeNotRepresentable,
)
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.postgres.reader import PostgresReader
from extract_jobs.sources.postgres.snapshot import PostgresSnapshot
from extract_jobs.sources.postgres.source import PostgresSource
from extract_jobs.sources.postgres.sql import quote_text
from extract_jobs.sources.splits import Split
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.postgres import Server, make_cluster, run_server
from tests.support.postgres_nodes import (
    NODES_VERSION,
    Nodes,
    PoolMode,
    nodes_since,
    run_nodes,
    run_pooler,
)
from tests.support.postgres_source import (
    everything_said,
    filled,
    ids,
    read_wide,
    snapshot_of,
    source,
)
from tests.support.switch_proxy import SwitchProxy


def test_a_standby_gives_the_rows_of_its_primary(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(nodes.primary, 5000)
    nodes.catch_up()
    found = source(nodes.standby, monkeypatch, tmp_path, extract_table="t")
    with snapshot_of(found) as snapshot:
        [split] = snapshot.splits(found.spec)
        assert sorted(ids(snapshot, split)) == list(range(1, 5001))
        assert snapshot.count() == 5000


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_pooler_gives_the_rows_of_its_server(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: PoolMode
) -> None:
    filled(nodes.primary, 5000)
    with run_pooler(nodes.primary, mode) as pooler:
        found = source(
            pooler, monkeypatch, tmp_path, extract_table="t", connection={"pooled": True}
        )
        with snapshot_of(found) as snapshot:
            [split] = snapshot.splits(found.spec)
            assert sorted(ids(snapshot, split)) == list(range(1, 5001))


def run(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, run_id: str, **overrides: Any
) -> Report:
    return run_extract(source(server, monkeypatch, folder, run_id=run_id, **overrides).spec)


BY_ID: dict[str, Any] = {
    "extract_table": "t",
    "mode": "incremental",
    "watermark": {"column": "id"},
}


def lake(folder: Path, column: str = "id") -> list[Any]:
    """What a reader of the target sees in one column, sorted."""
    return sorted(pq.read_table(folder / "target").column(column).to_pylist())


def planned_and_cut(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, run_id: str, **overrides: Any
) -> None:
    """Make attempt 1 of a run, which is cut when its plan is pinned."""
    with monkeypatch.context() as patch:
        patch.setattr(PostgresSource, "snapshot", _cut)
        with pytest.raises(SourceUnavailable, match="cut"):
            run(server, folder, monkeypatch, run_id, **overrides)


def _cut(*_: Any) -> Any:
    raise SourceUnavailable("cut")


def test_an_interval_planned_on_the_primary_waits_for_a_standby_that_lags(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.primary.execute("create table t (id int)", "insert into t values (1), (2)")
    nodes.catch_up()
    nodes.pause()
    nodes.primary.execute("insert into t values (3), (4)")
    planned_and_cut(nodes.primary, tmp_path, monkeypatch, "r1", **BY_ID)
    with monkeypatch.context() as patch:
        patch.setattr("extract_jobs.sources.postgres.node.REPLAY_WAIT_SECONDS", 0.5)
        with pytest.raises(SourceUnavailable, match="the standby lags behind the plan by"):
            run(nodes.standby, tmp_path, monkeypatch, "r1", attempt=2, **BY_ID)
    resumed = threading.Timer(1, nodes.resume)
    resumed.start()
    report = run(nodes.standby, tmp_path, monkeypatch, "r1", attempt=3, **BY_ID)
    resumed.join()
    assert report.rows == 4
    assert report.read_from["in_recovery"]
    assert lake(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize("width", ["narrow", "wide"])
def test_a_pooler_over_two_nodes_reads_no_node_that_lags_behind_the_plan(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    if width == "wide":
        read_wide(monkeypatch)
    pooled = BY_ID | {"connection": {"pooled": True}}
    nodes.primary.execute("create table t (id int)", "insert into t values (1), (2)")
    nodes.catch_up()
    nodes.pause()
    nodes.primary.execute("insert into t values (3), (4)")
    with SwitchProxy(nodes.primary.port) as door:
        moved = replace(nodes.primary, port=door.port)
        held = PostgresSnapshot.splits

        def splits(snapshot: PostgresSnapshot, spec: ExtractSpec) -> list[Split]:
            door.lead_to(nodes.standby.port)
            return held(snapshot, spec)

        with monkeypatch.context() as patch:
            patch.setattr(PostgresSnapshot, "splits", splits)
            patch.setattr("extract_jobs.sources.postgres.node.REPLAY_WAIT_SECONDS", 0.3)
            with pytest.raises(SourceUnavailable, match="the standby lags behind the plan by"):
                run(moved, tmp_path, monkeypatch, "r1", **pooled)
        nodes.resume()
        assert run(moved, tmp_path, monkeypatch, "r1", attempt=2, **pooled).rows == 4


def test_an_increment_of_fewer_rows_than_the_source_counts_is_not_published(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.primary.execute("create table t (id int)", "insert into t values (1), (2)")
    counts = iter([2, 4])  # before and after
    monkeypatch.setattr(PostgresSnapshot, "count", lambda _: next(counts))
    pooled = BY_ID | {"connection": {"pooled": True}}
    with pytest.raises(ReconcileFailed, match="counts 4 rows in the interval but 2 were read"):
        run(nodes.primary, tmp_path, monkeypatch, "r1", **pooled)


def test_delay_on_a_standby_counts_from_what_it_has_replayed(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_time = {
        "extract_table": "t",
        "mode": "incremental",
        "watermark": {"column": "at", "delay": "1s"},
    }
    nodes.primary.execute(
        "create table t (id int, at timestamptz)",
        "insert into t values (1, now() - interval '1 h')",
    )
    nodes.catch_up()
    writer = nodes.primary.connect(autocommit=False)
    with writer:
        writer.execute("insert into t values (2, clock_timestamp())")
        nodes.primary.execute("insert into t values (3, clock_timestamp())")
        nodes.catch_up()
        nodes.pause()
        time.sleep(0.3)
        writer.commit()
    time.sleep(1.5)  # by the standby's own clock, everything is old enough
    planned_and_cut(nodes.standby, tmp_path, monkeypatch, "r1", **by_time)
    assert run(nodes.standby, tmp_path, monkeypatch, "r1", attempt=2, **by_time).rows == 1
    nodes.resume()
    nodes.catch_up()
    nodes.primary.execute("insert into t values (4, now() - interval '30 min')")
    time.sleep(1.2)
    nodes.primary.execute("insert into t values (5, now() + interval '1 h')")
    nodes.catch_up()
    assert run(nodes.standby, tmp_path, monkeypatch, "r2", **by_time).rows == 3
    assert lake(tmp_path) == [1, 2, 3, 4]


def test_an_idle_standby_says_to_those_who_may_know_that_it_lacks_nothing(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.primary.execute("create table t (id int)")
    nodes.catch_up()
    time.sleep(1.5)  # the receiver hears of the primary each second
    found = source(nodes.standby, monkeypatch, tmp_path, extract_table="t", max_lag="1h")
    lag = found.describe().read_from["lag_seconds"]
    assert 0 <= lag < 60
    assert source(nodes.primary, monkeypatch, tmp_path, extract_table="t").describe().read_from == {
        "in_recovery": False
    }


def test_a_standby_that_lags_more_than_allowed_is_refused(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.primary.execute("create table t (id int)")
    nodes.catch_up()
    nodes.pause()
    nodes.primary.execute("insert into t values (1)")
    time.sleep(1.2)
    found = source(nodes.standby, monkeypatch, tmp_path, extract_table="t", max_lag="1s")
    with pytest.raises(SourceUnavailable, match="and source"):
        found.describe()


@nodes_since(14)  # splits by page
@pytest.mark.parametrize(
    ("parts", "attach"),
    [
        (
            [
                "create table t (id int, note text) partition by range (id)",
                "create table t1 partition of t for values from (0) to (20000)",
            ],
            "alter table t attach partition t2 for values from (20000) to (30000)",
        ),
        (["create table t (id int, note text)"], "alter table t2 inherit t"),
    ],
    ids=["partition", "child"],
)
def test_a_part_that_is_added_while_splits_are_read_does_not_tear_the_table(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[str], attach: str
) -> None:
    nodes.primary.execute(
        *parts,
        "create table t2 (id int, note text)",
        "insert into t select i, repeat('n', 200) from generate_series(0, 19999) i",
        "insert into t2 select i, repeat('n', 200) from generate_series(20000, 29999) i",
    )
    read, done = PostgresReader.read, []

    def attaching(reader: PostgresReader, split: Split) -> Iterator[pa.RecordBatch]:
        yield from read(reader, split)
        if not done:
            done.append(nodes.primary.execute(attach))

    monkeypatch.setattr(PostgresReader, "read", attaching)
    report = run(
        nodes.primary,
        tmp_path,
        monkeypatch,
        "r1",
        extract_table="t",
        split={"target_bytes": "1MB", "max_connections": 1},  # in turn, in this process
        engine="processes",
        reconcile_max_bytes=0,
    )
    assert report.splits > 2
    assert report.rows == 30_000
    assert lake(tmp_path) == list(range(30_000))


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (
            "alter table t alter at type timestamptz using at at time zone 'America/New_York'",
            "2024-01-01 17:00:00+00:00",
        ),
        ("alter table t drop column note", "2024-01-01 12:00:00"),
        ("alter table t add column more int default 7", "2024-01-01 12:00:00"),
        ("alter table t alter note type varchar(10)", "2024-01-01 12:00:00"),
        ("alter table t alter note drop not null", "2024-01-01 12:00:00"),
    ],
    ids=["retyped", "dropped", "added", "shortened", "nullable"],
)
def test_a_table_altered_between_planning_and_snapshot_is_planned_again(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alter: str, expected: str
) -> None:
    nodes.primary.execute(
        "create table t (id int, at timestamp, note text not null)",
        "insert into t values (1, '2024-01-01 12:00', 'n')",
    )
    held, done = PostgresSource.snapshot, []

    def altered(found: PostgresSource, request: ReadRequest) -> Any:
        if not done:
            done.append(nodes.primary.execute(alter))
        return held(found, request)

    monkeypatch.setattr(PostgresSource, "snapshot", altered)
    report = run(nodes.primary, tmp_path, monkeypatch, "r1", extract_table="t")
    assert report.rows == 1
    assert [str(at) for at in lake(tmp_path, "at")] == [expected]


@pytest.mark.parametrize("width", ["narrow", "wide"])
@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("pooled", [True, False])
def test_a_pooler_that_swallows_options_changes_no_value(
    nodes: Nodes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: PoolMode,
    pooled: bool,
    width: str,
) -> None:
    if width == "wide":
        read_wide(monkeypatch)
    database = nodes.primary.database
    nodes.primary.execute(
        *(
            f'alter role postgres in database "{database}" set {setting}'
            for setting in (
                "intervalstyle = 'sql_standard'",
                "datestyle = 'German'",
                "timezone = 'Asia/Kolkata'",
                "extra_float_digits = 0",
                "bytea_output = 'escape'",
                "client_encoding = 'LATIN1'",
                "statement_timeout = '10min'",
            )
        ),
        "create table t (id int, i interval, p point, r tstzrange, k text, b bytea[])",
        "insert into t values (1, '1 mon 2 days', '(0.1234567890123456789,1)',"
        " '[2024-01-01 00:00+00,2024-02-03 00:00+00)', 'é€', array['\\x00ff'::bytea])",
    )
    swallowed = "extra_float_digits,options"
    with run_pooler(nodes.primary, mode, ignore_startup_parameters=swallowed) as pooler:
        found = source(pooler, monkeypatch, tmp_path, extract_table="t", where="k <> 'x'",
                       connection={"pooled": pooled})  # fmt: skip
        with snapshot_of(found) as snapshot:
            [split] = snapshot.splits(found.spec)
            [row] = [row for batch in snapshot.reader.read(split) for row in batch.to_pylist()]
    assert row == {
        "id": 1,
        "i": "1 mon 2 days",
        "p": "(0.12345678901234568,1)",
        "r": '["2024-01-01 00:00:00+00","2024-02-03 00:00:00+00")',
        "k": "é€",
        "b": ["\\x00ff"],
    }


@pytest.mark.parametrize("width", ["narrow", "wide"])
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_latin1_database_arrives_as_utf8_through_a_pooler(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: PoolMode, width: str
) -> None:
    if width == "wide":
        read_wide(monkeypatch)
    latin1 = nodes.primary.database + " latin1"
    nodes.primary.execute(
        f"create database \"{latin1}\" encoding latin1 locale 'C' template template0"
    )
    try:
        server = replace(nodes.primary, database=latin1)
        server.execute(
            "create table t (id int, note text)", r"insert into t values (1, E'\xe9 \xff')"
        )
        with run_pooler(server, mode) as pooler:
            found = source(
                pooler, monkeypatch, tmp_path, extract_table="t", connection={"pooled": True}
            )
            with snapshot_of(found) as snapshot:
                [split] = snapshot.splits(found.spec)
                assert ids(snapshot, split, "note") == ["é ÿ"]
    finally:
        nodes.primary.execute(f'drop database "{latin1}" with (force)')


@pytest.mark.parametrize("width", ["narrow", "wide"])
def test_text_that_is_not_utf8_is_refused_or_null(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    if width == "wide":
        read_wide(monkeypatch)
    ascii_only = nodes.primary.database + " ascii"
    nodes.primary.execute(
        f"create database \"{ascii_only}\" encoding sql_ascii locale 'C' template template0"
    )
    try:
        server = replace(nodes.primary, database=ascii_only)
        server.execute(
            "create table t (id int, note text, more text[], must varchar(9) not null)",
            "insert into t values (1, 'fine', '{a}', 'm'), (2, E'caf\\xe9', '{b}', 'm'),"
            " (3, 'é', null, 'm'), (4, null, array[null, 'z'], 'm')",
            # As a database is whose text was damaged before anybody checked it.
            f"update pg_database set encoding = 6 where datname = '{ascii_only}'",
        )
        found = source(server, monkeypatch, tmp_path, extract_table="t")
        wanted = r"column note \(text\) holds text that is not valid UTF-8.*row 2 of split 0"
        with snapshot_of(found) as snapshot:
            [split] = snapshot.splits(found.spec)
            with pytest.raises(TypeNotRepresentable, match=wanted) as refused:
                ids(snapshot, split, "note")
            assert "caf" not in everything_said(refused.value)
        found = source(server, monkeypatch, tmp_path, extract_table="t", lossy_types="null")
        with snapshot_of(found) as snapshot:
            rows = [r for b in snapshot.reader.read(split) for r in b.to_pylist()]
            assert [row["note"] for row in rows] == ["fine", None, "é", None]
            assert [row["more"] for row in rows] == [["a"], ["b"], None, [None, "z"]]
            assert snapshot.reader.nulled == {"note": 1}
        nodes.primary.execute(f"update pg_database set encoding = 0 where datname = '{ascii_only}'")
        server.execute(
            "update t set must = E'\\xff' where id = 3",
            f"update pg_database set encoding = 6 where datname = '{ascii_only}'",
        )
        with (
            snapshot_of(found) as snapshot,
            pytest.raises(TypeNotRepresentable, match=r"column must .*admits NULL"),
        ):
            ids(snapshot, split)
    finally:
        nodes.primary.execute(f'drop database "{ascii_only}" with (force)')


@pytest.fixture
def hidden(nodes: Nodes) -> Iterator[Server]:
    """A table of which the user ``reader`` sees 1 of 2 rows."""
    nodes.primary.execute(
        "create table t (id int, owner text)",
        "insert into t values (1, 'a'), (2, 'b')",
        "alter table t enable row level security",
        "create policy p on t using (owner = 'a')",
        f"create role reader login password {quote_text(nodes.primary.password)}",
        "grant select on t to reader",
    )
    if NODES_VERSION >= 15:
        nodes.primary.execute(
            "create view v with (security_invoker) as select * from t",
            "grant select on v to reader",
        )
    yield replace(nodes.primary, user="reader")
    nodes.primary.execute("drop owned by reader", "drop role reader")


@pytest.mark.parametrize(
    "table",
    [
        {"extract_table": "t"},
        pytest.param({"extract_table": "v"}, marks=nodes_since(15)),
        {"query": "select * from t"},
    ],
)
def test_rows_hidden_by_policies_are_refused_or_reported(
    hidden: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"policies hide rows.*BYPASSRLS.*row_security: apply"):
        source(hidden, monkeypatch, tmp_path, **table).describe()
    report = run(hidden, tmp_path, monkeypatch, "r1", row_security="apply", **table)
    assert report.rows == report.source_rows == 1
    assert report.read_from["row_security"] == "applied"
    owner = replace(hidden, user="postgres")
    assert run(owner, tmp_path, monkeypatch, "r2", **table).rows == 2


def test_a_policy_that_comes_after_planning_is_refused_too(
    hidden: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = replace(hidden, user="postgres")
    owner.execute("alter table t disable row level security")
    found = source(hidden, monkeypatch, tmp_path, extract_table="t")
    columns = found.describe().columns
    owner.execute("alter table t enable row level security")
    with (
        pytest.raises(ConfigError, match="policies hide rows"),
        found.snapshot(ReadRequest(columns)) as snapshot,
    ):
        ids(snapshot, snapshot.splits(found.spec)[0])


BY_TRANSACTION: dict[str, Any] = {
    "extract_table": "t",
    "mode": "incremental",
    "watermark": {"snapshot": True},
}


def test_transaction_numbers_of_a_promoted_standby_are_not_taken_for_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_nodes() as nodes:
        nodes.primary.execute("create table t (id int)", "insert into t values (1)")
        nodes.catch_up()
        nodes.disconnect()
        nodes.primary.execute(*(f"insert into t values ({number})" for number in range(2, 9)))
        assert run(nodes.primary, tmp_path, monkeypatch, "r1", **BY_TRANSACTION).rows == 8
        nodes.promote()
        nodes.standby.execute(*(f"insert into t values ({number})" for number in range(90, 110)))
        wanted = r"promoted or restored since the last commit \(timeline 1 then, 2 now\)"
        with pytest.raises(ConfigError, match=wanted):
            run(nodes.standby, tmp_path, monkeypatch, "r2", **BY_TRANSACTION)
        # Another kind of watermark goes on.
        other = tmp_path / "other"
        assert run(nodes.primary, other, monkeypatch, "r3", **BY_ID).rows == 8
        assert run(nodes.standby, other, monkeypatch, "r4", **BY_ID).rows == 20


def test_a_promotion_after_planning_makes_a_new_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_nodes() as nodes:
        nodes.primary.execute("create table t (id int)", "insert into t values (1)")
        nodes.catch_up()
        nodes.disconnect()
        nodes.primary.execute("insert into t values (9)")
        planned_and_cut(nodes.primary, tmp_path, monkeypatch, "r1", **BY_ID)
        nodes.promote()
        nodes.standby.execute("insert into t values (2)")
        report = run(nodes.standby, tmp_path, monkeypatch, "r1", attempt=2, **BY_ID)
        assert (report.rows, report.watermark) == (2, {"type": "integer", "text": "2"})
        nodes.standby.execute("insert into t values (8)")
        assert run(nodes.standby, tmp_path, monkeypatch, "r2", **BY_ID).rows == 1
        assert lake(tmp_path) == [1, 2, 8]


def test_no_transaction_number_is_committed_before_the_server_has_flushed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_server(wal_writer_delay="3s", synchronous_commit="off") as server:
        server.execute("create table t (id int)", "checkpoint", "insert into t values (1)")
        with monkeypatch.context() as patch:
            patch.setattr("extract_jobs.sources.postgres.node.FLUSH_WAIT_SECONDS", 0.2)
            with pytest.raises(SourceUnavailable, match="still not written the last"):
                run(server, tmp_path, monkeypatch, "r1", **BY_TRANSACTION)
        assert run(server, tmp_path, monkeypatch, "r2", **BY_TRANSACTION).rows == 1


def test_what_a_crash_takes_back_is_in_no_commit_and_its_numbers_lose_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server crashes after the rows were read, when their transactions are in memory alone."""
    real = snapshot_module.wait_until_flushed
    with make_cluster(NODES_VERSION) as cluster:
        with cluster.serving() as server:
            server.execute("create table t (id int)", "insert into t values (1)")
            assert run(server, tmp_path, monkeypatch, "r1", **BY_TRANSACTION).rows == 1
            server.execute("alter system set wal_writer_delay = '10s'", "select pg_reload_conf()")
            time.sleep(0.5)  # the WAL writer reads it, writes once more, and sleeps
            server.execute("insert into t values (2)", "insert into t values (3)")

            def crash(*asked: Any) -> None:
                cluster.crash()
                real(*asked)

            with monkeypatch.context() as patch:
                patch.setattr(snapshot_module, "wait_until_flushed", crash)
                with pytest.raises(SourceUnavailable):
                    run(server, tmp_path, monkeypatch, "r2", **BY_TRANSACTION)
        with cluster.serving(wal_writer_delay="200ms") as server:
            with server.connect() as connection:
                left = connection.execute("select id from t").fetchall()
            assert left == [(1,)], "nothing was lost, so nothing is shown"
            server.execute("insert into t values (4)", "insert into t values (5)")
            assert run(server, tmp_path, monkeypatch, "r3", **BY_TRANSACTION).rows == 2
    assert lake(tmp_path) == [1, 4, 5]


@pytest.mark.parametrize("version", [15, 16, 18])
def test_a_half_filled_page_of_an_idle_server_is_flushed_at_once(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that only reads removes dead rows, and leaves the WAL of that in memory."""
    monkeypatch.setattr("extract_jobs.sources.postgres.node.FLUSH_WAIT_SECONDS", 5)
    flushed = "select pg_current_wal_insert_lsn() <= pg_current_wal_flush_lsn()"
    with run_server(version, wal_level="minimal", max_wal_senders="0") as server:
        server.execute(
            "create table t (id int)", "insert into t select generate_series(1, 200)",
            *["update t set id = id + 1"] * 3, "checkpoint",
        )  # fmt: skip
        with server.connect(autocommit=False) as reading, server.connect() as watching:
            reading.execute("set transaction isolation level repeatable read, read only")
            deadline = time.monotonic() + 60
            while watching.execute(flushed).fetchone() != (True,):
                assert time.monotonic() < deadline, "the server is never idle"
                time.sleep(0.1)
            reading.execute("select count(*) from t")
            time.sleep(1)
            assert watching.execute(flushed).fetchone() == (False,), "nothing is left to flush"
            assert run(server, tmp_path, monkeypatch, "r1", **BY_TRANSACTION).rows == 200


@pytest.mark.skipif(NODES_VERSION in (16, 18), reason="their package has no postgres_fdw")
@pytest.mark.parametrize(
    ("meanwhile", "lost", "fails"),
    [
        ("insert into far select generate_series(101, 120)", 0, False),
        ("delete from far where id <= 20", 0, False),
        ("update far set id = id + 1000", 0, False),
        ("select 1", 1, True),
    ],
    ids=["more", "fewer", "others", "a row is lost"],
)
def test_a_foreign_table_is_in_no_snapshot_so_its_count_is_told_and_not_enforced(
    nodes: Nodes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: str,
    lost: int,
    fails: bool,
) -> None:
    server = nodes.primary
    server.execute(
        "create extension postgres_fdw",
        "create server s foreign data wrapper postgres_fdw options "
        f"(host '127.0.0.1', port '{server.port}', dbname {quote_text(server.database)})",
        "create user mapping for current_user server s options "
        f"(user {quote_text(server.user)}, password {quote_text(server.password)})",
        "create table far (id int)",
        "insert into far select generate_series(1, 100)",
        "create foreign table t (id int) server s options (table_name 'far')",
    )
    read = PostgresReader.read

    def changed(reader: PostgresReader, split: Split) -> Iterator[pa.RecordBatch]:
        for batch in read(reader, split):
            yield batch.slice(lost)
        server.execute(meanwhile)

    monkeypatch.setattr(PostgresReader, "read", changed)
    if fails:
        with pytest.raises(ReconcileFailed):
            run(server, tmp_path, monkeypatch, "r1", extract_table="t")
        return
    report = run(server, tmp_path, monkeypatch, "r1", extract_table="t")
    assert (report.rows, report.reconciled) == (100, False)
    assert lake(tmp_path) == list(range(1, 101))
