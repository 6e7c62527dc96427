"""The others of the comparison: DuckDB or Spark copies a file, or a table of SQLite, to Parquet.

Both take types from what they see first (DuckDB's sample) or from a pass of their own (Spark's
``inferSchema``). Run as a process of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

READ = {
    "csv": "read_csv('{}')",
    "jsonl": "read_json('{}', format = 'newline_delimited')",
    "parquet": "read_parquet('{}')",
    "sqlite": "source.lineitem",
}


def main() -> None:
    """Read the arguments and copy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=("duckdb", "spark"))
    parser.add_argument("format", choices=sorted(READ))
    parser.add_argument("source")
    parser.add_argument("target")
    arguments = parser.parse_args()
    copy = by_duckdb if arguments.program == "duckdb" else by_spark
    copy(arguments.format, arguments.source, arguments.target)


def by_duckdb(form: str, source: str, target: str) -> None:
    """Copy with one statement."""
    import duckdb

    Path(target).mkdir(parents=True)
    with duckdb.connect() as connection:
        if form == "sqlite":
            import duckdb_extension_sqlite_scanner

            package = Path(duckdb_extension_sqlite_scanner.__path__[0])
            (extension,) = package.rglob("sqlite_scanner.duckdb_extension")
            connection.execute(f"load '{extension}'")
            connection.execute(f"attach '{source}' as source (type sqlite, read_only)")
        connection.execute(
            f"copy (from {READ[form].format(source)}) to '{target}/data.parquet' "
            "(format parquet, compression zstd)"
        )


def by_spark(form: str, source: str, target: str) -> None:
    """Copy with Spark's own readers on all cores."""
    from pyspark.sql import SparkSession

    from extract_jobs.spark.java import bundled_java_home

    os.environ.update(JAVA_HOME=str(bundled_java_home()), PYSPARK_PYTHON=sys.executable)
    spark = (
        SparkSession.builder.master("local[*]")
        .appName("Files to Parquet")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "4g")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    name = {"jsonl": "json"}.get(form, form)
    options = {"header": "true", "inferSchema": "true"} if form == "csv" else {}
    spark.read.format(name).options(**options).load(source).write.parquet(target)
    spark.stop()


if __name__ == "__main__":
    main()
