"""A TCP proxy that switches new connections between servers, like a DNS name that moves."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from tests.support.listener import Listener


class SwitchProxy(Listener):
    """Forwards bytes both ways.

    Attributes:
        stalled: While set, nothing is forwarded, and nothing is closed.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self._to = port
        self.stalled = threading.Event()

    def lead_to(self, port: int) -> None:
        """Send new connections to another port of this machine."""
        self._to = port

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        # The threads leave their sockets open: a stalled connection must not end.
        for one in list(self._open):
            self._drop(one)

    def _accepted(self, caller: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._to))
        self._hold(server)
        for source, target in ((caller, server), (server, caller)):
            threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and not self.stalled.is_set():
                target.sendall(data)
        if self.stalled.is_set():
            return
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
