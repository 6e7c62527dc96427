"""SQLite tables that are read without looking at each value: exactly as by looking at each."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ExtractError, SourceUnavailable
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.splits import Split
from extract_jobs.sources.sqlite import typed_rows
from extract_jobs.sources.sqlite.reader import SqliteReader
from extract_jobs.sources.sqlite.typed_rows import TypedRows
from tests.support.sampling import examples
from tests.support.sqlite_source import source, write
from tests.support.sqlite_torture import make_torture

KINDS = ("integer", "text", "real", "blob", "boolean", "decimal(10,2)", "date", "numeric", "")
values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    st.sampled_from([0.25, 1.5, -0.0, 1e15, 2.0**53, 1e300, "1", "1.5", "x", "", b"", b"\xff"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.binary(max_size=4),
    st.just("cast(x'c328' as text)"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some file #1?%20.db"


def filled(path: Path, declared: dict[str, str], rows: list[tuple[Any, ...]]) -> Path:
    path.unlink(missing_ok=True)
    listed = ", ".join(f'"{name}" {kind}' for name, kind in declared.items())
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"create table t ({listed})")
        for row in rows:
            raw = "cast(x'c328' as text)"
            marks = ", ".join(raw if value == raw else "?" for value in row)
            given = [value for value in row if value != raw]
            database.execute(f"insert into t values ({marks})", given)
    return path


def both(path: Path, *, conditions: bool = True, **overrides: Any) -> tuple[Any, Any, SqliteReader]:
    """Return what the exact way reads or raises, what the other does, and the other's reader."""
    found = source(path, **overrides)
    with found.snapshot(ReadRequest(found.describe().columns)) as snapshot:
        # As in a worker process, where nobody has the file open.
        elsewhere = replace(snapshot.reader, held=None, holder=0)
        exact = replace(elsewhere, rowid=None)
    # The snapshot's lock is released: here it would be dropped with the driver's.
    return outcome(exact), outcome(elsewhere), elsewhere


def outcome(reader: SqliteReader, split: Split | None = None) -> Any:
    try:
        batches = list(reader.read(split or Split(0)))
    except ExtractError as error:
        return type(error), str(error)
    table = pa.Table.from_batches(batches, reader.schema)
    table.validate(full=True)
    # Compared by their bytes, so that 0.0 is not -0.0.
    sink = table.combine_chunks()
    return sink.schema, repr(sink.to_pydict()), dict(reader.nulled)


@settings(
    max_examples=examples(25), deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_any_values_arrive_or_are_refused_alike(path, data) -> None:
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    declared = {f"c{i}": kind for i, kind in enumerate(kinds)}
    own: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(-(2**63), 2**63 - 1), "text": st.text(max_size=5),
        "real": st.floats(allow_nan=False), "blob": st.binary(max_size=4),
        "boolean": st.integers(0, 1), "decimal(10,2)": st.integers(-999, 999).map(lambda n: n / 4),
    }  # fmt: skip
    fitting = [st.none() | own.get(kind, st.sampled_from(["2024-02-29", 3])) for kind in kinds]
    rows = st.lists(st.tuples(*fitting), max_size=12)
    given_rows = data.draw(rows) + data.draw(
        st.lists(st.tuples(*[values] * len(kinds)), max_size=2)
    )
    given_rows += data.draw(rows)
    filled(path, declared, given_rows)
    policy = data.draw(st.sampled_from(["refuse", "null"]))
    size, large = typed_rows._ROWS, typed_rows._ROW_BYTES
    typed_rows._ROWS, typed_rows._ROW_BYTES = data.draw(st.integers(1, 5)), 12
    try:
        exact, typed, _ = both(path, lossy_types=policy)
    finally:
        typed_rows._ROWS, typed_rows._ROW_BYTES = size, large
    assert typed == exact


def test_text_that_is_not_utf8_is_refused_beside_numbers_too(path) -> None:
    filled(path, {"c": ""}, [(3,), ("cast(x'c328' as text)",)])
    exact, typed, _ = both(path, lossy_types="null")
    assert typed == exact
    assert "['3', None]" in exact[1]


def test_the_torture_table_arrives_alike(path) -> None:
    exact, typed, _ = both(make_torture(path))
    assert typed == exact


def completes(reader: SqliteReader, split: Split | None = None) -> TypedRows:
    typed = reader._typed(split or Split(0))
    assert typed is not None
    list(typed.batches(reader.schema))
    return typed


def test_uniform_values_are_read_without_python(path, monkeypatch) -> None:
    rows = [
        (n, f"text {n}", n / 4, b"\x00" * (n % 3), n % 2, n / 4, f"2024-01-{n:02}", None)
        for n in range(1, 20)
    ]
    declared = dict(zip("abcdefgh", KINDS, strict=False))
    filled(path, declared, [*rows, (None,) * 8])
    monkeypatch.setattr(typed_rows, "_ROWS", 4)
    exact, typed, reader = both(path)
    assert typed == exact
    found = completes(reader)
    assert (found.rows, found.complete) == (20, True)
    split = Split(0, '"t".rowid > 5 and "t".rowid <= 9')
    assert completes(reader, split).rows == 4


def test_a_value_of_another_class_ends_it_where_it_is(path, monkeypatch) -> None:
    monkeypatch.setattr(typed_rows, "_ROWS", 4)
    declared = {"id": "integer", "t": "text"}
    rows: list[tuple[Any, ...]] = [(n, "x" * 20) for n in range(10)]
    for odd in ("x" * 10_000, b"blob"):
        filled(path, declared, [*rows, (10, odd), *rows])
        exact, typed, reader = both(path, lossy_types="null")
        assert typed == exact
        found = completes(reader)
        assert not found.complete
        assert 4 <= found.rows <= 10


@pytest.mark.parametrize(
    ("statements", "plain"),
    [
        (["create table t (a integer, b as (a + 1))"], False),
        (["create table t (a integer, b real default 1.1)"], False),
        (["create table t (a integer, b real default '1.1')"], False),
        (["create table t (a integer default 7, b text default 'it''s')"], True),
        (["create table t (a boolean default true, b numeric default FALSE)"], True),
        (
            [
                "create table t (a integer)",
                "insert into t values (1)",
                "alter table t add column b text default true",
            ],
            False,
        ),
        (["create table t (a integer primary key, b text) without rowid"], False),
        (["create table u (a integer)", "create view t as select a from u"], False),
        (["create virtual table t using fts5(a)"], False),
        (["pragma encoding = 'UTF-16'", "create table t (a integer)"], True),
    ],
)
def test_what_is_computed_is_left_to_pythons_sqlite(path, statements, plain) -> None:
    write(path, *statements)
    exact, typed, reader = both(path)
    assert typed == exact
    assert (reader.rowid is not None) == plain
    if statements[0].startswith("pragma"):
        assert not completes(reader).complete


def test_conditions_of_a_person_are_left_to_pythons_sqlite(path) -> None:
    filled(path, {"a": "integer"}, [(1,), (2,)])
    exact, typed, reader = both(path, where="a > 1")
    assert typed == exact
    assert reader.rowid is None


def test_the_process_that_holds_the_snapshot_does_not_open_the_file_twice(path) -> None:
    filled(path, {"a": "integer"}, [(1,)])
    found = source(path)
    with found.snapshot(ReadRequest(found.describe().columns)) as snapshot:
        assert snapshot.reader._typed(Split(0)) is None
        assert replace(snapshot.reader, held=None)._typed(Split(0)) is None


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_that_has_moved_on_is_not_read(path, mode) -> None:
    filled(path, {"a": "integer"}, [(1,)])
    with closing(sqlite3.connect(path)) as writer:
        writer.execute(f"pragma journal_mode = {mode}")
        writer.execute("insert into t values (2)")
        writer.commit()
        _, typed, reader = both(path)
        assert "[1, 2]" in typed[1]
        assert completes(reader).complete
        writer.execute("insert into t values (3)")
        writer.commit()
        with pytest.raises(SourceUnavailable, match="written to or replaced"):
            list(reader.read(Split(0)))


def test_an_interval_is_read_in_the_order_of_rowids(path, monkeypatch) -> None:
    monkeypatch.setattr(typed_rows, "_ROWS", 2)
    rows: list[tuple[Any, ...]] = [(100 - n, "x") for n in range(50)]
    filled(path, {"a": "integer", "b": "text"}, [*rows, (60, b"odd"), *rows])
    write(path, "create index i on t (a)")
    found = source(path, lossy_types="null")
    with found.snapshot(ReadRequest(found.describe().columns)) as snapshot:
        reader = replace(snapshot.reader, held=None, holder=0, interval='"t"."a" > 70')
    table = pa.Table.from_batches(list(reader.read(Split(0))), reader.schema)
    assert table["a"].to_pylist() == [a for a, _ in [*rows, *rows] if a > 70]
