"""More partitions than files may be open: what waits, where, and what a broken split leaves."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.engine import arrow_splits as engine_arrow
from extract_jobs.engine.arrow_splits import run_in_process
from extract_jobs.engine.split_task import Progress, Results
from extract_jobs.errors import SourceUnavailable, WriteFailed
from extract_jobs.parquet import spill
from extract_jobs.parquet import writer as parquet
from extract_jobs.parquet.writer import PartitionedWriter
from extract_jobs.sources.splits import HANDFUL_BYTES, Split, handfuls, slices
from extract_jobs.storage import WrittenFile
from extract_jobs.storage.local import LocalStorage
from tests.support.sampling import EXHAUSTIVE, examples
from tests.support.scattered import SCHEMA, ScatteredReader, scattered_task


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch):
    """That nothing is lost with the power is not at stake here, and thousands of files are."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def batch(start: int, partitions: list[int]) -> pa.RecordBatch:
    numbers = range(start, start + len(partitions))
    return pa.record_batch([numbers, partitions, [f"row {n}" for n in numbers]], SCHEMA)


def files_of(results: Results) -> list[WrittenFile]:
    return [file for result in results for file in result.files]


def rows_in(files: list[WrittenFile]) -> dict[str | None, list[int]]:
    """Publish files; return what each partition holds, one file after the other."""
    found: dict[str | None, list[int]] = {}
    for file in files:
        assert LocalStorage().complete(file.staged)
        read = pq.read_table(file.staged.uri, partitioning=None).column("n").to_pylist()
        assert len(read) == file.rows
        found.setdefault(file.partition["k"], []).extend(read)
    return found


def below(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


@given(
    sizes=st.lists(st.integers(0, 10**12) | st.just(0), min_size=1, max_size=60),
    count=st.integers(1, 20),
)
def test_slices_are_all_splits_in_order_and_none_is_much_larger(sizes, count):
    splits = [Split(i, estimated_bytes=size) for i, size in enumerate(sizes)]
    found = slices(splits, count)
    assert [split for unit in found for split in unit] == splits
    assert len(found) == min(count, len(splits))
    assert all(found)
    largest = max(sum(max(s.estimated_bytes, 1) for s in unit) for unit in found)
    fair = sum(max(size, 1) for size in sizes) / count
    assert largest <= 2 * fair + max([*sizes, 1])


@given(
    sizes=st.lists(st.integers(1, 2 * HANDFUL_BYTES), min_size=1, max_size=60),
    connections=st.integers(1, 20),
)
def test_handfuls_are_all_splits_in_order_and_no_connection_gets_much_more(sizes, connections):
    splits = [Split(i, estimated_bytes=size) for i, size in enumerate(sizes)]
    found = handfuls(splits, connections)
    assert [split for unit in found for split in unit] == splits
    most = min(HANDFUL_BYTES, sum(sizes) / connections / 2)
    assert all(len(unit) == 1 or sum(s.estimated_bytes for s in unit) <= most for unit in found)
    unknown = [*splits, Split(len(splits))]
    assert len(handfuls(unknown, connections)) == len(unknown)


def test_rows_in_no_order_make_one_file_a_partition(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 20_000)  # most rows go to disk
    task = scattered_task(tmp_path / "lake", tmp_path, max_open_partitions=5)
    reader = ScatteredReader(rows=3000, partitions=100, batch_rows=100)
    results = run_in_process(task, reader, [Split(0), Split(1)], Progress())
    assert [result.rows for result in results] == [3000, 3000]
    files = files_of(results)
    assert len(files) == 100
    found = rows_in(files)
    assert sorted(n for rows in found.values() for n in rows) == list(range(6000))


def test_partitions_in_order_never_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(spill.Shelf, "add", None)  # nothing can be parked
    writer = scattered_task(tmp_path, max_open_partitions=3).writer(0)
    for start in range(600):
        writer.write(batch(start, [start // 10]))
    files = writer.close()
    assert len(files) == 60
    assert rows_in(files) == {str(k): list(range(k * 10, k * 10 + 10)) for k in range(60)}


def test_whole_splits_in_order_of_partitions_are_parked_no_more_than_needed(tmp_path):
    writer = scattered_task(tmp_path, max_open_partitions=4).writer(0)
    for split in range(30):
        with writer.whole():
            writer.write(batch(split * 10, [split] * 10))
    assert not writer._spilled
    assert len(writer.close()) == 30


def test_partitions_that_come_back_do_not_each_time_make_a_file(tmp_path):
    writer = scattered_task(tmp_path, max_open_partitions=4).writer(0)
    for turn in range(1500):  # round robin over 40, each idle for long before it comes again
        writer.write(batch(turn, [turn % 40]))
    files = writer.close()
    assert sum(file.rows for file in files) == 1500
    assert len(files) < 40 + 3 * 4 + 40


def test_what_waited_for_the_end_of_a_split_stays_within_the_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 50_000)
    writer = scattered_task(tmp_path, tmp_path, max_open_partitions=20).writer(0)
    append, most = writer._files.append, 0

    def watched(partition, rows):
        nonlocal most
        append(partition, rows)
        most = max(most, writer._files.held_bytes)

    monkeypatch.setattr(writer._files, "append", watched)
    with writer.whole():
        for start in range(0, 30_000, 1000):
            writer.write(batch(start, [n % 20 for n in range(1000)]))
    assert 0 < most < 100_000
    assert sum(file.rows for file in writer.close()) == 30_000


splits_of_rows = st.lists(
    st.tuples(st.lists(st.integers(0, 8), max_size=30), st.integers(0, 2)), min_size=1, max_size=8
)


@settings(max_examples=examples(30), deadline=None)
@given(
    splits=splits_of_rows, most=st.integers(1, 5), step=st.integers(1, 7), buffer=st.integers(1, 4)
)
def test_what_a_broken_split_gave_is_taken_back(tmp_path_factory, splits, most, step, buffer):
    """Each split breaks so many times at some row before it ends well."""
    folder = tmp_path_factory.mktemp("whole")
    expected: dict[str, list[int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "BUFFER_BYTES", [1, 2000, 5000, 10**8][buffer - 1])
        writer = scattered_task(folder, folder, max_open_partitions=most).writer(0)
        start = 0
        for partitions, breaks in splits:
            for attempt in range(breaks + 1):
                broken = attempt < breaks
                rows = partitions[: len(partitions) // 2] if broken else partitions
                before = writer.rows
                try:
                    with writer.whole():
                        for at in range(0, len(rows), step):
                            writer.write(batch(start + at, rows[at : at + step]))
                        if broken:
                            raise SourceUnavailable("cut")
                except SourceUnavailable:
                    assert writer.rows == before
            for at, partition in enumerate(partitions):
                expected.setdefault(str(partition), []).append(start + at)
            start += len(partitions)
        found = rows_in(writer.close())
    assert {k: sorted(rows) for k, rows in found.items()} == expected


def test_a_split_whose_connection_breaks_is_read_again_within_its_slice(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_arrow.time, "sleep", lambda _: None)
    task = scattered_task(tmp_path)
    reader = ScatteredReader(rows=1000, partitions=20, batch_rows=100, breaks={1: 2})
    results = run_in_process(task, reader, [Split(i) for i in range(3)], Progress())
    assert reader.breaks == {1: 0}
    found = rows_in(files_of(results))
    assert sorted(n for rows in found.values() for n in rows) == list(range(3000))
    broken = ScatteredReader(rows=1000, partitions=20, batch_rows=100, breaks={2: 3})
    shutil.rmtree(tmp_path)
    with pytest.raises(SourceUnavailable):
        run_in_process(task, broken, [Split(i) for i in range(3)], Progress())
    assert below(tmp_path) == []


def test_splits_with_files_of_their_own_leave_none_staged_when_one_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_arrow.time, "sleep", lambda _: None)
    task = replace(scattered_task(tmp_path), shares_files=False)
    reader = ScatteredReader(rows=1000, partitions=3, batch_rows=100)
    results = run_in_process(task, reader, [Split(i) for i in range(3)], Progress())
    assert [len(result.files) for result in results] == [3, 3, 3]
    shutil.rmtree(tmp_path)
    broken = ScatteredReader(rows=1000, partitions=3, batch_rows=100, breaks={2: 3})
    with pytest.raises(SourceUnavailable):
        run_in_process(task, broken, [Split(i) for i in range(3)], Progress())
    assert below(tmp_path) == []


class SlowStorage(LocalStorage):
    """Staging a file ends only when three others are ending too, or fails from the tenth on."""

    def __init__(self, fails: bool) -> None:
        self.together, self.fails, self.ended = threading.Barrier(4, timeout=60), fails, 0

    def stage(self, uri, root, token):
        writer = super().stage(uri, root, token)
        close = writer.close

        def slowly():
            self.ended += 1
            if not self.fails:
                self.together.wait()
            elif self.ended >= 10:
                raise WriteFailed("no answer")
            return close()

        writer.close = slowly
        return writer


@pytest.mark.parametrize("fails", [False, True])
def test_files_are_sent_at_the_same_time_in_the_end(tmp_path, fails):
    storage = SlowStorage(fails)
    task = replace(scattered_task(tmp_path, max_open_partitions=2), open_storage=lambda _: storage)
    writer = task.writer(0)
    writer.write(batch(0, list(range(40))))
    if fails:
        with pytest.raises(WriteFailed, match="no answer"):
            writer.close()
        writer.abort()
        assert below(tmp_path) == []
    else:
        assert rows_in(writer.close()) == {str(k): [k] for k in range(40)}


def test_the_spill_has_no_name_and_is_gone_with_its_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 10_000)
    folder = tmp_path / "spill"
    folder.mkdir()
    writer = scattered_task(tmp_path / "lake", folder, max_open_partitions=1).writer(0)
    for start in range(0, 3000, 100):
        writer.write(batch(start, list(range(100))))
    assert writer._spill.size > 10_000
    assert below(folder) == []  # so a killed process leaves none either
    writer.abort()
    assert writer._spill.size == 0
    assert below(tmp_path) == []


def test_what_was_read_back_is_freed_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 10_000)
    writer = scattered_task(tmp_path, max_open_partitions=20).writer(0)
    sizes = []
    for split in range(10):
        with writer.whole():
            for start in range(0, 1000, 100):
                writer.write(batch(split * 1000 + start, list(range(20)) * 5))
            sizes.append(writer._spill.size)
        assert writer._spill.size == 0  # all of it went to files
    assert min(sizes) > 1000
    assert max(sizes) < 2 * min(sizes)
    writer.abort()


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(spill.shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - size, size))


def test_a_disk_without_room_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    free(monkeypatch, spill.SPARE_BYTES - 1)
    task = scattered_task(tmp_path, tmp_path)
    with pytest.raises(WriteFailed, match=r"has 256 MiB free.*spill_folder") as caught:
        run_in_process(task, None, [Split(0), Split(1)], Progress())  # type: ignore[arg-type]
    assert str(tmp_path) in str(caught.value)


def test_tables_without_partitions_by_row_ask_for_no_room(tmp_path, monkeypatch):
    free(monkeypatch, 0)
    writer: PartitionedWriter = scattered_task(tmp_path, partition_by=["run_id"]).writer(0)
    writer.write(batch(0, [1, 2]))
    assert len(writer.close()) == 1


def test_a_disk_that_fills_up_stops_the_extract_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 10_000)
    task = scattered_task(tmp_path, max_open_partitions=1)
    free(monkeypatch, spill.SPARE_BYTES)  # room to begin with, none for a byte more
    with pytest.raises(WriteFailed, match="coarser partitions"):
        run_in_process(task, ScatteredReader(1000, 50, batch_rows=50), [Split(0)], Progress())
    assert below(tmp_path) == []


def test_a_spill_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WriteFailed, match=r"nowhere: No such file"):
        scattered_task(tmp_path, tmp_path / "nowhere").writer(0)


def test_an_error_of_the_disk_is_reported(tmp_path, monkeypatch):
    """The system's own limit on the size of files stands for a disk that is full."""
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 100_000)
    task = scattered_task(tmp_path, max_open_partitions=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(WriteFailed, match=r"could not be stored in .*: File too large"):
            run_in_process(task, ScatteredReader(20_000, 50), [Split(0)], Progress())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert below(tmp_path) == []


CHILD = """
import json, os, sys
from pathlib import Path
from extract_jobs.engine.pandas_free import skip_pandas
from extract_jobs.parquet import rolling, writer
from extract_jobs.engine.arrow_splits import run_in_process
from extract_jobs.engine.split_task import Progress
from extract_jobs.sources.splits import HANDFUL_BYTES, Split, handfuls, slices
from tests.support.scattered import ScatteredReader, open_storage, scattered_task

skip_pandas()
os.fsync = lambda _: None  # that nothing is lost with the power is not at stake here

def peak():
    # Not `getrusage`: what it tells of a child begins with its parent's size.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))

partitions = int(sys.argv[2])
scale = 5000 // partitions
writer.BUFFER_BYTES //= scale
rolling.OPEN_BYTES //= scale
task = scattered_task(Path(sys.argv[1]) / "lake", Path(sys.argv[1]))
width = int(sys.argv[3])
reader = ScatteredReader(30 * partitions, partitions, width, batch_rows=10_000 // scale)
before, counts = peak(), []
for unit in slices([Split(i) for i in range(4)], 2):
    files = [f for result in run_in_process(task, reader, unit, Progress()) for f in result.files]
    counts.append(len(files))
    for file in files:
        assert open_storage("").complete(file.staged)
print(json.dumps({"before": before, "peak": peak(), "files": counts}))
"""


# What pyarrow needs beside the buffers is the same for both, some 70 MB.
@pytest.mark.parametrize(
    ("partitions", "width", "megabytes"),
    [(500, 1600, 110), *([(5000, 400, 300)] if EXHAUSTIVE else [])],
)
def test_thousands_of_partitions_in_two_slices_within_memory(
    tmp_path, partitions, width, megabytes
):
    """With 5,000 partitions, 240 MB of rows, in no order; two slices, of two splits each.

    A quick run has a tenth of the partitions, and buffers of a tenth. Takes over ten seconds where
    it has all: to be held in memory by mistake, rows must be more than memory may grow by.
    """
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(partitions), str(width)],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    shown = json.loads(child.stdout)
    assert shown["files"] == [partitions, partitions]
    sys.stdout.write(f"{shown['before']:.0f} MB before, {shown['peak']:.0f} MB at most\n")
    assert shown["peak"] - shown["before"] < megabytes
    assert {p.name for p in tmp_path.iterdir()} == {"lake"}
    counted = duckdb.sql(
        "select count(*), count(distinct n), sum(n), count(distinct k) from "
        f"read_parquet('{tmp_path}/lake/target/*/*.parquet', hive_partitioning = true)"
    ).fetchall()
    rows = 120 * partitions
    assert counted == [(rows, rows, rows * (rows - 1) // 2, partitions)]
