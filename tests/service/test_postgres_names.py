"""Names that mean something else than they seem: schemas ahead of pg_catalog, c0, globs, temp."""

from __future__ import annotations

from datetime import timedelta

import pytest

from extract_jobs.sources.postgres.source import PostgresSource
from extract_jobs.watermark import Interval, WatermarkValue
from tests.support.postgres_source import filled, ids, snapshot_of, source


def read(found: PostgresSource, column: str = "id", **request) -> list[int]:
    with snapshot_of(found, **request) as snapshot:
        splits = snapshot.splits(found.spec)
        rows = [value for split in splits for value in ids(snapshot, split, column)]
        assert snapshot.count() == len(rows)
    return sorted(rows)


CATALOGUE = [
    ("oid", "oid"), ("name", "text"), ("name", "name"), ("text", "text"), ('"char"', '"char"'),
    ("int2", "int2"), ("int2", "int4"), ("int8", "int2"), ("regclass", "oid"),
]  # fmt: skip
"""What the catalogue's columns are compared as."""


@pytest.mark.parametrize("strategy", [{}, {"strategy": "range", "column": "id"}])
def test_operators_and_types_of_a_schema_ahead_of_pg_catalog(pg_database, monkeypatch, strategy):
    filled(pg_database)
    pg_database.execute("alter table t add primary key (id)", "create schema evil")
    for kind in ("tid", "int8", "int4"):
        for other in ("tid",) if kind == "tid" else ("int4", "int8"):
            for number, sign in enumerate(("<", "<=", ">", ">=")):
                pg_database.execute(
                    f"create function evil.f{number}({kind}, {other}) returns bool immutable"
                    " language sql as 'select true'",
                    f"create operator evil.{sign} (leftarg = {kind}, rightarg = {other},"
                    f" function = evil.f{number})",
                )
    for number, (kind, other) in enumerate(CATALOGUE):
        pg_database.execute(
            f"create function evil.g{number}({kind}, {other}) returns bool immutable"
            " language sql as 'select null::bool'",
            *(
                f"create operator evil.{sign} (leftarg = {kind}, rightarg = {other},"
                f" function = evil.g{number})"
                for sign in ("=", "<>", "!~")
            ),
        )
    pg_database.execute(
        "create domain evil.text as varchar(3)",
        "create domain evil.int8 as smallint",
        f'alter database "{pg_database.database}" set search_path = evil, public, pg_catalog',
    )
    split = {"target_bytes": 32768} | strategy
    found = source(pg_database, monkeypatch, extract_table="public.t", split=split)
    assert found.describe().key == ("id",)
    delayed = found.highest("at", delay=timedelta(days=1))
    assert delayed == WatermarkValue("timestamptz", "2024-01-01 01:23:20+00")
    assert read(found) == list(range(1, 5001))
    bounds = Interval(WatermarkValue("integer", "10"), WatermarkValue("integer", "4000"))
    assert read(found, interval=bounds, watermark_column="id") == list(range(11, 4001))
    assert found.highest("id") == WatermarkValue("integer", "5000")


def test_a_watermark_column_called_like_our_own_output(pg_database, monkeypatch):
    pg_database.execute("create table t (c0 int)", "insert into t select generate_series(1, 100)")
    found = source(pg_database, monkeypatch, extract_table="t")
    assert found.highest("c0") == WatermarkValue("integer", "100")
    assert read(found, "c0") == list(range(1, 101))


def test_a_bare_name_is_no_other_sessions_temporary_table(pg_database, monkeypatch):
    pg_database.execute("create schema app", "create table app.orders (a int)")
    with pg_database.connect() as other:
        other.execute("create temp table orders (b int)")
        found = source(pg_database, monkeypatch, extract_table="orders").describe()
    assert [column.name for column in found.columns] == ["a"]


def test_a_column_spelled_like_a_glob_is_left_out_by_its_name(pg_database, monkeypatch):
    pg_database.execute('create table t (a1 int, "a[1]" money)')
    found = source(pg_database, monkeypatch, extract_table="t", columns={"exclude": ["a[1]"]})
    assert [column.name for column in found.describe().columns] == ["a1", "a[1]"]


def test_a_condition_with_our_own_words_stays_as_it_is(pg_database, monkeypatch):
    filled(pg_database)
    pg_database.execute("create index on t (id)", "update t set note = '* as c0' where id = 4990")
    where = "note = '* as c0'"
    found = source(pg_database, monkeypatch, extract_table="t", where=where)
    bounds = Interval(WatermarkValue("integer", "4980"), WatermarkValue("integer", "5000"))
    assert read(found, interval=bounds, watermark_column="id") == [4990]


@pytest.mark.parametrize(
    "name", ['sales."Order Items"', '"sales"."Order Items"', "sales.Order Items"]
)
def test_either_part_of_a_table_s_name_may_be_quoted(pg_database, monkeypatch, name):
    pg_database.execute("create schema sales", 'create table sales."Order Items" (id int)')
    found = source(pg_database, monkeypatch, extract_table=name).describe()
    assert [column.name for column in found.columns] == ["id"]
