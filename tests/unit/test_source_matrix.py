"""The table of source × behaviour tells what failed, and why a cell has no test."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support import source_cases
from tests.support.source_cases import BEHAVIOURS, SourceCase
from tests.support.source_matrix import CELL, pytest_terminal_summary


@dataclass
class Report:
    """A test's report, as xdist hands it on; one of a collection has no properties."""

    user_properties: list[tuple[str, Any]]


@dataclass
class Reporter:
    """What pytest prints through."""

    reports: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    lines: list[str] = field(default_factory=list)

    def add(self, outcome: str, source: str, behaviour: str) -> None:
        self.reports[outcome].append(Report([(CELL, [source, behaviour])]))

    def getreports(self, outcome: str) -> list[Any]:
        return self.reports[outcome]

    def section(self, title: str) -> None:
        self.lines.append(title)

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def lacking() -> SourceCase:
    reason = {"wrong password": "a file has no password"}
    return SourceCase("two", lambda _: pytest.fail("not opened"), lacks=reason)


def test_the_table_of_results(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {"one": SourceCase("one", lambda _: pytest.fail("not opened")), "two": lacking()}
    monkeypatch.setattr(source_cases, "CASES", cases)
    reporter = Reporter()
    reporter.reports["failed"].append(object())  # a file that could not be collected
    reporter.add("passed", "one", "describe")
    reporter.add("passed", "one", "full")
    reporter.add("failed", "one", "full")
    reporter.add("error", "two", "full")
    reporter.add("skipped", "two", "describe")
    pytest_terminal_summary(reporter)  # type: ignore[arg-type]
    found = {line[:16].strip(): line[16:].split() for line in reporter.lines[2:]}
    assert reporter.lines[1].split() == ["one", "two"]
    assert found["describe"] == ["ok", "skipped"]
    assert found["full"] == ["FAILED", "FAILED"]
    assert found["wrong password"] == ["n/a", "1"]
    assert found["retry"] == []
    assert reporter.lines[-1] == "n/a 1: a file has no password"
    assert [line[:16].strip() for line in reporter.lines[2:-1]] == list(BEHAVIOURS)


def test_a_run_without_the_suite_prints_no_table() -> None:
    reporter = Reporter()
    reporter.reports["passed"].append(Report([("other", 1)]))
    pytest_terminal_summary(reporter)  # type: ignore[arg-type]
    assert reporter.lines == []
