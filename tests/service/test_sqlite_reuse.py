"""A full extract of a SQLite table is kept if the database's file has not changed, byte by byte."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from extract_jobs.attempt import reuse
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sqlite import snapshot, source
from extract_jobs.sources.sqlite.file_digest import FileDigest, file_digest
from extract_jobs.sources.sqlite.pages import SqlitePages
from extract_jobs.sources.sqlite.session import begin_version
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.specs import make_spec
from tests.support.sqlite_source import write

Run = Callable[..., Report]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(
        tmp_path / "db.sqlite",
        "create table t (id integer primary key, v text)",
        "with recursive n(i) as (values (1) union all select i + 1 from n where i < 300)"
        " insert into t select i, printf('%01000d', i) from n",
    )


def spec(path: Path, run_id: str, **more: Any) -> ExtractSpec:
    return make_spec(
        path.parent, run_id=run_id, source_type="sqlite", connection={"path": str(path)},
        **{"extract_table": "t", "reuse": "auto", "engine": "processes", **more},
    )  # fmt: skip


@pytest.fixture
def run(path: Path, tmp_path: Path) -> Run:
    """Return a function that runs an extract and compares the lake with the table."""
    count = 0

    def run_once(**more: Any) -> Report:
        nonlocal count
        count += 1
        report = run_extract(spec(path, f"run-{count}", **more))
        with contextlib.closing(sqlite3.connect(path)) as opened:
            rows = opened.execute("select id, v from t order by id").fetchall()
        found = pq.read_table(tmp_path / "target").select(["id", "v"]).to_pydict()
        assert sorted(zip(found["id"], found["v"], strict=True)) == rows
        assert report.rows + report.kept_rows == report.source_rows == len(rows)
        return report

    return run_once


def test_a_database_that_has_not_changed_is_kept(path: Path, run: Run) -> None:
    first = run()
    assert (first.rows, first.not_reused) == (300, "this is the first run")
    second = run()
    assert (second.rows, second.kept_rows, second.reconciled) == (0, 300, True)
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)  # another file of the same bytes
    assert run().kept_rows == 300
    write(path, "update t set v = 'x' where id = 7")
    third = run()
    assert (third.rows, third.not_reused) == (300, "the database's file has changed")
    write(path, "create table other (x)")  # any table of the database
    assert run().kept_rows == 0


def test_another_version_of_sqlite_needs_all_rows(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions differ in how they read some decimal texts."""
    run()
    monkeypatch.setattr("sqlite3.sqlite_version", "3.99.0")
    assert run().not_reused == "SQLite changed"


def change_counter(path: Path) -> bytes:
    """Return what SQLite's header says: the count of transactions, and the size in pages."""
    return path.read_bytes()[24:32]


def test_a_copy_that_was_put_back_counts_to_the_same_number(path: Path, run: Run) -> None:
    copy = shutil.copy(path, path.with_name("copy"))
    write(path, "update t set v = 'first life' where id = 1")
    run()
    counter, about = change_counter(path), path.stat()
    shutil.copyfile(copy, path)  # into the same file
    write(path, "update t set v = 'second life' where id = 1")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (change_counter(path), path.stat().st_mtime_ns) == (counter, about.st_mtime_ns)
    assert (path.stat().st_size, path.stat().st_ino) == (about.st_size, about.st_ino)
    assert run().kept_rows == 0


def test_in_wal_mode_the_database_alone_says_nothing(path: Path, run: Run) -> None:
    write(path, "pragma journal_mode = wal")
    run()
    assert run().kept_rows == 300  # the last to close it has emptied the log
    before = path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.execute("pragma wal_autocheckpoint = 0")
        writer.execute("update t set v = 'x' where id = 7")
        writer.commit()
        assert path.read_bytes() == before  # in a process of no reader
        report = run()
        assert (report.kept_rows, report.rows) == (0, 300)
        assert "-wal file is not empty" in report.not_reused
        writer.execute("pragma wal_checkpoint(truncate)")
        run()
        assert run().kept_rows == 300
        writer.execute("update t set v = 'y' where id = 7")
        writer.commit()
        assert run().kept_rows == 0


def test_the_log_of_a_linked_database_is_beside_the_database(path: Path, tmp_path: Path) -> None:
    write(path, "pragma journal_mode = wal")
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    Path(f"{link}-wal").touch()  # left by somebody
    run_extract(spec(link, "first"))
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.execute("pragma wal_autocheckpoint = 0")
        writer.execute("update t set v = 'x' where id = 7")
        writer.commit()
        report = run_extract(spec(link, "second"))
    assert (report.kept_rows, report.rows) == (0, 300)
    assert "-wal file is not empty" in report.not_reused


def write_past_all_locks(path: Path) -> None:
    """Write another version of SQLite as the file's last writer, from a process of its own."""
    program = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(96); f.write(bytes(4))"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


@pytest.mark.parametrize("moment", ["opened", "before", "after", "later"])
def test_no_digest_is_of_other_rows(
    path: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Somebody replaces the file, or writes to it past all locks, around the digest."""
    other = write(Path(shutil.copy(path, tmp_path / "other")), "update t set v = 'x' where id = 1")

    def begin(*given: Any) -> Any:
        if moment == "opened":
            other.replace(path)
        return begin_version(*given)

    def digest(name: str) -> FileDigest:
        if moment == "before":
            other.replace(path)
        found = file_digest(name)
        if moment == "after":
            write_past_all_locks(path)
        return found

    def split(pages: SqlitePages, *given: Any) -> Split:
        if moment == "later":
            write_past_all_locks(path)
        return cut(pages, *given)

    cut = SqlitePages.split
    monkeypatch.setattr(source, "begin_version", begin)
    monkeypatch.setattr(SqlitePages, "split", split)
    monkeypatch.setattr(snapshot, "file_digest", digest)
    rows = run_extract(spec(path, "r"))
    assert rows.rows == 300
    monkeypatch.undo()
    assert not list((tmp_path / "state").rglob("reads/*.json"))
    assert run().kept_rows == 0


def test_a_file_of_an_earlier_run_is_not_taken_for_the_one_that_is_read(
    path: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    earlier = Path(shutil.copy(path, tmp_path / "earlier"))
    write(path, "update t set v = 'x' where id = 1")

    def digest(name: str) -> FileDigest:
        earlier.replace(path)
        return file_digest(name)

    monkeypatch.setattr(snapshot, "file_digest", digest)
    report = run_extract(spec(path, "r"))
    assert (report.kept_rows, report.not_reused) == (
        0,
        "the database's file was replaced meanwhile",
    )


@pytest.mark.parametrize(
    ("statements", "more", "what"),
    [
        (["create view w as select * from t"], {"extract_table": "w"}, "plain SQLite tables"),
        (["create table w (id int primary key) without rowid"], {"extract_table": "w"}, "plain"),
        (["create table w (id, n as (id + 1))"], {"extract_table": "w"}, "plain"),
        ([], {"where": "id > 1"}, "without where"),
        ([], {"split": {"strategy": "rowid"}}, "split.strategy rowid"),
        (["create table w (id)", "create table large (b)",
          "insert into large values (zeroblob(20000000))"], {"extract_table": "w"}, "small part"),
    ],
)  # fmt: skip
def test_an_extract_that_cannot_keep_files_says_why(
    path: Path, statements: list[str], more: dict[str, Any], what: str
) -> None:
    write(path, *statements)
    for number in range(2):
        report = run_extract(spec(path, f"r{number}", empty_source="accept", **more))
        assert what in report.not_reused


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ranges of some 30 rows of the table."""
    for module in ("snapshot", "pages"):
        monkeypatch.setattr(f"extract_jobs.sources.sqlite.{module}.PAGE_BYTES", 2**15)
    monkeypatch.setattr("extract_jobs.sources.sqlite.snapshot.SMALL_SHARE", 1000)
    monkeypatch.setattr(reuse, "RANGE_BYTES", 2**15)


def test_rows_are_read_in_the_order_of_their_rowids(path: Path, tmp_path: Path) -> None:
    """An index that has all columns would give another order, and versions of SQLite differ."""
    write(
        path,
        "create table w (a int, b text)",
        "insert into w select -id, v from t",
        "create index i on w (a)",
    )
    run_extract(spec(path, "r", extract_table="w", columns={"exclude": ["b"]}))
    found = pq.read_table(tmp_path / "target")["a"].to_pylist()
    assert found == sorted(found, reverse=True)


def test_ranges_of_rowids_are_read_and_compared(path: Path, run: Run, small_pages: None) -> None:
    write(path, "delete from t where id between 20 and 90")
    first = run(split={"max_connections": 1})
    assert (first.rows, first.splits) == (229, 7)
    for _ in range(5):
        again = run(split={"max_connections": 1})
        assert (again.kept_rows, again.kept_ranges, again.splits) == (229, 7, 0)


def test_worker_processes_read_the_same(path: Path, run: Run, small_pages: None) -> None:
    assert run(split={"max_connections": 2}).splits > 2
    assert run(split={"max_connections": 1}).kept_rows == 300


DIGESTS = {"1": "bd211e808e7f8cd3dd04c5b10540be5c52c8a210878194ef102ae770cc3f4c1f"}
"""By `sources.READING_VERSION`: of values and types of all kinds of columns."""


def test_other_values_for_the_same_rows_are_another_version(path: Path, tmp_path: Path) -> None:
    """If this fails because a change gives other values or types, raise `READING_VERSION`."""
    write(
        path,
        "create table w (i integer, r real, t text, b blob, n numeric(9, 2), a any, d date,"
        " f boolean)",
        "insert into w values (1, 0.1, 'ä', x'00ff', 1.5, 'x', '2026-01-31', 1)",
        "insert into w values (-9223372036854775808, 1e300, '', x'', 7, 2, '2026-02-28', 0)",
        "insert into w values (null, null, null, null, null, null, null, null)",
    )
    run_extract(spec(path, "r", extract_table="w"))
    found = pq.read_table(tmp_path / "target").drop_columns(["_run_id", "_extracted_at"])
    types = [[field.name, str(field.type)] for field in found.schema]
    text = json.dumps([types, found.to_pylist()], default=str)
    assert hashlib.sha256(text.encode()).hexdigest() == DIGESTS[reuse.READING_VERSION], text
