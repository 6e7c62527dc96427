"""pyarrow, DuckDB and polars read what was written; `tests/spark` does the same with Spark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests.support.reader_cases import (
    FLOATS,
    FOLDERS,
    GREATER,
    PAGE,
    VALUES,
    Folder,
    Values,
    page,
    same,
    write_folders,
    write_groups,
)

Rows = list[tuple[int, Any]]
Read = Callable[[str], Rows]
Find = Callable[[str, str, Any], list[int]]


def _duckdb_rows(uri: str) -> Rows:
    return duckdb.sql(f"select n, v from read_parquet('{uri}') order by n").fetchall()


def _duckdb_find(uri: str, operator: str, value: Any) -> list[int]:
    query = f"select n from read_parquet('{uri}') where v {operator} $1 order by n"
    return [n for (n,) in duckdb.execute(query, [value]).fetchall()]


def _pyarrow_rows(uri: str) -> Rows:
    return [(row["n"], row["v"]) for row in ds.dataset(uri).to_table().to_pylist()]


def _pyarrow_find(uri: str, operator: str, value: Any) -> list[int]:
    data = ds.dataset(uri)
    literal = pa.scalar(value, data.schema.field("v").type)
    condition = ds.field("v") == literal if operator == "=" else ds.field("v") > literal
    return list(data.to_table(filter=condition).column("n").to_pylist())


def _polars_rows(uri: str) -> Rows:
    return list(pl.read_parquet(uri, columns=["n", "v"]).iter_rows())


def _polars_find(uri: str, operator: str, value: Any) -> list[int]:
    frame = pl.scan_parquet(uri)
    literal = pl.lit(value, frame.collect_schema()["v"])
    condition = pl.col("v") == literal if operator == "=" else pl.col("v") > literal
    return frame.filter(condition).collect()["n"].to_list()


READERS: dict[str, tuple[Read, Find]] = {
    "pyarrow 25": (_pyarrow_rows, _pyarrow_find),
    "DuckDB 1.5": (_duckdb_rows, _duckdb_find),
    "polars 2.1": (_polars_rows, _polars_find),
}
VERSIONS = {"pyarrow": pa.__version__, "DuckDB": duckdb.__version__, "polars": pl.__version__}


def _guessed_by_duckdb(uri: str) -> Rows:
    return duckdb.sql(
        f"select n, k from read_parquet('{uri}/*/*.parquet', hive_partitioning = true) order by n"
    ).fetchall()


def _typed_by_duckdb(uri: str) -> Rows:
    return duckdb.sql(
        f"select n, k from read_parquet('{uri}/*/*.parquet', hive_partitioning = true, "
        "hive_types = {'k': varchar}) order by n"
    ).fetchall()


def _guessed_by_pyarrow(uri: str) -> Rows:
    rows = ds.dataset(uri, partitioning="hive").to_table(columns=["n", "k"]).to_pylist()
    return [(row["n"], row["k"]) for row in rows]


def _typed_by_pyarrow(uri: str) -> Rows:
    known = ds.partitioning(pa.schema([("k", pa.string())]), flavor="hive")
    rows = ds.dataset(uri, partitioning=known).to_table(columns=["n", "k"]).to_pylist()
    return sorted((row["n"], row["k"]) for row in rows)


def _guessed_by_polars(uri: str) -> Rows:
    frame = pl.scan_parquet(f"{uri}/**/*.parquet", hive_partitioning=True)
    return list(frame.select("n", "k").collect().sort("n").iter_rows())


def _typed_by_polars(uri: str) -> Rows:
    frame = pl.scan_parquet(
        f"{uri}/**/*.parquet", hive_partitioning=True, hive_schema={"k": pl.String}
    )
    return list(frame.select("n", "k").collect().sort("n").iter_rows())


FOLDER_READERS: dict[str, tuple[Read, Read]] = {
    "pyarrow 25": (_guessed_by_pyarrow, _typed_by_pyarrow),
    "DuckDB 1.5": (_guessed_by_duckdb, _typed_by_duckdb),
    "polars 2.1": (_guessed_by_polars, _typed_by_polars),
}


def test_the_page_is_what_the_cases_say() -> None:
    """If not: ``python -m tests.support.reader_cases``."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_versions_are_those_of_the_page() -> None:
    assert set(READERS) == {f"{n} {'.'.join(v.split('.')[: 1 if n == 'pyarrow' else 2])}"
                            for n, v in VERSIONS.items()}  # fmt: skip


@pytest.mark.parametrize("case", VALUES, ids=lambda case: case.name)
@pytest.mark.parametrize("reader", READERS)
def test_values_come_back_and_are_found(tmp_path: Path, reader: str, case: Values) -> None:
    rows, find = READERS[reader]
    uri = write_groups(tmp_path, case.arrow_type, case.values)
    found = rows(uri)
    assert [n for n, _ in found] == list(range(len(case.values)))
    for (_, value), wanted in zip(found, case.values, strict=True):
        assert same(value, wanted), (value, wanted)
    for n, value in enumerate(() if case.nested else case.values):
        if value == value:  # noqa: PLR0124 - NaN is not, to pyarrow
            assert n in find(uri, "=", value), value


@pytest.mark.parametrize("reader", READERS)
def test_no_statistics_hide_nan(tmp_path: Path, reader: str) -> None:
    uri = write_groups(tmp_path, pa.float64(), FLOATS)
    assert tuple(READERS[reader][1](uri, ">", 100.0)) == GREATER[reader]


@pytest.mark.parametrize("reader", FOLDER_READERS)
def test_folders_read_back_as_written_if_their_type_is_given(tmp_path: Path, reader: str) -> None:
    values = (*(case.value for case in FOLDERS), "nUlL", None)
    found = FOLDER_READERS[reader][1](write_folders(tmp_path, values))
    assert [value for _, value in sorted(found, key=lambda row: row[0])] == list(values)


@pytest.mark.parametrize("case", FOLDERS, ids=lambda case: case.value)
@pytest.mark.parametrize("reader", FOLDER_READERS)
def test_folders_are_guessed_as_the_page_says(tmp_path: Path, reader: str, case: Folder) -> None:
    [(_, found)] = FOLDER_READERS[reader][0](write_folders(tmp_path, (case.value,)))
    assert same(found, case.guessed.get(reader, case.value)), found
