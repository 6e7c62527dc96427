"""What is written reads back equal in Spark, as its own types."""

# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as f

from extract_jobs.parquet.writer import PartitionedWriter
from extract_jobs.run import run_extract
from extract_jobs.storage.local import LocalStorage
from extract_jobs.transform.transform import Transform, choose_columns
from tests.support.files import files_spec
from tests.support.files import read_all as read_all_files
from tests.support.mysql_source import read_all
from tests.support.mysql_source import source as mysql_source
from tests.support.mysql_torture import COLUMNS
from tests.support.mysql_torture import make as make_mysql_torture
from tests.support.postgres_source import source
from tests.support.postgres_torture import TYPES, build, exact_texts, files_of, meant, psql
from tests.support.specs import make_description, make_spec
from tests.support.sqlite_source import source as sqlite_source
from tests.support.sqlite_torture import PRINTED, make_torture

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.support.mysql_servers import MysqlServer
    from tests.support.postgres import Server

pytestmark = pytest.mark.spark

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
HOSTILE = ["plain", "a/b", "a=b", "50%", "%2F", "x y", "é", "q\"'q", "a:b*c?d", "{[^]}", "\\", "#",
           "tab\t", "del\x7f", "+", "&", ".", "..", "日本", "01", None]  # fmt: skip


def write(folder: Path, batch: pa.RecordBatch, **target: Any) -> str:
    spec = make_spec(folder, target=target)
    columns = choose_columns(make_description(batch.schema), spec)
    transform = Transform.build(
        columns, spec, run_id=spec.run_id, extracted_at=NOW, extract_date=NOW.date()
    )
    storage = LocalStorage()
    writer = PartitionedWriter(storage, spec.target, transform, file_prefix="r-1-0", metadata={})
    writer.write(batch)
    for one in writer.close():
        assert storage.complete(one.staged)
    return spec.target.uri


def test_values_and_types(spark: SparkSession, tmp_path: Path) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901)
    old = datetime(1500, 3, 1, 2, 3, 4, 5)
    rows: list[tuple[Any, ...]] = [
        (1, 2**40, 1.5, True, "é", b"\x00\xff", date(2026, 1, 2), moment, moment,
         Decimal("1234567.89"), Decimal("12345678901234567890123456.7890123456"), [1, None, 3]),
        (-1, -(2**40), float("inf"), False, "", b"", date(1500, 3, 1), old, old,
         Decimal("-0.01"), Decimal("-0.0000000001"), []),
        (None,) * 12,
    ]  # fmt: skip
    schema = pa.schema([
        ("i", pa.int32()), ("l", pa.int64()), ("f", pa.float64()), ("b", pa.bool_()),
        ("s", pa.string()), ("y", pa.binary()), ("d", pa.date32()), ("t", pa.timestamp("us")),
        ("z", pa.timestamp("us", "UTC")), ("n", pa.decimal128(9, 2)),
        ("m", pa.decimal128(38, 10)), ("a", pa.list_(pa.int32())),
    ])  # fmt: skip
    arrays = [
        pa.array(list(v), f.type) for v, f in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    uri = write(tmp_path, pa.record_batch(arrays, schema))
    found = spark.read.parquet(uri)
    aware = [(*r[:8], r[8] and r[8].replace(tzinfo=UTC), *r[9:], "run-1", NOW) for r in rows]
    expected = spark.createDataFrame(
        aware,
        "i int, l bigint, f double, b boolean, s string, y binary, d date, t timestamp_ntz, "
        "z timestamp, n decimal(9,2), m decimal(38,10), a array<int>, _run_id string, "
        "_extracted_at timestamp",
    )
    assert_df_equality(found, expected, ignore_row_order=True)


def test_every_type_of_postgres_as_psql_prints_it(
    spark: SparkSession, pg_database: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared by column and not by chispa: what psql prints makes no DataFrame of these types."""
    names = build(pg_database)
    run_extract(source(pg_database, monkeypatch, folder=tmp_path, extract_table="torture").spec)
    kinds = [kind for kind, _ in TYPES.values()]
    frame = spark.read.parquet(*files_of(tmp_path / "target")).orderBy("n")
    rows = frame.select(
        *(f.expr(as_spark_prints(n, k)) for n, k in zip(names, kinds, strict=True))
    ).collect()
    printed = psql(pg_database, f"select {', '.join(names)} from torture order by n")
    assert len(rows) == len(printed) > 3
    for i, (name, kind) in enumerate(zip(TYPES, kinds, strict=True)):
        read = [from_spark(row[i], kind) for row in rows]
        assert exact_texts(read) == exact_texts([meant(row[i], kind) for row in printed]), name


def as_spark_prints(name: str, kind: pa.DataType) -> str:
    """Python's datetimes are of the driver's zone, and know no year 0 on the way."""
    if pa.types.is_timestamp(kind):
        return f"cast({name} as string)"
    if pa.types.is_list(kind) and pa.types.is_timestamp(kind.value_type):
        return f"transform({name}, x -> cast(x as string))"
    return name


def from_spark(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_list(kind):
        return [from_spark(item, kind.value_type) for item in value]
    if pa.types.is_timestamp(kind):
        return meant(value + ("+00" if kind.tz else ""), kind)
    if pa.types.is_decimal(kind):
        # The scale is the column's; of small values py4j drops zeros.
        return value.quantize(Decimal(1).scaleb(-kind.scale), context=Context(prec=38))
    return bytes(value) if pa.types.is_binary(kind) else value


def test_every_type_of_sqlite_as_it_is_stored(spark: SparkSession, tmp_path: Path) -> None:
    make_torture(tmp_path / "torture.db")
    places = {"target": {"uri": f"{tmp_path}/target"}} | {
        name: f"{tmp_path}/{name}" for name in ("state_uri", "report_uri")
    }
    split = {"strategy": "rowid", "target_bytes": 8192}
    spec = sqlite_source(tmp_path / "torture.db", split=split, **places).spec
    assert run_extract(spec, spark=spark).splits > 1
    found = spark.read.parquet(*files_of(tmp_path / "target")).drop("_run_id", "_extracted_at")
    expected = spark.createDataFrame(
        list(zip(*PRINTED.values(), strict=True)),
        "n bigint, small bigint, whole bigint, truth boolean, words string, short string, "
        "bytes binary, double double, price decimal(10,2), wide decimal(38,10), moment string, "
        "day string, number string, json string, anything string",
    )
    assert_df_equality(found, expected, ignore_row_order=True)


def test_every_type_of_mariadb_as_it_was_read(
    spark: SparkSession,
    mariadb_database: MysqlServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it is read as is compared with the database's own client elsewhere.

    Compared by column and not by chispa: on the way into a DataFrame, Python's timestamps would
    pass the same conversions as those that are tested.
    """
    make_mysql_torture(mariadb_database)
    places = {"target": {"uri": f"{tmp_path}/target"}} | {
        name: f"{tmp_path}/{name}" for name in ("state_uri", "report_uri")
    }
    found = mysql_source(mariadb_database, monkeypatch, extract_table="torture", **places)
    run_extract(found.spec)
    table = read_all(found).sort_by("id").select(list(COLUMNS))
    frame = spark.read.parquet(*files_of(tmp_path / "target")).orderBy("id")
    names = [as_spark_prints(field.name, field.type) for field in table.schema]
    rows = frame.select(*map(f.expr, names)).collect()
    assert len(rows) > 3
    for i, field in enumerate(table.schema):
        expected: list[Any] = table.column(i).to_pylist()
        if pa.types.is_timestamp(field.type):
            naive = [v and v.replace(tzinfo=None).isoformat(sep=" ") for v in expected]
            expected = [v and (v.rstrip("0") if "." in v else v) for v in naive]
        shown = [bytes(row[i]) if isinstance(row[i], bytearray) else row[i] for row in rows]
        assert shown == expected, field.name


@pytest.mark.skipif(not pyspark.__version__.startswith("4."), reason="Spark 3 has no VARIANT")
@pytest.mark.parametrize("fields", ["", "a decimal(9,2), d date"], ids=["as it is", "shredded"])
def test_a_variant_of_spark_becomes_the_json_that_spark_prints(
    spark: SparkSession, tmp_path: Path, fields: str
) -> None:
    made = [
        """parse_json('{"a": 1.25, "b": [1, null, "x"], "c": 1e300, "é": {}}')""",
        "to_variant_object(named_struct('d', date'1500-01-31', 'y', X'00ff', 'f', 0.1f, 'a', 2))",
        "null",
        "parse_json('null')",
        "parse_json('-9223372036854775808')",
    ]
    frame = spark.sql(" union all ".join(f"select {n} n, {v} v" for n, v in enumerate(made)))
    shredding = "spark.sql.variant.forceShreddingSchemaForTest"
    spark.conf.set(shredding, fields)
    try:
        frame.coalesce(1).write.parquet(f"{tmp_path}/in")
    finally:
        spark.conf.unset(shredding)
    written = pq.read_schema(*files_of(tmp_path / "in")).field("v").type
    assert (written.get_field_index("typed_value") >= 0) or not fields
    spec = files_spec(tmp_path / "in", "*.parquet", columns={"cast": {"v": "json"}})
    found = read_all_files(spec).sort_by("n").column("v").to_pylist()
    printed = [row.v for row in frame.orderBy("n").selectExpr("to_json(v) v").collect()]
    assert [t and json.loads(t) for t in found] == [t and json.loads(t) for t in printed]


def test_hostile_partition_values(spark: SparkSession, tmp_path: Path) -> None:
    batch = pa.record_batch({
        "n": pa.array(range(2 * len(HOSTILE))), "k": pa.array(HOSTILE * 2, pa.string()),
    })  # fmt: skip
    uri = write(tmp_path, batch, partition_by=["k", "extract_date"])
    fields = "n bigint, k string, extract_date date"
    found = spark.read.schema(fields).parquet(uri)
    expected = spark.createDataFrame(
        [(n, k, NOW.date()) for n, k in enumerate(HOSTILE * 2)], fields
    )
    assert_df_equality(found, expected, ignore_row_order=True)


def test_partition_types_that_spark_infers(spark: SparkSession, tmp_path: Path) -> None:
    moment = datetime(2026, 1, 31, 13, 14, 15, 500000)
    batch = pa.record_batch({
        "n": pa.array([1]), "i": pa.array([7]), "d": pa.array([moment.date()]),
        "t": pa.array([moment], pa.timestamp("us")), "h": pa.array([moment], pa.timestamp("us")),
    })  # fmt: skip
    uri = write(tmp_path, batch, partition_by=["i", "d", "t", "year(h)", "month(h)", "hour(h)"])
    found = spark.read.parquet(uri).drop("_run_id", "_extracted_at", "h")
    expected = spark.createDataFrame(
        [(1, 7, moment.date(), moment, 2026, "2026-01", "2026-01-31-13")],
        "n bigint, i int, d date, t timestamp, h_year int, h_month string, h_hour string",
    )
    assert_df_equality(found, expected)
