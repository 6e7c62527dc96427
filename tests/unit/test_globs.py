"""Which tables the names of files make."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError
from extract_jobs.sources.files import globs
from extract_jobs.sources.files.globs import globs_of
from extract_jobs.sources.files.listing import named_format
from extract_jobs.spec.globs import glob_pattern, matches


@pytest.mark.parametrize(("paths", "expected"), [
    (["orders_2026-01-01.csv", "orders_2026-01-02.csv"], {"orders": "orders_??????????.csv"}),
    (["o/20260101T0000.csv.gz"], {"o": "o/?????????????.csv.gz"}),
    (["x_1.csv", "x_10.csv"], {"x": "x_*.csv"}),
    (["a/b/year=2024/x.parquet", "a/b/year=2025/x.parquet"], {"a_b_x": "a/b/**/x.parquet"}),
    (["e/2026/01/02/e1.jsonl", "e/2026/01/03/e12.jsonl"], {"e_e": "e/**/e*.jsonl"}),
    (["c/part-0001-ab.snappy.parquet", "c/part-0002-ff.snappy.parquet"],
     {"c": "c/*.snappy.parquet"}),
    (["v1.csv", "v2_old.csv"], {"v1": "v1.csv", "v_old": "v*_old.csv"}),
    (["data[1].csv"], {"data": "data[*].csv"}),
    (["data[1].csv", "data[2].csv"], {"data": "data[*].csv"}),
    (["export (1).csv", "export (2).csv"], {"export": "export (*).csv"}),
    (["o.csv", "o.jsonl", "o.csv.gz", "p.csv"],
     {"o_csv": "o.csv", "o_csv_gz": "o.csv.gz", "o_jsonl": "o.jsonl", "p": "p.csv"}),
    (["o_12345678.csv", "o_123456789.csv"],
     {"o_csv": "o_????????.csv", "o_csv_2": "o_?????????.csv"}),
    (["v1.2/a.csv", "v1.2/b.csv"], {"v1_2_a": "v1.2/a.csv", "v1_2_b": "v1.2/b.csv"}),
    ([], {}),
])  # fmt: skip
def test_files_that_differ_in_numbers_are_one_table(
    paths: list[str], expected: dict[str, str]
) -> None:
    found = globs_of(paths)
    assert {table.name: table.glob for table in found} == expected
    assert all(table.problem is None for table in found)


def test_a_glob_that_takes_other_tables_files_is_a_problem() -> None:
    found = {table.name: table for table in globs_of(["o_1.csv", "o_2.csv", "o_all.csv"])}
    assert found["o"].problem == "its glob matches files of other tables too: o_all.csv"
    assert found["o_all"].problem is None


_NAMES = st.from_regex(
    r"([ab]|k=1|2026)(/([ab]|k=1|2026)){0,2}_?[0-9-]{0,9}\.(csv|pq|txt)", fullmatch=True
)


@settings(max_examples=60)
@given(st.lists(_NAMES, max_size=8, unique=True))
def test_every_file_with_a_format_is_in_one_table_or_named_as_a_problem(paths: list[str]) -> None:
    listed = globs_of(paths)
    assert len({table.name for table in listed}) == len(listed)
    found = [table for table in listed if table.glob is not None]
    good = [glob_pattern(table.glob or "") for table in found if table.problem is None]
    bad = [glob_pattern(table.glob or "") for table in found if table.problem is not None]
    for path in paths:
        if named_format(path) is None:
            continue
        times = sum(pattern.fullmatch(path) is not None for pattern in good)
        assert times <= 1
        assert times == 1 or any(pattern.fullmatch(path) for pattern in bad)


def test_a_folder_of_nothing_alike_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(globs, "MOST_TABLES", 3)
    with pytest.raises(ConfigError, match="more than 3 kinds"):
        globs_of([f"{name}.csv" for name in "abcd"])


@settings(max_examples=200)
@given(st.text("ab[]!-*?.", max_size=6), st.text("ab[]!-.", max_size=6))
def test_names_and_paths_have_one_rule(glob: str, name: str) -> None:
    assume("**" not in glob)
    assert matches(name, glob) == bool(glob_pattern(glob).fullmatch(name))


def test_formats_that_names_only_suggest_are_stated() -> None:
    found = globs_of(["a_1.tsv", "a_2.tsv", "b.TAB.gz", "c.json", "d.csv"])
    assert [(table.glob, table.format, table.delimiter, table.problem) for table in found] == [
        ("a_*.tsv", "csv", "\t", None),
        ("b.TAB.gz", "csv", "\t", None),
        ("c.json", "json", None, None),
        ("d.csv", None, None, None),
    ]


def test_files_that_are_not_read_are_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"t{number}.txt" for number in (3, 1, 2, 0)]
    paths = ["d.csv", "x/shop.db", *texts, "README", "l.xlsx", "c.yml"]
    table, *others = globs_of(paths)
    assert table.glob == "d.csv"
    assert {other.glob for other in others} == {None}
    said = {other.name: other.problem or "" for other in others}
    assert list(said) == ["*", "*.db", "*.txt", "*.xlsx"]
    assert said["*"].startswith(
        "1 file (README): the name indicates no format; for CSV or JSON, add"
    )
    assert said["*.db"].startswith("1 file (x/shop.db): a database is not read; if it is SQLite")
    assert said["*.txt"].startswith("4 files (t0.txt, t1.txt, t2.txt, …): the name")
    assert said["*.xlsx"] == "1 file (l.xlsx): Excel is not read; save the sheet as CSV"
    monkeypatch.setattr(globs, "_MOST_KINDS", 2)
    assert [other.name for other in globs_of(paths)[1:]] == ["*", "*.xlsx"]


def test_brackets_stand_for_themselves() -> None:
    assert matches("data[1].csv", "data[1]*")
    assert not matches("data1.csv", "data[1]*")
    assert not matches("a", "[ab]")
    assert matches("[ab]", "[ab]")
