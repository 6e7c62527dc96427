"""Rows of MySQL and MariaDB replaced and deleted by key in an Iceberg table."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from extract_jobs.errors import ConfigError
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import parse_spec
from tests.support.crash import Lake
from tests.support.iceberg import by_duckdb, ordered
from tests.support.mysql_servers import MysqlServer, numbers
from tests.support.mysql_source import snapshot_of, source
from tests.support.mysql_writer import ROWS, SPLIT, Writer, make_table
from tests.support.sampling import EXHAUSTIVE

KEYS = {
    "i": "tinyint", "u": "bigint unsigned", "n": "decimal(30,5)", "c": "char(5)",
    "s": "varchar(20)", "b": "varbinary(20)", "at": "datetime(6)", "ts": "timestamp(6)",
    "d": "date", "h": "time", "y": "year", "e": "enum('x','Y')", "st": "set('p','q')",
    "bits": "bit(9)",
}  # fmt: skip
"""Columns of every type that a key may have."""
FIRST = (
    "-1, 18446744073709551615, -0.00001, 'a', 'a', x'00ff', '1000-01-01 00:00:00.000001',"
    " '2038-01-19 03:14:07.999999', '9999-12-31', '12:34:56', 1901, 'Y', 'p,q', b'100000001'"
)


@pytest.fixture
def server(mysql_database: MysqlServer, monkeypatch: pytest.MonkeyPatch) -> MysqlServer:
    monkeypatch.setenv("CRASH_PASSWORD", mysql_database.password)
    return mysql_database


def extract(server: MysqlServer, folder: Path, run_id: str, **more: Any) -> Report:
    """Merge table ``t`` by its key."""
    where = {"type": "sqlite", "path": f"{folder}/catalog.db", "database": "l", "table": "t"}
    given = {
        "mode": "incremental", "watermark": {"column": "v"}, "columns": {"key": ["id"]},
        "deletes": "detect",
    }  # fmt: skip
    target = {"format": "iceberg", "write_mode": "merge", "catalog": where}
    spec = Lake(str(folder)).spec(server, run_id, target=target, **given | more)
    return run_extract(parse_spec(json.dumps(spec)))


def rows(folder: Path) -> list[tuple[Any, ...]]:
    catalog = SqlCatalog("default", uri=f"sqlite:///{folder}/catalog.db")
    table = catalog.load_table("l.t")
    catalog.engine.dispose()
    found = ordered(table.scan().to_arrow().to_pylist())
    assert found == ordered(by_duckdb(table.metadata_location))
    return [tuple(row.values()) for row in found]


def counts(report: Report) -> tuple[int, int, int, int]:
    return (
        report.inserted_rows, report.updated_rows, report.deleted_rows, report.missing_rows or 0
    )  # fmt: skip


@pytest.mark.parametrize("one_snapshot", ["require", "never"] if EXHAUSTIVE else ["never"])
def test_changes_of_every_kind(server: MysqlServer, tmp_path: Path, one_snapshot: str) -> None:
    split = {"target_bytes": 65536, "max_connections": 1, "one_snapshot": one_snapshot}
    server.execute(
        "create table t (id int primary key, v bigint not null, note varchar(200))",
        f"insert into t select seq, seq, repeat('n', 200) from {numbers(3000)}",
        "analyze table t",
    )
    report = extract(server, tmp_path, "a", split=split)
    assert counts(report) == (3000, 0, 0, 0)
    server.execute(
        "update t set v = v + 10000, note = null where id <= 900",
        "delete from t where id between 1000 and 1100",
        f"insert into t select 5000 + seq, 20000 + seq, 'new' from {numbers(10)}",
    )
    report = extract(server, tmp_path, "b", split=split)
    assert counts(report) == (10, 900, 101, 0)
    assert report.reconciled
    assert report.read_from["one_snapshot"] is True
    assert rows(tmp_path) == [tuple(row) for row in server.rows("select * from t order by id")]
    # No row is new: there is one split.
    server.execute("delete from t where id = 1")
    assert counts(extract(server, tmp_path, "c", split=split)) == (0, 0, 1, 0)
    assert rows(tmp_path) == [tuple(row) for row in server.rows("select * from t order by id")]


def test_keys_are_compared_byte_by_byte_whatever_their_type_and_collation(
    server: MysqlServer, tmp_path: Path
) -> None:
    columns = ", ".join(f"`{name}` {kind} not null" for name, kind in KEYS.items())
    listed = ", ".join(f"`{name}`" for name in KEYS)
    server.execute(
        f"create table t (id int, v int, {columns}, primary key ({listed}))",
        "set sql_mode = 'NO_BACKSLASH_ESCAPES'",
        f"insert into t values (1, 1, {FIRST})",
        f"insert into t values (2, 2, {FIRST.replace(chr(39) + 'a', chr(39) + 'b')})",
        f"insert into t values (3, 3, {FIRST.replace(chr(39) + 'a', chr(39) + 'c')})",
    )
    more: dict[str, Any] = {"columns": {"key": list(KEYS)}}
    extract(server, tmp_path, "a", **more)
    # Every key is found again: else it would be gone, and missing.
    server.execute("update t set v = 4 where id = 2", "delete from t where id = 3")
    assert counts(extract(server, tmp_path, "b", **more)) == (0, 1, 1, 0)
    # Other bytes that the collation takes for the same.
    server.execute("update t set v = 5, s = 'A' where id = 1")
    assert counts(extract(server, tmp_path, "c", **more)) == (1, 0, 1, 0)
    assert [(row[0], row[1], row[6]) for row in rows(tmp_path)] == [(1, 5, "A"), (2, 4, "b")]


@pytest.mark.parametrize("one_snapshot", ["auto", "never"] if EXHAUSTIVE else ["never"])
def test_rows_and_keys_are_of_one_moment_while_rows_move(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch, one_snapshot: str
) -> None:
    make_table(server)
    wanted = SPLIT | {"one_snapshot": one_snapshot}
    found = source(server, monkeypatch, extract_table="t", split=wanted)
    writer = Writer(server)
    with writer.writing(), snapshot_of(found) as snapshot:
        splits = snapshot.splits(found.spec)
        shown = snapshot.take(len(splits), 4, keyed=True)
        at = writer.done
        with ThreadPoolExecutor(4) as pool:
            read = pool.map(lambda one: list(snapshot.reader.read(one)), splits)
            ids = [row for part in read for batch in part for row in batch["id"].to_pylist()]
        while writer.done < at + 3:
            assert snapshot.count() == len(ids)
        keys = [key for batch in snapshot.every_row(["id"]) for key in batch["id"].to_pylist()]
    assert len(splits) > 8
    assert sorted(keys) == sorted(ids)
    assert set(keys) >= set(range(ROWS))
    assert snapshot.shared
    expected = {"one_connection": "split.one_snapshot is never"} if one_snapshot == "never" else {}
    assert shown == {"one_snapshot": True} | expected


def test_what_has_no_snapshot_is_refused(server: MysqlServer, tmp_path: Path) -> None:
    server.execute("create table t (id int primary key, v int) engine = myisam",
                   "insert into t values (1, 1), (2, 2)")  # fmt: skip
    extract(server, tmp_path, "a")
    with pytest.raises(ConfigError, match="in one snapshot: its engine, MyISAM, has no snapshots"):
        extract(server, tmp_path, "b")
    server.execute("alter table t engine = innodb", "delete from t where id = 1")
    assert counts(extract(server, tmp_path, "c")) == (0, 0, 1, 0)
    assert rows(tmp_path) == [(2, 2)]
