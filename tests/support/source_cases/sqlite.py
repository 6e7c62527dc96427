"""SQLite in the behaviour suite: a file with a rollback journal, and one in WAL mode."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.source_cases import Behaviour, Kind, SourceCase, SourceDatabase


def quote(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


class SqliteDatabase(SourceDatabase):
    """A file of its own."""

    source_type = "sqlite"

    def __init__(self, path: Path, journal: str) -> None:
        self.path = path
        self.several = {"strategy": "rowid", "target_bytes": 65536}
        self.connection = {"path": str(path)}
        with self.connect() as connection:
            connection.execute(f"pragma journal_mode = {journal}")

    @contextlib.contextmanager
    def connect(self, **arguments: Any) -> Iterator[sqlite3.Connection]:
        """Open a connection whose work is committed at the end."""
        with contextlib.closing(sqlite3.connect(self.path, **arguments)) as connection, connection:
            yield connection

    def create(
        self,
        table: str,
        columns: Mapping[str, Kind],
        rows: Iterable[Sequence[int | str | None]] = (),
        key: str | None = None,
    ) -> None:
        listed = [
            f"{quote(name)} {kind}{' primary key' if name == key else ''}"
            for name, kind in columns.items()
        ]
        with self.connect() as connection:
            connection.execute(f"create table {quote(table)} ({', '.join(listed)})")
        self.insert(table, rows)

    def insert(self, table: str, rows: Iterable[Sequence[int | str | None]]) -> None:
        given = list(rows)
        if not given:
            return
        marks = ", ".join("?" * len(given[0]))
        with self.connect() as connection:
            connection.executemany(f"insert into {quote(table)} values ({marks})", given)

    @contextlib.contextmanager
    def breaking(self) -> Iterator[dict[str, Any]]:
        """A writer that has the whole file for longer than the reader is ready to wait."""
        locked, give_up = threading.Event(), threading.Event()

        def hold() -> None:
            with self.connect() as writer:
                writer.execute("pragma locking_mode = exclusive")
                writer.execute("begin exclusive")
                locked.set()
                give_up.wait(1.5)
                writer.rollback()

        thread = threading.Thread(target=hold)
        thread.start()
        locked.wait(10)
        try:
            yield {"connection": self.connection | {"connect_timeout_seconds": 1}}
        finally:
            give_up.set()
            thread.join()

    def unreachable(self) -> dict[str, Any]:
        return {"connection": {"path": f"{self.path}.nowhere"}}


@contextlib.contextmanager
def _open(journal: str, request: pytest.FixtureRequest) -> Iterator[SourceDatabase]:
    folder: Path = request.getfixturevalue("tmp_path_factory").mktemp("sqlite")
    yield SqliteDatabase(folder / "the data?#%20.db", journal)


_LACKS: dict[Behaviour, str] = {
    "wrong password": "a file has no password: who may read it is the file system's matter"
}
CASES = (
    SourceCase("sqlite", partial(_open, "delete"), lacks=_LACKS),
    SourceCase("sqlite-wal", partial(_open, "wal"), lacks=_LACKS),
)
"""With a rollback journal, where readers and a committing writer keep each other out, and in WAL
mode, where a writer commits while others read."""
