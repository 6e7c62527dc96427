"""Writes a running attempt's progress to its tracking item once a minute.

An attempt whose heartbeat stops has hung, or has lost the network: its job may run for hours
before the service notices. The reaper stops the jobs of silent attempts, and the state machine
retries the table.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from extract_jobs.errors import ExtractError
from extract_jobs.reporting.progress import Progress
from extract_jobs.reporting.report import Report
from extract_jobs.tracking.item import TrackedRun
from extract_jobs.tracking.table import Tracking

logger = logging.getLogger(__name__)

BEAT_SECONDS = 60.0
"""How often a running attempt writes its progress."""
SILENT_AFTER = timedelta(minutes=10)
"""An attempt that has not written for this long is stopped."""
_STOP_SECONDS = 1.0
_NUMBERS = ("splits", "splits_done", "rows", "bytes")


@dataclass
class _Figures:
    moved_at: str
    phase: str = "start"
    splits: int = 0
    estimated_rows: int | None = None
    done: set[int] = field(default_factory=set)
    rows: dict[int, int] = field(default_factory=dict)
    bytes: dict[int, int] = field(default_factory=dict)


class Heartbeat(Progress):
    """Forwards progress, and writes it to the tracking table from a thread while it is entered.

    A write that fails is logged and repeated a minute later. It never fails the extract.
    """

    def __init__(
        self, run: TrackedRun, tracking: Tracking, shown: Progress, seconds: float = BEAT_SECONDS
    ) -> None:
        """Create a heartbeat.

        Args:
            run: The attempt that is running.
            tracking: The tracking table.
            shown: Also receives every event.
            seconds: Time between two writes.
        """
        self._run, self._tracking, self._shown, self._seconds = run, tracking, shown, seconds
        self._figures, self._lock = _Figures(self._now()), threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Start writing."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop writing; waits at most a second for a write that is under way."""
        self._ended.set()
        self._thread.join(_STOP_SECONDS)

    def phase(self, name: str) -> None:
        """Note the phase."""
        self._shown.phase(name)
        self._note(lambda figures: setattr(figures, "phase", name))

    def planned(self, splits: int, rows: int | None, size: int | None) -> None:
        """Record how much there is to read."""
        self._shown.planned(splits, rows, size)

        def note(figures: _Figures) -> None:
            figures.splits, figures.estimated_rows = splits, rows

        self._note(note)

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        """Record how far a split is."""
        self._shown.split(index, rows, size, done=done)

        def note(figures: _Figures) -> None:
            figures.rows[index], figures.bytes[index] = rows, size
            if done:
                figures.done.add(index)

        self._note(note)

    def reported(self, report: Report) -> None:
        """Forward the report."""
        self._shown.reported(report)

    def text(self) -> str:
        """Return the progress as it is written to the tracking item: a JSON object."""
        with self._lock:
            figures = self._figures
            return json.dumps(
                {
                    "phase": figures.phase,
                    "splits": figures.splits,
                    "splits_done": len(figures.done),
                    "rows": sum(figures.rows.values()),
                    "bytes": sum(figures.bytes.values()),
                    "estimated_rows": figures.estimated_rows,
                    "moved_at": figures.moved_at,
                },
                separators=(",", ":"),
            )

    def _note(self, change: Callable[[_Figures], Any]) -> None:
        with self._lock:
            change(self._figures)
            self._figures.moved_at = self._now()

    def _now(self) -> str:
        return self._tracking.clock().isoformat(timespec="seconds")

    def _beat(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                if not self._tracking.beat(self._run, self.text()):
                    logger.warning("the tracking table no longer has this attempt as running")
                    return
            except ExtractError as error:
                logger.warning("progress was not written: %s", error)


def is_silent(run: TrackedRun, now: datetime) -> bool:
    """Return whether a running attempt should have written its progress long ago.

    An attempt of a version without heartbeats is never silent.
    """
    if run.status != "RUNNING" or not run.beat_at:
        return False
    return now - datetime.fromisoformat(run.beat_at) > SILENT_AFTER


def progress_of(run: TrackedRun) -> dict[str, Any]:
    """Return the last progress of a running attempt; empty in its first minute, or if damaged."""
    try:
        found = json.loads(run.progress) if run.status == "RUNNING" and run.progress else {}
        whole = all(type(found[name]) is int for name in _NUMBERS)
        datetime.fromisoformat(found["moved_at"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if whole and isinstance(found.get("phase"), str) else {}
