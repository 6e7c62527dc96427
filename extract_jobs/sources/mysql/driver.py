"""All uses of PyMySQL beyond its documented interface, in one place.

PyMySQL returns rows only as Python objects. Reading them from the stream takes its socket's file
and the description of a result, which it keeps in private attributes (of 1.2; the tests of reading
cover each of them).
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from typing import TYPE_CHECKING, Any, cast

from pymysql.connections import Connection as PyMysqlConnection

from extract_jobs.connections.certificates import ClientCertificate

if TYPE_CHECKING:
    _Connection = PyMysqlConnection[Any]
else:
    _Connection = PyMysqlConnection  # generic in its stubs only


class Connection(_Connection):
    """PyMySQL's connection without the cost of loading certificates that are not used.

    If TLS is used because the server has it, PyMySQL 1.2 loads the system's certificate authorities
    for every connection, some 70 ms of CPU, and then verifies nothing.
    """

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        if sslp == {}:
            return unverified_tls()
        return cast(ssl.SSLContext, super()._create_ssl_ctx(sslp))  # type: ignore[misc]


@functools.cache
def unverified_tls(certificate: ClientCertificate | None = None) -> ssl.SSLContext:
    """Return TLS settings that encrypt and verify nobody, the same for all connections.

    Args:
        certificate: The client's own certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(*certificate.files())
    return context


def server_version(opened: Connection) -> str:
    """Return the server's version as in its greeting."""
    return str(cast(Any, opened).get_server_info())


def socket_of(opened: Connection) -> socket.socket | ssl.SSLSocket:
    """Return the socket of an open connection."""
    found: socket.socket = cast(Any, opened)._sock  # noqa: SLF001
    return found


def on_socket(found: socket.socket, seconds: float) -> Connection:
    """Return a connection that continues a session that another one has logged in.

    Args:
        found: The session's socket.
        seconds: As for `wait_at_most`.
    """
    opened = Connection(charset="utf8mb4", defer_connect=True)
    made = cast(Any, opened)
    made._sock, made._rfile = found, found.makefile("rb")  # noqa: SLF001
    made._next_seq_id = 0  # noqa: SLF001
    wait_at_most(opened, seconds)
    return opened


def peer_address(opened: Connection) -> str | None:
    """Return the address that a connection reached; None over a Unix socket."""
    peer = socket_of(opened).getpeername()
    return str(peer[0]) if isinstance(peer, tuple) else None


def is_encrypted(opened: Any) -> bool:
    """Return whether a connection has TLS yet."""
    return isinstance(socket_of(opened), ssl.SSLSocket)


def wait_at_most(opened: Connection, seconds: float) -> None:
    """Limit each wait for the server; before, the limit is the one for opening a connection."""
    made = cast(Any, opened)
    made._read_timeout = made._write_timeout = made._current_timeout = seconds  # noqa: SLF001
    socket_of(opened).settimeout(seconds)


def trust_socket(opened: Connection) -> None:
    """Make PyMySQL treat a socket as a Unix socket.

    The server then accepts clear-text passwords, which `caching_sha2_password` has to ask for, and
    no others.
    """
    cast(Any, opened)._secure = True  # noqa: SLF001


def send_password(opened: Any) -> Any:
    """Send the password in clear text and return the server's answer."""
    opened.write_packet(opened.password + b"\0")
    return opened._read_packet()  # noqa: SLF001


def result_of(cursor: Any) -> Any:
    """Return the result of a cursor's statement, with ``fields`` and ``field_count``."""
    return cursor._result  # noqa: SLF001


def take_rows(opened: Connection, cursor: Any) -> tuple[bytes, Any]:
    """Take an unbuffered result's rows from PyMySQL, which then has none.

    Returns:
        The bytes that were already read, and the unbuffered file that the others come from.
    """
    result = result_of(cursor)
    result.unbuffered_active = False
    result.connection = None
    file = cast(Any, opened)._rfile  # noqa: SLF001
    # Not `readinto1` of the buffered file: it waits for more although it could return what it has.
    return file.read(len(file.peek())), file.raw


def release(opened: Connection) -> None:
    """Close at once without notifying the server: nobody reads what it still has to send."""
    with contextlib.suppress(Exception):
        cast(Any, opened)._force_close()  # noqa: SLF001


def hang_up(opened: Connection) -> None:
    """Close as `release` does, also for threads and processes that are reading from it."""
    with contextlib.suppress(Exception):
        socket_of(opened).shutdown(socket.SHUT_RDWR)
    release(opened)
