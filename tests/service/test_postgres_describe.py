"""What the catalogue tells, and every way that a name, query or condition can be wrong."""

from __future__ import annotations

import pytest

from extract_jobs.errors import ConfigError, SourceUnavailable, TypeNotRepresentable
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.postgres.source import PostgresSource
from extract_jobs.sources.sql.names import readings
from extract_jobs.watermark import WatermarkValue
from tests.support.postgres import VERSION, run_server
from tests.support.postgres_source import everything_said, source

HOSTILE = [
    'we"ird',
    "do.ts.in.it",
    "sp ace",
    "semi; drop table x",
    "Ünïcödé ☃",
    "UPPER",
    "select",
    "quo'te",
    "back\\slash",
    "per%s cent%",
    "$$",
    "{brace}",
]


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def rows_of(found: PostgresSource) -> list[dict]:
    with found.snapshot(ReadRequest(found.describe().columns)) as snapshot:
        splits = snapshot.splits(found.spec)
        return [
            row for s in splits for batch in snapshot.reader.read(s) for row in batch.to_pylist()
        ]


def test_describe_returns_columns_key_and_size(pg_database, monkeypatch):
    pg_database.execute(
        "create table orders (gone int, id int generated always as identity,"
        " at timestamptz not null, note text, twice int generated always as (3) stored,"
        " primary key (at, id))",
        "alter table orders drop column gone",
        "insert into orders (at, note) select now(), repeat(md5(i::text), 400)"
        " from generate_series(1, 100) i",
        "analyze orders",
    )
    found = source(pg_database, monkeypatch, extract_table="orders").describe()
    assert [c.name for c in found.columns] == ["id", "at", "note", "twice"]
    assert [c.source_type for c in found.columns] == [
        "integer", "timestamp with time zone", "text", "integer",
    ]  # fmt: skip
    assert [c.nullable for c in found.columns] == [False, False, True, True]
    assert found.key == ("at", "id")
    assert (found.kind, found.estimated_rows) == ("table", 100)
    assert found.estimated_bytes is not None
    assert found.estimated_bytes > 8192
    with pg_database.connect() as connection:
        row = connection.execute(
            "select system_identifier::text from pg_control_system()"
        ).fetchone()
    assert found.fingerprint == {"system_identifier": row[0], "database": pg_database.database}
    assert found.source_version.startswith(f"PostgreSQL {VERSION}")


def test_a_table_never_analysed_has_no_estimate_of_rows(pg_database, monkeypatch):
    pg_database.execute("create table fresh (a int)", "insert into fresh values (1)")
    assert source(pg_database, monkeypatch, extract_table="fresh").describe().estimated_rows is None


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_of_schema_table_and_column(pg_database, monkeypatch, name):
    pg_database.execute(
        f"create schema {quote(name)}",
        f"create table {quote(name)}.{quote(name)} ({quote(name)} text, other int)",
        f"insert into {quote(name)}.{quote(name)} values ('x', 1)",
        f"create table {quote(name)} ({quote(name)} text)",
    )
    expected = [{name: "x", "other": 1}]
    for spelling in (f"{name}.{name}", f"{quote(name)}.{quote(name)}"):
        found = source(
            pg_database, monkeypatch, extract_table=spelling, where=f"{quote(name)} = 'x'"
        )
        assert rows_of(found) == expected
        assert found.highest(name).text == "x"
    for spelling in (name, quote(name)):
        found = source(pg_database, monkeypatch, extract_table=spelling).describe()
        assert [c.name for c in found.columns] == [name]


def test_a_name_is_cut_at_every_dot():
    assert readings("a.b.c") == [("a", "b.c"), ("a.b", "c"), (None, "a.b.c")]
    assert readings('"a""."."b"')[0] == ('a".', "b")
    assert readings('"x.y"')[0] == (None, "x.y")


def test_a_bare_name_is_looked_for_in_public_first(pg_database, monkeypatch):
    pg_database.execute(
        "create schema a", "create schema b", "create table a.t (in_a int)",
        "create table b.t (in_b int)", "create table b.only (in_b int)",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"in several schemas: a\.t, b\.t"):
        source(pg_database, monkeypatch, extract_table="t").describe()
    only = source(pg_database, monkeypatch, extract_table="only").describe()
    assert only.columns[0].name == "in_b"
    pg_database.execute("create table public.t (in_public int)")
    public = source(pg_database, monkeypatch, extract_table="t").describe()
    assert public.columns[0].name == "in_public"


def test_a_missing_table_names_the_nearest(pg_database, monkeypatch):
    pg_database.execute("create schema sales", "create table sales.orders (a int)")
    for wrong in ("sales.order", "sale.orders", "SALES.Orders"):
        with pytest.raises(ConfigError, match=r"did you mean sales\.orders"):
            source(pg_database, monkeypatch, extract_table=wrong).describe()
    with pytest.raises(ConfigError, match=r"\(tables that the user can see: 1\)"):
        source(pg_database, monkeypatch, extract_table="zzz").describe()


def test_no_right_to_read_is_a_configuration_error(pg_database, monkeypatch):
    pg_database.execute(
        "drop role if exists nobody_special", "create role nobody_special login password 'x'",
        "create table secret_table (a int)", "create view v as select 1 as a",
    )  # fmt: skip
    monkeypatch.setenv("OTHER", "x")
    other = {"user": "nobody_special", "password_env": "OTHER"}
    try:
        for overrides in (
            {"extract_table": "secret_table"},
            {"query": "select * from secret_table"},
        ):
            with pytest.raises(ConfigError, match=r"SELECT on"):
                source(pg_database, monkeypatch, connection=other, **overrides).describe()
    finally:
        pg_database.execute("drop role nobody_special")


def test_money_is_refused_unless_cast_or_left_out(pg_database, monkeypatch):
    pg_database.execute(
        "create table m (a money, b int, c money[])", "insert into m values (12.5, 1)"
    )
    with pytest.raises(TypeNotRepresentable, match=r"a is money.*c is money"):
        source(pg_database, monkeypatch, extract_table="m").describe()
    left_out = source(pg_database, monkeypatch, extract_table="m", columns={"include": ["b"]})
    assert len(left_out.describe().columns) == 3
    cast = {"cast": {"a": "decimal(18,2)"}, "exclude": ["c"]}
    found = source(pg_database, monkeypatch, extract_table="m", columns=cast)
    assert found.describe().columns[0].fidelity == "by_permission"
    with found.snapshot(ReadRequest(found.describe().columns[:2])) as snapshot:
        (batch,) = [b for s in snapshot.splits(found.spec) for b in snapshot.reader.read(s)]
    assert batch.to_pylist() == [{"a": "12.50", "b": 1}]


@pytest.mark.parametrize(
    "query",
    [
        "select 1 as a, 'x'::text as b",
        "select 1 as a, 'x'::text as b;",
        "select 1 as a, 'x'::text as b ; ; \n",
        "select 1 as a, 'x'::text as b -- the end",
        "select 1 as a, 'x'::text as b /* ; */",
        "with q as (select 1 as a) select a, 'x'::text as b from q where 'a;b' like '%'",
        "values (1, 'x'::text)",
    ],
)
def test_queries(pg_database, monkeypatch, query):
    rows = rows_of(source(pg_database, monkeypatch, query=query))
    assert [list(row.values()) for row in rows] == [[1, "x"]]


@pytest.mark.parametrize(
    "query",
    [
        "select 1 as a; drop table precious",
        "select 1) x; drop table precious; --",
        "select 1) x, (select 2",
        "insert into precious values (2) returning *",
        "with gone as (delete from precious returning *) select * from gone",
        "drop table precious",
        "select * from precious /*",
        "select * from nowhere",
        "commit",
        "copy precious to stdout",
        "",
        ";",
        "selec",
        "select $1::int",
    ],
)
def test_what_is_not_one_query_is_refused_and_does_nothing(pg_database, monkeypatch, query):
    pg_database.execute("create table precious (a int)", "insert into precious values (1)")
    with pytest.raises(ConfigError):
        rows_of(source(pg_database, monkeypatch, query=query or " "))
    with pg_database.connect() as connection:
        assert connection.execute("select * from precious").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "where",
    [
        "true; drop table precious",
        "true) or (true",
        "true) group by (a",
        "true union select 2",
        "true order by a",
        "true limit 1",
        "nowhere = 1",
        "a /*",
    ],
)
def test_what_is_not_one_condition_is_refused(pg_database, monkeypatch, where):
    pg_database.execute("create table precious (a int)", "insert into precious values (1)")
    with pytest.raises(ConfigError):
        rows_of(source(pg_database, monkeypatch, extract_table="precious", where=where))


def test_a_condition_with_or_keeps_its_parentheses(pg_database, monkeypatch):
    pg_database.execute("create table t (a int)", "insert into t values (1), (2), (null)")
    found = source(pg_database, monkeypatch, extract_table="t", where="a > 1 or a is null")
    assert sorted(map(str, rows_of(found))) == ["{'a': 2}", "{'a': None}"]
    assert found.highest("a", upper=WatermarkValue("integer", "1")) is None


def test_a_query_with_the_same_column_twice(pg_database, monkeypatch):
    with pytest.raises(ConfigError, match="several columns named a"):
        source(pg_database, monkeypatch, query="select 1 as a, 2 as a").describe()


def test_columns_that_differ_in_case_only_are_kept_apart(pg_database, monkeypatch):
    pg_database.execute('create table t (a int, "A" text)', "insert into t values (1, 'x')")
    assert rows_of(source(pg_database, monkeypatch, extract_table="t")) == [{"a": 1, "A": "x"}]


@pytest.mark.parametrize(
    ("connection", "kind", "says"),
    [
        ({"password_env": "WRONG"}, ConfigError, "refused user or password"),
        ({"user": "no such user"}, ConfigError, "cannot log in"),
        ({"database": "no such db"}, ConfigError, "does not exist"),
        ({"port": 9}, SourceUnavailable, "refused"),
        ({"host": "host.invalid", "sslmode": "require"}, SourceUnavailable, "host.invalid"),
        ({"sslmode": "require"}, ConfigError, "has no TLS"),
        ({"sslmode": "verify-full", "sslrootcert": "system"}, ConfigError, "has no TLS"),
    ],
)
def test_a_connection_that_fails_says_why_and_never_the_password(
    pg_database, monkeypatch, connection, kind, says
):
    monkeypatch.setenv("WRONG", "wr0ng-passw0rd")
    with pytest.raises(kind, match=says) as caught:
        source(pg_database, monkeypatch, connection=connection).describe()
    said = everything_said(caught.value)
    assert "wr0ng" not in said
    assert pg_database.password not in said
    assert "\n" not in str(caught.value)


def test_a_host_that_does_not_answer_is_given_up_in_time(pg_database, monkeypatch, unused_listener):
    address = {"port": unused_listener, "connect_timeout_seconds": 2}
    with pytest.raises(SourceUnavailable, match="within 2 s"):
        source(pg_database, monkeypatch, connection=address).describe()


@pytest.fixture
def unused_listener():
    """A port that accepts connections and never says a word."""
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield silent.getsockname()[1]


def test_an_unknown_split_or_watermark_column(pg_database, monkeypatch):
    pg_database.execute("create table t (a int, j jsonb)")
    found = source(pg_database, monkeypatch, extract_table="t")
    with pytest.raises(ConfigError, match="there is no column 'b'; the columns are a, j"):
        found.highest("b")
    with pytest.raises(ConfigError, match="cannot be a watermark"):
        found.highest("j")
    with pytest.raises(ConfigError, match="does not fit watermark column a, which is int4"):
        found.highest("a", upper=WatermarkValue("string", "tomorrow"))


def test_a_server_of_the_past_is_described_alike(monkeypatch):
    with run_server(16) as server:
        server.execute(
            "create table t (a int primary key, b text)", "insert into t values (1, 'x')"
        )
        found = source(server, monkeypatch, extract_table="t")
        assert found.describe().source_version.startswith("PostgreSQL 16")
        assert rows_of(found) == [{"a": 1, "b": "x"}]
