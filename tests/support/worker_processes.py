"""Finds the processes of workers, to kill and to pause them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import psutil


def worker_processes(members: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those of some processes that run an entrypoint of a job, in Python or in a JVM."""
    listed, found = list(members), []
    for process in listed:
        with contextlib.suppress(psutil.Error):
            if any(f"entrypoints/{name}.py" in word
                   for name in ("ecs", "emr", "glue") for word in process.cmdline()):  # fmt: skip
                found.append(process)
    return found + forked_workers(listed)


def forked_workers(members: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those of a session's processes that are forked workers, each a group's leader.

    They have the command line of the process that forks them (infra/local/prepared.py).
    """
    prepared = {}
    for process in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            if "infra.local.prepared" in process.cmdline():
                prepared[process.pid] = process
    found = []
    for pid, process in prepared.items():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(pid) == pid and process.ppid() in prepared:
                found.append(process)
    return found
