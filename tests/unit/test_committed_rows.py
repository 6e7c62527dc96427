"""Rows that are committed already are known by digests of their keys."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
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
    values = deduplication._joined([pa.array(old, pa.binary())])
    found = pickle.loads(pickle.dumps(CommittedRows.of(KEY, [values[:3], values[3:]])))
    batch = pa.record_batch([pa.array(new, pa.binary())], ["k"])
    left = found.without(batch, Stored()).column("k").to_pylist()
    assert left == [key for key in new if key not in old]


def test_a_key_takes_sixteen_bytes_whatever_it_is() -> None:
    keys = pa.array([b"x" * 10_000 + bytes([i]) for i in range(200)], pa.large_binary())
    assert CommittedRows.of(KEY, [keys]).digests.nbytes == 200 * 16
