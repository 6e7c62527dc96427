"""The events of an extract that a watcher can show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extract_jobs.reporting.report import Report


ENDS = ("done", "failed")
"""The last phases; an extract has one of them."""


class Progress:
    """Receives the events of an extract; this one ignores them all.

    Methods may be called from any thread.
    """

    def phase(self, name: str) -> None:
        """A phase begins: recover, plan, extract, reconcile, commit, publish, catalog, an end."""

    def planned(self, splits: int, rows: int | None, size: int | None) -> None:
        """The splits are about to be read; rows and bytes are the source's estimates."""

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        """Rows read and bytes written of a split so far; ``done`` marks its last call."""

    def reported(self, report: Report) -> None:
        """The report, even of a failed attempt, is where the status handler expects it."""
