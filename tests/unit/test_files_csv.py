"""CSV as people's programs write it: no quotes, lines before the header, a delimiter too many."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError, SourceQueryFailed, TypeNotRepresentable
from extract_jobs.sources.files.blocks import BLOCK_BYTES
from tests.support.files import batches_of, files_spec, read_all


def rows(folder: Path, text: str, **given: Any) -> list[tuple[Any, ...]]:
    (folder / "x.csv").write_bytes(text.encode())
    table = read_all(files_spec(folder, "*.csv", **given))
    return [tuple(row.values()) for row in table.to_pylist()]


def test_without_quotes_a_quote_is_a_character(tmp_path: Path) -> None:
    text = 'id|t\n1|"FR TRAN\n2|a "b" c\n3|"x"\n4|""\n5|\n6|"\n'
    expected = [(1, '"FR TRAN'), (2, 'a "b" c'), (3, '"x"'), (4, '""'), (5, None), (6, '"')]
    assert rows(tmp_path, text, delimiter="|", quote="none") == expected


def test_without_quotes_a_nul_at_the_start_of_a_field_is_a_character_too(tmp_path: Path) -> None:
    """It once opened a quote, and the rows up to the footer were left out without a word."""
    text = "a,b\n1,2\n\0x,3\n5,6\nTOTAL,9\n"
    found = rows(tmp_path, text, quote="none", footer_rows=1)
    assert found == [("1", 2), ("\0x", 3), ("5", 6)]
    with pytest.raises(SourceQueryFailed, match=r"x\.csv, line 4"):
        rows(tmp_path, "a,b\n1,2\n\0x,3\n5,6,7\n", quote="none")


@pytest.mark.parametrize(("text", "given", "found"), [
    ("a,b", {}, []),
    ("1,2", {"header": False}, [(1, 2)]),
    ("a;b", {"delimiter": ";"}, []),
])  # fmt: skip
def test_a_file_of_one_line_needs_no_line_end(
    tmp_path: Path, text: str, given: dict[str, Any], found: list[tuple[int, int]]
) -> None:
    assert rows(tmp_path, text, **given) == found


TEXTS = st.text(st.characters(exclude_characters="\x01\n\r", codec="utf-8"), min_size=1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1), st.sampled_from(["\n", "\r\n"]))
def test_without_quotes_fields_are_what_lies_between(
    tmp_path_factory: pytest.TempPathFactory, fields: list[tuple[str, str]], end: str
) -> None:
    text = "".join(f"{a}\x01{b}{end}" for a, b in [("a", "b"), *fields])
    types = {"a": "string", "b": "string"}
    found = rows(tmp_path_factory.mktemp("csv"), text, delimiter="\x01", quote="none", types=types)
    assert found == fields


def test_large_files_without_quotes_are_cut_at_lines(tmp_path: Path) -> None:
    lines = [f'{n}|"{n}' for n in range(60_000)]
    text = "\n".join(["id|t", *lines]) + "\n"
    found = rows(tmp_path, text, delimiter="|", quote="none", split={"target_bytes": 262_144})
    assert [n for n, _ in found] == list(range(60_000))


@pytest.mark.parametrize("skipped", ["", "title\n"])
@pytest.mark.parametrize("declared", [None, {"id": "int64"}])
def test_large_files_with_a_byte_order_mark_are_cut_between_records(
    tmp_path: Path, skipped: str, declared: dict[str, str] | None
) -> None:
    numbers = range(100_000, 200_000)
    text = "\n".join([f"\ufeff{skipped}id", *map(str, numbers)])
    given = {"skip_rows": skipped.count("\n"), "types": declared}
    found = rows(tmp_path, text, split={"target_bytes": 65_536}, **given)
    assert [n for (n,) in found] == list(numbers)


@pytest.mark.parametrize("declared", [None, {"id": "int64", "t": "string"}])
@pytest.mark.parametrize("before", ["sep=;\n", 'A "title\nof two lines\n', "\n\n"])
def test_lines_before_the_header_are_skipped(
    tmp_path: Path, before: str, declared: dict[str, str] | None
) -> None:
    given = {"delimiter": ";", "skip_rows": before.count("\n"), "types": declared}
    text = f'{before}id;t\n1;x\n2;"y\nz"\n'
    assert rows(tmp_path, text, **given) == [(1, "x"), (2, "y\nz")]
    with pytest.raises(SourceQueryFailed, match=f"line {given['skip_rows'] + 3}: the row has 3"):
        rows(tmp_path, f"{before}id;t\n1;x\n2;y;z\n", **given)


@pytest.mark.parametrize("declared", [None, {"id": "int64", "t": "string"}])
def test_skipped_lines_and_cuts_go_together(
    tmp_path: Path, declared: dict[str, str] | None
) -> None:
    lines = [f'{n},"{n}\n"' for n in range(60_000)]
    text = "\n".join(["x" * 100_000, "", "id,t", *lines]) + "\n"
    found = rows(tmp_path, text, skip_rows=2, types=declared, split={"target_bytes": 262_144})
    assert [n for n, _ in found] == list(range(60_000))


def test_skipped_lines_may_end_in_just_carriage_returns(tmp_path: Path) -> None:
    text = "title\rmore\rid,t\r1,x\r2,y\r"
    assert rows(tmp_path, text, skip_rows=2) == [(1, "x"), (2, "y")]
    declared = {"id": "int64", "t": "string"}
    assert rows(tmp_path, text, skip_rows=2, types=declared) == [(1, "x"), (2, "y")]


def test_more_lines_skipped_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="all are empty"):
        rows(tmp_path, "id\n1\n", skip_rows=9)


def test_an_empty_last_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    assert rows(tmp_path, "id,t,\n1,x,\n2,,\n") == [(1, "x"), (2, None)]
    assert rows(tmp_path, "id,t,\n1,x,\n", types={"t": "string"}) == [("x",)]
    assert rows(tmp_path, 'id,t,\n1,x,""\n') == [(1, "x")]
    assert rows(tmp_path, "id,t,\n1,x,\n2,NULL,NULL\n", null_values=["NULL"]) == [
        (1, "x"),
        (2, None),
    ]
    with pytest.raises(SourceQueryFailed, match="line 3: the row has a value after the last"):
        rows(tmp_path, "id,t,\n1,x,\n2,y,z\n")
    with pytest.raises(ConfigError, match="column 2 of the header has no name"):
        rows(tmp_path, "id,,t\n1,x,y\n")


@pytest.mark.parametrize("declared", [None, {"id": "int64", "t": "string"}])
@pytest.mark.parametrize("header", [True, False])
def test_rows_may_end_in_a_delimiter_that_the_header_lacks(
    tmp_path: Path, header: bool, declared: dict[str, str] | None
) -> None:
    first = "id,t\n" if header else ""
    given = {"types": declared, "header": header}
    if header or declared:
        assert rows(tmp_path, f"{first}1,x,\n2,,\n", **given) == [(1, "x"), (2, None)]
        many = "".join(f"{n},x,\n" for n in range(40_000))
        assert len(rows(tmp_path, first + many, split={"target_bytes": 65536}, **given)) == 40_000
        for wrong, why in (("2,y,z", "a value after the last"), ("2,y", "2 fields, expected 3")):
            with pytest.raises(SourceQueryFailed, match=f"line {3 + header}: the row has {why}"):
                rows(tmp_path, f"{first}1,x,\n1,x,\n{wrong}\n", **given)
    with pytest.raises(SourceQueryFailed, match="fields, expected"):
        rows(tmp_path, f"{first}1,x\n2,y,\n", **given)


@pytest.mark.parametrize(("bad", "good"), [("1,x,", "1,x"), ("1,x", "1,x,")])
@pytest.mark.parametrize("place", range(3))
def test_one_bad_row_does_not_decide_how_the_others_end(
    tmp_path: Path, bad: str, good: str, place: int
) -> None:
    lines = [good] * 20
    lines.insert(place, bad)
    given = {"types": {"id": "int64", "t": "string"}, "bad_rows": "reject"}
    assert rows(tmp_path, "\n".join(["id,t", *lines, ""]), **given) == [(1, "x")] * 20


def test_quote_takes_one_character_or_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="quote"):
        files_spec(tmp_path, "*.csv", quote="no")
    assert BLOCK_BYTES > 100_000  # so that the lines above lie in one block


EUROPEAN = {
    "amount": {"type": "decimal(12,2)", "decimal": ",", "thousands": "."},
    "day": {"type": "date", "format": "%d.%m.%Y"},
    "active": {"type": "boolean", "true_values": ["Y", "ja"], "false_values": ["N"]},
}


def test_numbers_days_and_truth_values_are_read_as_they_are_written(tmp_path: Path) -> None:
    text = (
        "amount;day;active\n1.234,56;31.12.2024;Y\n-1.234.567,5;1.2.2024;N\n,5;29.02.2024;ja\n;;\n"
    )
    assert rows(tmp_path, text, delimiter=";", types=EUROPEAN) == [
        (Decimal("1234.56"), date(2024, 12, 31), True),
        (Decimal("-1234567.50"), date(2024, 2, 1), False),
        (Decimal("0.50"), date(2024, 2, 29), True),
        (None, None, None),
    ]


@pytest.mark.parametrize(
    "row",
    [
        "1.23,45;;", "1,234.56;;", "1.2345;;", "1,2,3;;", "1,234;;", "0x1;;",
        "0.500;;", "-0.001;;", "01.234;;", "1.234e2;;",
        ";30.02.2024;", ";2024-12-31;", ";12/31/2024;", ";31.12.24;", ";31.12.2024 ;", ";;y", ";;1",
    ],
)  # fmt: skip
def test_what_is_written_in_another_way_is_no_value(tmp_path: Path, row: str) -> None:
    # The number that a guess would make of it is another one.
    with pytest.raises(
        TypeNotRepresentable, match=r"line 3, column '\w+': the value is not a valid"
    ):
        rows(tmp_path, f"amount;day;active\n1;;\n{row}\n", delimiter=";", types=EUROPEAN)


@pytest.mark.parametrize(
    ("given", "text", "expected"),
    [
        ({"type": "int64", "thousands": "'"}, "1'234'567", 1234567),
        ({"type": "int64", "thousands": " "}, "12 345", 12345),
        ({"type": "float64", "decimal": ","}, "-1,5e3", -1500.0),
        ({"type": "date", "format": "%Y%m%d"}, "20240131", date(2024, 1, 31)),
        ({"type": "date", "format": "%d-%b-%y"}, "31-DEC-68", date(2068, 12, 31)),
        ({"type": "date", "format": "%d-%b-%y"}, "01-Jan-69", date(1969, 1, 1)),
        (
            {"type": "timestamp", "format": "%m/%d/%Y %I:%M %p"},
            "1/2/2024 12:05 AM",
            datetime.fromisoformat("2024-01-02 00:05"),
        ),
        (
            {"type": "timestamp", "format": "%m/%d/%Y %I:%M %p"},
            "12/31/2024 1:05 pm",
            datetime.fromisoformat("2024-12-31 13:05"),
        ),
        (
            {"type": "timestamp", "format": "%d.%m.%Y %H:%M:%S.%f"},
            "31.12.2024 9:05:07.25",
            datetime.fromisoformat("2024-12-31 09:05:07.250000"),
        ),
        (
            {"type": "timestamptz", "format": "%d.%m.%Y %H:%M %z"},
            "01.01.2024 00:30 +0100",
            datetime(2023, 12, 31, 23, 30, tzinfo=UTC),
        ),
    ],
)
def test_forms_of_values(tmp_path: Path, given: dict[str, str], text: str, expected: Any) -> None:
    [(found,)] = rows(tmp_path, f"x\n{text}\n", delimiter="|", types={"x": given})
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("format_", "text"), [("%d%m%Y", "1122024"), ("%Y%m%d", "2024131"), ("%d.%m.%Y", "1.1.24")]
)
def test_a_day_that_could_be_two_is_no_value(tmp_path: Path, format_: str, text: str) -> None:
    with pytest.raises(TypeNotRepresentable):
        rows(tmp_path, f"x\n{text}\n", types={"x": {"type": "date", "format": format_}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "string", "decimal": ","}, "decimal is for columns of type integer or float"),
        ({"type": "int64", "format": "%Y"}, "format is for columns of type date or timestamp"),
        ({"type": "float64", "decimal": ",", "thousands": ","}, "two different characters"),
        ({"type": "float64", "thousands": "."}, "two different characters"),
        ({"type": "boolean", "true_values": ["Y"]}, "belong together"),
        ({"type": "boolean", "true_values": ["Y"], "false_values": ["Y"]}, "share a text"),
        ({"type": "date", "format": "%m.%Y"}, "needs a year"),
        ({"type": "date", "format": "%d.%m.%Y %H"}, "declare a timestamp"),
        ({"type": "date", "format": "%x"}, "format has %x"),
        ({"type": "date", "format": "%d.%m.%Y %y"}, "one thing twice"),
        ({"type": "timestamp", "format": "%d.%m.%Y %I:%M"}, "%I and %p"),
        ({"type": "timestamp", "format": "%d.%m.%Y %H:%S"}, "without the larger one"),
        ({"type": "timestamptz", "format": "%d.%m.%Y"}, "zone of a timestamptz"),
        ({"type": "datum", "format": "%d.%m.%Y"}, "no such type: x: datum"),
    ],
)
def test_a_form_that_no_value_could_have_is_refused(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        rows(tmp_path, "x\n1\n", types={"x": given})


def test_rows_put_aside_name_the_form_and_the_others_are_kept(tmp_path: Path) -> None:
    text = "amount;day;active\n1,5;;\n1.5;;\n2,5;;\n"
    found = rows(tmp_path, text, delimiter=";", types=EUROPEAN, bad_rows="reject")
    assert [amount for amount, *_ in found] == [Decimal("1.50"), Decimal("2.50")]
    [aside] = (tmp_path / "_out").rglob("*.jsonl")
    assert "decimal128(12, 2) written as {'decimal': ',', 'thousands': '.'}" in aside.read_text()


@pytest.mark.parametrize("declared", [None, {"id": "int64", "t": "string"}])
@pytest.mark.parametrize("quote", ['"', "none"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_comments_are_left_out(
    tmp_path: Path, quote: str, end: str, declared: dict[str, str] | None
) -> None:
    lines = ['# made "by", #x', "#", "id,t", "1,x", '#,"never closed', "", "2,#y", "# end"]
    expected = [(1, "x"), (2, "#y")]
    given = {"quote": quote, "types": declared, "comment": "#"}
    assert rows(tmp_path, end.join(lines), **given) == expected
    with pytest.raises(SourceQueryFailed, match="line 9: the row has 1 fields"):
        rows(tmp_path, end.join([*lines, "3"]), **given)


def test_what_looks_like_a_comment_inside_of_quotes_is_data(tmp_path: Path) -> None:
    text = 'id,t\n1,"a\n# b"\n# c "\n"# d",\n'
    assert rows(tmp_path, text, comment="#") == [("1", "a\n# b"), ("# d", None)]


def test_what_looks_like_a_comment_after_an_escaped_line_end_is_data(tmp_path: Path) -> None:
    text = "id,t\n# c\n1,a\\\n# b\n"
    assert rows(tmp_path, text, comment="#", escape="\\") == [(1, "a\n# b")]


@pytest.mark.parametrize("declared", [None, {"id": "int64", "t": "string"}])
def test_comments_and_cuts_go_together(tmp_path: Path, declared: dict[str, str] | None) -> None:
    lines = [f'{n},"{n}\n#"\n#,"' for n in range(60_000)]
    text = "\n".join(["id,t", *lines]) + "\n"
    given = {"comment": "#", "types": declared, "split": {"target_bytes": 262_144}}
    assert [n for n, _ in rows(tmp_path, text, **given)] == list(range(60_000))


@pytest.mark.parametrize("declared", [None, {"id": "int64", "t": "string"}])
def test_a_footer_is_left_out(tmp_path: Path, declared: dict[str, str] | None) -> None:
    given = {"footer_rows": 2, "types": declared}
    expected = [(1, "x"), (2, "y")]
    assert rows(tmp_path, 'id,t\n1,x\n2,y\nTotal,"3\n"\n\nend\n\n', **given) == expected
    assert rows(tmp_path, "id,t\na,b\nc,d", **given) == []
    assert rows(tmp_path, "id,t\n", **given) == []
    with pytest.raises(SourceQueryFailed, match=r"it has 1 rows, fewer than files\.footer_rows"):
        rows(tmp_path, "id,t\na,b", **given)


@pytest.mark.parametrize("footer", [1, 3, 1000])
def test_a_footer_may_begin_in_an_earlier_block(tmp_path: Path, footer: int) -> None:
    wide = "x" * (BLOCK_BYTES // 3)
    values = [*range(2_000), *[f"{n}{wide}" for n in range(8)]]
    text = "\n".join(["t", *map(str, values)]) + "\n"
    given = {"types": {"t": "string"}, "split": {"target_bytes": 65_536}}
    found = [t for (t,) in rows(tmp_path, text, footer_rows=footer, **given)]
    assert found == list(map(str, values[:-footer]))


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;"])
def test_the_line_that_names_the_delimiter_is_left_out(tmp_path: Path, first: str) -> None:
    text = f"{first}\r\nid;t\r\n1;x\r\n"
    assert rows(tmp_path, text, delimiter=";") == [(1, "x")]
    with pytest.raises(SourceQueryFailed, match="line 4: the row has 1 fields"):
        rows(tmp_path, f"{text}2\r\n", delimiter=";")
    with pytest.raises(ConfigError, match="says that the delimiter is ';'"):
        rows(tmp_path, text)
    assert rows(tmp_path, text, delimiter=";", skip_rows=1) == [(1, "x")]


def test_the_comment_mark_differs_from_the_other_marks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="comment must differ"):
        rows(tmp_path, "id\n1\n", comment=",")


def test_folders_and_json_are_written_in_their_own_way_too(tmp_path: Path) -> None:
    form = {"type": "date", "format": "%d.%m.%Y"}
    (tmp_path / "at=31.12.2024").mkdir()
    (tmp_path / "at=31.12.2024" / "x.jsonl").write_text('{"d": "1.2.2024"}\n')
    found = read_all(files_spec(tmp_path, "**/*.jsonl", types={"d": form, "at": form}))
    assert found.to_pylist() == [{"d": date(2024, 2, 1), "at": date(2024, 12, 31)}]
    number = {"d": {"type": "float64", "thousands": " "}}
    with pytest.raises(ConfigError, match="JSON has numbers of its own"):
        read_all(files_spec(tmp_path, "**/*.jsonl", types=number))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("declared", [None, {"a": "string", "b": "string"}])
def test_a_row_of_too_many_fields_may_not_even_be_utf8(
    tmp_path: Path, declared: dict[str, str] | None
) -> None:
    """Arrow describes such a row as text, cannot, and gives up on the whole block."""
    rows = [b"1,x", b"2,y,\xe9", "3,é".encode(), b"4,\xe9", "5,ü".encode(), *[b"6,z"] * 20]
    (tmp_path / "in.csv").write_bytes(b"\n".join([b"a,b", *rows, b""]))
    given: dict[str, Any] = {"types": declared, "null_values": ["ü"]}
    with pytest.raises(SourceQueryFailed, match=r"line 3: the row has 3 fields, expected 2"):
        read_all(files_spec(tmp_path, "*.csv", **given))
    found = read_all(files_spec(tmp_path, "*.csv", bad_rows="reject", **given))
    assert found.column("b").to_pylist()[:4] == ["x", "é", None, "z"]
    assert len(list((tmp_path / "_out/state/rejected/r/1").iterdir())) == 1


@pytest.mark.parametrize(("text", "said"), [
    ("id;name\n1;x\n", "set files.delimiter to ';'"),
    ("id\tname;x\ty\n", "set files.delimiter to '\\t'"),
    ('"id"|"name"\n1|2\n', "set files.delimiter to '|'"),
])  # fmt: skip
def test_a_header_with_another_delimiter_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        rows(tmp_path, text)


def test_one_column_may_be_named_like_several(tmp_path: Path) -> None:
    assert rows(tmp_path, '"id;name"\n1\n') == [(1,)]
    assert rows(tmp_path, "id;name\n1\n", types={"id;name": "int64"}) == [(1,)]


def test_a_file_that_lacks_many_columns_makes_small_batches(tmp_path: Path) -> None:
    """One header of 3,000 columns, and 20,000 rows of one: 60 million values that are missing."""
    (tmp_path / "a.csv").write_text(",".join(f"c{n}" for n in range(3000)) + "\n")
    (tmp_path / "b.csv").write_text("c7\n" + "1\n" * 20_000)
    rows = 0
    for batch in batches_of(files_spec(tmp_path, "*.csv")):
        assert batch.nbytes < 32 * 2**20
        assert batch.column("c7").to_pylist() == [1] * batch.num_rows
        rows += batch.num_rows
    assert rows == 20_000
