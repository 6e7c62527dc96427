"""MySQL and MariaDB in the behaviour suite: the tests' own servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.support.cut_proxy import CutProxy
from tests.support.mysql_servers import SERVERS, MysqlServer, database_of, quoted
from tests.support.source_cases import HOSTILE, Kind, SourceCase, SourceDatabase

_TYPES = {"integer": "bigint", "text": "varchar(300)"}


class MysqlDatabase(SourceDatabase):
    """A database of its own."""

    source_type = "mysql"

    def __init__(self, server: MysqlServer) -> None:
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
        listed = [f"{quoted(name)} {_TYPES[kind]}" for name, kind in columns.items()]
        if key is not None:
            listed.append(f"primary key ({quoted(key)})")
        self.server.execute(f"create table {quoted(table)} ({', '.join(listed)})")
        self.insert(table, rows)

    def insert(self, table: str, rows: Iterable[Sequence[int | str | None]]) -> None:
        self.server.insert(table, rows)
        self.server.execute(f"analyze table {quoted(table)}")

    @contextlib.contextmanager
    def breaking(self) -> Iterator[dict[str, Any]]:
        with CutProxy(self.server.host, self.server.port) as proxy:
            proxy.cut_once_after(100_000)
            yield {"connection": self.connection | {"port": proxy.port, "sslmode": "disable"}}

    def wrong_password(self) -> dict[str, Any]:
        return {"connection": self.connection | {"password_env": "SUITE_WRONG_PASSWORD"}}

    def unreachable(self) -> dict[str, Any]:
        return {"connection": self.connection | {"port": 9}}


def _opens(name: str) -> Callable[[pytest.FixtureRequest], AbstractContextManager[SourceDatabase]]:
    @contextlib.contextmanager
    def opens(request: pytest.FixtureRequest) -> Iterator[SourceDatabase]:
        servers: Callable[[str], MysqlServer] = request.getfixturevalue("mysql_servers")
        monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        with database_of(servers(name)) as server:
            monkeypatch.setenv("SUITE_PASSWORD", server.password)
            monkeypatch.setenv("SUITE_WRONG_PASSWORD", "wr0ng-and-secret")
            yield MysqlDatabase(server)

    return opens


CASES = tuple(
    SourceCase(
        name,
        _opens(name),
        # Names are of the basic plane: the servers refuse to make one with an emoji. 64 letters.
        hostile=(*(name.replace(" 😀", "") for name in HOSTILE), "ß" * 63 + "x"),
    )
    for name in SERVERS
)
