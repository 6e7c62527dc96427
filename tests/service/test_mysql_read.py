"""Reading MySQL: sessions, watermarks, queries, conditions, errors, memory, cut connections."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from datetime import timedelta
from typing import Any

import pyarrow.compute as pc
import pytest

from extract_jobs.errors import ConfigError, ExtractError, SourceUnavailable, TypeNotRepresentable
from extract_jobs.sources.mysql import reader
from extract_jobs.sources.mysql.session import execute, session
from extract_jobs.sources.splits import Split
from extract_jobs.watermark import Interval, WatermarkValue
from tests.support.cut_proxy import CutProxy
from tests.support.mysql_servers import PASSWORD, MysqlServer, numbers
from tests.support.mysql_source import ids, read_all, snapshot_of, source
from tests.support.postgres_source import everything_said

Server = MysqlServer


def test_a_session_is_read_only_in_utc_whatever_the_server_has(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute("create table t (id int)")
    found = source(mysql_database, monkeypatch, extract_table="t")
    with session(found.connection, "looking") as opened:
        isolation = "tx_isolation" if mysql_database.is_mariadb else "transaction_isolation"
        [row] = execute(opened, f"select @@time_zone, @@sql_mode, @@{isolation}, 'a\\'b', \"text\"")
        assert row == ("+00:00", "", "REPEATABLE-READ", "a'b", "text")
    for statement in ("insert into t values (1)", "create table u (id int)", "delete from t"):
        with (
            pytest.raises(ExtractError, match="READ ONLY"),
            session(found.connection, "writing") as opened,
        ):
            execute(opened, statement)
    assert mysql_database.rows("select * from t") == []


WATERMARKS: dict[str, tuple[str, list[str], str, str]] = {
    "int unsigned": ("integer", ["3", "4294967295", "7"], "4294967295", "7"),
    "bigint": ("integer", ["-5", "-9223372036854775808"], "-5", "-9223372036854775808"),
    "decimal(30,10)": ("decimal", ["1.0000000001", "1.0000000002"], "1.0000000002",
                       "1.0000000001"),
    "date": ("date", ["2024-01-01", "2024-02-29"], "2024-02-29", "2024-01-01"),
    "datetime(6)": ("timestamp", ["2024-01-01 00:00:00.000001", "2024-01-01 00:00:00.000002"],
                    "2024-01-01 00:00:00.000002", "2024-01-01 00:00:00.000001"),
    "timestamp(3) null": ("timestamptz", ["2024-03-31 01:30:00.123", "2024-03-31 01:30:00.122"],
                          "2024-03-31 01:30:00.123+00", "2024-03-31 01:30:00.122+00"),
    "varchar(20) collate utf8mb4_bin": ("string", ["a", "Z", "b "], "b ", "a"),
    "varchar(20) charset latin1": ("string", ["é", "z", "a"], "z", "é"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WATERMARKS)
def test_watermarks_are_exact(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    type_, values, highest, lower = WATERMARKS[kind]
    mysql_database.execute(f"create table t (id int, w {kind})")
    mysql_database.insert("t", [*enumerate(values), (98, None), (99, None)])
    found = source(mysql_database, monkeypatch, extract_table="t")
    assert found.describe().column("w").watermark == type_  # type: ignore[union-attr]
    top = found.highest("w")
    assert top == WatermarkValue(type_, highest)  # type: ignore[arg-type]
    low = WatermarkValue(type_, lower)  # type: ignore[arg-type]
    assert found.highest("w", lower=low) == top
    assert found.highest("w", lower=top) is None
    assert found.highest("w", upper=low) == low
    assert found.precedes("w", low, top)
    assert not found.precedes("w", top, low)
    assert not found.precedes("w", top, top)
    assert found.null_watermarks("w") == 2
    request = {"interval": Interval(low, top), "watermark_column": "w"}
    with snapshot_of(found, **request) as snapshot:
        above = ids(snapshot, Split(0))
    with snapshot_of(found, interval=Interval(None, low), watermark_column="w") as snapshot:
        below = ids(snapshot, Split(0))
        assert snapshot.count() == len(below)
    assert sorted(above + below) == list(range(len(values)))


def test_a_collation_orders_watermarks(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute("create table t (w varchar(9) collate utf8mb4_general_ci)")
    found = source(mysql_database, monkeypatch, extract_table="t")
    small, large, same = (WatermarkValue("string", text) for text in ("a", "B", "A  "))
    assert found.precedes("w", small, large)
    assert not found.precedes("w", small, same)
    assert not found.precedes("w", same, small)


def test_zero_dates_are_neither_null_nor_a_watermark(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute(
        "create table t (w datetime not null)", "insert into t values ('0000-00-00')"
    )
    found = source(mysql_database, monkeypatch, extract_table="t")
    assert found.null_watermarks("w") == 0
    with pytest.raises(TypeNotRepresentable, match="zero date") as error:
        found.highest("w")
    assert "0000" not in str(error.value)


def test_delay_goes_by_the_servers_clock_and_the_earlier_zone(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own zone is ahead of UTC, so a wall clock is taken for UTC."""
    mysql_database.execute(
        "create table t (id int, ts timestamp(6) null, dt datetime(6), d date)",
        "insert into t values (1, utc_timestamp(6) - interval 1 hour,"
        " utc_timestamp(6) - interval 1 hour, utc_date() - interval 2 day),"
        " (2, utc_timestamp(6) + interval 5 minute, utc_timestamp(6) + interval 5 minute,"
        " utc_date())",
    )
    found = source(mysql_database, monkeypatch, extract_table="t")
    for column in ("ts", "dt", "d"):
        top = found.highest(column, delay=timedelta(minutes=1))
        assert top is not None
        count = f"select group_concat(id) from t where {column} <= '{top.text.removesuffix('+00')}'"
        assert mysql_database.rows(count) == [("1",)], column
    with pytest.raises(ConfigError, match="needs a time"):
        found.highest("id", delay=timedelta(minutes=1))


@pytest.mark.parametrize("kind", ["longtext", "mediumblob", "varchar(21000)", "query"])
def test_the_server_does_not_send_a_value_that_is_too_large(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    column = "mediumtext character set latin1" if kind == "query" else kind
    mysql_database.execute(
        f"create table t (id int, a int, v {column})",
        *(f"insert into t values ({n}, {n}, repeat('x', {n * 1000}))" for n in (1, 19, 20)),
        "insert into t values (4, 4, null)",
    )
    what = {"query": "select * from t"} if kind == "query" else {"extract_table": "t"}
    sent: list[int] = []
    real = reader.stream

    def seen(*given: Any, **more: Any) -> Any:
        rows = real(*given, **more)
        while True:
            try:
                arrays = next(rows)
            except StopIteration as end:
                return end.value
            sent.extend(pc.max(pc.binary_length(values)).as_py() or 0 for values in arrays)
            yield arrays

    monkeypatch.setattr(reader, "stream", seen)
    found = source(mysql_database, monkeypatch, max_value_bytes=19_500, **what)
    message = "column 'v' has a value of 20,000 bytes, and max_value_bytes allows 19,500"
    with pytest.raises(TypeNotRepresentable, match=message):
        read_all(found)
    assert 19_000 <= max(sent) <= 19_500
    whole = read_all(source(mysql_database, monkeypatch, max_value_bytes=30_000, **what))
    assert sorted(pc.binary_length(whole["v"]).drop_null().to_pylist()) == [1000, 19_000, 20_000]
    assert whole.column_names == ["id", "a", "v"]


def test_queries_and_conditions(mysql_database: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    mysql_database.execute(
        "create table t (id int primary key, note varchar(20))",
        "insert into t values (1, 'a\\'b'), (2, 'x'), (3, null)",
    )

    def found(**given: Any) -> list[Any]:
        table = read_all(source(mysql_database, monkeypatch, extract_table="t", **given))
        return sorted(table["id"].to_pylist())

    assert found(where="note = 'a''b' or id = 3") == [1, 3]
    assert found(where="id > 1") == [2, 3]
    assert found(query="select id from t where id < 3;") == [1, 2]
    assert found(query="select id, count(*) n from t group by id # all", where="n = 1") == [1, 2, 3]
    for given in (
        {"query": "select 1; drop table t"},
        {"query": "select id from t) as x, (select 1"},
        {"query": "delete from t"},
        {"query": "select id from t into outfile '/tmp/never'"},
        {"query": "select id, id from t"},
        {"query": "select nope from t"},
        {"where": "1) or (1"},
        {"where": "nope = 1"},
        {"where": "1; drop table t"},
    ):
        with pytest.raises(ConfigError):
            found(**given)
    assert mysql_database.rows("select count(*) from t") == [(3,)]


def test_errors_say_what_to_do(mysql_database: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    name = mysql_database.database
    mysql_database.execute(
        "create table orders (id int, secret int)",
        "create table `odd.name` (id int)",
        "drop user if exists 'narrow'@'%'",
        "create user 'narrow'@'%' identified by 'x'",
        f"grant select (id) on `{name}`.orders to 'narrow'@'%'",
    )
    with pytest.raises(ConfigError, match=r"no table 'order'.*did you mean .*\.orders"):
        source(mysql_database, monkeypatch, extract_table="order").describe()
    for spelt in (f"{name}.orders", f"`{name}`.`orders`", "odd.name", f"{name}.odd.name"):
        source(mysql_database, monkeypatch, extract_table=spelt).describe()
    narrow = {"connection": {"user": "narrow"}, "extract_table": "orders"}
    monkeypatch.setenv("NARROW", "x")
    narrow["connection"]["password_env"] = "NARROW"  # type: ignore[index]
    only = {"columns": {"include": ["id"]}}
    assert read_all(source(mysql_database, monkeypatch, **narrow, **only)).num_rows == 0
    monkeypatch.setenv("TEST_MYSQL_PASSWORD", "wrong")
    wrong = source(mysql_database, monkeypatch, extract_table="orders")
    monkeypatch.setenv("WRONG", "wr0ng-and-secret")
    for connection, kind, reason in (
        ({"password_env": "WRONG"}, ConfigError, "refused user or password"),
        ({"database": "nowhere"}, ConfigError, "no such database"),
        ({"port": 9}, SourceUnavailable, "connection refused"),
        # MySQL makes a certificate of its own.
        *([({"sslmode": "require"}, ConfigError, "no TLS")] if mysql_database.is_mariadb else []),
    ):
        wrong = source(mysql_database, monkeypatch, extract_table="t", connection=connection)
        with pytest.raises(kind, match=reason) as error:
            wrong.describe()
        said = everything_said(error.value)
        assert PASSWORD not in said
        assert "wr0ng" not in said
    assert PASSWORD not in repr(wrong)


def test_a_connection_cut_while_reading_can_be_tried_again(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute(
        "create table t (id int primary key, note text)",
        f"insert into t select seq, repeat('secret', 300) from {numbers(5000)}",
    )
    with CutProxy(mysql_database.host, mysql_database.port) as proxy:
        connection = {"port": proxy.port, "sslmode": "disable"}
        found = source(mysql_database, monkeypatch, extract_table="t", connection=connection)
        with snapshot_of(found) as snapshot:
            proxy.cut_once_after(3_000_000)
            with pytest.raises(SourceUnavailable, match="run again") as error:
                list(snapshot.reader.read(Split(0)))
            assert "secretsecret" not in everything_said(error.value)
            assert len(ids(snapshot, Split(0))) == 5000


def test_a_killed_statement_can_be_tried_again(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's error comes after rows have: it is seen behind them."""
    mysql_database.execute("create table t (id int primary key, note varchar(1000))")
    mysql_database.execute(f"insert into t select seq, repeat('n', 900) from {numbers(60000)}")
    found = source(mysql_database, monkeypatch, extract_table="t")
    with (
        snapshot_of(found) as snapshot,
        contextlib.closing(iter(snapshot.reader.read(Split(0)))) as batches,
    ):
        next(batches)
        busy = mysql_database.rows(
            "select id from information_schema.processlist where info like '%`note`%'"
            " and id <> connection_id()"
        )
        mysql_database.execute(f"kill query {busy[0][0]}")
        with pytest.raises(SourceUnavailable, match="stopped"):
            list(batches)


def test_closing_early_ends_the_servers_work(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute("create table t (id int primary key, note varchar(1000))")
    mysql_database.execute(f"insert into t select seq, repeat('n', 900) from {numbers(60000)}")
    found = source(mysql_database, monkeypatch, extract_table="t")
    with snapshot_of(found) as snapshot:
        batches = iter(snapshot.reader.read(Split(0)))
        next(batches)
        batches.close()  # type: ignore[attr-defined]
    busy = "select count(*) from information_schema.processlist where info like '%`note`%'"
    for _ in range(500):
        if mysql_database.rows(f"{busy} and id <> connection_id()") == [(0,)]:
            return
    pytest.fail("the server still sends rows that nobody reads")


def test_rows_of_any_size_in_bounded_memory(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 MB of rows, some above the protocol's packets of 16 MB, in less."""
    mysql_database.execute(
        "create table t (id int primary key, b longblob)",
        f"insert into t select seq, repeat(x'00ff', 20000) from {numbers(4000)}",
        "set global max_allowed_packet = 67108864",
    )
    mysql_database.execute(
        "insert into t values (9001, repeat('x', 16777215 - 9)), (9002, repeat('y', 34000000)),"
        " (9003, ''), (9004, null)"
    )
    program = f"""
        import resource, sys
        from extract_jobs.connections import DatabaseConnection
        from extract_jobs.schema import Column
        from extract_jobs.sources.mysql.reader import MysqlReader
        from extract_jobs.sources.sql.statements import Relation
        from extract_jobs.sources.splits import Split
        import pyarrow as pa
        connection = DatabaseConnection(
            "127.0.0.1", {mysql_database.port}, {mysql_database.database!r}, "tester",
            sys.stdin.read(), sslmode="prefer", engine="mysql")
        columns = tuple(
            Column(n, k, a, True, "lossless", "", n) for n, k, a in
            (("id", "int", pa.int32()), ("b", "longblob", pa.binary())))
        reader = MysqlReader(
            connection, Relation("t", "table"), None, columns, frozenset(), "reading t", 2**28)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows, sizes = 0, {{}}
        for batch in reader.read(Split(0)):
            rows += len(batch)
            for key, value in zip(batch["id"].to_pylist(), batch["b"]):
                if key > 9000:
                    sizes[key] = value.as_py() and len(value.as_py())
            del batch
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        print(rows, sizes, grown)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        input=PASSWORD, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said, grown = done.stdout.strip().rsplit(" ", 1)
    assert said == "4004 {9001: 16777206, 9002: 34000000, 9003: b'', 9004: None}"
    assert int(grown) < 190, f"{grown} MiB"
