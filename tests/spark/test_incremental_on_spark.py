"""Incremental extracts in several splits: rows that are committed already, told by Spark."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession

import extract_jobs.attempt.attempt
from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.crash import Lake
from tests.support.postgres import Server

pytestmark = pytest.mark.spark


# Where one process holds all keys, Spark runs splits as it does elsewhere.
@pytest.mark.any_spark
@pytest.mark.parametrize("limit", [1_000_000, 1000])
def test_a_large_overlap(
    pg_database: Server,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    spark: SparkSession,
    limit: int,
) -> None:
    """The same whether one process holds all keys, or Spark joins them."""
    monkeypatch.setenv("CRASH_PASSWORD", pg_database.password)
    monkeypatch.setattr(extract_jobs.attempt.attempt, "MAX_IN_MEMORY", limit)
    pg_database.execute(
        "create table public.t (id int, w timestamptz, part text, padding text)",
        "insert into public.t select g, timestamptz '2026-01-01 00:00+00' + g * interval '1 s',"
        " 'p' || g % 3, repeat(md5(g::text), 4) from generate_series(1, 6000) g where g % 7 <> 0",
    )
    lake = Lake(str(tmp_path))

    def run(run_id: str) -> Report:
        spec = lake.spec(
            pg_database, run_id, mode="incremental",
            watermark={"column": "w", "lag": "1h"}, columns={"key": ["part", "id"]},
            split={"target_bytes": 150_000, "max_connections": 2},
            target={"partition_by": ["part"]},
        )  # fmt: skip
        return run_extract(ExtractSpec.model_validate(spec), spark=spark)

    assert run("first").splits > 3
    pg_database.execute(
        "insert into public.t select g, timestamptz '2026-01-01 00:00+00' + g * interval '1 s',"
        " 'p' || g % 3, repeat(md5(g::text), 4) from generate_series(1, 6100) g"
        " where g % 7 = 0 or g > 6000",
        "update public.t set w = '2026-01-02' where id = 5998",
    )
    report = run("second")
    within = range(6000 - 3600 + 1, 6001)
    late = [g for g in range(1, 6101) if (g % 7 == 0 and g in within) or g > 6000]
    assert report.rows == len(late) + 1
    assert report.repeated_rows == len([g for g in within if g % 7 and g != 5998])
    before = [g for g in range(1, 6001) if g % 7]
    assert lake.read() == sorted([*before, *late, 5998])
    third = run("third")
    assert (third.rows, third.commit_seq) == (0, None)
    pg_database.execute("insert into public.t values (null, '2026-01-02', 'p1', '')")
    with pytest.raises(ConfigError, match=r"columns\.key: id holds NULL"):
        run("fourth")
    assert lake.staged() == []


def test_what_fails_while_keys_are_read_is_reported_as_it_was_raised(
    pg_database: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, spark: SparkSession
) -> None:
    monkeypatch.setenv("CRASH_PASSWORD", pg_database.password)
    monkeypatch.setattr(extract_jobs.attempt.attempt, "MAX_IN_MEMORY", 0)
    pg_database.execute(
        "create table public.t (id int, day date, w int)", "insert into t values (1, now(), 1)"
    )
    lake = Lake(str(tmp_path))

    def run(run_id: str) -> Report:
        spec = lake.spec(
            pg_database, run_id, mode="incremental",
            watermark={"column": "w", "lag": 5}, columns={"key": ["day"]},
        )  # fmt: skip
        return run_extract(ExtractSpec.model_validate(spec), spark=spark)

    assert run("first").rows == 1
    pg_database.execute("insert into t values (2, 'infinity', 2)")
    with pytest.raises(TypeNotRepresentable, match=r"column day .*holds a value that is infinite"):
        run("second")
    assert lake.read() == [1]
    assert lake.staged() == []
