"""Random tables: every value comes as the server itself prints it, or as the policy says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import TypeNotRepresentable
from extract_jobs.schema import Column
from tests.support.postgres import VERSION, Server
from tests.support.postgres_source import snapshot_of, source
from tests.support.postgres_torture import DECLARATIONS, exact_texts, meant
from tests.support.sampling import examples

LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
BEYOND = st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "0001-01-01 BC"])
INTEGERS = {"int2": 15, "int4": 31, "int8": 63}


def digits(precision: int, scale: int) -> st.SearchStrategy[str]:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda n: f"{Decimal(f'{n}E-{scale}'):f}")


SCALARS: dict[str, st.SearchStrategy[str]] = {
    **{
        name: st.integers(-(2**bits), 2**bits - 1).map(str) for name, bits in INTEGERS.items()
    },
    "bool": st.sampled_from(["t", "f"]),
    "float4": st.floats(width=32).map(repr),
    "float8": st.floats().map(repr),
    "numeric(5,2)": digits(5, 2) | st.just("NaN"),
    "numeric(38,10)": digits(38, 10) | st.just("NaN"),
    "numeric(9,9)": digits(9, 9),
    "numeric(50,3)": digits(50, 3) | st.just("NaN"),
    "numeric": st.decimals(allow_nan=True, allow_infinity=VERSION >= 14).map(str).filter(
        lambda text: "NaN" not in text or text == "NaN"
    ),
    "text": st.text(LETTERS, max_size=20),
    "varchar(4)": st.text(LETTERS, max_size=4),
    "char(4)": st.text(LETTERS, max_size=4),
    "bpchar": st.text(LETTERS, max_size=4),
    "bytea": st.binary(max_size=9).map(lambda value: "\\x" + value.hex()),
    "date": st.dates().map(str) | BEYOND,
    "timestamp": st.datetimes().map(str) | BEYOND,
    "timestamp(0)": st.datetimes().map(str),
    "timestamptz": st.builds(
        "{}{}".format, st.datetimes().map(str), st.sampled_from(["+00", "+05:30", "-11"])
    ) | BEYOND,
    "time": st.times().map(str) | st.just("24:00"),
    "timetz": st.times().map(lambda value: f"{value}-03:30"),
    "interval": st.timedeltas().map(lambda value: f"{value.days} days {value.seconds} seconds"),
    "uuid": st.uuids().map(str),
    "json": st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(LETTERS, max_size=5), st.lists,
        max_leaves=4,
    ).map(json.dumps),
    "jsonb": st.dictionaries(st.text("ab\"'\\é", max_size=3), st.integers()).map(json.dumps),
    "inet": st.ip_addresses().map(str),
    "varbit": st.text("01", max_size=9),
    "mood": st.sampled_from(["so so", "☃"]),
    "int4range": st.tuples(st.integers(-9, 9), st.integers(0, 9)).map(
        lambda pair: f"[{pair[0]},{sum(map(abs, pair)) + 10})"
    ),
    "d_dec": digits(10, 2) | st.just("NaN"),
    "d_char": st.text(LETTERS, max_size=4),
    "d_day": st.dates().map(str) | BEYOND,
}  # fmt: skip


def quoted(item: str | None) -> str:
    return "NULL" if item is None else '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array(items: list[str | None], shape: str) -> str:
    inside = ",".join(map(quoted, items))
    if items and shape == "nested":
        return f"{{{{{inside}}}}}"
    if items and shape == "shifted":
        return f"[0:{len(items) - 1}]={{{inside}}}"
    return f"{{{inside}}}"


SHAPES = st.sampled_from(["plain"] * 6 + ["nested", "shifted"])


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str | None]]]:
    """Draw types and rows, of which each value is text that its type reads."""
    scalars = draw(st.lists(st.sampled_from(sorted(SCALARS)), min_size=1, max_size=6))
    kinds, values = [], []
    for scalar in scalars:
        one = SCALARS[scalar]
        if draw(st.integers(0, 3)) == 0:
            kinds.append(f"{scalar}[]")
            values.append(st.builds(array, st.lists(one | st.none(), max_size=3), SHAPES))
        else:
            kinds.append(scalar)
            values.append(one)
    row = st.tuples(*(value | st.none() for value in values)).map(list)
    return kinds, draw(st.lists(row, max_size=6))


@pytest.fixture(scope="module")
def database(pg: Server) -> Iterator[Server]:
    with pg.connect() as connection:
        connection.execute("drop database if exists random with (force)")
        connection.execute("create database random")
        server = dataclasses.replace(pg, database="random")
        server.execute(*DECLARATIONS)
        yield server
        connection.execute("drop database random with (force)")


def fill(server: Server, kinds: list[str], rows: list[list[str | None]]) -> list[list[Any]]:
    """Make the table t, and return its values as the server prints them."""
    names = [f"c{i}" for i in range(len(kinds))]
    listed = ", ".join(f"{name} {kind}" for name, kind in zip(names, kinds, strict=True))
    with server.connect(options="-c timezone=UTC") as connection:
        connection.execute(f"drop table if exists t; create table t (n int, {listed})".encode())
        places = ", ".join(["%s"] * (len(kinds) + 1))
        cursor = connection.cursor()
        cursor.executemany(
            f"insert into t values ({places})".encode(), [[n, *row] for n, row in enumerate(rows)]
        )
        copied = f"copy (select {', '.join(names)} from t order by n) to stdout"
        with cursor.copy(copied.encode()) as copy:
            copy.set_types(["text"] * len(kinds))
            return [list(row) for row in copy.rows()]


def modelled(text: str | None, column: Column) -> tuple[Any, bool]:
    """Return what text of the server means in a column, and whether it has a faithful form."""
    kind = column.arrow_type
    if text is not None and pa.types.is_list(kind) and (text[0] == "[" or text[:2] == "{{"):
        return None, False
    try:
        value = meant(text, kind)
    except ValueError:
        return None, False
    inside = value if isinstance(value, list) else [value]
    if any(isinstance(item, Decimal) and item.is_nan() for item in inside):
        return None, False
    return value, True


@settings(deadline=None, max_examples=examples(20), suppress_health_check=list(HealthCheck))
@given(tables(), st.sampled_from(["refuse", "null", "string"]), st.booleans())
def test_random_tables_come_as_the_server_prints_them(
    database, monkeypatch_module, drawn, policy, wide
):
    kinds, rows = drawn
    printed = fill(database, kinds, rows)
    found = source(database, monkeypatch_module, extract_table="t", lossy_types=policy)
    with snapshot_of(found) as snapshot:
        reader = snapshot.reader
        if wide:
            reader = dataclasses.replace(reader, width="wide")
        columns = reader.columns[1:]
        model = [[modelled(t, c) for t, c in zip(row, columns, strict=True)] for row in printed]
        unfaithful = {
            column.name: count
            for i, column in enumerate(columns)
            if (count := sum(not row[i][1] for row in model))
        }
        event(f"{policy}, {'some' if unfaithful else 'no'} unfaithful values")
        (split,) = snapshot.splits(found.spec)
        if unfaithful and policy == "refuse":
            with pytest.raises(TypeNotRepresentable):
                list(reader.read(split))
            return
        read = pa.Table.from_batches(reader.read(split), reader.schema).sort_by("n")
        assert dict(reader.nulled) == (unfaithful if policy == "null" else {})
    assert policy == "null" or not unfaithful
    for i, column in enumerate(columns):
        expected = [row[i][0] for row in model]
        assert exact_texts(read.column(column.name).to_pylist()) == exact_texts(expected), kinds[i]


@pytest.mark.parametrize("policy", ["refuse", "null"])
@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("numeric(38,20)", *2 * ["123456789012345678.12345678901234567891"]),
        ("numeric(18,4)[]", "{12345678901234.5678}", ["12345678901234.5678"]),
        ("numeric(38,20)[]", "{0.1,123456789012345678.5}",
         ["0.10000000000000000000", "123456789012345678.50000000000000000000"]),
        ("numeric(5,2)[]", "{0.41}", ["0.41"]),
    ],
)  # fmt: skip
def test_decimals_beside_values_without_a_form_keep_their_digits(
    database, monkeypatch_module, kind, text, expected, policy
):
    """Where such values become NULL, a CASE reads the column, and has no precision."""
    fill(database, [kind], [[text]])
    found = source(database, monkeypatch_module, extract_table="t", lossy_types=policy)
    with snapshot_of(found) as snapshot:
        (split,) = snapshot.splits(found.spec)
        [row] = pa.Table.from_batches(snapshot.reader.read(split)).column(1).to_pylist()
    assert ([str(item) for item in row] if isinstance(row, list) else str(row)) == expected


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch
