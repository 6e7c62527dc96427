"""Iceberg tables: what readers see after each commit, whatever else writes to the table."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest
from pydantic import ValidationError
from pyiceberg.schema import Schema
from pyiceberg.table import Transaction
from pyiceberg.table.snapshots import Summary
from pyiceberg.table.update.snapshot import _SnapshotProducer
from pyiceberg.types import StringType

from extract_jobs.attempt.dry_run import planned
from extract_jobs.commit.record import Commit
from extract_jobs.commit.sealed import seal, without_seal
from extract_jobs.commit.verification import verify_files
from extract_jobs.errors import (
    ConfigError,
    ReconcileFailed,
    SchemaChanged,
    TypeNotRepresentable,
    WriteFailed,
)
from extract_jobs.iceberg import data_files
from extract_jobs.iceberg.snapshots import Append, Replacement
from extract_jobs.iceberg.table import COMMIT_ID, SEQ, IcebergTable
from extract_jobs.run import run_extract
from tests.support.iceberg import IcebergLake
from tests.support.specs import make_spec

ID = "create table t (id integer primary key, kind text)"


@pytest.fixture
def lake(tmp_path: Path) -> IcebergLake:
    return IcebergLake(tmp_path)


def pair(number: int, kind: str | None) -> dict[str, Any]:
    return {"id": number, "kind": kind}


INCREMENTAL: dict[str, Any] = {"mode": "incremental", "watermark": {"column": "id"}}
BY_KIND: dict[str, Any] = {"target": {"partition_by": ["kind"]}}


def test_partitions_are_columns_and_transforms(lake: IcebergLake) -> None:
    lake.source(
        "create table t (id integer primary key, kind text, at text, big text, on_day text)",
        "insert into t values (1, 'a/b', '1969-12-31 23:59:59.999999', '12.30', '0001-01-01'),"
        " (2, NULL, NULL, NULL, NULL), (3, 'null', '2026-02-03 04:05:06', '-0.01', '9999-12-31')",
    )
    columns = {"cast": {"at": "timestamp", "big": "decimal(20,2)", "on_day": "date"}}
    fields = ["kind", "extract_date", "hour(at)", "big", "month(on_day)"]
    report = run_extract(
        lake.spec("a", columns=columns, target={"partition_by": fields}),
        clock=lambda: datetime(2026, 3, 4, tzinfo=UTC),
    )
    assert (report.rows, report.files) == (3, 3)
    rows = lake.rows()
    assert rows == lake.rows_by_duckdb()
    assert [row["kind"] for row in rows] == ["a/b", None, "null"]
    assert {row["extract_date"] for row in rows} == {date(2026, 3, 4)}
    assert rows[0]["at"] == datetime(1969, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001
    table = lake.table()
    assert [str(f.transform) for f in table.spec().fields] == [
        "identity", "identity", "hour", "identity", "month",
    ]  # fmt: skip
    # Readers skip files by these values.
    for condition, ids in (
        ("at < '1970-01-01T00:00:00'", [1]), ("big = '-0.01'", [3]),
        ("on_day <= '0001-01-31'", [1]),
        ("kind is null", [2]), ("kind = 'null'", [3]),
    ):  # fmt: skip
        scan = table.scan(row_filter=condition)
        assert scan.to_arrow().column("id").to_pylist() == ids, condition
        assert len(list(scan.plan_files())) == 1, condition
    values = table.inspect.partitions().column("partition").to_pylist()
    assert {value["at_hour"] for value in values} == {-1, None, 491_692}


def test_a_commit_is_one_snapshot_whose_summary_names_it(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    lake.run("a", **INCREMENTAL)
    lake.source("insert into t values (3, 'a')")
    lake.run("b", **INCREMENTAL)
    assert lake.rows() == [pair(1, "a"), pair(2, "b"), pair(3, "a")]
    table = lake.table()
    summaries = [s.summary.additional_properties for s in table.metadata.snapshots if s.summary]
    assert [s["extract-jobs.run-id"] for s in summaries] == ["a", "b"]
    assert [s["extract-jobs.watermark"] for s in summaries] == ["2", "3"]
    assert [s["extract-jobs.source"] for s in summaries] == ["sales/t", "sales/t"]
    log = lake.log()
    assert [s[COMMIT_ID] for s in summaries] == [
        commit.commit_id for seq in (1, 2) if (commit := log.read(seq))
    ]
    first = table.scan(snapshot_id=table.metadata.snapshots[0].snapshot_id).to_arrow()
    assert sorted(first.column("id").to_pylist()) == [1, 2]
    # Nothing new is no snapshot; a repeated run is none either.
    lake.run("c", **INCREMENTAL)
    lake.run("b", **INCREMENTAL)
    assert len(lake.table().metadata.snapshots) == 2


@pytest.mark.parametrize("kind", [Append, Replacement])
def test_summaries_are_those_of_pyiceberg(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch, kind: type[_SnapshotProducer[Any]]
) -> None:
    seen = []
    ours = kind._summary

    def both(self: Any, given: dict[str, str]) -> Summary:
        found = ours(self, given)
        seen.append((found, _SnapshotProducer._summary(self, given)))
        return found

    monkeypatch.setattr(kind, "_summary", both)
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b'), (3, 'b')")
    lake.run("a", **BY_KIND)
    lake.source("delete from t where id = 1", "insert into t values (4, 'c')")
    lake.run("b", **BY_KIND)
    [(found, theirs)] = seen
    assert found == theirs
    assert found["changed-partition-count"] == ("2" if kind is Append else "3")


def test_properties_decide_which_bounds_columns_get(lake: IcebergLake) -> None:
    properties = {"write.metadata.metrics.default": "none",
                  "write.metadata.metrics.column.id": "full"}  # fmt: skip
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    lake.run("a", target={"properties": properties})
    table = lake.table()
    [task] = table.scan().plan_files()
    assert task.file.lower_bounds.keys() == {table.schema().find_field("id").field_id}
    assert properties.items() <= table.properties.items()
    lake.run("b", target={"properties": {"write.metadata.metrics.default": "counts"}})
    table = lake.table()
    assert table.properties["write.metadata.metrics.default"] == "counts"
    assert table.properties["write.metadata.metrics.column.id"] == "full"  # it is not taken away
    with pytest.raises(ValidationError, match=r"target\.properties\.write\.data\.path: only prop"):
        lake.spec("c", target={"properties": {"write.data.path": "s3://elsewhere"}})
    with pytest.raises(ValidationError, match=r"target\.properties are those of an Iceberg"):
        lake.spec("c", target={"format": "parquet", "catalog": None, "properties": properties})


def test_full_extracts_replace_and_older_snapshots_stay_readable(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    lake.run("a")
    lake.source("delete from t where id = 1", "insert into t values (3, 'c')")
    lake.run("b")
    assert lake.rows() == lake.rows_by_duckdb() == [pair(2, "b"), pair(3, "c")]
    table = lake.table()
    before = table.scan(snapshot_id=table.metadata.snapshots[0].snapshot_id).to_arrow()
    assert sorted(before.column("id").to_pylist()) == [1, 2]
    assert verify_files(lake.log(), lake.spec("any").target.uri, pages=True).faults == ()
    lake.source("delete from t")
    with pytest.raises(ReconcileFailed, match="no row, and the table has 2, all of which would go"):
        lake.run("c")
    assert lake.rows() == [pair(2, "b"), pair(3, "c")]
    lake.run("c", empty_source="accept")
    assert lake.rows() == []
    lake.run("d")  # there is nothing to lose


def test_an_empty_table_is_a_table_without_rows(lake: IcebergLake) -> None:
    lake.source(ID)
    lake.run("a", **INCREMENTAL)
    assert lake.rows() == lake.rows_by_duckdb() == []
    assert lake.table().schema().column_names[:2] == ["id", "kind"]


def test_partitions_are_replaced_even_if_another_tool_moved_their_rows(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b'), (3, 'b')")
    replacing = {"target": {"partition_by": ["kind"], "write_mode": "overwrite_partitions"}}
    lake.run("a", **replacing)
    table = lake.table()
    table.overwrite(table.scan().to_arrow())  # as compaction does: the same rows in other files
    lake.source("delete from t where id in (1, 2)", "insert into t values (4, 'b')")
    lake.run("b", **replacing)
    assert lake.rows() == lake.rows_by_duckdb() == [pair(1, "a"), pair(3, "b"), pair(4, "b")]
    assert verify_files(lake.log(), lake.spec("any").target.uri).faults == ()


def test_partitions_of_every_type_are_replaced(lake: IcebergLake) -> None:
    types = {"at": "timestamp", "zoned": "timestamptz", "on_day": "date", "big": "decimal(20,2)",
             "flag": "boolean", "few": "int8"}  # fmt: skip
    lake.source(
        f"create table t (id integer primary key, {', '.join(f'{name} text' for name in types)})",
        "insert into t values (1, '1969-12-31 23:59:59.5', '2026-01-01 00:00:00.25+02:00',"
        " '1900-02-03', '-1.20', 'true', '-7')",
        "insert into t (id) values (2)",
    )
    fields = [*types, "year(on_day)", "day(at)", "month(zoned)"]
    replacing = {
        "columns": {"cast": types},
        "target": {"partition_by": fields, "write_mode": "overwrite_partitions"},
    }
    lake.run("a", **replacing)
    lake.run("b", **replacing)
    assert lake.rows() == lake.rows_by_duckdb()
    assert [row["id"] for row in lake.rows()] == [1, 2]


def test_late_rows_are_recognized_in_files_that_another_tool_wrote(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    lagging = {
        "mode": "incremental", "watermark": {"column": "id", "lag": 5}, "columns": {"key": ["id"]},
    }  # fmt: skip
    lake.run("a", **lagging, **BY_KIND)
    table = lake.table()
    table.overwrite(table.scan().to_arrow())
    lake.source("insert into t values (-1, 'late'), (3, 'c')")
    assert lake.run("b", **lagging, **BY_KIND).repeated_rows == 2
    assert [row["id"] for row in lake.rows()] == [-1, 1, 2, 3]


def foreign_append(lake: IcebergLake, number: int) -> None:
    table = lake.table()
    columns = table.scan().to_arrow().schema
    row = dict.fromkeys(columns.names) | {"id": number}
    table.append(pa.Table.from_pylist([row], columns))


def racing(monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], object], times: int = 1) -> None:
    """Let something happen between reading the table and writing to it."""
    begin, left = IcebergTable._begin, [times]

    def begin_late(self: IcebergTable, catalog: Any, table: Any, commit: Any) -> Transaction:
        transaction = begin(self, catalog, table, commit)
        if left[0]:
            left[0] -= 1
            meddle()
        return transaction

    monkeypatch.setattr(IcebergTable, "_begin", begin_late)


def test_rows_of_another_writer_stay_beside_ours(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a", **INCREMENTAL)
    lake.source("insert into t values (2, 'b')")
    racing(monkeypatch, lambda: foreign_append(lake, 100), times=2)
    lake.run("b", **INCREMENTAL)
    assert [row["id"] for row in lake.rows()] == [1, 2, 100, 100]


def test_one_commit_published_by_several_processes_is_there_once(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    lake.run("a", **BY_KIND)
    lake.source("insert into t values (3, 'a')")
    other = lake.log(**BY_KIND)
    seen: list[Commit] = []

    def publish_elsewhere() -> None:
        commit = other.newest()
        assert commit is not None
        seen.append(commit)
        assert other.publish(commit) == "published"

    racing(monkeypatch, publish_elsewhere)
    lake.run("b", **BY_KIND)
    assert [row["id"] for row in lake.rows()] == [1, 2, 3]
    assert len(lake.table().metadata.snapshots) == 2
    # A process that slept while later commits were made, and their history was dropped.
    lake.source("insert into t values (4, 'a')")
    lake.run("c", **BY_KIND)
    table = lake.table()
    table.maintenance.expire_snapshots().by_ids(
        [s.snapshot_id for s in table.metadata.snapshots[:-1]]
    ).commit()
    assert other._switch(seen[0]) == ""
    assert [row["id"] for row in lake.rows()] == [1, 2, 3, 4]


def test_footers_are_read_by_publishers_that_have_not_staged_the_files(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    read, footer = list[str](), data_files._footer

    def noted(uri: str, *more: Any) -> Any:
        read.append(uri)
        return footer(uri, *more)

    monkeypatch.setattr(data_files, "_footer", noted)
    lake.run("a", **BY_KIND)
    assert read == []
    lake.source("insert into t values (3, 'a')")
    with monkeypatch.context() as patch:
        patch.setattr(IcebergTable, "publish", Mock(side_effect=WriteFailed("the answer was lost")))
        with pytest.raises(WriteFailed):
            lake.run("b", **BY_KIND)
    lake.log().finish_last()
    assert len(read) == 2
    assert lake.rows() == lake.rows_by_duckdb() == [pair(1, "a"), pair(2, "b"), pair(3, "a")]


def test_a_publisher_that_finds_files_gone_keeps_what_readers_see(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    lake.run("a", **BY_KIND)
    log = lake.log(**BY_KIND)
    commit = log.read(1)
    assert commit is not None
    Path(commit.files[0].staged.uri).unlink()
    (lake.folder / "state" / "outcomes" / f"{1:020d}.json").unlink()
    assert log.publish(commit) == "published"
    assert Path(commit.files[1].staged.uri).exists()


@pytest.mark.parametrize(("where", "value"), [
    (("schema", "type"), "list"), (("schema", "fields", 0, "type"), {"type": "list"}),
    (("schema", "fields", 0, "id"), "x"), (("schema", "identifier-field-ids"), [99]),
    (("partitions", 0, "source-id"), 99), (("partitions", 0, "name"), "other"),
])  # fmt: skip
def test_a_damaged_layout_touches_nothing(
    lake: IcebergLake, where: tuple[str | int, ...], value: Any
) -> None:
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    lake.run("a", **BY_KIND)
    (lake.folder / "state" / "outcomes" / f"{1:020d}.json").unlink()
    path = lake.folder / "state" / "commits" / f"{1:020d}.json"
    record = json.loads(path.read_text())
    place = record["iceberg"]
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    path.write_bytes(seal(without_seal(record)))
    before = sorted(lake.folder.rglob("*"))
    with pytest.raises(ConfigError, match=rf"commits/{1:020d}\.json was damaged: iceberg"):
        lake.log(**BY_KIND).finish_last()
    assert sorted(lake.folder.rglob("*")) == before
    assert lake.rows() == [pair(1, "a"), pair(2, "b")]


ALTERATIONS: list[tuple[str, str, str, str]] = [
    ("int32", "int64", "2", "9000000000"),
    ("int16", "int64", "2", "70000"),
    ("float32", "float64", "0.5", "0.1"),
    ("decimal(9,2)", "decimal(12,2)", "1.25", "1234567890.25"),
    ("decimal(18,2)", "decimal(38,2)", "1.25", "12345678901234567890123456.25"),
]


@pytest.mark.parametrize(("older", "newer", "small", "large"), ALTERATIONS)
def test_columns_are_widened_beside_older_files(
    lake: IcebergLake, older: str, newer: str, small: str, large: str
) -> None:
    lake.source("create table t (id integer primary key, a text)")
    lake.source(f"insert into t values (1, '{small}'), (2, null)")
    lake.run("a", columns={"cast": {"a": older}}, **INCREMENTAL)
    lake.source(f"insert into t values (3, '{large}')")
    report = lake.run("b", columns={"cast": {"a": newer}}, **INCREMENTAL)
    [change] = report.schema_changes
    assert change.kind == "widened"
    rows = lake.rows()
    assert rows == lake.rows_by_duckdb()
    values = [row["a"] for row in rows]
    assert [v if v is None else str(v) for v in values] == [small, None, large]
    condition = {"int": "a > 2", "flo": "a < 0.2", "dec": "a > 2.00"}[newer[:3]]
    found = lake.table().scan(row_filter=condition).to_arrow()
    assert found.column("id").to_pylist() == [3]


def test_columns_come_and_go(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a", **INCREMENTAL)
    lake.source("alter table t add column more text", "insert into t values (2, 'b', 'x')")
    lake.run("b", **INCREMENTAL)
    lake.source("alter table t drop column kind", "insert into t values (3, 'y')")
    lake.run("c", **INCREMENTAL)
    expected = [("a", None), ("b", "x"), (None, "y")]
    assert [(row["kind"], row["more"]) for row in lake.rows()] == expected
    assert lake.rows() == lake.rows_by_duckdb()
    # Replaced as a whole, the table is as the source is. A column that comes back is another one.
    lake.run("d")
    assert [row.keys() for row in lake.rows()] == [{"id", "more"}] * 3
    kinds = {
        f.field_id for s in lake.table().metadata.schemas for f in s.fields if f.name == "kind"
    }
    lake.source("alter table t add column kind integer", "update t set kind = id * 10")
    lake.run("e")
    assert [row["kind"] for row in lake.rows()] == [10, 20, 30]
    assert lake.rows() == lake.rows_by_duckdb()
    assert lake.table().schema().find_field("kind").field_id not in kinds


def test_a_type_that_iceberg_does_not_widen_is_refused_beside_older_files(
    lake: IcebergLake,
) -> None:
    number = {"cast": {"a": "int64"}}
    lake.source("create table t (id integer primary key, a text)", "insert into t values (1, '5')")
    lake.run("a", columns=number, **INCREMENTAL)
    lake.source("insert into t values (2, 'x')")
    with pytest.raises(SchemaChanged, match="column a is int64 in older files and now string"):
        lake.run("b", on_schema_change={"narrowed": "evolve"}, **INCREMENTAL)
    lake.run("c", on_schema_change={"narrowed": "evolve"})
    assert [row["a"] for row in lake.rows()] == ["5", "x"]


def test_a_column_that_another_tool_added_meanwhile_makes_the_run_start_over(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a", **INCREMENTAL)
    lake.source("alter table t add column more text", "insert into t values (2, 'b', 'x')")

    def add_column() -> None:
        with lake.table().update_schema() as update:
            update.add_column("theirs", StringType())

    publish, left = IcebergTable.publish, [1]

    def publish_late(self: IcebergTable, commit: Any) -> str:
        if left[0]:
            left[0] -= 1
            add_column()
        return publish(self, commit)

    monkeypatch.setattr(IcebergTable, "publish", publish_late)
    spec = lake.spec("b", **INCREMENTAL)
    with pytest.raises(Exception, match="because another tool altered the columns of the Ice"):
        run_extract(spec)
    assert [row["id"] for row in lake.rows()] == [1]
    run_extract(spec.model_copy(update={"attempt": 2}))
    expected = [pair(1, "a") | {"more": None}, pair(2, "b") | {"more": "x"}]
    assert lake.rows() == [{**row, "theirs": None} for row in expected]
    assert verify_files(lake.log(), spec.target.uri).faults == ()


def rename(lake: IcebergLake) -> None:
    with lake.table().update_schema() as update:
        update.rename_column("kind", "sort")


def repartition(lake: IcebergLake) -> None:
    with lake.table().update_spec() as update:
        update.add_identity("kind")


def drop(lake: IcebergLake) -> None:
    lake.table().catalog.drop_table("lake.t")


def disown(lake: IcebergLake) -> None:
    with lake.table().transaction() as transaction:
        transaction.set_properties({"extract-jobs.state": "s3://other/state"})


def name_code(lake: IcebergLake) -> None:
    with lake.table().transaction() as transaction:
        transaction.set_properties({"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"})


@pytest.mark.parametrize(
    ("meddle", "message"),
    [
        (rename, "does not have column kind any more, or not the one that earlier commits wrote"),
        (repartition, r"is now partitioned by identity kind, unlike target\.partition_by"),
        (drop, r"is gone from the catalog, and with it the rows of 1 commits"),
        (disown, r"belongs to s3://other/state, and not to "),
        (name_code, "has the property py-io-impl, which names code to load"),
    ],
)
def test_what_another_tool_did_to_the_table_is_refused_before_a_row_is_read(
    lake: IcebergLake, meddle: Callable[[IcebergLake], None], message: str
) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a", **INCREMENTAL)
    meddle(lake)
    lake.source("insert into t values (2, 'b')")
    with pytest.raises(ConfigError, match=message):
        lake.run("b", **INCREMENTAL)
    with pytest.raises(ConfigError, match=message):
        planned(lake.spec("b", **INCREMENTAL), datetime.now(UTC))


def test_a_table_of_somebody_else_is_refused(lake: IcebergLake) -> None:
    lake.source(ID)
    lake.run("a")
    with pytest.raises(ConfigError, match=r"Iceberg table lake\.t belongs to .*, and not to "):
        lake.run("b", state_uri=str(lake.folder / "state2"), target={"uri": str(lake.folder / "x")})


def test_a_format_is_kept(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a")
    with pytest.raises(ConfigError, match=r"its commits are of format iceberg, and target\.format"):
        lake.run("b", target={"format": "parquet", "catalog": None})


def test_what_a_killed_publisher_left_is_swept(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a")
    orphan = lake.folder / "target" / "metadata" / "dead-m0.avro"
    orphan.write_bytes(b"x")
    log, uri, now = lake.log(), lake.spec("any").target.uri, datetime.now(UTC)
    log.recover(uri, abandon_after=timedelta(hours=1), now=now)
    assert orphan.exists()
    log.recover(uri, abandon_after=timedelta(0), now=now + timedelta(seconds=5))
    assert not orphan.exists()
    assert lake.rows() == [pair(1, "a")]


def test_nothing_is_swept_of_a_table_that_the_catalog_does_not_have(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a")
    uri, later = lake.spec("any").target.uri, datetime.now(UTC) + timedelta(seconds=5)
    elsewhere = {"type": "sqlite", "path": str(lake.folder / "typo.db"), "database": "lake"}
    for catalog in (elsewhere | {"table": "t"}, lake.where | {"table": "other"}):
        log = lake.log(target={"catalog": catalog})
        log.recover(uri, abandon_after=timedelta(0), now=later)
        with pytest.raises(ConfigError, match="is gone from the catalog"):
            verify_files(log, uri)
    assert lake.rows() == [pair(1, "a")]


def test_a_state_older_than_the_table_is_refused(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a", **INCREMENTAL)
    state, older = lake.folder / "state", lake.folder / "older"
    shutil.copytree(state, older)
    lake.source("insert into t values (2, 'b')")
    lake.run("b", **INCREMENTAL)
    shutil.rmtree(state)
    older.rename(state)
    with pytest.raises(ConfigError, match=r"has commit 2, which .*state has not: records of"):
        lake.run("c", **INCREMENTAL)
    with pytest.raises(ConfigError, match="has commit 2"):
        lake.run("d")


def test_a_state_that_was_lost_after_an_empty_commit_is_refused(lake: IcebergLake) -> None:
    lake.source(ID)
    lake.run("a")
    shutil.rmtree(lake.folder / "state")
    lake.source("insert into t values (1, 'a')")
    with pytest.raises(ConfigError, match="has commit 1, which"):
        lake.run("b")


def test_no_partition_is_null_for_a_value_that_is_not(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, '')")
    with pytest.raises(TypeNotRepresentable, match=r"an empty text .* use another partition$"):
        lake.run("a", lossy_types="null", **BY_KIND)


def test_without_pyiceberg_a_first_run_is_refused(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.source(ID)
    monkeypatch.setitem(sys.modules, "pyiceberg.io.pyarrow", None)
    with pytest.raises(ConfigError, match=r"install 'extract-jobs\[iceberg\]'"):
        lake.run("a")
    assert lake.log().newest() is None


def test_verify_names_files_that_differ(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    lake.run("a", **BY_KIND)
    log, uri = lake.log(), lake.spec("any").target.uri
    commit = log.read(1)
    assert commit is not None
    Path(commit.files[0].staged.uri).unlink()
    stray = lake.folder / "target" / "data" / "stray.parquet"
    stray.write_bytes(b"x")
    faults = {Path(fault.uri): fault.problem for fault in verify_files(log, uri).faults}
    assert faults == {
        Path(commit.files[0].staged.uri): "is missing, with 1 row",
        stray: "belongs to no live commit: no reader sees it",
    }


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"format": "iceberg"}, r"target\.format iceberg needs target\.catalog"),
        ({"catalog": {"type": "sqlite", "path": "c", "database": "d", "table": "t"}},
         r"target\.catalog\.type sqlite is for target\.format iceberg"),
        ({"format": "iceberg", "catalog": {"type": "sqlite", "database": "d", "table": "t"}},
         "path is for type sqlite, which needs it"),
        ({"format": "iceberg", "catalog": {"database": "d", "table": "t"},
          "partition_by": ["day(a)", "hour( a )"]}, r"has day\(a\) and hour\( a \): in an Iceberg"),
        ({"format": "delta"}, "Input should be 'parquet' or 'iceberg'"),
    ],
)  # fmt: skip
def test_what_iceberg_cannot_is_refused_with_the_config(
    target: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_spec(target=target)


def test_ids_in_the_files_are_those_of_the_table(lake: IcebergLake) -> None:
    lake.source(ID, "insert into t values (1, 'a')")
    lake.run("a")
    commit = lake.log().read(1)
    assert commit is not None
    assert commit.iceberg is not None
    schema = Schema.model_validate(commit.iceberg["schema"])
    assert schema == lake.table().schema()
    damaged = replace(commit, iceberg={**commit.iceberg, "partitions": [{"name": 1}]})
    with pytest.raises(ConfigError, match="iceberg is not valid"):
        Commit.from_bytes(damaged.to_bytes(), "here", 1)
    assert lake.table().properties[SEQ] == "1"


def manifests(lake: IcebergLake) -> int:
    snapshot = lake.table().current_snapshot()
    assert snapshot is not None
    return len(snapshot.manifests(lake.table().io))


def test_manifests_of_replaced_files_leave_with_the_next_commit(lake: IcebergLake) -> None:
    """pyiceberg's own snapshot keeps them, and reads them all for every later one."""
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    replacing = {"target": {"partition_by": ["kind"], "write_mode": "overwrite_partitions"}}
    for number in range(4):
        lake.source(
            "update t set id = id + 2", *(["delete from t where kind = 'b'"] * (number > 1))
        )
        lake.run(f"r{number}", **replacing)
    # Kind b is as the second run left it; each other one of the manifests is of the last run.
    assert lake.rows() == lake.rows_by_duckdb() == [pair(6, "b"), pair(9, "a")]
    assert manifests(lake) == 3
    for number in range(4, 7):
        lake.run(f"r{number}")
    assert lake.rows() == lake.rows_by_duckdb() == [pair(9, "a")]
    assert manifests(lake) == 2


@pytest.mark.parametrize("write_mode", ["append", "overwrite_partitions"])
def test_manifests_are_merged(lake: IcebergLake, write_mode: str) -> None:
    lake.source("create table t (id integer primary key)")
    more: dict[str, Any] = {"target": {"partition_by": ["id"], "write_mode": write_mode}}
    for number in range(1, 8):
        lake.source(f"insert into t values ({number})", f"delete from t where id < {number}")
        lake.run(f"r{number}", **more)
        if number == 1:
            with lake.table().transaction() as transaction:
                transaction.set_properties({"commit.manifest.min-count-to-merge": "3"})
    assert lake.rows() == lake.rows_by_duckdb() == [{"id": number} for number in range(1, 8)]
    assert manifests(lake) <= 3
    with lake.table().transaction() as transaction:
        transaction.set_properties({"commit.manifest-merge.enabled": "false"})
    before = manifests(lake)
    lake.source("insert into t values (8)", "delete from t where id < 8")
    lake.run("r8", **more)
    assert manifests(lake) == before + 1
    assert [row["id"] for row in lake.rows()] == list(range(1, 9))


@pytest.mark.parametrize("missing", ["pyiceberg.io.pyarrow", "sqlalchemy"])
def test_a_package_that_is_missing_is_named(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """What `make dist` builds has no SQLAlchemy."""
    monkeypatch.delitem(sys.modules, "pyiceberg.catalog.sql", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    lake.source(ID)
    with pytest.raises(ConfigError, match=rf"\({missing} is missing\): install 'extract-jobs\[ice"):
        lake.run("r1")
