"""Splits of a table whose partitions depend on the row: a slice for each connection."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from extract_jobs.engine import Progress, run_splits, stray_uploads
from extract_jobs.splits import Split
from extract_jobs.storage.local import LocalStorage
from tests.support.scattered import ScatteredReader, scattered_task

pytestmark = pytest.mark.spark


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
    tmp_path: Path, spark: SparkSession
) -> None:
    reader = DyingReader(rows=2000, partitions=30, batch_rows=200, folder=str(tmp_path))
    task = replace(scattered_task(tmp_path / "lake", max_open_partitions=8), reader=reader)
    seen = Seen()
    splits = [Split(i, estimated_bytes=100) for i in range(7)]
    results = run_splits(task, splits, connections=2, spark=spark, progress=seen)
    assert (tmp_path / "died").exists()
    assert [r.index for r in results] == list(range(7))
    assert [r.rows for r in results] == [2000] * 7
    assert sorted(seen.done) == list(range(7))
    files = [f for r in results for f in r.files]
    assert len(files) == 2 * 30
    stray_uploads(task, files)
    for file in files:
        assert LocalStorage().complete(file.staged)
    found = spark.read.parquet(f"{tmp_path}/lake/target")
    [(count, distinct, partitions)] = found.selectExpr(
        "count(*)", "count(distinct n)", "count(distinct k)"
    ).collect()
    assert (count, distinct, partitions) == (14_000, 14_000, 30)
    assert not [p for p in (tmp_path / "lake/target").iterdir() if "staging" in p.name]
