"""How large splits are: as the spec says, or smaller if cores would be idle; disjoint and whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract_jobs.sources import splits
from extract_jobs.sources.files.snapshot import OPENING_BYTES, _groups
from extract_jobs.sources.splits import (
    SMALLEST_BYTES,
    SMALLEST_PARQUET_BYTES,
    ObjectRange,
    split_bytes,
    split_count,
)
from extract_jobs.spec.parts import SplitSpec

MB = 2**20


@pytest.mark.parametrize(
    ("total", "cores", "count"),
    [
        (0, 2, 1),
        (63 * MB, 2, 1),
        (64 * MB, 2, 2),
        (154 * MB, 1, 2),
        (154 * MB, 2, 2),
        (154 * MB, 64, 4),
        (265 * MB, 2, 4),  # not 3, of which one core would read two
        (766 * MB, 2, 6),
        (766 * MB, 4, 8),
        (766 * MB, 64, 8),  # no more than connections
    ],
)
def test_every_core_has_as_many_splits(monkeypatch, total: int, cores: int, count: int) -> None:
    monkeypatch.setattr(splits, "cores", lambda: cores)
    assert split_count(SplitSpec(), total) == count
    size = split_bytes(SplitSpec(), total)
    assert size <= 128 * MB
    assert count == 1 or total >= 2 * size, "a single file is large enough to be cut"


def test_parquet_is_split_although_its_bytes_are_few(monkeypatch) -> None:
    monkeypatch.setattr(splits, "cores", lambda: 2)
    for size, count in ((23 * MB, 1), (24 * MB, 2), (49 * MB, 2)):
        assert split_count(SplitSpec(), size, SMALLEST_PARQUET_BYTES) == count
        assert split_bytes(SplitSpec(), size, SMALLEST_PARQUET_BYTES) <= size // count


@given(total=st.integers(0, 10**12), connections=st.integers(1, 100),
       target=st.integers(2**13, 2**31))  # fmt: skip
def test_splits_are_never_larger_and_seldom_smaller(total, connections, target) -> None:
    wanted = SplitSpec(target_bytes=target, max_connections=connections)
    assert min(target, SMALLEST_BYTES) <= split_bytes(wanted, total) <= target
    assert split_count(wanted, total) >= max(1, -(-total // target))


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=20), target=st.integers(1, 100))
def test_row_groups_are_each_in_one_part(sizes: list[int], target: int) -> None:
    parts = list(_groups(ObjectRange("u", "e", 1), sizes, target))
    read = [group for part, _ in parts for group in range(part.start, part.end or 0)]
    assert read == list(range(len(sizes)))
    assert all(part.end is not None and part.start < part.end for part, _ in parts)
    assert [size - OPENING_BYTES for _, size in parts] == [
        sum(sizes[part.start : part.end]) for part, _ in parts
    ]


def test_parts_of_many_row_groups_are_of_one_size() -> None:
    parts = _groups(ObjectRange("u", "e", 1), [4] * 38, 76)
    assert [(part.start, part.end) for part, _ in parts] == [(0, 19), (19, 38)]
