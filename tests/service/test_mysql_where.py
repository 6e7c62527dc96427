"""Conditions of the MySQL dialect on a real server: whatever its settings, they stay conditions."""

from __future__ import annotations

import contextlib

import pymysql
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pymysql.constants.CLIENT import MULTI_STATEMENTS

from extract_jobs.spec.predicates import where_problem

PIECES = st.sampled_from([
    "'", "''", '"', '""', "`", "(", ")", ";", "--", "-- ", "#", "/*", "*/", "/*!50000 ", "/*M! ",
    "\\", "\\'", '\\"', "a", " ", "\n", "=", "1", " or ", " and ", "not ", "'x'", '"b"', "a = 1",
    ") or (1 = 1", "; drop table t", " union select 1 ", "N'", "_latin1'", "x'41'", "{d '", "}",
    "||", " in ", "(select 1)", " is null", "@x := 1", "\r", "\xa0", " into @x", " limit 1",
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=9).map("".join) | st.tuples(
    st.sampled_from("'\"`"), st.lists(PIECES, max_size=4)
).map(lambda drawn: f"b = {drawn[0]}{''.join(drawn[1])}{drawn[0]} or a = 1")
MODES = ("", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES")


@pytest.fixture
def connections(mysql_database):
    """One session for each way of quoting, that runs several statements where it is given some."""
    mysql_database.execute(
        "create table t (a int, b text)", "insert into t values (1, 'x'), (2, null)"
    )
    with contextlib.ExitStack() as opened:
        yield [
            opened.enter_context(
                contextlib.closing(
                    mysql_database.connect(sql_mode=mode, client_flag=MULTI_STATEMENTS)
                )
            )
            for mode in MODES
        ]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
@example("b = '\\' or b = '")
@example('b = "\\" or b = "')
@example("a = 1 /*!50000 ) or (1 = 1 */")
@example("b = 'x\\'; drop table t; -- '")
def test_the_server_never_reads_what_passes_as_more_than_a_condition(connections, text):
    if where_problem(text, "mysql") is not None:
        return
    for connection in connections:
        with connection.cursor() as cursor:
            with contextlib.suppress(pymysql.MySQLError):
                cursor.execute(f"select * from t where (\n{text}\n) and false")
                assert cursor.fetchall() == ()
                assert not cursor.nextset()
            cursor.execute("select count(*) from t")
            assert cursor.fetchone() == (2,)
