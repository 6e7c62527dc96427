"""What is suggested for a table, and that it is YAML whatever the names are."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extract_jobs.cli.suggest import SMALL_BYTES, Suggestion, plain_or_quoted, quoted, suggest
from extract_jobs.config.file import parse_yaml
from extract_jobs.schema import Column, TableDescription
from extract_jobs.spec.listed_table import ListedTable


def column(name: str, watermark: Any = None, *, nullable: bool = False) -> Column:
    return Column(name, "t", pa.string(), nullable, "lossless", "", name, watermark)


def table(*columns: Column, size: int = SMALL_BYTES, **more: Any) -> TableDescription:
    fields: dict[str, Any] = {"kind": "table", "key": ("id",), "source_version": "PostgreSQL 18"}
    return TableDescription(
        table="t", columns=columns, estimated_rows=3, estimated_bytes=size, fingerprint={},
        **fields | more,
    )  # fmt: skip


def lines(found: TableDescription, *indexed: str) -> str:
    return suggest(ListedTable("t", indexed=frozenset(indexed)), found).text("")


def test_an_indexed_time_of_change_is_suggested_as_watermark() -> None:
    found = table(
        column("modified", "timestamp", nullable=True), column("updated_at", "timestamptz"),
        column("created_at", "timestamptz"), column("update_count", "integer"),
    )  # fmt: skip
    text = lines(found, "modified", "updated_at", "created_at", "update_count")
    assert "# watermark: {column: updated_at, delay: 1m}" in text
    assert text.startswith("t:  # 134 MB, about 3 rows, key id\n")
    assert yaml.safe_load(text) == {"t": None}, "a suggestion that may leave rows out is a comment"


def test_a_column_name_never_ends_its_comment() -> None:
    name = "x\r    mode: incremental #_updated_at"
    found = table(column(name, "timestamptz"))
    for text in (lines(found, name), lines(found)):
        assert "updated_at" in text
        assert parse_yaml(text, "here").data == {"t": None}


def test_without_an_index_it_is_said_and_without_a_column_transactions_are() -> None:
    by_name = table(column("updated_at", "timestamp"))
    assert "An index on updated_at would allow" in lines(by_name)
    assert "snapshot: true" in lines(table(column("id")))
    assert "snapshot" not in lines(table(column("id"), source_version="MySQL 9.7"))
    assert "snapshot" not in lines(table(column("id"), kind="partitioned"))


def test_small_tables_and_views_are_read_whole() -> None:
    small = table(column("updated_at", "timestamp"), size=SMALL_BYTES - 1)
    assert "#" not in lines(small, "updated_at").partition("\n")[2]
    view = table(column("updated_at", "timestamp"), kind="view")
    assert "watermark" not in lines(view, "updated_at")


def test_names_that_look_personal_are_suggested_as_masks() -> None:
    found = table(column("E-Mail"), column("total"), column("birth_date"), size=1)
    assert '# columns: {mask: {"E-Mail": redact, birth_date: redact}}' in lines(found)


def uncommented(text: str) -> Any:
    """Return a suggestion as it is after the leading ``# `` of its lines of YAML is removed."""
    head, *rest = text.splitlines()
    found = [
        line.removeprefix("  # ") for line in rest if re.match(r"  # +[a-z]+: ?(?:[\w\[{]|$)", line)
    ]
    return yaml.safe_load("\n".join([head, *(f"  {line}" for line in found)]))["t"]


def test_an_increment_is_suggested_with_the_key_that_lets_it_follow_a_full_run() -> None:
    found = table(column("id"), column("e_mail"), column("updated_at", "timestamptz"))
    assert uncommented(lines(found, "updated_at")) == {
        "mode": "incremental",
        "watermark": {"column": "updated_at", "delay": "1m"},
        "target": {"partition_by": ["day(updated_at)"]},
        "columns": {"key": ["id"], "mask": {"e_mail": "redact"}},
    }
    keyless = lines(table(column("updated_at", "timestamptz"), key=()), "updated_at")
    assert "columns" not in uncommented(keyless)
    assert "Without a key they cannot follow a run in mode full" in keyless


def test_files_have_their_glob() -> None:
    text = suggest(ListedTable("t", glob="a/*.csv"), table(kind="files", key=())).text("  ")
    assert yaml.safe_load(text) == {"t": {"files": {"glob": "a/*.csv"}}}


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_is_one_line_of_yaml(name: str) -> None:
    text = Suggestion(name, about=name).text("  ")
    assert text.count("\n") == 1
    assert parse_yaml(text, "here").data == {name: None}
    assert parse_yaml(f"{plain_or_quoted(name)}: {quoted(name)}", "here").data == {name: name}
    problem = Suggestion(name, problem=name).text("  ")
    assert problem.splitlines() == [problem.rstrip("\n")]
    assert parse_yaml(problem, "here").data is None
