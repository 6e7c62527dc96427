"""Rows that wait for their partition's file come back whole, from memory, from disk, from both."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from extract_jobs.parquet.spill import Shelf, Spill

SCHEMA = pa.schema([("n", pa.int64())])


def batch(*numbers: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(numbers, pa.int64())], schema=SCHEMA)


@pytest.mark.parametrize("moves", [(), (0,), (1,), (0, 1), (0, 1, 2)])
def test_drained_rows_are_those_put_in(tmp_path: Path, moves: tuple[int, ...]) -> None:
    spill = Spill(str(tmp_path), SCHEMA)
    shelf = Shelf(spill)
    puts = [((1, 2, 3), (7, 8, 7)), ((4, 5), (8, 9)), ((6,), (7,))]
    for i, (numbers, ids) in enumerate(puts):
        shelf.add(batch(*numbers), pa.array(ids, pa.int32()))
        if i in moves:
            shelf.to_disk()
            assert shelf.held_bytes == 0
    found: dict[int, list[int]] = {}
    order = []
    for partition, rows in shelf.drain():
        order.append(partition)
        found.setdefault(partition, []).extend(rows.column(0).to_pylist())
    assert {p: sorted(n) for p, n in found.items()} == {7: [1, 3, 6], 8: [2, 4], 9: [5]}
    assert len([p for i, p in enumerate(order) if i == 0 or order[i - 1] != p]) == 3, order
    assert shelf.held_bytes == 0
    assert list(shelf.drain()) == []
    spill.close()


def test_what_is_cleared_is_gone() -> None:
    spill = Spill(tempfile.gettempdir(), SCHEMA)
    shelf = Shelf(spill)
    shelf.add(batch(1), pa.array([1], pa.int32()))
    shelf.to_disk()
    shelf.add(batch(2), pa.array([1], pa.int32()))
    shelf.clear()
    assert list(shelf.drain()) == []
    spill.close()
