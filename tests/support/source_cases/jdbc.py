"""JDBC in the behaviour suite: PostgreSQL through its JDBC driver, and H2 inside Spark's JVM."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from extract_jobs.sources import Snapshot
from extract_jobs.sources.splits import Split
from tests.support.cut_proxy import CutProxy
from tests.support.postgres import Server
from tests.support.source_cases import HOSTILE, Kind, SourceCase, SourceDatabase
from tests.support.source_cases.postgres import PostgresDatabase

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.support.jdbc import Embedded


class _Jdbc(SourceDatabase):
    """What the two have in common: rows come through Spark."""

    source_type = "jdbc"

    def read(self, snapshot: Snapshot, split: Split) -> pa.Table:
        from tests.support.jdbc import read_split

        return read_split(snapshot.reader, self.spark, split)


class JdbcPostgresDatabase(_Jdbc, PostgresDatabase):
    """The tests' own PostgreSQL, through its JDBC driver."""

    def __init__(self, server: Server, spark: SparkSession) -> None:
        super().__init__(server)
        self.spark = spark
        self.connection = self._at(server.host, server.port)
        self.several = {"target_bytes": 65536, "max_connections": 2}

    def _at(self, host: str, port: int) -> dict[str, Any]:
        url = f"jdbc:postgresql://{host}:{port}/{self.server.database}"
        return {
            "url": f"{url}?sslmode=disable",
            "user": self.server.user,
            "password_env": "SUITE_PASSWORD",
        }

    @contextlib.contextmanager
    def breaking(self) -> Iterator[dict[str, Any]]:
        with CutProxy(self.server.host, self.server.port) as proxy:
            proxy.cut_once_after(100_000)
            yield {"connection": self._at("127.0.0.1", proxy.port)}

    def unreachable(self) -> dict[str, Any]:
        return {"connection": self._at("127.0.0.1", 9)}


class H2Database(_Jdbc):
    """A database in the memory of Spark's JVM."""

    def __init__(self, embedded: Embedded) -> None:
        self.embedded, self.spark = embedded, embedded.spark
        self.connection = {"url": embedded.url, "user": "sa", "password_env": "SUITE_PASSWORD"}
        self.several = {"target_bytes": 32768, "max_connections": 4}

    def create(
        self,
        table: str,
        columns: Mapping[str, Kind],
        rows: Iterable[Sequence[int | str | None]] = (),
        key: str | None = None,
    ) -> None:
        types = {"integer": "bigint", "text": "varchar(300)"}
        listed = [f"{_quoted(name)} {types[kind]}" for name, kind in columns.items()]
        if key is not None:
            listed.append(f"primary key ({_quoted(key)})")
        self.embedded.execute(f"create table {_quoted(table)} ({', '.join(listed)})")
        self.insert(table, rows)

    def insert(self, table: str, rows: Iterable[Sequence[int | str | None]]) -> None:
        rows = list(rows)
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self.embedded.insert(f"insert into {_quoted(table)} values ({marks})", rows)

    def table(self, name: str) -> dict[str, Any]:
        return {"extract_table": f"PUBLIC.{name}"}

    def wrong_password(self) -> dict[str, Any]:
        return {"connection": self.connection | {"password_env": "SUITE_WRONG_PASSWORD"}}

    def unreachable(self) -> dict[str, Any]:
        return {"connection": self.connection | {"url": "jdbc:h2:tcp://127.0.0.1:9/nowhere"}}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def _postgres(request: pytest.FixtureRequest) -> Iterator[SourceDatabase]:
    server: Server = request.getfixturevalue("pg_database")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setenv("SUITE_PASSWORD", server.password)
    monkeypatch.setenv("SUITE_WRONG_PASSWORD", "wr0ng-and-secret")
    yield JdbcPostgresDatabase(server, request.getfixturevalue("spark"))


@contextlib.contextmanager
def _h2(request: pytest.FixtureRequest) -> Iterator[SourceDatabase]:
    from tests.support.jdbc import PASSWORD, h2

    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setenv("SUITE_PASSWORD", PASSWORD)
    monkeypatch.setenv("SUITE_WRONG_PASSWORD", "wr0ng-and-secret")
    yield H2Database(h2(request.getfixturevalue("spark")))


# What each version of Spark makes of values and errors is shown in tests/spark.
MARKS = (pytest.mark.spark, pytest.mark.any_spark)
CASES = (
    SourceCase("jdbc-postgres", _postgres, hostile=HOSTILE, marks=MARKS),
    SourceCase(
        "jdbc-h2",
        _h2,
        lacks={"retry": "inside Spark's own process: there is no connection to cut"},
        marks=MARKS,
    ),
)
