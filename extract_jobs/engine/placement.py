"""Where the splits of an attempt run: on processes of this machine, or on Spark."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from extract_jobs.errors import ConfigError
from extract_jobs.schema import TableDescription
from extract_jobs.sources import DataFrameReader, Reader
from extract_jobs.spark.session import running_context, spark_context, spark_is_set_up
from extract_jobs.spec.engines import Engine
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.source_types import registration

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Placement:
    """Where the splits of an attempt run. Decided once, before the first of them is read.

    Attributes:
        on: ``here`` is this process, ``processes`` are worker processes of this machine.
        connections: Maximum splits under way at a time, at least 1.
        context: The Spark that runs them. If they run elsewhere, the Spark that this process drives
            anyway, or None. The attempt ends when this Spark ends.
        session: The caller's session.
    """

    on: Literal["here", "processes", "spark"]
    connections: int
    context: SparkContext | None = None
    session: SparkSession | None = None

    @property
    def connections_here(self) -> int:
        """How many splits this machine reads at a time; 0 if other machines read them."""
        if self.on != "spark":
            return self.connections
        assert self.context is not None
        local = re.match(r"local(\[|$)", self.context.master or "")
        return self.connections if local else 0


def place_splits(
    wanted: Engine,
    reader: Reader | DataFrameReader,
    *,
    splits: int,
    connections: int,
    spark: SparkSession | None,
) -> Placement:
    """Decide where splits run, and start Spark if they need it.

    Args:
        wanted: The spec's ``engine``. ``auto`` is Spark if somebody has set up Spark: the caller
            has a session, one is active, or a master is configured, as spark-submit, Glue and EMR
            do. Otherwise splits run on this machine.
        reader: A `DataFrameReader` always reads through Spark. A single split that Python reads is
            always read in this process.
        splits: How many there are.
        connections: How many may be read at a time.
        spark: The caller's session.

    Raises:
        ConfigError: The engine is not available here.
        ExtractError: As `extract_jobs.spark.session.spark_context`.
    """
    most, dataframe = min(connections, splits), isinstance(reader, DataFrameReader)
    if dataframe or (splits > 1 and _of_arrow(wanted, spark) == "spark"):
        return Placement("spark", most, spark_context(spark, connections), spark)
    most = processes_for(connections, splits)
    return Placement("here" if most == 1 else "processes", most, running_context(spark), spark)


def _of_arrow(wanted: Engine, spark: SparkSession | None) -> Literal["processes", "spark"]:
    if wanted != "auto":
        return wanted
    if sys.platform != "linux":  # worker processes are forked and ended in ways that only Linux has
        return "spark"
    return "spark" if spark is not None or spark_is_set_up() else "processes"


def processes_for(connections: int, splits: int) -> int:
    """Return how many processes read splits: as many as connections and cores allow.

    Raises:
        ConfigError: More than one is wanted, and this is not Linux.
    """
    most = min(connections, splits)
    if most == 1:
        return 1
    if sys.platform != "linux":
        raise ConfigError("engine: processes runs on Linux only; leave it out to read with Spark")
    return min(most, len(os.sched_getaffinity(0)))


def will_need_workers(
    spec: ExtractSpec,
    description: TableDescription,
    spark: SparkSession | None,
    *,
    first: bool,
) -> bool:
    """Return whether worker processes should be started before the table is split: it looks large.

    If this says no and they are needed after all, they start later; if it says yes in vain, they
    cost a second of another core. Most increments are small, whatever the size of their table.

    Args:
        spec: What is extracted.
        description: Has the table's size.
        spark: The caller's session.
        first: Whether nothing of the table is committed yet.
    """
    size, split = description.estimated_bytes or 0, spec.split
    return (
        size > split.target_bytes
        and (first or spec.mode == "full")
        and split.strategy != "none"
        and spec.limit is None
        and not registration(spec.source_type).on_spark
        and _of_arrow(spec.engine, spark) == "processes"
        and processes_for(split.max_connections, 2) > 1
    )


def may_use_spark(spec: ExtractSpec) -> bool:
    """Return whether, going by the spec, splits run on Spark if there are several."""
    return registration(spec.source_type).on_spark or _of_arrow(spec.engine, None) == "spark"


def worker_modules(specs: Iterable[ExtractSpec]) -> list[str]:
    """Return the modules that read the specs' sources and write to their targets, each once."""
    found = set()
    for spec in specs:
        source, _, _ = registration(spec.source_type).opens.partition(":")
        remote = spec.target.uri.startswith("s3://")
        storage = "extract_jobs.storage.s3" if remote else "extract_jobs.storage.local"
        found |= {source, storage}
    return sorted(found)
