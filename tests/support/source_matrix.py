"""Prints the results of the behaviour suite as a table of source × behaviour, at the run's end.

A pytest plugin. Results are taken from the reports, which workers of pytest-xdist send to the
process that prints. If only some tests were selected, the other cells stay empty; behaviours that a
source cannot have are ``n/a``, with the reason below.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

CELL = "source × behaviour"
"""Key of the reports' property that names a cell: ``[source, behaviour]``."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, if a test of the suite has run."""
    found = _results(terminalreporter)
    if not found:
        return
    from tests.support.source_cases import BEHAVIOURS, CASES

    names = [*CASES, *sorted({source for source, _ in found} - set(CASES))]
    width = max(map(len, BEHAVIOURS))
    terminalreporter.section(f"sources: {CELL}")
    terminalreporter.write_line(f"{'':{width}}  {'  '.join(names)}")
    notes: dict[str, int] = {}
    for behaviour in BEHAVIOURS:
        cells = []
        for name in names:
            reason = CASES[name].lacks.get(behaviour) if name in CASES else None
            if reason is not None:
                text = f"n/a {notes.setdefault(reason, len(notes) + 1)}"
            else:
                text = found.get((name, behaviour), "")
            cells.append(f"{text:{len(name)}}")
        terminalreporter.write_line(f"{behaviour:{width}}  {'  '.join(cells)}".rstrip())
    for reason, number in notes.items():
        terminalreporter.write_line(f"n/a {number}: {reason}")


def _results(terminalreporter: pytest.TerminalReporter) -> dict[tuple[str, str], str]:
    """Return ``ok``, ``FAILED`` or ``skipped`` by source and behaviour."""
    seen: dict[tuple[str, str], Counter[str]] = {}
    for category in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(category):
            # Reports of a collection that failed have none.
            for key, value in getattr(report, "user_properties", ()):
                if key == CELL:
                    source, behaviour = value
                    seen.setdefault((source, behaviour), Counter())[category] += 1
    return {
        cell: "FAILED" if counts["failed"] or counts["error"]
        else "ok" if counts["passed"] else "skipped"
        for cell, counts in seen.items()
    }  # fmt: skip
