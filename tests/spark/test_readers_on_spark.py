"""Spark reads what was written, as `docs/readers.md` says."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyspark
import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as f

from tests.support.reader_cases import (
    FLOATS,
    FOLDERS,
    GREATER,
    VALUES,
    Folder,
    Values,
    same,
    write_folders,
    write_groups,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

pytestmark = pytest.mark.spark

READER = f"Spark {'.'.join(pyspark.__version__.split('.')[:2])}"


def literal(value: Any) -> Column:
    """Python's dates pass through Java's old calendar, and datetimes through the driver's zone."""
    if isinstance(value, datetime):
        return f.lit(str(value)).cast("timestamp_ntz")
    if isinstance(value, date):
        return f.lit(value.isoformat()).cast("date")
    return f.lit(value)


@pytest.mark.parametrize("case", VALUES, ids=lambda case: case.name)
def test_values_come_back_and_are_found(spark: SparkSession, tmp_path: Path, case: Values) -> None:
    """Compared by value: `same` distinguishes -0 from 0 and matches NaN, chispa does neither."""
    frame = spark.read.parquet(write_groups(tmp_path, case.arrow_type, case.values))
    found = [row["v"] for row in frame.orderBy("n").collect()]
    for value, wanted in zip(found, case.values, strict=True):
        assert same(value, wanted), (value, wanted)
    for n, value in enumerate(() if case.nested else case.values):
        rows = frame.where(f.col("v") == literal(value)).select("n").collect()
        found = [row["n"] for row in rows]
        assert (n not in found) if n in case.missed.get(READER, ()) else (n in found), value


def test_no_statistics_hide_nan(spark: SparkSession, tmp_path: Path) -> None:
    """Only which rows are found is compared, and not by chispa, to which NaN equals nothing."""
    frame = spark.read.parquet(write_groups(tmp_path, pa.float64(), FLOATS))
    rows = frame.where("v > 100").orderBy("n").collect()
    assert tuple(row["n"] for row in rows) == GREATER[READER]


def test_folders_read_back_as_written_if_their_type_is_given(
    spark: SparkSession, tmp_path: Path
) -> None:
    values = (*(case.value for case in FOLDERS), "nUlL", None)
    frame = spark.read.schema("n bigint, k string").parquet(write_folders(tmp_path, values))
    expected = spark.createDataFrame(list(enumerate(values)), "n bigint, k string")
    assert_df_equality(frame.select("n", "k"), expected, ignore_row_order=True)


@pytest.mark.parametrize("case", FOLDERS, ids=lambda case: case.value)
def test_folders_are_guessed_as_the_page_says(
    spark: SparkSession, tmp_path: Path, case: Folder
) -> None:
    """Compared by `same` and not by chispa: the type that Spark guesses depends on the text."""
    [row] = spark.read.parquet(write_folders(tmp_path, (case.value,))).collect()
    assert same(row["k"], case.guessed.get(READER, case.value)), row["k"]
