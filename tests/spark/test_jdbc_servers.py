"""The source jdbc against real servers: PostgreSQL by its driver 42.5.5, MariaDB by 2.7.6."""

# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pyspark.sql import SparkSession

from extract_jobs.errors import (
    ConfigError,
    SourceQueryFailed,
    SourceUnavailable,
    TypeNotRepresentable,
)
from extract_jobs.run import run_extract
from extract_jobs.sources import ReadRequest, open_source
from extract_jobs.sources.jdbc.dialects import MYSQL
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.jdbc import read_target
from tests.support.mysql_servers import MysqlServer
from tests.support.postgres import Server
from tests.support.specs import make_spec

pytestmark = pytest.mark.spark


def spec_of(folder: Path, url: str, user: str, **changes: Any) -> ExtractSpec:
    connection = {"url": url, "user": user, "password_env": "JDBC_PASSWORD"}
    spec = make_spec(folder, **changes).model_dump(mode="json", exclude={"connection"})
    return ExtractSpec.model_validate(spec | {"source_type": "jdbc", "connection": connection})


def test_postgres(
    pg_database: Server, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = pg_database
    monkeypatch.setenv("JDBC_PASSWORD", server.password)
    url = f"jdbc:postgresql://{server.host}:{server.port}/{server.database}?sslmode=disable"
    server.execute(
        "create table public.orders (id bigint primary key, n numeric, n2 numeric(12,3),"
        " at timestamptz, d date, ts timestamp, u uuid, j jsonb, a int[], b bytea, m money,"
        " t bool)",
        "insert into public.orders select g, 1e40, -0.5, '2021-03-14 02:30:00.123456+01',"
        " '0044-03-15', '2021-03-14 02:30:00.000001', '00000000-0000-0000-0000-00000000000a',"
        " '{\"a\": 1}', array[1, null], '\\x00ff', 1.5, true from generate_series(1, 5000) g",
        "analyze public.orders",
    )

    def spec(**changes: Any) -> ExtractSpec:
        return spec_of(tmp_path, url, server.user, **changes)

    with pytest.raises(TypeNotRepresentable, match=r"m is money: .*locale"):
        open_source(spec(), spark).describe()
    cast = {"cast": {"m": "decimal(10,2)"}}
    split = {"target_bytes": 160_000, "max_connections": 2, "fetch_rows": 100}
    report = run_extract(spec(columns=cast, split=split), spark=spark)
    assert (report.rows, report.source_rows, report.reconciled) == (5_000, 5_000, False)
    assert report.splits > 2
    found = read_target(tmp_path)
    assert found.column("id").to_pylist() == list(range(1, 5_001))
    row = found.slice(0, 1).to_pylist()[0]
    assert row == {
        "id": 1, "n": "1" + 40 * "0", "n2": Decimal("-0.500"),
        "at": datetime(2021, 3, 14, 1, 30, 0, 123456, tzinfo=UTC), "d": date(44, 3, 15),
        "ts": datetime(2021, 3, 14, 2, 30, 0, 1), "u": "00000000-0000-0000-0000-00000000000a",
        "j": '{"a": 1}', "a": "{1,NULL}", "b": b"\x00\xff", "m": Decimal("1.50"), "t": True,
    }  # fmt: skip

    server.execute("update public.orders set d = 'infinity' where id = 7")
    with pytest.raises(TypeNotRepresentable, match=r"column d \(date\) holds a value that is inf"):
        run_extract(spec(columns=cast, run_id="run-2"), spark=spark)
    lenient = spec(columns=cast, run_id="run-3", lossy_types="null")
    assert run_extract(lenient, spark=spark).nulled == {"d": 1}

    server.execute(
        "create function public.writes() returns int language plpgsql as"
        " $$ begin delete from public.orders; return 1; end $$"
    )
    writing = spec(run_id="run-4", extract_table="q", query="select public.writes() as n",
                   target={"uri": f"{tmp_path}/q"}, state_uri=f"{tmp_path}/q-state")  # fmt: skip
    with pytest.raises(SourceQueryFailed, match="25006"):
        run_extract(writing, spark=spark)
    with server.connect() as connection:
        assert connection.execute("select count(*) from public.orders").fetchone() == (5_000,)


@pytest.mark.any_spark
def test_rows_that_were_read_before_a_failure_are_not_taken_for_all(
    pg_database: Server, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches are with the Python worker when the server fails the third."""
    server = pg_database
    monkeypatch.setenv("JDBC_PASSWORD", server.password)
    url = f"jdbc:postgresql://{server.host}:{server.port}/{server.database}?sslmode=disable"
    query = "select g, 1 / (25000 - g) as x from generate_series(1, 30000) g"
    spec = spec_of(tmp_path, url, server.user, query=query, split={"fetch_rows": 100})
    with pytest.raises(SourceQueryFailed, match=r"PSQLException, SQLSTATE 22012"):
        run_extract(spec, spark=spark)
    assert not [file for file in (tmp_path / "target").rglob("*") if file.is_file()]


@pytest.mark.any_spark
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_server_that_sends_nothing_is_waited_for_for_a_time(
    pg_database: Server,
    mariadb_database: MysqlServer,
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    server = pg_database if kind == "postgresql" else mariadb_database
    query = "select 1 as x from pg_sleep(60)" if kind == "postgresql" else "select sleep(60) as x"
    monkeypatch.setenv("JDBC_PASSWORD", server.password)
    url = f"jdbc:{kind}://{server.host}:{server.port}/{server.database}?sslmode=disable"
    spec = spec_of(tmp_path, url, server.user, query=query)
    connection = spec.connection.model_copy(update={"stall_timeout": timedelta(seconds=1)})
    with pytest.raises(
        SourceUnavailable, match=r"nothing for as long as connection\.stall_timeout"
    ):
        run_extract(spec.model_copy(update={"connection": connection}), spark=spark)


@pytest.mark.any_spark
@pytest.mark.parametrize("init", [None, "set statement_timeout = '60s'"])
def test_rows_that_policies_hide_are_not_left_out_unnoticed(
    pg_database: Server,
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    init: str | None,
) -> None:
    server = pg_database
    monkeypatch.setenv("JDBC_PASSWORD", "reader")
    reader = f"reader_{uuid4().hex[:8]}"
    server.execute(
        "create table public.t (id int, owner text)",
        "insert into public.t values (1, 'a'), (2, 'b')",
        "alter table public.t enable row level security",
        "create policy p on public.t using (owner = 'a')",
        f"create role {reader} login password 'reader'",
        f"grant select on public.t to {reader}",
    )
    url = f"jdbc:postgresql://{server.host}:{server.port}/{server.database}?sslmode=disable"

    def spec(**changes: Any) -> ExtractSpec:
        made = spec_of(tmp_path, url, reader, extract_table="public.t", **changes)
        connection = made.connection.model_copy(update={"session_init": init})
        return made.model_copy(update={"connection": connection})

    try:
        with pytest.raises(ConfigError, match="hide rows from the user"):
            run_extract(spec(), spark=spark)
        assert run_extract(spec(run_id="r-2", row_security="apply"), spark=spark).rows == 1
        server.execute(f"alter role {reader} bypassrls")
        assert run_extract(spec(run_id="r-3"), spark=spark).rows == 2
    finally:
        server.execute(f"drop owned by {reader}", f"drop role {reader}")


def test_mariadb(
    mariadb_database: MysqlServer,
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its server has another time zone and sql_mode than any client would guess."""
    server = mariadb_database
    monkeypatch.setenv("JDBC_PASSWORD", server.password)
    url = f"jdbc:mariadb://{server.host}:{server.port}/{server.database}"
    server.execute(
        "create table `or``ders` (id int primary key, `a b` varchar(20), u bigint unsigned,"
        " ti tinyint(1), y year, at timestamp(6) null, ts datetime(6), d date, n decimal(12,3),"
        " n65 decimal(65,2), b varbinary(10), j json, e enum('x', 'y'), f float)",
        "insert into `or``ders` values (1, 'back\\\\slash ''é☃😀', 18446744073709551615, 5, 1999,"
        " '2021-03-14 02:30:00.123456', '2021-03-14 02:30:00.000001', '1500-01-01', -0.5, 1e40,"
        " x'00ff', '{\"a\": 1}', 'y', 16777215), (-3, null, null, null, null, null, null, null,"
        " null, null, null, null, null, null)",
    )

    def spec(**changes: Any) -> ExtractSpec:
        given = {"extract_table": f"{server.database}.or`ders"} | changes
        return spec_of(tmp_path, url, server.user, **given)

    split = {"strategy": "hash", "column": "id", "max_connections": 2}
    report = run_extract(spec(split=split), spark=spark)
    assert (report.rows, report.splits) == (2, 2)
    nothing, row = read_target(tmp_path).to_pylist()
    assert set(nothing.values()) == {-3, None}
    assert row == {
        "id": 1, "a b": "back\\slash 'é☃😀", "u": Decimal(2**64 - 1), "ti": 5, "y": 1999,
        "at": datetime(2021, 3, 14, 2, 30, 0, 123456, tzinfo=UTC),
        "ts": datetime(2021, 3, 14, 2, 30, 0, 1), "d": date(1500, 1, 1),
        "n": Decimal("-0.500"), "n65": "1" + 40 * "0" + ".00", "b": b"\x00\xff",
        "j": '{"a": 1}', "e": "y", "f": 16777215.0,
    }  # fmt: skip
    source = open_source(spec(), spark)
    highest = {name: source.highest(name) for name in ("at", "a b", "u")}
    assert {name: value and value.text for name, value in highest.items()} == {
        "at": "2021-03-14 02:30:00.123456+00",
        "a b": "back\\slash 'é☃😀",
        "u": str(2**64 - 1),
    }
    for name, value in highest.items():
        assert value is not None
        assert source.highest(name, lower=value) is None

    server.execute("set global sql_select_limit = 1")
    try:
        assert run_extract(spec(run_id="run-5"), spark=spark).rows == 2
    finally:
        server.execute("set global sql_select_limit = default")

    server.execute("set sql_mode = ''; ", "update `or``ders` set d = '0000-00-00' where id = -3")
    with pytest.raises(TypeNotRepresentable, match="not a valid date"):
        run_extract(spec(run_id="run-2"), spark=spark)


@pytest.mark.any_spark
def test_years_of_a_split_column_are_not_taken_for_two_digits(
    mariadb_database: MysqlServer,
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MariaDB and MySQL 5.7 compare a year with 2064 where it is to be compared with 64.

    MySQL 5.7 has no ``ntile``, so bounds there lie evenly between the least and greatest year.
    """
    server = mariadb_database
    monkeypatch.setenv("JDBC_PASSWORD", server.password)
    monkeypatch.setitem(MYSQL.__dict__, "quantiles", False)
    years = [0, 1901, 1969, 1970, 2001, 2064, 2155, None]
    server.execute("create table y (id int primary key, y year)")
    server.insert("y", list(enumerate(years)))
    spec = spec_of(
        tmp_path,
        f"jdbc:mariadb://{server.host}:{server.port}/{server.database}",
        server.user,
        extract_table=f"{server.database}.y",
        split={"strategy": "range", "column": "y", "max_connections": 40},
    )
    source = open_source(spec, spark)
    with source.snapshot(ReadRequest(source.describe().columns)) as snapshot:
        splits = snapshot.splits(spec)
    read = [
        [row[0] for row in server.rows(f"select id from y where {split.predicate}")]
        for split in splits
    ]
    assert len(splits) > 5
    assert sorted(value for part in read for value in part) == list(range(len(years)))
