"""Servers that only pretend to be databases: what a login gives away, how long it waits."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ConfigError, SourceUnavailable
from extract_jobs.sources.mysql.session import connect as connect_mysql
from extract_jobs.sources.postgres.duckdb_reader import ReadSession
from extract_jobs.sources.postgres.session import connect
from tests.support.listener import Listener

PASSWORD = "s3cr3t-of-the-database"
_WAIT_SECONDS = 1


class _Server(Listener):
    """Serves each caller in a thread of its own."""

    def _accepted(self, caller: socket.socket) -> None:
        threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._talk(caller)
        self._drop(caller)

    def _talk(self, caller: socket.socket) -> None:
        raise NotImplementedError


class Impostor(_Server):
    """Speaks PostgreSQL without TLS and asks for the password in clear text.

    Attributes:
        heard: All that callers sent.
    """

    def __init__(self) -> None:
        """Hear nothing yet."""
        super().__init__()
        self.heard = b""

    def _talk(self, caller: socket.socket) -> None:
        while data := caller.recv(4096):
            self.heard += data
            tls = data.startswith((8).to_bytes(4) + (80_877_103).to_bytes(4))
            caller.sendall(b"N" if tls else b"R" + (8).to_bytes(4) + (3).to_bytes(4))


class Silent(_Server):
    """Accepts, sends some bytes, and says nothing more."""

    def __init__(self, greeting: bytes) -> None:
        """Send ``greeting`` to each caller."""
        super().__init__()
        self._greeting = greeting

    def _talk(self, caller: socket.socket) -> None:
        caller.sendall(self._greeting)
        while caller.recv(4096):
            pass


def to(port: int, engine: str, sslmode: str) -> DatabaseConnection:
    return DatabaseConnection(
        "127.0.0.1",
        port,
        "d",
        "u",
        PASSWORD,
        sslmode,
        engine=engine,
        connect_timeout_seconds=_WAIT_SECONDS,
    )


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
def test_postgres_gets_no_password_in_clear_text(sslmode: str) -> None:
    with Impostor() as server:
        connection = to(server.port, "postgres", sslmode)
        with pytest.raises(ConfigError, match=r"in clear text.*connection\.sslmode") as caught:
            connect(connection)
        assert PASSWORD not in str(caught.value)
        session = ReadSession(connection, server_version=160000, snapshot_id=None, what="reading t")
        rows = session.stream("select 1", rows_per_batch=2048)
        with pytest.raises(ConfigError, match=r"in clear text.*connection\.sslmode"):
            next(rows)
        assert server.heard
        assert PASSWORD.encode() not in server.heard


def test_over_a_unix_socket_postgres_may_ask_for_the_password(tmp_path: Path) -> None:
    over_socket = DatabaseConnection(str(tmp_path), 5432, "d", "u", PASSWORD, "disable")
    over_tls = to(5432, "postgres", "require")
    for connection in (over_socket, over_tls):
        assert "!password" not in connection.parameters()["require_auth"]


HANDSHAKE = b"".join(
    (
        b"\x0a8.4.0\0",
        b"\x01\0\0\0saltsalt\0",
        b"\xff\xff\x2d\x02\0\xff\xdf\x15",
        bytes(10),
        b"saltsaltsalt\0caching_sha2_password\0",
    )
)
"""https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets.html"""
GREETINGS = {
    "nothing": b"",
    "half of a packet": b"\x4a\0\0\0\x0a",
    "a greeting, and no TLS after it": len(HANDSHAKE).to_bytes(3, "little") + b"\0" + HANDSHAKE,
}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_a_mysql_server_that_falls_silent_is_not_waited_for(greeting: str) -> None:
    with Silent(GREETINGS[greeting]) as server:
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match=f"within {_WAIT_SECONDS} s.*no answer"):
            connect_mysql(to(server.port, "mysql", "require"))
        assert time.monotonic() - began < _WAIT_SECONDS + 5
