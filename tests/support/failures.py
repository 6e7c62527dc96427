"""Names each failure when it happens, since a run that is cut off never prints its summary.

A pytest plugin. A worker that was killed fails the test that it was running, which is named too.
"""

from __future__ import annotations

import pytest


class _AtOnce:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            last = report.longreprtext.strip().rpartition("\n")[2]
            terminal.write_line(f"\n{report.nodeid} failed: {last}")


def pytest_configure(config: pytest.Config) -> None:
    """Report at once, in the process that prints."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_AtOnce(config), "failures at once")
