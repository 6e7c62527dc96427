"""Which connections are shut down when a reader does not come to its end."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from extract_jobs.sources.pump import Sockets


@pytest.mark.parametrize("over", ["TCP", "a Unix socket"])
def test_only_what_leads_to_the_server_is_shut_down(over: str, tmp_path: Path) -> None:
    """Another table's thread may open a pipe to a worker at the same time."""
    if over == "TCP":
        server = socket.create_server(("127.0.0.1", 0))
        port = int(server.getsockname()[1])
    else:
        server, port = socket.socket(socket.AF_UNIX), 5432
        server.bind(str(tmp_path / ".s.PGSQL.5432"))
        server.listen()
    opened: list[socket.socket] = []

    def connect() -> None:
        opened.append(socket.socket(server.family))
        opened[0].connect(server.getsockname())
        opened.extend(socket.socketpair())

    sockets = Sockets(port)
    sockets.opened_by(connect)
    accepted, _ = server.accept()
    with server, accepted, opened[0], opened[1] as ours, opened[2] as theirs:
        # So that neither fails to wait.
        accepted.settimeout(5)
        theirs.settimeout(5)
        sockets.shut_down()
        assert accepted.recv(1) == b"", "the connection is still up"
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"
