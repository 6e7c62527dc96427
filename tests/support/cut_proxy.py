"""A TCP proxy in front of any server, which cuts one connection in the middle of a stream.

::

    with CutProxy(server.host, server.port) as proxy:
        proxy.cut_once_after(100_000)        # the first with that many bytes is reset
        extract_from("127.0.0.1", proxy.port)
        assert proxy.cuts == 1
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

from tests.support.listener import Listener


class CutProxy(Listener):
    """Forwards bytes both ways, until it should cut.

    Attributes:
        cuts: How many connections it has reset.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._server = (host, port)
        self._limit: int | None = None
        self.cuts = 0

    def cut_once_after(self, size: int) -> None:
        """Reset only the first connection over which the server has sent that many bytes."""
        self._limit = size

    def _accepted(self, caller: socket.socket) -> None:
        server = socket.create_connection(self._server)
        self._hold(server)
        ends = threading.Barrier(2)
        for source, target, counted in ((caller, server, False), (server, caller, True)):
            threading.Thread(
                target=self._forward, args=(source, target, ends, counted), daemon=True
            ).start()

    def _forward(
        self, source: socket.socket, target: socket.socket, ends: threading.Barrier, counted: bool
    ) -> None:
        sent = 0
        with suppress(OSError):
            while data := source.recv(65536):
                sent += len(data)
                if counted and self._is_due(sent):
                    # Closed without time to linger, a socket sends a reset instead of its end.
                    reset = struct.pack("ii", 1, 0)
                    target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RD if one is target else socket.SHUT_RDWR)
        ends.wait()
        self._drop(source)

    def _is_due(self, sent: int) -> bool:
        with self._lock:
            due = self._limit is not None and sent >= self._limit
            if due:
                self._limit = None
                self.cuts += 1
            return due
