"""Connections to a SQLite file: read-only, waiting for locks, and on one version.

In one process, only one copy of SQLite has the file open at a time: when a process closes any
other handle on the file, POSIX drops all locks of the process on it, and then others can write
(https://sqlite.org/howtocorrupt.html, sections 2.2 and 2.2.1). Python's own copy takes the
snapshot; workers may read with another, see `typed_rows`. Files are only inspected with ``stat``.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from extract_jobs.errors import ConfigError, SourceUnavailable
from extract_jobs.sources.sqlite.errors import RAISED, sqlite_error
from extract_jobs.spec.source import ConnectionSpec

OLDEST = (3, 37, 0)
"""First version with ``pragma table_list``, which identifies STRICT and WITHOUT ROWID tables."""

any_text = functools.partial(str, encoding="utf-8", errors="surrogateescape")
"""A ``text_factory`` that also accepts bytes that are not UTF-8, escaped like file names."""

_TICK_NS = 20_000_000
"""Files' times have the resolution of the kernel's clock, at most 10 ms."""
_QUIET_TRIES = 25

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class SqliteConnection:
    """Where a SQLite database is. Frozen and picklable.

    Attributes:
        path: The file, absolute.
        timeout_seconds: How long to wait for a lock.
    """

    path: str
    timeout_seconds: int

    @property
    def wal(self) -> Path:
        """The ``-wal`` file. SQLite keeps it beside the database, not beside a link to it."""
        return Path(f"{os.path.realpath(self.path)}-wal")

    @classmethod
    def of(cls, spec: ConnectionSpec) -> SqliteConnection:
        """Return a spec's connection; ``path`` may be a ``file://`` URL.

        Raises:
            ConfigError: There is no path, or it is not a local file's.
        """
        if spec.path is None:
            raise ConfigError("connection.path is missing: add it, a SQLite file")
        path = spec.path
        if "://" in path:
            parts = urlsplit(path)
            if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
                raise ConfigError(
                    f"connection.path {path} is not a local file: SQLite reads files in place; "
                    "copy it to the worker's disk first"
                )
            path = unquote(parts.path)
        return cls(str(Path(path).absolute()), spec.connect_timeout_seconds)


@dataclass(frozen=True)
class Version:
    """What a committed transaction would change: the file's identity, and where writes go.

    Attributes:
        wal: Whether the database is in WAL mode, where readers do not keep writers out.
        file: Device and number of the database's file.
        written: Size and modification time of the file that commits are written to: the database
            itself, or in WAL mode its ``-wal``.
    """

    wal: bool
    file: tuple[int, int]
    written: tuple[int, int]


def connect(connection: SqliteConnection) -> sqlite3.Connection:
    """Open a database read-only, in autocommit mode; the caller closes it.

    Never ``immutable``: a concurrent writer would then go unnoticed.

    Raises:
        ConfigError: There is no such file, it cannot be read, or it is not a database.
        SourceUnavailable: It is locked for longer than the timeout.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        raise ConfigError(
            f"Python's SQLite is {sqlite3.sqlite_version}, and at least 3.37 is needed"
        )
    path = Path(connection.path)
    if not path.is_file():
        kind = "is a folder, not a file" if path.is_dir() else "does not exist on this worker"
        raise ConfigError(f"connection.path: {path} {kind}")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"connection.path: {path} may not be read by this user")
    opened = None
    try:
        opened = sqlite3.connect(
            f"{path.as_uri()}?mode=ro",
            uri=True,
            timeout=connection.timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        opened.text_factory = any_text
        _no_texts_in_double_quotes(opened)
        opened.execute("select 1 from sqlite_schema limit 1").fetchall()
    except RAISED as error:
        failure = sqlite_error(error, "opening the database", connection.path)
    else:
        return opened
    if opened is not None:
        opened.close()
    raise failure


def _no_texts_in_double_quotes(opened: Any) -> None:
    """Make a double-quoted name that is not a column an error; possible since Python 3.12."""
    if setting := getattr(sqlite3, "SQLITE_DBCONFIG_DQS_DML", None):
        opened.setconfig(setting, False)


def execute(
    opened: sqlite3.Connection, statement: str, *parameters: Any, what: str, path: str
) -> Rows:
    """Run one statement and return its rows.

    Raises:
        SourceUnavailable: The database is locked, or cannot be read just now.
        SourceQueryFailed: SQLite failed the statement.
        ConfigError: The file is not a database.
    """
    try:
        return opened.execute(statement, parameters).fetchall()
    except RAISED as error:
        failure = sqlite_error(error, what, path)
    # Not from within the handler: the original may quote rows.
    raise failure


@dataclass(frozen=True)
class Session:
    """A connection in a read transaction.

    Attributes:
        connection: It.
        what: What is being done, for messages.
        path: The database's file.
    """

    connection: sqlite3.Connection
    what: str
    path: str

    def execute(self, statement: str) -> Rows:
        """Run a statement. Raises ExtractError as `execute` does."""
        return execute(self.connection, statement, what=self.what, path=self.path)


def begin(opened: sqlite3.Connection, connection: SqliteConnection, what: str) -> None:
    """Begin a read transaction, which holds its lock or its mark in the WAL from now on."""
    for statement in ("begin", "select 1 from sqlite_schema limit 1"):
        execute(opened, statement, what=what, path=connection.path)


def begin_version(
    opened: sqlite3.Connection, connection: SqliteConnection, what: str
) -> Version | None:
    """Begin a read transaction and return the version that it sees.

    Outside WAL mode the transaction's lock keeps every writer from committing, so the version holds
    until it ends. In WAL mode writers continue, and every commit changes the ``-wal`` file: as long
    as that is unchanged, other connections see the same version.

    Returns:
        The version; None if somebody writes to the WAL all the time, so that two connections cannot
        be shown to see the same version.
    """
    mode = execute(opened, "pragma journal_mode", what=what, path=connection.path)[0][0]
    for _ in range(_QUIET_TRIES):
        before = version(connection, wal=mode == "wal")
        begin(opened, connection, what)
        after = version(connection, wal=mode == "wal")
        # The current time could also be that of the next write.
        if mode != "wal" or (before == after and time.time_ns() - after.written[1] > _TICK_NS):
            return after
        execute(opened, "rollback", what=what, path=connection.path)
        time.sleep(_TICK_NS / 1e9)
    begin(opened, connection, what)
    return None


def version(connection: SqliteConnection, *, wal: bool) -> Version:
    """Return the version on disk, without opening anything."""
    identity, written = _stat(Path(connection.path))
    return Version(wal, identity, _stat(connection.wal)[1] if wal else written)


def _stat(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return device and number, and size and modification time, of a file; zeros of none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0), (0, 0)
    return (found.st_dev, found.st_ino), (found.st_size, found.st_mtime_ns)


def join(connection: SqliteConnection, wanted: Version | None, what: str) -> sqlite3.Connection:
    """Open a connection that sees this version; the caller closes it.

    Raises:
        SourceUnavailable: The database has moved on, or its file was replaced.
    """
    opened = connect(connection)
    try:
        begin(opened, connection, what)
        check_version(connection, wanted, what)
    except BaseException:
        opened.close()
        raise
    return opened


def check_version(connection: SqliteConnection, wanted: Version | None, what: str) -> None:
    """Check that a read transaction that has just begun sees this version.

    Raises:
        SourceUnavailable: The database has moved on, or its file was replaced.
    """
    if wanted is None or version(connection, wal=wanted.wal) != wanted:
        raise SourceUnavailable(
            f"{what} failed: {connection.path} was written to or replaced since the snapshot "
            "was taken; run again, and if it is in WAL mode and written to all the time, use "
            "split.strategy auto or none, which reads through one connection"
        )
