"""Spark reads Iceberg tables with Iceberg's own runtime, the reference for all readers.

The wheel has the runtime for Spark 3.5 alone, hence ``any_spark``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from extract_jobs.commit.rollback import roll_back
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support import mysql_torture, postgres_torture
from tests.support.iceberg import IcebergLake, ordered
from tests.support.iceberg_types import (
    FILE_TYPES,
    altered,
    as_texts,
    assert_same,
    files_spec,
    in_files,
    in_iceberg,
)
from tests.support.mysql_source import source as mysql_source
from tests.support.postgres_source import source as postgres_source
from tests.support.specs import make_spec
from tests.support.sqlite_torture import make_torture

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.support.mysql_servers import MysqlServer
    from tests.support.postgres import Server

pytestmark = [pytest.mark.spark, pytest.mark.any_spark]

Read = Callable[[Table, str], pa.Table]


@pytest.fixture
def by_spark(spark: SparkSession) -> Read:
    """Returns the rows of a table that a condition holds for."""

    def read(table: Table, condition: str = "true") -> pa.Table:
        frame = spark.read.format("iceberg").load(table.metadata_location)
        return pa.Table.from_batches(frame.where(condition)._collect_as_arrow())

    return read


def check(spec: ExtractSpec, folder: Path, key: str, by_spark: Read) -> None:
    expected = in_files(spec, key)
    assert_same(by_spark(in_iceberg(spec, folder), "true").sort_by(key), expected, "Spark")


def test_every_type_of_sqlite(by_spark: Read, tmp_path: Path) -> None:
    make_torture(tmp_path / "t.db")
    connection = {"path": str(tmp_path / "t.db")}
    spec = make_spec(tmp_path, source_type="sqlite", extract_table="t", connection=connection)
    check(spec, tmp_path, "n", by_spark)


def test_every_type_of_postgres(
    by_spark: Read, pg_database: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    postgres_torture.build(pg_database)
    source = postgres_source(pg_database, monkeypatch, folder=tmp_path, extract_table="torture")
    check(source.spec, tmp_path, "n", by_spark)


def test_every_type_of_mariadb(
    by_spark: Read, mariadb_database: MysqlServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mysql_torture.make(mariadb_database)
    source = mysql_source(mariadb_database, monkeypatch, folder=tmp_path, extract_table="torture")
    check(source.spec, tmp_path, "id", by_spark)


def test_every_type_of_files(by_spark: Read, tmp_path: Path) -> None:
    check(files_spec(tmp_path, FILE_TYPES), tmp_path, "n", by_spark)


def test_twelve_alterations_and_a_rollback(by_spark: Read, tmp_path: Path) -> None:
    lake = IcebergLake(tmp_path)
    for wanted in altered(lake):  # noqa: B007  the last one counts
        with lake.table().transaction() as transaction:
            transaction.set_properties({"commit.manifest.min-count-to-merge": "3"})
    assert as_texts(ordered(by_spark(lake.table(), "true").to_pylist())) == wanted
    # Bounds of older files are of narrower types: none may hide its rows.
    for condition, found in (
        ("small = 70000", [4]), ("whole = 9000000000", [3]), ("price = 1234567890123456.25", [5]),
        ("ratio = 0.5D", [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13]), ("note is null", [7, 8, 9, 10]),
    ):  # fmt: skip
        ids = by_spark(lake.table(), condition).column("id").to_pylist()
        assert sorted(ids) == found, condition


def test_a_table_that_was_rolled_back(by_spark: Read, tmp_path: Path) -> None:
    lake = IcebergLake(tmp_path)
    target = {"partition_by": ["kind"]}
    lake.source("create table t (id integer primary key, kind text)",
                "insert into t values (1, 'a'), (2, null)")  # fmt: skip
    lake.run("a", target=target)
    lake.source("delete from t where id = 1", "alter table t add column more text",
                "insert into t values (3, 'c', 'x')")  # fmt: skip
    lake.run("b", target=target)
    found = ordered(by_spark(lake.table(), "true").to_pylist())
    assert [row["id"] for row in found] == [2, 3]
    roll_back(lake.log(target=target), 1, run_id="back", keep=False)
    found = ordered(by_spark(lake.table(), "true").to_pylist())
    assert found == [{"id": 1, "kind": "a"}, {"id": 2, "kind": None}]
    assert by_spark(lake.table(), "kind = 'a'").column("id").to_pylist() == [1]
