"""Text that is not UTF-8 is found, wherever it stands in a column."""

from __future__ import annotations

import pyarrow as pa
import pytest

from extract_jobs.transform.utf8 import damaged_rows


def texts(*values: bytes | None) -> pa.Array:
    return pa.array(values, pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (texts(b"a", None, "é€𝄞".encode()), []),
        (texts(), []),
        (texts(None, None), []),
        (texts(b"a", b"\xe9", None, b"ok", b"\xed\xa0\x80", b"\xc3"), [1, 4, 5]),
        (texts(b"\xe9", b"a").slice(1), []),
        (texts(b"a", "é".encode(), b"\xe9").slice(1), [1]),
        (texts(b"\xc3", b"\xa9"), [0, 1]),  # whole only when put together
        (pa.array([1, 2]), []),
        (pa.array([b"\xe9"]), []),
    ],
)
def test_damaged_rows(values: pa.Array, expected: list[int]) -> None:
    assert damaged_rows(values) == expected


def test_damaged_rows_of_lists() -> None:
    items = texts(b"a", b"\xe9", None, "é".encode())
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 2, 4]), items)
    assert damaged_rows(lists) == [1]
    assert damaged_rows(lists.slice(2)) == []
