"""Every type of the torture tables through an Iceberg table, as pyiceberg and DuckDB read it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table

from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support import mysql_torture, postgres_torture
from tests.support.iceberg import IcebergLake, table_by_duckdb
from tests.support.iceberg_types import (
    FILE_TYPES,
    altered,
    as_texts,
    assert_same,
    files_spec,
    in_files,
    in_iceberg,
)
from tests.support.mysql_servers import MysqlServer
from tests.support.mysql_source import source as mysql_source
from tests.support.postgres import Server
from tests.support.postgres_source import source as postgres_source
from tests.support.specs import make_spec
from tests.support.sqlite_torture import make_torture


def _is_finite(value: Any) -> bool:
    """Return whether pyiceberg finds a value: `findings` has an infinite one that it does not."""
    return not isinstance(value, float) or math.isfinite(value)


def assert_no_value_is_hidden(table: Table, expected: pa.Table) -> None:
    """Readers skip files by the bounds in manifests: none may skip the file that has a value."""
    for field in expected.schema:
        if pa.types.is_nested(field.type):
            continue
        try:
            values = {repr(v): v for v in expected.column(field.name).to_pylist() if _is_finite(v)}
        except (ValueError, OverflowError, pa.ArrowInvalid):
            continue  # Python has no such date
        values.pop("None", None)
        for value in values.values():
            files = list(table.scan(row_filter=EqualTo(field.name, value)).plan_files())
            assert len(files) == 1, (field, value)


def check(spec: ExtractSpec, folder: Path, key: str) -> None:
    expected = in_files(spec, key)
    table = in_iceberg(spec, folder)
    known = expected
    if "nested" in expected.column_names:
        known = expected.drop_columns("nested")  # pyiceberg reads a NULL list in a struct as []
    assert_same(table.scan().to_arrow().sort_by(key), known, "pyiceberg")
    found = table_by_duckdb(table.metadata_location, f'select * from t order by "{key}"')
    assert_same(found, expected, "DuckDB")
    assert_no_value_is_hidden(table, expected)


def test_sqlite(tmp_path: Path) -> None:
    make_torture(tmp_path / "t.db")
    check(
        make_spec(
            tmp_path, source_type="sqlite", extract_table="t",
            connection={"path": str(tmp_path / "t.db")},
        ),
        tmp_path,
        "n",
    )  # fmt: skip


@pytest.fixture(scope="module")
def tortured(pg: Server) -> Iterator[Server]:
    server = replace(pg, database="iceberg_torture")
    with pg.connect() as connection:
        connection.execute("create database iceberg_torture")
    postgres_torture.build(server)
    yield server
    with pg.connect() as connection:
        connection.execute("drop database iceberg_torture with (force)")


def test_postgres(tortured: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check(
        postgres_source(tortured, monkeypatch, folder=tmp_path, extract_table="torture").spec,
        tmp_path,
        "n",
    )


def test_mysql(
    mysql_database: MysqlServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mysql_torture.make(mysql_database)
    check(
        mysql_source(mysql_database, monkeypatch, folder=tmp_path, extract_table="torture").spec,
        tmp_path,
        "id",
    )


@pytest.mark.parametrize("name", FILE_TYPES)
def test_files(tmp_path: Path, name: str) -> None:
    check(files_spec(tmp_path, {name: FILE_TYPES[name]}), tmp_path, "n")


def test_twelve_alterations_in_a_row(tmp_path: Path) -> None:
    """After each all rows are read, also those of older files."""
    lake = IcebergLake(tmp_path)
    for number, wanted in enumerate(altered(lake), 1):
        assert as_texts(lake.rows()) == wanted, number
        assert as_texts(lake.rows_by_duckdb()) == wanted, number
    assert len(lake.table().metadata.snapshots) == 13
