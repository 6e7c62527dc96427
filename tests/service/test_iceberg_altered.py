"""Iceberg tables that other tools altered, dropped or put back: no row is lost or doubled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table
from pyiceberg.types import LongType, StringType

from extract_jobs.commit.verification import verify_files
from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.iceberg.table import SEQ, IcebergTable
from extract_jobs.run import run_extract
from tests.support.iceberg import IcebergLake

ID = "create table t (id integer primary key, kind text)"
INCREMENTAL: dict[str, Any] = {"mode": "incremental", "watermark": {"column": "id"}}


@pytest.fixture
def lake(tmp_path: Path) -> IcebergLake:
    return IcebergLake(tmp_path)


def before_publishing(monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], object]) -> None:
    """Let something happen once between a commit and its snapshot."""
    publish, left = IcebergTable.publish, [1]

    def publish_late(self: IcebergTable, commit: Any) -> bool:
        if left[0]:
            left[0] -= 1
            meddle()
        return publish(self, commit)

    monkeypatch.setattr(IcebergTable, "publish", publish_late)


def drop(lake: IcebergLake) -> None:
    lake.table().catalog.drop_table("lake.t")


def test_a_table_dropped_before_its_replacement_is_published_is_made_anew(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a")
    # A column's new type gives it another id than a new table would.
    lake.source("drop table t", "create table t (kind integer, id integer primary key)",
                "insert into t values (7, 2)")  # fmt: skip
    before_publishing(monkeypatch, lambda: drop(lake))
    lake.run("b", on_schema_change="evolve", target={"partition_by": ["id"]})
    assert lake.rows() == lake.rows_by_duckdb() == [{"kind": 7, "id": 2}]
    assert lake.table().properties[SEQ] == "2"
    lake.source("insert into t values (8, 3)")
    lake.run("c", target={"partition_by": ["id"]})
    assert [row["id"] for row in lake.rows_by_duckdb()] == [2, 3]


def test_a_column_that_the_table_was_partitioned_by_stays(lake: IcebergLake) -> None:
    """Without it DuckDB aborts."""
    lake.source(ID, "insert into t values (1, 'a'), (2, null)")
    lake.run("a", target={"partition_by": ["kind"]})
    lake.source("alter table t drop column kind")
    for run in ("b", "c"):
        lake.run(run, target={"partition_by": []})
        assert lake.rows() == lake.rows_by_duckdb()
        assert lake.rows() == [{"id": 1, "kind": None}, {"id": 2, "kind": None}]


def test_files_are_replaced_even_if_another_tool_dropped_what_they_are_partitioned_by(
    lake: IcebergLake,
) -> None:
    lake.source(ID, "insert into t values (1, 'a'), (2, null)")
    lake.run("a", target={"partition_by": ["kind"]})
    with lake.table().update_spec() as spec:
        spec.remove_field("kind")
    with lake.table().update_schema() as schema:
        schema.delete_column("kind")
    lake.run("b", target={"partition_by": []})
    assert lake.rows() == [{"id": 1, "kind": "a"}, {"id": 2, "kind": None}]


def test_a_partition_column_does_not_change_its_type(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, '5'), (2, null)")
    by_kind = {"target": {"partition_by": ["kind"]}}
    lake.run("a", **by_kind)
    with pytest.raises(ConfigError, match="is or was partitioned by it"):
        lake.run("b", columns={"cast": {"kind": "int32"}}, **by_kind)


@pytest.mark.parametrize(
    ("older", "newer"), [("int32", "int64"), ("decimal(9,2)", "decimal(30,2)")]
)
def test_widened_partitions_are_replaced_once(lake: IcebergLake, older: str, newer: str) -> None:
    lake.source(ID, "insert into t values (1, '5'), (2, null), (3, '6')")
    replacing = {"target": {"partition_by": ["kind"], "write_mode": "overwrite_partitions"}}
    lake.run("a", columns={"cast": {"kind": older}}, **replacing)
    lake.source("delete from t where id = 3", "update t set id = 4 where id = 1")
    lake.run("b", columns={"cast": {"kind": newer}}, **replacing)
    assert [row["id"] for row in lake.rows()] == [2, 3, 4]
    assert lake.rows() == lake.rows_by_duckdb()


@pytest.mark.parametrize("name", ["größe (cm)", "1st", "a-b", "select", "a b/c"])
def test_partitions_may_have_any_name(lake: IcebergLake, name: str) -> None:
    lake.source(f'create table t (id integer primary key, "{name}" text)',
                "insert into t values (1, 'a'), (2, null)")  # fmt: skip
    replacing = {"target": {"partition_by": [name], "write_mode": "overwrite_partitions"}}
    lake.run("a", **replacing)
    lake.run("b", **replacing)
    assert lake.rows() == lake.rows_by_duckdb() == [{"id": 1, name: "a"}, {"id": 2, name: None}]


def test_many_odd_values_are_partitions_that_are_replaced(lake: IcebergLake) -> None:
    odd = [
        "a/b",
        "..",
        " ",
        "null",
        "NULL",
        "%2F",
        "ä",
        "\U0001f600" * 40,
        "a=b",
        "x" * 120,
        "\u0001",
    ]
    lake.source(ID)
    for number, text in enumerate(odd):
        lake.source(f"insert into t values ({number}, '{text}')")
    lake.source("insert into t values (99, null)")
    replacing = {"target": {"partition_by": ["kind"], "write_mode": "overwrite_partitions"}}
    lake.run("a", **replacing)
    lake.run("b", **replacing)
    rows = lake.rows()
    assert [row["kind"] for row in rows] == [*odd, None]
    assert rows == lake.rows_by_duckdb()


def unset_seq(table: Table) -> None:
    with table.transaction() as transaction:
        transaction.remove_properties(SEQ)


def put_back(table: Table) -> None:
    first = table.metadata.metadata_log[0].metadata_file
    table.catalog.drop_table("lake.t")
    table.catalog.register_table("lake.t", first)


@pytest.mark.parametrize("meddle", [unset_seq, put_back])
def test_a_table_that_lacks_commits_of_the_log_is_refused(
    lake: IcebergLake, meddle: Callable[[Table], None]
) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a", **INCREMENTAL)
    lake.source("insert into t values (2, 'b')")
    lake.run("b", **INCREMENTAL)
    meddle(lake.table())
    lake.source("insert into t values (3, 'c')")
    with pytest.raises(ConfigError, match=r"lacks commits that .* has published"):
        lake.run("c", **INCREMENTAL)
    log, uri = lake.log(), lake.spec("any").target.uri
    with pytest.raises(ConfigError, match="lacks commits"):
        verify_files(log, uri)
    # What the newest metadata names is not swept while it cannot be registered.
    files = sorted((lake.folder / "target").rglob("*.*"))
    later = datetime.now(UTC) + timedelta(seconds=5)
    with pytest.raises(ConfigError, match="lacks commits"):
        log.recover(uri, abandon_after=timedelta(0), now=later)
    assert sorted((lake.folder / "target").rglob("*.*")) == files
    # A run that replaces all of it needs none of them.
    lake.run("d")
    assert [row["id"] for row in lake.rows()] == [1, 2, 3]


def rename(table: Table) -> None:
    with table.update_schema() as update:
        update.rename_column("kind", "sort")


def drop_and_add(table: Table) -> None:
    rename(table)
    with table.catalog.load_table("lake.t").update_schema() as update:
        update.add_column("kind", StringType())


def swap(table: Table) -> None:
    with table.update_schema() as update:
        update.rename_column("kind", "x")
    with table.catalog.load_table("lake.t").update_schema() as update:
        update.rename_column("other", "kind")
    with table.catalog.load_table("lake.t").update_schema() as update:
        update.rename_column("x", "other")


@pytest.mark.parametrize("meddle", [rename, drop_and_add, swap])
def test_a_column_that_is_not_the_one_of_older_files_is_refused(
    lake: IcebergLake, meddle: Callable[[Table], None]
) -> None:
    lake.source("create table t (id integer primary key, kind text, other text)",
                "insert into t values (1, 'a', 'x')")  # fmt: skip
    lake.run("a", **INCREMENTAL)
    meddle(lake.table())
    lake.source("insert into t values (2, 'b', 'y')")
    with pytest.raises(ConfigError, match="does not have column kind"):
        lake.run("b", **INCREMENTAL)
    lake.run("c")
    assert [(r["id"], r["kind"], r["other"]) for r in lake.rows()] == [(1, "a", "x"), (2, "b", "y")]
    assert lake.rows() == lake.rows_by_duckdb()


def test_a_column_that_another_tool_widened_stays_wide(lake: IcebergLake) -> None:
    lake.source("create table t (id integer primary key, n integer)", "insert into t values (1, 5)")
    narrow = {"columns": {"cast": {"n": "int32"}}, **INCREMENTAL}
    lake.run("a", **narrow)
    with lake.table().update_schema() as update:
        update.update_column("n", field_type=LongType())
    lake.source("insert into t values (2, 6)")
    lake.run("b", **narrow)
    assert lake.rows() == lake.rows_by_duckdb() == [{"id": 1, "n": 5}, {"id": 2, "n": 6}]
    assert lake.table().schema().find_type("n") == LongType()


def test_a_required_column_of_another_tool_is_refused(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a", **INCREMENTAL)
    with lake.table().update_schema(allow_incompatible_changes=True) as update:
        update.add_column("theirs", StringType(), required=True)
    lake.source("insert into t values (2, 'b')")
    with pytest.raises(ConfigError, match=r"'theirs' of the Iceberg table is required"):
        lake.run("b", **INCREMENTAL)


def test_partitions_are_not_replaced_beside_files_of_other_partitions(lake: IcebergLake) -> None:
    lake.source("create table t (id integer primary key, kind text, other text)",
                "insert into t values (1, 'a', 'x')")  # fmt: skip
    replacing = {"target": {"partition_by": ["kind"], "write_mode": "overwrite_partitions"}}
    lake.run("a", **replacing)
    with lake.table().update_spec() as update:
        update.remove_field("kind")
    table = lake.table()
    table.overwrite(table.scan().to_arrow())
    with lake.table().update_spec() as update:
        update.add_identity("kind")
    with pytest.raises(ConfigError, match="partitioned in another way"):
        lake.run("b", **replacing)
    lake.run("c", target={"partition_by": ["kind"], "write_mode": "overwrite"})
    assert [row["id"] for row in lake.rows()] == [1]


def test_a_table_of_a_newer_format_is_refused_before_a_row_is_read(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a")
    table = lake.table()
    metadata = table.io.new_input(table.metadata_location)
    with metadata.open() as stream:
        text = stream.read().decode()
    newer = lake.folder / "target" / "metadata" / "00009-x.metadata.json"
    newer.write_text(text.replace('"format-version":2', '"format-version":3,"next-row-id":1'))
    table.catalog.drop_table("lake.t")
    table.catalog.register_table("lake.t", str(newer))
    with pytest.raises(ConfigError, match="upgraded to format version 3"):
        lake.run("b")


def test_a_clock_that_is_behind_makes_no_snapshot(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a")
    with monkeypatch.context() as patched:
        patched.setattr("extract_jobs.iceberg.table._TOLERATED_SKEW", timedelta(days=-1))
        with pytest.raises(WriteFailed, match="clock"):
            lake.run("b")
    run_extract(lake.spec("b", attempt=2))
    assert [row["id"] for row in lake.rows()] == [1]
