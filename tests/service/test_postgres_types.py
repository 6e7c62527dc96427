"""Every type at its extremes, value by value against psycopg, and what has no faithful form."""

from __future__ import annotations

import pickle
from decimal import Decimal

import pyarrow as pa
import pytest

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.sources import ReadRequest
from extract_jobs.splits import Split
from tests.support.postgres import Server
from tests.support.postgres_source import read_wide, source

NINES = "9" * 38
PLAIN: dict[str, tuple[pa.DataType, list[str]]] = {
    "bool": (pa.bool_(), ["true", "false"]),
    "int2": (pa.int16(), ["-32768", "0", "32767"]),
    "int4": (pa.int32(), ["-2147483648", "2147483647"]),
    "int8": (pa.int64(), ["-9223372036854775808", "9223372036854775807"]),
    "float4": (
        pa.float32(),
        ["1e-45", "3.4028235e38", "-0", "'NaN'", "'Infinity'", "'-Infinity'", "0.1"],
    ),
    "float8": (
        pa.float64(),
        ["5e-324", "1.7976931348623157e308", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'", "0.1"],
    ),
    "numeric(1,0)": (pa.decimal128(1, 0), ["-9", "0", "9"]),
    "numeric(4,0)": (pa.decimal128(4, 0), ["-9999", "9999", "1000"]),
    "numeric(4,4)": (pa.decimal128(4, 4), ["-0.9999", "0.0001"]),
    "numeric(5,2)": (pa.decimal128(5, 2), ["-999.99", "0.01", "100", "10.1"]),
    "numeric(9,3)": (pa.decimal128(9, 3), ["-999999.999", "0.001", "1000.01"]),
    "numeric(9,9)": (pa.decimal128(9, 9), ["-0.999999999", "0.000000001"]),
    "numeric(18,8)": (pa.decimal128(18, 8), ["9999999999.99999999", "0.00000001"]),
    "numeric(18,18)": (pa.decimal128(18, 18), ["0.999999999999999999"]),
    "numeric(19,0)": (pa.decimal128(19, 0), ["9999999999999999999"]),
    "numeric(38,0)": (pa.decimal128(38, 0), [NINES, f"-{NINES}", "1", "10000"]),
    "numeric(38,10)": (pa.decimal128(38, 10), [f"{NINES[:28]}.{NINES[:10]}", "0.0000000001"]),
    "numeric(38,37)": (pa.decimal128(38, 37), [f"-9.{NINES[:37]}"]),
    "numeric(38,38)": (pa.decimal128(38, 38), [f"0.{NINES}", f"-0.{'0' * 37}1"]),
    "text": (
        pa.string(),
        ["''", "' blanks '", "'é☃😀'", "E'\\n\\t\\\\'", "'NULL'", "repeat('x', 99999)"],
    ),
    "varchar": (pa.string(), ["'x  '"]),
    "varchar(5)": (pa.string(), ["'é☃😀 '"]),
    "char(5)": (pa.string(), ["''", "'é'", "'☃😀   '", "'12345'"]),
    "bpchar": (pa.string(), ["'ab  '", "''"]),
    "bytea": (pa.binary(), ["''", "'\\x00ff27'::bytea"]),
    "date": (pa.date32(), ["'0001-01-01'", "'1582-10-10'", "'1970-01-01'", "'9999-12-31'"]),
    "timestamp": (
        pa.timestamp("us"),
        ["'0001-01-01'", "'1500-01-01 01:02:03.000001'", "'9999-12-31 23:59:59.999999'"],
    ),
    "timestamp(3)": (pa.timestamp("us"), ["'2024-02-29 01:02:03.456789'"]),
    "timestamptz": (
        pa.timestamp("us", "UTC"),
        ["'0001-01-01+00'", "'2024-03-31 02:30+01'", "'9999-12-31 23:59:59.999999+00'"],
    ),
    "int4[]": (pa.list_(pa.int32()), ["'{}'", "'{1,null,-2147483648}'"]),
    "text[]": (pa.list_(pa.string()), ["'{}'", "array['', 'a,b', '\"', null, '{}', 'NULL']"]),
    "char(3)[]": (pa.list_(pa.string()), ["array['a', null, 'abc']"]),
    "numeric(6,2)[]": (pa.list_(pa.decimal128(6, 2)), ["'{1.5,-9999.99,null}'"]),
    "timestamptz[]": (pa.list_(pa.timestamp("us", "UTC")), ["'{2024-01-01 00:00+01}'"]),
    "date[]": (pa.list_(pa.date32()), ["'{2024-01-01,null}'"]),
    "bool[]": (pa.list_(pa.bool_()), ["'{t,f,null}'"]),
    "float8[]": (pa.list_(pa.float64()), ["'{NaN,-Infinity,0.1}'"]),
    "d_int": (pa.int32(), ["5"]),
    "d_dec": (pa.decimal128(10, 2), ["12345678.90"]),
    "d_d_dec": (pa.decimal128(10, 2), ["0.01"]),
    "d_char": (pa.string(), ["'ab'"]),
    "d_arr": (pa.list_(pa.int32()), ["'{1,2}'"]),
    "d_int[]": (pa.list_(pa.int32()), ["'{1,null}'"]),
    "d_dec[]": (pa.list_(pa.decimal128(10, 2)), ["'{1.5}'"]),
}
AS_TEXT: dict[str, list[str]] = {
    "uuid": ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "json": ['\'{ "b":1, "b":2 }\''],
    "jsonb": ['\'{"b":1.10, "a":"é"}\'', "'null'"],
    "mood": ["'so so'", "'☃'"],
    "inet": ["'::1/128'", "'10.0.0.1/8'"],
    "cidr": ["'10.0.0.0/8'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "interval": ["'1 year -2 days 00:00:00.000001'", "'-178000000 years'"],
    "int4range": ["'[1,5)'", "'empty'", "'(,)'"],
    "tstzrange": ["'[2024-01-01 00:00+01,infinity)'"],
    "int4multirange": ["'{[1,2),[5,9)}'"],
    "time": ["'24:00'", "'00:00'", "'23:59:59.999999'"],
    "timetz": ["'24:00+05:30'", "'00:00-15:59:59'"],
    "numeric": ["1e300", "'NaN'", "'Infinity'", "1.10", "1e-300"],
    "numeric(39,1)": ["9999999999999999999999999999999999999.9"],
    "numeric(3,-2)": ["12345"],
    "numeric(2,5)": ["0.00099"],
    "bit(3)": ["b'101'"],
    "varbit": ["b''", "b'1'"],
    "oid": ["4294967295"],
    "name": ["'n'"],
    '"char"': ["'x'"],
    "point": ["'(1.5,-2)'"],
    "polygon": ["'((0,0),(1,1),(1,0))'"],
    "tsvector": ["'a:1 b'"],
    "pg_lsn": ["'16/B374D848'"],
    "pair": ["row(1, 'x,y')"],
    "int2vector": ["'1 2'"],
    "bytea[]": ["array['\\x00'::bytea, null]"],
    "uuid[]": ["'{00000000-0000-0000-0000-000000000000,null}'"],
    "mood[]": ["array['so so', null]::mood[]"],
    "time[]": ["'{24:00}'"],
    "numeric[]": ["'{NaN,1.10}'"],
    "jsonb[]": ["array['{\"a\": [1]}'::jsonb]"],
    "pair[]": ["array[row(1, 'x')]::pair[]"],
}
DECLARATIONS = (
    "create type mood as enum ('so so', '☃')",
    "create type pair as (a int, b text)",
    "create domain d_int as int check (value > 0)",
    "create domain d_dec as numeric(10,2)",
    "create domain d_d_dec as d_dec not null",
    "create domain d_char as char(4)",
    "create domain d_arr as int[]",
)


def read_all(found, **request) -> pa.Table:
    with found.snapshot(ReadRequest(found.describe().columns, **request)) as snapshot:
        reader = pickle.loads(pickle.dumps(snapshot.reader))
        batches = [b for s in snapshot.splits(found.spec) for b in reader.read(s)]
        return pa.Table.from_batches(batches, reader.schema)


def known_to_psycopg(name: str, kind: str) -> str:
    """Arrays of domains it gives as bytes."""
    return {"d_int[]": f"{name}::int[]", "d_dec[]": f"{name}::numeric[]"}.get(kind, name)


@pytest.mark.parametrize("wide", [False, True], ids=["duckdb", "psycopg"])
def test_trusted_types_arrive_as_psycopg_reads_them(pg_database, monkeypatch, wide):
    """Both ways of reading rows, the bulk one and the one for wide rows."""
    names = [f"c{i}" for i in range(len(PLAIN))]
    columns = ", ".join(f"{n} {t}" for n, t in zip(names, PLAIN, strict=True))
    longest = max(len(values) for _, values in PLAIN.values())
    pg_database.execute(*DECLARATIONS, f"create table t (n int, {columns})")
    with pg_database.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for row in range(longest + 1):
            values = [
                (kinds[row % len(kinds)] if row < longest else "null") if name != "d_d_dec" else "1"
                for name, (_, kinds) in PLAIN.items()
            ]
            connection.execute(f"insert into t values ({row}, {', '.join(values)})".encode())
        expected = connection.execute(
            f"select {', '.join(map(known_to_psycopg, names, PLAIN))} from t order by n",
            binary=True,
        ).fetchall()
    if wide:
        read_wide(monkeypatch)
    table = read_all(source(pg_database, monkeypatch, extract_table="t")).sort_by("n")
    for position, (name, (arrow, _)) in enumerate(PLAIN.items()):
        column = table.column(f"c{position}")
        assert column.type == arrow, name
        read = [(type(value).__name__, repr(value)) for value in column.to_pylist()]
        wanted = [(type(v).__name__, repr(v)) for v in (row[position] for row in expected)]
        assert [text.replace("zoneinfo.ZoneInfo(key='UTC')", "UTC") for _, text in read] == [
            text.replace("datetime.timezone.utc", "UTC").replace(
                "zoneinfo.ZoneInfo(key='UTC')", "UTC"
            )
            for _, text in wanted
        ], name


def test_all_other_types_arrive_as_the_servers_text(pg_database, monkeypatch):
    columns = ", ".join(f"c{i} {t}" for i, t in enumerate(AS_TEXT))
    pg_database.execute(*DECLARATIONS, f"create table t (n int, {columns})")
    longest = max(map(len, AS_TEXT.values()))
    for row in range(longest + 1):
        values = [
            kinds[row % len(kinds)] if row < longest else "null" for kinds in AS_TEXT.values()
        ]
        pg_database.execute(f"insert into t values ({row}, {', '.join(values)})")
    # Settings of the role must not change what is printed.
    pg_database.execute(
        f"alter database \"{pg_database.database}\" set datestyle = 'German'",
        f"alter database \"{pg_database.database}\" set intervalstyle = 'iso_8601'",
        f"alter database \"{pg_database.database}\" set timezone = 'Asia/Kolkata'",
        f"alter database \"{pg_database.database}\" set bytea_output = 'escape'",
    )
    found = source(pg_database, monkeypatch, extract_table="t")
    table = read_all(found).sort_by("n")
    with pg_database.connect() as connection:
        connection.execute("set datestyle = 'ISO'; set intervalstyle = 'postgres'")
        connection.execute("set bytea_output = 'hex'")
        connection.execute("set timezone = 'UTC'")
        for i, name in enumerate(AS_TEXT):
            cast = "text[]" if name.endswith("[]") else "text"
            rows = connection.execute(f"select c{i}::{cast} from t order by n".encode()).fetchall()
            assert table.column(f"c{i}").to_pylist() == [row[0] for row in rows], name
            assert found.describe().columns[i + 1].fidelity == "as_text", name


UNFAITHFUL = {
    "numeric_nan": ("numeric(10,2)", "'NaN'", "0"),
    "date_inf": ("date", "'infinity'", "'2024-01-01'"),
    "date_bc": ("date", "'0044-03-15 BC'", "'0001-01-01'"),
    "date_far": ("date", "'10000-01-01'", "'9999-12-31'"),
    "ts_ninf": ("timestamp", "'-infinity'", "'2024-01-01'"),
    "ts_last": ("timestamp", "'294276-12-31 23:59:59.999999'", "'2024-01-01'"),
    "tstz_inf": ("timestamptz", "'infinity'", "'2024-01-01+00'"),
    "tstz_far": ("timestamptz", "'10000-01-01 00:00+00'", "'9999-12-31 23:59:59.999999+00'"),
    "array_2d": ("int4[]", "'{{1,2},{3,4}}'", "'{1}'"),
    "array_from_0": ("int4[]", "'[0:1]={1,2}'", "'{}'"),
    "array_nan": ("numeric(5,1)[]", "'{1,NaN}'", "'{1,null}'"),
    "array_inf": ("date[]", "'{infinity}'", "'{2024-01-01}'"),
    "text_array_2d": ("uuid[]", "array[array[null::uuid]]", "'{}'"),
}


@pytest.mark.parametrize("name", UNFAITHFUL)
@pytest.mark.parametrize("wide", [False, True], ids=["duckdb", "psycopg"])
def test_values_without_a_faithful_form(pg_database, monkeypatch, name, wide):
    kind, bad, good = UNFAITHFUL[name]
    pg_database.execute(
        f"create table t (n int, fine {kind}, c {kind})",
        f"insert into t values (1, {good}, {good}), (2, {good}, null), (3, {good}, {bad}),"
        f" (4, {good}, {bad})",
    )
    if wide:
        read_wide(monkeypatch)
    with pytest.raises(TypeNotRepresentable, match=r"\bc\b.*lossy_types: null"):
        read_all(source(pg_database, monkeypatch, extract_table="t"))
    found = source(pg_database, monkeypatch, extract_table="t", lossy_types="null")
    columns = found.describe().columns
    assert "become NULL and are counted" in columns[2].rule
    with found.snapshot(ReadRequest(columns)) as snapshot:
        (batch,) = [b for s in snapshot.splits(found.spec) for b in snapshot.reader.read(s)]
        assert dict(snapshot.reader.nulled) == {"c": 2}
        assert dict(pickle.loads(pickle.dumps(snapshot.reader)).nulled) == {}
        list(snapshot.reader.read(Split(0)))
        assert dict(snapshot.reader.nulled) == {"c": 2}, "a read again counts anew"
    rows = sorted(batch.to_pylist(), key=lambda row: row["n"])
    assert rows[0]["c"] == rows[0]["fine"] is not None
    assert [row["c"] for row in rows[1:]] == [None, None, None]
    assert all(row["fine"] == rows[0]["fine"] for row in rows)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("numeric(10,2)", "'NaN'", "NaN"),
        ("timestamptz", "'infinity'", "infinity"),
        ("date", "'0044-03-15 BC'", "0044-03-15 BC"),
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
