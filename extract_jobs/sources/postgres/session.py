"""Connections to PostgreSQL through psycopg, for everything but the bulk of the rows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any, Literal, TypeVar

import psycopg

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ExtractError, SourceUnavailable
from extract_jobs.sources.postgres.errors import connect_error, statement_error
from extract_jobs.sources.postgres.sql import quote_text, set_local
from extract_jobs.sources.pump import Sockets, connecting

Isolation = Literal["repeatable read", "read committed"]
_Result = TypeVar("_Result")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose server may not stay silent for ever.

    Attributes:
        stall_seconds: How long `execute` waits for an answer.
        gives_up_at: When it stops waiting, by `time.monotonic`; None while it does not run.
        has_stalled: Whether its last statement had to be given up.
    """

    stall_seconds: float = 3600.0
    gives_up_at: float | None = None
    has_stalled = False

    def wait(self, gen: Generator[Any, Any, _Result], *arguments: Any, **more: Any) -> _Result:
        """Wait as psycopg does; while `execute` runs, no longer than it may."""
        if self.gives_up_at is not None:
            gen = self._bounded(gen, self.gives_up_at)
        return super().wait(gen, *arguments, **more)

    def _bounded(
        self, gen: Generator[Any, Any, _Result], until: float
    ) -> Generator[Any, Any, _Result]:
        """Shut the socket down at a time; psycopg resumes a waiting generator every 0.1 s."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not self.has_stalled and time.monotonic() >= until:
                    self.has_stalled = True
                    self.shut_down()
                wanted = gen.send(ready)
        except StopIteration as ended:
            result: _Result = ended.value
            return result

    def shut_down(self) -> None:
        """Shut the socket down: whoever waits for it, in any thread, reads its end."""
        with contextlib.suppress(psycopg.Error):  # closed already
            sockets = Sockets(self.info.port)
            sockets.hold(self.fileno())
            sockets.shut_down()


def execute(connection: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement that this package wrote and return its rows, none for a command.

    Raises:
        SourceUnavailable: The server said nothing for as long as `Connection.stall_seconds`.
        psycopg.Error: Anything else that went wrong.
    """
    connection.gives_up_at = time.monotonic() + connection.stall_seconds
    connection.has_stalled = False
    try:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []
    except psycopg.OperationalError:
        if not connection.has_stalled:
            raise
    finally:
        connection.gives_up_at = None
    raise SourceUnavailable(
        f"the server has said nothing for {connection.stall_seconds:.0f} s, though the connection "
        "is up; run again. Where a query takes longer than that before its first row, raise "
        "connection.stall_timeout"
    )


def connect(connection: DatabaseConnection) -> Connection:
    """Connect, in autocommit; `begin` applies the settings.

    Raises:
        ConfigError: Login or token refused, or no such database.
        SourceUnavailable: Unreachable within the timeout.
    """
    arguments: dict[str, Any] = connection.parameters()
    login = connection.login_now()
    try:
        with connecting():
            opened = Connection.connect(
                user=login.user,
                password=login.password,
                autocommit=True,
                prepare_threshold=None,
                **arguments,
            )
    except psycopg.Error as error:
        raise connect_error(error, connection) from error
    opened.stall_seconds = connection.stall_seconds
    return opened


def begin(
    opened: Connection,
    connection: DatabaseConnection,
    snapshot_id: str | None,
    isolation: Isolation = "repeatable read",
) -> None:
    """Begin a read-only transaction with the package's settings, in one round trip.

    Args:
        opened: A connection outside a transaction.
        connection: What it was opened from.
        snapshot_id: An exported snapshot to join; None takes one with the first query.
        isolation: ``read committed`` gives each statement a snapshot of its own.
    """
    statements = [
        f"begin transaction isolation level {isolation}, read only",
        *([f"set transaction snapshot {quote_text(snapshot_id)}"] if snapshot_id else []),
        set_local(opened.info.server_version, connection.settings),
    ]
    execute(opened, "; ".join(statements))


@contextlib.contextmanager
def session(
    connection: DatabaseConnection,
    what: str,
    snapshot_id: str | None = None,
    isolation: Isolation = "repeatable read",
) -> Iterator[Connection]:
    """Open a read-only transaction for the length of the context.

    Args:
        connection: The database.
        what: What is being done, for the error message.
        snapshot_id: An exported snapshot to join.
        isolation: As for `begin`.

    Raises:
        ExtractError: What psycopg raised inside, mapped.
    """
    failure: ExtractError
    with contextlib.closing(connect(connection)) as opened:
        joined = False
        try:
            begin(opened, connection, snapshot_id, isolation)
            joined = True
            yield opened
            return
        except psycopg.Error as error:
            if not joined and error.sqlstate in ("22023", "42704"):
                failure = SourceUnavailable(
                    f"{what} failed: the snapshot can no longer be joined; run again. Behind a "
                    "pooler or proxy with several nodes, set connection.pooled: true"
                )
            else:
                failure = statement_error(error, what)
    # The original quotes values of the row that failed. It must not become the context of the new
    # error, which Python sets even here, because the caller's ``with`` is still handling it.
    try:
        raise failure from None
    finally:
        failure.__context__ = None
