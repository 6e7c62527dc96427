"""The judge of `make fidelity` knows right values, values in another type, and wrong ones."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fidelity.judge import Stored, Verdict, array_items, judge, values_of
from tests.fidelity.page import reason_kind, render, worse_than_a_peer
from tests.fidelity.peer import Extracted
from tests.fidelity.results import Column, Result, judge_column, load
from tests.fidelity.tables import Case, Torture, mysql_family, postgres_family

EQUAL, OTHER, WRONG = Verdict.EQUAL, Verdict.OTHER, Verdict.WRONG
US, UTC_US = pa.timestamp("us"), pa.timestamp("us", "UTC")
NOON = datetime.fromisoformat("2024-03-31 12:00:00.000001")


@pytest.mark.parametrize(
    ("family", "printed", "value", "kind", "verdict"),
    [
        ("bool", "t", True, pa.bool_(), EQUAL),
        ("bool", "t", 1, pa.int8(), OTHER),
        ("bool", "f", "false", pa.string(), OTHER),
        ("bool", "t", False, pa.bool_(), WRONG),
        ("int", "9223372036854775807", 2**63 - 1, pa.int64(), EQUAL),
        ("int", "9223372036854775807", 9.223372036854775807e18, pa.float64(), WRONG),
        ("int", "18446744073709551615", Decimal(2**64 - 1), pa.decimal128(20, 0), OTHER),
        ("int", "2", True, pa.bool_(), WRONG),
        ("int", "7", "7", pa.string(), OTHER),
        ("bits", b"255", b"\xff", pa.binary(), EQUAL),
        ("bits", b"255", 254, pa.int64(), WRONG),
        ("float4", "0.1", 0.10000000149011612, pa.float32(), EQUAL),
        ("float4", "0.1", 0.1, pa.float64(), OTHER),
        ("float8", "-0", -0.0, pa.float64(), EQUAL),
        ("float8", "-0", 0.0, pa.float64(), WRONG),
        ("float8", "NaN", float("nan"), pa.float64(), EQUAL),
        ("float8", "NaN", 0.0, pa.float64(), WRONG),
        ("decimal", "1.10", Decimal("1.1"), pa.decimal128(5, 2), EQUAL),
        ("decimal", "1.10", "1.10", pa.string(), OTHER),
        ("decimal", "0.1", 0.1, pa.float64(), OTHER),
        ("decimal", "0.12345678901234567890", 0.12345678901234568, pa.float64(), WRONG),
        ("decimal", "NaN", Decimal("0.00"), pa.decimal128(5, 2), WRONG),
        ("decimal", "NaN", "NaN", pa.string(), OTHER),
        ("text", "a ", "a ", pa.string(), EQUAL),
        ("text", "a ", "a", pa.string(), WRONG),
        ("set", "a,ü", "a,ü", pa.string(), EQUAL),
        ("set", "a,ü", '["ü", "a"]', pa.string(), OTHER),
        ("set", "", ["a"], pa.list_(pa.string()), WRONG),
        ("set", "a", "[]", pa.string(), WRONG),
        ("padded", "a ", "a", pa.string(), OTHER),
        ("padded", "a ", "b", pa.string(), WRONG),
        ("bytes", "\\x00ff", b"\x00\xff", pa.binary(), EQUAL),
        ("bytes", "\\x00ff", "00ff", pa.string(), OTHER),
        ("bytes", b"\x00\xff", "AP8=", pa.string(), OTHER),
        ("bytes", b"\x00\xff", b"\x00", pa.binary(), WRONG),
        ("date", "1582-10-10", date(1582, 10, 10), pa.date32(), EQUAL),
        ("date", "1582-10-10", datetime.fromisoformat("1582-10-10"), US, OTHER),
        ("date", "1582-10-10", date(1582, 10, 20), pa.date32(), WRONG),
        ("date", "infinity", date(9999, 12, 31), pa.date32(), WRONG),
        ("date", "infinity", "infinity", pa.string(), OTHER),
        ("date", "0044-03-15 BC", Stored(-735160, ""), pa.date32(), EQUAL),
        ("date", "10000-01-01", Stored(2932897, ""), pa.date32(), EQUAL),
        ("date", "10000-01-01", Stored(2932898, ""), pa.date32(), WRONG),
        ("date", "infinity", Stored(2**31 - 1, ""), pa.date32(), WRONG),
        ("timestamp", "2024-03-31 12:00:00.000001", NOON, US, EQUAL),
        ("timestamp", "2024-03-31 12:00:00.000001", NOON.replace(tzinfo=UTC), UTC_US, OTHER),
        ("timestamp", "2024-03-31 12:00:00.000001", "2024-03-31T12:00:00.000001Z", pa.string(),
         OTHER),
        ("timestamp", "2024-03-31 12:00:00.000001", NOON.replace(microsecond=0), US, WRONG),
        ("timestamp", "10000-01-01 00:00:00", Stored(253402300800000000, ""), US, EQUAL),
        ("instant", "2024-03-31 12:00:00.000001+00", NOON.replace(tzinfo=UTC), UTC_US, EQUAL),
        ("instant", "2024-03-31 12:00:00.000001+00", NOON, US, OTHER),
        ("instant", b"2024-03-31 12:00:00.000001", NOON.replace(tzinfo=UTC), UTC_US, EQUAL),
        ("instant", "2024-03-31 13:00:00.000001+00", NOON, US, WRONG),
        ("instant", "infinity", datetime(9999, 12, 31, tzinfo=UTC), UTC_US, WRONG),
        ("time", "24:00:00", time(0), pa.time64("us"), WRONG),
        ("time", "24:00:00", "24:00:00", pa.string(), OTHER),
        ("time", "23:59:59.5", time(23, 59, 59, 500000), pa.time64("us"), EQUAL),
        ("time", b"-838:59:59", -timedelta(hours=838, minutes=59, seconds=59), pa.duration("us"),
         EQUAL),
        ("interval", "1 year -2 days +00:00:00.000001", (12, -2, 1000),
         pa.month_day_nano_interval(), EQUAL),
        ("interval", "1 year -2 days", (12, 2, 0), pa.month_day_nano_interval(), WRONG),
        ("interval", "1 year 2 mons", b"\x0e\0\0\0\0\0\0\0\0\0\0\0", pa.binary(12), OTHER),
        ("interval", "infinity", (0, 0, 0), pa.month_day_nano_interval(), WRONG),
        ("json", '{"a": 1.10}', '{"a": 1.10}', pa.string(), EQUAL),
        ("json", '{"a": 1.10}', '{"a":1.10}', pa.string(), OTHER),
        ("json", '{ "b":1, "b":2 }', '{"b":2}', pa.string(), WRONG),
        ("json", "12345678901234567890.5", "12345678901234567000", pa.string(), WRONG),
        ("uuid", "00000000-0000-0000-0000-00000000000a", b"\0" * 15 + b"\n", pa.binary(16), EQUAL),
        ("uuid", "00000000-0000-0000-0000-00000000000a", b"\0" * 16, pa.binary(16), WRONG),
        ("own text", "10.0.0.1", "10.0.0.1/32", pa.string(), OTHER),
        ("own text", "10.0.0.1/8", "10.0.0.1", pa.string(), WRONG),
        ("own text", "[1,5)", {"lower": 1, "upper": 5, "empty": False}, pa.struct([]), OTHER),
        ("own text", "empty", {"lower": None, "empty": True}, pa.struct([]), OTHER),
        ("own text", "[1,5)", {"lower": 1, "upper": 6, "empty": False}, pa.struct([]), WRONG),
        ("fixed", b"-0.0010000000000000009", -0.001, pa.float64(), EQUAL),
        ("fixed", b"-0.001", -0.002, pa.float64(), WRONG),
        ("any", "2024-02-29 01:02:03", datetime.fromisoformat("2024-02-29 01:02:03"), US, OTHER),
        ("any", "2024-02-29 01:02:03", datetime.fromisoformat("2024-02-29 01:02:04"), US, WRONG),
        ("json", '{"a": [1.10]}', {"a": [1.1]}, pa.struct([]), OTHER),
        ("json", '{"a": [1.10]}', {"a": [1.2]}, pa.struct([]), WRONG),
        ("own text", "[1,5)", "[1,5]", pa.string(), WRONG),
        ("own text", "101", b"\xa0", pa.binary(), OTHER),
        ("own text", "101", b"\xb0", pa.binary(), WRONG),
        ("money", "-$1,234.50", -123450, pa.int64(), OTHER),
        ("money", "-$1,234.50", 1234.5, pa.float64(), WRONG),
        ("any", "1.50", "1.50", pa.string(), EQUAL),
        ("any", "1.5", 1.5, pa.float64(), OTHER),
        ("any", "three", 3, pa.int64(), WRONG),
        ("list:int", "{1,NULL}", [1, None], pa.list_(pa.int32()), EQUAL),
        ("list:int", "{1,NULL}", "[1,null]", pa.string(), OTHER),
        ("list:int", "{1,NULL}", [1], pa.list_(pa.int32()), WRONG),
        ("list:int", "{{1,2},{3,4}}", [1, 2, 3, 4], pa.list_(pa.int32()), WRONG),
        ("list:int", "{{1,2},{3,4}}", [[1, 2], [3, 4]], pa.list_(pa.list_(pa.int32())), EQUAL),
        ("list:int", "[0:1]={1,2}", [1, 2], pa.list_(pa.int32()), WRONG),
        ("list:int", "[0:1]={1,2}", "[0:1]={1,2}", pa.string(), OTHER),
        ("list:text", '{"",NULL,"NULL","a\\"b"}', ["", None, "NULL", 'a"b'],
         pa.list_(pa.string()), EQUAL),
        ("text", None, None, pa.string(), EQUAL),
        ("text", None, "", pa.string(), WRONG),
        ("text", "", None, pa.string(), WRONG),
    ],
)  # fmt: skip
def test_verdict(family, printed, value, kind, verdict):
    assert judge(printed, family, value, kind) is verdict


def test_bytes_of_the_servers_protocol_keep_everything():
    wire = b"\x02\x20\x00\x04\x0a\x00\x00\x01"
    assert judge("10.0.0.1", "own text", wire, pa.binary(), wire) is OTHER
    assert judge("10.0.0.1", "own text", wire[:-1], pa.binary(), wire) is WRONG
    assert judge("", "own text", "\0", pa.string(), b"\0") is OTHER
    array = bytes(3) + b"\1" + bytes(3) + b"\1" + bytes(7) + b"\2" + bytes(3) + b"\1"
    array += bytes(3) + b"\2hi" + b"\xff" * 4
    kind = pa.list_(pa.binary())
    assert judge("{x,NULL}", "list:own text", [b"hi", None], kind, array) is OTHER
    assert judge("{x,NULL}", "list:own text", [b"ho", None], kind, array) is WRONG


def test_values_beyond_python_are_judged_by_their_number():
    far = pa.chunked_array([pa.array([2932897], pa.int32()).cast(pa.date32())])
    assert [v.number for v in values_of(far)] == [2932897]
    year_0 = pa.chunked_array([pa.array([-62167219200], pa.int64()).cast(pa.timestamp("s"))])
    [value] = values_of(year_0)
    assert judge("0001-01-01 00:00:00 BC", "timestamp", value, US) is EQUAL


def test_arrays_of_any_depth_are_parsed():
    assert array_items('{{{a,NULL}},{{"b c",""}}}') == [[["a", None]], [["b c", ""]]]
    assert array_items("{}") == []
    with pytest.raises(ValueError, match="no array"):
        array_items("{1")


def test_types_belong_to_families():
    families = {kind: postgres_family(kind) for kind in ("numeric(3,-2)", "d_arr", "time[]", "box")}
    assert list(families.values()) == ["decimal", "list:int", "list:time", "own text"]
    kinds = ("bigint unsigned", "bit(8)", "time(6)", "timestamp(6) null", "varbinary(300)", "enum")
    assert [mysql_family(kind) for kind in kinds] == [
        "int", "bits", "time", "instant", "bytes", "text",
    ]  # fmt: skip


def torture(*printed: str | None) -> Torture:
    case = Case("c", "numeric", "decimal", list(printed))
    return Torture("postgres", "PostgreSQL 18", "", 0, "d", "t", "n", 0, [case])


def judged(folder, table: Torture, rows: dict[str, list]) -> Column:
    pq.write_table(pa.table(rows), folder / "x.parquet")
    return judge_column(table, table.cases[0], Extracted(folder))


def test_a_columns_file_is_judged_row_by_row(tmp_path):
    table = torture("1.5", "2.5", None)
    right = [Decimal("1.5"), Decimal("2.5"), None]
    column = judged(tmp_path, table, {"n": [1, 0, 2], "c": [right[1], right[0], None]})
    assert column.worst is EQUAL
    column = judged(tmp_path, table, {"n": [0, 1, 2], "c": [right[0], Decimal("2.4"), None]})
    assert column.verdicts == ["equal", "wrong", "equal"]
    assert column.detail == "2.5 became Decimal('2.4')"
    column = judged(tmp_path, table, {"n": [0, 1], "c": right[:2]})
    assert column.worst is WRONG
    assert column.detail.startswith("2 rows for 3")
    column = judged(tmp_path, table, {"n": [0, 1, 2]})
    assert column.verdicts == ["wrong", "wrong", "equal"], "a column that is not there holds NULL"


def test_no_files_are_a_refusal_or_a_crash():
    table = torture("1.5", None)
    refused = judge_column(table, table.cases[0], Extracted(refused="ValueError: no such type x"))
    assert refused.verdicts == ["refused", "equal"]
    assert reason_kind(refused.detail) == "ValueError: no such"
    assert judge_column(table, table.cases[0], Extracted(crashed="ended")).worst is Verdict.CRASHED


def result(peer: str, *verdicts: str) -> Result:
    column = Column("numeric", list(verdicts), "string", "a | b")
    return Result("postgres", "PostgreSQL 18", peer, "1.0", "2026-01-01", {"c": column})


def test_where_a_peer_is_better_in_one_value_is_listed_first(tmp_path):
    ours, peer = result("ours", "other type", "other type"), result("adbc", "equal", "wrong")
    [(name, _, better)] = worse_than_a_peer(ours, [peer])
    assert (name, better) == ("c", {"wrong": ["adbc"]})
    assert worse_than_a_peer(peer, [result("duckdb", "equal", "wrong")]) == []
    assert worse_than_a_peer(result("ours", "refused", "refused"), [peer]) == []
    page = render([ours, peer], {"sling": "no wheel"})
    assert page.index("Where another tool is better") < page.index("Columns by verdict")
    assert "ADBC (some values; others wrong)" in page
    assert "Not run: Sling: no wheel." in page
    assert "| `numeric` | ≈ | **wrong** 1/2 |" in page
    assert r"`a \| b`" in page
    peer.save(tmp_path)
    [path] = tmp_path.glob("*.json")
    assert load(path) == peer
    assert json.loads(path.read_text())["peer"] == "adbc"


@pytest.mark.parametrize("kind", [pa.time64("us"), pa.list_(pa.time64("us"))])
def test_24_hours_in_a_file_are_not_0_hours(kind: pa.DataType) -> None:
    stored = pa.chunked_array([pa.array([86_400_000_000, 0], pa.int64()).view(pa.time64("us"))])
    family, form = "time", "{}"
    if pa.types.is_list(kind):
        stored = pa.chunked_array([pa.array([[86_400_000_000], [0]], pa.list_(pa.int64()))])
        stored = pa.chunked_array([stored.chunk(0).cast(kind)])
        family, form = "list:time", "{{{}}}"
    last, first = values_of(stored)
    verdicts = {
        clock: [judge(form.format(clock), family, value, kind) for value in (last, first)]
        for clock in ("24:00:00", "00:00:00")
    }
    assert verdicts == {"24:00:00": [OTHER, WRONG], "00:00:00": [WRONG, EQUAL]}
