"""The source jdbc against databases in Spark's own JVM: H2, also as Oracle and SQL Server, HSQLDB,
Derby. Types at their extremes in a JVM whose zone is New York's, splits, watermarks, secrets."""

# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import extract_jobs.attempt.attempt
from extract_jobs.cli import main
from extract_jobs.config import load_config
from extract_jobs.errors import (
    ConfigError,
    SourceQueryFailed,
    SourceUnavailable,
    TypeNotRepresentable,
)
from extract_jobs.run import run_extract
from extract_jobs.sources import ReadRequest, open_source
from extract_jobs.sources.sql.statements import select
from extract_jobs.watermark import Interval, WatermarkValue
from tests.support.debian import jar
from tests.support.jdbc import PASSWORD, Embedded, derby, h2, hsqldb, read_target

pytestmark = pytest.mark.spark

Make = Callable[[SparkSession], Embedded]


def oracle(spark: SparkSession) -> Embedded:
    return h2(spark, "Oracle", "oracle")


def sqlserver(spark: SparkSession) -> Embedded:
    return h2(spark, "MSSQLServer", "sqlserver")


ALL: tuple[Make, ...] = (h2, oracle, sqlserver, hsqldb, derby)


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JDBC_PASSWORD", PASSWORD)


@pytest.fixture
def _new_york(spark: SparkSession) -> Iterator[None]:
    """A JVM in New York's time, where 2:30 of 14 March 2021 was left out."""
    zones = spark._jvm.java.util.TimeZone
    before = zones.getDefault()
    zones.setDefault(zones.getTimeZone("America/New_York"))
    try:
        yield
    finally:
        zones.setDefault(before)


GAP = datetime(2021, 3, 14, 2, 30, 0, 123456)
LITERAL, STANDARD = r"\b(date|timestamp|time)\(('[^']*')\)", r"\1 \2"
COMMON = """create table "T" (
    id bigint not null primary key, d date, ts timestamp, n numeric(20,4), s varchar(100),
    c clob, ch char(4), f double precision, si smallint, b varbinary(20), t time)"""
VALUES = (
    (
        f"{2**63 - 1}, date('9999-12-31'), timestamp('{GAP}'), 1234567890123456.7891,"
        " 'é☃😀 ''quoted''', 'clob', 'ab', 1.5, -32768, x'00ff', time('12:34:56')"
    ),
    (
        f"{-(2**63)}, date('1500-02-28'), timestamp('1582-10-20 00:00:00'), -0.0001, '', null,"
        " null, -1e300, 32767, null, null"
    ),
    "0, null, null, null, null, null, null, null, null, null, null",
)
"""As Derby has its literals."""
EXPECTED: dict[str, list[Any]] = {
    "d": [date(1500, 2, 28), None, date(9999, 12, 31)],
    "ts": [datetime(1582, 10, 20), None, GAP],
    "n": [Decimal("-0.0001"), None, Decimal("1234567890123456.7891")],
    "s": ["", None, "é☃😀 'quoted'"],
    "c": [None, None, "clob"],
    "ch": [None, None, "ab  "],
    "f": [-1e300, None, 1.5],
    "si": [32767, None, -32768],
    "b": [None, None, b"\x00\xff"],
    "t": [None, None, "12:34:56"],
}


@pytest.mark.usefixtures("_new_york")
@pytest.mark.parametrize("make", [h2, hsqldb])
def test_values_arrive_as_they_are_whatever_the_jvms_zone(
    make: Make, spark: SparkSession, tmp_path: Path
) -> None:
    database = make(spark)
    database.execute(
        COMMON.replace("timestamp,", "timestamp(6),"),
        *(f'insert into "T" values ({re.sub(LITERAL, STANDARD, row)})' for row in VALUES),
        'alter table "T" add tz timestamp(6) with time zone',
        """update "T" set tz = timestamp with time zone '2021-03-14 02:30:00.5+01:00'"""
        if make is h2
        else """update "T" set tz = timestamp '2021-03-14 02:30:00.5+1:00'""",
        'alter table "T" add big numeric(60,2)',
        'update "T" set big = 1234567890123456789012345678901234567890.12',
    )  # fmt: skip
    report = run_extract(database.spec(tmp_path, "PUBLIC.T"), spark=spark)
    found = read_target(tmp_path)
    assert report.rows == 3
    assert found.column("ID").to_pylist() == [-(2**63), 0, 2**63 - 1]
    for name, values in EXPECTED.items():
        assert found.column(name.upper()).to_pylist() == values, name
    assert found.schema.field("N").type == pa.decimal128(20, 4)
    instant = datetime(2021, 3, 14, 1, 30, 0, 500000, tzinfo=UTC)
    assert set(found.column("TZ").to_pylist()) == {instant}
    assert set(found.column("BIG").to_pylist()) == {"1234567890123456789012345678901234567890.12"}


def test_no_digit_is_lost_on_the_way_through_text(spark: SparkSession, tmp_path: Path) -> None:
    """A cast to a short text drops its end, and DECFLOAT calls itself a float."""
    database = h2(spark)
    huge, digits = "7" * 1500, "12345678901234567890.1234567891"
    database.execute(
        'create table "T" (id int, n numeric(2000), f decfloat(30), d date)',
        f"""insert into "T" values (1, {huge}, {digits}, date '12345-06-07')""",
    )
    spec = database.spec(tmp_path, "PUBLIC.T", lossy_types="string")
    run_extract(spec, spark=spark)
    assert read_target(tmp_path).to_pylist() == [
        {"ID": 1, "N": huge, "F": digits, "D": "12345-06-07"}
    ]


def test_a_number_with_more_digits_than_an_unknown_driver_says_is_not_rounded(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H2 says that a DECFLOAT has no digits after the point."""
    monkeypatch.setattr("extract_jobs.sources.jdbc.drivers.DRIVERS", ())
    database = h2(spark)
    database.execute(
        "create table t (id int, n decimal(10,2), f decfloat(20))",
        "insert into t values (1, 2.5, 3)",
    )
    connection = {"url": database.url, "user": "sa", "password_env": "JDBC_PASSWORD",
                  "driver": "org.h2.Driver"}  # fmt: skip
    spec = database.spec(tmp_path, "PUBLIC.T", connection=connection)
    run_extract(spec, spark=spark)
    [row] = read_target(tmp_path).to_pylist()
    assert row == {"ID": 1, "N": Decimal("2.50"), "F": Decimal(3)}
    database.execute("update t set f = 12345678.75")
    with pytest.raises(TypeNotRepresentable, match=r"F \(DECFLOAT.* more digits") as caught:
        run_extract(spec.model_copy(update={"run_id": "run-2"}), spark=spark)
    assert "12345678" not in str(caught.value)


def test_derbys_values_arrive(spark: SparkSession, tmp_path: Path) -> None:
    database = derby(spark)
    database.execute(
        COMMON.replace("varbinary(20)", "varchar(20) for bit data"),
        *(f'insert into "T" values ({row})' for row in VALUES),
    )
    run_extract(database.spec(tmp_path, "SA.T"), spark=spark)
    found = read_target(tmp_path)
    for name, values in EXPECTED.items():
        assert found.column(name.upper()).to_pylist() == values, name


@pytest.mark.usefixtures("_new_york")
def test_oracles_forms(spark: SparkSession, tmp_path: Path) -> None:
    """DATE has a time, NUMBER without a precision is text, instants are UTC's."""
    database = oracle(spark)
    database.execute(
        "create table T (id number(10) primary key, d date, ts timestamp(9),"
        " tz timestamp with time zone, n number, n2 number(10,2), s varchar2(20), r raw(10))",
        "insert into T values (1, timestamp '2020-01-02 03:04:05',"
        " timestamp '2021-03-14 02:30:00.5',"
        " timestamp with time zone '2021-03-14 02:30:00.5+01:00', 1.25, 2.5, 'x', x'00ff')",
    )
    report = run_extract(database.spec(tmp_path, "PUBLIC.T"), spark=spark)
    assert read_target(tmp_path).to_pylist() == [
        {
            "ID": Decimal(1), "D": datetime(2020, 1, 2, 3, 4, 5),
            "TS": datetime(2021, 3, 14, 2, 30, 0, 500000),
            "TZ": datetime(2021, 3, 14, 1, 30, 0, 500000, tzinfo=UTC), "N": "1.25",
            "N2": Decimal("2.50"), "S": "x", "R": b"\x00\xff",
        }
    ]  # fmt: skip
    assert ": as_text; " in report.fidelity["N"]


@pytest.mark.usefixtures("_new_york")
def test_sql_servers_forms(spark: SparkSession, tmp_path: Path) -> None:
    database = sqlserver(spark)
    database.execute(
        "create table T ([id] int primary key, d date, dt2 datetime2(6), dt datetime, m money,"
        " tz timestamp with time zone, s nvarchar(20), ti tinyint, b bit)",
        "insert into T values (1, date '2020-01-02', timestamp '2021-03-14 02:30:00.123456',"
        " timestamp '2021-03-14 02:30:00.123', 922337203685477.5807,"
        " timestamp with time zone '2021-03-14 02:30:00.5+01:00', 'é', 7, true)",
    )
    run_extract(database.spec(tmp_path, "PUBLIC.T"), spark=spark)
    assert read_target(tmp_path).to_pylist() == [
        {
            "id": 1, "D": date(2020, 1, 2), "DT2": datetime(2021, 3, 14, 2, 30, 0, 123456),
            "DT": datetime(2021, 3, 14, 2, 30, 0, 123000), "M": Decimal("922337203685477.5807"),
            "TZ": datetime(2021, 3, 14, 1, 30, 0, 500000, tzinfo=UTC), "S": "é", "TI": 7, "B": True,
        }
    ]  # fmt: skip


# --- values and types without a faithful form ----------------------------------------------------


@pytest.mark.parametrize("policy", ["refuse", "null", "string"])
def test_parts_of_a_microsecond(spark: SparkSession, tmp_path: Path, policy: str) -> None:
    database = h2(spark)
    text = "2021-01-01 00:00:00.123456789"
    database.execute(
        "create table t (id int, ts timestamp(9))", f"insert into t values (1, timestamp '{text}')"
    )
    spec = database.spec(tmp_path, "PUBLIC.T", lossy_types=policy)
    if policy == "refuse":
        with pytest.raises(TypeNotRepresentable, match=r"TS .*finer than microseconds") as caught:
            run_extract(spec, spark=spark)
        assert "2021" not in str(caught.value)
        return
    report = run_extract(spec, spark=spark)
    assert report.nulled == ({"TS": 1} if policy == "null" else {})
    [value] = read_target(tmp_path).column("TS").to_pylist()
    assert value == (None if policy == "null" else text)


def test_types_that_no_text_can_be_made_of_are_refused_together(
    spark: SparkSession, tmp_path: Path
) -> None:
    database = hsqldb(spark)
    database.execute("create table t (id int, x int array, y other)")
    with pytest.raises(TypeNotRepresentable, match=r"X is INTEGER ARRAY.*: .*; Y is OTHER"):
        open_source(database.spec(tmp_path, "PUBLIC.T"), spark).describe()
    left_out = database.spec(tmp_path, "PUBLIC.T", columns={"exclude": ["X", "Y"]})
    assert len(open_source(left_out, spark).describe().columns) == 3


# --- splits --------------------------------------------------------------------------------------


def counts(database: Embedded, spec: Any) -> list[int]:
    """Return the rows of every split, by the database itself, and check that they add up."""
    source = open_source(spec, database.spark)
    with source.snapshot(ReadRequest(source.describe().columns)) as snapshot:
        splits = snapshot.splits(spec)
        reader = snapshot.reader
        with reader.jvm.connect("counting") as opened:
            found = [
                int(opened.rows(select(["count(*)"], reader.relation, split.predicate))[0][0])
                for split in splits
            ]
        assert sum(found) == snapshot.count()
    return found


@pytest.mark.any_spark
@pytest.mark.parametrize("make", ALL)
def test_every_strategy_puts_every_row_into_one_split(
    make: Make, spark: SparkSession, tmp_path: Path
) -> None:
    """Negative, sparse and missing keys; days; texts where the database can."""
    database = make(spark)
    database.execute(
        "create table t (id int primary key, k bigint, d date, s varchar(20), ts timestamp)"
    )
    rows = [
        (n, None if n % 7 == 0 else (-1) ** n * n**5, f"{2000 + n % 20}-02-28", f"é'{n}")
        for n in range(1, 201)
    ]
    # Derby takes a text where a date is wanted, as do the others.
    statement = (
        "insert into t (id, k, d, s, ts) values (?, ?, cast(? as date), ?, current_timestamp)"
    )
    database.insert(statement, rows)
    schema = "SA.T" if make is derby else "PUBLIC.T"
    ntile = make in (h2, oracle, sqlserver)

    def cut(strategy: str, column: str | None = None) -> list[int]:
        split = {"strategy": strategy, "column": column, "max_connections": 5}
        return counts(database, database.spec(tmp_path, schema, split=split))

    for column in ("ID", "K", "D"):
        found = cut("range", column)
        assert len(found) == 5, column
        if ntile or column != "K":
            assert max(found) <= 80, column
    hashed = [cut("hash", "ID"), cut("hash", "K")]
    if make in (h2, oracle):
        hashed += [cut("hash", "S"), cut("range", "S")]
    assert all(len(found) == 5 and max(found) <= 80 for found in hashed)
    assert cut("none") == [200]
    with pytest.raises(ConfigError, match="ctid is PostgreSQL's own"):
        cut("ctid")
    if make is derby:
        with pytest.raises(ConfigError, match="integers can be hashed"):
            cut("hash", "S")
        with pytest.raises(ConfigError, match="no ntile"):
            cut("range", "S")


def test_a_masked_key_cuts_nothing(spark: SparkSession, tmp_path: Path) -> None:
    """Its bounds would be in the statements that Spark's event log shows."""
    database = h2(spark)
    database.execute(
        "create table t (id int primary key, s varchar(50))",
        "insert into t select x, repeat('x', 50) from system_range(1, 5000)",
    )
    split = {"target_bytes": 2**13, "max_connections": 5}
    spec = database.spec(tmp_path, "PUBLIC.T", split=split)
    assert len(counts(database, spec)) > 1
    masked = database.spec(tmp_path, "PUBLIC.T", split=split, columns={"mask": {"ID": "redact"}})
    assert counts(database, masked) == [5000]


# --- watermarks ----------------------------------------------------------------------------------


@pytest.mark.any_spark
@pytest.mark.usefixtures("_new_york")
@pytest.mark.parametrize("make", [h2, oracle, sqlserver, hsqldb])
def test_watermarks_are_exact_in_every_dialect(
    make: Make, spark: SparkSession, tmp_path: Path
) -> None:
    database = make(spark)
    zoned = "timestamp '2021-03-14 07:30:0{}.00000{}+00:00'"
    if make is not hsqldb:
        zoned = zoned.replace("timestamp '", "timestamp with time zone '")
    database.execute(
        "create table t (id int primary key, ts timestamp(6), tz timestamp(6) with time zone,"
        " n numeric(12,3), s varchar(20))",
        *(
            f"insert into t values ({i}, timestamp '2021-03-14 02:30:00.00000{i}',"
            f" {zoned.format(0, i)}, {i}.001, 'a\\{i}''')"
            for i in range(1, 5)
        ),
        "insert into t values (9, null, null, null, null)",
    )
    spec = database.spec(tmp_path, "PUBLIC.T")
    source = open_source(spec, spark)
    columns = source.describe().columns
    expected = {
        "ID": ("integer", "9", "2"),
        "TS": ("timestamp", "2021-03-14 02:30:00.000004", "2021-03-14 02:30:00.000002"),
        "TZ": ("timestamptz", "2021-03-14 07:30:00.000004+00", "2021-03-14 07:30:00.000002+00"),
        "N": ("decimal", "4.001", "2.001"),
        "S": ("string", "a\\4'", "a\\2'"),
    }
    if make is sqlserver:
        del expected["TZ"]  # H2 has no datetimeoffset to compare with
    for name, (kind, highest, middle) in expected.items():
        bound, top = WatermarkValue(kind, middle), WatermarkValue(kind, highest)
        assert source.highest(name) == top
        assert source.highest(name, lower=top) is None
        assert source.highest(name, upper=bound) == bound
        assert source.precedes(name, bound, top)
        assert not source.precedes(name, top, bound)
        assert not source.precedes(name, top, top)
        assert source.null_watermarks(name) == (0 if name == "ID" else 1)
        for with_nulls in (False, True):
            request = ReadRequest(columns, Interval(bound, top), name, with_nulls)
            with source.snapshot(request) as snapshot:
                nulls = int(with_nulls and name != "ID")
                assert snapshot.count() == (3 if name == "ID" else 2) + nulls, name
    if make is not sqlserver:  # whose clocks H2 does not have
        assert source.highest("TZ", delay=timedelta(days=1)) is not None
        assert source.highest("TS", delay=timedelta(days=10**5)) is None


@pytest.mark.any_spark
def test_rows_are_deduplicated_by_key_and_refused_beyond_memory(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = h2(spark)
    database.execute(
        "create table t (id int, w int)", "insert into t select x, x from system_range(1, 50)"
    )

    def run(run_id: str) -> Any:
        spec = database.spec(
            tmp_path, "PUBLIC.T", run_id=run_id, mode="incremental",
            watermark={"column": "W", "lag": 20}, columns={"key": ["ID"]},
            split={"strategy": "range", "column": "ID", "max_connections": 2},
        )  # fmt: skip
        return run_extract(spec, spark=spark)

    assert run("a").rows == 50
    database.execute("insert into t values (51, 40)", "insert into t values (52, 60)")
    second = run("b")
    assert (second.rows, second.repeated_rows) == (2, 20)
    assert read_target(tmp_path).column("ID").to_pylist() == list(range(1, 53))
    monkeypatch.setattr(extract_jobs.attempt.attempt, "MAX_IN_MEMORY", 3)
    database.execute("insert into t values (53, 61)")
    with pytest.raises(ConfigError, match=r"too many for columns\.key to deduplicate"):
        run("c")


# --- texts, errors, drivers, secrets -------------------------------------------------------------


def test_a_query_and_a_condition(spark: SparkSession, tmp_path: Path) -> None:
    database = h2(spark)
    database.execute('create table t ("a b" int)', "insert into t select x from system_range(1, 9)")
    spec = database.spec(
        tmp_path, "q", query='select "a b" as n, 2 * "a b" as "m" from t;', where="n > 5"
    )
    assert run_extract(spec, spark=spark).rows == 4
    for hostile in (
        {"where": "1 = 1) or (1 = 1"},
        {"where": "1 = 1; drop table t"},
        {"query": "select 1) x; drop table t; select * from (select 1"},
        {"query": "select 1 -- and more"},
    ):
        with pytest.raises(ConfigError, match=r"where|query"):
            open_source(database.spec(tmp_path, "PUBLIC.T", **hostile), spark)
    with pytest.raises(ConfigError, match=r"describing q failed.*42S22"):
        open_source(database.spec(tmp_path, "q", query="select nix from t"), spark).describe()


def test_a_row_that_fails_the_statement_is_not_shown(spark: SparkSession, tmp_path: Path) -> None:
    database = h2(spark)
    database.execute(
        "create table t (id int, s varchar(20))",
        "insert into t select x, '7' from system_range(1, 50)",
        "insert into t values (51, 'Mrs Secret')",
    )
    spec = database.spec(tmp_path, "q", query="select id, cast(s as int) as n from t")
    with pytest.raises(
        SourceQueryFailed, match=r"reading q failed: \(JdbcSQLDataException"
    ) as caught:
        run_extract(spec, spark=spark)
    assert "Secret" not in "".join(traceback.format_exception(caught.value))
    assert not list((tmp_path / "target").rglob("*"))


def test_a_driver_from_a_folder_and_one_from_nowhere(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "drivers"
    folder.mkdir()
    (folder / "hsqldb.jar").symlink_to(jar("hsqldb"))
    url = {"url": "jdbc:hsqldb:mem:folder", "user": "sa", "password_env": "JDBC_PASSWORD"}
    database = Embedded(spark, url["url"], connection={"jars": [str(folder)]})
    source = open_source(database.spec(tmp_path, "t"), spark)
    with pytest.raises(ConfigError, match="there is no table 't'"):
        source.describe()
    unknown = {"url": "jdbc:nix://host/db", "driver": "org.nix.Driver", "user": "sa"}
    spec = h2(spark).spec(tmp_path, "t", connection=unknown)
    expected = r"org\.nix\.Driver is not on Spark's class path\. .*connection\.jars.*--extra-jars"
    with pytest.raises(ConfigError, match=expected):
        open_source(spec, spark)
    lacking = unknown | {"jars": [str(folder)], "driver": "org.nix.Driver"}
    with pytest.raises(ConfigError, match=r"neither on Spark's class path nor in connection\.jars"):
        open_source(h2(spark).spec(tmp_path, "t", connection=lacking), spark)
    with pytest.raises(ConfigError, match=r"connection\.driver is needed"):
        open_source(h2(spark).spec(tmp_path, "t", connection={"url": "jdbc:nix://h/d"}), spark)
    absent = unknown | {"packages": ["no.such:package:1"]}
    with pytest.raises(SourceUnavailable, match=r"packages: no\.such:package:1 could not be down"):
        open_source(h2(spark).spec(tmp_path, "t", connection=absent), spark)
    missing = {"url": "jdbc:nix://h/d", "jars": ["/nowhere/x.jar"]}
    with pytest.raises(ConfigError, match=r"connection\.jars: .* is not there"):
        open_source(h2(spark).spec(tmp_path, "t", connection=missing), spark)


def test_what_fails_in_a_driver_that_was_added_late(spark: SparkSession, tmp_path: Path) -> None:
    """Spark cannot take its exceptions back from executors: the source is asked itself."""
    database = hsqldb(spark)
    database.execute("create table t (s varchar(20))", "insert into t values ('Mrs Secret')")
    spec = database.spec(tmp_path, "q", query="select cast(s as int) as n from t")
    with pytest.raises(SourceQueryFailed, match=r"reading q failed") as caught:
        run_extract(spec, spark=spark)
    assert "Secret" not in "".join(traceback.format_exception(caught.value))


def test_an_unreachable_server(spark: SparkSession, tmp_path: Path) -> None:
    nowhere = Embedded(spark, "jdbc:h2:tcp://127.0.0.1:9/x")
    with pytest.raises(
        SourceUnavailable, match=r"cannot connect to jdbc:h2:tcp://127\.0\.0\.1:9/x"
    ):
        open_source(nowhere.spec(tmp_path, "t"), spark).describe()


def test_the_password_is_nowhere(
    spark: SparkSession, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    database = h2(spark)
    database.execute("create table t (id int)", "insert into t values (1)")
    spec = database.spec(tmp_path, "PUBLIC.T")
    run_extract(spec, spark=spark)
    source = open_source(spec, spark)
    with source.snapshot(ReadRequest(source.describe().columns)) as snapshot:
        frame = snapshot.reader.dataframe(spark, snapshot.splits(spec))
        frame.explain("extended")
        frame.explain("formatted")
        assert PASSWORD not in repr(snapshot.reader) + repr(source) + str(frame)
        shown = [frame._jdf.queryExecution().toString()]
    assert "JDBCRelation" in shown[0]
    folder = Path(spark.conf.get("spark.eventLog.dir").removeprefix("file:"))
    logs = [file for file in folder.rglob("*") if file.is_file()]
    shown += [file.read_text(errors="replace") for file in logs]
    assert "JDBCRelation" in "".join(shown[1:])
    shown += [
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    ]
    shown += [f"{k}={v}" for k, v in spark.sparkContext.getConf().getAll()]
    shown += [*capfd.readouterr(), (tmp_path / "report.json").read_text()]
    shown += [file.read_text() for file in (tmp_path / "state").rglob("*.json")]
    assert not [text for text in shown if PASSWORD in text]


@pytest.mark.any_spark
@pytest.mark.parametrize("make", ALL)
def test_init_writes_a_config_that_runs_without_an_edit(
    spark: SparkSession, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    database = make(spark)
    database.execute(
        'create table "Ord.ers" ("id" int not null primary key, "email" varchar(20))',
        'create index "by_email" on "Ord.ers" ("email")',
        "insert into \"Ord.ers\" values (1, 'a@b')",
        'create view "all_orders" as select * from "Ord.ers"',
    )
    monkeypatch.chdir(tmp_path)
    jars = database.connection.get("jars", [])
    driver = ["--driver", *jars] if jars else []
    command = ["init", "s.yml", "--from", database.url, "--user", "sa", *driver]
    assert main([*command, "--password-env", "JDBC_PASSWORD"]) == 0, capsys.readouterr().err
    config = load_config(Path("s.yml").read_text(), "s.yml", str(tmp_path))
    assert [name.partition(".")[2] for name in config.tables] == ["Ord.ers"]
    text = Path("s.yml").read_text()
    assert "all_orders:  # a view" in text
    assert "mask: {email: redact}" in text
    assert main(["run", "s.yml", "-q"]) == 0, capsys.readouterr().err
    assert pq.read_table(tmp_path / "lake").column("id").to_pylist() == [1]
    assert main(["init", "s.yml", "--update"]) == 0
    assert "no table is new" in capsys.readouterr().out
