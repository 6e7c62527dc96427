"""Files that are missing, locked, damaged or no databases; texts that are more than they may be."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from extract_jobs.errors import ConfigError, SourceQueryFailed, SourceUnavailable, StopRequested
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sqlite import catalog
from extract_jobs.sources.sqlite.errors import sqlite_error
from extract_jobs.sources.sqlite.session import SqliteConnection
from tests.support.postgres_source import everything_said
from tests.support.sqlite_source import read_all, snapshot_of, source, values, write

SOON = {"connect_timeout_seconds": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(
        tmp_path / "sales.db",
        "create table t (id integer primary key, note text)",
        "insert into t values (1, 'SECRET'), (2, null)",
    )


def test_a_path_may_be_a_url(path, monkeypatch):
    odd = path.rename(path.with_name("odd ?#%20é.db"))
    for spelling in (str(odd), odd.as_uri(), odd.as_uri().replace("///", "//localhost/")):
        assert values(source(spelling)) == [1, 2]
    monkeypatch.chdir(odd.parent)
    assert values(source(odd.name)) == [1, 2]
    assert source(odd.name).describe().fingerprint == source(odd).describe().fingerprint
    for elsewhere in ("s3://bucket/x.db", "file://server/x.db", "https://x/y.db"):
        with pytest.raises(ConfigError, match="not a local file"):
            source(elsewhere)


def test_what_is_no_database(path, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("what is this? " * 1000)
    for wrong, says in (
        (tmp_path / "nowhere.db", "does not exist on this worker"),
        (tmp_path, "is a folder"),
        (text, "is not a SQLite database, or is encrypted"),
    ):
        with pytest.raises(ConfigError, match=says):
            source(wrong).describe()


def test_an_empty_file_is_an_empty_database(tmp_path):
    (tmp_path / "empty.db").touch()
    with pytest.raises(
        ConfigError, match=r"no table 't' in .*empty\.db \(tables that the user can see: 0\)"
    ):
        source(tmp_path / "empty.db").describe()


def test_a_missing_table_names_the_nearest(path):
    write(path, "create table orders (a)", "create view order_lines as select * from orders")
    for wrong in ("order", "ORDERS", "main.orderz"):
        with pytest.raises(ConfigError, match=rf"{wrong}.*did you mean orders"):
            source(path, extract_table=wrong).describe()
    for right in ("orders", "main.orders", '"orders"', '"main"."orders"', "order_lines"):
        assert source(path, extract_table=right).describe().columns[0].name == "a"


def test_a_damaged_file(path):
    write(path, "insert into t select id + 2, printf('%0900d', id) from t",
          *["insert into t select null, printf('%0900d', id) from t"] * 6)  # fmt: skip
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * 4096 * 20)
    with pytest.raises(SourceQueryFailed, match="is damaged"):
        read_all(source(path))


def test_a_lock_is_waited_for(path):
    """As long as the timeout says, and no longer."""
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(path)) as writer:
            writer.execute("begin exclusive")
            locked.set()
            release.wait(30)
            writer.rollback()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        locked.wait(10)
        with pytest.raises(SourceUnavailable, match="is locked by a writer") as caught:
            source(path, connection=SOON).describe()
        assert caught.value.retryable
        soon = threading.Timer(0.3, release.set)
        soon.start()
        assert values(source(path)) == [1, 2]
        soon.join()
    finally:
        release.set()
        thread.join()


def test_a_writer_that_waits_for_us_keeps_new_readers_out_for_a_while(path):
    """It holds SQLite's PENDING lock, so that readers cannot starve it."""
    found = source(path, connection=SOON)
    with snapshot_of(found) as snapshot:
        copy = type(snapshot.reader)(**snapshot.reader.__getstate__())
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as writer:
            writer.execute("insert into t values (3, 'x')")
            with pytest.raises(sqlite3.OperationalError):
                writer.commit()
            with pytest.raises(SourceUnavailable, match="is locked by a writer"):
                list(copy.read(Split(0)))
            writer.rollback()
        assert sum(batch.num_rows for batch in copy.read(Split(0))) == 2


def test_a_writer_that_crashed_in_the_middle_of_a_transaction(path, tmp_path):
    """Its journal must be rolled back, which a reader may not."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("pragma cache_size = 1")
        writer.execute("begin")
        writer.execute("insert into t select null, printf('%0900d', 1) from t a, t b, t c, t d")
        for _ in range(6):
            writer.execute("insert into t select null, note from t")
        copy = tmp_path / "crashed.db"
        shutil.copy(path, copy)
        shutil.copy(f"{path}-journal", f"{copy}-journal")
        writer.execute("rollback")
    with pytest.raises(SourceUnavailable, match=r"crashed in the middle.*open the file once"):
        values(source(copy))
    with contextlib.closing(sqlite3.connect(copy)) as application:
        application.execute("select count(*) from t").fetchall()
    assert values(source(copy)) == [1, 2]


QUERIES = [
    ("delete from t", "syntax error"),
    ("select * from t; delete from t", "one statement|syntax error|near"),
    ("select * from t) union select * from (select 3, 'x'", "syntax error"),
    ("attach database 'other.db' as o", "syntax error"),
    ("pragma journal_mode = wal", "syntax error"),
    ("insert into t values (3, 'x') returning id", "syntax error"),
    ("with x as (select 1) insert into t select 3, 'x'", "syntax error"),
    ("select load_extension('x')", "not authorized"),
    ("select fts3_tokenizer('x')", "not authorized"),
    ("select nope from t", "no such column: nope"),
    ("select * from nope", "no such table: nope"),
    ("select 1 as a, 2 as A", "several columns named A: alias them"),
    ("select id, id, id from t", "several columns named id: alias them"),
    ("select ?", "type binding|parameters|no SQLite|Incorrect"),
    ("vacuum", "no such table"),
]


@pytest.mark.parametrize(("query", "says"), QUERIES)
def test_a_query_is_one_select_and_nothing_else(path, query, says):
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=says) as caught:
        source(path, query=query).describe()
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_queries_that_are_one_select(path):
    for query in (
        "select id from t;  ",
        "select id from t -- a comment",
        "select id from t /* ; */",
        "with x as (select id from t) select * from x order by id desc limit 5",
        "values (1), (2)",
        "select 1 as id union all select 2",
    ):
        found = source(path, query=query)
        assert sorted(map(str, values(found, found.describe().columns[0].name))) == ["1", "2"]


WHERES = [
    ("id = 1; delete from t", "where"),
    ("id = 1) or (1", "where"),
    ("id = 1 union select 1", "where"),
    ("nope = 1", "no such column: nope"),
    ('note = "SECRET"', '"SECRET" is not a column'),
    ("random() > 0", "where"),
    ("load_extension('x')", "where"),
]


@pytest.mark.parametrize(("where", "says"), WHERES)
def test_where_is_one_condition(path, where, says):
    with pytest.raises(ConfigError, match=says):
        source(path, where=where).describe()


def test_conditions_that_are_one(path):
    for where in ("id = 1", '"id" = 1', "t.id < 2", "note = 'SECRET'", "[id] = 1 or `id` = 1",
                  "id in (1)", "note like 'SEC%' and not id is null"):  # fmt: skip
        assert values(source(path, where=where)) == [1], where


def test_messages_hold_no_row(path):
    write(path, "create table j (note text)", "insert into j values ('{SECRET')")
    found = source(path, query="select json_extract(note, '$.a') as a from j")
    with snapshot_of(found) as snapshot:
        with pytest.raises(SourceQueryFailed, match="malformed JSON") as caught:
            list(snapshot.reader.read(Split(0)))
        assert "SECRET" not in everything_said(caught.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_BUSY_RECOVERY", SourceUnavailable),
        ("SQLITE_BUSY_SNAPSHOT", SourceUnavailable),
        ("SQLITE_PROTOCOL", SourceUnavailable),
        ("SQLITE_IOERR_READ", SourceUnavailable),
        ("SQLITE_READONLY_RECOVERY", SourceUnavailable),
        ("SQLITE_CANTOPEN_ISDIR", ConfigError),
        ("SQLITE_AUTH", ConfigError),
        ("SQLITE_CORRUPT_VTAB", SourceQueryFailed),
        ("SQLITE_TOOBIG", SourceQueryFailed),
    ],
)
def test_what_sqlites_own_names_mean(name, kind):
    error = sqlite3.OperationalError("a message with 'SECRET'")
    error.sqlite_errorname = name
    found = sqlite_error(error, "reading t", "/x.db")
    assert type(found) is kind
    assert "reading t failed" in str(found)
    assert "SECRET" not in str(found)


def test_snapshot_mode_and_delay_are_refused(path):
    with pytest.raises(ConfigError, match=r"name a watermark\.column"):
        source(path, mode="incremental", watermark={"snapshot": True})
    with pytest.raises(ConfigError, match=r"watermark\.delay needs a time"):
        source(path).highest("id", delay=timedelta(seconds=1))


def test_an_old_sqlite_is_reported(path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(ConfigError, match=r"at least 3\.37 is needed"):
        source(path).describe()


def test_a_connection_is_frozen_and_has_no_more_than_it_needs(path):
    connection = SqliteConnection.of(source(path).spec.connection)
    assert connection == SqliteConnection(str(path), 10)


@pytest.mark.parametrize("raised", [StopRequested("SIGTERM"), KeyboardInterrupt(), MemoryError()])
def test_what_is_raised_while_sqlite_asks_us_is_not_taken_for_a_refusal(monkeypatch, raised):
    """SQLite drops what its authorizer raises, and says that the statement is not authorized."""

    class Raising:
        def __contains__(self, _):
            raise raised

    monkeypatch.setattr(catalog, "_READS", Raising())
    before = sys.unraisablehook
    with contextlib.closing(sqlite3.connect(":memory:")) as opened, pytest.raises(type(raised)):
        catalog._check_text(opened, "select 1", "where")
    assert sys.unraisablehook is before
