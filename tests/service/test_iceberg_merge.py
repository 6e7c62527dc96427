"""Iceberg tables whose rows are replaced and deleted by key, as two other tools read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.types import DoubleType

from extract_jobs.attempt import merge
from extract_jobs.attempt.dry_run import planned
from extract_jobs.cli.plan import plan_text
from extract_jobs.commit import merge_keys
from extract_jobs.commit.rollback import roll_back
from extract_jobs.commit.verification import verify_files
from extract_jobs.errors import ConfigError, ReconcileFailed, SchemaChanged
from extract_jobs.iceberg.table import IcebergTable
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import parse_spec
from tests.support.crash import Lake
from tests.support.iceberg import IcebergLake, by_duckdb, ordered
from tests.support.postgres import Server
from tests.support.sampling import sample
from tests.support.specs import make_spec

TABLE = "create table t (id integer primary key, kind text, v integer)"


@pytest.fixture
def lake(tmp_path: Path) -> IcebergLake:
    return IcebergLake(tmp_path)


def run(lake: IcebergLake, run_id: str, **more: Any) -> Report:
    return lake.run(run_id, **merging(**more))


def merging(**more: Any) -> dict[str, Any]:
    target = {"write_mode": "merge", "partition_by": ["kind"], **more.pop("target", {})}
    given = {
        "mode": "incremental", "watermark": {"column": "v"}, "columns": {"key": ["id"]},
        "deletes": "detect",
    }  # fmt: skip
    return {**given, "target": target, **more}


def rows(lake: IcebergLake) -> list[tuple[Any, ...]]:
    found = lake.rows()
    assert found == lake.rows_by_duckdb()
    return [tuple(row.values()) for row in found]


def counts(report: Report) -> tuple[int, int, int]:
    return report.inserted_rows, report.updated_rows, report.deleted_rows


def test_rows_are_replaced_inserted_and_deleted_in_one_snapshot(lake: IcebergLake) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'a', 2), (3, 'b', 3), (4, null, 4)")
    assert counts(run(lake, "a")) == (4, 0, 0)
    # Row 1 moves to another partition; row 3's partition becomes empty.
    lake.source(
        "update t set kind = 'c', v = 5 where id = 1", "delete from t where id = 3",
        "insert into t values (5, 'a', 6)",
    )  # fmt: skip
    report = run(lake, "b")
    assert counts(report) == (1, 1, 1)
    assert (report.rows, report.files, report.rewritten_files, report.rewritten_rows) == (
        2,
        2,
        1,
        1,
    )
    assert rows(lake) == [(1, "c", 5), (2, "a", 2), (4, None, 4), (5, "a", 6)]
    table = lake.table()
    assert len(table.metadata.snapshots) == 2
    kinds = {task.file.partition[0] for task in table.scan().plan_files()}
    assert kinds == {"a", "c", None}
    log = lake.log(**merging())
    assert (last := log.newest()) is not None
    assert (last.rows, last.file_count, last.key) == (2, 2, ("id",))
    assert verify_files(log, last.target_uri, pages=True).faults == ()
    # No row is new, and one is gone.
    lake.source("delete from t where id = 4")
    report = run(lake, "c")
    assert (counts(report), report.rows, report.commit_seq) == ((0, 0, 1), 0, 3)
    assert [row[0] for row in rows(lake)] == [1, 2, 5]
    assert run(lake, "d").commit_seq is None
    older = table.scan(snapshot_id=table.metadata.snapshots[0].snapshot_id).to_arrow()
    assert sorted(older.column("id").to_pylist()) == [1, 2, 3, 4]


def test_files_beyond_the_keys_are_not_read(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (9, 'd', 4)")
    run(lake, "a", deletes="ignore")
    lake.source("update t set v = 5 where id = 2", "delete from t where id = 9",
                "insert into t values (10, 'a', 6)")  # fmt: skip
    seen: list[str] = []
    without = merge._Rewriting.without_changed

    def noted(self: Any, file: Any, *rest: Any) -> Any:
        seen.append(file.location)
        return without(self, file, *rest)

    monkeypatch.setattr(merge._Rewriting, "without_changed", noted)
    assert counts(run(lake, "b", deletes="ignore")) == (1, 1, 0)
    assert [one for one in seen if "kind=a" in one] == []
    assert [row[0] for row in rows(lake)] == [1, 2, 3, 9, 10]  # deletes are ignored


KEYS: list[tuple[str, str, str]] = [
    ("int32", "'-7'", "'8'"),
    ("decimal(38,9)", "'12345678901234567890123456789.123456789'", "'-0.000000001'"),
    ("timestamp", "'1969-12-31 23:59:59.999999'", "'2026-02-03 04:05:06'"),
    ("timestamptz", "'2026-01-01 00:00:00.25+02:00'", "'2026-01-01 00:00:00.26+02:00'"),
    ("date", "'0001-01-01'", "'9999-12-31'"),
    ("boolean", "'true'", "'false'"),
    ("string", "'a'", "'A'"),
    ("string", "''", "'ä very long text, of which bounds keep the first characters'"),
]


@pytest.mark.parametrize(("kind", "one", "other"), sample(KEYS, 3))
def test_keys_of_every_type(lake: IcebergLake, kind: str, one: str, other: str) -> None:
    columns = {"key": ["k"], "cast": {"k": kind}}
    lake.source("create table t (id integer, k text, v integer)",
                f"insert into t values (1, {one}, 1), (2, {other}, 2)")  # fmt: skip
    more: dict[str, Any] = {"columns": columns, "target": {"partition_by": []}}
    run(lake, "a", **more)
    lake.source(f"update t set id = 3, v = 3 where k = {one}")
    assert counts(run(lake, "b", **more)) == (0, 1, 0)
    assert [row[0] for row in rows(lake)] == [2, 3]
    lake.source(f"delete from t where k = {other}")
    assert counts(run(lake, "c", **more)) == (0, 0, 1)
    assert [row[0] for row in rows(lake)] == [3]


def test_masked_and_renamed_keys_of_several_columns(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASK_KEY", "k" * 32)
    columns = {
        "key": ["id", "mail"], "mask": {"mail": "hash"}, "mask_key": {"env": "MASK_KEY"},
        "rename": {"mail": "person"},
    }  # fmt: skip
    more: dict[str, Any] = {"columns": columns, "target": {"partition_by": []}}
    lake.source("create table t (id integer, mail text, v integer)",
                "insert into t values (1, 'x', 1), (1, 'y', 2), (2, 'x', 3)")  # fmt: skip
    run(lake, "a", **more)
    lake.source("update t set v = 4 where id = 1 and mail = 'y'", "delete from t where id = 2")
    assert counts(run(lake, "b", **more)) == (0, 1, 1)
    assert sorted((row[0], row[2]) for row in rows(lake)) == [(1, 1), (1, 4)]
    monkeypatch.setenv("MASK_KEY", "m" * 32)
    lake.source("update t set v = 5 where id = 1 and mail = 'y'")
    with pytest.raises(SchemaChanged, match="has a new mask or mask key"):
        run(lake, "c", **more)


def test_columns_come_go_and_widen_in_a_run_that_merges(lake: IcebergLake) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'a', 2), (3, 'a', 3)")
    narrow = {"key": ["id"], "cast": {"id": "int32"}}
    run(lake, "a", columns=narrow)
    lake.source("alter table t add column more text", "update t set v = 4, more = 'x' where id = 2")
    report = run(lake, "b")
    assert [change.kind for change in report.schema_changes] == ["widened", "added"]
    assert counts(report) == (0, 1, 0)
    found = [(row["id"], row["v"], row["more"]) for row in lake.rows()]
    assert found == [(1, 1, None), (2, 4, "x"), (3, 3, None)]
    lake.source("alter table t drop column more", "update t set v = 5 where id = 3")
    assert counts(run(lake, "c")) == (0, 1, 0)
    assert [(r["id"], r["v"], r["more"]) for r in lake.rows()] == [
        (1, 1, None), (2, 4, "x"), (3, 5, None),
    ]  # fmt: skip
    assert lake.rows() == lake.rows_by_duckdb()


def test_an_empty_source_does_not_empty_the_table_unasked(lake: IcebergLake) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'b', 2)")
    run(lake, "a")
    lake.source("delete from t")
    with pytest.raises(ReconcileFailed, match="no row, and the table has 2, all of which would go"):
        run(lake, "b")
    assert [row[0] for row in rows(lake)] == [1, 2]
    assert counts(run(lake, "b", empty_source="accept")) == (0, 0, 2)
    assert rows(lake) == []
    assert run(lake, "c").commit_seq is None  # there is nothing to lose
    lake.source("insert into t values (3, 'a', 3)")
    run(lake, "d")
    assert [row[0] for row in rows(lake)] == [3]


def test_a_lag_reads_rows_again_and_replaces_them(lake: IcebergLake) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'a', 5)")
    lagging = {"watermark": {"column": "v", "lag": 3}, "deletes": "ignore"}
    run(lake, "a", **lagging)
    lake.source("insert into t values (3, 'a', 4)")  # late
    assert counts(run(lake, "b", **lagging)) == (1, 1, 0)
    assert rows(lake) == [(1, "a", 1), (2, "a", 5), (3, "a", 4)]


def test_rows_of_the_source_that_no_interval_had_are_counted(lake: IcebergLake) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'b', 2), (3, 'b', 3)")
    run(lake, "a")
    # Row 1 has another key and no new watermark; row 4 lies above the run's interval.
    lake.source("update t set id = 7 where id = 1", "insert into t values (4, 'a', 9)")
    report = run(lake, "b", watermark={"column": "v", "upper": 5})
    assert (counts(report), report.missing_rows) == ((0, 0, 1), 2)
    assert "2 of the source not in the table" in report.merged_text
    assert [row[0] for row in rows(lake)] == [2, 3]
    assert run(lake, "c").missing_rows == 1
    assert run(lake, "d").missing_rows == 1  # it has nothing to commit
    assert run(lake, "e", watermark={"column": "v", "lower": 0, "upper": 1}).missing_rows == 0
    assert [row[0] for row in rows(lake)] == [2, 3, 4, 7]


def test_a_row_that_another_tool_doubled_is_found_though_it_has_not_changed(
    lake: IcebergLake,
) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'b', 2)")
    run(lake, "a")
    lake.table().append(lake.table().scan("id = 1").to_arrow())
    with pytest.raises(ConfigError, match="several rows for up to 1 of the keys"):
        run(lake, "b")
    run(lake, "c", mode="full")
    assert rows(lake) == [(1, "a", 1), (2, "b", 2)]


def test_rows_that_were_written_again_are_recognized_by_appends(lake: IcebergLake) -> None:
    lake.source(TABLE, *(f"insert into t values ({n}, 'a', {n})" for n in range(1, 7)))
    run(lake, "a", watermark={"column": "v", "upper": 4})
    lake.source("update t set v = 7 where id = 1")
    assert counts(run(lake, "b", watermark={"column": "v", "upper": 7})) == (2, 1, 0)
    appending = {"target": {"write_mode": "append"}, "deletes": "ignore"}
    report = run(lake, "c", watermark={"column": "v", "lower": 0, "upper": 3}, **appending)
    assert (report.rows, report.repeated_rows) == (0, 2)
    assert [row[0] for row in rows(lake)] == [1, 2, 3, 4, 5, 6]
    lake.source("insert into t values (7, 'a', 8)")
    run(lake, "d", **appending)
    with pytest.raises(ConfigError, match="only a table whose runs replace it"):
        roll_back(lake.log(), 1, run_id="back", keep=False)


def test_a_merged_table_goes_back_and_merges_on(lake: IcebergLake) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'b', 2), (3, 'b', 3)")
    run(lake, "a", deletes="ignore")
    lake.source("update t set v = 4 where id = 1", "insert into t values (4, 'a', 5)")
    run(lake, "b", deletes="ignore")
    lake.source("update t set v = 6, kind = 'c' where id = 2", "delete from t where id = 3")
    run(lake, "c")
    assert rows(lake) == [(1, "a", 4), (2, "c", 6), (4, "a", 5)]
    log = lake.log(**merging())
    roll_back(log, 2, run_id="back", keep=False)
    assert rows(lake) == [(1, "a", 4), (2, "b", 2), (3, "b", 3), (4, "a", 5)]
    assert verify_files(log, lake.spec("any").target.uri, pages=True).faults == ()
    # The next run goes on from the earlier watermark.
    lake.source("insert into t values (5, 'd', 7)")
    assert counts(run(lake, "d")) == (1, 1, 1)
    assert rows(lake) == [(1, "a", 4), (2, "c", 6), (4, "a", 5), (5, "d", 7)]
    roll_back(log, 1, run_id="further", keep=False)
    assert rows(lake) == [(1, "a", 1), (2, "b", 2), (3, "b", 3)]
    assert counts(run(lake, "e")) == (2, 2, 1)
    assert rows(lake) == [(1, "a", 4), (2, "c", 6), (4, "a", 5), (5, "d", 7)]


def test_rows_that_another_tool_moved_are_merged(lake: IcebergLake) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'a', 2), (3, 'b', 3), (4, null, 4)")
    run(lake, "a")
    table = lake.table()
    table.overwrite(table.scan().to_arrow())
    lake.source("update t set v = 5 where id = 2", "delete from t where id = 4")
    assert counts(run(lake, "b")) == (0, 1, 1)
    assert rows(lake) == [(1, "a", 1), (2, "a", 5), (3, "b", 3)]
    log = lake.log(**merging())
    assert verify_files(log, lake.spec("any").target.uri).faults == ()


def test_files_with_columns_that_another_tool_took_away_are_written_again(
    lake: IcebergLake,
) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'a', 2)")
    run(lake, "a")
    with lake.table().update_schema() as update:
        update.add_column("theirs", DoubleType())
    table = lake.table()
    found = table.scan().to_arrow()
    table.overwrite(found.set_column(len(found.schema) - 1, "theirs", pa.array([0.5, 1.5])))
    lake.source("update t set v = 3 where id = 1")
    assert counts(run(lake, "b")) == (0, 1, 0)
    assert [row["theirs"] for row in lake.rows()] == [None, 1.5]
    with lake.table().update_schema() as update:
        update.delete_column("theirs")
    lake.source("insert into t values (3, 'a', 4)", "update t set v = 5 where id = 1")
    assert counts(run(lake, "c")) == (1, 1, 0)
    with lake.table().update_schema() as update:
        update.add_column("theirs", DoubleType())  # another one
    lake.source("update t set v = 6 where id = 1")
    assert counts(run(lake, "d")) == (0, 1, 0)
    assert [(row["id"], row["theirs"]) for row in lake.rows()] == [(1, None), (2, None), (3, None)]
    assert lake.rows() == lake.rows_by_duckdb()


def late(monkeypatch: pytest.MonkeyPatch, lake: IcebergLake, act: Callable[[], None]) -> None:
    """Let something happen to the table when its commit is about to be published."""
    publish, left = IcebergTable.publish, [1]

    def publish_late(self: IcebergTable, commit: Any) -> str:
        if left[0] and commit.removes:
            left[0] -= 1
            act()
        return publish(self, commit)

    monkeypatch.setattr(IcebergTable, "publish", publish_late)


def test_a_compaction_in_the_last_moment_makes_the_run_merge_again(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'a', 2), (3, 'b', 3)")
    run(lake, "a")
    lake.source("update t set v = 5 where id = 2", "delete from t where id = 1")

    def compact() -> None:
        table = lake.table()
        table.overwrite(table.scan().to_arrow())

    late(monkeypatch, lake, compact)
    report = run(lake, "b")
    assert (counts(report), report.commit_seq) == ((0, 1, 1), 3)
    assert rows(lake) == [(2, "a", 5), (3, "b", 3)]
    log = lake.log(**merging())
    voided = log.read(2)
    assert voided is not None
    assert log.outcome(voided) == "voided"
    assert log.why_voided(voided) == (
        "another tool replaced 1 of the 1 files of the Iceberg table that hold the merged rows, as "
        "a compaction does"
    )
    assert [one for one in voided.files if Path(one.staged.uri).exists()] == []
    assert verify_files(log, voided.target_uri).faults == ()


def test_rows_that_another_tool_adds_in_the_last_moment_stay(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'a', 2)")
    run(lake, "a", deletes="ignore")
    lake.source("update t set v = 5 where id = 2")

    def add() -> None:
        table = lake.table()
        row = table.scan(row_filter="id = 1").to_arrow()
        table.append(row.set_column(0, "id", [[100]]).cast(row.schema))

    late(monkeypatch, lake, add)
    assert run(lake, "b", deletes="ignore").commit_seq == 2
    assert [row[0] for row in rows(lake)] == [1, 2, 100]
    # Deletes are detected whoever wrote the rows.
    assert counts(run(lake, "c")) == (0, 0, 1)
    assert [row[0] for row in rows(lake)] == [1, 2]


def test_a_full_extract_replaces_the_table_and_runs_merge_on(lake: IcebergLake) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'a', 2)")
    lake.run("a", mode="incremental", watermark={"column": "v"}, target={"partition_by": ["kind"]})
    lake.source("update t set v = 3 where id = 1")
    lake.run("b", mode="incremental", watermark={"column": "v"}, target={"partition_by": ["kind"]})
    assert [row["id"] for row in lake.rows()] == [1, 1, 2]  # readers order equal ids as they like
    message = "made without write_mode merge, so several rows of the table may have the same id"
    with pytest.raises(ConfigError, match=message):
        run(lake, "c")
    lake.source("update t set v = 4 where id = 2")
    assert lake.spec("d", **merging(mode="full")).target.write_mode == "overwrite"
    run(lake, "d", mode="full")
    lake.source("update t set v = 5 where id = 2", "insert into t values (3, 'b', 6)")
    assert counts(run(lake, "e")) == (1, 1, 0)
    assert rows(lake) == [(1, "a", 3), (2, "a", 5), (3, "b", 6)]
    with pytest.raises(ConfigError, match="by the key id, so several rows"):
        run(lake, "f", columns={"key": ["id", "kind"]})


@pytest.mark.parametrize(
    ("columns", "change", "message"),
    [
        ({"key": ["kind"]}, "insert into t values (5, 'a', 6), (6, 'a', 7)",
         "1 of the 2 rows that were read have the same key as another row"),
        ({"key": ["kind"]}, "update t set v = 9 where id = 3",
         "2 of the source's 4 rows have the same key as another row"),
        ({"key": ["kind"]}, "insert into t values (5, null, 6)",
         "columns.key: kind holds NULL in 1 rows of a batch"),
        ({"key": ["v"], "cast": {"v": "float64"}}, "insert into t values (5, 'a', 6)",
         "v is double, whose values cannot be compared byte by byte"),
    ],
)  # fmt: skip
def test_a_key_that_identifies_no_row_is_refused(
    lake: IcebergLake, columns: dict[str, Any], change: str, message: str
) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'a', 2), (3, 'b', 3), (4, 'a', 4)")
    more: dict[str, Any] = {"columns": columns, "target": {"partition_by": []}}
    if "cast" not in columns:
        run(lake, "a", **more)
        lake.source(change)
    if "read have" in message:
        more["deletes"] = "ignore"
    with pytest.raises(ConfigError, match=message):
        run(lake, "b", **more)
    if "cast" not in columns:
        assert len(rows(lake)) == 4
        assert list(Path(lake.folder / "target").rglob("*.staged")) == []


def test_a_key_with_several_rows_in_the_table_is_refused(lake: IcebergLake) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1), (2, 'a', 2), (3, 'b', 3)")
    more: dict[str, Any] = {
        "columns": {"key": ["kind"]}, "deletes": "ignore", "target": {"partition_by": []},
    }  # fmt: skip
    run(lake, "a", **more)
    lake.source("update t set v = 9 where id = 1")
    with pytest.raises(ConfigError, match="the table has several rows for up to 1 of the keys"):
        run(lake, "b", **more)
    assert rows(lake) == [(1, "a", 1), (2, "a", 2), (3, "b", 3)]
    assert list(Path(lake.folder / "target").rglob("*.staged")) == []


def test_more_keys_than_fit_are_refused(lake: IcebergLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_keys, "MAX_KEYS", 3)
    lake.source(TABLE, *(f"insert into t values ({n}, 'a', {n})" for n in range(6)))
    run(lake, "a")  # the first run replaces nothing
    lake.source("update t set v = v + 10")
    with pytest.raises(ConfigError, match="the interval has more than 3 rows, and merging"):
        run(lake, "b")
    lake.source("update t set v = v - 10 where id < 5")
    with pytest.raises(ConfigError, match="deletes: detect holds the keys of all rows"):
        run(lake, "b")
    assert [row[2] for row in rows(lake)] == list(range(6))
    assert counts(run(lake, "c", deletes="ignore")) == (0, 1, 0)


def test_a_plan_says_what_is_merged(lake: IcebergLake) -> None:
    lake.source(TABLE, "insert into t values (1, 'a', 1)")
    run(lake, "a")
    lake.source("update t set v = 2")
    spec = lake.spec("b", **merging())
    text = plan_text(spec, planned(spec, datetime.now(UTC)))
    assert "merges:      rows by id; rows of the table with the same key are replaced" in text
    assert "deletes:     rows whose id is gone from the source; all keys are read" in text
    assert "rewrites:    those of 1 file" in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": {"format": "parquet", "write_mode": "merge"}}, "merge needs target.format: i"),
        ({"mode": "full", "target": {"format": "parquet", "write_mode": "merge"}},
         "merge needs target.format: iceberg"),
        ({"columns": {}}, "write_mode merge needs columns.key"),
        ({"target": {"format": "parquet"}, "mode": "full"}, "deletes: detect needs target.format"),
        ({"target": {"write_mode": "append"}}, "deletes: detect needs target.write_mode: merge"),
        ({"mode": "full", "limit": 5}, "limit and deletes: detect exclude each other: rows bey"),
        ({"mode": "full", "target": {"write_mode": "append"}}, "or overwrite with mode full"),
        ({"source_type": "sqlserver", "connection": {"host": "h", "database": "d", "user": "u"}},
         "deletes: detect is for sources of type postgres, mysql, sqlite"),
        ({"source_type": "files", "connection": {"uri": "/in"}, "files": {"glob": "*.csv"},
          "watermark": None, "deletes": "ignore"}, "write_mode merge is not for files"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_refused_in_the_config(
    lake: IcebergLake, wrong: dict[str, Any], message: str
) -> None:
    target = {"format": "iceberg", "catalog": lake.where, "write_mode": "merge"}
    if wrong.get("target", {}).get("format") == "parquet":
        target = {}
    more = merging(**{**wrong, "target": {**target, "partition_by": [], **wrong.get("target", {})}})
    if more["target"].get("format") == "parquet" and "write_mode" not in wrong["target"]:
        more["target"]["write_mode"] = "overwrite"
    if more["mode"] == "full":
        more["watermark"] = None
    with pytest.raises(ValidationError, match=message):
        make_spec(lake.folder, **{"source_type": "sqlite", "connection": {"path": "x"}, **more})


def test_changes_of_every_kind_from_postgres(
    tmp_path: Path, pg_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the transactions that wrote the rows, without a column for it."""
    monkeypatch.setenv("CRASH_PASSWORD", pg_database.password)
    lake = Lake(str(tmp_path))
    where = {"type": "sqlite", "path": f"{tmp_path}/catalog.db", "database": "l", "table": "t"}

    def extract(run_id: str) -> Report:
        given = lake.spec(
            pg_database, run_id, mode="incremental", watermark={"snapshot": True},
            columns={"key": ["id"]}, deletes="detect",
            target={"format": "iceberg", "write_mode": "merge", "catalog": where},
        )  # fmt: skip
        return run_extract(parse_spec(json.dumps(given)))

    pg_database.execute(
        "create table t (id uuid primary key, n numeric(30,5), tags text[], d jsonb)",
        "insert into t select md5(g::text)::uuid, g + 0.5, array['x', null],"
        " jsonb_build_object('g', g) from generate_series(1, 2000) g",
    )
    assert counts(extract("a")) == (2000, 0, 0)
    pg_database.execute(
        "update t set n = -n, tags = null where n < 100",
        "delete from t where n between 1000 and 1100",
        "insert into t select md5(g::text)::uuid, g, '{}', null from generate_series(3001, 3010) g",
    )
    assert counts(extract("b")) == (10, 99, 100)
    with pg_database.connect() as connection:
        query = "select id::text, n, tags, d::text from t order by id::text"
        expected = [tuple(row) for row in connection.execute(query).fetchall()]
    table = SqlCatalog("default", uri=f"sqlite:///{tmp_path}/catalog.db").load_table("l.t")
    for found in (table.scan().to_arrow().to_pylist(), by_duckdb(table.metadata_location)):
        assert [tuple(row.values()) for row in ordered(found)] == expected
