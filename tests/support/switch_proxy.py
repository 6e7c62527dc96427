"""A TCP proxy that leads new connections to one server or another, as a moving DNS name does."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class SwitchProxy:
    """Forwards bytes both ways; a context manager that listens on a free port of 127.0.0.1.

    Attributes:
        port: Where callers find it.
        stalled: While set, nothing is forwarded any more, and nothing is closed.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.stalled = threading.Event()

    def lead_to(self, port: int) -> None:
        """Lead connections that come from now on to another port of this machine."""
        self._to = port

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="switch-proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Shutting down first wakes the thread that waits in accept; closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            self._open += [caller, server]
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
