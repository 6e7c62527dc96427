"""What DuckDB or psycopg returned is converted only where no digit can be missing yet."""

from __future__ import annotations

import pyarrow as pa
import pytest

from extract_jobs.errors import SourceMoved
from extract_jobs.schema import Column
from extract_jobs.sources.postgres.values import conform

DECIMAL = pa.decimal128(10, 2)


def column(kind: pa.DataType) -> Column:
    return Column("c", "of the source", kind, True, "lossless", "as it is", '"c"')


@pytest.mark.parametrize(
    ("came", "wanted"),
    [
        (pa.array([0.5]), DECIMAL),
        (pa.array([[0.5]]), pa.list_(DECIMAL)),
        (pa.array([1.0]), pa.int64()),
        (pa.array([1]), DECIMAL),
        (pa.array(["1"]), DECIMAL),
        (pa.array([0], pa.timestamp("us")), pa.timestamp("us", "UTC")),
    ],
)
def test_another_kind_than_planned_stops_the_run(came: pa.Array, wanted: pa.DataType) -> None:
    with pytest.raises(SourceMoved, match=r"column c \(of the source\) came as .* instead of"):
        conform(came, column(wanted))


@pytest.mark.parametrize(
    ("came", "wanted"),
    [
        (pa.array([1], pa.int32()), pa.int64()),
        (pa.array([0], pa.timestamp("us", "Etc/UTC")), pa.timestamp("us", "UTC")),
        (pa.array([[1]], pa.list_(pa.int16())), pa.list_(pa.int32())),
    ],
)
def test_the_same_kind_is_converted(came: pa.Array, wanted: pa.DataType) -> None:
    assert conform(came, column(wanted)) == came.cast(wanted)
