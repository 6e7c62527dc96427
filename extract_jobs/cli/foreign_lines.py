"""Lines that other programs write to the terminal while a live display is on it.

A JVM, a native library or a worker process writes to the file descriptor itself, in the middle of
the display's lines. While lines are caught, the descriptor leads to a pipe, and whole lines come
out of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TextIO

STDERR = 2


class ForeignLines:
    """Catches lines that are written to a file descriptor.

    A process that was started meanwhile keeps the pipe for as long as it lives. Its later lines go
    to the terminal through a thread that ends with this process.

    Attributes:
        terminal: Writes to where the descriptor led before.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept = os.dup(descriptor)
        self.terminal: TextIO = os.fdopen(os.dup(descriptor), "w", encoding="utf-8")
        self._show: Callable[[str], None] | None = None

    def catch(self, show: Callable[[str], None]) -> None:
        """Begin to catch lines; a thread passes each to a function, without its newline."""
        self._show = show
        reading, writing = os.pipe()
        os.dup2(writing, self._descriptor)
        os.close(writing)
        threading.Thread(
            target=self._read, args=(reading,), name="foreign-lines", daemon=True
        ).start()

    def release(self) -> None:
        """Point the descriptor at the terminal again."""
        os.dup2(self._kept, self._descriptor)
        self._show = None

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8", errors="backslashreplace") as lines:
            for line in lines:
                show = self._show
                if show is None:
                    os.write(self._kept, line.encode())
                else:
                    show(line.rstrip("\n"))
