"""Every type in an Iceberg table, and columns that change, for each reader of such tables."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.transform.types import iceberg_type
from tests.support.iceberg import AUDIT, IcebergLake
from tests.support.specs import make_spec


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


def as_texts(rows: list[dict[str, Any]]) -> list[dict[str, str | None]]:
    """Return rows as `altered` gives them."""
    return [{n: None if row[n] is None else str(row[n]) for n in sorted(row)} for row in rows]


def printed(column: pa.ChunkedArray, data_type: pa.DataType) -> list[str]:
    """Print values so that a sign of zero, a NaN and each digit count."""
    column = column.cast(data_type)
    if pa.types.is_temporal(data_type):  # Python lacks some of them
        narrow = pa.int32() if data_type.bit_width == 32 else pa.int64()
        return [repr(value) for value in column.cast(narrow).to_pylist()]
    return [repr(value) for value in column.to_pylist()]


def assert_same(found: pa.Table, expected: pa.Table, reader: str) -> None:
    """Compare the values of all expected columns."""
    assert set(found.column_names) - AUDIT >= set(expected.column_names), reader
    for field in expected.schema:
        wanted = printed(expected.column(field.name), field.type)
        assert printed(found.column(field.name), field.type) == wanted, (reader, field)


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


def files_spec(folder: Path, columns: dict[str, pa.Array]) -> ExtractSpec:
    """Return the spec of a file with columns of two values each."""
    drop = folder / "drop"
    drop.mkdir()
    pq.write_table(pa.table({"n": pa.array([1, 2]), **columns}), drop / "a.parquet")
    return make_spec(
        folder, source_type="files", extract_table="t", connection={"uri": str(drop)},
        files={"glob": "*.parquet"},
    )  # fmt: skip


def altered(lake: IcebergLake) -> Iterator[list[dict[str, str | None]]]:
    """Alter a table twelve times, and add a row by a run each time.

    Yields:
        All rows after each run, as text; those of older files lack columns.
    """
    lake.source("create table t (id integer primary key, small text, whole text, price text,"
                " ratio text, note text)")  # fmt: skip
    cast = {"small": "int16", "whole": "int32", "price": "decimal(9,2)", "ratio": "float32"}
    values = {"small": "7", "whole": "-2", "price": "1.25", "ratio": "0.5", "note": "old"}
    rows: list[dict[str, Any]] = []

    def run(*statements: str, **given: str) -> list[dict[str, str | None]]:
        lake.source(*statements)
        number = len(rows) + 1
        row = {**values, **given}
        names = ", ".join(row)
        listed = ", ".join(f"'{value}'" for value in row.values())
        lake.source(f"insert into t (id, {names}) values ({number}, {listed})")
        lake.run(f"r{number}", columns={"cast": dict(cast)}, mode="incremental",
                 watermark={"column": "id"})  # fmt: skip
        rows.append({"id": number, **row})
        columns = sorted({name for one in rows for name in one})
        return [{n: str(one[n]) if n in one else None for n in columns} for one in rows]

    yield run()
    yield run("alter table t add column more text", more="x")  # 1
    values["more"] = "y"
    cast["whole"] = "int64"
    yield run(whole="9000000000")  # 2
    cast["small"] = "int32"
    yield run(small="70000")  # 3
    cast["price"] = "decimal(18,2)"
    yield run(price="1234567890123456.25")  # 4
    cast["ratio"] = "float64"
    yield run(ratio="0.1")  # 5
    del values["note"]
    yield run("alter table t drop column note")  # 6
    cast["small"] = "int64"
    yield run(small="-9000000000")  # 7
    cast["price"] = "decimal(38,2)"
    yield run(price="123456789012345678901234567890123456.25")  # 8
    values["renamed"] = values.pop("more")
    yield run("alter table t rename column more to renamed")  # 9
    values["note"] = "new"
    yield run("alter table t add column note text")  # 10
    cast["at"] = "timestamp"
    yield run("alter table t add column at text", at="1969-12-31 23:59:59.999999")  # 11
    yield run(
        "create table u as select * from t",
        "drop table t",
        "create table t (note text, at text, renamed text, ratio text, price text, whole text,"
        " small text, id integer primary key)",
        "insert into t select note, at, renamed, ratio, price, whole, small, id from u",
    )  # 12
