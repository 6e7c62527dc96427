"""A TCP proxy before any server, which cuts one connection in the middle of what it streams.

::

    with CutProxy(server.host, server.port) as proxy:
        proxy.cut_once_after(100_000)        # the first to have got so many bytes is reset
        extract_from("127.0.0.1", proxy.port)
        assert proxy.cuts == 1
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Self


class CutProxy:
    """Forwards bytes both ways; a context manager that listens on a free port of 127.0.0.1.

    Attributes:
        port: Where callers find it.
        cuts: How many connections it has reset.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._limit: int | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.cuts = 0

    def cut_once_after(self, size: int) -> None:
        """Reset the first connection over which the server has sent so many bytes, and no other."""
        self._limit = size

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="cut-proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Shutting down first wakes the thread that waits in accept; closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            still_open = list(self._open)
        for one in still_open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            with self._lock:
                self._open |= {caller, server}
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
                    # Closed with no time to linger, a socket sends a reset in place of its end.
                    reset = struct.pack("ii", 1, 0)
                    target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RD if one is target else socket.SHUT_RDWR)
        ends.wait()
        with self._lock:
            self._open.discard(source)
        source.close()

    def _is_due(self, sent: int) -> bool:
        with self._lock:
            due = self._limit is not None and sent >= self._limit
            if due:
                self._limit = None
                self.cuts += 1
            return due
