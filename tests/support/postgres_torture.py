"""Every type of PostgreSQL at its extremes, and what psql prints of it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.local.postgres import installation
from tests.support.postgres import VERSION, Server

NINES = "9" * 38
HAS_VECTOR = VERSION in (16, 18)
"""pgvector is only in the wheel that has these versions."""

DECLARATIONS = (
    "create type mood as enum ('so so', '☃', 'it''s \"x\"')",
    "create type pair as (a int, b text)",
    "create type nested as (p pair, q int[])",
    "create type words as range (subtype = text)",
    "create domain d_int as int check (value > 0)",
    "create domain d_dec as numeric(10,2)",
    "create domain d_d_dec as d_dec not null",
    "create domain d_char as char(4)",
    "create domain d_arr as int[]",
    "create domain d_mood as mood",
    "create domain d_day as date",
    "create type loud as enum ('a', 'b')",
    "create function louder(loud) returns text immutable language sql as 'select ''!'''",
    "create cast (loud as text) with function louder(loud)",
    *(["create extension if not exists vector"] if HAS_VECTOR else []),
)
"""Declarations that `TYPES` need."""

TYPES: dict[str, tuple[pa.DataType, list[str]]] = {
    "bool": (pa.bool_(), ["true", "false"]),
    "int2": (pa.int16(), ["-32768", "0", "32767"]),
    "int4": (pa.int32(), ["-2147483648", "2147483647"]),
    "int8": (pa.int64(), ["-9223372036854775808", "9223372036854775807"]),
    "float4": (
        pa.float32(),
        ["1e-45", "3.4028235e38", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'", "0.1"],
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
        ["''", "' blanks '", "'é☃😀'", "E'\\n\\t\\\\\\x01\\x1f'", "'NULL'", "repeat('x', 99999)"],
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
    "text[]": (pa.list_(pa.string()), ["'{}'", "array['', 'a,b', '\"', null, '{}', 'NULL', '\\']"]),
    "char(3)[]": (pa.list_(pa.string()), ["array['a', null, 'abc']"]),
    "numeric(6,2)[]": (pa.list_(pa.decimal128(6, 2)), ["'{1.5,-9999.99,null}'"]),
    "timestamptz[]": (pa.list_(pa.timestamp("us", "UTC")), ["'{2024-01-01 00:00+01}'"]),
    "date[]": (pa.list_(pa.date32()), ["'{2024-01-01,null,0001-01-01}'"]),
    "bool[]": (pa.list_(pa.bool_()), ["'{t,f,null}'"]),
    "float8[]": (pa.list_(pa.float64()), ["'{NaN,-Infinity,0.1}'"]),
    "int generated always as identity": (pa.int32(), ["default"]),
    "bigserial": (pa.int64(), ["9223372036854775807", "default"]),
    "text generated always as ('#' || n) stored": (pa.string(), ["default"]),
    "int generated always as (n * 2) virtual": (pa.int32(), ["default"]),
    "d_int": (pa.int32(), ["5"]),
    "d_dec": (pa.decimal128(10, 2), ["12345678.90"]),
    "d_d_dec": (pa.decimal128(10, 2), ["0.01"]),
    "d_char": (pa.string(), ["'ab'"]),
    "d_arr": (pa.list_(pa.int32()), ["'{1,2}'"]),
    "d_day": (pa.date32(), ["'1999-12-31'"]),
    "d_mood": (pa.string(), ["'☃'"]),
    "d_int[]": (pa.list_(pa.int32()), ["'{1,null}'"]),
    "d_dec[]": (pa.list_(pa.decimal128(10, 2)), ["'{1.5}'"]),
    # As the server's own text.
    "uuid": (
        pa.string(),
        ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    ),
    "json": (pa.string(), ['\'{ "b":1, "b":2 }\'']),
    "jsonb": (pa.string(), ['\'{"b":1.10, "a":"é"}\'', "'null'"]),
    "jsonpath": (pa.string(), ["'$.a[*] ? (@ > 1)'"]),
    "xml": (pa.string(), ["null"]),  # this server was built without it
    "mood": (pa.string(), ["'so so'", "'☃'", "'it''s \"x\"'"]),
    "loud": (pa.string(), ["'a'"]),
    "inet": (pa.string(), ["'::1/128'", "'10.0.0.1/8'", "'10.0.0.1'"]),
    "cidr": (pa.string(), ["'10.0.0.0/8'"]),
    "macaddr": (pa.string(), ["'08:00:2b:01:02:03'"]),
    "macaddr8": (pa.string(), ["'08:00:2b:01:02:03:04:05'"]),
    "interval": (
        pa.string(),
        ["'1 year -2 days 00:00:00.000001'", "'-178000000 years'", "'infinity'"],
    ),
    "interval year to month": (pa.string(), ["'1-2'"]),
    "int4range": (pa.string(), ["'[1,5)'", "'empty'", "'(,)'"]),
    "numrange": (pa.string(), ["'[0.1,1e3]'"]),
    "daterange": (pa.string(), ["'[-infinity,infinity]'", "'[2024-01-01,2024-01-31]'"]),
    "tstzrange": (pa.string(), ["'[2024-01-01 00:00+01,infinity)'"]),
    "int4multirange": (pa.string(), ["'{[1,2),[5,9)}'", "'{}'"]),
    "datemultirange": (pa.string(), ["'{[2024-01-01,2024-01-02)}'"]),
    "words": (pa.string(), ["'[a,\"b,c\")'"]),
    "time": (pa.string(), ["'24:00'", "'00:00'", "'23:59:59.999999'"]),
    "timetz": (pa.string(), ["'24:00+05:30'", "'00:00-15:59:59'"]),
    "numeric": (
        pa.string(),
        ["1e300", "'NaN'", "'Infinity'", "1.10", "1e-300", "repeat('9', 1000)::numeric",
         "('-' || repeat('9', 131072) || '.' || repeat('8', 16383))::numeric"],
    ),
    "numeric(1000,500)": (pa.string(), [f"{'7' * 500}.{'3' * 500}", "'NaN'"]),
    "numeric(39,1)": (pa.string(), ["9999999999999999999999999999999999999.9"]),
    "numeric(3,-2)": (pa.string(), ["12345"]),
    "numeric(2,5)": (pa.string(), ["0.00099"]),
    "bit(3)": (pa.string(), ["b'101'"]),
    "varbit": (pa.string(), ["b''", "b'1'"]),
    "oid": (pa.string(), ["4294967295"]),
    "regclass": (pa.string(), ["'pg_class'", "0"]),
    "regtype": (pa.string(), ["'timestamptz'"]),
    "xid": (pa.string(), ["'4294967295'"]),
    "xid8": (pa.string(), ["'18446744073709551615'"]),
    "tid": (pa.string(), ["'(4294967295,65535)'"]),
    "pg_lsn": (pa.string(), ["'16/B374D848'"]),
    "pg_snapshot": (pa.string(), ["'10:20:10,14,15'"]),
    "name": (pa.string(), ["'n'"]),
    '"char"': (pa.string(), ["'x'", "''", "'\\377'"]),
    "point": (pa.string(), ["'(1.5,-2)'", "'(0.1,1e-300)'"]),
    "line": (pa.string(), ["'{1,-1,0}'"]),
    "lseg": (pa.string(), ["'[(0,0),(1,1)]'"]),
    "box": (pa.string(), ["'(1,1),(0,0)'"]),
    "path": (pa.string(), ["'((0,0),(1,1))'", "'[(0,0),(1,1)]'"]),
    "polygon": (pa.string(), ["'((0,0),(1,1),(1,0))'"]),
    "circle": (pa.string(), ["'<(0,0),0.1>'"]),
    "tsvector": (pa.string(), ["'a:1 b'"]),
    "tsquery": (pa.string(), ["'a & !b'"]),
    "pair": (pa.string(), ["row(1, 'x,y')", "row(null, '')", "row(null, null)"]),
    "nested": (pa.string(), ["row(row(1, '\"'), '{1,null}')"]),
    "int2vector": (pa.string(), ["'1 2'", "''"]),
    "oidvector": (pa.string(), ["'1 4294967295'"]),
    "vector(3)": (pa.string(), ["'[1,2.5,-3]'"]),
    "bytea[]": (pa.list_(pa.string()), ["array['\\x00'::bytea, null]"]),
    "inet[]": (pa.list_(pa.string()), ["'{::1,10.0.0.1/8,null,10.0.0.1}'"]),
    "uuid[]": (pa.list_(pa.string()), ["'{00000000-0000-0000-0000-000000000000,null}'"]),
    "mood[]": (pa.list_(pa.string()), ["array['so so', null, 'it''s \"x\"']::mood[]"]),
    "time[]": (pa.list_(pa.string()), ["'{24:00}'"]),
    "numeric[]": (pa.list_(pa.string()), ["'{NaN,1.10}'"]),
    "jsonb[]": (pa.list_(pa.string()), ["array['{\"a\": [1]}'::jsonb]"]),
    "pair[]": (pa.list_(pa.string()), ["array[row(1, 'x')]::pair[]"]),
    "vector[]": (pa.list_(pa.string()), ["array['[1,2]'::vector, null]"]),
}  # fmt: skip
"""Declared types, how they arrive, and values as SQL. Money is refused, see the tests."""
_TYPES_SINCE = {
    "int4multirange": 14, "datemultirange": 14, "numeric(3,-2)": 15, "numeric(2,5)": 15,
    "int generated always as (n * 2) virtual": 18,
    "vector(3)": 0 if HAS_VECTOR else 99, "vector[]": 0 if HAS_VECTOR else 99,
}  # fmt: skip
_INFINITIES_SINCE = {"numeric": 14, "interval": 17}
TYPES = {
    name: (
        kind,
        [
            v
            for v in values
            if "infinity" not in v.lower() or _INFINITIES_SINCE.get(name, 0) <= VERSION
        ],
    )
    for name, (kind, values) in TYPES.items()
    if _TYPES_SINCE.get(name, 0) <= VERSION
}

UNFAITHFUL = {
    "numeric_nan": ("numeric(10,2)", "'NaN'", "0"),
    "date_inf": ("date", "'infinity'", "'2024-01-01'"),
    "date_bc": ("date", "'0044-03-15 BC'", "'0001-01-01'"),
    "date_far": ("date", "'10000-01-01'", "'9999-12-31'"),
    "ts_ninf": ("timestamp", "'-infinity'", "'2024-01-01'"),
    "ts_last": ("timestamp", "'294276-12-31 23:59:59.999999'", "'2024-01-01'"),
    "tstz_inf": ("timestamptz", "'infinity'", "'2024-01-01+00'"),
    "tstz_far": ("timestamptz", "'10000-01-01 00:00+00'", "'9999-12-31 23:59:59.999999+00'"),
    "domain_inf": ("d_day", "'infinity'", "'2024-01-01'"),
    "array_2d": ("int4[]", "'{{1,2},{3,4}}'", "'{1}'"),
    "array_3d": ("text[]", '\'{{{a,null}},{{"b c",""}}}\'', "'{null}'"),
    "array_from_0": ("int4[]", "'[0:1]={1,2}'", "'{}'"),
    "array_from_minus_9": ("int8[]", "'[-9:-9]={5}'", "'{5}'"),
    "array_nan": ("numeric(5,1)[]", "'{1,NaN}'", "'{1,null}'"),
    "array_inf": ("date[]", "'{infinity}'", "'{2024-01-01}'"),
    "text_array_2d": ("uuid[]", "array[array[null::uuid]]", "'{}'"),
    "char_array_2d": ("char(3)[]", "'{{a},{b}}'", "'{a}'"),
}
"""By name: a type, a value without a faithful form, and one with."""


def build(server: Server, table: str = "torture") -> list[str]:
    """Create a table with a column for each of `TYPES`, and return their names in that order.

    Row n has each type's value n, cyclically; the last row has NULL where it is allowed.
    """
    names = [f"c{i}" for i in range(len(TYPES))]
    columns = ", ".join(f"{n} {t}" for n, t in zip(names, TYPES, strict=True))
    longest = max(len(values) for _, values in TYPES.values())
    server.execute(*DECLARATIONS, f"create table {table} (n int primary key, {columns})")
    for row in range(longest + 1):
        values = [
            kinds[row % len(kinds)]
            if row < longest or kind in ("d_d_dec", "bigserial") or kinds == ["default"]
            else "null"
            for kind, (_, kinds) in TYPES.items()
        ]
        server.execute(f"insert into {table} values ({row}, {', '.join(values)})")
    return names


def psql(server: Server, statement: str) -> list[list[str | None]]:
    """Return what psql prints for a SELECT, by row and column; None for NULL."""
    options = [
        "timezone=UTC", "datestyle=ISO", "intervalstyle=postgres", "bytea_output=hex",
        "extra_float_digits=1",
    ]  # fmt: skip
    null = "<NULL>"
    done = subprocess.run(
        [installation(18) / "bin" / "psql", "-X", "-A", "-t", "-z", "-0", "-P", f"null={null}",
         "-v", "ON_ERROR_STOP=1", "-d", server.url, "-c", statement],
        check=True, capture_output=True, text=True,
        env={
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "PGPASSWORD": server.password,
            "PGOPTIONS": " ".join(f"-c {option}" for option in options),
        },
    )  # fmt: skip
    assert done.stdout.endswith("\0")
    # Fields and records end alike: a value cannot hold a NUL.
    fields = [None if field == null else field for field in done.stdout[:-1].split("\0")]
    width = len(psql_columns(server, statement))
    return [fields[i : i + width] for i in range(0, len(fields), width)]


def psql_columns(server: Server, statement: str) -> list[str]:
    """Return the names of a SELECT's columns."""
    with server.connect() as connection:
        found = connection.execute(f"select * from ({statement}) s limit 0".encode())
        return [column.name for column in found.description or ()]


def meant(text: str | None, kind: pa.DataType) -> Any:
    """Return the Python value, of an Arrow type, for a text from psql."""
    if text is None:
        return None
    if pa.types.is_list(kind):
        return [meant(item, kind.value_type) for item in items(text)]
    if pa.types.is_boolean(kind):
        return {"t": True, "f": False}[text]
    if pa.types.is_integer(kind):
        return int(text)
    if pa.types.is_floating(kind):
        return pa.scalar(float(text), pa.float64()).cast(kind).as_py()
    if pa.types.is_decimal(kind):
        return Decimal(text)
    if pa.types.is_binary(kind):
        return bytes.fromhex(text.removeprefix("\\x"))
    if pa.types.is_date(kind):
        return date.fromisoformat(text)
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat(text)
    return text


def items(text: str) -> list[str | None]:
    """Parse an array of one dimension as the server prints it."""
    found = re.findall(r'(?:"((?:[^"\\]|\\.)*)"|([^,"]+))(?:,|$)', text[1:-1], re.DOTALL)
    return [
        None if plain == "NULL" else plain or re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        for quoted, plain in found
    ]


def exact_texts(values: Sequence[Any]) -> list[str]:
    """Return values so that equal texts are equal values: NaN, -0, scale and type included."""
    utc = r"zoneinfo\.ZoneInfo\(key='(?:Etc/)?UTC'\)|datetime\.timezone\.utc"
    return [re.sub(utc, "UTC", repr(value)) for value in values]


def files_of(folder: Path) -> list[str]:
    """Return the Parquet files below a local target."""
    return sorted(str(path) for path in folder.rglob("*.parquet"))
