"""A TCP listener on this machine whose connections end with it: the base of the tests' proxies."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Listener:
    """Listens on a free port of 127.0.0.1 while its context is open.

    Attributes:
        port: The port.
    """

    def __init__(self) -> None:
        """Bind the port; connections are accepted once the context is entered."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name=type(self).__name__, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Shutting down first wakes the thread that waits in accept; closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            still_open = list(self._open)
        for one in still_open:
            # Wakes the thread that reads from it, which closes it.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self._hold(caller)
            self._accepted(caller)

    def _accepted(self, caller: socket.socket) -> None:
        """Serve a connection, in its own threads; each closes its sockets with `_drop`."""
        raise NotImplementedError

    def _hold(self, one: socket.socket) -> None:
        with self._lock:
            self._open.add(one)

    def _drop(self, one: socket.socket) -> None:
        with self._lock:
            self._open.discard(one)
        one.close()
