from __future__ import annotations

import pytest

from extract_jobs.commit.reconcile import reconcile
from extract_jobs.errors import ReconcileFailed


def test_equal_counts_reconcile() -> None:
    reconcile("t", 5, 5, 5)
    reconcile("t", 0, 0, None)


@pytest.mark.parametrize(
    ("read", "written", "counted", "said"),
    [(5, 4, None, "5 rows were read but the Parquet footers hold 4"), (5, 5, 6, "counts 6 rows")],
)
def test_any_difference_fails(read: int, written: int, counted: int | None, said: str) -> None:
    with pytest.raises(ReconcileFailed, match=said):
        reconcile("t", read, written, counted)


def test_fewer_rows_than_before_and_after_fail() -> None:
    with pytest.raises(ReconcileFailed, match="3000 rows before and 2999 after, but 100 were read"):
        reconcile("t", 100, 100, None, (3000, 2999))
    for around in ((5, 3), (3, 5), (4, 4), (None, 9), (9, None)):
        reconcile("t", 4, 4, None, around)
