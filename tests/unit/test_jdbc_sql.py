"""What the JDBC source says to databases that are not at hand, and to drivers; what they throw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import (
    ConfigError,
    ExtractError,
    SourceQueryFailed,
    SourceUnavailable,
)
from extract_jobs.schema import Column
from extract_jobs.sources.jdbc.catalog import JdbcTable, Table
from extract_jobs.sources.jdbc.columns import JdbcColumn
from extract_jobs.sources.jdbc.dialects import ORACLE, PLAIN, POSTGRES, REDSHIFT, SQLSERVER, Dialect
from extract_jobs.sources.jdbc.drivers import (
    driver_of,
    driver_properties,
    url_for_spark,
    url_of,
)
from extract_jobs.sources.jdbc.errors import Thrown, connect_error, scrub, statement_error
from extract_jobs.sources.jdbc.jvm import Opened
from extract_jobs.sources.jdbc.rules import TYPE_RULES
from extract_jobs.sources.jdbc.splits import cut
from extract_jobs.sources.jdbc.sql import Relation, literal, quote_text
from extract_jobs.sources.jdbc.types import Described, Typed, make_column, quote_name, typed
from extract_jobs.sources.sql.names import readings
from extract_jobs.sources.sql.splits import between
from extract_jobs.spec.parts import SplitSpec


def column(dialect: Dialect, type_name: str, code: int, **more: Any) -> Column | str:
    described = Described("c", code, type_name, **{"precision": 0, "scale": 0} | more,
                          nullable=True, signed=True)  # fmt: skip
    return make_column(typed(described, dialect), dialect, cast=None, lossy="refuse")


@pytest.mark.parametrize(
    ("dialect", "type_name", "code", "more", "arrow", "expression"),
    [
        (ORACLE, "NUMBER", 2, {"precision": 10}, pa.decimal128(10, 0), '"c"'),
        (ORACLE, "NUMBER", 2, {"scale": -127}, pa.string(), "to_char"),
        (ORACLE, "NUMBER", 2, {"precision": 38, "scale": -2}, pa.string(), "to_char"),
        (ORACLE, "NUMBER", 2, {"precision": 2, "scale": 4}, pa.string(), "to_char"),
        (ORACLE, "FLOAT", 6, {"precision": 126}, pa.string(), "to_char"),
        (ORACLE, "DATE", 93, {}, pa.timestamp("us"), "to_char(\"c\", 'SYYYY-MM-DD HH24:MI:SS')"),
        (ORACLE, "TIMESTAMP WITH LOCAL TIME ZONE", -102, {}, pa.timestamp("us", "UTC"), "'UTC'"),
        (ORACLE, "INTERVALDS", -104, {}, pa.string(), 'to_char("c")'),
        (ORACLE, "JSON", 2016, {}, pa.string(), "json_serialize"),
        (SQLSERVER, "timestamp", -2, {"precision": 8}, pa.int64(), "cast([c] as bigint)"),
        (SQLSERVER, "datetime2", 93, {}, pa.timestamp("us"), "cast([c] as varchar(33))"),
        (SQLSERVER, "datetimeoffset", -155, {}, pa.timestamp("us", "UTC"), "at time zone 'UTC'"),
        (SQLSERVER, "uniqueidentifier", 1, {}, pa.string(), "cast([c] as varchar(36))"),
        (SQLSERVER, "money", 3, {"precision": 19, "scale": 4}, pa.decimal128(19, 4), "decimal"),
        (SQLSERVER, "tinyint", -6, {}, pa.int16(), "[c]"),
        (SQLSERVER, "xml", -16, {}, pa.string(), "cast([c] as nvarchar(max))"),
        (REDSHIFT, "super", -16, {}, pa.string(), 'json_serialize("c")'),
        (REDSHIFT, "timestamptz", 93, {}, pa.timestamp("us", "UTC"), "at time zone 'UTC'"),
        (POSTGRES, "numeric", 2, {}, pa.string(), 'cast("c" as varchar)'),
        (PLAIN, "WHATEVER", 91, {}, pa.date32(), 'cast("c" as varchar(10))'),
    ],
)
def test_types_of_servers_that_are_not_at_hand(
    dialect: Dialect, type_name: str, code: int, more: Any, arrow: pa.DataType, expression: str
) -> None:
    found = column(dialect, type_name, code, **more)
    assert isinstance(found, Column)
    assert found.arrow_type == arrow
    assert expression in found.expression


@pytest.mark.parametrize(
    ("dialect", "type_name", "code"),
    [(SQLSERVER, "sql_variant", -156), (SQLSERVER, "geography", -157), (ORACLE, "LONG", -1),
     (REDSHIFT, "geometry", 12), (PLAIN, "ARRAY", 2003), (PLAIN, "JAVA_OBJECT", 2000)],
)  # fmt: skip
def test_types_that_are_refused(dialect: Dialect, type_name: str, code: int) -> None:
    refused = column(dialect, type_name, code)
    assert isinstance(refused, str)
    assert refused.startswith(f"c is {type_name}: ")


def test_every_type_of_the_docs_has_one_row() -> None:
    assert TYPE_RULES
    for rules in TYPE_RULES.values():
        assert rules
        names = [name for rule in rules for name in rule.source_type.split(", ")]
        assert len(names) == len(set(names))
        assert all(rule.reason.endswith(".") and rule.arrives_as for rule in rules)


def test_watermarks_literals() -> None:
    def of(dialect: Dialect, name: str, code: int, text: str) -> str:
        described = Described("c", code, name, 0, 0, nullable=True, signed=True)
        return literal(text, typed(described, dialect), dialect)

    moment = "2021-01-02 03:04:05.123456"
    assert of(ORACLE, "DATE", 93, moment).startswith("to_date('2021-01-02 03:04:05', ")
    assert of(ORACLE, "TIMESTAMP", 93, moment) == f"timestamp '{moment}'"
    zoned = of(ORACLE, "TIMESTAMP WITH TIME ZONE", -101, moment + "+00")
    assert zoned == f"timestamp '{moment} +00:00'"
    ticks = of(SQLSERVER, "datetime", 93, "2021-01-02 03:04:05.123")
    assert ticks == "cast(cast('2021-01-02 03:04:05.123' as datetime2(3)) as datetime)"
    assert of(SQLSERVER, "timestamp", -2, "2001") == "cast(cast(2001 as bigint) as binary(8))"
    assert of(SQLSERVER, "nvarchar", -9, "O'é") == "N'O''é'"


def test_texts_and_names_stay_in_their_quotes() -> None:
    assert quote_name('we"ird', ORACLE) == '"we""ird"'
    assert quote_name("we]ird", SQLSERVER) == "[we]]ird]"
    with pytest.raises(ConfigError, match="backslash"):
        quote_text("\\' or 1 = 1 --", PLAIN)
    with pytest.raises(ConfigError, match="NUL"):
        quote_text("a\0b", ORACLE)


def test_ranges_leave_nothing_out_and_null_is_in_the_first() -> None:
    described = Described("c", 4, "int", 10, 0, nullable=True, signed=True)
    splits = between(["-5", "7"], JdbcColumn.of(typed(described, SQLSERVER), SQLSERVER), 300)
    assert [split.predicate for split in splits] == [
        "[c] <= -5 or [c] is null", "[c] > -5 and [c] <= 7", "[c] > 7",
    ]  # fmt: skip


def test_a_hash_leaves_no_null_out() -> None:
    described = Described("c", 4, "int", 10, 0, nullable=True, signed=True)
    relation = Relation("x", "table", dialect=POSTGRES)
    found = JdbcTable(Table(None, "s", "t", is_view=False), relation, (typed(described, POSTGRES),))
    wanted = SplitSpec(strategy="hash", column="c", max_connections=3)
    splits = cut(Opened(None), found, wanted, None)
    hashed = 'mod(mod("c", 3) + 3, 3)'
    assert [split.predicate for split in splits] == [
        f'{hashed} = 0 or "c" is null', f"{hashed} = 1", f"{hashed} = 2",
    ]  # fmt: skip


def test_a_table_is_named_in_any_way_that_it_can_be_read() -> None:
    assert readings("a.b.c") == [("a", "b.c"), ("a.b", "c"), (None, "a.b.c")]
    assert readings('"a.b"."c""d"')[0] == ("a.b", 'c"d')
    found = JdbcTable(None, Relation("x", "query", dialect=PLAIN), ())
    with pytest.raises(ConfigError, match="no column 'n'"):
        found.column("n")


def test_wide_rows_are_fetched_few_at_a_time() -> None:
    def of(name: str, code: int, precision: int) -> Typed:
        described = Described(name, code, "x", precision, 0, nullable=True, signed=True)
        return typed(described, PLAIN)

    columns = (of("id", 4, 10), of("t", 12, 2**31 - 1), of("c", 2005, 0), of("v", 12, 20))
    relation = Relation("x", "table", dialect=PLAIN)
    found = JdbcTable(Table(None, "s", "t", is_view=False), relation, columns)
    assert found.row_bytes(["id", "v"]) == 24
    assert found.row_bytes(["id", "t"]) > 8_000
    assert found.row_bytes(["c"]) > 60_000
    known = replace(found, rows=10, bytes=1_000)
    assert known.row_bytes(["id", "t", "c"]) == 800


# --- drivers -------------------------------------------------------------------------------------


def at(engine: str, **more: Any) -> DatabaseConnection:
    given = {"host": "db", "port": 1, "database": "sales", "user": "u", "password": "p"} | more
    return DatabaseConnection(engine=engine, **given)


def test_urls_hold_no_credentials_and_nothing_of_a_database_name_but_itself() -> None:
    assert url_of(at("sqlserver")) == "jdbc:sqlserver://db:1;databaseName={sales}"
    hostile = url_of(at("sqlserver", database="x};user=sa;y={"))
    assert hostile.endswith("databaseName={x}};user=sa;y={}")
    assert url_of(at("oracle")) == "jdbc:oracle:thin:@//db:1/sales"
    assert url_of(at("redshift", host="::1")) == "jdbc:redshift://[::1]:1/sales"
    with pytest.raises(ConfigError, match=r"set connection\.url"):
        url_of(at("redshift", database="x?user=y"))
    assert url_for_spark("jdbc:mariadb://h/d?a=b") == "jdbc:mysql://h/d?a=b&permitMysqlScheme"
    assert url_for_spark("jdbc:mariadb://h/d") == "jdbc:mysql://h/d?permitMysqlScheme"
    assert url_for_spark("jdbc:h2:mem:x") == "jdbc:h2:mem:x"


def test_what_is_configured_goes_over_what_a_driver_is_given_anyway() -> None:
    connection = at("redshift", sslmode="verify-full", properties={"READONLY": "false", "x": "y"})
    found = driver_properties(connection, driver_of("jdbc:redshift://db/x"))
    assert found["sslmode"] == "verify-full"
    assert found["connectTimeout"] == "10"
    assert found["socketTimeout"] == "3600"
    longest = at("oracle", stall_seconds=1e9)
    assert driver_properties(longest, driver_of("jdbc:oracle:"))["oracle.jdbc.ReadTimeout"] == (
        "2147483647"
    )
    assert {k: v for k, v in found.items() if k.lower() == "readonly"} == {"READONLY": "false"}
    assert found["x"] == "y"
    assert driver_of("jdbc:nix://h").classes == ()


# --- errors --------------------------------------------------------------------------------------


def thrown(name: str = "SQLException", state: str = "", code: int = 0, **more: Any) -> Thrown:
    given = {"names": (name,), "message": "Value 'Mrs Secret' 12345", "product": "other"} | more
    return Thrown(name, given["names"], state, code, given["message"], given["product"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (thrown(state="08006"), SourceUnavailable),
        (thrown(state="57P01"), SourceUnavailable),
        (thrown(state="40001"), SourceUnavailable),
        (thrown("SQLRecoverableException"), SourceUnavailable),
        (thrown(names=("PSQLException", "SocketException")), SourceUnavailable),
        (thrown(state="72000", code=1555, product="oracle"), SourceUnavailable),
        (thrown(state="S0002", code=1205, product="sqlserver"), SourceUnavailable),
        (thrown(state="42501"), ConfigError),
        (thrown(state="22018"), SourceQueryFailed),
        (thrown(state="42S22"), SourceQueryFailed),
    ],
)
def test_what_a_failed_read_means(error: Thrown, expected: type[ExtractError]) -> None:
    found = statement_error(error, "reading t", shows=False)
    assert type(found) is expected
    assert "Secret" not in str(found)
    assert "12345" not in str(found)


def test_what_a_failed_login_means() -> None:
    for error in (
        thrown(state="28P01"),
        thrown(code=18456, product="sqlserver"),
        thrown(code=1017, product="oracle"),
        thrown(state="08004", product="derby"),
    ):
        assert isinstance(connect_error(error, "db", 10), ConfigError)
    assert isinstance(connect_error(thrown(state="08001"), "db", 10), SourceUnavailable)
    assert isinstance(connect_error(thrown(state="3D000"), "db", 10), ConfigError)


def test_a_message_is_shown_up_to_what_may_be_data() -> None:
    assert scrub('Column "X" not found') == "Column…"
    assert scrub("ORA-00942: table or view does not exist") == "ORA-…"
    assert scrub("no such thing") == "no such thing"
