"""The progress of an extract in one line of a Jupyter notebook.

IPython is no dependency: nothing here is used unless a notebook has already imported it.
"""

from __future__ import annotations

import sys
import threading
import time
from importlib import import_module
from typing import Any

from extract_jobs.reporting.progress import ENDS, Progress
from extract_jobs.reporting.report import Report

_SECONDS_BETWEEN = 0.25


def notebook_progress(table: str) -> Progress | None:
    """Return a display of a table's extract if this code runs in a notebook; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):  # a terminal has no kernel
        return None
    return _Line(table, import_module("IPython.display").display)


class _Line(Progress):
    """One line that changes in place: phase, rows and bytes so far."""

    def __init__(self, table: str, display: Any) -> None:
        self._table, self._display = table, display
        self._handle: Any = None
        self._phase = "start"
        self._splits: dict[int, tuple[int, int]] = {}
        self._shown_at = 0.0
        self._lock = threading.Lock()

    def phase(self, name: str) -> None:
        """Show a phase at once."""
        self._phase = name
        if name not in ENDS:
            self._show()

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        """Show rows and bytes, some times a second."""
        with self._lock:
            self._splits[index] = rows, size
        if done or time.monotonic() - self._shown_at > _SECONDS_BETWEEN:
            self._show()

    def reported(self, report: Report) -> None:
        """Show the result, which stays."""
        seconds = sum(report.timings.values())
        self._show(f"{report.status}: {report.rows:,} rows in {seconds:.1f} s")

    def _show(self, text: str = "") -> None:
        with self._lock:
            self._shown_at = time.monotonic()
            rows = sum(rows for rows, _ in self._splits.values())
            size = sum(size for _, size in self._splits.values())
            moved = f", {rows:,} rows, {size / 1e6:.1f} MB" if rows else ""
            shown = {"text/plain": f"{self._table}: {text or self._phase + moved}"}
            if self._handle is None:
                self._handle = self._display(shown, raw=True, display_id=True)
            else:
                self._handle.update(shown, raw=True)
