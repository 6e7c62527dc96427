"""Splits of a table whose partitions depend on the row: a slice for each connection."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from extract_jobs.engine.placement import Placement, place_splits
from extract_jobs.engine.run_splits import Progress, abort_leftover_uploads, run_splits
from extract_jobs.engine.split_task import SplitTask
from extract_jobs.run import run_extract
from extract_jobs.sources.splits import Split
from extract_jobs.spec.engines import Engine
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import WrittenFile
from extract_jobs.storage.local import LocalStorage
from tests.support.crash import Lake
from tests.support.postgres import Server
from tests.support.scattered import ScatteredReader, scattered_task


@dataclass
class DyingReader(ScatteredReader):
    """Its process is killed in the middle of the third split, once."""

    folder: str = ""

    def read(self, split: Split) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(super().read(split)):
            if split.index == 2 and number == 3:
                mark = Path(self.folder) / "died"
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            yield batch


class Seen(Progress):
    def __init__(self) -> None:
        self.done: list[int] = []

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        if done:
            self.done.append(index)


def test_slices_share_files_and_a_lost_worker_costs_a_slice(
    tmp_path: Path, spark_or_none: SparkSession | None
) -> None:
    reader = DyingReader(rows=2000, partitions=30, batch_rows=200, folder=str(tmp_path))
    task = replace(scattered_task(tmp_path / "lake", max_open_partitions=8), reader=reader)
    seen = Seen()
    splits = [Split(i, estimated_bytes=100) for i in range(7)]
    results = run_splits(
        task,
        splits,
        placement=placed(task, 7, spark_or_none),
        progress=seen,
    )
    assert (tmp_path / "died").exists()
    assert [r.index for r in results] == list(range(7))
    assert [r.rows for r in results] == [2000] * 7
    assert sorted(seen.done) == list(range(7))
    files = [file for r in results for file in r.files]
    assert len(files) == 2 * 30
    abort_leftover_uploads(task, files)
    publish_and_count(files, tmp_path / "lake/target", rows=14_000, partitions=30)


def placed(task: SplitTask, splits: int, spark: SparkSession | None) -> Placement:
    engine: Engine = "spark" if spark else "processes"
    assert task.reader is not None
    return place_splits(engine, task.reader, splits=splits, connections=2, spark=spark)


def publish_and_count(
    files: Sequence[WrittenFile], target: Path, *, rows: int, partitions: int
) -> None:
    for file in files:
        assert LocalStorage().complete(file.staged)
    found = duckdb.sql(
        "select count(*), count(distinct n), count(distinct k)"
        f" from read_parquet('{target}/**/*.parquet', hive_partitioning = true)"
    )
    assert found.fetchall() == [(rows, rows, partitions)]
    assert not [p for p in target.iterdir() if "staging" in p.name]


def as_it_is(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
    return batch, {}


class RangeReader:
    """Rows that Spark makes itself: 1,000 a split, of 20 partitions."""

    conform = staticmethod(as_it_is)

    def dataframe(self, spark: SparkSession, splits: Sequence[Split]) -> DataFrame:
        first, last = splits[0].index, splits[-1].index
        rows = spark.range(first * 1000, last * 1000 + 1000, 1, len(splits)).toDF("id")
        assert rows.rdd.getNumPartitions() == len(splits)
        return rows.selectExpr("id as n", "id % 20 as k", "cast(id as string) as filler")

    def error(self, error: Exception) -> None:
        return None


@pytest.mark.spark
def test_slices_that_spark_reads_share_files_too(tmp_path: Path, spark: SparkSession) -> None:
    reader: Any = RangeReader()
    task = replace(scattered_task(tmp_path), reader=reader)
    seen = Seen()
    results = run_splits(
        task, [Split(i) for i in range(5)], placement=placed(task, 5, spark), progress=seen
    )
    assert [r.index for r in results] == list(range(5))
    assert sum(r.rows for r in results) == 5000
    assert sorted(seen.done) == list(range(5))
    files = [file for r in results for file in r.files]
    assert len(files) == 2 * 20
    publish_and_count(files, tmp_path / "target", rows=5000, partitions=20)


@pytest.mark.any_spark
def test_a_table_of_many_splits_and_partitions_from_end_to_end(
    pg_database: Server,
    bucket_lake: Lake,
    spark_or_none: SparkSession | None,
    tmp_path: Path,
) -> None:
    pg_database.execute(
        "create table public.t (id int primary key, country text, padding text)",
        "insert into public.t select g, 'c' || (g * 7919 % 30), repeat(md5(g::text), 4)"
        " from generate_series(1, 10000) g",
        "analyze public.t",
    )
    spec = ExtractSpec.model_validate(
        bucket_lake.spec(
            pg_database, "r", 1,
            target={"partition_by": ["country"], "max_open_partitions": 10},
            split={"target_bytes": 350_000, "max_connections": 2},
            spill_folder=str(tmp_path), engine="spark" if spark_or_none else "processes",
        )
    )  # fmt: skip
    report = run_extract(spec, spark=spark_or_none)
    assert report.splits > 4
    assert (report.rows, report.source_rows, report.reconciled) == (10_000, 10_000, True)
    assert report.files == 2 * 30
    assert bucket_lake.read() == list(range(1, 10_001))
    assert bucket_lake.staged() == []
    assert list(tmp_path.iterdir()) == []
