"""PostgreSQL in the behaviour suite: the tests' own server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from psycopg import sql

from tests.support.cut_proxy import CutProxy
from tests.support.postgres import Server
from tests.support.source_cases import Kind, SourceCase, SourceDatabase

_TYPES = {"integer": "bigint", "text": "text"}


class PostgresDatabase(SourceDatabase):
    """A database of its own, tables in ``public``."""

    source_type = "postgres"

    def __init__(self, server: Server) -> None:
        self.server = server
        self.several = {"target_bytes": 65536}
        self.connection = {
            "host": server.host,
            "port": server.port,
            "database": server.database,
            "user": server.user,
            "password_env": "SUITE_PASSWORD",
        }

    def create(
        self,
        table: str,
        columns: Mapping[str, Kind],
        rows: Iterable[Sequence[int | str | None]] = (),
        key: str | None = None,
    ) -> None:
        listed = [
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(_TYPES[kind]))
            for name, kind in columns.items()
        ]
        if key is not None:
            listed.append(sql.SQL("primary key ({})").format(sql.Identifier(key)))
        with self.server.connect() as connection:
            statement = sql.SQL("create table {} ({})")
            connection.execute(statement.format(sql.Identifier(table), sql.SQL(", ").join(listed)))
        self.insert(table, rows)

    def insert(self, table: str, rows: Iterable[Sequence[int | str | None]]) -> None:
        with self.server.connect() as connection, connection.cursor() as cursor:
            name = sql.Identifier(table)
            with cursor.copy(sql.SQL("copy {} from stdin").format(name)) as copy:
                for row in rows:
                    copy.write_row(row)
            cursor.execute(sql.SQL("analyze {}").format(name))

    def table(self, name: str) -> dict[str, Any]:
        return {"extract_table": f"public.{name}"}

    @contextlib.contextmanager
    def breaking(self) -> Iterator[dict[str, Any]]:
        with CutProxy(self.server.host, self.server.port) as proxy:
            proxy.cut_once_after(100_000)
            yield {"connection": self.connection | {"port": proxy.port, "sslmode": "disable"}}

    def wrong_password(self) -> dict[str, Any]:
        return {"connection": self.connection | {"password_env": "SUITE_WRONG_PASSWORD"}}

    def unreachable(self) -> dict[str, Any]:
        return {"connection": self.connection | {"port": 9}}


@contextlib.contextmanager
def _open(request: pytest.FixtureRequest) -> Iterator[SourceDatabase]:
    server: Server = request.getfixturevalue("pg_database")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setenv("SUITE_PASSWORD", server.password)
    monkeypatch.setenv("SUITE_WRONG_PASSWORD", "wr0ng-and-secret")
    yield PostgresDatabase(server)


CASE = SourceCase("postgres", _open)
