"""Rows that are committed already are known by digests of their keys."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extract_jobs.commit import deduplication
from extract_jobs.commit.deduplication import CommittedRows, RowKey

KEY = RowKey(("k",), ("k",), (None,), 0)
KEYS = st.lists(st.binary(max_size=5), max_size=30)


class Stored:
    """A transform that changes nothing."""

    def stored(self, batch: pa.RecordBatch, columns: Any) -> list[pa.Array]:
        return [batch.column(name) for name in columns]


@given(KEYS, KEYS)
@example([], [b"a"])
@example([b"\0"], [b"", b"\0", b"\0\0"])
def test_exactly_the_committed_rows_are_left_out(old: list[bytes], new: list[bytes]) -> None:
    values = deduplication.joined([pa.array(old, pa.binary())])
    found = pickle.loads(pickle.dumps(CommittedRows.of(KEY, [values[:3], values[3:]])))
    batch = pa.record_batch([pa.array(new, pa.binary())], ["k"])
    left = found.without(batch, Stored()).column("k").to_pylist()
    assert left == [key for key in new if key not in old]


def test_a_key_takes_sixteen_bytes_whatever_it_is() -> None:
    keys = pa.array([b"x" * 10_000 + bytes([i]) for i in range(200)], pa.large_binary())
    assert CommittedRows.of(KEY, [keys]).digests.nbytes == 200 * 16


@pytest.mark.parametrize(
    ("narrow", "wide", "value"),
    [
        (pa.int16(), pa.int32(), -5),
        (pa.int32(), pa.int64(), 7),
        (pa.float32(), pa.float64(), 0.1),
        (pa.decimal128(9, 2), pa.decimal128(12, 2), Decimal("-1.50")),
    ],
    ids=str,
)
def test_a_key_is_the_same_in_files_of_either_width(
    narrow: pa.DataType, wide: pa.DataType, value: Any
) -> None:
    old = pa.array([value], narrow)
    known = CommittedRows.of(KEY, [deduplication.joined([old])])
    assert len(known.without(pa.record_batch([old.cast(wide)], ["k"]), Stored())) == 0
