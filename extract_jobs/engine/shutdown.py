"""Shuts a worker down on a signal: quickly, without staged files left behind, and with a report.

Python runs a signal handler only between two of its own instructions, and a worker may spend
minutes inside DuckDB, waiting for the source's first row. So a thread hears the signal too, and
does what the handler cannot once it has waited long enough.
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
"""How long it may clean up; with the above, ECS's 30 seconds leave some for the rest."""
_ORPHAN_CHECK_SECONDS = 1.0
_MESSAGE = "stopped by SIGTERM; what was staged is dropped, and a retry starts over"


@dataclass
class Stop:
    """What is known of a stop.

    Attributes:
        spec: What the worker is extracting, once that is known.
        noticed: Set when the main thread has begun to clean up.
    """

    spec: ExtractSpec | None = None
    noticed: threading.Event = field(default_factory=threading.Event)


def interrupt_on_sigterm() -> Stop:
    """Make SIGTERM raise `StopRequested` in the main thread, so that staged uploads are aborted.

    ECS sends it 30 to 120 seconds before SIGKILL. Where the main thread does not come to it, or
    does not get done, a thread aborts the attempt's uploads, leaves the report and ends the
    process with exit code 75. A second SIGTERM is ignored.

    Call it once, from the main thread, before anything is staged.
    """
    stop = Stop()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.noticed.set()
        raise StopRequested(_MESSAGE)

    signal.signal(signal.SIGTERM, interrupt)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        with reader, writer:  # the writer must live as long as Python writes to it
            while reader.recv(1) != bytes([signal.SIGTERM]):
                pass
            if stop.noticed.wait(NOTICE_SECONDS):
                time.sleep(CLEAN_UP_SECONDS)
            _last_resort(stop)

    threading.Thread(target=listen, name="sigterm", daemon=True).start()
    return stop


def interrupt_when_orphaned() -> None:
    """Take the death of the process that started this one for a SIGTERM.

    spark-submit passes no signal on: TERM ends its JVM and leaves the Python driver running, with
    nobody to wait for it.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_CHECK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _last_resort(stop: Stop) -> None:
    """End the process from outside the main thread, which is past being asked."""
    error = Interrupted(f"{_MESSAGE}; the worker was waiting for the source and was ended")
    try:
        if stop.spec is not None:
            give_up(stop.spec, error)
        print(error_line(error), file=sys.stderr, flush=True)  # noqa: T201
    finally:
        # Whatever else fails, such as writing to a pipe that spark-submit no longer reads.
        os._exit(EXIT_RETRY)


def give_up(spec: ExtractSpec, error: Interrupted) -> None:
    """Drop what an attempt has staged and leave its report, whatever its own thread still does.

    Should the attempt commit all the same, its commit is published or voided as a whole. The
    report is not replaced if the attempt has left one.
    """
    with suppress(ExtractError):
        drop_staged(spec)
    _report(spec, error)


def drop_staged(spec: ExtractSpec) -> int:
    """Abort what an attempt has staged, unless its run has made a commit: that may name it.

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
    mine = [u for u in target.abandoned(spec.target.uri)
            if is_of_attempt(u.uri.rsplit("/", 1)[-1], spec.run_id, spec.attempt)]  # fmt: skip
    for upload in mine:
        target.abort(spec.target.uri, upload)
    return len(mine)


def _report(spec: ExtractSpec, error: Interrupted) -> None:
    """Leave the report, unless the main thread has left one before it got stuck."""
    report = failed_report(spec, reported(error))
    try:
        storage = open_storage(spec.report_uri)
        storage.put_if_absent(spec.report_uri, report.to_json().encode())
    except ExtractError as failure:
        logger.error("no report at %s: %s", spec.report_uri, error_line(failure))  # noqa: TRY400
