"""DuckDB as the reader of PostgreSQL: an attached session whose rows are streamed as Arrow.

DuckDB turns the binary COPY protocol into Arrow about three times as fast as any Python client.
The extension comes as a wheel, is signed by DuckDB, and is loaded from its file: no network, no
unsigned code.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import psycopg
import pyarrow as pa

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ConfigError, ExtractError, Interrupted, WorkerOutOfMemory
from extract_jobs.sources.postgres.errors import before_any_row, reading_error
from extract_jobs.sources.postgres.node import POSITION, Position, wait_until_reached
from extract_jobs.sources.postgres.session import connect, execute
from extract_jobs.sources.postgres.sql import EQUALS, quote_text, set_local
from extract_jobs.sources.pump import Sockets, ended_within_seconds

VECTOR_ROWS = 2_048
"""DuckDB's step: the fewest rows that it passes on."""
_databases: dict[int, duckdb.DuckDBPyConnection] = {}
"""One in-memory DuckDB per process, by process id. Loading the extension takes 0.1 s, because
DuckDB checks the signature of 40 MB. A forked child must not use its parent's."""
_lock = threading.Lock()
# With the zone, because how it is printed depends on the session.
_BACKEND = (
    "select pid, backend_start::pg_catalog.text from pg_catalog.pg_stat_activity"
    f" where pid {EQUALS} pg_catalog.pg_backend_pid()"
)


def extension_file() -> Path:
    """Return the file of the PostgreSQL extension for the installed DuckDB.

    Raises:
        ConfigError: The wheel is missing, or has another version.
    """
    try:
        import duckdb_extension_postgres_scanner as wheel
    except ModuleNotFoundError as error:
        raise ConfigError(
            "PostgreSQL is read through the package duckdb-extension-postgres-scanner, which is "
            f"not installed: install version {duckdb.__version__}, the same as duckdb's"
        ) from error

    folder = Path(wheel.__file__).parent / "extensions"
    file = folder / f"v{duckdb.__version__}" / "postgres_scanner.duckdb_extension"
    if not file.is_file():
        found = sorted(path.name for path in folder.glob("v*"))
        raise ConfigError(
            f"duckdb {duckdb.__version__} needs the package duckdb-extension-postgres-scanner in "
            f"the same version, found {', '.join(found) or 'none'}: install both alike"
        )
    return file


def _database() -> duckdb.DuckDBPyConnection:
    with _lock:
        found = _databases.get(os.getpid())
        if found is None:
            found = duckdb.connect(
                ":memory:",
                config={
                    "threads": 1,
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                    "allow_persistent_secrets": False,
                },
            )
            found.execute(f"load {quote_text(str(extension_file()))}")
            _databases[os.getpid()] = found
        return found


def _database_cursor() -> duckdb.DuckDBPyConnection:
    try:
        return _database().cursor()
    except (duckdb.Error, OSError) as error:
        raise ConfigError(
            f"duckdb {duckdb.__version__} cannot be started with its PostgreSQL extension "
            f"({type(error).__name__}): install duckdb and duckdb-extension-postgres-scanner of "
            "that version again, for this machine's platform"
        ) from error


def attach_string(connection: DatabaseConnection) -> str:
    """Return libpq's connection string without user and password: DuckDB's errors print it."""
    parameters = connection.parameters()
    return " ".join(f"{name}={_quoted(value)}" for name, value in parameters.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class ReadSession:
    """A session that reads one statement after the other, in one transaction. Read-only.

    The first read opens it. It closes with a read that fails or is not read to its end, or by
    `close`; the next read then opens another. One thread uses it at a time.

    Attributes:
        sockets: Its connections.
    """

    def __init__(
        self,
        connection: DatabaseConnection,
        *,
        server_version: int,
        snapshot_id: str | None,
        what: str,
        reached: Position | None = None,
    ) -> None:
        """Store what to connect to.

        Args:
            connection: The database.
            server_version: Such as 160002.
            snapshot_id: Exported snapshot to join; None reads in a snapshot of its own.
            what: What is being read, for error messages.
            reached: Position that the node must have reached; the transaction waits for it.
        """
        self.sockets = Sockets(connection.port)
        self._connection = connection
        self._server_version = server_version
        self._snapshot_id = snapshot_id
        self._what = what
        self._reached = reached
        self._opened: _Opened | None = None

    def stream(
        self,
        statement: str,
        *,
        rows_per_batch: int,
        bytes_per_batch: int | None = None,
        keep: bool = False,
    ) -> Generator[pa.RecordBatch]:
        """Stream a SELECT as record batches.

        Closing the generator early closes the session.

        Args:
            statement: One SELECT.
            rows_per_batch: Rows in a batch; DuckDB itself works in steps of `VECTOR_ROWS`.
            bytes_per_batch: Where nobody knows how large rows are: a batch ends after the step of
                DuckDB in which it reaches this size.
            keep: Whether the session stays open after the last row.

        Raises:
            SourceUnavailable: The connection broke, or the snapshot is gone.
            SourceQueryFailed: The server failed the statement.
            Interrupted: A signal handler raised while DuckDB was working.
        """
        text: str | None = None
        reader: pa.RecordBatchReader | None = None
        reader_made = is_whole = False
        try:
            opened = self._open()
            query = f"from postgres_query('{opened.name}', {_literal(statement)})"
            step = rows_per_batch if bytes_per_batch is None else VECTOR_ROWS
            reader = opened.cursor.sql(query).to_arrow_reader(step)
            reader_made = True
            yield from _gathered(reader, rows_per_batch, bytes_per_batch)
            is_whole = True
        except (duckdb.OutOfMemoryException, MemoryError):
            raise WorkerOutOfMemory(f"{self._what} took more memory than the worker has") from None
        except RuntimeError:
            # An exception from a signal handler inside DuckDB arrives as this one, without its
            # text.
            raise Interrupted("stopped while rows were being read") from None
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            # Not chained and not kept: the original quotes the connection string and the statement,
            # and would otherwise be the context of the new error.
            text = str(error)
        finally:
            # In this order. If the server has gone, DuckDB's destructor throws when a connection is
            # destroyed with an open stream or transaction, and that ends the process.
            reader = None
            if not (is_whole and keep):
                # After an error the statement is over, or the server cannot be reached.
                self._close(cancel=not is_whole and text is None)
        if text is not None:
            failure = reading_error(text, self._what, statement)
            raise failure if reader_made else before_any_row(failure)

    def close(self) -> None:
        """Close the session if it is open, within seconds, whatever the server does."""
        if self._opened is not None:
            ended_within_seconds(partial(self._close, cancel=False), self.sockets)

    def _open(self) -> _Opened:
        """Return the session, with its transaction begun."""
        if self._opened is not None:
            return self._opened
        opened = _Opened(_database_cursor(), f"s{uuid4().hex}")
        try:
            self.sockets.opened_by(partial(_attach, opened.cursor, opened.name, self._connection))
            opened.begin(
                self._connection,
                server_version=self._server_version,
                snapshot_id=self._snapshot_id,
                reached=self._reached,
                what=self._what,
            )
            opened.backend = opened.ask(_BACKEND)
        except BaseException:
            opened.close()
            raise
        self._opened = opened
        return opened

    def _close(self, *, cancel: bool) -> None:
        opened, self._opened = self._opened, None
        if opened is None:
            return
        if cancel and opened.backend:
            _cancel(self._connection, *opened.backend)
        opened.close()


@dataclass
class _Opened:
    """A server that is attached to DuckDB.

    Attributes:
        cursor: DuckDB's, in a transaction.
        name: The attached server's.
        backend: The server's process id, and when it started; empty if it does not say.
    """

    cursor: duckdb.DuckDBPyConnection
    name: str
    backend: tuple[Any, ...] = ()

    def begin(
        self,
        connection: DatabaseConnection,
        *,
        server_version: int,
        snapshot_id: str | None,
        reached: Position | None,
        what: str,
    ) -> None:
        """Begin the reading transaction, as described at `ReadSession`."""
        self.cursor.execute("begin")
        setup = [f"set transaction snapshot {quote_text(snapshot_id)}"] if snapshot_id else []
        if reached is not None:
            # The statement that reads is then younger than the position that was waited for.
            setup = ["set transaction isolation level read committed"]
        setup.append(set_local(server_version, connection.settings))
        self.cursor.execute(f"call postgres_execute('{self.name}', {_literal('; '.join(setup))})")
        if reached is not None:
            wait_until_reached(partial(self.ask, POSITION), reached, what)

    def close(self) -> None:
        """End the transaction and the connection."""
        with contextlib.suppress(duckdb.Error, OSError):
            self.cursor.execute("rollback")
        with contextlib.suppress(duckdb.Error, OSError):
            self.cursor.execute(f"detach {self.name}")
        self.cursor.close()

    def ask(self, question: str) -> tuple[Any, ...]:
        """Return the first row of a question to the server, within the transaction."""
        query = f"from postgres_query('{self.name}', {_literal(question)})"
        return self.cursor.execute(query).fetchone() or ()


def _cancel(connection: DatabaseConnection, pid: int, since: str) -> None:
    """Ask the server to stop a stream that is no longer wanted; a failure to do so is ignored.

    Otherwise DuckDB's rollback first reads everything that the server still has to send. Behind a
    pooler the request may reach another node, where that process id belongs to somebody else.
    """
    with (
        contextlib.suppress(psycopg.Error, ExtractError),
        contextlib.closing(connect(connection)) as opened,
    ):
        execute(
            opened,
            "select pg_catalog.pg_cancel_backend(pid) from pg_catalog.pg_stat_activity where pid"
            f" {EQUALS} %s and backend_start {EQUALS} %s::pg_catalog.timestamptz",
            pid,
            since,
        )


def _gathered(
    batches: Iterable[pa.RecordBatch], most_rows: int, most_bytes: int | None
) -> Generator[pa.RecordBatch]:
    """Join small batches until they have so many rows or bytes; None gives them as they come."""
    if most_bytes is None:
        yield from batches
        return
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        del batch
        if rows >= most_rows or size >= most_bytes:
            joined = pa.concat_batches(waiting)
            waiting, rows, size = [], 0, 0
            yield joined
            del joined
    if waiting:
        yield pa.concat_batches(waiting)


def _attach(cursor: duckdb.DuckDBPyConnection, name: str, connection: DatabaseConnection) -> None:
    login = connection.login_now()
    given = f", password {_literal(login.password)}" if login.password is not None else ""
    cursor.execute(f"create secret {name} (type postgres, user {_literal(login.user)}{given})")
    try:
        attached = _literal(attach_string(connection))
        cursor.execute(f"attach {attached} as {name} (type postgres, read_only, secret {name})")
    finally:
        cursor.execute(f"drop secret {name}")


def _literal(text: str) -> str:
    """Quote for DuckDB, which has no backslash escapes in plain literals."""
    return "'" + text.replace("'", "''") + "'"
