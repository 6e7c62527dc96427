"""Which types readers can read together: the reason why a column keeps the type of older files."""

# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import awswrangler
import boto3
import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.support.emulators import MotoServer, use
from tests.support.readers import (
    athena_problems,
    by_duckdb,
    by_spark_merged,
    by_spark_schema,
    files_of,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

PAGE = Path(__file__).parents[2] / "docs" / "schema-change.md"

WIDENED: list[tuple[str, pa.DataType, Any, pa.DataType, Any]] = [
    ("int16, int32", pa.int16(), 5, pa.int32(), 70_000),
    ("int32, int64", pa.int32(), 5, pa.int64(), 2**40),
    ("int32, float64", pa.int32(), 5, pa.float64(), 1.5),
    ("float32, float64", pa.float32(), 1.5, pa.float64(), 1e300),
    ("decimal(9,2), decimal(12,2)", pa.decimal128(9, 2), Decimal("1.25"),
     pa.decimal128(12, 2), Decimal("9999999999.25")),
    ("decimal(18,2), decimal(38,2)", pa.decimal128(18, 2), Decimal("1.25"),
     pa.decimal128(38, 2), Decimal("9" * 30 + ".25")),
    ("decimal(12,2), decimal(18,2)", pa.decimal128(12, 2), Decimal("1.25"),
     pa.decimal128(18, 2), Decimal("9999999999999999.25")),
    ("date, timestamp", pa.date32(), date(2026, 1, 2), pa.timestamp("us"),
     datetime(2026, 1, 2, 3)),
    ("timestamp, timestamptz", pa.timestamp("us"), datetime(2026, 1, 2),
     pa.timestamp("us", "UTC"), datetime(2026, 1, 2, 3)),
    ("struct, with a field more", pa.struct([("a", pa.int32())]), {"a": 1},
     pa.struct([("a", pa.int32()), ("b", pa.string())]), {"a": 2, "b": "x"}),
    ("list of structs, with a field more", pa.list_(pa.struct([("a", pa.int32())])), [{"a": 1}],
     pa.list_(pa.struct([("a", pa.int32()), ("b", pa.string())])), [{"a": 2, "b": "x"}]),
    ("struct of int32, of int64", pa.struct([("a", pa.int32())]), {"a": 1},
     pa.struct([("a", pa.int64())]), {"a": 2**40}),
]  # fmt: skip


def read_by(name: str, spark: SparkSession, folder: str, new: pa.DataType) -> list[Any]:
    """Read the column ``c`` of two files as one reader does, in one of its ways.

    Values are compared as Python's and not by chispa, because most readers return no DataFrame.
    """
    columns = {"k": "int64", "c": str(new)}
    schema = pa.schema([("k", pa.int64()), ("c", new)])
    ways: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "Spark": lambda: [r.asDict() for r in spark.read.parquet(folder).collect()],
        "Spark, mergeSchema": lambda: by_spark_merged(spark, folder),
        "Spark, schema given": lambda: by_spark_schema(spark, folder, columns),
        "DuckDB": lambda: duckdb.sql(f"from '{folder}/*.parquet'").to_arrow_table().to_pylist(),
        "DuckDB, union_by_name": lambda: by_duckdb(folder),
        "pyarrow": lambda: ds.dataset(folder).to_table().to_pylist(),
        "pyarrow, schema given": lambda: ds.dataset(folder, schema=schema).to_table().to_pylist(),
        "awswrangler": lambda: by_awswrangler(folder),
        "awswrangler, schema given": lambda: by_awswrangler(folder, schema=schema),
    }
    rows = sorted(ways[name](), key=lambda row: row["k"])
    return [plain(row["c"]) for row in rows]


def by_awswrangler(folder: str, **how: Any) -> list[dict[str, Any]]:
    """Read the same files from S3."""
    client, bucket = boto3.client("s3"), f"together-{uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    for file in files_of(folder):
        client.upload_file(file, bucket, Path(file).name)
    frame = awswrangler.s3.read_parquet(f"s3://{bucket}/", **how)
    rows: list[dict[str, Any]] = frame.to_dict("records")
    return rows


def plain(value: Any) -> Any:
    """Return Python's own value of what Spark and NumPy return."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hasattr(value, "asDict"):
        value = value.asDict()
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, datetime):
        return datetime.fromisoformat(value.replace(tzinfo=None).isoformat())
    return value


def hidden(values: list[Any]) -> str | None:
    """Return whether only the field ``b`` is missing in the values."""
    plain = [value[0] if isinstance(value, list) else value for value in values]
    return "without it" if plain == [{"a": 1}, {"a": 2}] else None


READERS = ["Spark", "Spark, mergeSchema", "Spark, schema given", "DuckDB",
           "DuckDB, union_by_name", "pyarrow", "pyarrow, schema given", "awswrangler",
           "awswrangler, schema given"]  # fmt: skip


def said_by_the_page(pair: str, version: str) -> list[str]:
    """Return what the page says of a pair under this version of Spark, reader by reader."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith(f"| {pair} | ")]
    cells = [cell.strip() for cell in line.strip("|").split("|")[1:]]
    found = []
    for cell in cells:
        by_version = dict(part.split() for part in cell.split(", ")) if version in cell else {}
        found.append(by_version.get(version, "wrong" if "wrong" in cell else cell))
    return found


@pytest.fixture
def quiet(spark: SparkSession) -> Iterator[SparkSession]:
    """Spark prints a page for each file that it refuses."""
    spark.sparkContext.setLogLevel("OFF")
    yield spark
    spark.sparkContext.setLogLevel("WARN")


def test_what_readers_make_of_two_types_is_what_the_page_says(
    quiet: SparkSession, tmp_path: Path, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page has a row for each pair, and a column for each reader."""
    use(moto_server, monkeypatch)
    for number, (pair, old, before, new, after) in enumerate(WIDENED):
        folder = tmp_path / str(number)
        folder.mkdir()
        for k, kind, value in ((1, old, before), (2, new, after)):
            table = pa.table({"k": [k], "c": pa.array([value], kind)})
            pq.write_table(table, folder / f"{k}.parquet", store_decimal_as_integer=True)
        wanted = [plain(pa.array([before], old).cast(new)[0].as_py()), plain(after)]
        found = []
        for name in READERS:
            try:
                values = read_by(name, quiet, str(folder), new)
            except Exception:  # noqa: BLE001 - each reader refuses in its own way
                found.append("refused")
            else:
                found.append("right" if values == wanted else hidden(values) or "wrong")
        athena = athena_problems(str(folder), {"k": "int64", "c": str(new)})
        unknown = pa.types.is_nested(new)
        found.append("not said" if unknown else "refused" if athena else "right")
        assert found == said_by_the_page(pair, quiet.version[:3]), pair
