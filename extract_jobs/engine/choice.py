"""Where the splits of an attempt run: on processes of this machine, or on Spark."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Literal

from extract_jobs.errors import ConfigError
from extract_jobs.schema import TableDescription
from extract_jobs.sources import DataFrameReader, Reader
from extract_jobs.spark.session import spark_context, spark_is_set_up
from extract_jobs.spec.engines import Engine
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.source_types import registration

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def runs_on(
    wanted: Engine, reader: Reader | DataFrameReader, spark: SparkSession | None
) -> Literal["processes", "spark"]:
    """Return where splits run. One split that Python reads runs in this process all the same.

    Args:
        wanted: The spec's ``engine``. With ``auto`` it is Spark where somebody has set up a Spark:
            the caller has a session, one is active, or a master is configured, as by spark-submit,
            on Glue and on EMR. Elsewhere this machine is all there is.
        reader: A `DataFrameReader` reads through Spark, whatever is wanted.
        spark: The caller's session.
    """
    if isinstance(reader, DataFrameReader):
        return "spark"
    return _of_arrow(wanted, spark)


def _of_arrow(wanted: Engine, spark: SparkSession | None) -> Literal["processes", "spark"]:
    if wanted != "auto":
        return wanted
    if sys.platform != "linux":  # forking and ending workers as they are here is Linux's
        return "spark"
    return "spark" if spark is not None or spark_is_set_up() else "processes"


def connections_here(
    spec: ExtractSpec, splits: int, reader: Reader | DataFrameReader, spark: SparkSession | None
) -> int:
    """Return how many splits are read at a time on this machine; 0 where other machines read them.

    Starts a Spark where splits are to run on one, since only that can say where its executors are.
    """
    connections = spec.split.max_connections
    if splits == 1:
        return 1
    if runs_on(spec.engine, reader, spark) == "processes":
        return processes_for(connections, splits)
    master = spark_context(spark, connections).master or ""
    return min(connections, splits) if re.match(r"local(\[|$)", master) else 0


def processes_for(connections: int, splits: int) -> int:
    """Return how many processes read splits: as many as connections and cores allow.

    Raises:
        ConfigError: More than one is wanted, and this is not Linux.
    """
    most = min(connections, splits)
    if most == 1:
        return 1
    if sys.platform != "linux":
        raise ConfigError("engine: processes runs on Linux only; leave it out, to read with Spark")
    return min(most, len(os.sched_getaffinity(0)))


def will_need_workers(
    spec: ExtractSpec, description: TableDescription, spark: SparkSession | None
) -> bool:
    """Return whether worker processes are worth starting before the table is cut: it looks large.

    Those that are needed all the same are started later, those that are not cost a second of
    another core.
    """
    size, split = description.estimated_bytes or 0, spec.split
    return (
        size > split.target_bytes
        and split.strategy != "none"
        and spec.limit is None
        and not registration(spec.source_type).on_spark
        and _of_arrow(spec.engine, spark) == "processes"
        and processes_for(split.max_connections, 2) > 1
    )


def worker_modules(spec: ExtractSpec) -> list[str]:
    """Return the modules that read a spec's source and write to its target."""
    source, _, _ = registration(spec.source_type).opens.partition(":")
    remote = spec.target.uri.startswith("s3://")
    return [source, "extract_jobs.storage.s3" if remote else "extract_jobs.storage.local"]
