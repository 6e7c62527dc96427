"""What is truncated or rewritten while a snapshot is taken is read before or after, never empty."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

import extract_jobs.sources.postgres.source as source_module
from extract_jobs.errors import SourceUnavailable
from extract_jobs.run import run_extract
from extract_jobs.sources.postgres import sql as postgres_sql
from extract_jobs.sources.postgres.source import PostgresSource
from extract_jobs.watermark import Interval, WatermarkValue
from tests.support.postgres import Server, run_server
from tests.support.postgres_source import filled, ids, snapshot_of, source

RELOAD_EAST = ["create temp table k as table east", "truncate east", "insert into east table k"]


@pytest.fixture(scope="module", params=[16, 18])
def server(request) -> Iterator[Server]:
    with run_server(request.param) as running:
        yield running


@pytest.fixture
def tables(server: Server) -> Iterator[Server]:
    filled(server, 100)
    server.execute(
        "create table parts (id int, region text) partition by list (region)",
        "create table east partition of parts for values in ('e')",
        "create table west partition of parts for values in ('w')",
        "insert into parts select i, case i % 2 when 0 then 'e' else 'w' end"
        " from generate_series(1, 100) i",
        "create view seen as select id from parts",
        "create materialized view kept as select id from t",
        "create view seen_kept as select id from kept",
    )
    yield server
    server.execute("drop table t cascade", "drop table parts cascade")


def read(found: PostgresSource, **request) -> list[int]:
    with snapshot_of(found, **request) as snapshot:
        rows = [value for split in snapshot.splits(found.spec) for value in ids(snapshot, split)]
        assert snapshot.count() == len(rows)
    return sorted(rows)


def meanwhile(monkeypatch, action) -> list[int]:
    """Have something done right after each time that a snapshot is exported."""
    done: list[int] = []
    real = source_module.export_snapshot

    def exported(*args):
        found = real(*args)
        done.append(1)
        action()
        return found

    monkeypatch.setattr(source_module, "export_snapshot", exported)
    return done


@pytest.mark.parametrize(
    ("table", "statements"),
    [
        ("t", ["truncate t", "insert into t (id) select generate_series(1, 150)"]),
        ("t", ["alter table t add more float8 default random()"]),
        ("parts", RELOAD_EAST),
        ("seen", RELOAD_EAST),
    ],
)
def test_a_table_is_replaced_before_its_snapshot_or_not_at_all(
    tables, monkeypatch, table, statements
):
    refused = []

    def replace() -> None:
        with tables.connect(autocommit=False) as other:
            other.execute("set local lock_timeout = '100ms'")
            try:
                for statement in statements:
                    other.execute(statement)
                other.commit()
            except psycopg.errors.LockNotAvailable:
                refused.append(1)

    meanwhile(monkeypatch, replace)
    found = source(tables, monkeypatch, extract_table=table)
    assert read(found) == list(range(1, 101))
    assert refused == [1]


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize(
    "what",
    [
        {"extract_table": "t"},
        {"query": "select id from t"},
        {"query": "select id from kept", "replaced": "kept"},
        {"extract_table": "kept", "replaced": "kept"},
        {"extract_table": "seen_kept", "replaced": "kept"},
    ],
)
def test_a_reload_that_is_under_way_is_waited_for(tables, monkeypatch, what, pooled):
    overrides = dict(what)
    kept = overrides.pop("replaced", None) == "kept"
    found = source(tables, monkeypatch, connection={"pooled": pooled}, **overrides)
    columns = found.describe().columns
    with tables.connect(autocommit=False) as other:
        other.execute("truncate t")
        other.execute("insert into t (id) select generate_series(1, 150)")
        if kept:
            other.execute("refresh materialized view kept")
        commit = threading.Timer(0.5, other.commit)
        commit.start()
        with found.snapshot(source_module.ReadRequest(columns)) as snapshot:
            splits = snapshot.splits(found.spec)
            rows = [value for split in splits for value in ids(snapshot, split)]
        commit.join()
    assert sorted(rows) == list(range(1, 151))


def test_what_planning_locks_is_looked_at_and_tried_again(tables, monkeypatch):
    found = source(tables, monkeypatch, query="select id from t")
    reloads = ["truncate t", "insert into t (id) select generate_series(1, 150)"]
    first = [lambda: tables.execute(*reloads)]
    done = meanwhile(monkeypatch, lambda: first and first.pop()())
    assert read(found) == list(range(1, 151))
    assert len(done) == 2


def test_a_table_that_is_constantly_replaced_is_reported_and_retryable(tables, monkeypatch):
    found = source(tables, monkeypatch, query="select id from t")
    meanwhile(monkeypatch, lambda: tables.execute("truncate t"))
    with pytest.raises(SourceUnavailable, match="t was truncated, rewritten") as caught:
        read(found)
    assert caught.value.retryable


def test_who_may_read_some_columns_only_cannot_lock_and_still_loses_nothing(tables, monkeypatch):
    tables.execute(
        "create role some_columns login password 'x'", "grant select (id) on t to public"
    )
    try:
        found = source(tables, monkeypatch, extract_table="t", split={"strategy": "none"})
        limited = source_module.PostgresSource(
            found.spec, source_module.replace(found.connection, user="some_columns", password="x")
        )
        columns = tuple(c for c in limited.describe().columns if c.name == "id")
        first = [
            lambda: tables.execute("truncate t", "insert into t (id) select generate_series(1, 9)")
        ]
        done = meanwhile(monkeypatch, lambda: first and first.pop()())
        with limited.snapshot(source_module.ReadRequest(columns)) as snapshot:
            splits = snapshot.splits(limited.spec)
            assert sorted(v for split in splits for v in ids(snapshot, split)) == list(range(1, 10))
        assert len(done) == 2
    finally:
        tables.execute("revoke select (id) on t from public", "drop role some_columns")


def test_a_lock_is_not_waited_for_for_ever_and_its_holder_is_named(tables, monkeypatch):
    monkeypatch.setitem(postgres_sql._SETTINGS, "lock_timeout", "200ms")
    found = source(tables, monkeypatch, extract_table="t")
    with tables.connect(autocommit=False) as other:
        other.execute("lock table t in access exclusive mode")
        with pytest.raises(SourceUnavailable, match="lock timeout") as caught:
            read_without_describing(found)
        assert f"process {other.info.backend_pid} holds AccessExclusiveLock on t" in str(
            caught.value
        )
    assert caught.value.retryable


def read_without_describing(found: PostgresSource) -> None:
    with found.snapshot(source_module.ReadRequest(())):
        pass


def test_a_partition_reloaded_in_an_incremental_run_loses_no_row(tables, monkeypatch):
    bounds = Interval(WatermarkValue("integer", "50"), WatermarkValue("integer", "100"))
    found = source(tables, monkeypatch, extract_table="parts")
    columns = found.describe().columns
    with tables.connect(autocommit=False) as other:
        other.execute("create temp table k as table east")
        other.execute("truncate east")
        other.execute("insert into east table k")
        commit = threading.Timer(0.5, other.commit)
        commit.start()
        request = source_module.ReadRequest(columns, bounds, "id")
        with found.snapshot(request) as snapshot:
            splits = snapshot.splits(found.spec)
            rows = [value for split in splits for value in ids(snapshot, split)]
            assert snapshot.count() == len(rows)
        commit.join()
    assert sorted(rows) == list(range(51, 101))


def test_an_overwrite_during_a_reload_does_not_empty_the_target(tables, monkeypatch, tmp_path):
    overwrite = {"write_mode": "overwrite"}
    spec = source(
        tables, monkeypatch, folder=tmp_path, extract_table="t", target=overwrite, run_id="first"
    ).spec
    assert run_extract(spec).rows == 100
    with tables.connect(autocommit=False) as other:

        def reload() -> None:
            other.execute("truncate t")
            other.execute("insert into t (id) select generate_series(1, 150)")
            threading.Timer(0.5, other.commit).start()

        real = PostgresSource.snapshot
        monkeypatch.setattr(
            PostgresSource, "snapshot", lambda self, request: (reload(), real(self, request))[1]
        )
        report = run_extract(spec.model_copy(update={"run_id": "second"}))
    assert (report.rows, report.source_rows) == (150, 150)
