"""Where tests and their servers keep files: in memory, if the machine has enough.

Nothing there is needed after the test. On a disk's file system, creating a database takes up to ten
times the CPU time, and tests that write many files a seventh more.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")
_BYTES = 4 << 30
_AVAILABLE = 12 << 30
"""With what the processes of a test run take, which is twice as much as their files."""


def make_folder(prefix: str) -> Path:
    """Create a folder that its caller removes, with a path short enough for a socket's."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent_folder()))


@cache
def parent_folder() -> str:
    """Return shared memory, unless it is small, as in a container, or not writable."""
    try:
        state = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return "/tmp"
    fits = state.f_bavail * state.f_frsize >= _BYTES and _available() >= _AVAILABLE
    return str(_SHARED_MEMORY if fits and os.access(_SHARED_MEMORY, os.W_OK) else "/tmp")


def _available() -> int:
    """Return the machine's free memory, in bytes."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
