"""Connections to MySQL and MariaDB: read-only, in UTC, with settings that fix every result.

PyMySQL logs in and sends statements. Defaults of the server, the database or the user
(``sql_mode``, time zone, time limits) are overridden, so that the same text means the same
everywhere.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pymysql

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ConfigError
from extract_jobs.sources.mysql.driver import (
    Connection,
    is_encrypted,
    release,
    send_password,
    server_version,
    trust_socket,
    unverified_tls,
    wait_at_most,
)
from extract_jobs.sources.mysql.errors import connect_error, statement_error
from extract_jobs.sources.mysql.settings import SETTINGS

_KEEPALIVE = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,  # milliseconds
}


def execute(opened: Connection, statement: str) -> list[tuple[Any, ...]]:
    """Run one of this package's statements and return its rows, none for a command."""
    with opened.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def is_mariadb(opened: Connection) -> bool:
    """Return whether the server is MariaDB and not MySQL."""
    return "mariadb" in server_version(opened).lower()


def connect(connection: DatabaseConnection) -> Connection:
    """Connect, in autocommit, and apply the session's settings.

    Raises:
        ConfigError: Login or token refused, no such database, or no TLS although it is required.
        SourceUnavailable: Unreachable within the timeout.
    """
    login = connection.login_now()
    opened: Connection | None = None
    try:
        opened = Connection(
            host=connection.host,
            port=connection.port,
            user=login.user,
            # Text would be sent in Latin-1.
            password=(login.password or "").encode(),
            database=connection.database,
            charset="utf8mb4",
            autocommit=True,
            local_infile=False,
            connect_timeout=connection.connect_timeout_seconds,
            read_timeout=connection.connect_timeout_seconds,
            write_timeout=connection.connect_timeout_seconds,
            defer_connect=True,
            program_name="extract-jobs",
            auth_plugin_map=_plugins(connection),
            **_tls(connection),
        )
        if connection.host.startswith("/"):
            trust_socket(opened)
        opened.connect(_socket(connection))
        _configure(opened, connection.settings)
        wait_at_most(opened, connection.stall_seconds)
        return opened
    except (pymysql.Error, OSError, UnicodeError) as error:
        if opened is not None:
            release(opened)
        failure = connect_error(error, connection)
    raise failure from None


def _socket(connection: DatabaseConnection) -> socket.socket:
    seconds = connection.connect_timeout_seconds
    if connection.host.startswith("/"):
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            found.settimeout(seconds)
            found.connect(connection.host)
        except OSError:
            found.close()
            raise
    else:
        where = connection.hostaddr or connection.host
        found = socket.create_connection((where, connection.port), seconds)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                found.setsockopt(socket.IPPROTO_TCP, option, value)
    return found


def _tls(connection: DatabaseConnection) -> dict[str, Any]:
    """Translate libpq's TLS modes. ``prefer`` uses TLS if the server has it, unverified.

    A client certificate needs TLS, so with one ``prefer`` means ``require``.
    """
    mode = connection.sslmode
    if mode == "disable" or connection.host.startswith("/"):
        return {"ssl_disabled": True}
    certificate = connection.certificate
    if mode == "prefer" and certificate is None:
        return {}
    if mode in ("prefer", "require"):
        return {"ssl": unverified_tls(certificate)}
    trusted = connection.sslrootcert
    context = ssl.create_default_context(cafile=None if trusted in (None, "system") else trusted)
    # RDS's older certificates lack a key identifier, which Python 3.13 requires.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = mode == "verify-full"
    if certificate:
        context.load_cert_chain(*certificate.files())
    return {"ssl": context}


class _NoClearText:
    """Answers a server that requests a clear-text password over a connection without TLS."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def authenticate(self, packet: Any) -> Any:
        """Send the password if TLS protects it, as IAM logins need.

        Raises:
            ConfigError: There is no TLS.
        """
        del packet
        if not is_encrypted(self._connection):
            raise ConfigError(
                "the server requests a clear-text password over a connection without TLS: "
                "set connection.sslmode to require or more"
            )
        return send_password(self._connection)


def _plugins(connection: DatabaseConnection) -> dict[str, Callable[[Any], Any]]:
    return {} if connection.host.startswith("/") else {"mysql_clear_password": _NoClearText}


def _configure(opened: Connection, own: Mapping[str, str]) -> None:
    # First the settings that would limit the next statement too.
    execute(opened, f"set session sql_big_selects = 1, sql_select_limit = {2**64 - 1}")
    names = ", ".join(f"'{setting.name}'" for setting in SETTINGS)
    found = execute(opened, f"show session variables where variable_name in ({names})")
    known = {str(name).lower() for name, _ in found}
    given = [
        f"session {one.name} = {own.get(one.name, one.value)}"
        for one in SETTINGS
        if one.name in known
    ]
    execute(opened, f"set {', '.join(given)}")
    execute(opened, "set session transaction isolation level repeatable read, read only")


START = "start transaction with consistent snapshot, read only"
"""Begins a transaction that sees all InnoDB tables at this moment."""


@contextlib.contextmanager
def session(connection: DatabaseConnection, what: str) -> Iterator[Connection]:
    """Open a read-only transaction with one snapshot for the length of the context.

    It sees InnoDB tables at one moment; engines without transactions (MyISAM, Aria) show their
    current rows whenever a statement runs.

    Args:
        connection: The server.
        what: What is being done, for the error message.

    Raises:
        ExtractError: What PyMySQL raised inside, mapped.
    """
    opened = connect(connection)
    try:
        with mapped_errors(what):
            execute(opened, START)
            yield opened
    finally:
        release(opened)


@contextlib.contextmanager
def mapped_errors(what: str) -> Iterator[None]:
    """Raise what PyMySQL raises inside as `ExtractError`; ``what`` is being done."""
    try:
        yield
        return
    except (pymysql.Error, OSError, RuntimeError) as error:
        failure = statement_error(error, what)
    # The original may quote values of a row. It must not become the context of the new error, which
    # Python sets even here, because the caller's ``with`` is still handling it.
    try:
        raise failure from None
    finally:
        failure.__context__ = None
