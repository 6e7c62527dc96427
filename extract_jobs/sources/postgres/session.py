"""Connections to PostgreSQL for everything but the bulk of the rows, by psycopg."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ExtractError, SourceUnavailable
from extract_jobs.sources.postgres.errors import connect_error, statement_error
from extract_jobs.sources.postgres.sql import options, quote_text, set_local, settings

Connection = psycopg.Connection[tuple[Any, ...]]


def execute(connection: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement that this package wrote and return its rows, none for a command."""
    cursor = connection.execute(statement.encode(), values or None)
    return cursor.fetchall() if cursor.description else []


def connect(connection: DatabaseConnection) -> Connection:
    """Connect, in autocommit, with the session's settings in force.

    Raises:
        ConfigError: Login or its token refused, or no such database.
        SourceUnavailable: Unreachable within the timeout.
    """
    arguments: dict[str, Any] = connection.parameters()
    if not connection.pooled:
        arguments["options"] = options(0)
    login = connection.login_now()
    try:
        opened = psycopg.connect(
            user=login.user,
            password=login.password,
            autocommit=True,
            prepare_threshold=None,
            **arguments,
        )
        if not connection.pooled:
            newer = set(settings(opened.info.server_version)) - set(settings(0))
            for name in sorted(newer):
                execute(opened, f"set {name} = 0")
    except psycopg.Error as error:
        raise connect_error(error, connection) from error
    return opened


def begin(opened: Connection, connection: DatabaseConnection, snapshot_id: str | None) -> None:
    """Begin a read-only transaction with one snapshot, its own or an exported one."""
    execute(opened, "begin transaction isolation level repeatable read, read only")
    if snapshot_id is not None:
        execute(opened, f"set transaction snapshot {quote_text(snapshot_id)}")
    if connection.pooled:
        execute(opened, set_local(opened.info.server_version))


@contextlib.contextmanager
def session(
    connection: DatabaseConnection, what: str, snapshot_id: str | None = None
) -> Iterator[Connection]:
    """Open a read-only transaction for the length of the context.

    Args:
        connection: Where to.
        what: What is being done, for the error message.
        snapshot_id: An exported snapshot to join.

    Raises:
        ExtractError: What psycopg raised inside, mapped.
    """
    failure: ExtractError
    with contextlib.closing(connect(connection)) as opened:
        joined = False
        try:
            begin(opened, connection, snapshot_id)
            joined = True
            yield opened
            return
        except psycopg.Error as error:
            if not joined and error.sqlstate in ("22023", "42704"):
                failure = SourceUnavailable(
                    f"{what} failed: the snapshot can no longer be joined; run again"
                )
            else:
                failure = statement_error(error, what)
    # The original quotes values of the row that failed. It must not travel along as the context,
    # which Python sets even here, because the caller's ``with`` is still handling it.
    try:
        raise failure from None
    finally:
        failure.__context__ = None
