"""Reads in a separate thread, so that every wait for the source is bounded and can be stopped.

A library that waits for a server inside its own code does not run Python's signal handlers, and
some have no timeout. Here the caller's thread waits for a queue, which supports both.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from extract_jobs.errors import SourceUnavailable

Item = TypeVar("Item")

_LOOK_SECONDS = 0.5
"""How long a thread waits for an item at a time: a signal is noticed as late as that."""
_GRACE_SECONDS = 1.0
"""How long a reader may take to stop on request before its connection is shut down."""
_END_SECONDS = 2.0
_CONNECT_SECONDS = 30.0
_DESCRIPTORS = Path("/proc/self/fd")


@dataclass(eq=False)
class Sockets:
    """Connections that libraries have opened to a server, to be shut down from outside.

    Attributes:
        port: The server's port.
    """

    port: int
    _held: dict[int, str] = field(default_factory=dict)

    def opened_by(self, connect: Callable[[], object]) -> None:
        """Call a function that connects, and record which sockets to the server it opens."""
        with connecting():
            before = _sockets()
            connect()
            for descriptor, inode in _sockets().items():
                if before.get(descriptor) != inode and self._leads_there(descriptor):
                    self._held[descriptor] = inode

    def hold(self, descriptor: int) -> None:
        """Record a connection that the caller has opened."""
        self._held[descriptor] = _sockets().get(descriptor, "")

    def shut_down(self) -> None:
        """Shut the connections down: whoever waits for one then reads its end."""
        now = _sockets()
        for descriptor, inode in self._held.items():
            if now.get(descriptor) == inode:
                with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
                    one.shutdown(socket.SHUT_RDWR)

    def _leads_there(self, descriptor: int) -> bool:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
            peer = one.getpeername()
            # The peer in a pair of sockets, such as a pipe to a worker process, has no name.
            return bool(peer[1] == self.port if isinstance(peer, tuple) else peer)
        return False


_connecting = threading.Lock()


@contextmanager
def connecting() -> Iterator[None]:
    """Open a connection inside that `Sockets.opened_by` must not mistake for one of its own.

    One thread at a time connects. If one takes very long, the others stop waiting for it.
    """
    alone = _connecting.acquire(timeout=_CONNECT_SECONDS)
    try:
        yield
    finally:
        if alone:
            _connecting.release()


def _sockets() -> dict[int, str]:
    """Return this process's sockets by descriptor; none if the system does not list them."""
    found: dict[int, str] = {}
    with suppress(OSError):
        for entry in _DESCRIPTORS.iterdir():
            with suppress(OSError):
                kind = str(entry.readlink())
                if kind.startswith("socket:"):
                    found[int(entry.name)] = kind
    return found


def received(given: queue.SimpleQueue[Item], seconds: float | None = None) -> Item:
    """Return the next item of a queue, and let signal handlers run while it is awaited.

    The system may hand a signal to any thread: the main thread sees it when it wakes up.

    Args:
        given: The queue.
        seconds: How long to wait; None for as long as it takes.

    Raises:
        queue.Empty: It took longer.
    """
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        left = _LOOK_SECONDS if until is None else until - time.monotonic()
        try:
            return given.get(timeout=max(0.0, min(left, _LOOK_SECONDS)))
        except queue.Empty:
            if until is not None and time.monotonic() >= until:
                raise


def ended_within_seconds(end: Callable[[], None], sockets: Sockets) -> None:
    """Call what ends connections, in a thread; shut them down if it does not return in time."""
    thread = threading.Thread(target=end, name="source-end", daemon=True)
    thread.start()
    _join(thread, sockets, _GRACE_SECONDS)


def _join(thread: threading.Thread, sockets: Sockets, seconds: float) -> None:
    """Wait for a thread; shut its connections down if it does not end in time."""
    if seconds:
        thread.join(seconds)
    if thread.is_alive():
        sockets.shut_down()
        thread.join(_END_SECONDS)


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _Reading(Generic[Item]):
    """The thread that reads, one item per request."""

    def __init__(self, make: Callable[[], Generator[Item]]) -> None:
        self._make = make
        self._stop = threading.Event()
        self._asked = threading.Semaphore(0)
        self._given: queue.SimpleQueue[Item | _Failure | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="source-reader", daemon=True)
        self._thread.start()

    def next(self, seconds: float) -> Item | _Failure | None:
        """Return the next item, None at the end; raises `queue.Empty` if it takes longer."""
        self._asked.release()
        return received(self._given, seconds)

    def end(self, sockets: Sockets, *, at_once: bool) -> None:
        """Stop the thread; shut its connections down if it does not react."""
        self._stop.set()
        self._asked.release()
        _join(self._thread, sockets, 0 if at_once else _GRACE_SECONDS)

    def _run(self) -> None:
        # Nothing is read ahead: one item may be as large as memory allows.
        try:
            with closing(self._make()) as items:
                while self._goes_on() and (item := next(items, None)) is not None:
                    self._given.put(item)
                    del item
            self._given.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._given.put(_Failure(error))

    def _goes_on(self) -> bool:
        self._asked.acquire()
        return not self._stop.is_set()


def pumped(
    make: Callable[[], Generator[Item]], sockets: Sockets, *, stall_seconds: float, what: str
) -> Generator[Item]:
    """Yield the items of a generator that runs in a separate thread.

    Closing early, or an exception from a signal handler, ends the thread and its connections.

    Args:
        make: Creates the generator, in that thread.
        sockets: The connections that the generator records.
        stall_seconds: How long the next item may take.
        what: What is being read, for messages.

    Raises:
        SourceUnavailable: No item came in that time.
    """
    reading = _Reading(make)
    stalled = False
    try:
        while True:
            try:
                item = reading.next(stall_seconds)
            except queue.Empty:
                stalled = True
                raise SourceUnavailable(
                    f"{what} failed: the source has sent nothing for {stall_seconds:.0f} s, though "
                    "the connection is up; run again. If a query takes longer than that before "
                    "its first row, raise connection.stall_timeout"
                ) from None
            if item is None:
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item
            del item
    finally:
        reading.end(sockets, at_once=stalled)
