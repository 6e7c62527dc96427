"""Parquet as a source: what other writers leave in their files, and what is made of it."""

# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

import json
import re
import struct
import time
import uuid
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from extract_jobs.errors import SourceQueryFailed, TypeNotRepresentable
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.files.parquet_types import unified
from extract_jobs.sources.files.source import FilesSource
from extract_jobs.transform.sizes import value_sizes
from tests.support.files import batches_of, files_spec, read_all


def flipped(path: Path, text: bytes) -> None:
    """Change the first byte of a text that a file holds as it is."""
    data = path.read_bytes()
    at = data.index(text)
    path.write_bytes(data[:at] + b"x" + data[at + 1 :])


def test_a_damaged_page_is_refused_where_it_has_a_checksum(tmp_path: Path) -> None:
    table = pa.table({"s": [f"value {n:06}" for n in range(5000)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    assert read_all(files_spec(tmp_path, "*.parquet")).equals(table)
    flipped(path, b"value 002500")
    with pytest.raises(SourceQueryFailed, match=r"a\.parquet.*its checksum does not match"):
        read_all(files_spec(tmp_path, "*.parquet"))


SPARK = {"org.apache.spark.version": "3.5.6"}
LEGACY = {**SPARK, "org.apache.spark.legacyDateTime": "", "org.apache.spark.legacyINT96": ""}
OLD = {
    "Spark 3, LEGACY": {**LEGACY, "org.apache.spark.timeZone": "UTC"},
    "Spark 2": {"org.apache.spark.sql.parquet.row.metadata": "{}"},
    "Hive 2": {"writer.model.name": "2.3.9"},
    "Hive 3": {"writer.model.name": "3.1.3", "writer.date.proleptic": "false"},
}
NEW = {
    "Spark 3": SPARK,
    "Hive 4": {"writer.model.name": "4.0.0", "writer.date.proleptic": "true"},
    "Avro": {"writer.model.name": "avro"},
    "nobody": {},
}


def put(path: Path, table: pa.Table, metadata: dict[str, str], **given: Any) -> None:
    groups = given.pop("row_group_size", None)
    with pq.ParquetWriter(path, table.schema, store_schema=False, **given) as writer:
        writer.write_table(table, groups)
        writer.add_key_value_metadata(metadata)


def first(folder: Path) -> list[Any]:
    return list(read_all(files_spec(folder, "*.parquet")).column(0).to_pylist())


# The hybrid calendar's labels, and which proleptic days their numbers are: from java.util.Calendar.
HYBRID = {
    date(1500, 1, 1): date(1500, 1, 10),
    date(1500, 2, 28): date(1500, 3, 9),
    date(1500, 3, 1): date(1500, 3, 11),
    date(1582, 10, 4): date(1582, 10, 14),
    date(1582, 10, 15): date(1582, 10, 15),
    date(1000, 1, 1): date(1000, 1, 6),
    date(200, 3, 1): date(200, 3, 1),
    date(1, 1, 3): date(1, 1, 1),
    date(2026, 1, 1): date(2026, 1, 1),
}


@pytest.mark.parametrize("writer", OLD)
def test_dates_of_the_old_calendar_keep_their_labels(tmp_path: Path, writer: str) -> None:
    stored = [*HYBRID.values(), None]
    table = pa.table({"d": pa.array(stored), "n": pa.array([1] * len(stored))})
    put(tmp_path / "a.parquet", table, OLD[writer], row_group_size=4)
    assert first(tmp_path) == [*HYBRID, None]


@pytest.mark.parametrize("writer", NEW)
def test_dates_of_the_new_calendar_are_left_alone(tmp_path: Path, writer: str) -> None:
    put(tmp_path / "a.parquet", pa.table({"d": list(HYBRID)}), NEW[writer])
    assert first(tmp_path) == list(HYBRID)


def test_lists_of_old_dates_too(tmp_path: Path) -> None:
    lists = [[date(1500, 1, 10), None], None, [], [date(2026, 1, 1)]]
    put(tmp_path / "a.parquet", pa.table({"d": lists}), LEGACY)
    assert first(tmp_path) == [[date(1500, 1, 1), None], None, [], [date(2026, 1, 1)]]


def test_a_day_that_the_new_calendar_lacks_is_refused(tmp_path: Path) -> None:
    # 29 February 1500, which was one in the Julian calendar.
    put(tmp_path / "a.parquet", pa.table({"d": [date(1500, 3, 10)]}), LEGACY)
    with pytest.raises(TypeNotRepresentable, match="29 February"):
        first(tmp_path)


@pytest.mark.parametrize("int96", [False, True])
@pytest.mark.parametrize("unit", ["ms", "us"])
def test_old_timestamps_in_utc_keep_their_labels_and_others_are_refused(
    tmp_path: Path, unit: str, int96: bool
) -> None:
    old, late = datetime(1500, 1, 10, 1, 2, 3), datetime(1899, 12, 31, 23)
    stored = [old, late, datetime(2026, 1, 1), None]
    table = pa.table({"t": pa.array(stored, pa.timestamp(unit))})
    given = {"use_deprecated_int96_timestamps": int96}
    utc = {**LEGACY, "org.apache.spark.timeZone": "UTC"}
    put(tmp_path / "a.parquet", table, utc, **given)
    assert first(tmp_path) == [datetime(1500, 1, 1, 1, 2, 3), *stored[1:]]
    put(tmp_path / "a.parquet", table, SPARK, **given)
    assert first(tmp_path) == stored
    for zone in ({}, {"org.apache.spark.timeZone": "Europe/Berlin"}):
        put(tmp_path / "a.parquet", table, {**LEGACY, **zone}, **given)
        with pytest.raises(TypeNotRepresentable, match=r"'t'.*before 1900"):
            first(tmp_path)
        put(tmp_path / "a.parquet", table.slice(2), {**LEGACY, **zone}, **given)
        assert first(tmp_path) == stored[2:]


def test_only_what_the_footer_calls_old_is_old(tmp_path: Path) -> None:
    """Spark marks INT96 by itself, and Spark 3.0 wrote it the old way always."""
    stored = [datetime(1500, 1, 10)]
    table = pa.table({"t": pa.array(stored, pa.timestamp("us"))})
    utc = {"org.apache.spark.timeZone": "UTC"}
    for metadata, int96, old in (
        ({**SPARK, "org.apache.spark.legacyINT96": ""}, True, True),
        ({**SPARK, "org.apache.spark.legacyINT96": ""}, False, False),
        ({"org.apache.spark.version": "3.0.3"}, True, True),
        ({"org.apache.spark.version": "3.0.3"}, False, False),
    ):
        put(tmp_path / "a.parquet", table, metadata | utc, use_deprecated_int96_timestamps=int96)
        assert first(tmp_path) == ([datetime(1500, 1, 1)] if old else stored)


def test_dates_beside_int96_are_of_the_calendar_of_dates(tmp_path: Path) -> None:
    """Spark 3.0 wrote INT96 the old way and dates the new way, in one struct too."""
    inside = [{"d": date(1500, 1, 10), "t": datetime(1500, 1, 10)}]
    kind = pa.struct([("d", pa.date32()), ("t", pa.timestamp("us"))])
    metadata = {"org.apache.spark.version": "3.0.3", "org.apache.spark.timeZone": "UTC"}
    table = pa.table({"s": pa.array(inside, kind)})
    put(tmp_path / "a.parquet", table, metadata, use_deprecated_int96_timestamps=True)
    assert first(tmp_path) == [{"d": date(1500, 1, 10), "t": datetime(1500, 1, 1)}]


def test_int96_is_read_in_microseconds_far_from_today_too(tmp_path: Path) -> None:
    stored = [
        datetime(9999, 12, 31, 23, 59, 59, 999999), datetime(1, 1, 1), None,
        datetime(2262, 4, 12), datetime(1677, 9, 20), datetime(2026, 1, 1, 0, 0, 0, 1),
    ]  # fmt: skip
    table = pa.table({"t": pa.array(stored, pa.timestamp("us")), "l": [[1]] * len(stored)})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, row_group_size=4)
    assert first(tmp_path) == stored


def test_int96_with_nanoseconds_is_refused(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([10**9, None, 10**9 + 1], pa.timestamp("ns"))})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    with pytest.raises(TypeNotRepresentable, match=r"'t'.*digits below microseconds"):
        first(tmp_path)


UUID = "0ef1f2f3-0000-4000-8000-0000000000ff"
ODD_TYPES: list[tuple[pa.Array, pa.DataType, list[Any]]] = [
    (pa.array(["a", None], pa.string_view()), pa.string(), ["a", None]),
    (pa.array([b"a", None], pa.binary_view()), pa.binary(), [b"a", None]),
    (pa.array(["a", None], pa.large_string()), pa.string(), ["a", None]),
    (
        pa.array([["a"], None], pa.large_list(pa.large_string())),
        pa.list_(pa.string()),
        [["a"], None],
    ),
    (pa.array(['{"a": 1}', None], pa.json_(pa.string())), pa.string(), ['{"a": 1}', None]),
    (pa.array([uuid.UUID(UUID).bytes, None], pa.uuid()), pa.string(), [UUID, None]),
    (pa.array(["a", None, "a"]).dictionary_encode(), pa.string(), ["a", None, "a"]),
    (
        pa.array([[1, 2], [3, None]], pa.list_(pa.int32(), 2)),
        pa.list_(pa.int32()),
        [[1, 2], [3, None]],
    ),
    (pa.array([-1, None, 86_400_000_001], pa.duration("us")), pa.int64(), [-1, None, 86400000001]),
    (
        pa.array([[5], None], pa.list_(pa.duration("s"))),
        pa.list_(pa.int64()),
        [[5], None],
    ),
]


@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize("case", ODD_TYPES, ids=lambda case: str(case[0].type))
def test_types_of_other_writers_arrive_in_a_plain_form(
    tmp_path: Path, case: tuple[pa.Array, pa.DataType, list[Any]], store_schema: bool
) -> None:
    array, expected, values = case
    pq.write_table(pa.table({"c": array}), tmp_path / "a.parquet", store_schema=store_schema)
    found = read_all(files_spec(tmp_path, "*.parquet")).column("c")
    assert (found.type, found.to_pylist()) == (expected, values)


@pytest.mark.parametrize("wrap", [lambda kind: kind, pa.list_])
def test_durations_in_different_units_are_refused(
    tmp_path: Path, wrap: Callable[[pa.DataType], pa.DataType]
) -> None:
    for unit in ("ms", "us"):
        table = pa.table({"d": pa.nulls(1, wrap(pa.duration(unit)))})
        pq.write_table(table, tmp_path / f"{unit}.parquet")
        [column] = FilesSource.open(files_spec(tmp_path, f"{unit}.parquet")).describe().columns
        assert f"durations as their number of {unit}" in column.rule
    with pytest.raises(TypeNotRepresentable, match=r"duration\[ms\].* and .*duration\[us\]"):
        read_all(files_spec(tmp_path, "*.parquet"))


def test_a_fixed_size_list_that_is_null_is_read_unless_arrow_itself_cannot(tmp_path: Path) -> None:
    values = [[1, 2], None]
    table = pa.table({"c": pa.array(values, pa.list_(pa.int32(), 2))})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)
    spec = files_spec(tmp_path, "*.parquet")
    assert read_all(spec).column("c").to_pylist() == values
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SourceQueryFailed, match="list of fixed size is NULL"):
        read_all(spec)


def test_lists_of_wrapped_values_are_unwrapped(tmp_path: Path) -> None:
    storage = pa.array([[uuid.UUID(UUID).bytes, None]], pa.list_(pa.binary(16)))
    pq.write_table(pa.table({"c": storage.cast(pa.list_(pa.uuid()))}), tmp_path / "a.parquet")
    assert read_all(files_spec(tmp_path, "*.parquet")).to_pylist() == [{"c": [UUID, None]}]


# The bytes of a footer that pyarrow writes for a list, and what older writers have in their place.
LIST = b"\x15\x06L<\x00\x00\x00"
GROUP = b"5\x04\x18\x04list\x15\x02\x00"
ELEMENT = b"%\x00\x18\x07element"
COLUMNS, PATH = b"\x15\x04\x19L5", b"\x198\x01l\x04list\x07element"
TWO_LEVELS = [(GROUP, b""), (COLUMNS, b"\x15\x04\x19<5")]
OLD_LISTS = {
    "two levels": [
        *TWO_LEVELS,
        (ELEMENT, b"%\x04\x18\x07element"),
        (PATH, b"\x19(\x01l\x07element"),
    ],
    "two levels, Avro": [
        *TWO_LEVELS,
        (ELEMENT, b"%\x04\x18\x05array"),
        (PATH, b"\x19(\x01l\x05array"),
    ],
    "three levels, Hive": [(b"\x04list", b"\x03bag"), (b"\x07element", b"\x0darray_element")],
    "no logical type": [(LIST, b"\x15\x06\x00")],
    "map without values": [(LIST[:4], b"\x15\x02L,")],
    "map without values, old": [(LIST, b"\x15\x02\x00")],
}
STRUCTS = {
    "Avro's element": [(b"\x04list", b"\x05array")],
    "Thrift's element": [(b"\x04list", b"\x07l_tuple")],
    "no list at all": [(LIST, b"\x00")],
}


def old_list(path: Path, changes: list[tuple[bytes, bytes]]) -> list[Any]:
    """Write a list whose schema is as another writer has it, and return its values.

    ``required`` elements take the same levels whether a group lies around them or not, so that the
    schema and the column's path are all that differs.
    """
    values = [[1, 2], None, [], [3]]
    lists = pa.array(values, pa.list_(pa.field("element", pa.int32(), nullable=False)))
    pq.write_table(pa.table({"l": lists}), path, store_schema=False, write_statistics=False)
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -8 - length], data[-8 - length : -8]
    for theirs, others in changes:
        assert theirs in footer
        footer = footer.replace(theirs, others)
    path.write_bytes(body + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return values


@pytest.mark.parametrize("writer", OLD_LISTS)
def test_lists_of_older_writers_are_read_as_lists(tmp_path: Path, writer: str) -> None:
    """A map without values is the list of its keys.

    https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#nested-types
    """
    values = old_list(tmp_path / "a.parquet", OLD_LISTS[writer])
    found = read_all(files_spec(tmp_path, "*.parquet")).column("l")
    assert (found.type, found.to_pylist()) == (pa.list_(pa.int32()), values)


@pytest.mark.parametrize("writer", STRUCTS)
def test_lists_whose_elements_are_structs_are_read_as_such(tmp_path: Path, writer: str) -> None:
    values = old_list(tmp_path / "a.parquet", STRUCTS[writer])
    found = read_all(files_spec(tmp_path, "*.parquet")).column("l").to_pylist()
    lists = [one["list"] if isinstance(one, dict) else one for one in found]
    assert lists == [value and [{"element": n} for n in value] for value in values]


def bomb(path: Path, rows: int, width: int, **given: Any) -> None:
    """Write one wide value for many rows: its bytes are in the file once."""
    wide = pa.DictionaryArray.from_arrays(
        pa.array([n % 3 - 1 if n % 3 else 0 for n in range(rows)], pa.int32()),
        pa.array(["x" * width, "narrow"]),
    )
    table = pa.table({"n": pa.array(range(rows)), "s": wide})
    pq.write_table(table, path, store_schema=False, compression="zstd", **given)


def test_a_wide_value_of_many_rows_is_read_in_small_batches(tmp_path: Path) -> None:
    rows, width = 60_000, 17_000
    bomb(tmp_path / "a.parquet", rows, width)
    assert (tmp_path / "a.parquet").stat().st_size < 300_000
    source = batches_of(files_spec(tmp_path, "*.parquet"))
    read, most = 0, 0
    before = pa.total_allocated_bytes()
    for batch in source:
        texts = batch.column("s")
        assert pa.types.is_string(texts.type)
        numbers = batch.column("n").to_pylist()
        assert numbers == list(range(read, read + len(numbers)))
        lengths = pc.binary_length(texts).to_pylist()
        assert lengths == [len("narrow") if n % 3 == 2 else width for n in numbers]
        read += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
        assert batch.nbytes <= 17 * 2**20
    assert read == rows
    assert most < 64 * 2**20


def bombs() -> dict[str, pa.Table]:
    """Return tables that take little in a file, and about half a gigabyte as rows."""
    rows, wide = 30_000, "x" * 17_000
    # A NULL first, or an empty list: looking at the first row shows no value of the dictionary.
    texts = pa.DictionaryArray.from_arrays(pa.array([None, *[0] * (rows - 1)], pa.int32()), [wide])
    some = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows - 1, "int32")), [wide])
    ends = pa.array([0, *range(rows)], pa.int32())
    keys = pa.array(["k"] * (rows - 1))
    fixed = pa.array([wide.encode()], pa.binary(len(wide)))
    zeros = pa.array(np.zeros(100_000, "int64"))
    return {
        "texts": pa.table({"s": texts}),
        "structs": pa.table({"s": pa.StructArray.from_arrays([texts], ["a.b"])}),
        "lists": pa.table({"s": pa.ListArray.from_arrays(ends, some)}),
        "maps": pa.table({"s": pa.MapArray.from_arrays(ends, keys, some)}),
        "fixed": pa.table({"s": pa.DictionaryArray.from_arrays(some.indices, fixed)}),
        "columns": pa.table([zeros] * 600, names=[f"c{n}" for n in range(600)]),
    }


@pytest.mark.parametrize("name", bombs())
def test_few_bytes_that_stand_for_many_are_read_in_small_batches(tmp_path: Path, name: str) -> None:
    table = bombs()[name]
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, store_schema=False, compression="zstd")
    assert path.stat().st_size < 500_000
    before, most, rows, filled = pa.total_allocated_bytes(), 0, 0, 0
    for batch in batches_of(files_spec(tmp_path, "*.parquet")):
        rows, filled = rows + batch.num_rows, filled + int(value_sizes(batch.column(0)).sum())
        most = max(most, pa.total_allocated_bytes() - before)
    assert rows == table.num_rows
    assert filled == value_sizes(table.column(0).combine_chunks()).sum()
    assert most < 160 * 2**20


def test_int96_is_read_in_small_batches_and_keeps_its_nanoseconds(tmp_path: Path) -> None:
    rows = 250_000
    times = pa.array(np.arange(rows, dtype="int64") * 1001, pa.timestamp("ns"))
    pq.write_table(
        pa.table({"t": times}), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True
    )
    spec = files_spec(tmp_path, "*.parquet", columns={"cast": {"t": "int64"}})
    found = [v for batch in batches_of(spec) for v in batch.column("t").to_pylist()]
    assert found == [n * 1001 for n in range(rows)]


def test_few_wide_rows_are_not_read_by_the_hundred(tmp_path: Path) -> None:
    table = pa.table({"s": [bytes([65 + n]) * 2**20 for n in range(64)]})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="zstd")
    batches = list(batches_of(files_spec(tmp_path, "*.parquet")))
    assert max(batch.nbytes for batch in batches) <= 17 * 2**20
    assert (
        pa.Table.from_batches(batches)
        .column("s")
        .combine_chunks()
        .equals(table.column("s").combine_chunks())
    )


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("interval '1 day'", "INTERVAL"),
        ("42::variant", "VARIANT"),
    ],
)
def test_what_has_no_faithful_form_is_refused_by_its_name(
    tmp_path: Path, sql: str, message: str
) -> None:
    duckdb.sql(f"copy (select 1 as id, {sql} as c) to '{tmp_path}/a.parquet'")
    with pytest.raises(TypeNotRepresentable, match=f"column 'c' is of type {re.escape(message)}"):
        read_all(files_spec(tmp_path, "*.parquet"))


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_a_geometry_arrives_as_wkb_and_the_report_says_so(tmp_path: Path, version: str) -> None:
    duckdb.sql(
        "copy (select 'POINT(1 2)'::geometry as g) to "
        f"'{tmp_path}/a.parquet' (format parquet, geoparquet_version '{version}')"
    )
    spec = files_spec(tmp_path, "*.parquet")
    [column] = FilesSource.open(spec).describe().columns
    assert column.source_type == "parquet GEOMETRY"
    assert "as WKB; the files say neither" in column.rule
    [value] = read_all(spec).column("g").to_pylist()
    assert value == struct.pack("<BIdd", 1, 1, 1.0, 2.0)


def test_geometries_of_several_reference_systems_are_not_mixed() -> None:
    one, other = (pa.opaque(pa.binary(), "GEOMETRY", crs) for crs in ("EPSG:1", "EPSG:2"))
    assert unified(one, other) is None
    assert unified(one, pa.binary()) == unified(pa.binary(), one) == one


def geoparquet(path: Path, crs: dict[str, Any]) -> None:
    """Write a geometry that GeoParquet's metadata alone marks; ``crs`` goes into its column's."""
    about = {"version": "1.1.0", "columns": {"g": {"encoding": "WKB", "geometry_types": []} | crs}}
    table = pa.table({"g": [struct.pack("<BIdd", 1, 1, 1.0, 2.0)]})
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(about)}), path)


DEFAULT_CRS = {"crs": {"id": {"authority": "OGC", "code": "CRS84"}}}
LOCAL_CRS = {"crs": {"type": "ProjectedCRS", "name": "site grid", "conversion": {"name": "grid"}}}


@pytest.mark.parametrize(
    ("crs", "name"),
    [
        ({"crs": {"id": {"authority": "EPSG", "code": 25832}}}, "EPSG:25832"),
        ({"crs": None}, "unknown"),
        (LOCAL_CRS, "sha256:"),
    ],
)
def test_geoparquet_of_several_reference_systems_is_refused(
    tmp_path: Path, crs: dict[str, Any], name: str
) -> None:
    geoparquet(tmp_path / "a.parquet", {})
    geoparquet(tmp_path / "b.parquet", crs)
    with pytest.raises(TypeNotRepresentable, match=rf"GEOMETRY \(CRS {name}"):
        read_all(files_spec(tmp_path, "*.parquet"))


def test_geoparquet_that_names_the_default_system_is_as_one_that_names_none(tmp_path: Path) -> None:
    geoparquet(tmp_path / "a.parquet", {})
    geoparquet(tmp_path / "b.parquet", DEFAULT_CRS)
    assert read_all(files_spec(tmp_path, "*.parquet")).num_rows == 2


def test_a_type_is_found_also_where_a_name_has_dots(tmp_path: Path) -> None:
    duckdb.sql(f"copy (select 1 as a, interval 1 day as \"a.b\") to '{tmp_path}/a.parquet'")
    with pytest.raises(TypeNotRepresentable, match=r"column 'a\.b' is of type INTERVAL"):
        read_all(files_spec(tmp_path, "*.parquet"))


def test_ten_thousand_columns_are_looked_at_within_seconds(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(10_000)]
    pq.write_table(pa.table({name: [1] for name in names}), tmp_path / "a.parquet")
    begun = time.process_time()
    found = read_all(files_spec(tmp_path, "*.parquet"))
    assert found.schema.names == names
    assert time.process_time() - begun < 15


FINE = [1_700_000_000_123_456_789, -1, 1_000, None, -(10**18) - 1]
FINE_TEXTS = [
    "2023-11-14 22:13:20.123456789", "1969-12-31 23:59:59.999999999", "1970-01-01 00:00:00.000001",
    None, "1938-04-24 22:13:19.999999999",
]  # fmt: skip


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("int96", [False, True])
def test_digits_below_microseconds_become_what_is_asked_for(
    tmp_path: Path, zone: str | None, int96: bool
) -> None:
    if int96 and zone:
        return  # the type has none
    table = pa.table({"t": pa.array(FINE, pa.timestamp("ns", zone))})
    pq.write_table(
        table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=int96, row_group_size=2
    )

    def run(**given: Any) -> tuple[list[Any], Report]:
        name = re.sub(r"\W", "", str(given)) or "plain"
        report = run_extract(files_spec(tmp_path, "*.parquet", run_id=name, **given))
        files = list((tmp_path / "_out" / "t").glob("*.parquet"))
        return pa.concat_tables(map(pq.read_table, files)).column("t").to_pylist(), report

    texts = [text and text + ("Z" if zone else "") for text in FINE_TEXTS]
    assert run(columns={"cast": {"t": "string"}})[0] == texts
    assert run(columns={"cast": {"t": "int64"}})[0] == FINE
    found, report = run(nanoseconds="truncate")
    cut = [t if t is None else (t // 1000) for t in FINE]
    assert pa.array(found, pa.timestamp("us", zone)).cast(pa.int64()).to_pylist() == cut
    assert report.cut_to_microseconds == {"t": 3}
    with pytest.raises(TypeNotRepresentable, match="'t'"):
        run()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Rome", "+02:00"])
def test_the_text_of_a_timestamp_with_any_zone_is_in_utc(tmp_path: Path, zone: str) -> None:
    values = pa.array([-1, 1_000], pa.timestamp("ns", zone))
    pq.write_table(pa.table({"t": values}), tmp_path / "a.parquet")
    spec = files_spec(tmp_path, "*.parquet", columns={"cast": {"t": "string"}})
    texts = ["1969-12-31 23:59:59.999999999Z", "1970-01-01 00:00:00.000001Z"]
    assert read_all(spec).column("t").to_pylist() == texts


def test_a_timestamp_beyond_64_bits_of_nanoseconds_is_text_but_no_number(tmp_path: Path) -> None:
    far = pa.array([253_402_300_799_999_999], pa.timestamp("us"))
    pq.write_table(
        pa.table({"t": far}), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True
    )
    spec = files_spec(tmp_path, "*.parquet", columns={"cast": {"t": "string"}})
    assert read_all(spec).to_pylist() == [{"t": "9999-12-31 23:59:59.999999"}]
    with pytest.raises(TypeNotRepresentable, match="no faithful form as int64"):
        read_all(files_spec(tmp_path, "*.parquet", columns={"cast": {"t": "int64"}}))


def test_an_encrypted_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with duckdb.connect() as opened:
        opened.execute("set force_mbedtls_unsafe = 'true'")
        opened.execute("pragma add_parquet_key('k', '0123456789112345')")
        opened.execute(
            f"copy (select 1 as a) to '{tmp_path}/a.parquet' "
            "(encryption_config {footer_key: 'k'})"
        )
    assert (tmp_path / "a.parquet").read_bytes().endswith(b"PARE")
    with pytest.raises(SourceQueryFailed, match=r"a\.parquet cannot be read"):
        read_all(files_spec(tmp_path, "*.parquet"))


def with_encrypted_column(path: Path, table: pa.Table) -> None:
    """Write a file whose footer says that the last column is encrypted, with the footer's key.

    Its bytes are not, so Arrow opens it. With a key of the column's own Arrow would end the process
    as soon as it is asked about the chunk.
    """
    pq.write_table(table, path, store_schema=False, write_statistics=False)
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -length - 8], data[-length - 8 : -8]
    # The last chunk's metadata and the chunk end; total_byte_size of the row group follows.
    chunk_end = b"\0\0\x16"
    before, _, after = footer.rpartition(chunk_end)
    # Field 8 of the chunk, a union whose first member is an empty struct; then the signature.
    footer = before + b"\0" + b"\x5c\x1c\0\0" + chunk_end[1:] + after + bytes(28)
    path.write_bytes(body + footer + struct.pack("<I", len(footer)) + b"PAR1")


def without_secret(folder: Path) -> pa.Table:
    """Return the rows of a folder's files as a run reads them that excludes a column."""
    spec = files_spec(folder, "*.parquet", columns={"exclude": ["secret"]})
    source = FilesSource.open(spec)
    chosen = tuple(c for c in source.describe().columns if c.name != "secret")
    with source.snapshot(ReadRequest(chosen)) as snapshot:
        reader = snapshot.reader
        batches = [batch for split in snapshot.splits(spec) for batch in reader.read(split)]
        return pa.Table.from_batches(batches, reader.schema)


@pytest.mark.parametrize("secret", [["x", "y"], [{"deep": [1]}, None]], ids=["plain", "nested"])
def test_an_encrypted_column_is_refused_by_its_name_and_others_are_read(
    tmp_path: Path, secret: list[Any]
) -> None:
    with_encrypted_column(tmp_path / "a.parquet", pa.table({"id": [1, 2], "secret": secret}))
    with pytest.raises(TypeNotRepresentable, match=r"a\.parquet: column 'secret' is encrypted"):
        read_all(files_spec(tmp_path, "*.parquet"))
    assert without_secret(tmp_path).to_pydict() == {"id": [1, 2]}
