"""Lends the sessions of one process to workers on the same machine, one split at a time.

Sessions that share a snapshot have to be opened together, and stay open until the last split is
read. Tasks come and go, in whatever process an engine runs them. So the driver keeps the sessions,
and a worker that has a split to read borrows one: it asks at a Unix socket and receives the
session's own connection (``SCM_RIGHTS``), which it reads without the driver in between. If the
connection has TLS, whose keys stay in the driver, it receives one end of a socket pair, and the
driver forwards the data.

A session that comes back unread, because its worker failed, died or stopped halfway, is closed; the
split is then read over another one, which shows the same moment.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from extract_jobs.errors import SourceUnavailable
from extract_jobs.sources.mysql.driver import Connection, hang_up, on_socket, release, socket_of
from extract_jobs.sources.mysql.session import mapped_errors

_POLL_SECONDS = 0.5
"""How soon a waiting thread notices that the lender is closed."""
_WAIT_SECONDS = 24 * 3600
"""Maximum wait for a session while others are reading."""
_MOST_WAITING = 1024
"""Readers that may wait for a session at a time; the system may allow fewer."""
_CHUNK = 2**18
_PREFIX = "extract-lent-"
_NAME = "sessions"
_MOST_LEFTOVERS = 100
_LEFTOVER_SECONDS = 60
"""Minimum age of a leftover folder: until then its owner may not have marked it yet."""
ALL_LOST = (
    "the sessions that share its snapshot were all lost; run again, or, if the server ends long "
    "transactions, set split.one_snapshot to never"
)
_READ = b"r"
"""What a worker answers for a session that it has read to the end."""


class Lender:
    """Sessions that workers borrow. Used in the process that opened them.

    Attributes:
        place: Where `borrowed` asks for one.
    """

    def __init__(self, sessions: Sequence[Connection]) -> None:
        """Take over the sessions, and lend them until `close`.

        Raises:
            OSError: This machine has no room for the socket; the caller keeps the sessions.
            AttributeError, ImportError: This system has no Unix sockets.
        """
        _remove_leftovers(Path(tempfile.gettempdir()))
        # Only this user may look into it.
        self._folder = tempfile.mkdtemp(prefix=_PREFIX)
        self._held = -1
        try:
            self._held = os.open(self._folder, os.O_RDONLY)
            _hold(self._held)
            self.place = str(Path(self._folder, _NAME))
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(self.place)
            self._listener.listen(_MOST_WAITING)
            self._listener.settimeout(_POLL_SECONDS)
        except BaseException:
            self._remove_folder()
            raise
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._left = len(sessions)
        self._threads = [
            threading.Thread(target=self._lend, args=(one,), name="mysql-session", daemon=True)
            for one in sessions
        ]
        for thread in self._threads:
            thread.start()

    @property
    def sessions(self) -> int:
        """The number of sessions left."""
        return self._left

    def close(self) -> None:
        """Close all sessions, including those on loan. Does nothing the second time."""
        self._closed.set()
        for thread in self._threads:
            thread.join(2 * _POLL_SECONDS)
        self._listener.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _lend(self, opened: Connection) -> None:
        """Lend one session to one asker after another, as long as it comes back read."""
        try:
            while not self._closed.is_set():
                try:
                    asker, _ = self._listener.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                with asker:
                    if not self._serve(asker, opened):
                        return
        finally:
            hang_up(opened)
            with self._lock:
                self._left -= 1
                if not self._left:
                    self._listener.close()  # further askers are refused

    def _serve(self, asker: socket.socket, opened: Connection) -> bool:
        """Lend a session to one asker; return whether it came back read."""
        server = socket_of(opened)
        try:
            if not isinstance(server, ssl.SSLSocket):
                socket.send_fds(asker, [b"s"], [server.fileno()])
                return self._until_back(asker, None, None)
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    socket.send_fds(asker, [b"s"], [theirs.fileno()])
                return self._until_back(asker, server, ours)
        except OSError:  # the asker has died, or the server has gone
            return False

    def _until_back(
        self, asker: socket.socket, server: ssl.SSLSocket | None, ours: socket.socket | None
    ) -> bool:
        """Wait for the asker's answer, and meanwhile forward what server and worker send."""
        with selectors.DefaultSelector() as ready:
            ready.register(asker, selectors.EVENT_READ)
            if server is not None and ours is not None:
                ready.register(server, selectors.EVENT_READ)
                ready.register(ours, selectors.EVENT_READ)
            while not self._closed.is_set():
                found = {key.fileobj for key, _ in ready.select(_POLL_SECONDS)}
                if server is not None and ours is not None:
                    if server in found and not _pass_on(server, ours):
                        return False
                    if ours in found:
                        asked = ours.recv(_CHUNK)
                        if asked:
                            server.sendall(asked)
                        elif asker not in found:
                            ready.unregister(ours)  # its answer follows, or its end
                if asker in found:
                    return asker.recv(1) == _READ
        return False


def _hold(folder: int) -> None:
    """Mark an open folder as in use until it is closed or this process dies.

    Raises:
        OSError: It is already in use.
        ImportError: This system has no such locks.
    """
    import fcntl  # POSIX only

    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_leftovers(temporary: Path) -> None:
    """Remove the folders of lenders that were killed: this user's, and in use by no process.

    At most `_MOST_LEFTOVERS` at a time. What cannot be removed stays.
    """
    for folder in itertools.islice(temporary.glob(f"{_PREFIX}*"), _MOST_LEFTOVERS):
        with contextlib.suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                found = os.fstat(held)
                if found.st_uid != os.geteuid() or found.st_mtime > time.time() - _LEFTOVER_SECONDS:
                    continue
                _hold(held)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_NAME, dir_fd=held)
                folder.rmdir()
            finally:
                os.close(held)


def _pass_on(server: ssl.SSLSocket, ours: socket.socket) -> bool:
    """Forward all that the server has sent; return whether the connection is still open."""
    seconds = server.gettimeout()
    server.settimeout(0)  # what came may be part of TLS, with no data for the worker
    try:
        while True:
            try:
                given = server.recv(_CHUNK)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return True
            if not given:
                return False
            ours.sendall(given)
    finally:
        server.settimeout(seconds)


@contextlib.contextmanager
def borrowed(place: str, what: str, stall_seconds: float) -> Iterator[Connection]:
    """Borrow a session, in its transaction. Leaving early or with an error ends the session.

    Waits while others have all of them.

    Args:
        place: See `Lender`.
        what: What is being done, for the error message.
        stall_seconds: How long the server may send nothing.

    Raises:
        SourceUnavailable: None is left.
        ExtractError: What PyMySQL raised inside, mapped.
    """
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.settimeout(_WAIT_SECONDS)
            asking.connect(place)
            _, found, _, _ = socket.recv_fds(asking, 1, 1)
        except OSError:
            found = []
        if not found:
            raise SourceUnavailable(f"{what} failed: {ALL_LOST}")
        opened = on_socket(socket.socket(fileno=found[0]), stall_seconds)
        try:
            with mapped_errors(what):
                yield opened
                asking.sendall(_READ)
        finally:
            release(opened)
