"""What goes wrong is told without a row's data, and retried where that may help."""

from __future__ import annotations

import dataclasses

import psycopg
import pyarrow as pa
import pytest

from extract_jobs.errors import (
    ConfigError,
    SourceQueryFailed,
    SourceUnavailable,
    TypeNotRepresentable,
)
from extract_jobs.sources.postgres import duckdb_reader as postgres_duckdb
from extract_jobs.sources.postgres import sql as postgres_sql
from extract_jobs.sources.postgres.errors import reading_error, scrub, statement_error
from extract_jobs.sources.postgres.rows import _batch
from extract_jobs.sources.splits import Split
from tests.support.postgres_source import everything_said, filled, snapshot_of, source

BOTH_WAYS = pytest.mark.parametrize("width", ["narrow", "wide"])


@BOTH_WAYS
@pytest.mark.parametrize(
    ("value", "where"),
    [
        ("4111 TOPSECRET\nTOPSECRET", "code::int > 0"),
        ('a" TOPSECRET "b', "code::int > 0"),
        ("it's TOPSECRET, isn't it", "code::int > 0"),
        ("TOPSECRET", "code::regclass::text > ''"),
        ("TOPSECRET", "code::regtype::text > ''"),
        ("TOPSECRET connection reset deadlock detected", "code::int > 0"),
        ("TOPSECRET", "raised(code)"),
        ("TOPSECRET", "raised_as(code)"),
    ],
)
def test_no_message_contains_a_value(pg_database, monkeypatch, value, where, width):
    pg_database.execute(
        "create table t (code text)",
        "create function raised(code text) returns bool language plpgsql as"
        " $$ begin raise exception 'bad row %', code; end $$",
        "create function raised_as(code text) returns bool language plpgsql as"
        " $$ begin raise exception 'bad row %', code using errcode = '42704'; end $$",
    )
    with pg_database.connect() as connection:
        connection.execute("insert into t values (%s)", [value])
    found = source(pg_database, monkeypatch, extract_table="t", where=where)
    with snapshot_of(found) as snapshot:
        reader = dataclasses.replace(snapshot.reader, width=width)
        for act in (lambda: list(reader.read(Split(0))), snapshot.count):
            with pytest.raises((SourceQueryFailed, ConfigError)) as caught:
                act()
            assert "TOPSECRET" not in everything_said(caught.value)
            assert "bad row" not in str(caught.value)
            assert not caught.value.retryable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("division by zero", "division by zero"),
        ('invalid input syntax for type date: "a" b', "invalid input syntax for type date: …"),
        ("large object 12345678 does not exist", "large object …"),
        ("ungültige Eingabesyntax: »x«", "ungültige Eingabesyntax: …"),
        ("first\nsecond", "first"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_message_is_kept_up_to_its_first_quote(text, shown):
    assert scrub(text) == shown


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("ERROR:  canceling statement due to lock timeout", SourceUnavailable, "lock timeout"),
        ("ERROR:  deadlock detected\nDETAIL:  Process 1", SourceUnavailable, "deadlock detected"),
        ("ERROR:  could not serialize access due to …", SourceUnavailable, "serialize"),
        ("ERROR:  out of memory", SourceUnavailable, "out of memory"),
        ('ERROR:  could not extend file "base/1": No space', SourceUnavailable, "extend file"),
        ("FATAL:  sorry, too many clients already", SourceUnavailable, "connection"),
        ("FATAL:  terminating connection due to administrator command", SourceUnavailable, "lost"),
        ("server closed the connection unexpectedly\n\tThis probably", SourceUnavailable, "lost"),
        ("no connection to the server\n", SourceUnavailable, "lost"),
        ('ERROR:  snapshot "00000003-1" does not exist', SourceUnavailable, "snapshot"),
        ('ERROR:  bad value: "deadlock detected"', SourceQueryFailed, "bad value: …"),
        ("ERROR:  permission denied for table t", ConfigError, "permission denied for table t"),
        ('ERROR:  query would be affected by row-level security policy for table "t"', ConfigError,
         "row_security"),
        ("Invalid unicode (byte sequence mismatch) detected", TypeNotRepresentable, "UTF-8"),
    ],
)  # fmt: skip
def test_what_a_reader_says_is_taken_by_its_head(text, kind, says):
    statement = "select c0 from t where note <> 'ERROR:  \"deadlock detected\" connection reset'"
    copy = f'COPY (SELECT "c0" FROM ({statement}) AS q) TO STDOUT (FORMAT "binary");'
    ours = 'COPY (SELECT "pid" FROM (select pid) AS q) TO STDOUT (FORMAT "binary");'
    for said in (
        text,
        f"IO Error: Failed to fetch header for COPY: {text}",
        f'IO Error: Failed to execute query "{statement}": {text}',
        f'IO Error: Failed to prepare COPY "COPY ({statement}) TO STDOUT": {text}',
        f'IO Error: Failed to prepare COPY "{copy}": {text}',
        f'Failed to prepare COPY "{ours}": {text}',
    ):
        error = reading_error(said, "reading t", statement)
        assert type(error) is kind
        assert says in str(error)


@pytest.mark.parametrize("state", ["53100", "53200", "53300", "40001", "40P01", "55P03", "57P01"])
def test_conditions_that_pass_are_retryable(state):
    error = psycopg.errors.lookup(state)("x")
    error.sqlstate = state
    failure = statement_error(error, "counting t")
    assert failure.retryable
    assert ("lock timeout" in str(failure)) == (state == "55P03")


@BOTH_WAYS
def test_a_reader_that_waits_too_long_for_a_lock_says_so(pg_database, monkeypatch, width):
    monkeypatch.setitem(postgres_sql._SETTINGS, "lock_timeout", "200ms")
    filled(pg_database, 10)
    found = source(pg_database, monkeypatch, extract_table="t")
    with snapshot_of(found) as snapshot:
        reader = dataclasses.replace(snapshot.reader, width=width)
        pg_database.execute("create table other (id int)")
        reader = dataclasses.replace(
            reader, relation=dataclasses.replace(reader.relation, source="other"), columns=()
        )
        with pg_database.connect(autocommit=False) as blocking:
            blocking.execute("lock table other in access exclusive mode")
            with pytest.raises(SourceUnavailable, match="lock timeout"):
                list(
                    dataclasses.replace(reader, columns=snapshot.reader.columns[:1]).read(Split(0))
                )


def test_row_level_security_switched_off_is_no_matter_of_select(pg_database, monkeypatch):
    pg_database.execute(
        "create role limited login password 'x'",
        "create table t (id int)",
        "grant select on t to limited",
        "alter table t enable row level security",
        "alter role limited set row_security = off",
    )
    try:
        monkeypatch.setenv("LIMITED", "x")
        found = source(
            pg_database,
            monkeypatch,
            extract_table="t",
            connection={"user": "limited", "password_env": "LIMITED"},
        )
        with pytest.raises(ConfigError, match="BYPASSRLS"), snapshot_of(found) as snapshot:
            snapshot.count()
    finally:
        pg_database.execute("drop owned by limited", "drop role limited")


def test_a_value_that_arrow_refuses_names_its_column(pg_database, monkeypatch):
    filled(pg_database, 1)
    columns = source(pg_database, monkeypatch, extract_table="t").describe().columns[:1]
    with pytest.raises(TypeNotRepresentable, match="column id") as caught:
        _batch([(2**77,)], pa.schema([("c0", pa.int32())]), columns)
    assert str(2**77) not in everything_said(caught.value)


def test_an_extension_that_does_not_load_is_a_matter_of_installation(
    pg_database, monkeypatch, tmp_path
):
    filled(pg_database, 1)
    broken = tmp_path / "postgres_scanner.duckdb_extension"
    broken.write_bytes(b"none")
    found = source(pg_database, monkeypatch, extract_table="t")
    monkeypatch.setattr(postgres_duckdb, "_databases", {})
    monkeypatch.setattr(postgres_duckdb, "extension_file", lambda: broken)
    with snapshot_of(found) as snapshot, pytest.raises(ConfigError, match="cannot be started"):
        list(snapshot.reader.read(Split(0)))


@BOTH_WAYS
def test_blanks_at_the_end_in_arrays_of_char(pg_database, monkeypatch, width):
    pg_database.execute(
        "create domain code as char(5)",
        "create domain loose as bpchar",
        "create domain codes as bpchar[]",
        "create table t (a code[], b loose[], c bpchar[], d char(5)[], e codes, f code[])",
        "insert into t values (array['a  ', null]::code[], array['b  ']::loose[],"
        " array['c '::bpchar, '', null], array['d '], array['e  '::bpchar], null), ("
        " '{}', '{}', '{}', '{}', '{}', '{}')",
    )
    found = source(pg_database, monkeypatch, extract_table="t")
    with snapshot_of(found) as snapshot:
        reader = dataclasses.replace(snapshot.reader, width=width)
        rows = [row for batch in reader.read(Split(0)) for row in batch.to_pylist()]
    assert rows[0] == {
        "a": ["a    ", None],
        "b": ["b  "],
        "c": ["c ", "", None],
        "d": ["d    "],
        "e": ["e  "],
        "f": None,
    }
    assert rows[1] == {key: [] for key in "abcdef"}
