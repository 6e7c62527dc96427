"""Stopping on request: SIGINT and SIGTERM become `Interrupted`, so that uploads are dropped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from extract_jobs.errors import Interrupted

_stop_signals: list[int] = []


def stop_requested() -> bool:
    """Whether a person or a service has asked this process to stop."""
    return bool(_stop_signals)


@contextmanager
def stoppable() -> Iterator[None]:
    """Make the first SIGINT or SIGTERM raise `Interrupted` in the main thread; the next one kills.

    So what is staged is dropped where there is time for it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        _stop_signals.append(number)
        for one in signals:
            signal.signal(one, signal.SIG_DFL)
        by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        raise Interrupted(f"stopped by {by}; what was staged is dropped")

    _stop_signals.clear()
    before = {one: signal.signal(one, interrupt) for one in signals}
    try:
        yield
    except KeyboardInterrupt as error:  # Spark puts its own handler in the place of ours
        _stop_signals.append(signal.SIGINT)
        raise Interrupted("stopped by Ctrl-C; what was staged is dropped") from error
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
