"""Every type at its extremes, value by value against psql, and what has no faithful form."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pytest

from extract_jobs.errors import ConfigError, TypeNotRepresentable
from extract_jobs.run import run_extract
from extract_jobs.sources import ReadRequest
from extract_jobs.sources.postgres.catalog import column_types, find_table, relation_of
from extract_jobs.sources.postgres.session import session
from extract_jobs.sources.postgres.types import OTHER, RULES, rule_of
from extract_jobs.sources.splits import Split
from extract_jobs.transform.types import parse_type
from tests.support.postgres import Server
from tests.support.postgres_source import read_wide, source
from tests.support.postgres_torture import (
    TYPES,
    UNFAITHFUL,
    build,
    exact_texts,
    files_of,
    meant,
    psql,
)


@pytest.fixture(scope="module")
def tortured(pg: Server) -> Iterator[Server]:
    """A database with the tables ``torture`` (see `build`) and ``unfaithful``.

    The latter has, for each of `UNFAITHFUL`, a column with its value and one that is ``fine``.
    """
    server = replace(pg, database="tortured")
    with pg.connect() as connection:
        connection.execute("drop database if exists tortured with (force)")
        connection.execute("create database tortured")
    build(server)
    columns = ", ".join(
        f"{name} {kind}, fine_{name} {kind}" for name, (kind, _, _) in UNFAITHFUL.items()
    )
    server.execute(f"create table unfaithful (n int, {columns})")
    server.execute(
        "create view tortured_view as select * from torture",
        "create table tortured_parts (like torture) partition by range (n)",
        "create table tortured_part partition of tortured_parts default",
        "insert into tortured_parts select * from torture",
    )
    for n, picked in enumerate([(2, 2), (None, 2), (1, 2), (1, 2)]):
        values = [v[i] if i else "null" for v in UNFAITHFUL.values() for i in picked]
        server.execute(f"insert into unfaithful values ({n}, {', '.join(values)})")
    # Settings of the database must not change what is read.
    for setting in ("datestyle = German", "intervalstyle = iso_8601", "timezone = 'Asia/Kolkata'",
                    "bytea_output = escape", "extra_float_digits = -15"):  # fmt: skip
        server.execute(f"alter database tortured set {setting}")
    yield server
    with pg.connect() as connection:
        connection.execute("drop database tortured with (force)")


def read_all(found, **request) -> pa.Table:
    with found.snapshot(ReadRequest(found.describe().columns, **request)) as snapshot:
        reader = pickle.loads(pickle.dumps(snapshot.reader))
        batches = [b for s in snapshot.splits(found.spec) for b in reader.read(s)]
        return pa.Table.from_batches(batches, reader.schema)


@pytest.mark.parametrize("wide", [False, True], ids=["duckdb", "psycopg"])
def test_every_type_arrives_as_psql_prints_it(tortured, monkeypatch, tmp_path, wide):
    """Both ways of reading rows, the bulk one and the one for wide rows."""
    if wide:
        read_wide(monkeypatch)
    report = run_extract(
        source(tortured, monkeypatch, folder=tmp_path, extract_table="torture").spec
    )
    assert report.nulled == {}
    names = [f"c{i}" for i in range(len(TYPES))]
    printed = psql(tortured, f"select {', '.join(names)} from torture order by n")
    files = files_of(tmp_path / "target")
    arrow = pa.dataset.dataset(files).to_table().sort_by("n")
    with duckdb.connect() as database:
        database.execute("set timezone = 'UTC'")
        relation = database.sql(
            "select * from read_parquet($files) order by n", params={"files": files}
        )
        by_duckdb = relation.to_arrow_table()
    for i, (name, (kind, _)) in enumerate(TYPES.items()):
        assert arrow.column(names[i]).type == kind, name
        expected = exact_texts([meant(row[i], kind) for row in printed])
        assert exact_texts(arrow.column(names[i]).to_pylist()) == expected, name
        assert exact_texts(by_duckdb.column(names[i]).to_pylist()) == expected, name


RELATIONS = {
    "splits": {"extract_table": "torture", "split": {"target_bytes": 8192}},
    "view": {"extract_table": "tortured_view", "where": "n >= 0"},
    "query": {"query": "select * from torture union all select * from torture where false"},
    "partition": {"extract_table": "tortured_parts"},
}


@pytest.mark.parametrize("policy", ["null", "string"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_every_way_to_a_type_and_every_policy_gives_what_psql_prints(
    tortured, monkeypatch, relation, policy
):
    """What reads a column differs by policy, and the server drops a precision easily."""
    wanted = RELATIONS[relation]
    found = source(tortured, monkeypatch, lossy_types=policy, **wanted)
    read = read_all(found).sort_by("n")
    names = [f"c{i}" for i in range(len(TYPES))]
    printed = psql(tortured, f"select {', '.join(names)} from torture order by n")
    for i, (name, (kind, _)) in enumerate(TYPES.items()):
        column = read.column(names[i])
        if column.type == kind:
            expected = exact_texts([meant(row[i], kind) for row in printed])
            assert exact_texts(column.to_pylist()) == expected, name
        else:
            assert policy == "string", name
            assert column.to_pylist() == [row[i] for row in printed], name


def test_each_rule_of_the_docs_is_what_happens(tortured, monkeypatch):
    found = source(tortured, monkeypatch, extract_table="torture")
    described = {column.name: column for column in found.describe().columns}
    shown = set()
    with session(found.connection, "reading the catalog") as connection:
        table = find_table(connection, "torture")
        for name, _, kind in column_types(connection, table, relation_of(table, None)):
            rule, column = rule_of(kind), described[name]
            shown.add(rule.row.source_type)
            if not kind.is_array:
                assert column.fidelity == rule.row.fidelity, name
                by_name = parse_type(rule.row.arrives_as)
                assert by_name in (None, column.arrow_type), name
    assert shown == {rule.row.source_type for rule in RULES} - {"money"}
    assert OTHER.row.source_type in shown


@pytest.mark.parametrize("name", UNFAITHFUL)
@pytest.mark.parametrize("wide", [False, True], ids=["duckdb", "psycopg"])
def test_values_without_a_faithful_form(tortured, monkeypatch, name, wide):
    if wide:
        read_wide(monkeypatch)
    columns = {"include": ["n", name, f"fine_{name}"]}
    table = {"extract_table": "unfaithful", "columns": columns}

    def opened(found):
        chosen = tuple(c for c in found.describe().columns if c.name in columns["include"])
        return found.snapshot(ReadRequest(chosen))

    refusing = source(tortured, monkeypatch, **table)
    refusal = rf"column {name} .*lossy_types: null.*columns: \{{cast: .*lossy_types: string"
    with (
        opened(refusing) as snapshot,
        pytest.raises(TypeNotRepresentable, match=refusal if not wide else "lossy_types: null"),
    ):
        list(snapshot.reader.read(Split(0)))
    found = source(tortured, monkeypatch, lossy_types="null", **table)
    with opened(found) as snapshot:
        column = next(c for c in snapshot.reader.columns if c.name == name)
        assert "become NULL and are counted" in column.rule
        (batch,) = [b for s in snapshot.splits(found.spec) for b in snapshot.reader.read(s)]
        assert dict(snapshot.reader.nulled) == {name: 2}
        assert dict(pickle.loads(pickle.dumps(snapshot.reader)).nulled) == {}
        list(snapshot.reader.read(Split(0)))
        assert dict(snapshot.reader.nulled) == {name: 2}, "a read again counts anew"
    rows = sorted(batch.to_pylist(), key=lambda row: row["n"])
    assert rows[0][name] == rows[0][f"fine_{name}"] is not None
    assert [row[name] for row in rows[1:]] == [None, None, None]
    assert all(row[f"fine_{name}"] == rows[0][f"fine_{name}"] for row in rows)


@pytest.mark.parametrize("wide", [False, True], ids=["duckdb", "psycopg"])
def test_lossy_types_string_takes_what_psql_prints(tortured, monkeypatch, tmp_path, wide):
    if wide:
        read_wide(monkeypatch)
    # A cast says more than lossy_types.
    columns = {"cast": {"fine_date_inf": "timestamp", "fine_array_nan": "string"}}
    report = run_extract(
        source(
            tortured, monkeypatch, folder=tmp_path, extract_table="unfaithful",
            lossy_types="string", columns=columns,
        ).spec
    )  # fmt: skip
    names = [f"{prefix}{name}" for name in UNFAITHFUL for prefix in ("", "fine_")]
    printed = psql(tortured, f"select {', '.join(names)} from unfaithful order by n")
    read = pa.dataset.dataset(files_of(tmp_path / "target")).to_table().sort_by("n")
    assert read.schema.field("fine_date_inf").type == pa.timestamp("us")
    for i, name in enumerate(names):
        if name != "fine_date_inf":
            assert read.column(name).to_pylist() == [row[i] for row in printed], name
    assert set(report.as_text) == set(names) - columns["cast"].keys()
    assert report.nulled == {}


def test_a_partition_of_what_lossy_types_made_text_says_what_to_do(tortured, monkeypatch, tmp_path):
    table = {"extract_table": "unfaithful", "lossy_types": "string"}
    table |= {"target": {"partition_by": ["day(fine_ts_last)"]}}
    refused = source(tortured, monkeypatch, folder=tmp_path, **table).spec
    with pytest.raises(ConfigError, match="string made it text: cast it back"):
        run_extract(refused)
    columns = {"cast": {"fine_ts_last": "timestamp"}}
    report = run_extract(
        source(tortured, monkeypatch, folder=tmp_path, columns=columns, **table).spec
    )
    assert report.rows == 4


def test_a_run_counts_what_became_null_by_column(tortured, monkeypatch, tmp_path):
    table = {"extract_table": "unfaithful", "lossy_types": "null"}
    report = run_extract(source(tortured, monkeypatch, folder=tmp_path, **table).spec)
    assert report.nulled == dict.fromkeys(UNFAITHFUL, 2)


def test_money_is_refused_unless_cast(pg_database, monkeypatch):
    pg_database.execute(
        "create table t (c money, a money[])",
        "insert into t values ('-92233720368547758.08', '{1.5,null}'), (null, null)",
    )
    for lossy in ("refuse", "null", "string"):
        refused = source(pg_database, monkeypatch, extract_table="t", lossy_types=lossy)
        with pytest.raises(TypeNotRepresentable, match=r"c is money.*; a is money"):
            refused.describe()
    cast = {"cast": {"c": "decimal(18,2)", "a": "string"}}
    assert read_all(
        source(pg_database, monkeypatch, extract_table="t", columns=cast)
    ).to_pylist() == [{"c": "-92233720368547758.08", "a": "{$1.50,NULL}"}, {"c": None, "a": None}]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("numeric(10,2)", "'NaN'", "NaN"),
        ("timestamptz", "'infinity'", "infinity"),
        ("date", "'0044-03-15 BC'", "0044-03-15 BC"),
        ("int[]", "'[0:1]={1,2}'", "[0:1]={1,2}"),
        ("char(3)[]", "'{{a},{b}}'", '{{"a  "},{"b  "}}'),
    ],
)
def test_a_cast_to_string_takes_any_value(pg_database, monkeypatch, kind, value, text):
    pg_database.execute(f"create table t (c {kind})", f"insert into t values ({value})")
    cast = {"cast": {"c": "string"}}
    assert read_all(
        source(pg_database, monkeypatch, extract_table="t", columns=cast)
    ).to_pylist() == [{"c": text}]


def test_more_checked_columns_than_bits_in_a_flag(pg_database, monkeypatch):
    columns = ", ".join(f"c{i} numeric(5,1)" for i in range(130))
    values = ", ".join("'NaN'" if i in (0, 59, 60, 129) else str(i) for i in range(130))
    pg_database.execute(f"create table t ({columns})", f"insert into t values ({values})")
    found = source(pg_database, monkeypatch, extract_table="t", lossy_types="null")
    with found.snapshot(ReadRequest(found.describe().columns)) as snapshot:
        (batch,) = [b for s in snapshot.splits(found.spec) for b in snapshot.reader.read(s)]
        assert dict(snapshot.reader.nulled) == {"c0": 1, "c59": 1, "c60": 1, "c129": 1}
    row = batch.to_pylist()[0]
    assert row == {
        f"c{i}": None if i in (0, 59, 60, 129) else Decimal(f"{i}.0") for i in range(130)
    }


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_other_encodings_of_the_database(monkeypatch, pg, encoding):
    name = f"in {encoding}"
    with pg.connect() as connection:
        connection.execute(f'drop database if exists "{name}" with (force)'.encode())
        connection.execute(
            f"create database \"{name}\" encoding '{encoding}' locale 'C'"
            " template template0".encode()
        )
    server = Server(pg.host, pg.port, pg.user, pg.password, name, pg.directory)
    with server.connect(client_encoding="LATIN1") as connection:
        connection.execute("create table t (a text)")
        connection.execute("insert into t values ('é')")
    found = source(server, monkeypatch, extract_table="t")
    try:
        if encoding == "LATIN1":
            assert read_all(found).to_pylist() == [{"a": "é"}]
        else:
            with pytest.raises(TypeNotRepresentable, match="text that is not valid"):
                read_all(found)
    finally:
        pg.execute(f'drop database "{name}" with (force)')


def test_types_of_a_query(pg_database, monkeypatch):
    query = (
        "select 1 as i, 1.5 as n, 1.5::numeric(4,2) as d, 'x' as t, null as u, array[1] as a,"
        " now() as w, '{}'::json as j"
    )
    found = source(pg_database, monkeypatch, query=query)
    assert [c.arrow_type for c in found.describe().columns] == [
        pa.int32(), pa.string(), pa.decimal128(4, 2), pa.string(), pa.string(),
        pa.list_(pa.int32()), pa.timestamp("us", "UTC"), pa.string(),
    ]  # fmt: skip
    assert read_all(found).num_rows == 1
