"""Helpers for tests of the PostgreSQL source."""

from __future__ import annotations

import contextlib
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from extract_jobs.sources import ReadRequest
from extract_jobs.sources.postgres.snapshot import PostgresSnapshot
from extract_jobs.sources.postgres.source import PostgresSource
from extract_jobs.sources.splits import Split
from tests.support.postgres import Server
from tests.support.specs import make_spec

if TYPE_CHECKING:
    pass


def source(
    server: Server, monkeypatch: pytest.MonkeyPatch, folder: Path | None = None, **overrides: Any
) -> PostgresSource:
    """Return the source of a spec that reads from a server, its password in a variable."""
    monkeypatch.setenv("TEST_PG_PASSWORD", server.password)
    connection = {
        "host": server.host,
        "port": server.port,
        "database": server.database,
        "user": server.user,
        "password_env": "TEST_PG_PASSWORD",
    } | overrides.pop("connection", {})
    return PostgresSource.open(make_spec(folder, connection=connection, **overrides))


def read_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every row like a wide one, with psycopg."""
    monkeypatch.setattr("extract_jobs.sources.postgres.source.width_of", lambda *_, **__: "wide")


@contextlib.contextmanager
def snapshot_of(found: PostgresSource, **request: Any) -> Iterator[PostgresSnapshot]:
    """Hold a snapshot of all columns of a source."""
    with found.snapshot(ReadRequest(found.describe().columns, **request)) as snapshot:
        yield snapshot


def ids(snapshot: PostgresSnapshot, split: Split, column: str = "id") -> list[Any]:
    """Read one column of a split through a reader that has been pickled."""
    reader = pickle.loads(pickle.dumps(snapshot.reader))
    return [value for batch in reader.read(split) for value in batch.column(column).to_pylist()]


def filled(server: Server, rows: int = 5000, name: str = "t", columns: str = "") -> None:
    """Make a table with ids 1 to `rows`, a second apart, and text of uneven length."""
    server.execute(
        f"create table {name} (id int, at timestamptz, note text{columns})",
        f"insert into {name} select i, timestamptz '2024-01-01 00:00+00' + i * interval '1 s',"
        f" repeat('n', i % 200) from generate_series(1, {rows}) i",
        f"analyze {name}",
    )


def everything_said(error: BaseException) -> str:
    """Return the text of an error and all errors chained to it, shown or suppressed."""
    said = "".join(traceback.format_exception(error))
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is not None and one not in seen:
            seen.append(one)
            said += f"{one!s} {one!r} {one.args!r}"
            todo += [one.__cause__, one.__context__]
    return said
