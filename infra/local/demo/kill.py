"""Kills a worker in the midst of a table, as a machine that runs out of memory does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

from extract_jobs.storage.s3_client import split_uri
from extract_jobs.tracking.item import TrackedRun
from infra.local.emulator import session_members
from infra.local.postgres import Database
from infra.local.stack import Stack

_POLL_SECONDS = 0.02
_STATE = "_extract/sales/"
_STAGED_BEFORE = 16
"""Ranges that are staged when the worker is killed."""


@dataclass(slots=True)
class Killed:
    """What has happened.

    Attributes:
        done: Set once a worker was killed.
        staged: Ranges that were noted as staged then, at least.
    """

    done: threading.Event = field(default_factory=threading.Event)
    staged: int = 0


@contextlib.contextmanager
def killed_midway(stack: Stack, database: Database, table: str) -> Iterator[Killed]:
    """Kill the first worker that reads a table, with SIGKILL, once some of its ranges are staged.

    Yields:
        What has happened.
    """
    killed, stop = Killed(), threading.Event()
    bare = table.rpartition(".")[2]

    def watch() -> None:
        client, groups = stack.client("s3"), set[int]()
        with database.connect() as administrator:
            while not stop.wait(_POLL_SECONDS) and not killed.done.is_set():
                if not groups:
                    ports = administrator.execute(
                        "select client_port from pg_stat_activity join pg_locks using (pid)"
                        " where relation = %s::regclass and pid <> pg_backend_pid()", (table,),
                    ).fetchall()  # fmt: skip
                    groups = _groups(stack, {port for (port,) in ports}) if ports else groups
                    continue
                listed = client.list_objects_v2(Bucket="lake", Prefix=_STATE).get("Contents", [])
                noted = [x for x in listed if bare in x["Key"] and "/staged/" in x["Key"]]
                if len(noted) >= _STAGED_BEFORE:
                    for group in groups:
                        os.killpg(group, signal.SIGKILL)
                    killed.staged = len(noted)
                    killed.done.set()

    thread = threading.Thread(target=watch, name="killer", daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def _groups(stack: Stack, ports: set[int]) -> set[int]:
    """Return the process groups of the workers that have connections from these ports."""
    found = set()
    for process in session_members(stack.pid):
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            connections = process.net_connections(kind="tcp")
            if process.pid != stack.pid and any(one.laddr.port in ports for one in connections):
                found.add(os.getpgid(process.pid))
    return found


def resumed(stack: Stack, run: TrackedRun) -> tuple[int, int]:
    """Return how many splits a run has taken over from an earlier attempt, and of how many."""
    bucket, key = split_uri(run.report_uri)
    report = json.loads(stack.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    return report["resumed_splits"], report["splits"]
