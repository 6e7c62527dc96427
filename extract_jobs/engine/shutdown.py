"""Shuts a worker down on a signal: quickly, without staged files left behind, and with a report.

Python runs a signal handler only between two of its own instructions, and a worker may spend
minutes inside DuckDB, waiting for the source's first row. So a thread receives the signal too, and
cleans up in the main thread's place if that takes too long.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from extract_jobs.commit.log import CommitLog
from extract_jobs.errors import EXIT_RETRY, ExtractError, Interrupted, StopRequested, error_line
from extract_jobs.reporting.report import failed_report, reported
from extract_jobs.spec.attempt_names import is_of_attempt
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import open_storage

logger = logging.getLogger(__name__)

NOTICE_SECONDS = 5.0
"""How long the main thread may stay inside a foreign call after a SIGTERM."""
CLEAN_UP_SECONDS = 15.0
"""How long it may clean up; together they leave some of ECS's 30 seconds for the rest."""
GRACE_SECONDS = 8.0
"""How much of that may pass until splits under way are staged, if a later attempt takes them
over."""
_ORPHAN_CHECK_SECONDS = 1.0
_MESSAGE = "stopped by SIGTERM; staged files are dropped unless a commit names them"


@dataclass
class Stop:
    """The state of a shutdown.

    Attributes:
        spec: What the worker is extracting, once that is known.
        noticed: Set when the main thread has begun to clean up.
    """

    spec: ExtractSpec | None = None
    noticed: threading.Event = field(default_factory=threading.Event)

    def leave(self, exit_code: int) -> NoReturn:
        """End the process; after a stop, without waiting for its threads.

        A stop that is raised while a pool starts a thread leaves one that nobody can end.
        """
        if not self.noticed.is_set():
            sys.exit(exit_code)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(exit_code)


def interrupt_on_sigterm() -> Stop:
    """Make SIGTERM raise `StopRequested` in the main thread, so that staged uploads are aborted.

    ECS sends it 30 to 120 seconds before SIGKILL. If the main thread does not react or does not
    finish, a thread aborts the attempt's uploads, writes the report and ends the process with exit
    code 75. A second SIGTERM is ignored.

    Call it once, from the main thread, before anything is staged.
    """
    stop = Stop()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.noticed.set()
        raise StopRequested(_MESSAGE, grace_seconds=GRACE_SECONDS)

    signal.signal(signal.SIGTERM, interrupt)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        with reader, writer:  # the writer must stay open as long as Python writes to it
            while reader.recv(1) != bytes([signal.SIGTERM]):
                pass
            if stop.noticed.wait(NOTICE_SECONDS):
                time.sleep(CLEAN_UP_SECONDS)
            _last_resort(stop)

    threading.Thread(target=listen, name="sigterm", daemon=True).start()
    return stop


def interrupt_when_orphaned() -> None:
    """Treat the death of the process that started this one as a SIGTERM.

    spark-submit forwards no signal: TERM ends its JVM and leaves the Python driver running, with
    nobody waiting for it.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_CHECK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _last_resort(stop: Stop) -> None:
    """End the process from outside the main thread, which no longer responds."""
    error = Interrupted(f"{_MESSAGE}; the worker was waiting for the source and was ended")
    try:
        if stop.spec is not None:
            give_up(stop.spec, error)
        print(error_line(error), file=sys.stderr, flush=True)  # noqa: T201
    finally:
        # Whatever else fails, such as writing to a pipe that spark-submit no longer reads.
        os._exit(EXIT_RETRY)


def give_up(spec: ExtractSpec, error: Interrupted) -> None:
    """Drop what an attempt has staged and write its report, whatever its own thread is still doing.

    If the attempt commits all the same, its commit is published or voided as a whole. An existing
    report of the attempt is not replaced.
    """
    with suppress(ExtractError):
        drop_staged(spec)
    _report(spec, error)


def drop_staged(spec: ExtractSpec) -> int:
    """Abort what an attempt has staged, unless its run has made a commit, which may need the files.

    Ranges that the next attempt of the run can take over stay.

    Returns:
        How many uploads were aborted.

    Raises:
        ExtractError: As the storage raises.
    """
    target = open_storage(spec.target.uri)
    log = CommitLog(open_storage(spec.state_uri), spec.state_uri, target)
    newest = log.newest()
    if newest is not None and newest.run_id == spec.run_id:
        return 0
    kept = set[str]()
    if spec.reuse != "never":
        kept = log.staged.files_of_attempt(spec.run_id, spec.attempt, spec.target.uri)
    mine = [u for u in target.abandoned(spec.target.uri) if u.uri not in kept
            and is_of_attempt(u.uri.rsplit("/", 1)[-1], spec.run_id, spec.attempt)]  # fmt: skip
    for upload in mine:
        target.abort(spec.target.uri, upload)
    return len(mine)


def _report(spec: ExtractSpec, error: Interrupted) -> None:
    """Write the report, unless the main thread wrote one before it got stuck."""
    report = failed_report(spec, reported(error))
    try:
        storage = open_storage(spec.report_uri)
        storage.put_if_absent(spec.report_uri, report.to_json().encode())
    except ExtractError as failure:
        logger.error("no report at %s: %s", spec.report_uri, error_line(failure))  # noqa: TRY400
