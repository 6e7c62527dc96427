"""Files in several splits, on executors: ranges of one file, and many files, each row once."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from extract_jobs.run import run_extract
from tests.support.files import files_spec

pytestmark = [pytest.mark.spark, pytest.mark.any_spark]


def test_an_extract_of_several_splits(tmp_path: Path, spark: SparkSession) -> None:
    lines = [f'{n},"text {n}\nof two lines"' for n in range(20_000)]
    lines[777] = "777"
    (tmp_path / "large.csv").write_text("\n".join(["id,text", *lines]))
    for n in range(20):
        (tmp_path / f"small{n}.csv").write_text(f"text,id\nsmall,{20_000 + n}\n")
    split = {"target_bytes": 262_144, "max_connections": 2}
    spec = files_spec(
        tmp_path, "*.csv", bad_rows="reject", split=split, mode="incremental",
        types={"id": "int64", "text": "string"},
    )  # fmt: skip
    report = run_extract(spec, spark=spark)
    assert report.splits > 3
    assert (report.rows, report.rejected_rows) == (20_019, 1)
    files = [pq.read_table(f) for f in (tmp_path / "_out/t").rglob("*.parquet")]
    ids = sorted(n for f in files for n in f.column("id").to_pylist())
    assert ids == [n for n in range(20_020) if n != 777]
    [rejected] = (tmp_path / "_out/state/rejected").rglob("*.jsonl")
    assert '"line": 1556' in rejected.read_text()
