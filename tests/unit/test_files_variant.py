"""VARIANT of Parquet files: JSON where that is asked for, and never the parts it is stored in."""

from __future__ import annotations

import json
import math
import struct
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract_jobs.errors import SourceQueryFailed, TypeNotRepresentable
from extract_jobs.run import run_extract
from extract_jobs.sources.files.parquet_variant import DamagedVariantError, variant_texts
from extract_jobs.sources.files.source import FilesSource
from tests.support.files import files_spec, read_all
from tests.support.readers import by_pyarrow

NO_NAMES = b"\x11\x00\x00"
PLAIN = pa.struct([("metadata", pa.binary()), ("value", pa.binary())])


def texts(*values: bytes | None, metadata: bytes = NO_NAMES) -> list[str | None]:
    rows = [None if v is None else {"metadata": metadata, "value": v} for v in values]
    return list(variant_texts(pa.array(rows, PLAIN)).to_pylist())


def as_json(folder: Path, **cast: str) -> list[Any]:
    spec = files_spec(folder, "*.parquet", columns={"cast": cast or {"v": "json"}})
    return list(read_all(spec).column("v").to_pylist())


@pytest.mark.parametrize(
    ("code", "data", "text"),
    [
        (0, b"", "null"),
        (1, b"", "true"),
        (2, b"", "false"),
        (3, b"\x80", "-128"),
        (4, struct.pack("<h", -300), "-300"),
        (5, struct.pack("<i", 2**31 - 1), "2147483647"),
        (6, struct.pack("<q", -(2**63)), "-9223372036854775808"),
        (7, struct.pack("<d", 0.1), "0.1"),
        (7, struct.pack("<d", math.inf), '"Infinity"'),
        (7, struct.pack("<d", math.nan), '"NaN"'),
        (8, b"\x02" + struct.pack("<i", -5), "-0.05"),
        (9, b"\x00" + struct.pack("<q", 10**17), "100000000000000000"),
        (10, b"\x26" + (10**38 - 1).to_bytes(16, "little"), "0." + "9" * 38),
        (11, struct.pack("<i", -719162), '"0001-01-01"'),
        (12, struct.pack("<q", -1), '"1969-12-31T23:59:59.999999Z"'),
        (13, struct.pack("<q", 1), '"1970-01-01T00:00:00.000001"'),
        (14, struct.pack("<f", 0.1), "0.1"),
        (15, struct.pack("<I", 2) + b"\x00\xff", '"AP8="'),
        (16, struct.pack("<I", 3) + "é!".encode(), '"é!"'),
        (17, struct.pack("<q", 86_399_999_999), '"23:59:59.999999"'),
        (18, struct.pack("<q", -1), '"1969-12-31T23:59:59.999999999Z"'),
        (19, struct.pack("<q", 1_000_000_007), '"1970-01-01T00:00:01.000000007"'),
        (20, UUID(int=1).bytes, '"00000000-0000-0000-0000-000000000001"'),
    ],
)
def test_every_type_of_the_encoding(code: int, data: bytes, text: str) -> None:
    assert texts(bytes([code << 2]) + data) == [text]
    json.loads(text)


VALUES = """
    values (1, 42::variant), (2, {'b': [1, 2, null], 'a': 1, 'd': date '2024-01-31'}::variant),
      (3, 'x'::variant), (4, {'x': 1.50::decimal(9,2), 'é"': ''}::variant), (5, [true]::variant),
      (6, []::variant), (7, 1e300::variant), (8, repeat('w', 5000)::variant), (9, -7::variant),
      (10, list_transform(range(300), i -> {'n': i, 's': 's' || i})::variant)
"""


@pytest.mark.parametrize("option", ["", ", shredding {v: 'STRUCT(a INTEGER, x DECIMAL(9,2))'}"])
def test_json_is_what_duckdb_makes_of_its_own_files(tmp_path: Path, option: str) -> None:
    duckdb.sql(
        f"copy (from ({VALUES}) t(i, v) order by i) to '{tmp_path}/a.parquet' "
        f"(format parquet{option})"
    )
    expected = duckdb.sql(f"select v::json from '{tmp_path}/a.parquet' order by i").fetchall()
    found = as_json(tmp_path)
    assert [json.loads(text) for text in found] == [json.loads(text) for (text,) in expected]
    assert found[3] == '{"x":1.50,"é\\"":""}'


def test_shredded_values_have_the_text_of_those_that_are_not(tmp_path: Path) -> None:
    moment = datetime(2024, 1, 31, 12, 0, 0, 5)  # noqa: DTZ001 - without a zone
    shredded: dict[str, tuple[pa.DataType, Any, str]] = {
        "b": (pa.binary(), b"\x00\xff", '"AP8="'),
        "d": (pa.date32(), date(2024, 1, 31), '"2024-01-31"'),
        "f": (pa.float32(), 0.1, "0.1"),
        "g": (pa.float64(), 0.1, "0.1"),
        "i": (pa.int8(), -1, "-1"),
        "k": (pa.bool_(), True, "true"),
        "n": (pa.decimal128(38, 38), Decimal("1E-10"), f"0.{'0' * 9}1{'0' * 28}"),
        "s": (pa.string(), 'é"', '"é\\""'),
        "t": (pa.timestamp("us"), moment, '"2024-01-31T12:00:00.000005"'),
        "u": (pa.timestamp("ns", "UTC"), moment, '"2024-01-31T12:00:00.000005000Z"'),
        "v": (pa.time64("us"), time(1, 2, 3), '"01:02:03.000000"'),
        "w": (pa.binary(16), UUID(int=1).bytes, '"00000000-0000-0000-0000-000000000001"'),
    }
    fields = [
        (n, pa.struct([("value", pa.binary()), ("typed_value", t)]))
        for n, (t, _, _) in shredded.items()
    ]
    items = pa.list_(pa.struct([("value", pa.binary()), ("typed_value", pa.int64())]))
    fields.append(("l", pa.struct([("value", pa.binary()), ("typed_value", items)])))
    kind = pa.struct([*PLAIN, ("typed_value", pa.struct(fields))])
    full: dict[str, Any] = {n: {"typed_value": value} for n, (_, value, _) in shredded.items()}
    full["l"] = {"typed_value": [{"typed_value": 1}, {"value": b"\x05x"}, {"value": b"\x00"}]}
    rest = b"\x02\x01\x00\x00\x02\x0c\x07"  # {"zz": 7}, beside what is shredded
    metadata = b"\x11\x01\x00\x02zz"
    rows = [
        {"metadata": metadata, "value": rest, "typed_value": full},
        {"metadata": metadata, "value": None, "typed_value": {"s": {"value": b"\x00"}}},
        {"metadata": metadata, "value": b"\x05y", "typed_value": None},
        None,
    ]
    table = pa.table({"v": pa.array(rows, kind)}, metadata=SPARK_METADATA)
    pq.write_table(table, tmp_path / "a.parquet")
    wanted = {n: text for n, (_, _, text) in shredded.items()} | {"l": '[1,"x",null]', "zz": "7"}
    first = "{" + ",".join(f'"{n}":{wanted[n]}' for n in sorted(wanted)) + "}"
    assert as_json(tmp_path) == [first, '{"s":null}', '"y"', None]


SPARK_SCHEMA = {"type": "struct", "fields": [
    {"name": "v", "type": "variant", "nullable": True, "metadata": {}},
]}  # fmt: skip
SPARK_METADATA = {"org.apache.spark.sql.parquet.row.metadata": json.dumps(SPARK_SCHEMA)}


@pytest.mark.parametrize(
    ("wrap", "inside"),
    [
        (lambda t: t, "variant"),
        (pa.list_, {"type": "array", "elementType": "variant", "containsNull": True}),
        (lambda t: pa.struct([("f", t)]), {"type": "struct", "fields": [{"type": "variant"}]}),
    ],
)
def test_what_only_spark_marks_as_variant_is_not_read_as_its_parts(
    tmp_path: Path, wrap: Any, inside: Any
) -> None:
    schema = json.dumps({"type": "struct", "fields": [{"name": "v", "type": inside}]})
    table = pa.table({"v": pa.nulls(1, wrap(PLAIN))}).replace_schema_metadata(
        {"org.apache.spark.sql.parquet.row.metadata": schema}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    advice = ": make it text with columns.cast to json" * (inside == "variant")
    with pytest.raises(TypeNotRepresentable, match=f"of type VARIANT.* here{advice}[.] Leave such"):
        read_all(files_spec(tmp_path, "*.parquet"))


def test_a_struct_that_looks_like_a_variant_is_a_struct(tmp_path: Path) -> None:
    row = {"metadata": NO_NAMES, "value": b"\x00"}
    pq.write_table(pa.table({"v": pa.array([row], PLAIN)}), tmp_path / "a.parquet")
    assert read_all(files_spec(tmp_path, "*.parquet")).column("v").to_pylist() == [row]


def test_a_run_writes_json_and_says_so(tmp_path: Path) -> None:
    sql = "select 1 as id, {'a': 1}::variant as v"
    duckdb.sql(f"copy ({sql}) to '{tmp_path}/a.parquet'")
    spec = files_spec(tmp_path, "*.parquet", columns={"cast": {"v": "json"}})
    run_extract(spec)
    assert by_pyarrow(spec.target.uri)[0]["v"] == '{"a":1}'
    _, column = FilesSource.open(spec).describe().columns
    assert (column.source_type, column.fidelity) == ("parquet VARIANT", "by_permission")
    assert column.rule == "as in a.parquet, as JSON: columns.cast"


NESTED_201 = b"\x00"
for _ in range(201):
    NESTED_201 = b"\x07\x01\x00\x00" + len(NESTED_201).to_bytes(2, "little") + NESTED_201


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x14\x00",
        b"\xfc",
        b"\x09x",
        b"\x40\xff\xff\xff\xff",
        b"\x02\x01\x05\x00\x01\x00",
        b"\x05\xff",
        b"\x20\x7f\x00\x00\x00\x00",
        NESTED_201,
    ],
    ids=["nothing", "cut", "unknown type", "short text", "length", "field id", "not UTF-8", "scale",
         "deep"],
)  # fmt: skip
def test_a_damaged_value_is_refused(value: bytes) -> None:
    with pytest.raises(DamagedVariantError):
        texts(value)


def test_a_shredded_list_without_one_of_its_items_is_refused() -> None:
    """The format demands that each item of a list is there, if only as a null."""
    items = pa.list_(pa.struct([("value", pa.binary()), ("typed_value", pa.int64())]))
    row = {"metadata": NO_NAMES, "value": None, "typed_value": [{"typed_value": 1}, None]}
    with pytest.raises(DamagedVariantError):
        variant_texts(pa.array([row], pa.struct([*PLAIN, ("typed_value", items)])))


def test_values_that_share_bytes_cost_no_more_than_their_length() -> None:
    # Each list has two items, and both are the next list: 2**60 values in a few hundred bytes.
    value = b"\x00"
    for _ in range(60):
        value = b"\x07\x02\x00\x00\x00\x00" + len(value).to_bytes(2, "little") + value
    with pytest.raises(DamagedVariantError, match="overlap"):
        texts(value)


@pytest.mark.parametrize("metadata", [b"\x12\x00\x00", b"\x11\xff\x00", b"\x11\x01\x05\x00", b""])
def test_damaged_names_are_refused(metadata: bytes) -> None:
    with pytest.raises(DamagedVariantError):
        texts(b"\x00", metadata=metadata)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (b"\x14\x00", SourceQueryFailed, "damaged"),
        (b"\x2c\xff\xff\xff\x7f", TypeNotRepresentable, "outside years 1 to 9999"),
    ],
)
def test_an_error_names_file_and_column(
    tmp_path: Path, value: bytes, error: type[Exception], message: str
) -> None:
    rows = pa.array([{"metadata": NO_NAMES, "value": value}], PLAIN)
    table = pa.table({"v": rows}).replace_schema_metadata(SPARK_METADATA)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(error, match=rf"a\.parquet: a value of column 'v', .*{message}"):
        as_json(tmp_path)
