"""Connections to PostgreSQL through psycopg, for everything but the bulk of the rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import psycopg

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ExtractError, SourceUnavailable
from extract_jobs.sources.postgres.errors import connect_error, statement_error
from extract_jobs.sources.postgres.sql import quote_text, set_local
from extract_jobs.sources.pump import connecting

Connection = psycopg.Connection[tuple[Any, ...]]
Isolation = Literal["repeatable read", "read committed"]


def execute(connection: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run one of this package's statements and return its rows, none for a command."""
    cursor = connection.execute(statement.encode(), values or None)
    return cursor.fetchall() if cursor.description else []


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
            return psycopg.connect(
                user=login.user,
                password=login.password,
                autocommit=True,
                prepare_threshold=None,
                **arguments,
            )
    except psycopg.Error as error:
        raise connect_error(error, connection) from error


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
