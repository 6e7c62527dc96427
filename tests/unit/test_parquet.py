from __future__ import annotations

import gc
import multiprocessing
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ReconcileFailed, TypeNotRepresentable, WriteFailed
from extract_jobs.parquet import rolling
from extract_jobs.parquet import writer as parquet
from extract_jobs.parquet.writer import PartitionedWriter
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import Storage, WrittenFile
from extract_jobs.storage.local import LocalStorage
from extract_jobs.transform.partitions import PartitionIds, rows_by_id
from extract_jobs.transform.transform import Transform, choose_columns
from tests.support.sampling import examples
from tests.support.specs import make_description, make_spec

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
HOSTILE = ["plain", "a/b", "a=b", "50%", "%2F", "x y", "é", "q\"'q", "a:b*c?d", "{[^]}", "\\", "#",
           "tab\t", "del\x7f", "+", "&", ".", "..", "日本", None]  # fmt: skip


def writer_of(
    spec: ExtractSpec, schema: pa.Schema, storage: Storage | None = None
) -> PartitionedWriter:
    columns = choose_columns(make_description(schema), spec)
    transform = Transform.build(
        columns, spec, run_id=spec.run_id, extracted_at=NOW, extract_date=NOW.date()
    )
    return PartitionedWriter(
        storage or LocalStorage(),
        spec.target,
        transform,
        file_prefix="run-1-1-00000",
        metadata={"extract.run_id": spec.run_id},
    )


def write(
    spec: ExtractSpec, batches: Sequence[pa.RecordBatch], *, schema_file: bool = False
) -> list[WrittenFile]:
    writer = writer_of(spec, batches[0].schema)
    for batch in batches:
        writer.write(batch)
    written = writer.close(schema_file=schema_file)
    for one in written:
        assert LocalStorage().complete(one.staged)
    return written


def numbers(rows: int, start: int = 0) -> pa.RecordBatch:
    return pa.record_batch({"n": pa.array(range(start, start + rows), pa.int64())})


def files_below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_an_unpartitioned_table_is_one_file_with_all_rows_in_order(tmp_path: Path) -> None:
    [one] = write(make_spec(tmp_path), [numbers(10), numbers(0), numbers(5, 10)])
    path = Path(one.staged.uri)
    assert path.parent == tmp_path / "target"
    assert path.name == f"run-1-1-00000-{one.staged.token[:8]}.parquet"
    assert (one.rows, one.partition) == (15, {})
    assert pq.read_table(path).column("n").to_pylist() == list(range(15))
    assert pq.read_metadata(path).metadata[b"extract.run_id"] == b"run-1"


def test_nothing_is_visible_before_it_is_completed(tmp_path: Path) -> None:
    writer = writer_of(make_spec(tmp_path), numbers(1).schema)
    writer.write(numbers(10))
    [one] = writer.close()
    assert not Path(one.staged.uri).exists()
    writer.abort()  # the file is the caller's by now
    assert LocalStorage().complete(one.staged)


def test_rows_and_bytes_are_counted(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, target={"row_group_bytes": 10**5})
    writer = writer_of(spec, numbers(1).schema)
    assert (writer.rows, writer.bytes) == (0, 0)
    writer.write(numbers(50_000))
    assert writer.rows == 50_000
    assert writer.bytes > 10_000
    assert writer.close()[0].staged.size == writer.bytes


def test_files_are_rolled_near_the_bytes_asked_for(tmp_path: Path) -> None:
    spec = make_spec(
        tmp_path, target={"file_bytes": 400_000, "row_group_bytes": 10**5, "compression": "none"}
    )
    written = write(spec, [numbers(10_000, start) for start in range(0, 200_000, 10_000)])
    sizes = [one.staged.size for one in written]
    assert len(sizes) >= 4
    assert all(300_000 < size < 500_000 for size in sizes[:-1])
    assert sum(one.rows for one in written) == 200_000


def test_a_file_smaller_than_a_row_group_bounds_the_row_group(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, target={"file_bytes": 100_000, "compression": "none"})
    written = write(spec, [numbers(100_000)])
    assert len(written) > 3
    assert all(one.staged.size < 150_000 for one in written)


def test_row_groups_are_full_yet_within_their_bound(tmp_path: Path) -> None:
    limit = 10**6
    spec = make_spec(tmp_path, target={"row_group_bytes": limit})
    batch = pa.record_batch({"s": [f"{i:0100d}" for i in range(3000)]})
    [one] = write(spec, [batch] * 20)
    metadata = pq.read_metadata(one.staged.uri)
    rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert len(rows) > 3
    row_bytes = pq.read_table(one.staged.uri).nbytes / 60_000
    assert all(limit * 0.8 < n * row_bytes <= limit * 1.01 for n in rows[:-1])


def test_a_value_larger_than_a_row_group_is_a_row_group_of_its_own(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, target={"row_group_bytes": 10**6})
    texts = ["small"] * 100 + ["x" * 5_000_000] + ["small"] * 100 + ["y" * 5_000_000]
    written = write(spec, [pa.record_batch({"s": texts})])
    files = [pq.ParquetFile(one.staged.uri) for one in written]
    assert [t for f in files for t in f.read().column("s").to_pylist()] == texts
    groups = [f.metadata.row_group(i) for f in files for i in range(f.num_row_groups)]
    large = [group.num_rows for group in groups if group.total_byte_size > 10**6]
    assert large == [1, 1]


def write_values_of_100_mb(tmp_path: Path) -> None:
    writer = writer_of(make_spec(tmp_path), pa.schema([("b", pa.binary())]))
    size = 100_000_000
    before = pa.total_allocated_bytes()
    for _ in range(3):
        batch = pa.record_batch({"b": pa.array([b"\x00" * size], pa.binary())})
        writer.write(batch)
        del batch
        gc.collect()
        assert pa.total_allocated_bytes() - before < 3.5 * size
    [one] = writer.close()
    assert one.rows == 3
    assert pa.total_allocated_bytes() - before < size / 10
    # The value, the page it is encoded into, and the same page compressed.
    assert pa.default_memory_pool().max_memory() - before < 5 * size


def test_memory_stays_near_the_value_for_values_of_100_mb(tmp_path: Path) -> None:
    """In a process of its own: the most that Arrow ever took is that of all tests before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(write_values_of_100_mb, tmp_path).result(timeout=120)


def test_columns_that_turn_wide_begin_a_file_without_their_statistics(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64()), ("s", pa.string())])
    spec = make_spec(tmp_path, target={"row_group_bytes": 10**6})
    batches = [
        pa.record_batch([pa.array(range(9)), ["narrow"] * 9], schema),
        pa.record_batch([pa.array([1]), ["w" * 2_000_000]], schema),
        pa.record_batch([pa.array(range(9)), ["narrow"] * 9], schema),
    ]
    narrow, wide = write(spec, batches)
    assert (narrow.rows, wide.rows) == (9, 10)
    assert pq.read_metadata(narrow.staged.uri).row_group(0).column(1).is_stats_set
    group = pq.read_metadata(wide.staged.uri).row_group(0)
    assert group.column(0).is_stats_set
    assert not group.column(1).is_stats_set


def test_every_page_has_a_checksum_that_readers_can_verify(tmp_path: Path) -> None:
    # Text is stored as it is, so that a byte of it can be flipped without breaking anything else.
    texts = [f"value {n:06}" for n in range(5000)]
    spec = make_spec(tmp_path, target={"compression": "none"})
    [one] = write(spec, [pa.record_batch({"s": texts})])
    path = Path(one.staged.uri)
    data = path.read_bytes()
    at = data.index(b"value 002500")
    path.write_bytes(data[:at] + b"x" + data[at + 1 :])
    assert "xalue 002500" in pq.ParquetFile(path).read().column("s").to_pylist()
    with pytest.raises(OSError, match="CRC checksum"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


def test_floats_have_no_statistics_which_leave_nan_out(tmp_path: Path) -> None:
    nan = float("nan")
    batch = pa.record_batch({
        "n": [1, 2, 3], "d": [1.0, 2.0, nan], "f": pa.array([1.0, 2.0, nan], pa.float32()),
        "l": [[nan], [1.0], []], "k": [[1], [2], None],
    })  # fmt: skip
    [one] = write(make_spec(tmp_path), [batch])
    group = pq.read_metadata(one.staged.uri).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    shown = {column.path_in_schema for column in columns if column.is_stats_set}
    assert shown == {"n", "k.list.element", "_run_id", "_extracted_at"}
    where = f"select n from '{one.staged.uri}' where"
    assert duckdb.sql(f"{where} d > 100 or f > 100").fetchall() == [(3,)]
    assert duckdb.sql(f"{where} d < 100").fetchall() == [(1,), (2,)]
    [(greatest,)] = duckdb.sql(f"select max(d) from '{one.staged.uri}'").fetchall()
    assert str(greatest) == "nan"


def test_no_rows_leave_a_schema_only_where_asked_for(tmp_path: Path) -> None:
    empty = numbers(0)
    assert write(make_spec(tmp_path), [empty]) == []
    spec = make_spec(tmp_path, target={"partition_by": ["n", "run_id"]})
    [one] = write(spec, [empty], schema_file=True)
    assert Path(one.staged.uri).parent == tmp_path / "target"
    assert (one.rows, one.partition) == (0, {})
    assert pq.read_schema(one.staged.uri).names == ["_run_id", "_extracted_at"]
    assert len(write(make_spec(tmp_path), [numbers(1)], schema_file=True)) == 1


def test_an_empty_table_with_one_partition_has_its_schema_there(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, target={"partition_by": ["extract_date"]})
    [one] = write(spec, [numbers(0)], schema_file=True)
    assert one.partition == {"extract_date": "2026-03-04"}
    assert Path(one.staged.uri).parent.name == "extract_date=2026-03-04"


def test_types_in_the_file(tmp_path: Path) -> None:
    batch = pa.record_batch({
        "ts": pa.array([1], pa.timestamp("us")), "tz": pa.array([1], pa.timestamp("us", "UTC")),
        "d9": pa.array([1]).cast(pa.decimal128(19, 0)).cast(pa.decimal128(9, 2)),
        "d38": pa.array([1]).cast(pa.decimal128(38, 10)), "l": [[1, 2]], "a.b": ["x"],
    })  # fmt: skip
    [one] = write(make_spec(tmp_path), [batch])
    schema = pq.ParquetFile(one.staged.uri).schema
    kinds = {schema.column(i).path: schema.column(i) for i in range(len(schema))}
    assert kinds["ts"].physical_type == kinds["tz"].physical_type == "INT64"
    assert "isAdjustedToUTC=false, timeUnit=microseconds" in str(kinds["ts"].logical_type)
    assert "isAdjustedToUTC=true, timeUnit=microseconds" in str(kinds["tz"].logical_type)
    assert kinds["d9"].physical_type == "INT32"
    assert kinds["d38"].physical_type == "FIXED_LEN_BYTE_ARRAY"
    group = pq.read_metadata(one.staged.uri).row_group(0)
    assert all(group.column(i).is_stats_set for i in range(group.num_columns))
    assert pq.read_table(one.staged.uri).select(batch.schema.names).to_batches()[0] == batch


def test_dictionaries_only_where_values_repeat(tmp_path: Path) -> None:
    batch = pa.record_batch({
        "unique": pa.array(range(10_000)), "few": pa.array([i % 7 for i in range(10_000)]),
    })  # fmt: skip
    [one] = write(make_spec(tmp_path), [batch])
    group = pq.read_metadata(one.staged.uri).row_group(0)
    used = {group.column(i).path_in_schema for i in range(group.num_columns)
            if group.column(i).has_dictionary_page}  # fmt: skip
    assert used == {"few", "_run_id", "_extracted_at"}


def hostile_batch() -> pa.RecordBatch:
    return pa.record_batch({
        "n": pa.array(range(3 * len(HOSTILE))), "k": pa.array(HOSTILE * 3, pa.string()),
    })  # fmt: skip


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_hostile_partition_values_read_back(tmp_path: Path, scheme: str) -> None:
    spec = make_spec(tmp_path, target={"uri": f"{scheme}{tmp_path}/target", "partition_by": ["k"]})
    written = write(spec, [hostile_batch()])
    assert {one.partition["k"] for one in written} == set(HOSTILE)
    expected = Counter(zip(range(60), HOSTILE * 3, strict=True))

    hive = ds.partitioning(pa.schema([("k", pa.string())]), flavor="hive")
    table = ds.dataset(tmp_path / "target", partitioning=hive, exclude_invalid_files=True)
    rows = table.to_table(columns=["n", "k"]).to_pylist()
    assert Counter((r["n"], r["k"]) for r in rows) == expected

    found = duckdb.sql(
        f"select n, k from read_parquet('{tmp_path}/target/*/*.parquet', "
        "hive_partitioning=true, hive_types_autocast=false)"
    ).fetchall()
    assert Counter(found) == expected


def test_a_batch_of_one_partition_is_neither_copied_nor_split() -> None:
    batch = pa.record_batch({"n": [1, 2], "k": ["a", "a"]})
    keys = [batch.column("k").dictionary_encode()]
    numbered = PartitionIds()
    [(number, rows)] = rows_by_id(batch, numbered.of(keys))
    assert numbered.key(number) == ("a",)
    assert rows is batch


def test_more_partitions_than_open_files_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "OPEN_FILES", 4)
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 200_000)
    spec = make_spec(tmp_path, target={"partition_by": ["k"]})
    schema = pa.schema([("n", pa.int64()), ("k", pa.int64())])
    writer = writer_of(spec, schema)
    for start in range(0, 30_000, 1000):
        n = pa.array(range(start, start + 1000))
        writer.write(pa.record_batch([n, pa.array([i % 20 for i in n.to_pylist()])], schema))
        assert writer._files.held_bytes <= 200_000
        assert len(writer._files._open) <= 4
    written = writer.close()
    assert len(written) > 20
    for one in written:
        LocalStorage().complete(one.staged)
        values = pq.read_table(one.staged.uri, partitioning=None).column("n").to_pylist()
        assert {str(v % 20) for v in values} == {one.partition["k"]}
        assert len(values) == one.rows
    assert sum(one.rows for one in written) == 30_000


def test_small_chunks_are_merged_and_lose_nothing(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, target={"partition_by": ["k"]})
    batches = [pa.record_batch({"n": [i, -i], "k": ["a", "b"]}) for i in range(1, 101)]
    a, b = sorted(write(spec, batches), key=lambda one: one.partition["k"] or "")
    read = [pq.read_table(x.staged.uri, partitioning=None).column("n").to_pylist() for x in (a, b)]
    assert read == [list(range(1, 101)), [-i for i in range(1, 101)]]


DAYS = st.one_of(st.none(), st.dates(date(2025, 12, 30), date(2026, 1, 2)))
TEXTS = st.one_of(
    st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
)


@settings(max_examples=examples(15), deadline=None)
@given(
    rows=st.lists(st.tuples(DAYS, TEXTS), min_size=1, max_size=25), batch_rows=st.integers(1, 20)
)
def test_every_row_is_written_once_and_in_the_folder_of_its_key(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, Any]], batch_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("p")
    spec = make_spec(folder, target={"partition_by": ["month(d)", "t", "run_id"]})
    table = pa.table({
        "n": pa.array(range(len(rows))),
        "d": pa.array([d for d, _ in rows], pa.date32()),
        "t": pa.array([t for _, t in rows], pa.string()),
    })  # fmt: skip
    written = write(spec, table.to_batches(max_chunksize=batch_rows))
    seen: list[int] = []
    null = "__HIVE_DEFAULT_PARTITION__"
    for one in written:
        relative = Path(one.staged.uri).relative_to(folder / "target").parts[:-1]
        values = dict(part.split("=", 1) for part in relative)
        for n in pq.read_table(one.staged.uri, partitioning=None).column("n").to_pylist():
            day, text = rows[n]
            assert unquote(values["t"]) == (null if text is None else text)
            assert values["d_month"] == (null if day is None else f"{day:%Y-%m}")
            assert one.partition == {
                "d_month": day and f"{day:%Y-%m}", "t": text, "run_id": "run-1",
            }  # fmt: skip
            seen.append(n)
    assert sorted(seen) == list(range(len(rows)))


class FailingWriter:
    """A staging writer whose disk is full after some bytes."""

    def __init__(self, inner: Any, room: int) -> None:
        self.inner, self.room = inner, room

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise WriteFailed("disk full")
        return int(self.inner.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class FailingStorage(LocalStorage):
    def __init__(self, room: int) -> None:
        self.room = room

    def stage(self, uri: str, root: str, token: str) -> Any:
        return FailingWriter(super().stage(uri, root, token), self.room)


@pytest.mark.parametrize("room", [0, 10, 20_000])
def test_storage_errors_come_through_and_abort_leaves_nothing(tmp_path: Path, room: int) -> None:
    spec = make_spec(tmp_path, target={"row_group_bytes": 10**5, "partition_by": ["k"]})
    batch = pa.record_batch({"n": range(60_000), "k": ["a", "b", "b"] * 20_000})
    writer = writer_of(spec, batch.schema, FailingStorage(room))
    with pytest.raises(WriteFailed, match="disk full"):
        writer.write(batch)
    writer.abort()
    writer.abort()
    del writer
    gc.collect()  # destructors of unfinished writers must stay silent and write nothing
    assert files_below(tmp_path) == []


def test_abort_drops_finished_files_too(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, target={"file_bytes": 10**5, "compression": "none"})
    writer = writer_of(spec, numbers(1).schema)
    writer.write(numbers(200_000))
    assert writer._files.finished
    writer.abort()
    assert files_below(tmp_path) == []


def test_a_refused_value_leaves_the_writer_abortable(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, columns={"cast": {"n": "int8"}})
    writer = writer_of(spec, numbers(1).schema)
    writer.write(numbers(5))
    with pytest.raises(TypeNotRepresentable):
        writer.write(numbers(5, 1000))
    writer.abort()
    assert files_below(tmp_path) == []


def test_a_footer_that_counts_other_rows_is_refused(tmp_path: Path) -> None:
    writer = writer_of(make_spec(tmp_path, target={"row_group_bytes": 10**5}), numbers(1).schema)
    writer.write(numbers(50_000))
    [file] = writer._files._open.values()
    file.rows += 1
    with pytest.raises(ReconcileFailed, match="nothing was committed"):
        writer.close()
    writer.abort()
    assert files_below(tmp_path) == []


def test_rows_lost_between_files_are_noticed(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, target={"file_bytes": 10**5, "compression": "none"})
    writer = writer_of(spec, numbers(1).schema)
    writer.write(numbers(200_000))
    lost = writer._files.finished.pop()
    with pytest.raises(ReconcileFailed, match="200000 rows were handed in"):
        writer.close()
    writer._files.finished.append(lost)
    writer.abort()
    assert files_below(tmp_path) == []
