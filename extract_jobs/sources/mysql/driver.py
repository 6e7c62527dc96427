"""What is used of PyMySQL beyond its documented interface, all in one place.

PyMySQL gives rows as Python objects alone. To take them from the stream itself, its socket's file
and the description of a result are needed, which it keeps in private attributes (of 1.2; the tests
of reading stand on each of them).
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
    _Connection = PyMysqlConnection  # generic in its stubs alone


class Connection(_Connection):
    """PyMySQL's connection without the cost of certificates that nothing is compared with.

    Where TLS is used if the server has it, PyMySQL 1.2 loads the system's certificate authorities
    for every connection, some 70 ms of CPU, and then verifies nothing.
    """

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        if sslp == {}:
            return unverified_tls()
        return cast(ssl.SSLContext, super()._create_ssl_ctx(sslp))  # type: ignore[misc]


@functools.cache
def unverified_tls(certificate: ClientCertificate | None = None) -> ssl.SSLContext:
    """Return settings of TLS that encrypt and verify nobody, the same for all connections.

    Args:
        certificate: What the client shows.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(*certificate.files())
    return context


def server_version(opened: Connection) -> str:
    """Return the server's version as its greeting has it."""
    return str(cast(Any, opened).get_server_info())


def socket_of(opened: Connection) -> socket.socket | ssl.SSLSocket:
    """Return the socket of an open connection."""
    found: socket.socket = cast(Any, opened)._sock  # noqa: SLF001
    return found


def on_socket(found: socket.socket) -> Connection:
    """Return a connection that goes on in a session that another one has logged in."""
    opened = Connection(charset="utf8mb4", defer_connect=True)
    made = cast(Any, opened)
    made._sock, made._rfile = found, found.makefile("rb")  # noqa: SLF001
    made._current_timeout, made._next_seq_id = None, 0  # noqa: SLF001
    return opened


def peer_address(opened: Connection) -> str | None:
    """Return the address that a connection reached; None over a Unix socket."""
    peer = socket_of(opened).getpeername()
    return str(peer[0]) if isinstance(peer, tuple) else None


def is_encrypted(opened: Any) -> bool:
    """Return whether a connection has TLS by now."""
    return isinstance(socket_of(opened), ssl.SSLSocket)


def wait_as_long_as_it_takes(opened: Connection) -> None:
    """Lift the limit that each wait for the server had while the connection was opened."""
    made = cast(Any, opened)
    made._read_timeout = made._write_timeout = made._current_timeout = None  # noqa: SLF001
    socket_of(opened).settimeout(None)


def trust_socket(opened: Connection) -> None:
    """Tell PyMySQL that a socket it was given is a Unix socket.

    The server then takes passwords in clear text, where `caching_sha2_password` has to ask for one,
    and no others.
    """
    cast(Any, opened)._secure = True  # noqa: SLF001


def send_password(opened: Any) -> Any:
    """Send the password as it is and return the server's answer."""
    opened.write_packet(opened.password + b"\0")
    return opened._read_packet()  # noqa: SLF001


def result_of(cursor: Any) -> Any:
    """Return the result of a cursor's statement: its ``fields``, its ``field_count``."""
    return cursor._result  # noqa: SLF001


def take_rows(opened: Connection, cursor: Any) -> tuple[bytes, Any]:
    """Take an unbuffered result's rows from PyMySQL, which then knows of none.

    Returns:
        The bytes that have been read already, and the unbuffered file that the others come from.
    """
    result = result_of(cursor)
    result.unbuffered_active = False
    result.connection = None
    file = cast(Any, opened)._rfile  # noqa: SLF001
    # Not `readinto1` of the buffered file: it waits for more where it could give what it has.
    return file.read(len(file.peek())), file.raw


def release(opened: Connection) -> None:
    """Close at once, telling the server nothing: what it still has to send, nobody reads."""
    with contextlib.suppress(Exception):
        cast(Any, opened)._force_close()  # noqa: SLF001


def hang_up(opened: Connection) -> None:
    """Close as `release` does, and end it for threads and processes that read from it, too."""
    with contextlib.suppress(Exception):
        socket_of(opened).shutdown(socket.SHUT_RDWR)
    release(opened)
