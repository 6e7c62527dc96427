"""What people meet who connect to PostgreSQL through PgBouncer, or with few rights."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extract_jobs.errors import ConfigError, SourceUnavailable
from extract_jobs.run import run_extract
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.postgres.snapshot import PostgresSnapshot
from extract_jobs.sources.postgres.source import PostgresSource
from extract_jobs.sources.postgres.sql import quote_text
from tests.support.postgres import Server
from tests.support.postgres_nodes import Nodes, nodes_since, run_pooler
from tests.support.postgres_source import filled, ids, snapshot_of, source

SPLIT: dict[str, Any] = {"extract_table": "t", "split": {"target_bytes": "100kB"}}


@pytest.fixture
def reader(nodes: Nodes) -> Iterator[Server]:
    """A user with few rights on a table of 5000 rows."""
    filled(nodes.primary, 5000, columns=", primary key (id)")
    nodes.primary.execute(
        f"create role reader login password {quote_text(nodes.primary.password)}",
    )
    yield replace(nodes.primary, user="reader")
    nodes.primary.execute("drop owned by reader", "drop role reader")


def read(found: Any, column: str = "id") -> list[Any]:
    with snapshot_of(found) as snapshot:
        splits = snapshot.splits(found.spec)
        values = sorted(v for split in splits for v in ids(snapshot, split, column))
        assert snapshot.count() == len(values)
        assert len(splits) > 1
    return values


@nodes_since(14)  # splits by page
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_an_undeclared_pooler_of_one_node_gives_splits_one_snapshot(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    filled(nodes.primary, 5000)
    with run_pooler(nodes.primary, mode) as pooler:
        assert read(source(pooler, monkeypatch, tmp_path, **SPLIT)) == list(range(1, 5001))


def test_a_pooler_that_has_no_transactions_says_which_mode_is_needed(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(nodes.primary, 10)
    with run_pooler(nodes.primary, "statement") as pooler:
        found = source(pooler, monkeypatch, tmp_path, extract_table="t")
        with pytest.raises(ConfigError, match=r"pool mode statement.*transaction or session"):
            found.describe()


def test_a_pool_of_one_connection_says_that_two_are_needed(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(nodes.primary, 10)
    small = {"default_pool_size": "1", "query_wait_timeout": "2"}
    with run_pooler(nodes.primary, "transaction", **small) as pooler:
        found = source(pooler, monkeypatch, tmp_path, extract_table="t")
        with (
            snapshot_of(found) as snapshot,
            pytest.raises(
                SourceUnavailable,
                match=r"pool may have had no free connection, and a table needs two",
            ),
        ):
            ids(snapshot, snapshot.splits(found.spec)[0])


@contextmanager
def only_snapshot_of(found: PostgresSource) -> Iterator[PostgresSnapshot]:
    """Hold a snapshot where one connection is allowed: its predecessor ends a moment later."""
    request = ReadRequest(found.describe().columns)
    deadline = time.monotonic() + 30
    with ExitStack() as held:
        while True:
            try:
                snapshot = held.enter_context(found.snapshot(request))
                break
            except SourceUnavailable:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield snapshot


def test_no_room_left_keeps_the_words_of_server_and_pooler(
    reader: Server, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.primary.execute("grant select on t to reader", "alter role reader connection limit 1")
    found = source(reader, monkeypatch, tmp_path, extract_table="t")
    with (
        only_snapshot_of(found) as snapshot,
        pytest.raises(SourceUnavailable, match='too many connections for role "reader"'),
    ):
        ids(snapshot, snapshot.splits(found.spec)[0])
    with run_pooler(nodes.primary, "transaction", max_client_conn="1") as pooler:
        found = source(pooler, monkeypatch, tmp_path, extract_table="t")
        with (
            only_snapshot_of(found) as snapshot,
            pytest.raises(SourceUnavailable, match="no more connections allowed"),
        ):
            ids(snapshot, snapshot.splits(found.spec)[0])


@pytest.mark.parametrize("size", ["1MB", "100kB"])
def test_a_grant_on_some_columns_suffices_for_them(
    reader: Server,
    nodes: Nodes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: str,
) -> None:
    nodes.primary.execute("grant select (id, note) on t to reader")
    report = run_extract(
        source(
            reader,
            monkeypatch,
            tmp_path,
            extract_table="t",
            columns={"include": ["id", "note"]},
            split={"target_bytes": size, "max_connections": 1},  # in turn, in this process
            engine="processes",
        ).spec
    )
    assert report.rows == report.source_rows == 5000
    assert (report.splits > 1) == (size == "100kB")


def test_the_count_does_not_wait_behind_an_alter_table_that_waits_for_the_reader(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(nodes.primary, 10)
    count = PostgresSnapshot.count
    altering = threading.Thread(
        target=nodes.primary.execute, args=("alter table t add column more int",)
    )

    def behind(snapshot: PostgresSnapshot) -> int:
        altering.start()
        with nodes.primary.connect() as watching:
            waits = "select 1 from pg_locks where not granted and relation = 't'::regclass"
            while not watching.execute(waits).fetchone():
                time.sleep(0.02)
        return count(snapshot)

    monkeypatch.setattr(PostgresSnapshot, "count", behind)
    report = run_extract(source(nodes.primary, monkeypatch, tmp_path, extract_table="t").spec)
    altering.join()
    assert report.rows == report.source_rows == 10


def test_a_materialized_view_without_data_says_refresh(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(nodes.primary, 10)
    nodes.primary.execute("create materialized view mv as select * from t with no data")
    with pytest.raises(ConfigError, match="'mv' has no data yet; run REFRESH"):
        run_extract(source(nodes.primary, monkeypatch, tmp_path, extract_table="mv").spec)


def test_a_database_that_the_pooler_does_not_know_is_a_matter_of_configuration(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_pooler(nodes.primary, "session") as pooler:
        lost = replace(pooler, database="nowhere")
        with pytest.raises(ConfigError, match=r"nowhere|no database of that name"):
            source(lost, monkeypatch, tmp_path, extract_table="t").describe()


def test_a_recovery_conflict_is_called_one(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(nodes.primary, 5000)
    nodes.catch_up()
    nodes.standby.execute(
        "alter system set max_standby_streaming_delay = '100ms'", "select pg_reload_conf()"
    )
    try:
        found = source(nodes.standby, monkeypatch, tmp_path, extract_table="t")
        with snapshot_of(found) as snapshot:
            nodes.primary.execute("delete from t", "vacuum (freeze) t", "insert into t values (1)")
            time.sleep(1)
            with pytest.raises(SourceUnavailable, match="a recovery conflict"):
                snapshot.count()
    finally:
        nodes.standby.execute(
            "alter system reset max_standby_streaming_delay", "select pg_reload_conf()"
        )


def test_a_missing_column_below_a_function_is_named(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.primary.execute(
        "create function f() returns int language plpgsql as"
        " 'begin return (select gone from pg_class limit 1); end'",
    )
    found = source(
        nodes.primary, monkeypatch, tmp_path, extract_table="q", query="select f() as id"
    )
    with (
        snapshot_of(found) as snapshot,
        pytest.raises(Exception, match='column "gone" does not exist'),
    ):
        ids(snapshot, snapshot.splits(found.spec)[0])
