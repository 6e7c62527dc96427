"""CSV as people's programs write it: no quotes, lines before the header, a delimiter too many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError, SourceQueryFailed
from extract_jobs.sources.files.blocks import BLOCK_BYTES
from tests.support.files import files_spec, read_all


def rows(folder: Path, text: str, **given: Any) -> list[tuple[Any, ...]]:
    (folder / "x.csv").write_bytes(text.encode())
    table = read_all(files_spec(folder, "*.csv", **given))
    return [tuple(row.values()) for row in table.to_pylist()]


def test_without_quotes_a_quote_is_a_character(tmp_path: Path) -> None:
    text = 'id|t\n1|"FR TRAN\n2|a "b" c\n3|"x"\n4|""\n5|\n6|"\n'
    expected = [(1, '"FR TRAN'), (2, 'a "b" c'), (3, '"x"'), (4, '""'), (5, None), (6, '"')]
    assert rows(tmp_path, text, delimiter="|", quote="none") == expected


TEXTS = st.text(st.characters(exclude_characters="\x01\n\r\0", codec="utf-8"), min_size=1)


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


def test_skipped_lines_may_end_in_carriage_returns_alone(tmp_path: Path) -> None:
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
    with pytest.raises(SourceQueryFailed, match="line 3: the row has a value behind the last"):
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
        for wrong, why in (("2,y,z", "a value behind the last"), ("2,y", "2 fields, expected 3")):
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
