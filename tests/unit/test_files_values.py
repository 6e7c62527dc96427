"""What values of files become: inferred, declared, and what is refused, with file and line."""

from __future__ import annotations

import gc
import gzip
import json
import math
import os
import stat
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError, ExtractError, SourceQueryFailed, TypeNotRepresentable
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.files.parquet_types import arrives_as, unified
from extract_jobs.sources.files.source import FilesSource
from extract_jobs.sources.files.type_inference import TypeProfile, observe
from tests.support.files import before, files_spec, read_all
from tests.support.sampling import examples

INFERRED = [
    (["1", "-20"], pa.int64(), [1, -20]),
    (["007", "1"], pa.string(), ["007", "1"]),
    (["+1"], pa.string(), ["+1"]),
    ([" 1"], pa.string(), [" 1"]),
    (["0x1F"], pa.string(), ["0x1F"]),
    (["9223372036854775807"], pa.int64(), [2**63 - 1]),
    (["9223372036854775808", "1"], pa.decimal128(38, 0), [Decimal(2**63), Decimal(1)]),
    (["9" * 39], pa.string(), ["9" * 39]),
    (["1e5", "2"], pa.float64(), [1e5, 2.0]),
    (["0.1", "-0", "inf"], pa.float64(), [0.1, -0.0, math.inf]),
    (["1e999"], pa.string(), ["1e999"]),
    (["0.30000000000000004"], pa.float64(), [0.1 + 0.2]),
    (["0.1234567890123456789"], pa.decimal128(38, 19), [Decimal("0.1234567890123456789")]),
    (["9007199254740993", "0.5"], pa.decimal128(38, 1),
     [Decimal(9007199254740993), Decimal("0.5")]),
    (["true", "False"], pa.bool_(), [True, False]),
    (["true", "1"], pa.string(), ["true", "1"]),
    (["2024-02-29", "0001-01-01"], pa.date32(), [date(2024, 2, 29), date(1, 1, 1)]),
    (["2023-02-29"], pa.string(), ["2023-02-29"]),
    (["2024-01-01", "2024-01-01 10:00"], pa.string(), ["2024-01-01", "2024-01-01 10:00"]),
    (["2024-01-01T10:00:00.000001"], pa.timestamp("us"), [datetime(2024, 1, 1, 10, 0, 0, 1)]),  # noqa: DTZ001
    (["2024-01-01 10:00:00.0000001"], pa.string(), ["2024-01-01 10:00:00.0000001"]),
    (["2024-01-01T10:00:00Z", "2024-01-01 12:30+02:30"], pa.timestamp("us", "UTC"),
     [datetime(2024, 1, 1, 10, tzinfo=UTC)] * 2),
    (["2024-01-01T10:00Z", "2024-01-01T10:00"], pa.string(),
     ["2024-01-01T10:00Z", "2024-01-01T10:00"]),
    (["abc", "1", '""'], pa.string(), ["abc", "1", ""]),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "data_type", "values"), INFERRED)
def test_the_narrowest_type_that_holds_every_value_faithfully(
    tmp_path: Path, texts: list[str], data_type: pa.DataType, values: list[object]
) -> None:
    """Whatever order the values come in, in one file or in several; an empty field is NULL."""
    (tmp_path / "a.csv").write_text("n,v\n" + "".join(f"1,{text}\n" for text in texts) + "2,\n")
    found = read_all(files_spec(tmp_path, "*.csv")).column("v")
    assert found.type == data_type
    assert found.to_pylist() == [*values, None]
    for number, text in enumerate(reversed(texts)):
        (tmp_path / f"{number}.tsv").write_text(f"n\tv\n1\t{text}\n")
    given = {"format": "csv", "delimiter": "\t"}
    assert read_all(files_spec(tmp_path, "*.tsv", **given)).column("v").type == data_type


numbers = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=5).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["true", "2024-01-01", "2024-01-01 10:00", "x", "1e400", "5.", ".5", "00"]),
)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(numbers, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_type_profiles_do_not_depend_on_order_and_their_type_takes_every_value(
    texts: list[str], random: object
) -> None:
    whole = observe(pa.array(texts), TypeProfile())
    shuffled = sorted(texts, key=lambda _: random.random())
    parts = TypeProfile()
    for text in shuffled:
        parts |= observe(pa.array([text]), TypeProfile())
    one_by_one = TypeProfile()
    for text in texts:
        one_by_one = observe(pa.array([text]), one_by_one)
    data_type = whole.arrow_type()
    assert parts.arrow_type() == one_by_one.arrow_type() == data_type
    assert TypeProfile.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    values = pa.array(texts).cast(data_type).to_pylist()
    if pa.types.is_floating(data_type):
        # By value: Decimal(repr()) is what a double prints.
        assert [Decimal(repr(v)) for v in values] == [Decimal(t) for t in texts]
    elif pa.types.is_decimal(data_type):
        assert values == [Decimal(t) for t in texts]


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        '{"id": 1, "text": "2024-01-01", "n": 12345678901234567890, "o": {"b": [1, {"c": null}]}}',
        '{"id": 2.5, "tags": ["x", null, "y\\u00e9"], "mixed": 5, "o": null, "ok": true}',
        "",
        '{"tags": [], "mixed": "five", "long": 1234567890.12345678901, "A/b~c\\"d": 1, "": 0}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    found = read_all(files_spec(tmp_path, "*.jsonl"))
    types = {name: str(found.schema.field(name).type) for name in found.schema.names}
    assert types == {
        "id": "double", "text": "string", "n": "decimal128(38, 0)", "o": "string",
        "tags": "list<item: string>", "mixed": "string", "ok": "bool", "long": "string",
        'A/b~c"d': "int64", "": "int64",
    }  # fmt: skip
    first, second, third = found.to_pylist()
    assert (first["n"], first["o"]) == (12345678901234567890, '{"b":[1,{"c":null}]}')
    assert (second["tags"], second["mixed"], second["o"]) == (["x", None, "yé"], "5", None)
    assert (third["long"], third['A/b~c"d'], third[""]) == ("1234567890.12345678901", 1, 0)


def test_fidelity_is_that_of_the_page_on_types(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("price,zip\n1,007\n1.5,1\n")
    (tmp_path / "a.jsonl").write_text(
        '{"n": 1, "long": 1, "text": "1", "flag": true, "object": {}, "tags": [1]}\n'
        '{"n": 1.5, "long": 1234567890.12345678901, "flag": 1, "tags": [1.5]}\n'
    )
    found = {
        glob: {
            column.name: column.fidelity
            for column in FilesSource.open(files_spec(tmp_path, glob)).describe().columns
        }
        for glob in ("*.csv", "*.jsonl")
    }
    assert found["*.csv"] == {"price": "lossless", "zip": "lossless"}
    assert found["*.jsonl"] == {
        "n": "lossless", "long": "lossless", "text": "lossless", "flag": "as_text",
        "object": "as_text", "tags": "lossless",
    }  # fmt: skip


def test_compressed_files_are_let_go_of_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("a\n1\n")
    assert read_all(files_spec(tmp_path, "*")).to_pylist() == [{"a": 1}]
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_columns_are_those_of_all_files_by_name(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id,name\n1,ann\n")
    (tmp_path / "2.csv").write_text("name,extra,id\nbob,2.5,2\n")
    (tmp_path / "3.csv").write_text("id\n")
    (tmp_path / "4.csv").write_text("")
    assert read_all(files_spec(tmp_path, "*.csv")).to_pylist() == [
        {"id": 1, "name": "ann", "extra": None},
        {"id": 2, "name": "bob", "extra": 2.5},
    ]


@pytest.mark.parametrize(
    ("data", "given"),
    [
        (b"\xef\xbb\xbfid,name\r\n1,\xc3\xa9\r\n", {}),
        ("id,name\n1,é\n".encode("latin-1"), {"encoding": "latin-1"}),
        ("\ufeffid,name\n1,é\n".encode("utf-16-le"), {"encoding": "utf-16"}),
        (gzip.compress(b"id,name\n", mtime=0) + gzip.compress("1,é\n".encode(), mtime=0),
         {"compression": "gzip"}),
        (pa.compress("id,name\n1,é".encode(), "zstd", asbytes=True), {"compression": "zstd"}),
        (b"id|name\n1|'\xc3\xa9'\n", {"delimiter": "|", "quote": "'"}),
        (b"\n\nid,name\n\n1,\xc3\xa9\n\n", {}),
        (b"1,\xc3\xa9\n", {"header": False, "types": {"id": "int64", "name": "string"}}),
    ],
)  # fmt: skip
def test_ways_to_write_the_same_rows(tmp_path: Path, data: bytes, given: dict) -> None:
    (tmp_path / "f.csv").write_bytes(data)
    assert read_all(files_spec(tmp_path, "*.csv", **given)).to_pylist() == [{"id": 1, "name": "é"}]


def test_without_a_header_columns_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b"1,x\n2,y\n")
    assert read_all(files_spec(tmp_path, "*.csv", header=False)).to_pydict() == {
        "c1": [1, 2], "c2": ["x", "y"]
    }  # fmt: skip


def test_names_give_format_and_compression(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id\n1\n", mtime=0))
    (tmp_path / "b.CSV").write_bytes(b"id\n2\n")
    (tmp_path / "c.csv.zst").write_bytes(pa.compress(b"id\n3\n", "zstd", asbytes=True))
    assert read_all(files_spec(tmp_path, "*")).column("id").to_pylist() == [1, 2, 3]


WRONG = [
    ({"a.csv": b"id,v\n1,x\n2\n"}, {}, SourceQueryFailed, r"a\.csv, line 3: the row has 1 fields"),
    ({"a.csv": b'id,v\n1,"x\ny"\n\n2,z,SECRET\n'}, {}, SourceQueryFailed,
     r"a\.csv, line 5: the row has 3 fields, expected 2"),
    ({"a.csv": b'id,v\n1,x\n2,"open\n3,z\n'}, {}, SourceQueryFailed, r"a\.csv, line 3: .*quote"),
    ({"a.csv": b"id,v\n1,x\nSECRET,y\n"}, {"types": {"id": "int64"}}, TypeNotRepresentable,
     r"a\.csv, line 3, column 'id': the value is not a valid int64"),
    ({"a.csv": b"id\n\xff\n"}, {}, TypeNotRepresentable, r"a\.csv, line 2.*valid UTF-8"),
    ({"a.csv": b"id\n\xff\n"}, {"encoding": "utf-16"}, SourceQueryFailed,
     r"a\.csv.*set files\.encoding"),
    ({"a.csv": b"id,id\n1,2\n"}, {}, ConfigError, r"a\.csv: columns 1 and 2 .* both named 'id'"),
    ({"a.csv": b"id,,x\n1,2,3\n"}, {}, ConfigError, r"a\.csv: column 2 of the header has no name"),
    ({"a.csv.gz": gzip.compress(b"id\n" + b"1\n" * 99, mtime=0)[:-9]}, {}, SourceQueryFailed,
     r"a\.csv\.gz cannot be read: it is cut short"),
    ({"a.csv.gz": b"id\n1\n"}, {}, SourceQueryFailed, r"a\.csv\.gz cannot be read: it is damaged"),
    ({"a.jsonl": b'{"a": 1}\n{"a": SECRET}\n'}, {}, SourceQueryFailed,
     r"a\.jsonl, line 2: the row is not one JSON object"),
    ({"a.jsonl": b'\n{"a": 1}\n{"a": 1, "a": "SECRET"}\n'}, {}, SourceQueryFailed,
     r"a\.jsonl, line 3: the row has a key twice"),
    ({"a.jsonl": b"[1]\n"}, {}, SourceQueryFailed, r"a\.jsonl, line 1: .*not one JSON object"),
    ({"a.parquet": b"PAR1 no"}, {}, SourceQueryFailed, r"a\.parquet cannot be read: it is damaged"),
    ({"a.csv": b"", "b.csv": b""}, {}, ConfigError, r"has a column: all are empty"),
    ({"a.csv": b"x\n", "b.jsonl": b"{}"}, {}, ConfigError, r"a\.csv is csv and .*b\.jsonl is json"),
    ({"a.txt": b"x\n"}, {}, ConfigError, r"a\.txt: its name indicates no format; .* csv"),
    ({"a.csv": b"name\nx\n"}, {"types": {"nmae": "string"}}, ConfigError, r"'nmae'.*'name'"),
    ({"a.csv": b"id\n1\n"}, {"types": {"id": "integer"}}, ConfigError, r"no such type: id: integ"),
    ({"a.csv": b"id\n1\n"}, {"encoding": "klingon"}, ConfigError, "'klingon' is not a text enc"),
    ({"a.csv": b"id\n1\n"}, {"encoding": "rot13"}, ConfigError, "'rot13' is not a text encoding"),
    ({"orders.csv": b"id\n1\n"}, {"glob": "oders.csv"}, ConfigError, r"no object.*'orders\.csv'"),
    ({}, {}, ConfigError, r"no object matches .*there are no files in the folder"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "given", "error", "message"), WRONG)
def test_what_is_wrong_is_reported_with_file_and_line_and_without_the_value(
    tmp_path: Path, files: dict[str, bytes], given: dict, error: type[ExtractError], message: str
) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        read_all(files_spec(tmp_path, given.pop("glob", "*"), **given))
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_bad_value_far_inside_a_range_is_reported_with_its_line_in_the_file(
    tmp_path: Path,
) -> None:
    lines = [f'{n},"a\nb"' if n % 7 == 0 else f"{n},{'x' * 40}" for n in range(2000)]
    lines[1500] = f"oops,{'x' * 40}"
    text = "\n".join(["id,v", *lines])
    (tmp_path / "f.csv").write_text(text)
    spec = files_spec(
        tmp_path, "*.csv", types={"id": "int32", "v": "string"}, split={"target_bytes": 8192}
    )
    line = text[: text.index("oops")].count("\n") + 1
    with pytest.raises(TypeNotRepresentable, match=rf"f\.csv, line {line}, column 'id'"):
        read_all(spec)


def test_rows_that_do_not_parse_are_put_aside_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,v\n1,x\n2\n"3","two\nlines"\nfour,x\n5,\xff\n6,y\n')
    types = {"id": "int64", "v": "string"}
    spec = files_spec(tmp_path, "*.csv", types=types, bad_rows="reject")
    source = FilesSource.open(spec)
    with source.snapshot(ReadRequest(source.describe().columns)) as snapshot:
        [split] = snapshot.splits(spec)
        for _ in range(2):  # read again, the same rows are put aside again
            rows = [b.to_pylist() for b in snapshot.reader.read(split)]
            assert [row["id"] for batch in rows for row in batch] == [1, 3, 6]
            assert snapshot.reader.rejected_rows == 3
        assert snapshot.count() is None
    [file] = (tmp_path / "_out/state/rejected/r/1").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shown = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(r["line"], r["column"], r["reason"], r["row"]) for r in shown] == [
        (3, None, "has 1 fields, expected 2", "2"),
        (6, "id", "is not a valid int64", "four,x"),
        (7, "v", "is not valid UTF-8 (see files.encoding)", "5,\\xff"),
    ]


@pytest.mark.parametrize(
    "columns", [{"mask": {"v": "redact"}}, {"exclude": ["v"]}, {"include": ["id"]}]
)
def test_rows_put_aside_do_not_show_what_columns_hide(
    tmp_path: Path, columns: dict[str, Any]
) -> None:
    (tmp_path / "a.csv").write_text("id,v\n1,x\noops,secret\n2\n")
    types = {"id": "int64", "v": "string"}
    spec = files_spec(tmp_path, "*.csv", types=types, bad_rows="reject", columns=columns)
    assert read_all(spec).num_rows == 1
    [file] = (tmp_path / "_out/state/rejected/r/1").iterdir()
    assert "secret" not in file.read_text()
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(r["line"], r["row"]) for r in found] == [(3, None), (4, None)]


def test_a_file_of_which_no_row_parses_is_not_put_aside_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,v\n" + "x,y\n" * 10)
    spec = files_spec(tmp_path, "*.csv", types={"id": "int64"}, bad_rows="reject")
    with pytest.raises(SourceQueryFailed, match=r"a\.csv: none of 10 rows parses"):
        read_all(spec)
    (tmp_path / "a.csv").write_text("id,v\n" + "x,y\n" * 10 + "1,z\n")
    assert read_all(spec).to_pylist() == [{"id": 1}]


def types_of(source: FilesSource) -> dict[str, str]:
    return {c.name: str(c.arrow_type) for c in source.describe().columns}


def test_types_of_increments_only_widen(tmp_path: Path) -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    spec = files_spec(tmp_path, "*.csv", mode="incremental", columns={"exclude": ["left_out"]})
    source = FilesSource.open(spec)
    (tmp_path / "1.csv").write_text("id,day,empty,left_out\n1,2024-01-01,,7\n")
    first = source.choose(None, now)
    assert types_of(source.at(first)) == {
        "id": "int64", "day": "date32[day]", "empty": "string", "left_out": "string"
    }  # fmt: skip
    os.truncate(tmp_path / "1.csv", 0)
    os.utime(tmp_path / "1.csv", (0, 0))  # replaced by an empty file, which says nothing
    (tmp_path / "2.csv").write_text("id,empty,new\n2,5,true\n")
    second = source.choose(before(first), now)
    # A column that was text for want of values stays what the files before have.
    assert types_of(source.at(second)) == {
        "id": "int64", "day": "date32[day]", "empty": "string", "left_out": "string", "new": "bool"
    }  # fmt: skip
    (tmp_path / "3.csv").write_text("id,day\n2.5,\n")
    third = source.choose(before(second, first), now)
    assert types_of(source.at(third))["id"] == "double"
    spec = spec.model_copy(update={"columns": spec.columns.model_copy(update={"exclude": ()})})
    (tmp_path / "4.csv").write_text("left_out\n8\n")
    later = FilesSource.open(spec)
    assert types_of(later.at(later.choose(before(third, first), now)))["left_out"] == "int64"


def test_an_increment_that_matches_no_file_at_all_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    spec = files_spec(tmp_path, "*.csv", mode="incremental")
    (tmp_path / "1.csv").write_text("id\n1\n")
    first = FilesSource.open(spec).choose(None, now)
    source = FilesSource.open(spec)
    assert source.at(source.choose(before(first), now)).has_nothing_new()
    assert not caplog.records, "nothing new is no trouble"
    source = FilesSource.open(files_spec(tmp_path, "*.cvs", mode="incremental"))
    assert source.at(source.choose(before(first), now)).has_nothing_new()
    [warned] = caplog.messages
    assert f"no object matches {tmp_path}/*.cvs any more" in warned


def parquet(path: Path, **columns: pa.Array) -> None:
    pq.write_table(pa.table(columns), path)


def test_parquet_files_of_like_types_are_read_as_the_wider_one(tmp_path: Path) -> None:
    parquet(
        tmp_path / "1.parquet", n=pa.array([1], pa.int32()), d=pa.array(["x"]).dictionary_encode()
    )
    parquet(tmp_path / "2.parquet", n=pa.array([2**40]), u=pa.array([2**64 - 1], pa.uint64()))
    parquet(
        tmp_path / "3.parquet", n=pa.nulls(1), t=pa.array([0], pa.timestamp("ns", "Europe/Rome"))
    )
    found = read_all(files_spec(tmp_path, "*.parquet"))
    assert [str(t) for t in found.schema.types] == [
        "int64", "string", "decimal128(20, 0)", "timestamp[us, tz=UTC]"
    ]  # fmt: skip
    assert found.column("n").to_pylist() == [1, 2**40, None]
    assert found.column("u").to_pylist() == [None, Decimal(2**64 - 1), None]


def test_parquet_types_that_do_not_meet_are_refused_with_both_files(tmp_path: Path) -> None:
    parquet(tmp_path / "1.parquet", n=pa.array([1]), m=pa.array([{"a,b": 1}]))
    parquet(tmp_path / "2.parquet", n=pa.array(["x"]))
    with pytest.raises(TypeNotRepresentable, match=r"1\.parquet: column 'm' is of type struct"):
        read_all(files_spec(tmp_path, "*.parquet"))
    leave_out = {"columns": {"exclude": ["m"]}}
    with pytest.raises(
        TypeNotRepresentable, match=r"'n' is int64 in .*1\.parquet and string in .*2\.parquet"
    ):
        read_all(files_spec(tmp_path, "*.parquet", **leave_out))


def test_a_parquet_value_without_a_faithful_form_fails_the_read(tmp_path: Path) -> None:
    parquet(tmp_path / "1.parquet", t=pa.array([1], pa.timestamp("ns")))
    with pytest.raises(TypeNotRepresentable, match=r"1\.parquet: a value of column 't'"):
        read_all(files_spec(tmp_path, "*.parquet"))


@pytest.mark.parametrize(
    "values",
    [
        pa.array([253402300800 * 10**6], pa.timestamp("us")),
        pa.array([-(2**62)], pa.timestamp("us", "UTC")),
        pa.array([2_932_897], pa.int32()).cast(pa.date32()),
        pa.array([[0, -719_163]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
    ],
)
def test_parquet_years_that_readers_do_not_know_are_refused(tmp_path: Path, values) -> None:
    parquet(tmp_path / "1.parquet", t=values)
    with pytest.raises(TypeNotRepresentable, match=r"1\.parquet: .* outside years 1 to 9999"):
        read_all(files_spec(tmp_path, "*.parquet"))


@pytest.mark.parametrize(
    ("left", "right", "both"),
    [
        (pa.int8(), pa.int32(), pa.int32()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int64(), pa.float64(), None),
        (pa.decimal128(5, 2), pa.int32(), pa.decimal128(12, 2)),
        (pa.decimal128(38, 25), pa.int64(), None),
        (pa.decimal128(5, 2), pa.decimal128(4, 3), pa.decimal128(6, 3)),
        (pa.date32(), pa.timestamp("us"), None),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (pa.string(), pa.binary(), None),
    ],
)
def test_types_that_hold_two_others(left, right, both) -> None:
    assert unified(left, right) == unified(right, left) == both


def test_every_type_of_parquet_has_a_rule() -> None:
    interval = pa.month_day_nano_interval()
    refused = [pa.struct([]), pa.struct([("a", interval)]), interval]
    assert [arrives_as(t) for t in refused] == [None] * 3
    assert arrives_as(pa.list_(pa.list_(pa.uint8()))) == pa.list_(pa.list_(pa.int16()))
    assert arrives_as(pa.decimal256(39, 0)) == pa.string()
    assert arrives_as(pa.time64("us")) == pa.string()
