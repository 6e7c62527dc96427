"""SQLite's values, each of a storage class of its own: what arrives is what was there."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.run import run_extract
from extract_jobs.sources.sqlite.sql import literal
from extract_jobs.sources.sqlite.types import RULES, rule_of
from extract_jobs.watermark import WatermarkValue
from tests.support.sampling import examples
from tests.support.sqlite_source import read_all, snapshot_of, source, write
from tests.support.sqlite_torture import PRINTED, TORTURE, make_torture

BAD_TEXT = "cast(x'61ff' as text)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "types.db"


@pytest.mark.parametrize("strict", ["", " strict"])
def test_the_torture_table_arrives_as_sqlite_prints_it(path, strict):
    """Value by value against `quote()`, which tells integers, reals, texts and blobs apart."""
    make_torture(path, strict=bool(strict))
    found = source(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [column.name for column in found.describe().columns]
        quoted = ", ".join(f'quote("{name}")' for name in names)
        wanted = connection.execute(f"select {quoted} from t order by n").fetchall()
    table = read_all(found).sort_by("n")
    assert table.num_rows > 8
    for position, column in enumerate(found.describe().columns):
        values = table.column(column.name).to_pylist()
        declared, arrow = TORTURE[column.name]
        assert column.arrow_type == arrow, column.name
        assert column.source_type.lower() == declared.lower()
        for value, row in zip(values, wanted, strict=True):
            assert _quoted_alike(value, row[position], column.arrow_type), (column.name, row)


def _quoted_alike(value: Any, quoted: str, arrow: pa.DataType) -> bool:
    """Return whether a value is what `quote()` printed, exactly."""
    if value is None or quoted == "NULL":
        return value is None and quoted == "NULL"
    if pa.types.is_boolean(arrow):
        return quoted == str(int(value))
    if pa.types.is_decimal(arrow):
        return value == (Decimal(quoted) if "." not in quoted else Decimal(repr(float(quoted))))
    if isinstance(value, float):
        bits = struct.pack("d", float(quoted.replace("9.0e+999", "inf")))
        return struct.pack("d", value) == bits
    if isinstance(value, bytes):
        return quoted == f"X'{value.hex().upper()}'"
    if isinstance(value, str) and not quoted.startswith("'"):
        return float(value) == float(quoted) if "." in quoted else value == quoted
    if isinstance(value, str):
        # quote() ends a text at its first zero byte.
        return quoted == "'" + value.split("\0")[0].replace("'", "''") + "'"
    return quoted == str(value)


def test_the_torture_table_reads_back_equal_in_pyarrow_and_duckdb(path, tmp_path):
    make_torture(path)
    places = {name: f"{tmp_path}/{name}" for name in ("state_uri", "report_uri")}
    spec = source(path, target={"uri": f"{tmp_path}/target"}, **places).spec
    assert run_extract(spec).rows == len(PRINTED["n"])
    [file] = (tmp_path / "target").rglob("*.parquet")
    table = pq.ParquetFile(file).read().sort_by("n")
    names = ", ".join(f'"{name}"' for name in PRINTED)
    rows = duckdb.sql(f"select {names} from '{file}' order by n").fetchall()
    for position, (name, values) in enumerate(PRINTED.items()):
        for found in (table.column(name).to_pylist(), [row[position] for row in rows]):
            assert list(map(repr, found)) == list(map(repr, values)), name


DECLARED = st.sampled_from([
    "integer", "bigint", "boolean", "text", "varchar(9)", "blob", "real", "double precision",
    "decimal(12,2)", "numeric(38,10)", "numeric", "datetime", "date", "", "json",
])  # fmt: skip
TEXT = st.text(max_size=20) | st.text("0123456789.-+e ", max_size=12)
VALUES = (
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 2) | st.binary(max_size=12)
    | st.floats(allow_nan=False) | st.integers(-(10**9), 10**9).map(lambda i: i / 100)
    | TEXT.filter(lambda text: "\ud800" not in text)
)  # fmt: skip
TABLES = st.lists(DECLARED, min_size=1, max_size=5).flatmap(
    lambda types: st.tuples(st.just(types), st.lists(st.tuples(*[VALUES] * len(types)), max_size=8))
)
_SHARED = settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_permission_is_given_by_column(tmp_path):
    path = tmp_path / "x.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table t (a integer, b integer, c real)")
        connection.execute("insert into t values ('x', 'y', 'z')")
    found = source(path, lossy_types={"a": "null", "b": "string", "c": "null"})
    with snapshot_of(found) as snapshot:
        [split] = snapshot.splits(found.spec)
        [batch] = snapshot.reader.read(split)
        assert batch.to_pylist() == [{"a": None, "b": "y", "c": None}]
        assert snapshot.reader.nulled == {"a": 1, "c": 1}
    found = source(path, lossy_types={"b": "string", "c": "null"})
    with snapshot_of(found) as snapshot:
        [split] = snapshot.splits(found.spec)
        with pytest.raises(TypeNotRepresentable, match="column a "):
            list(snapshot.reader.read(split))


@given(given_table=TABLES, policy=st.sampled_from(["null", "string"]))
@_SHARED
def test_random_tables_arrive_whole_under_each_policy(tmp_path_factory, given_table, policy):
    types, rows = given_table
    path = tmp_path_factory.mktemp("random") / "x.db"
    columns = "".join(f', "c {i}" {kind}' for i, kind in enumerate(types))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"create table t (n integer primary key{columns})")
        marks = ", ".join("?" * (len(types) + 1))
        connection.executemany(
            f"insert into t values ({marks})", [(n, *row) for n, row in enumerate(rows)]
        )
        stored = connection.execute("select * from t order by n").fetchall()
    found = source(path, lossy_types=policy)
    with snapshot_of(found) as snapshot:
        [split] = snapshot.splits(found.spec)
        batches = list(snapshot.reader.read(split))
        nulled = dict(snapshot.reader.nulled)
    table = pa.Table.from_batches(batches, snapshot.reader.schema).sort_by("n")
    for position, column in enumerate(found.describe().columns):
        arrived = table.column(position).to_pylist()
        wanted = [row[position] for row in stored]
        lost = sum(a is None and w is not None for a, w in zip(arrived, wanted, strict=True))
        assert lost == nulled.get(column.name, 0)
        assert lost == 0 or policy == "null"
        for value, was in zip(arrived, wanted, strict=True):
            assert value is None or _alike(value, was, column.arrow_type), (column, was)
    if policy == "null" and not nulled:
        assert read_all(source(path)).sort_by("n").to_pylist() == table.to_pylist()
    elif policy == "null":
        with pytest.raises(TypeNotRepresentable):
            read_all(source(path))


def _alike(value: Any, was: Any, arrow: pa.DataType) -> bool:
    if isinstance(value, str) and not isinstance(was, str):
        if isinstance(was, bytes):
            return value == f"X'{was.hex().upper()}'"
        return float(value) == was if isinstance(was, float) else int(value) == was
    if pa.types.is_decimal(arrow):
        return value == Decimal(repr(was))
    same_sign = not isinstance(value, float) or math.copysign(1, value) == math.copysign(1, was)
    return value == was and same_sign


UNFAITHFUL = {
    "text in an integer": ("integer", "'SECRET'", "5", "storage class text"),
    "real in an integer": ("int", "1.5", "5", "storage class real"),
    "a huge real in a bigint": ("bigint", "1e300", "5", "storage class real"),
    "blob in a text": ("text", "x'53454352455421'", "'x'", "storage class blob"),
    "bytes in a text": ("varchar(5)", BAD_TEXT, "'x'", "text that is not UTF-8"),
    "text in a blob": ("blob", "'SECRET'", "x'00'", "storage class text"),
    "text in a real": ("real", "'SECRET'", "1.5", "storage class text"),
    "two in a boolean": ("boolean", "2", "1", "an integer other than 0 and 1"),
    "text in a boolean": ("bool", "'SECRET'", "0", "storage class text"),
    "digits beyond the scale": ("decimal(5,2)", "1.005", "1.25", "not fit 5 digits"),
    "digits beyond the precision": ("decimal(5,2)", "1234.5", "-999.99", "not fit 5 digits"),
    "infinity in a decimal": ("decimal(5,2)", "9e999", "0", "infinite"),
    "blob in a date": ("date", "x'00'", "'2024-01-01'", "storage class blob"),
    "bytes in a date": ("date", BAD_TEXT, "'2024-01-01'", "text that is not UTF-8"),
    "blob in no type": ("", "x'00'", "1", "storage class blob"),
}


@pytest.mark.parametrize("name", UNFAITHFUL)
def test_values_without_a_faithful_form(path, name):
    declared, bad, good, says = UNFAITHFUL[name]
    write(
        path,
        f"create table t (n integer primary key, fine {declared}, c {declared})",
        f"insert into t values (1, {good}, {good}), (2, {good}, null), (3, {good}, {bad}),"
        f" (4, {good}, {bad})",
    )
    with pytest.raises(TypeNotRepresentable, match=rf"\bc\b.*{says}.*lossy_types: null") as caught:
        read_all(source(path))
    assert "SECRET" not in str(caught.value)
    assert caught.value.__context__ is None
    found = source(path, lossy_types="null")
    with snapshot_of(found) as snapshot:
        [batch] = snapshot.reader.read(snapshot.splits(found.spec)[0])
        assert dict(snapshot.reader.nulled) == {"c": 2}
        list(snapshot.reader.read(snapshot.splits(found.spec)[0]))
        assert dict(snapshot.reader.nulled) == {"c": 2}, "a read again counts anew"
    rows = batch.to_pylist()
    assert rows[0]["c"] == rows[0]["fine"] is not None
    assert [row["c"] for row in rows[1:]] == [None, None, None]
    assert "become NULL and are counted" in found.describe().columns[2].rule
    for permission in ({"lossy_types": "string"}, {"columns": {"cast": {"c": "string"}}}):
        found = source(path, **permission)
        assert found.describe().columns[2].fidelity == "by_permission"
        texts = [row["c"] for row in read_all(found).to_pylist()]
        assert texts[1] is None
        assert texts[2] == texts[3] is not None


def test_an_exact_type_needs_no_permission(path):
    write(path, "create table t (a integer, b real, c text, d any) strict",
          "create table u (a integer primary key, b integer)",
          "insert into t values (1, 1.5, 'x', 'y')")  # fmt: skip
    for policy, nullable in (("null", [True] * 4), ("string", [True] * 4)):
        found = source(path, lossy_types=policy).describe().columns
        assert [c.arrow_type for c in found[:2]] == [pa.int64(), pa.float64()]
        assert [c.nullable for c in found] == nullable
    found = source(path, extract_table="u", lossy_types="string").describe().columns
    assert [c.arrow_type for c in found] == [pa.int64(), pa.string()]
    assert not found[0].nullable


CASTS = {
    "int64": ("", ["1", "-9223372036854775808"], [1, -(2**63)]),
    "int8": ("", ["1", "-128"], [1, -128]),
    "float64": ("numeric", ["1", "0.1", "9e999"], [1.0, 0.1, math.inf]),
    "decimal(10,2)": ("numeric", ["1", "0.1"], [Decimal("1.00"), Decimal("0.10")]),
    "boolean": ("", ["1", "0"], [True, False]),
    "binary": ("", ["x'00'"], [b"\x00"]),
    "date": ("date", ["'2024-02-29'"], ["2024-02-29"]),
    "timestamp": ("datetime", ["'2024-02-29 01:02:03.5'"], ["2024-02-29 01:02:03.500000"]),
    "timestamptz": ("text", ["'2024-02-29T01:02:03+01:00'"], ["2024-02-29 00:02:03+00:00"]),
}


@pytest.mark.parametrize("cast", CASTS)
def test_a_cast_names_the_type_of_a_column_that_has_none(path, tmp_path, cast):
    declared, literals, expected = CASTS[cast]
    write(path, f"create table t (c {declared})",
          *[f"insert into t values ({text})" for text in literals])  # fmt: skip
    places = {name: f"{tmp_path}/{name}" for name in ("state_uri", "report_uri")}
    run_extract(source(path, columns={"cast": {"c": cast}}, target={"uri": f"{tmp_path}/t"},
                       **places).spec)  # fmt: skip
    [file] = (tmp_path / "t").rglob("*.parquet")
    found = pq.ParquetFile(file).read().column("c").to_pylist()
    assert [str(v) if isinstance(e, str) else v for v, e in zip(found, expected, strict=True)] == (
        expected
    )


def test_a_decimal_may_be_read_as_the_double_that_it_is(path):
    write(path, "create table t (c decimal(5,2))", "insert into t values (0.1 + 0.2), (5)")
    found = source(path, columns={"cast": {"c": "float64"}})
    assert read_all(found).column("c").to_pylist() == [0.1 + 0.2, 5.0]
    assert found.highest("c") == WatermarkValue("decimal", "5")


def test_types_of_a_query_and_a_view(path):
    write(
        path,
        "create table t (i integer, d decimal(4,2), s text)",
        "insert into t values (1, 1.5, 'x')",
        "create view v as select i, d, 1 + i as e from t",
    )
    found = source(path, query="select i as a, s, count(*) as n, null as u from t group by i, s")
    assert [c.arrow_type for c in found.describe().columns] == [
        pa.int64(), pa.string(), pa.string(), pa.string(),
    ]  # fmt: skip
    assert read_all(found).to_pylist() == [{"a": 1, "s": "x", "n": "1", "u": None}]
    assert read_all(source(path, extract_table="v")).to_pylist()[0]["d"] == Decimal("1.50")


def test_a_database_in_utf16(path):
    write(path, "pragma encoding = 'UTF-16le'", "create table t (s text)",
          "insert into t values ('é☃😀')")  # fmt: skip
    assert read_all(source(path)).to_pylist() == [{"s": "é☃😀"}]


@given(
    value=VALUES.filter(lambda value: value is not None)
    | st.binary(max_size=9).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)
@example(value=3.679342836677278e-305)
@example(value=-5e-324)
@example(value=1.7976931348623157e308)
@_SHARED
def test_a_literal_is_read_back_as_the_very_value(value):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        [(found,)] = connection.execute(f"select {literal(value)}").fetchall()
    assert (type(found), repr(found)) == (type(value), repr(value))


# The table of types

EXAMPLES = {
    "BOOLEAN, BOOL": ("boolean", "Bool"),
    "INTEGER, INT, BIGINT, … (any name with INT)": (
        "INTEGER", "int", "BIGINT", "unsigned big int", "POINT", "tinyint(1)",
    ),
    "TEXT, VARCHAR(n), CLOB, … (CHAR, CLOB or TEXT)": ("text", "varchar(20)", "NCHAR(5)", "clob"),
    "BLOB, … (any name with BLOB)": ("blob", "longblob"),
    "REAL, DOUBLE, FLOAT, … (REAL, FLOA or DOUB)": ("real", "double precision", "float"),
    "DECIMAL(p,s), NUMERIC(p,s) with p up to 38": ("decimal(10,2)", "NUMERIC(38, 0)", "numeric(5)"),
    "DATE, DATETIME, TIME, TIMESTAMP": ("date", "datetime", "timestamp with time zone", "TIME"),
    "no type, ANY, NUMERIC, DECIMAL, JSON, and every other name": (
        "", "any", "numeric", "decimal", "json", "uuid", "decimal(39,1)", "decimal(5,9)", "money",
    ),
}  # fmt: skip
_NAMES = {"boolean": pa.bool_(), "int64": pa.int64(), "string": pa.string(),
          "binary": pa.binary(), "float64": pa.float64()}  # fmt: skip


def test_each_row_of_the_table_of_types_is_the_mapping(path):
    assert list(EXAMPLES) == [rule.row.source_type for rule in RULES]
    for rule in RULES:
        for declared in EXAMPLES[rule.row.source_type]:
            assert rule_of(declared) is rule, declared
            write(path, "drop table if exists t", f"create table t (c {declared})")
            [column] = source(path).describe().columns
            assert (column.fidelity, column.rule) == (rule.row.fidelity, rule.row.reason)
            wanted = _NAMES.get(rule.row.arrives_as)
            assert column.arrow_type == wanted or pa.types.is_decimal(column.arrow_type)


def test_the_order_of_the_rules_is_that_of_sqlites_affinities(path):
    """By what SQLite does with the text '1' in a column of each type."""
    affinity = {"INTEGER": "int64", "REAL": "float64", "TEXT": "string", "BLOB": "binary"}
    for declared in ("charint", "blobtext", "floatblob", "doublechar", "real int", "clobfloa"):
        write(path, "drop table if exists t", f"create table t (c {declared})",
              "insert into t values ('1'), (1)")  # fmt: skip
        with contextlib.closing(sqlite3.connect(path)) as connection:
            kinds = {row[0] for row in connection.execute("select typeof(c) from t")}
        kind = {"integer": "INTEGER", "real": "REAL"}.get(min(kinds), "TEXT") if len(kinds) == 1 \
            else "BLOB"  # fmt: skip
        assert rule_of(declared).row.arrives_as == affinity[kind], declared
