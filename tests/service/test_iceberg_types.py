"""Every type of the torture tables through an Iceberg table, as pyiceberg and DuckDB read it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table

from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.types import iceberg_type
from tests.support import mysql_torture, postgres_torture
from tests.support.iceberg import AUDIT, IcebergLake, table_by_duckdb
from tests.support.mysql_servers import MysqlServer
from tests.support.mysql_source import source as mysql_source
from tests.support.postgres import Server
from tests.support.postgres_source import source as postgres_source
from tests.support.specs import make_spec
from tests.support.sqlite_torture import make_torture


def in_iceberg(spec: ExtractSpec, folder: Path) -> Table:
    """Extract a spec's table into an Iceberg table, and return that as another tool opens it."""
    where = {"type": "sqlite", "path": f"{folder}/catalog.db", "database": "lake", "table": "t"}
    data = spec.model_dump(mode="json") | {
        "state_uri": f"{folder}/iceberg-state",
        "target": {"uri": f"{folder}/iceberg", "format": "iceberg", "catalog": where},
    }
    run_extract(ExtractSpec.model_validate(data))
    catalog = SqlCatalog("default", uri=f"sqlite:///{folder}/catalog.db")
    table = catalog.load_table("lake.t")
    catalog.engine.dispose()
    return table


def in_files(spec: ExtractSpec, key: str) -> pa.Table:
    """Extract a spec's table into a folder, whose values other tests compare with the source's."""
    run_extract(spec)
    files = sorted(Path(spec.target.uri).rglob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files]).sort_by(key)
    table = table.drop_columns(list(AUDIT))
    types = [field.with_type(iceberg_type(field.type)) for field in table.schema]
    return table.cast(pa.schema(types))


def printed(column: pa.ChunkedArray, data_type: pa.DataType) -> list[str]:
    """Print values so that a sign of zero, a NaN and each digit count."""
    column = column.cast(data_type)
    if pa.types.is_temporal(data_type):  # Python lacks some of them
        narrow = pa.int32() if data_type.bit_width == 32 else pa.int64()
        return [repr(value) for value in column.cast(narrow).to_pylist()]
    return [repr(value) for value in column.to_pylist()]


def assert_same(found: pa.Table, expected: pa.Table, reader: str) -> None:
    assert set(found.column_names) - AUDIT >= set(expected.column_names), reader
    for field in expected.schema:
        wanted = printed(expected.column(field.name), field.type)
        assert printed(found.column(field.name), field.type) == wanted, (reader, field)


def _is_finite(value: Any) -> bool:
    """Return whether pyiceberg finds a value: in a column of floats, it looks for no infinity."""
    return not isinstance(value, float) or math.isfinite(value)


def assert_no_value_is_hidden(table: Table, expected: pa.Table) -> None:
    """Readers skip files by the bounds in manifests: none may skip the file that has a value."""
    for field in expected.schema:
        if pa.types.is_nested(field.type):
            continue
        try:
            values = {repr(v): v for v in expected.column(field.name).to_pylist() if _is_finite(v)}
        except (ValueError, OverflowError, pa.ArrowInvalid):
            continue  # Python has no such date
        values.pop("None", None)
        for value in values.values():
            files = list(table.scan(row_filter=EqualTo(field.name, value)).plan_files())
            assert len(files) == 1, (field, value)


def check(spec: ExtractSpec, folder: Path, key: str) -> None:
    expected = in_files(spec, key)
    table = in_iceberg(spec, folder)
    known = expected
    if "nested" in expected.column_names:
        known = expected.drop_columns("nested")  # pyiceberg reads a NULL list in a struct as []
    assert_same(table.scan().to_arrow().sort_by(key), known, "pyiceberg")
    found = table_by_duckdb(table.metadata_location, f'select * from t order by "{key}"')
    assert_same(found, expected, "DuckDB")
    assert_no_value_is_hidden(table, expected)


def test_sqlite(tmp_path: Path) -> None:
    make_torture(tmp_path / "t.db")
    check(
        make_spec(
            tmp_path, source_type="sqlite", extract_table="t",
            connection={"path": str(tmp_path / "t.db")},
        ),
        tmp_path,
        "n",
    )  # fmt: skip


@pytest.fixture(scope="module")
def tortured(pg: Server) -> Iterator[Server]:
    server = replace(pg, database="iceberg_torture")
    with pg.connect() as connection:
        connection.execute("create database iceberg_torture")
    postgres_torture.build(server)
    yield server
    with pg.connect() as connection:
        connection.execute("drop database iceberg_torture with (force)")


def test_postgres(tortured: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check(
        postgres_source(tortured, monkeypatch, folder=tmp_path, extract_table="torture").spec,
        tmp_path,
        "n",
    )


def test_mysql(
    mysql_database: MysqlServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mysql_torture.make(mysql_database)
    check(
        mysql_source(mysql_database, monkeypatch, folder=tmp_path, extract_table="torture").spec,
        tmp_path,
        "id",
    )


MOMENT = 1_769_999_999_123_456_789
FILE_TYPES: dict[str, pa.Array] = {
    "u8": pa.array([0, 255], pa.uint8()),
    "u16": pa.array([0, 65535], pa.uint16()),
    "u32": pa.array([2**31, 2**32 - 1], pa.uint32()),
    "u64": pa.array([2**63, 2**64 - 1], pa.uint64()),
    "i8": pa.array([-128, 127], pa.int8()),
    "i16": pa.array([-(2**15), 2**15 - 1], pa.int16()),
    "seconds": pa.array([-1, 1], pa.timestamp("s")),
    "millis": pa.array([-1, 1_770_000_000_001], pa.timestamp("ms")),
    "zoned_millis": pa.array([-1, 1_770_000_000_001], pa.timestamp("ms", "Europe/Berlin")),
    "whole_nanos": pa.array([-1000, MOMENT // 1000 * 1000], pa.timestamp("ns")),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "large": pa.array(["a", "b"], pa.large_string()),
    "large_list": pa.array([[1], []], pa.large_list(pa.int64())),
    "fixed": pa.array([b"ab", b"\xff\x00"], pa.binary(2)),
    "fixed_list": pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)),
    "decimal_9": pa.array([Decimal("-9999999.99"), Decimal("0.01")], pa.decimal128(9, 2)),
    "decimal_18": pa.array([Decimal("-9999999999999999.99"), Decimal("0.01")],
                           pa.decimal128(18, 2)),
    "decimal_38": pa.array([Decimal("-" + "9" * 36 + ".99"), Decimal("0.01")],
                           pa.decimal128(38, 2)),
    "days": pa.array([-719162, 2932896], pa.date32()),
    "millis_days": pa.array([-86_400_000, 86_400_000], pa.date64()),
    "time_millis": pa.array([0, 86_399_999], pa.time32("ms")),
    "time_micros": pa.array([0, 86_399_999_999], pa.time64("us")),
    "half": pa.array([0.5, -1.5], pa.float16()),
    "nested": pa.array([{"a": [{"b": 1}], "m": [("k", 2)]}, {"a": None, "m": []}], pa.struct(
        [("a", pa.list_(pa.struct([("b", pa.int32())]))), ("m", pa.map_(pa.string(), pa.int64()))]
    )),
    "nothing": pa.nulls(2),
    "nested_unsigned": pa.array([[1], [2**32 - 1]], pa.list_(pa.uint32())),
    "decimal_76": pa.array([Decimal(1), None], pa.decimal256(76, 2)),
}  # fmt: skip


def files_spec(folder: Path, name: str, values: pa.Array) -> ExtractSpec:
    drop = folder / "drop"
    drop.mkdir()
    pq.write_table(pa.table({"n": pa.array([1, 2]), name: values}), drop / "a.parquet")
    return make_spec(
        folder, source_type="files", extract_table="t", connection={"uri": str(drop)},
        files={"glob": "*.parquet"},
    )  # fmt: skip


@pytest.mark.parametrize("name", FILE_TYPES)
def test_files(tmp_path: Path, name: str) -> None:
    spec = files_spec(tmp_path, name, FILE_TYPES[name])
    check(spec, tmp_path, "n")


def test_twelve_alterations_in_a_row(tmp_path: Path) -> None:
    """Each adds a row, and after each all rows are read, also those of older files."""
    lake = IcebergLake(tmp_path)
    lake.source("create table t (id integer primary key, small text, whole text, price text,"
                " ratio text, note text)")  # fmt: skip
    cast = {"small": "int16", "whole": "int32", "price": "decimal(9,2)", "ratio": "float32"}
    values = {"small": "7", "whole": "-2", "price": "1.25", "ratio": "0.5", "note": "old"}
    rows: list[dict[str, Any]] = []

    def run(*statements: str, **given: str) -> None:
        lake.source(*statements)
        number = len(rows) + 1
        row = {**values, **given}
        names = ", ".join(row)
        listed = ", ".join(f"'{value}'" for value in row.values())
        lake.source(f"insert into t (id, {names}) values ({number}, {listed})")
        lake.run(f"r{number}", columns={"cast": dict(cast)}, mode="incremental",
                 watermark={"column": "id"})  # fmt: skip
        rows.append({"id": number, **row})
        names = sorted({name for one in rows for name in one})
        for reader, found in (("pyiceberg", lake.rows()), ("DuckDB", lake.rows_by_duckdb())):
            texts = [{n: None if v is None else str(v) for n, v in one.items()} for one in found]
            wanted = [{n: str(one[n]) if n in one else None for n in names} for one in rows]
            assert [dict(sorted(one.items())) for one in texts] == wanted, (reader, number)

    run()
    run("alter table t add column more text", more="x")  # 1
    values["more"] = "y"
    cast["whole"] = "int64"
    run(whole="9000000000")  # 2
    cast["small"] = "int32"
    run(small="70000")  # 3
    cast["price"] = "decimal(18,2)"
    run(price="1234567890123456.25")  # 4
    cast["ratio"] = "float64"
    run(ratio="0.1")  # 5
    del values["note"]
    run("alter table t drop column note")  # 6
    cast["small"] = "int64"
    run(small="-9000000000")  # 7
    cast["price"] = "decimal(38,2)"
    run(price="123456789012345678901234567890123456.25")  # 8
    values["renamed"] = values.pop("more")
    run("alter table t rename column more to renamed")  # 9
    values["note"] = "new"
    run("alter table t add column note text")  # 10
    cast["at"] = "timestamp"
    run("alter table t add column at text", at="1969-12-31 23:59:59.999999")  # 11
    run(
        "create table u as select * from t",
        "drop table t",
        "create table t (note text, at text, renamed text, ratio text, price text, whole text,"
        " small text, id integer primary key)",
        "insert into t select note, at, renamed, ratio, price, whole, small, id from u",
    )  # 12
    assert len(lake.table().metadata.snapshots) == 13
