"""Reports whether the container's worker is well: the image's health check.

Exits 0 if the worker runs and can write its spill folder. Otherwise prints one line, such as that
the worker is stopped or that the folder is full, and exits 1. It needs no package, network or
database: the extract's own state is in its log and its report.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

_PROGRAM = b"/entrypoints/ecs.py"
_HELD = {"T": "stopped", "t": "traced"}
"""States of processes that do not continue by themselves: proc(5)."""


def main() -> int:
    """Check, and return the exit code."""
    problem = worker_problem(Path("/proc")) or spill_problem()
    if problem:
        print(problem)
    return 1 if problem else 0


def worker_problem(proc: Path) -> str | None:
    """Return what is wrong with the worker (PID 1, or the child of an init); None if it is well."""
    pids = sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit())
    for pid in pids:
        try:
            command = (proc / str(pid) / "cmdline").read_bytes()
            state = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has just ended
            continue
        if _PROGRAM in command:
            return f"the worker is {_HELD[state]}" if state in _HELD else None
    return "the worker has ended"


def spill_problem() -> str | None:
    """Return why the spill folder cannot be written; None if it can."""
    folder = os.environ["TMPDIR"]
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"
    return None


if __name__ == "__main__":
    sys.exit(main())
