"""Which types readers can read together: the reason why a column keeps the type of older files."""

# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.support.readers import athena_problems, by_duckdb, by_spark_merged, by_spark_schema

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
    ("decimal(12,2), decimal(18,2)", pa.decimal128(12, 2), Decimal("1.25"),
     pa.decimal128(18, 2), Decimal("9999999999999999.25")),
    ("date, timestamp", pa.date32(), date(2026, 1, 2), pa.timestamp("us"),
     datetime(2026, 1, 2, 3)),
    ("timestamp, timestamptz", pa.timestamp("us"), datetime(2026, 1, 2),
     pa.timestamp("us", "UTC"), datetime(2026, 1, 2, 3)),
]  # fmt: skip


def read_by(name: str, spark: SparkSession, folder: str, new: pa.DataType) -> list[Any]:
    """Read the column ``c`` of two files as one reader does, in one of its ways.

    Values are compared as Python's and not by chispa, because most readers return no DataFrame.
    """
    columns = {"k": "int64", "c": str(new)}
    ways: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "Spark": lambda: [r.asDict() for r in spark.read.parquet(folder).collect()],
        "Spark, mergeSchema": lambda: by_spark_merged(spark, folder),
        "Spark, schema given": lambda: by_spark_schema(spark, folder, columns),
        "DuckDB": lambda: duckdb.sql(f"from '{folder}/*.parquet'").to_arrow_table().to_pylist(),
        "DuckDB, union_by_name": lambda: by_duckdb(folder),
        "pyarrow": lambda: ds.dataset(folder).to_table().to_pylist(),
    }
    rows = sorted(ways[name](), key=lambda row: row["k"])
    return [plain(row["c"]) for row in rows]


def plain(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


READERS = ["Spark", "Spark, mergeSchema", "Spark, schema given", "DuckDB",
           "DuckDB, union_by_name", "pyarrow"]  # fmt: skip


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


def test_no_pair_of_types_can_be_read_together_by_all(quiet: SparkSession, tmp_path: Path) -> None:
    """The page has a row for each pair, and a column for each reader."""
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
                found.append("right" if values == wanted else "wrong")
        athena = athena_problems(str(folder), {"k": "int64", "c": str(new)})
        found.append("refused" if athena else "right")
        assert found == said_by_the_page(pair, quiet.version[:3]), pair
        assert "refused" in found
