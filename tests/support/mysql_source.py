"""Helpers for tests of the MySQL source."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from extract_jobs.sources import ReadRequest
from extract_jobs.sources.mysql.snapshot import MysqlSnapshot
from extract_jobs.sources.mysql.source import MysqlSource
from extract_jobs.sources.splits import Split
from tests.support.mysql_servers import MysqlServer
from tests.support.specs import make_spec


def source(
    server: MysqlServer,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path | None = None,
    **overrides: Any,
) -> MysqlSource:
    """Return the source of a spec that reads from a server, its password in a variable."""
    monkeypatch.setenv("TEST_MYSQL_PASSWORD", server.password)
    connection = {
        "host": server.host,
        "port": server.port,
        "database": server.database,
        "user": server.user,
        "password_env": "TEST_MYSQL_PASSWORD",
    } | overrides.pop("connection", {})
    return MysqlSource.open(
        make_spec(folder, source_type="mysql", connection=connection, **overrides)
    )


@contextlib.contextmanager
def snapshot_of(found: MysqlSource, **request: Any) -> Iterator[MysqlSnapshot]:
    """Hold a snapshot of all columns of a source."""
    with found.snapshot(ReadRequest(found.describe().columns, **request)) as snapshot:
        yield snapshot


def read_all(found: MysqlSource, split: Split | None = None) -> pa.Table:
    """Read a source in one split, through a reader that has been pickled."""
    with snapshot_of(found) as snapshot:
        reader = pickle.loads(pickle.dumps(snapshot.reader))
        return pa.Table.from_batches(list(reader.read(split or Split(0))), reader.schema)


def rows_of(snapshot: MysqlSnapshot, split: Split) -> list[tuple[Any, ...]]:
    """Read the rows of a split."""
    batches = snapshot.reader.read(split)
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def ids(snapshot: MysqlSnapshot, split: Split, column: str = "id") -> list[Any]:
    """Read one column of a split."""
    batches = snapshot.reader.only([column]).read(split)
    return [value for batch in batches for value in batch.column(0).to_pylist()]
