"""An Iceberg table's older snapshots: returning to them, and expiring them with their files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.table.snapshots import Snapshot

from extract_jobs.cli import main
from extract_jobs.commit import expiry
from extract_jobs.commit.expiry import expire_snapshots
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.rollback import roll_back
from extract_jobs.commit.verification import verify_files
from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.iceberg.table import IcebergTable
from tests.support.iceberg import IcebergLake, lengthen

ID = "create table t (id integer primary key, kind text)"
DAY = timedelta(days=1)


@pytest.fixture
def lake(tmp_path: Path) -> IcebergLake:
    lake = IcebergLake(tmp_path)
    lake.source(ID, "insert into t values (1, 'a'), (2, 'b')")
    return lake


def ids(lake: IcebergLake) -> list[int]:
    assert lake.rows() == lake.rows_by_duckdb()
    return [row["id"] for row in lake.rows()]


def later() -> datetime:
    return datetime.now(UTC) + 2 * DAY


def there(lake: IcebergLake) -> set[str]:
    files = (lake.folder / "target").rglob("*")
    return {str(file) for file in files if file.suffix in {".parquet", ".avro"}}


def named(lake: IcebergLake) -> set[str]:
    table, found = lake.table(), set()
    for snapshot in table.metadata.snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            found.add(manifest.manifest_path)
            entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
            found |= {entry.data_file.file_path for entry in entries}
    return found


# --- rollback ------------------------------------------------------------------------------------


def test_a_rollback_is_a_new_snapshot_with_the_rows_of_an_earlier_commit(
    lake: IcebergLake,
) -> None:
    lake.run("a")
    lake.source("delete from t where id = 1", "alter table t add column more text",
                "insert into t values (3, 'c', 'x')")  # fmt: skip
    lake.run("b")
    log = lake.log()
    done = roll_back(log, 1, run_id="back", keep=False)
    assert done.seq == 3
    assert lake.rows() == [{"id": 1, "kind": "a"}, {"id": 2, "kind": "b"}]
    assert ids(lake) == [1, 2]
    assert len(lake.table().metadata.snapshots) == 3
    assert verify_files(log, lake.spec("any").target.uri).faults == ()
    # A rollback can be rolled back, and runs go on.
    roll_back(log, 2, run_id="forth", keep=False)
    assert [row["more"] for row in lake.rows()] == [None, "x"]
    lake.run("c")
    assert ids(lake) == [2, 3]


def test_a_rollback_of_partitions_that_a_run_replaced(lake: IcebergLake) -> None:
    replacing: dict[str, Any] = {
        "target": {"partition_by": ["kind"], "write_mode": "overwrite_partitions"}
    }
    lake.run("a", **replacing)
    lake.source("update t set id = id + 10")
    lake.run("b", **replacing)
    roll_back(lake.log(**replacing), 1, run_id="back", keep=False)
    assert ids(lake) == [1, 2]
    lake.run("c", **replacing)
    assert ids(lake) == [11, 12]


def test_a_rollback_that_was_killed_before_its_snapshot_is_finished(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.run("a")
    lake.source("delete from t where id = 1")
    lake.run("b")
    log = lake.log()

    def fail(*_: Any) -> None:
        raise WriteFailed("killed")

    with monkeypatch.context() as patched:
        patched.setattr(CommitLog, "publish", fail)
        with pytest.raises(WriteFailed, match="killed"):
            roll_back(log, 1, run_id="back", keep=False)
    assert ids(lake) == [2]
    log.recover(lake.spec("any").target.uri, abandon_after=timedelta(0), now=later())
    assert ids(lake) == [1, 2]
    assert log.publish(log.read(3)) == "published"  # type: ignore[arg-type]
    assert len(lake.table().metadata.snapshots) == 3


def test_a_rollback_needs_all_commits_that_the_table_has(lake: IcebergLake) -> None:
    """Its commit would get the position of one that the table has, and pass for it."""
    for run in ("a", "b", "c"):
        lake.source("update t set id = id + 10")
        lake.run(run)
    state = lake.folder / "state"
    for lost in (*state.rglob("*0003.json"), state / "hint.json"):
        lost.unlink()
    with pytest.raises(ConfigError, match="has commit 3, which"):
        roll_back(lake.log(), 1, run_id="back", keep=False)
    assert not list((state / "commits").glob("*0003.json"))
    assert ids(lake) == [31, 32]


def test_a_rollback_under_another_format_touches_nothing(lake: IcebergLake) -> None:
    """As a folder of Parquet files it would delete files that snapshots name, and vice versa."""
    appending: dict[str, Any] = {"target": {"write_mode": "append"}}
    for run in ("a", "b"):
        lake.run(run, **appending)
    before = there(lake)
    changed = lake.log(target={"format": "parquet", "catalog": None})
    with pytest.raises(ConfigError, match=r"of format iceberg, and .*target\.format is parquet"):
        roll_back(changed, 1, run_id="back", keep=False)
    assert there(lake) == before
    assert ids(lake) == [1, 1, 2, 2]


def test_a_commit_whose_snapshot_is_gone_or_not_its_own_is_no_place_to_return_to(
    lake: IcebergLake,
) -> None:
    lake.run("a")
    table = lake.table()
    table.overwrite(table.scan().to_arrow())  # as compaction does
    with lake.table().transaction() as transaction:
        transaction.append(lake.table().scan().to_arrow().slice(0, 1))
    lake.run("b")
    roll_back(lake.log(), 1, run_id="back", keep=False)
    assert ids(lake) == [1, 2]
    expire_snapshots(lake.log(), DAY, later())
    with pytest.raises(ConfigError, match="was expired"):
        roll_back(lake.log(), 1, run_id="again", keep=False)


def test_a_table_that_another_tool_had_rewritten_is_not_rolled_back(lake: IcebergLake) -> None:
    incremental: dict[str, Any] = {
        "target": {"partition_by": ["kind"], "write_mode": "overwrite_partitions"}
    }
    lake.run("a", **incremental)
    table = lake.table()
    table.overwrite(table.scan().to_arrow())
    lake.source("delete from t where id = 1", "insert into t values (3, 'c')")
    lake.run("b", **incremental)
    lake.run("c", **incremental)
    with pytest.raises(ConfigError, match="had rows of another tool"):
        roll_back(lake.log(**incremental), 2, run_id="back", keep=False)


# --- expire --------------------------------------------------------------------------------------


def test_expired_snapshots_go_with_the_files_that_only_they_name(lake: IcebergLake) -> None:
    lake.run("a")
    with lake.table().manage_snapshots() as manage:
        manage.create_tag(lake.table().current_snapshot().snapshot_id, "audit")  # type: ignore[union-attr]
    for run in ("b", "c", "d"):
        lake.source("update t set id = id + 10")
        lake.run(run)
    log = lake.log()
    assert expire_snapshots(log, DAY, datetime.now(UTC)).snapshots == 0
    planned = expire_snapshots(log, DAY, later(), dry_run=True)
    assert planned.snapshots == 2
    before = there(lake)
    assert set(planned.files) < before
    done = expire_snapshots(log, DAY, later())
    assert done == planned
    assert before - there(lake) == set(planned.files)
    assert there(lake) == named(lake)
    assert ids(lake) == [31, 32]
    audit = lake.table().scan(snapshot_id=lake.table().metadata.refs["audit"].snapshot_id)
    assert sorted(audit.to_arrow().column("id").to_pylist()) == [1, 2]
    assert verify_files(log, lake.spec("any").target.uri).faults == ()
    assert expire_snapshots(log, DAY, later()).snapshots == 0
    assert list((lake.folder / "state" / "expired").iterdir()) == []


def test_appended_files_outlive_the_snapshots_that_added_them(lake: IcebergLake) -> None:
    incremental: dict[str, Any] = {"mode": "incremental", "watermark": {"column": "id"}}
    lake.run("a", **incremental)
    for number in (3, 4):
        lake.source(f"insert into t values ({number}, 'c')")
        lake.run(f"r{number}", **incremental)
    done = expire_snapshots(lake.log(), DAY, later())
    assert done.snapshots == 2
    assert not [uri for uri in done.files if uri.endswith(".parquet")]
    assert ids(lake) == [1, 2, 3, 4]
    assert there(lake) == named(lake)
    lake.source("insert into t values (5, 'c')")
    lake.run("r5", **incremental)
    assert ids(lake) == [1, 2, 3, 4, 5]


def test_a_snapshot_counts_from_when_it_was_replaced(lake: IcebergLake) -> None:
    lake.run("a")
    lake.source("delete from t where id = 1")
    lake.run("b")
    replaced = datetime.fromtimestamp(
        lake.table().metadata.snapshot_log[-1].timestamp_ms / 1000, UTC
    )
    assert expire_snapshots(lake.log(), DAY, replaced + DAY - timedelta(seconds=1)).snapshots == 0
    assert expire_snapshots(lake.log(), DAY, replaced + DAY).snapshots == 1


def before_removing(self: IcebergTable, snapshot_ids: Any) -> None:
    raise WriteFailed("killed before the snapshots are removed")


def after_removing(self: IcebergTable, snapshot_ids: Any) -> None:
    REMOVE(self, snapshot_ids)
    raise WriteFailed("killed after the snapshots are removed")


REMOVE = IcebergTable.remove_snapshots


@pytest.mark.parametrize("killed", [before_removing, after_removing])
def test_an_expiry_that_was_killed_is_finished_by_the_next(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch, killed: Callable[..., None]
) -> None:
    lake.run("a")
    lake.source("delete from t where id = 1")
    lake.run("b")
    log = lake.log()
    before = there(lake)
    with monkeypatch.context() as patched:
        patched.setattr(IcebergTable, "remove_snapshots", killed)
        with pytest.raises(WriteFailed, match="killed"):
            expire_snapshots(log, DAY, later())
    assert there(lake) == before
    assert ids(lake) == [2]
    expire_snapshots(log, DAY, later())
    assert there(lake) == named(lake) < before
    assert list((lake.folder / "state" / "expired").iterdir()) == []


def test_what_a_snapshot_made_meanwhile_needs_is_kept(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tool returns to a snapshot that is about to be expired, and stays there."""
    lake.run("a")
    lake.source("delete from t where id = 1")
    lake.run("b")
    first = lake.table().metadata.snapshots[0].snapshot_id

    def late(self: IcebergTable, snapshot_ids: Any) -> None:
        with lake.table().manage_snapshots() as manage:
            manage.rollback_to_snapshot(first)
        REMOVE(self, snapshot_ids)

    monkeypatch.setattr(IcebergTable, "remove_snapshots", late)
    expire_snapshots(lake.log(), DAY, later())
    assert ids(lake) == [1, 2]


def test_files_elsewhere_are_not_deleted(lake: IcebergLake) -> None:
    lake.run("a")
    elsewhere = lake.folder / "elsewhere.parquet"
    [file] = (lake.folder / "target" / "data").rglob("*.parquet")
    elsewhere.write_bytes(file.read_bytes())
    lake.table().add_files([str(elsewhere)], check_duplicate_files=False)
    lake.run("b")
    expire_snapshots(lake.log(), DAY, later())
    assert elsewhere.exists()
    assert ids(lake) == [1, 2]
    record = lake.folder / "state" / "expired" / "x.json"
    record.write_text(f'{{"version": 1, "files": ["{elsewhere}"]}}')
    with pytest.raises(ConfigError, match=r"x\.json is damaged"):
        expire_snapshots(lake.log(), DAY, later())
    assert elsewhere.exists()


def test_runs_and_recover_expire_what_is_older_than_keep_retired(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("a", "b"):
        lake.run(run, keep_retired="1d")
    assert len(lake.table().metadata.snapshots) == 2
    lake.run("c", keep_retired="0s")
    assert len(lake.table().metadata.snapshots) == 1
    assert there(lake) == named(lake)

    def fail(*_: Any) -> None:
        raise WriteFailed("no disk")

    # It does not make a run fail.
    monkeypatch.setattr(IcebergTable, "remove_snapshots", fail)
    lake.run("d", keep_retired="0s")
    assert ids(lake) == [1, 2]


def test_the_oldest_of_many_snapshots_are_expired_now_and_then(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "MOST_SNAPSHOTS", 3)
    monkeypatch.setattr(expiry, "_EVERY", 4)
    counts = []
    for number in range(1, 9):
        lake.run(f"r{number}")
        if number == 2:
            table = lake.table()
            with table.manage_snapshots() as manage:
                manage.create_tag(table.metadata.snapshots[0].snapshot_id, "first")
        counts.append(len(lake.table().metadata.snapshots))
    assert counts == [1, 2, 3, 4, 5, 6, 7, 4]
    newest = lake.table().metadata.snapshots
    assert sorted(s.sequence_number or 0 for s in newest) == [1, 6, 7, 8]
    assert there(lake) == named(lake)
    assert ids(lake) == [1, 2]
    for number in range(9, 13):  # keep_retired is another rule, in place of this one
        lake.run(f"r{number}", keep_retired="7d")
    assert len(lake.table().metadata.snapshots) == 8


def test_a_run_reads_a_long_history_three_times_and_copies_it_once(
    lake: IcebergLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyiceberg copies a transaction's metadata some 20 times; these have one snapshot."""
    lake.run("a")
    lengthen(lake, 200)
    made = {"read": 0, "copied": 0}
    parse, copy = TableMetadataUtil.parse_raw, Snapshot.__deepcopy__

    def read(data: str) -> Any:
        made["read"] += 1
        return parse(data)

    def copied(self: Snapshot, memo: dict[int, Any] | None = None) -> Snapshot:
        made["copied"] += 1
        return copy(self, memo)

    with monkeypatch.context() as patched:
        patched.setattr(TableMetadataUtil, "parse_raw", staticmethod(read))
        patched.setattr(Snapshot, "__deepcopy__", copied)
        lake.run("b")
    assert len(lake.table().metadata.snapshots) == 202
    assert made["read"] == 3  # to plan, to publish, and by the catalog's conditional write
    assert 202 <= made["copied"] <= 202 + 50


def test_expire_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    IcebergLake(tmp_path).source(ID, "insert into t values (1, 'a')", "create table u (a text)")
    Path("c.yml").write_text("""\
version: 1
source: {name: s, type: sqlite, connection: {path: shop.db}}
defaults: {target: {uri: "lake/{table}"}}
tables:
  t: {target: {format: iceberg, catalog: {type: sqlite, path: c.db, database: lake, table: t}}}
  u: {}
""")
    for _ in range(3):
        assert main(["run", "c.yml"]) == 0
    capsys.readouterr()
    assert main(["expire", "c.yml"]) == 78
    assert "t: ConfigError: give the age of snapshots" in capsys.readouterr().err
    assert main(["expire", "c.yml", "u", "--older-than", "0s"]) == 78
    assert "none of the tables is an Iceberg table" in capsys.readouterr().err
    assert main(["expire", "c.yml", "--older-than", "0s", "--dry-run"]) == 0
    assert "t: 2 snapshots would be expired, and " in capsys.readouterr().out
    assert main(["expire", "c.yml", "--older-than", "0s"]) == 0
    assert main(["recover", "c.yml", "t", "--set", "keep_retired=0s"]) == 0
    out = capsys.readouterr().out
    assert "t: 2 snapshots expired, and " in out
    assert "  0 snapshots expired, and 0 files deleted" in out
    assert main(["rollback", "c.yml", "t", "--to", "1"]) == 78


def test_files_that_no_snapshot_ever_named_stay(lake: IcebergLake) -> None:
    lake.run("a")
    lake.run("b")
    stray = lake.folder / "target" / "data" / "in-progress.parquet"
    stray.write_bytes(b"another tool writes this")
    expire_snapshots(lake.log(), timedelta(0), later())
    assert stray.exists()
