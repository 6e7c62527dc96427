"""Conditions on a real server: what passes is one condition, and what does not says why."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError, ReconcileFailed
from extract_jobs.run import run_extract
from extract_jobs.spec.predicates import where_problem
from tests.support.postgres import VERSION
from tests.support.postgres_source import source
from tests.support.specs import make_spec

PIECES = st.sampled_from([
    "'", "''", '"', "(", ")", ";", "--", "/*", "*/", "\\", "\\'", "$$", "$a$", "a", " ", "\n",
    "=", "1", " or ", " and ", "not ", "'x'", "b", "a = 1", ") or (1 = 1", "; drop table t",
    " union select 1 ", "E'", "U&'", "N'", "B'1'", "::text", "[1]", "array[", "]", ",", "||",
    " in ", "(select 1)", "exists", " is null", "count(*)", "case ", "\r", "\xa0", "%s", ":a",
    " limit 1", " operator(pg_catalog.=) ", "''''", " uescape '!'", "returning 1", "into x",
    "@ ", " ~= ", " <<| ", "?- ", " box ", " t.mood",
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=9).map("".join) | st.lists(PIECES, max_size=4).map(
    lambda inside: f"b = '{''.join(inside)}' or a = 1"
)


@pytest.fixture
def server_checked(pg_database):
    """A session in which a test tries text, with backslashes meant either way."""
    pg_database.execute(
        "create table t (a int, b text)", "insert into t values (1, 'x'), (2, null)"
    )
    with pg_database.connect(autocommit=False) as connection:
        yield connection


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
@example("a = 1) or (1 = 1")
@example("b = '\\' or b = '")
@example("b = E'x'\n'\\' or b = '")
def test_the_server_never_reads_what_passes_as_more_than_a_condition(server_checked, text):
    if where_problem(text, "postgres") is not None:
        return
    for setting in ("on", "off"):
        try:
            server_checked.execute(f"set local standard_conforming_strings = {setting}")
            # The simple protocol, which runs several statements where it is given several.
            result = server_checked.pgconn.exec_(
                f"select * from t where (\n{text}\n) and false".encode()
            )
            assert result.ntuples == 0
        finally:
            server_checked.rollback()
    assert server_checked.execute("select count(*) from t").fetchone() == (2,)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("random() < 0.5", "^where: uses random, which returns something different each time"),
        ("a = 1 -- why", "^where: holds a comment"),
        ("nowhere = 1", "the server refuses the where"),
        ("b", "the server refuses the where"),
        ("substring(b similar 'x' esc '#') = 'x'", "the server refuses the where: syntax error"),
    ],
)
def test_both_checks_refuse_before_a_row_is_read(pg_database, monkeypatch, where, says):
    pg_database.execute("create table t (a int, b text)")
    with pytest.raises(ConfigError, match=says):
        source(pg_database, monkeypatch, extract_table="t", where=where).describe()


def test_the_server_judges_what_the_parser_lacks(pg_database, monkeypatch):
    pg_database.execute("create table t (a int, b text)", "insert into t values (999, 'x')")
    conditions = [
        "@ a > 2 and @(-a) = 999 and a <> @ -5",
        "point(a, 1) <@ box '((0,0),(2,2))' or macaddr'08:00:2b:01:02:03' is null",
        "point(a, 1) ~= point(999, 1) and b is nfc normalized or inet '10.1.0.0' <<= '10.0.0.0/8'",
    ]
    if VERSION >= 14:
        conditions += [
            "substring(b similar 'x' escape '#') = 'x'",
            "point(a, a) <<| point(1000, 1000) and ?- lseg(point(a, 0), point(0, 0))",
        ]
    for where in conditions:
        source(pg_database, monkeypatch, extract_table="t", where=where).describe()
    with pytest.raises(ConfigError, match="the server refuses the where: operator does not exist"):
        source(pg_database, monkeypatch, extract_table="t", where="a <#> a > 2").describe()
    numbers = source(pg_database, monkeypatch, extract_table="t", where="a < 1_000 and a > 0x1F")
    if VERSION >= 16:
        numbers.describe()
    else:
        said = "trailing junk" if VERSION == 15 else "syntax error"
        with pytest.raises(ConfigError, match=f"the server refuses the where: {said}"):
            numbers.describe()


@pytest.mark.parametrize(
    "read",
    [
        {"extract_table": "t", "where": "a > 0 and now() > '2020-01-01'"},
        {"query": "select a from t where random() < 0.5"},
    ],
    ids=["clock", "random"],
)
def test_counts_from_a_different_snapshot_are_reported_but_not_enforced(
    pg_database, monkeypatch, tmp_path, read
):
    pg_database.execute("create table t as select generate_series(1, 1000) as a", "analyze t")
    monkeypatch.setenv("TEST_PG_PASSWORD", pg_database.password)
    report = run_extract(make_spec(tmp_path, connection=connection_to(pg_database), **read))
    assert report.rows > 0
    assert not report.reconciled
    still = {"extract_table": "t", "where": "a > 0", "state_uri": str(tmp_path / "other")}
    target = {"uri": str(tmp_path / "beside")}
    spec = make_spec(tmp_path, connection=connection_to(pg_database), target=target, **still)
    assert run_extract(spec).reconciled


def connection_to(server):
    return {
        "host": server.host, "port": server.port, "database": server.database,
        "user": server.user, "password_env": "TEST_PG_PASSWORD",
    }  # fmt: skip


def test_a_condition_on_a_function_of_a_view_says_what_may_be_wrong(
    pg_database, monkeypatch, tmp_path
):
    pg_database.execute(
        "create table t as select generate_series(1, 1000) as a",
        "create view v as select * from t where random() < 0.5",
    )
    monkeypatch.setenv("TEST_PG_PASSWORD", pg_database.password)
    with pytest.raises(
        ReconcileFailed, match=r"A view or function that reads the clock, or random\(\)"
    ):
        run_extract(make_spec(tmp_path, connection=connection_to(pg_database), extract_table="v"))
