"""The torture tables of `make fidelity`, and what each database's own client prints of them."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.fidelity.judge import Printed
from tests.support import mysql_torture, postgres_torture, sqlite_torture
from tests.support.mysql_servers import LATER_MARIADB, MYSQL, Flavour
from tests.support.mysql_servers import run_server as run_mysql
from tests.support.postgres import run_server as run_postgres

USER = PASSWORD = "fidelity"
"""Plain on purpose: this measures types, and not how a password is quoted in a URL."""


@dataclass(frozen=True)
class Case:
    """One column: its declared type, the family that it is judged as, and what is printed of it."""

    column: str
    type: str
    family: str
    printed: list[Printed]
    wire: Sequence[bytes | None] = ()
    """As the server sends it in its binary protocol, where it has one."""


@dataclass(frozen=True)
class Torture:
    """A table on a running server; rows are in the order of the key, which counts from `first`."""

    database: str
    version: str
    host: str
    port: int
    name: str
    table: str
    key: str
    first: int
    cases: list[Case]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.cases[0].printed)


@contextlib.contextmanager
def postgres() -> Iterator[Torture]:
    """PostgreSQL 18, with the values that have no form in Arrow beside all others."""
    with run_postgres(18) as cluster:
        cluster.execute(
            f"create role {USER} login superuser password '{PASSWORD}'", "create database fidelity"
        )
        server = replace(cluster, database="fidelity")
        columns = postgres_torture.build(server)
        types = dict(zip(columns, postgres_torture.TYPES, strict=True))
        del types[columns[list(postgres_torture.TYPES).index("xml")]]  # holds nothing but NULL
        extra = postgres_torture.UNFAITHFUL | {
            "money": ("money", "'-92233720368547758.08'::money", "'1.50'::money")
        }
        labels = dict(types)
        for name, (kind, value, fine) in extra.items():
            server.execute(
                f"alter table torture add column {name} {kind}",
                f"update torture set {name} = case when n = 0 then {value}::{kind} "
                f"else {fine}::{kind} end",
            )
            types[name] = kind
            labels[name] = f"{kind}, one {value.removesuffix('::money')}"
        query = f"select {', '.join(types)} from torture order by n"
        printed = postgres_torture.psql(server, query)
        with server.connect() as connection:
            sent = connection.cursor(binary=True).execute(query.encode()).pgresult
            assert sent is not None
            wire = [[sent.get_value(row, i) for row in range(sent.ntuples)]
                    for i in range(len(types))]  # fmt: skip
            cases = [
                Case(column, labels[column], postgres_family(types[column]), list(values), binary)
                for column, values, binary in zip(
                    types, zip(*printed, strict=True), wire, strict=True
                )
            ]
            [version] = connection.execute("show server_version").fetchone() or ("",)
        yield Torture(
            "postgres", f"PostgreSQL {version.split()[0]}", server.host, server.port, "fidelity",
            "torture", "n", 0, cases,
        )  # fmt: skip


_POSTGRES_FAMILIES = {
    r"bool": "bool",
    r"int[248]|int generated.*|bigserial|d_int|oid": "int",
    r"float4": "float4",
    r"float8": "float8",
    r"numeric.*|d_dec|d_d_dec": "decimal",
    r"text|varchar.*|text generated.*|name": "text",
    r"bpchar|char\(\d+\)|d_char": "padded",
    r"bytea": "bytes",
    r"date|d_day": "date",
    r"timestamp(\(\d\))?": "timestamp",
    r"timestamptz": "instant",
    r"time": "time",
    r"interval.*": "interval",
    r"jsonb?": "json",
    r"uuid": "uuid",
    r"money": "money",
}


def postgres_family(kind: str) -> str:
    """Return the family of a type's name."""
    if kind == "d_arr":
        return "list:int"
    if kind.endswith("[]"):
        return f"list:{postgres_family(kind.removesuffix('[]'))}"
    for pattern, family in _POSTGRES_FAMILIES.items():
        if re.fullmatch(pattern, kind):
            return family
    return "own text"


_MYSQL_EXTRA = {
    "zero_date": ("date", "'0000-00-00'"),
    "zero_datetime": ("datetime", "'0000-00-00 00:00:00'"),
    "partial_date": ("date", "'2024-00-10'"),
    "where_at": ("point", "st_geomfromtext('POINT(1.5 -2)')"),
}


@contextlib.contextmanager
def _mysql(flavour: Flavour) -> Iterator[Torture]:
    with run_mysql(flavour, default_time_zone="+00:00", sql_mode="ALLOW_INVALID_DATES") as server:
        server.execute(
            f"create user '{USER}'@'%' identified by '{PASSWORD}'",
            f"grant all on *.* to '{USER}'@'%'",
            "set global sql_select_limit = 18446744073709551615",
        )
        mysql_torture.make(server)
        printed = mysql_torture.client_prints(server)
        columns = mysql_torture.columns_of(server)
        cases = [
            Case(name, column.type, mysql_family(column.type), _null_or_text(column, printed[name]))
            for name, column in columns.items()
        ]
        for name, (kind, value) in _MYSQL_EXTRA.items():
            server.execute(
                f"alter table torture add column {name} {kind}",
                f"update torture set {name} = {value} where id = 1",
            )
            shown = [row[0] for row in server.client(f"select {name} from torture order by id")]
            label = f"{kind}, one {value}" if kind != "point" else kind
            cases.append(Case(name, label, mysql_family(kind), list(shown)))
        rest = ", ".join(
            f"`{name}`" for name in ["id", *(c.column for c in cases)] if name != "vec"
        )
        server.execute(f"create view torture_without as select {rest} from torture")
        [[version]] = server.rows("select version()")
        title = "MariaDB" if server.is_mariadb else "MySQL"
        yield Torture(
            "mariadb" if server.is_mariadb else "mysql", f"{title} {version.split('-')[0]}",
            server.host, server.port, server.database, "torture", "id", 1, cases,
        )  # fmt: skip


def _null_or_text(column: mysql_torture.Torture, printed: list[bytes | None]) -> list[Printed]:
    """Tell the text ``NULL``, which the client prints like NULL, from NULL, the last row alone."""
    if not column.values:
        return list(printed)
    return [b"NULL" if text is None else text for text in printed[:-1]] + [printed[-1]]


_MYSQL_FAMILIES = {
    r"(tiny|small|medium|big)?int.*|boolean|year": "int",
    r"bit.*": "bits",
    r"decimal.*": "decimal",
    r"(float|double)\(.*": "fixed",
    r"float.*": "float4",
    r"double.*": "float8",
    r"date": "date",
    r"datetime.*": "timestamp",
    r"timestamp.*": "instant",
    r"time(\(\d\))?": "time",
    r"json": "json",
    r"set\(.*": "set",
    r"uuid": "uuid",
    r"inet[46]": "own text",
    r"(var)?binary.*|(tiny|medium|long)?blob|vector.*|point": "bytes",
}


def mysql_family(kind: str) -> str:
    """Return the family of a declared type."""
    for pattern, family in _MYSQL_FAMILIES.items():
        if re.fullmatch(pattern, kind):
            return family
    return "text"


_SQLITE_FAMILIES = {
    "small": "int", "whole": "int", "truth": "bool", "words": "text", "short": "text",
    "bytes": "bytes", "double": "float8", "price": "decimal", "wide": "decimal",
    "day": "date", "json": "json",
}  # fmt: skip


@contextlib.contextmanager
def sqlite() -> Iterator[Torture]:
    """SQLite, whose own client is the library in Python: text is what it gives, typed by value."""
    with tempfile.TemporaryDirectory(prefix="fidelity-") as folder:
        path = sqlite_torture.make_torture(Path(folder) / "torture.sqlite")
        declared = {name: kind for name, (kind, _) in sqlite_torture.TORTURE.items()}
        del declared["n"]
        with contextlib.closing(sqlite3.connect(path)) as connection:
            listed = ", ".join(f'"{name}"' for name in declared)
            rows = connection.execute(f"select {listed} from t order by n").fetchall()
        cases = [
            Case(
                name,
                declared[name] or "(none)",
                _SQLITE_FAMILIES.get(name, "any"),
                [_sqlite_text(value) for value in values],
            )
            for name, values in zip(declared, zip(*rows, strict=True), strict=True)
        ]
        version = f"SQLite {sqlite3.sqlite_version}"
        yield Torture("sqlite", version, "", 0, str(path), "t", "n", 0, cases)


def _sqlite_text(value: Any) -> Printed:
    if value is None or isinstance(value, bytes | str):
        return value
    return repr(value)


TABLES: dict[str, Callable[[], contextlib.AbstractContextManager[Torture]]] = {
    "postgres": postgres,
    "mysql": lambda: _mysql(MYSQL),
    "mariadb": lambda: _mysql(LATER_MARIADB),
    "sqlite": sqlite,
}
