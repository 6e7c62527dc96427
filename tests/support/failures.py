"""Names each failure when it happens, since a run that is cut off never prints its summary.

A pytest plugin. A worker that was killed fails the test that it was running, which is named too.
"""

from __future__ import annotations

import pytest

from extract_jobs.engine.worker_processes import oom_kills


class _AtOnce:
    def __init__(self, config: pytest.Config) -> None:
        self._config, self._oom_kills = config, oom_kills()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            last = report.longreprtext.strip().rpartition("\n")[2]
            killed = oom_kills() - self._oom_kills
            memory = f" (processes killed so far for want of memory: {killed})" if killed else ""
            terminal.write_line(f"\n{report.nodeid} failed: {last}{memory}")


def pytest_configure(config: pytest.Config) -> None:
    """Report at once, in the process that prints."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_AtOnce(config), "failures at once")
