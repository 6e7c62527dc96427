"""A MySQL table read by Spark's workers, in sessions that the driver lends them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from extract_jobs.run import run_extract
from tests.support.mysql_servers import MysqlServer
from tests.support.mysql_source import source
from tests.support.mysql_writer import ROWS, SPLIT, Writer, make_table

pytestmark = [pytest.mark.spark, pytest.mark.any_spark]


def test_a_run_counts_in_its_snapshot(
    mysql_database: MysqlServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    spark: SparkSession,
) -> None:
    """Rows come and go while it reads, and the source's own count is enforced."""
    make_table(mysql_database)
    found = source(mysql_database, monkeypatch, tmp_path, extract_table="t", split=SPLIT)
    with Writer(mysql_database).writing():
        report = run_extract(found.spec, spark=spark)
    assert report.reconciled
    assert report.source_rows == report.rows >= ROWS
    assert report.read_from == {"one_snapshot": True}
