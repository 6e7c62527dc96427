"""A single value beyond the table's limit fails the run, whatever source it comes from."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.engine.value_limit import ValueLimit
from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.run import run_extract
from extract_jobs.sources.splits import ObjectRange, Split
from tests.support.files import files_spec

MOST = 4096
ALL = Split(0)


def check(values: pa.Array, split: Split = ALL) -> None:
    ValueLimit("public.t", MOST).check(pa.record_batch({"n": values, "c": values}), split)


LARGE = [
    pa.array(["x" * 10, None, "x" * (MOST + 1)]),
    pa.array([b"x" * (MOST + 1)], pa.large_binary()),
    pa.array([["x" * 2000, None], ["x" * 2000, "x" * 2097]]),
    pa.array([None, [1] * (MOST // 8 + 1)]),
    pa.array([[Decimal(1)] * (MOST // 16 + 1)]),
    pa.array([None, {"a": "x" * 2000, "b": ["x" * 2097, None]}]),
    pa.array([[("k", "x" * 2000), ("l", "x" * 2097)]], pa.map_(pa.string(), pa.string())),
]


@pytest.mark.parametrize("values", LARGE, ids=lambda values: str(values.type))
def test_a_value_beyond_the_limit_is_refused(values: pa.Array) -> None:
    with pytest.raises(TypeNotRepresentable, match=r"^public\.t: column 'n' has a value of 4,\d+ "):
        check(values)
    assert not TypeNotRepresentable.retryable


SMALL = [
    pa.array(["x" * MOST] * 10),
    pa.array(LARGE[0].to_pylist()).slice(0, 2),
    pa.array([["x" * 2000, "x" * 2096]] * 3),
    pa.array([[1] * (MOST // 8), [], None]),
    pa.array([{"a": "x" * 2000, "b": ["x" * 2096]}] * 3).slice(1),
    pa.array([[("k", "x" * 4000)]] * 3, pa.map_(pa.string(), pa.string())).slice(1),
    pa.array(range(10_000)),
]


@pytest.mark.parametrize("values", SMALL, ids=lambda values: str(values.type))
def test_many_values_within_it_are_not(values: pa.Array) -> None:
    check(values)


def test_the_message_names_file_row_and_column() -> None:
    first, second = (ObjectRange(f"s3://drop/{name}.parquet", "e", 1) for name in "ab")
    for parts, said in (
        ((first,), r"in s3://drop/a\.parquet, row 1,003"),
        ((replace(second, start=7),), r"in s3://drop/b\.parquet, row 1,003, counted from .* 7"),
        ((first, second), r"in row 1,003 of 2 files from s3://drop/a\.parquet to s3://drop/b"),
    ):
        batch = pa.record_batch({"n": LARGE[0]})
        with pytest.raises(TypeNotRepresentable, match=rf"^public\.t, {said}.*: column 'n'"):
            ValueLimit("public.t", MOST).check(batch, Split(0, objects=parts), 1_000)


@pytest.mark.parametrize("given", [{}, {"max_value_bytes": MOST}])
def test_a_run_refuses_it_and_publishes_nothing(tmp_path: Path, given: dict[str, Any]) -> None:
    table = pa.table({"id": [1, 2], "s": ["x", "x" * (MOST + 1)]})
    pq.write_table(table, tmp_path / "a.parquet")
    spec = files_spec(tmp_path, "*.parquet", **given)
    if not given:
        assert run_extract(spec).rows == 2
        return
    with pytest.raises(
        TypeNotRepresentable, match=r"t, in .*a\.parquet, row 2: column 's'.*4,097 b"
    ):
        run_extract(spec)
    assert not list((tmp_path / "_out/t").glob("*.parquet"))
