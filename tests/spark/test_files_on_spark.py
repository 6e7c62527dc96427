"""Files in several splits, on both engines: ranges of one file, and many files, each row once."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chispa import assert_df_equality
from pyspark.sql import SparkSession

from extract_jobs.run import run_extract
from tests.support.files import files_spec, read_all

pytestmark = pytest.mark.any_spark


def test_an_extract_of_several_splits(tmp_path: Path, spark_or_none: SparkSession | None) -> None:
    lines = [f'{n},"text {n}\nof two lines"' for n in range(20_000)]
    lines[777] = "777"
    (tmp_path / "large.csv").write_text("\n".join(["id,text", *lines]))
    for n in range(20):
        (tmp_path / f"small{n}.csv").write_text(f"text,id\nsmall,{20_000 + n}\n")
    split = {"target_bytes": 262_144, "max_connections": 2}
    spec = files_spec(
        tmp_path, "*.csv", bad_rows="reject", split=split, mode="incremental",
        types={"id": "int64", "text": "string"}, engine="spark" if spark_or_none else "processes",
    )  # fmt: skip
    report = run_extract(spec, spark=spark_or_none)
    assert report.splits > 3
    assert (report.rows, report.rejected_rows) == (20_019, 1)
    files = [pq.read_table(f) for f in (tmp_path / "_out/t").rglob("*.parquet")]
    ids = sorted(n for f in files for n in f.column("id").to_pylist())
    assert ids == [n for n in range(20_020) if n != 777]
    [rejected] = (tmp_path / "_out/state/rejected").rglob("*.jsonl")
    assert '"line": 1556' in rejected.read_text()


@pytest.mark.spark
@pytest.mark.parametrize("mode", ["LEGACY", "CORRECTED"])
def test_dates_that_spark_wrote_in_either_calendar_keep_their_labels(
    spark: SparkSession, tmp_path: Path, mode: str
) -> None:
    """Spark's own rebasing is the judge of ours, over sixteen centuries."""
    keys = [f"spark.sql.parquet.{kind}RebaseModeInWrite" for kind in ("datetime", "int96")]
    before = [spark.conf.get(key) for key in keys]
    days = spark.sql(
        "select explode(sequence(date '0001-01-03', date '1700-01-01', interval 97 days)) as d"
    ).where("cast(d as string) not between '1582-10-05' and '1582-10-14'")  # not in the old one
    frame = days.selectExpr("d", "cast(d as timestamp) + interval 3723 seconds as t")
    try:
        for key in keys:
            spark.conf.set(key, mode)
        frame.coalesce(1).write.parquet(str(tmp_path / "x"))
    finally:
        for key, value in zip(keys, before, strict=True):
            spark.conf.set(key, value)
    expected = frame.selectExpr("cast(d as string) as d", "cast(t as string) as t")
    assert expected.count() > 6000
    read = read_all(files_spec(tmp_path / "x", "*.parquet"))
    dates, moments = (read.column(name).to_pylist() for name in ("d", "t"))
    # As text: on its way into a DataFrame, a Python date would pass through the old calendar.
    found = [
        (d.isoformat(), t.replace(tzinfo=None).isoformat(" "))
        for d, t in zip(dates, moments, strict=True)
    ]
    frame_found = spark.createDataFrame(found, "d string, t string")
    assert_df_equality(frame_found, expected, ignore_nullable=True)
