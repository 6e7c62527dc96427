"""What plan and report say of a column's values, once they are cast and masked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from extract_jobs.schema import Column
from extract_jobs.transform.fidelity import arrival, fidelity
from tests.support.specs import make_spec


def column(kind: pa.DataType) -> Column:
    return Column("c", "its type", kind, True, "lossless", "arrives as it is", "c")


def test_values_that_become_null_are_a_loss_by_permission() -> None:
    nulled = replace(column(pa.date32()), nulls_odd_values=True)
    assert arrival(nulled, make_spec(lossy_types="null"))[0] == "by_permission"


@pytest.mark.parametrize(
    ("read", "cast", "how", "said"),
    [
        (pa.decimal128(12, 2), "float64", "by_permission", "which rounds to the nearest value"),
        (pa.int64(), "float64", "by_permission", "which rounds"),
        (pa.float64(), "float32", "by_permission", "which rounds"),
        (pa.string(), "float64", "by_permission", "which rounds"),
        (pa.int32(), "float64", "lossless", "which fails the run if a value does not fit"),
        (pa.string(), "int32", "lossless", "cast to int32, which fails the run"),
        (pa.decimal128(12, 2), "decimal(10,1)", "lossless", "cast to decimal(10,1), which fails"),
        (pa.int64(), "string", "as_text", "cast to string"),
        (pa.list_(pa.int32()), "json", "as_text", "cast to json"),
    ],
)
def test_a_cast_is_a_part_of_the_fidelity(
    read: pa.DataType, cast: str, how: str, said: str
) -> None:
    spec = make_spec(columns={"cast": {"c": cast}})
    found, rule = arrival(column(read), spec)
    assert found == how
    assert rule.startswith("arrives as it is; cast to ")
    assert said in rule
    assert fidelity([column(read)], spec) == {"c": f"its type: {how}; {rule}"}


@pytest.mark.parametrize("cast", [{}, {"c": "string"}])
def test_a_cast_that_changes_nothing_is_not_mentioned(cast: dict[str, str]) -> None:
    spec = make_spec(columns={"cast": cast})
    assert arrival(column(pa.string()), spec) == ("lossless", "arrives as it is")


@pytest.mark.parametrize(
    ("read", "columns", "how", "said"),
    [
        (pa.string(), {"mask": {"c": "redact"}}, "masked", "arrives as it is, masked: redact"),
        (pa.struct({"a": pa.int32()}), {"mask": {"c.a": "null"}}, "masked inside", "a: null"),
    ],
)
def test_a_masked_column_is_not_called_lossless(
    read: pa.DataType, columns: dict[str, Any], how: str, said: str
) -> None:
    found, rule = arrival(column(read), make_spec(columns=columns))
    assert found == how
    assert said in rule
