# ruff: noqa: DTZ001  naive timestamps are a type of their own here
"""Which committed rows count as known: by interval, file by file and row group by row group."""

from __future__ import annotations

import io
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.commit.deduplication import RowKey, files_on, read_keys
from extract_jobs.commit.record import LiveFiles
from extract_jobs.storage import StagedFile, WrittenFile
from extract_jobs.watermark import Interval, WatermarkValue

KINDS = {
    "integer": (pa.int64(), lambda n: n, str),
    "decimal": (pa.decimal128(10, 2), Decimal, lambda n: f"{n}.00"),
    "timestamp": (pa.timestamp("us"), lambda n: datetime(2026, 1, n),
                  lambda n: f"2026-01-{n:02} 00:00:00"),
    "date": (pa.date32(), lambda n: datetime(2026, 1, n).date(), lambda n: f"2026-01-{n:02}"),
}  # fmt: skip
KEY = RowKey(("id", "w"), ("id", "w"), (None, None), 1)


class OneFile:
    """A storage that holds one file."""

    def __init__(self, data):
        self.data = data

    def open(self, uri, listed=None):
        return None if self.data is None else io.BytesIO(self.data)


def known(kind, covered, groups=((1, 2), (3, 4), (5, 6)), statistics=True):
    """Return how many rows of a file of row groups are known, of those that lie in intervals."""
    data_type, value, _ = KINDS[kind]
    sink = io.BytesIO()
    schema = pa.schema([("id", pa.int64()), ("w", data_type)])
    with pq.ParquetWriter(sink, schema, write_statistics=statistics) as writer:
        for group in groups:
            columns = [pa.array(group, pa.int64()), pa.array([value(n) for n in group], data_type)]
            writer.write_table(pa.table(columns, schema=schema))
    file = WrittenFile(StagedFile("x", "t", 1, {}), 6, {})
    return len(read_keys(file, covered, KEY, OneFile(sink.getvalue())))


def between(kind, lower, upper):
    spelled = KINDS[kind][2]
    return Interval(*(n and WatermarkValue(kind, spelled(n)) for n in (lower, upper)))


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("lower", "upper", "rows"),
    [
        (None, 3, 3),  # the least value of the second group is the upper bound
        (None, 2, 2),
        (2, 3, 1),
        (2, 5, 3),
        (4, None, 2),  # the greatest value of the second group is the lower bound
        (3, None, 3),
        (6, None, 0),
        (None, 6, 6),
        (None, 1, 1),
    ],
)
def test_rows_at_the_bounds_of_row_groups_are_known(kind, lower, upper, rows, statistics):
    assert known(kind, [between(kind, lower, upper)], statistics=statistics) == rows


def test_rows_of_several_intervals_are_known_once_each():
    covered = [between("integer", None, 1), between("integer", 4, 5), between("integer", 4, 6)]
    assert known("integer", covered) == 3


def test_a_file_that_is_gone_knows_no_row():
    file = WrittenFile(StagedFile("x", "t", 1, {}), 6, {})
    assert len(read_keys(file, [between("integer", None, 6)], KEY, OneFile(None))) == 0


@pytest.mark.parametrize(
    ("lower", "upper", "meets"),
    [
        (5, 9, False),
        (4, 9, True),
        (None, 1, False),
        (None, 2, True),
        (2, 3, True),
        (None, None, True),
    ],
)
def test_files_of_commits_that_touch_an_interval_are_looked_at(lower, upper, meets):
    own = between("integer", 1, 5).to_json()
    file = WrittenFile(StagedFile("x", "t", 1, {}), 1, {})
    found = files_on([LiveFiles(1, own, (file,))], [between("integer", lower, upper)])
    assert found == ([file] if meets else [])


def test_files_without_rows_are_not_looked_at_and_those_of_full_extracts_always():
    empty = WrittenFile(StagedFile("x", "t", 1, {}), 0, {})
    full = WrittenFile(StagedFile("y", "t", 1, {}), 1, {})
    assert files_on([LiveFiles(1, None, (empty, full))], [between("integer", 1, 2)]) == [full]
