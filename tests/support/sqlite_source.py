"""Helpers for tests of the SQLite source."""

from __future__ import annotations

import contextlib
import pickle
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from extract_jobs.sources import ReadRequest
from extract_jobs.sources.sqlite.snapshot import SqliteSnapshot
from extract_jobs.sources.sqlite.source import SqliteSource
from extract_jobs.spec.extract_spec import ExtractSpec


def write(path: Path, *statements: str) -> Path:
    """Run statements on a database, which is created if missing, and commit."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return path


def source(path: Path | str, **overrides: Any) -> SqliteSource:
    """Return the source of a spec that reads table ``t``."""
    given: dict[str, Any] = {
        "run_id": "run-1",
        "source_name": "sales",
        "source_type": "sqlite",
        "connection": {"path": str(path)} | overrides.pop("connection", {}),
        "extract_table": "t",
        "target": {"uri": "/nonexistent/extract-jobs/target"},
        "state_uri": "/nonexistent/extract-jobs/state",
        "report_uri": "/nonexistent/extract-jobs/report.json",
    }
    return SqliteSource.open(ExtractSpec.model_validate(given | overrides))


@contextlib.contextmanager
def snapshot_of(found: SqliteSource, **request: Any) -> Iterator[SqliteSnapshot]:
    """Hold a snapshot of all columns of a source."""
    with found.snapshot(ReadRequest(found.describe().columns, **request)) as snapshot:
        yield snapshot


def tables(found: SqliteSource, **request: Any) -> list[pa.Table]:
    """Read every split through a reader that has been pickled, and check the count."""
    with snapshot_of(found, **request) as snapshot:
        reader = pickle.loads(pickle.dumps(snapshot.reader))
        read = [
            pa.Table.from_batches(list(reader.read(split)), reader.schema)
            for split in snapshot.splits(found.spec)
        ]
        assert snapshot.count() == sum(table.num_rows for table in read)
        snapshot.check()
    return read


def read_all(found: SqliteSource, **request: Any) -> pa.Table:
    """Read everything; see `tables`."""
    return pa.concat_tables(tables(found, **request))


def values(found: SqliteSource, column: str = "id", **request: Any) -> list[Any]:
    """Read one column, sorted, NULL last."""
    read = read_all(found, **request).column(column).to_pylist()
    return sorted(read, key=lambda value: (value is None, value))
