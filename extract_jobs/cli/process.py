"""The command line as a process: how it stops, logs, and reports defects."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from extract_jobs.errors import Interrupted, StopRequested

_STAGED = "staged files are dropped unless a commit names them"
_stop_signals: list[int] = []
_thread = threading.local()


def new_run_id() -> str:
    """Return a name for a run that sorts by time and that no other run has."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"


def stop_requested() -> bool:
    """Whether a user or service has asked this process to stop."""
    return bool(_stop_signals)


def stop_text() -> str:
    """Return the message for a stop; it is always the same."""
    if not _stop_signals:
        return f"stopped with the command; {_STAGED}"
    number = _stop_signals[0]
    by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    return f"stopped by {by}; {_STAGED}"


def note_stop(error: BaseException) -> None:
    """Record a Ctrl-C from Spark's handler, which replaces ours once Spark runs."""
    if isinstance(error.__cause__, KeyboardInterrupt):
        _stop_signals.append(signal.SIGINT)


@contextmanager
def stoppable() -> Iterator[None]:
    """Make the first SIGINT or SIGTERM stop the main thread's work; the next one kills.

    This leaves time to drop staged files.

    Raises:
        Interrupted: A signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        _stop_signals.append(number)
        for one in signals:
            signal.signal(one, signal.SIG_DFL)
        raise StopRequested(stop_text())

    _stop_signals.clear()
    before = {one: signal.signal(one, interrupt) for one in signals}
    try:
        yield
    except StopRequested as error:
        raise Interrupted(str(error)) from error
    except KeyboardInterrupt as error:  # Spark replaces our handler with its own
        _stop_signals.append(signal.SIGINT)
        raise Interrupted(stop_text()) from error
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def logging_for(table: str) -> Iterator[None]:
    """Have what this thread logs name a table, since others run beside it."""
    _thread.table = table
    try:
        yield
    finally:
        _thread.table = ""


class _Lines(logging.Formatter):
    """Formats a record as one line that names the table that its thread works on, if any."""

    def format(self, record: logging.LogRecord) -> str:
        table = getattr(_thread, "table", "")
        return super().format(record) if not table else f"{table}: {super().format(record)}"


class _Stderr(logging.StreamHandler[Any]):
    """Writes to the current standard error, which a live display replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def log_to_stderr() -> None:
    """Log warnings, and more for loggers with a lower level, to standard error."""
    handler = _Stderr()
    handler.setFormatter(_Lines("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def internal_error(error: Exception) -> str:
    """Return the line for a defect; a foreign exception's text may contain anything."""
    return (
        f"InternalError: unexpected {type(error).__name__}, a defect in extract-jobs; "
        "--traceback shows where"
    )
