"""A digest of a database's file, read by a process of its own.

When a process closes any handle on a file, POSIX drops all of its locks on it, those of SQLite too
(https://sqlite.org/howtocorrupt.html, section 2.2). So another process reads the file.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from extract_jobs.errors import SourceUnavailable

_PROGRAM = """
import hashlib, os, sys
with open(sys.argv[1], "rb", buffering=0) as file:
    about = os.fstat(file.fileno())
    print(about.st_dev, about.st_ino, hashlib.file_digest(file, "sha256").hexdigest())
"""


_START_SECONDS = 60.0
_LEAST_RATE = 5e6
"""Bytes a second; a file system that is slower has stalled."""


@dataclass(frozen=True)
class FileDigest:
    """What a file holds.

    Attributes:
        file: Device and number of the file that was read.
        sha256: Of its bytes.
    """

    file: tuple[int, int]
    sha256: str


def file_digest(path: str) -> FileDigest:
    """Return the digest of a file: about a second for 1.5 GB.

    Raises:
        SourceUnavailable: It could not be read.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _PROGRAM, path],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=_START_SECONDS + Path(path).stat().st_size / _LEAST_RATE,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable(
            f"{path} could not be read in {error.timeout:.0f} s, at less than "
            f"{_LEAST_RATE / 1e6:.0f} MB a second"
        ) from None
    except OSError as error:
        raise SourceUnavailable(f"{path} could not be read: {error.strerror}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise SourceUnavailable(f"{path} could not be read: {reason}")
    device, number, sha256 = done.stdout.split()
    return FileDigest((int(device), int(number)), sha256)
