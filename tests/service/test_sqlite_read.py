"""SQLite: splits, intervals and snapshots. Every row once, as it was at one moment."""

from __future__ import annotations

import contextlib
import pickle
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError, SourceUnavailable, TypeNotRepresentable
from extract_jobs.run import run_extract
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sql.statements import select
from extract_jobs.sources.sqlite import reader as reading
from extract_jobs.sources.sqlite import session
from extract_jobs.sources.sqlite import splits as cutting
from extract_jobs.sources.sqlite.sql import quote_name
from extract_jobs.watermark import Interval, WatermarkValue
from tests.support.sampling import examples
from tests.support.source_cases import HOSTILE
from tests.support.specs import make_spec
from tests.support.sqlite_source import read_all, snapshot_of, source, tables, values, write

ROWID = {"strategy": "rowid", "target_bytes": 8192}
FILL = (
    "insert into t with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})"
    " select {what} from n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sales.db"


def filled(path: Path, what: str = "i, printf('%0100d', i)", rows: int = 3000, **more: str) -> Path:
    declared = more.get("declared", "id integer primary key, note text")
    return write(path, f"create table t ({declared})", FILL.format(rows=rows, what=what))


@pytest.mark.parametrize(
    "what",
    [
        "i, printf('%0100d', i)",
        "-i * 1000003, printf('%0100d', i)",
        "case when i % 10 = 0 then i * 1000000000000 else i end, printf('%0100d', i)",
        "case when i < 9 then i else 5000000000000000000 + i end, printf('%0100d', i)",
    ],
    ids=["dense", "sparse", "skewed", "far away"],
)
def test_rowids_are_cut_evenly(path, what):
    filled(path, what)
    sizes = [table.num_rows for table in tables(source(path, split=ROWID))]
    assert len(sizes) > 20
    assert max(sizes) == min(sizes[:-1]) >= sizes[-1]
    assert len(set(values(source(path, split=ROWID)))) == 3000


@given(
    rowids=st.sets(st.integers(-(2**63), 2**63 - 1), max_size=40),
    splits=st.integers(1, 12),
)
@settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_rowids_are_in_one_split_each(tmp_path_factory, rowids, splits):
    path = write(
        tmp_path_factory.mktemp("rowids") / "x.db", "create table t (id integer primary key, pad)"
    )
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "insert into t values (?, zeroblob(9000))", [(rowid,) for rowid in rowids]
        )
    cut = {"strategy": "rowid", "target_bytes": max(8192, 9000 * len(rowids) // splits)}
    found = source(path, split=cut, columns={"include": ["id"], "cast": {"pad": "binary"}})
    assert values(found) == sorted(rowids)


@given(
    keys=st.lists(
        st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
        | st.text(alphabet="aAbB'\0é", max_size=3) | st.binary(max_size=2),
        max_size=40,
    ),
    declared=st.sampled_from(["", "integer", "text", "text collate nocase", "real", "blob"]),
    splits=st.integers(2, 12),
)  # fmt: skip
@settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_values_are_in_one_split_each(tmp_path_factory, keys, declared, splits):
    path = write(
        tmp_path_factory.mktemp("values") / "x.db", f"create table t (id int, k {declared})"
    )
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("insert into t values (?, ?)", list(enumerate(keys)))
    with snapshot_of(source(path, extract_table="t", lossy_types="string")) as snapshot:
        run = cutting.runner(snapshot._opened)
        relation, column = snapshot.reader.relation, '"t"."k"'
        bounds = cutting.by_value(run, relation, column, None, rows=len(keys), count=splits)
        parts = [
            [row[0] for row in run(select(['"t"."id"'], relation, split.predicate))]
            for split in cutting.between(bounds, column, 0)
        ]
    assert sorted(i for part in parts for i in part) == list(range(len(keys)))


def test_a_small_database_is_one_split(path):
    filled(path)
    assert len(tables(source(path))) == 1


@pytest.mark.parametrize(
    ("declared", "strategy"),
    [
        ("rowid text, oid text, id integer primary key", ROWID),
        ("rowid text, oid text, _rowid_ integer primary key", ROWID),
        ("Rowid text, OID text, id int", ROWID),
        ("a text, b text, id integer primary key desc", ROWID),
        ("a text, b text, id integer, primary key (id)", ROWID),
        ("a text, b text, id int, primary key (id)", ROWID),
    ],
)  # fmt: skip
def test_tables_whose_columns_hide_the_rowids_names(path, declared, strategy):
    filled(path, "printf('%0100d', i), 'x', i", declared=declared)
    found = source(path, split=strategy)
    assert len(tables(found)) > 20
    assert values(found, found.describe().columns[2].name) == list(range(1, 3001))


def test_a_table_whose_rowid_has_no_name_left(path):
    filled(
        path, "'x', 'y', 'z', i", declared="rowid text, oid text, _rowid_ text, id int primary key"
    )
    with (
        snapshot_of(source(path, split=ROWID)) as snapshot,
        pytest.raises(ConfigError, match="rowid"),
    ):
        snapshot.splits(source(path, split=ROWID).spec)
    by_key = {"target_bytes": 8192}
    assert len(tables(source(path, split=by_key))) > 3
    assert values(source(path, split=by_key)) == list(range(1, 3001))


@pytest.mark.parametrize(
    "declared",
    ["id text primary key, note text", "id blob, note text, primary key (id, note)"],
)
def test_tables_without_rowid_are_cut_by_their_key(path, declared):
    filled(path, "'k' || i, printf('%0100d', i)", declared=f"{declared}) without rowid --")
    found = source(path, split={"target_bytes": 8192}, columns={"cast": {"id": "string"}})
    assert found.describe().key[0] == "id"
    assert not found.describe().columns[0].nullable
    assert len(tables(found)) > 20
    assert values(found) == sorted(f"k{i}" for i in range(1, 3001))


def test_a_column_of_all_storage_classes_is_cut_with_its_nulls_in_one_split(path):
    mixed = (
        "case i % 5 when 0 then null when 1 then i when 2 then i / 7.0 when 3 then 'é''' || i else"
    )
    filled(path, f"i, {mixed} cast(i as blob) end", declared="id integer, k")
    split = {"strategy": "range", "column": "k", "target_bytes": 8192}
    parts = tables(source(path, split=split, columns={"cast": {"k": "string"}}))
    assert len(parts) > 3
    assert sorted(i for part in parts for i in part.column("id").to_pylist()) == list(
        range(1, 3001)
    )
    assert sorted(part.column("k").null_count for part in parts) == [0] * (len(parts) - 1) + [600]


def test_text_that_holds_anything_is_a_bound_like_any_other(path):
    nasty = "char(0, 39, 34, 10, 92, 8364) || i || cast(x'ff' as text)"
    filled(path, f"i, {nasty}", declared="id integer, k text collate nocase")
    split = {"strategy": "range", "column": "k", "target_bytes": 8192}
    found = source(path, split=split, columns={"cast": {"k": "string"}}, lossy_types="string")
    assert len(tables(found)) > 2
    assert sorted(map(int, values(found))) == list(range(1, 3001))


def test_views_and_queries_are_one_split_or_ranges_of_a_column(path):
    filled(path)
    write(path, "create view v as select id, note from t where id <= 2000")
    for what in ({"extract_table": "v"}, {"query": "select * from t where id <= 2000 -- all; "}):
        assert len(tables(source(path, **what))) == 1
        split = {"strategy": "range", "column": "id", "max_connections": 4}
        assert [t.num_rows for t in tables(source(path, split=split, **what))] == [500] * 4
        assert values(source(path, split=split, **what)) == list(range(1, 2001))


def test_generated_columns_and_virtual_tables(path):
    filled(path, "i", declared="id integer primary key, twice int generated always as (id * 2),"
           " kept int generated always as (id * 3) stored")  # fmt: skip
    assert values(source(path), "twice")[-1] == 6000
    assert values(source(path), "kept")[-1] == 9000
    write(path, "create virtual table f using fts5(body)", "insert into f values ('a word')")
    assert read_all(source(path, extract_table="f")).to_pylist() == [{"body": "a word"}]


@pytest.mark.parametrize("name", [*HOSTILE, "rowid", "extracted", "main", "c0"])
def test_hostile_names_in_every_statement(path, name):
    quoted = quote_name(name)
    write(path, f"create table {quoted} (id int, {quoted} integer collate nocase)",
          FILL.format(rows=3000, what="i, i * 10").replace("into t", f"into {quoted}"))  # fmt: skip
    interval = Interval(integer("5000"), integer("9990"))
    expected = list(range(501, 1000))
    for what in ({"extract_table": name}, {"query": f"select * from {quoted} -- all"}):
        split = {"strategy": "range", "column": name, "target_bytes": 8192}
        found = source(path, split=split, where=f"{quoted} > 100", **what)
        assert len(tables(found)) > 1
        assert values(found) == list(range(11, 3001))
        assert values(found, interval=interval, watermark_column=name) == expected
        assert found.highest(name, upper=integer("70")) is None
        assert found.highest(name, upper=integer("170")) == integer("170")
        assert found.precedes(name, WatermarkValue("integer", "9"), WatermarkValue("integer", "10"))


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ({"strategy": "ctid"}, "SQLite has auto, rowid, range, none"),
        ({"strategy": "hash", "column": "id"}, "SQLite has auto"),
        ({"strategy": "range", "column": "idd"}, "no column 'idd'; the columns are id, note"),
    ],
)
def test_strategies_that_cannot_be(path, split, says):
    found = source(filled(path), split=split)
    with snapshot_of(found) as snapshot, pytest.raises(ConfigError, match=says):
        snapshot.splits(found.spec)


def test_batches_are_bounded_by_bytes(path, monkeypatch):
    """Twelve rows of 3 MB among small ones: no batch holds them all."""
    filled(path, "i, case when i % 100 = 0 then zeroblob(3000000) else x'00' end", rows=1200,
           declared="id integer primary key, body blob")  # fmt: skip
    with snapshot_of(source(path)) as snapshot:
        sizes = [batch.nbytes for batch in snapshot.reader.read(Split(0))]
        assert sum(sizes) > 36e6
        assert max(sizes) < reading.BATCH_BYTES + 4e6
    monkeypatch.setattr(reading, "BATCH_ROWS", 100)
    with snapshot_of(source(path)) as snapshot:
        assert {batch.num_rows for batch in snapshot.reader.read(Split(0))} == {100}


@pytest.mark.parametrize("columns", [1200, 2000])
def test_tables_as_wide_as_sqlite_allows(path, columns):
    """Its parser has a greatest depth, and its results a greatest width."""
    names = [f"c{i}" for i in range(columns)]
    texts = ", ".join(["'v'"] * columns)
    insert = f"insert into t values ({texts})"
    write(path, f"create table t ({' text, '.join(names)} text)", *[insert] * 600)
    found = source(path, split=ROWID | {"target_bytes": 300_000})
    assert len(tables(found)) > 1
    with snapshot_of(found) as snapshot:
        sizes = [batch.num_rows for batch in snapshot.reader.read(Split(0))]
    assert sum(sizes) == 600
    assert max(sizes) == 500_000 // columns


# Intervals


def integer(text: str | None) -> WatermarkValue | None:
    return None if text is None else WatermarkValue("integer", text)


@pytest.mark.parametrize(
    "split", [{"strategy": "none"}, ROWID, ROWID | {"strategy": "range", "column": "w"}]
)
def test_an_interval_is_open_below_and_closed_above(path, split):
    write(path, "create table t (id integer, w integer)",
          "insert into t values (1, 10), (2, 20), (3, 20), (4, 30), (5, 9223372036854775807),"
          " (6, null)")  # fmt: skip
    for lower, upper, expected in [
        (None, None, [1, 2, 3, 4, 5]), ("10", None, [2, 3, 4, 5]), (None, "20", [1, 2, 3]),
        ("10", "20", [2, 3]), ("20", "20", []), ("30", "9223372036854775807", [5]),
        ("-99999999999999999999", "99999999999999999999", [1, 2, 3, 4, 5]),
    ]:  # fmt: skip
        interval = Interval(integer(lower), integer(upper))
        for nulls in (True, False):
            request: dict[str, Any] = {
                "watermark_column": "w", "include_null_watermarks": nulls,
            }  # fmt: skip
            found = source(path, split=split)
            assert values(found, interval=interval, **request) == expected + ([6] if nulls else [])
            empty = Interval(integer(lower), integer(lower), empty=True)
            assert values(found, interval=empty, **request) == ([6] if nulls else [])


@pytest.mark.parametrize(
    ("declared", "literals", "highest"),
    [
        ("integer", ["-9223372036854775808", "5"], WatermarkValue("integer", "5")),
        ("decimal(12,3)", ["0.001", "12.5"], WatermarkValue("decimal", "12.5")),
        ("numeric(15,7)", ["-1", "0.0000001"], WatermarkValue("decimal", "0.0000001")),
        ("text", ["'a'", "'é☃'''"], WatermarkValue("string", "é☃'")),
        ("datetime", ["'2024-02-29 01:02:03'", "'2024-02-29 01:02:03.5'"],
         WatermarkValue("string", "2024-02-29 01:02:03.5")),
        ("text collate nocase", ["'A'", "'b'"], WatermarkValue("string", "b")),
    ],
)  # fmt: skip
def test_the_highest_value_is_exact_and_bounds_what_is_read(path, declared, literals, highest):
    rows = enumerate([*literals, "null"], 1)
    inserts = [f"insert into t values ({number}, {text})" for number, text in rows]
    write(path, f'create table t (id integer, "W m" {declared})', *inserts)
    found = source(path)
    assert found.highest("W m") == highest
    assert found.highest("W m", upper=highest) == highest
    assert found.highest("W m", lower=highest) is None
    for interval, expected in (
        (Interval(None, highest), [1, 2]),
        (Interval(highest), []),
        (Interval(highest, highest), []),
    ):
        assert values(found, interval=interval, watermark_column="W m") == expected
    assert found.null_watermarks("W m") == 1


def test_text_is_compared_in_its_columns_collation(path):
    write(path, "create table t (n text collate nocase, b text)", "insert into t values ('a', 'a')")
    upper, lower = WatermarkValue("string", "B"), WatermarkValue("string", "a")
    assert source(path).precedes("n", lower, upper)
    assert not source(path).precedes("b", lower, upper)
    with pytest.raises(ConfigError, match="a bound of type integer does not fit"):
        source(path).precedes("n", lower, WatermarkValue("integer", "1"))


def test_a_watermark_of_another_storage_class_is_refused(path):
    write(
        path, "create table t (w integer, r real)", "insert into t values (5, 1.5), ('SECRET', 2)"
    )
    with pytest.raises(
        TypeNotRepresentable, match=r"w \(INTEGER\) is a value of storage class text"
    ) as caught:
        source(path).highest("w")
    assert "SECRET" not in str(caught.value)
    with pytest.raises(ConfigError, match="r is REAL, which cannot be a watermark"):
        source(path).highest("r")
    with pytest.raises(ConfigError, match="r is REAL, which cannot be a watermark"):
        source(path, query="select r from t").precedes("r", *[WatermarkValue("integer", "1")] * 2)
    bound = Interval(WatermarkValue("string", "x"))
    with pytest.raises(ConfigError, match=r"w is now INTEGER.* is of type string"):
        values(source(path), "w", interval=bound, watermark_column="w")


def test_an_untyped_column_is_a_watermark_of_the_type_it_is_cast_to(path):
    write(path, "create table t (id integer, w)", "insert into t values (1, 9), (2, 10)")
    found = source(path, query="select id, max(w) as w from t group by id",
                   columns={"cast": {"w": "int64"}})  # fmt: skip
    assert found.highest("w") == WatermarkValue("integer", "10")
    interval = Interval(WatermarkValue("integer", "9"))
    assert values(found, interval=interval, watermark_column="w") == [2]


MIXED = {
    "no type": "create table t (id integer, w)",
    "ANY": "create table t (id integer, w any)",
    "NUMERIC": "create table t (id integer, w numeric)",
    "DATETIME": "create table t (id integer, w datetime)",
}


@pytest.mark.parametrize("made", MIXED.values(), ids=MIXED)
@pytest.mark.parametrize(
    "rows", ["(1, 5), (2, 7)", "(1, 5), (2, 'x')", "(1, 1.5), (2, 'x')", "(1, 'x'), (2, x'41')"]
)
def test_a_watermark_of_texts_that_holds_others_is_refused_where_rows_would_be_lost(
    path, made, rows
):
    write(path, made, f"insert into t values {rows}")
    found = source(path)
    bound = WatermarkValue("string", "5")
    for ask in (
        lambda: found.highest("w"),
        lambda: found.precedes("w", bound, bound),
        lambda: values(found, interval=Interval(bound), watermark_column="w"),
    ):
        with pytest.raises(
            ConfigError, match=r"w is .*holds values that are not text.*columns: \{cast: "
        ):
            ask()


@pytest.mark.parametrize("text", ["coalesce(updated, created)", "max(updated)", "updated + 0"])
def test_an_expression_of_numbers_is_a_watermark_of_the_type_it_is_cast_to(path, text):
    write(path, "create table s (id integer, created integer, updated integer)",
          "insert into s values (1, 1, 5), (2, 2, 7)",
          f"create view t as select id, {text} as w from s group by id")  # fmt: skip
    with pytest.raises(ConfigError, match=r"columns: \{cast: "):
        source(path).highest("w")
    found = source(path, columns={"cast": {"w": "int64"}})
    highest = found.highest("w")
    assert highest == WatermarkValue("integer", "7")
    write(path, "insert into s values (3, 3, 9)")
    assert values(found, interval=Interval(highest), watermark_column="w") == [3]


def test_texts_in_a_column_without_a_type_are_a_watermark(path):
    write(path, "create table t (id integer, w)",
          "insert into t values (1, '2026-01-01'), (2, '2026-01-02'), (3, null)")  # fmt: skip
    found = source(path)
    highest = found.highest("w")
    assert highest == WatermarkValue("string", "2026-01-02")
    write(path, "insert into t values (4, '2026-01-03')")
    assert values(found, interval=Interval(highest), watermark_column="w") == [4]


@pytest.mark.parametrize(
    "number", [0.1, 1.1, 10.25, 3.679342836677278e-3, 123456789.987654321, 5.0, 2**53 + 1, -0.3]
)
def test_a_decimal_bound_comes_back_as_the_value_it_was(path, number):
    write(path, "create table t (id integer, w decimal(38, 20))")
    with contextlib.closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("insert into t values (1, ?)", [number])
    found = source(path)
    highest = found.highest("w")
    assert values(found, interval=Interval(highest), watermark_column="w") == []
    assert values(found, interval=Interval(None, highest), watermark_column="w") == [1]


# Snapshots


def journaled(path: Path, mode: str) -> Path:
    write(path, f"pragma journal_mode = {mode}")
    return filled(path)


def test_while_a_snapshot_is_held_nobody_commits_to_a_rollback_journal(path):
    journaled(path, "delete")
    found = source(path, split=ROWID)
    with snapshot_of(found) as snapshot:
        splits = snapshot.splits(found.spec)
        with (
            contextlib.closing(sqlite3.connect(path, timeout=0)) as writer,
            pytest.raises(sqlite3.OperationalError, match="locked"),
            writer,
        ):
            writer.execute("delete from t")
        reader = pickle.loads(pickle.dumps(snapshot.reader))
        assert sum(b.num_rows for split in splits for b in reader.read(split)) == 3000
    write(path, "delete from t")
    assert values(found) == []


def test_in_wal_mode_the_held_snapshot_stays_while_others_commit(path):
    journaled(path, "wal")
    found = source(path, split={"target_bytes": 8192})
    with snapshot_of(found) as snapshot:
        [split] = snapshot.splits(found.spec)
        write(path, "delete from t where id % 2 = 0")
        assert sum(batch.num_rows for batch in snapshot.reader.read(split)) == 3000
        assert snapshot.count() == 3000
        assert values(source(path)) == list(range(1, 3001, 2)), "seen to be able to differ"
        with pytest.raises(SourceUnavailable, match="was written to or replaced"):
            list(pickle.loads(pickle.dumps(snapshot.reader)).read(split))
        with pytest.raises(SourceUnavailable, match="was written to or replaced"):
            snapshot.check()


def test_in_wal_mode_splits_that_were_asked_for_join_until_somebody_commits(path):
    journaled(path, "wal")
    found = source(path, split=ROWID)
    with snapshot_of(found) as snapshot:
        splits = snapshot.splits(found.spec)
        assert len(splits) > 20
        reader = pickle.loads(pickle.dumps(snapshot.reader))
        assert sum(b.num_rows for split in splits[:5] for b in reader.read(split)) > 0
        write(path, "insert into t values (100000, 'x')")
        with pytest.raises(SourceUnavailable, match=r"split\.strategy auto or none"):
            list(reader.read(splits[5]))


def test_in_wal_mode_a_busy_writer_leaves_one_split(path, monkeypatch):
    """As if a commit came every time between looking and beginning."""
    journaled(path, "wal")
    monkeypatch.setattr("extract_jobs.sources.sqlite.session._QUIET_TRIES", 0)
    found = source(path, split=ROWID)
    with snapshot_of(found) as snapshot:
        [split] = snapshot.splits(found.spec)
        assert sum(batch.num_rows for batch in snapshot.reader.read(split)) == 3000
        with pytest.raises(SourceUnavailable):
            list(pickle.loads(pickle.dumps(snapshot.reader)).read(split))


def test_in_wal_mode_a_write_of_this_very_moment_is_not_trusted(path, monkeypatch):
    """The next one could leave the same time on the file."""
    journaled(path, "wal")
    monkeypatch.setattr("extract_jobs.sources.sqlite.session._QUIET_TRIES", 2)
    real = session.version
    connection = source(path).connection
    with contextlib.closing(session.connect(connection)) as opened:
        for age_ns, known in ((0, False), (10**9, True)):
            written = (0, time.time_ns() - age_ns)
            monkeypatch.setattr(
                session, "version", lambda c, wal, w=written: replace(real(c, wal=wal), written=w)
            )
            monkeypatch.setattr(session.time, "time_ns", lambda now=written[1] + age_ns: now)
            assert (session.begin_version(opened, connection, "reading") is not None) == known
            opened.execute("rollback")


def test_a_file_that_was_replaced_is_not_read(path, tmp_path):
    filled(path)
    found = source(path, split=ROWID)
    other = filled(tmp_path / "other.db", rows=10)
    with snapshot_of(found) as snapshot:
        [*splits] = snapshot.splits(found.spec)
        other.replace(path)
        with pytest.raises(SourceUnavailable, match="replaced"):
            list(pickle.loads(pickle.dumps(snapshot.reader)).read(splits[0]))
        assert snapshot.count() == 3000


def test_the_file_is_never_written(path):
    journaled(path, "delete")
    before = path.read_bytes()
    values(source(path, query="select id, note from t", where="id > 0"))
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


def test_a_reader_given_up_early_lets_writers_in(path):
    found = source(filled(path, rows=30_000))
    with snapshot_of(found) as snapshot:
        reader = pickle.loads(pickle.dumps(snapshot.reader))
        batches = reader.read(Split(0))
        assert next(batches).num_rows > 0
        batches.close()
    write(path, "delete from t")


def test_a_whole_extract_where_values_become_null(path, tmp_path):
    write(path, "create table t (id integer, n integer)", "insert into t values (1, 'x'), (2, 2)")
    places = {name: f"{tmp_path}/{name}" for name in ("state_uri", "report_uri")}
    spec = source(path, lossy_types="null", target={"uri": f"{tmp_path}/t"}, **places).spec
    report = run_extract(spec)
    assert (report.rows, report.source_rows, report.reconciled) == (2, 2, True)
    assert "1" in str(report.model_dump()["nulled"])


def live_rows(folder: Path) -> list[int]:
    return sorted(pq.read_table(folder / "lake").column("id").to_pylist())


@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_a_target_with_a_relative_path_continues_from_another_folder(
    tmp_path, path, mode, monkeypatch
):
    write(path, "create table t (id integer primary key)", "insert into t values (1), (2), (3)")
    rows: dict[str, Any] = {"mode": "full"}
    if mode == "incremental":
        rows = {"mode": mode, "columns": {"key": ["id"]}, "watermark": {"column": "id", "lag": 9}}

    def run(run_id: str, base: str) -> None:
        run_extract(
            make_spec(
                run_id=run_id,
                source_type="sqlite",
                connection={"path": str(path)},
                extract_table="t",
                target={"uri": f"{base}lake"},
                state_uri=f"{base}state",
                report_uri=f"{base}reports/{run_id}.json",
                **rows,
            )
        )

    monkeypatch.chdir(tmp_path)
    run("a", "")
    for number in (4, 5):
        write(path, f"insert into t values ({number})")
        run(str(number), f"{tmp_path}/")
        assert live_rows(tmp_path) == list(range(1, number + 1))
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
