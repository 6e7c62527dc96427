"""Readers of the lake: the files of a table, read together by each of them.

Rows are Python's, so that those of Spark can be compared with those of DuckDB and pyarrow; chispa
compares only DataFrames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from extract_jobs.catalog import athena_type

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Rows = list[dict[str, Any]]

_ATHENA_READS = {
    "tinyint": {"smallint", "int", "bigint"},
    "smallint": {"int", "bigint"},
    "int": {"bigint"},
    "float": {"double"},
}
"""Types that Athena reads as others, if partitions differ from their table.

https://docs.aws.amazon.com/athena/latest/ug/updates-changing-column-type.html
"""


def files_of(folder: str) -> list[str]:
    """Return the Parquet files below a folder, in the order that engines list them in."""
    return sorted(str(p) for p in Path(folder).rglob("*.parquet"))


def by_duckdb(folder: str) -> Rows:
    """Match columns by name; columns that a file lacks are NULL."""
    found = duckdb.sql(f"from read_parquet('{folder}/**/*.parquet', union_by_name = true)")
    return list(found.to_arrow_table().to_pylist())


def by_pyarrow(folder: str) -> Rows:
    """Read as one data set, which needs one type for a column in all files."""
    files = files_of(folder)
    schema = pa.unify_schemas([pq.read_schema(f).remove_metadata() for f in files])
    return list(ds.dataset(files, schema=schema).to_table().to_pylist())


def by_spark_merged(spark: SparkSession, folder: str) -> Rows:
    """Let Spark merge the schemas of all files."""
    return _collected(spark.read.option("mergeSchema", "true").parquet(folder))


def by_spark_schema(spark: SparkSession, folder: str, columns: Mapping[str, str]) -> Rows:
    """Give Spark the schema: names and Arrow types of the columns, as stored in a commit."""
    types = ((name, _spark_type(text)) for name, text in columns.items())
    ddl = ", ".join(f"`{name}` {text}" for name, text in types)
    return _collected(spark.read.schema(ddl).parquet(folder))


def _spark_type(arrow_type: str) -> str:
    naive = arrow_type.startswith("timestamp[") and "tz=" not in arrow_type
    return "timestamp_ntz" if naive else athena_type(arrow_type)


def _collected(frame: DataFrame) -> Rows:
    return [row.asDict() for row in frame.collect()]


def athena_problems(
    folder: str, columns: Mapping[str, str], *, partitioned: bool = False
) -> list[str]:
    """Return what Athena could not read of a table, by its documented rules.

    Names are compared in lower case; columns that a file lacks are NULL, columns that only a file
    has are ignored; a column has its table's type in every file, except for what `_ATHENA_READS`
    allows in partitions.

    Args:
        folder: The table's.
        columns: The catalog's columns with their Arrow types.
        partitioned: Whether the table has partitions.
    """
    by_name = {name.lower(): athena_type(text) for name, text in columns.items()}
    problems = (
        [f"{len(columns)} columns, {len(by_name)} names"] if len(by_name) < len(columns) else []
    )
    for file in files_of(folder):
        for one in pq.read_schema(file):
            found, wanted = athena_type(str(one.type)), by_name.get(one.name.lower())
            reads = partitioned and wanted in _ATHENA_READS.get(found, ())
            if wanted not in (None, found) and not reads:
                problems.append(f"{one.name} is {found} in {file}, {wanted} in the catalog")
    return problems


def comparable(rows: Rows, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return some columns of rows in a fixed order, without zones."""
    plain = ([row.get(name) for name in columns] for row in rows)
    naive = (
        tuple(v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in values)
        for values in plain
    )
    return sorted(naive, key=repr)
