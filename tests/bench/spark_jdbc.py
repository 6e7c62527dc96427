"""One side of the comparison: Spark reads a table over JDBC and writes Parquet.

The way that Spark's own documentation shows: ``numPartitions`` ranges of a numeric column, a
``fetchsize`` that keeps the driver from asking row by row. Run as a process of its own.
"""

from __future__ import annotations

import argparse
import os
import sys


def main() -> None:
    """Read the arguments, copy the table, stop Spark."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("url", "user", "table", "column", "lower", "upper", "jar", "target"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--driver", default="org.postgresql.Driver")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--fetchsize", type=int, default=10_000)
    arguments = parser.parse_args()

    from pyspark.sql import SparkSession

    from extract_jobs.spark.java import bundled_java_home

    os.environ.update(JAVA_HOME=str(bundled_java_home()), PYSPARK_PYTHON=sys.executable)
    spark = (
        SparkSession.builder.master("local[*]")
        .appName("Spark JDBC to Parquet")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.extraClassPath", arguments.jar)
        .config("spark.driver.memory", "4g")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    table = spark.read.jdbc(
        arguments.url,
        arguments.table,
        column=arguments.column,
        lowerBound=arguments.lower,
        upperBound=arguments.upper,
        numPartitions=arguments.partitions,
        properties={
            "driver": arguments.driver,
            "user": arguments.user,
            "password": os.environ["BENCH_PASSWORD"],
            "fetchsize": str(arguments.fetchsize),
        },
    )
    table.write.parquet(arguments.target)
    spark.stop()


if __name__ == "__main__":
    main()
