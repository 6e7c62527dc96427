"""Two attempts of one run that are alive at once, with ``reuse: auto``, under every switch.

A worker that is believed dead goes on while the next attempt takes over what it has staged. Both
stand still before any of their storage calls, and the rows change in between. However they are
interleaved, the lake holds the table as one of their snapshots saw it, and nothing stays staged.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field

import pytest

import extract_jobs.run
from extract_jobs.errors import ExtractError
from extract_jobs.reporting.report import Report
from tests.support.memory_storage import Bucket, Process
from tests.support.paged_source import PagedSource
from tests.support.sampling import pairs, sample
from tests.unit.test_commit_protocol import assert_tidy, extract, spec_for, visible

BEFORE = [1, 2, 3, 4, 5, 6]
AT_FIRST = [10, 2, 30, 4, 5, 6]
LATER = [10, 2, 30, 4, 50, 6]
LAST = [10, 2, 30, 4, 50, 60]
REUSE = {
    "reuse": "auto",
    "write_mode": "overwrite",
    "split": {"target_bytes": 8192, "max_connections": 1},
    "engine": "processes",  # a Spark of other tests would take its splits elsewhere
}


@dataclass
class Attempt:
    """One attempt in a thread of its own, which runs only in its turns."""

    bucket: Bucket
    number: int
    calls: int = 0
    outcome: Report | BaseException | None = None
    may_run: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stands: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    left: int = 0

    def __post_init__(self) -> None:
        self.process = Process(f"attempt {self.number}", before=self._wait_for_a_turn)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.may_run.acquire()
        try:
            self.outcome = extract(self.bucket, spec_for("r", self.number, **REUSE), self.process)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.outcome = error
        self.stands.release()

    def _wait_for_a_turn(self, call: str) -> None:
        self.calls += 1
        self.left -= 1
        if self.left == 0:
            self.stands.release()
            self.may_run.acquire()

    def go_on(self, calls: int = 10**9) -> bool:
        """Let it run to just before a later call, the next being 1; return whether it has ended."""
        if self.outcome is None:
            if self.thread.ident is None:
                self.thread.start()
            self.left = calls
            self.may_run.release()
            assert self.stands.acquire(timeout=60)
        return self.outcome is not None


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> PagedSource:
    source = PagedSource(list(BEFORE))
    monkeypatch.setattr(extract_jobs.run, "open_source", lambda *_: source)
    return source


def begun(source: PagedSource) -> Bucket:
    """Return a lake with one commit that is out of date."""
    bucket = Bucket()
    source.rows = list(BEFORE)
    extract(bucket, spec_for("first", **REUSE))
    source.rows = list(AT_FIRST)
    return bucket


def orders(source: PagedSource) -> list[tuple[int, int]]:
    """Return before which calls the first attempt stands still, and before which the second."""
    attempt = Attempt(begun(source), 1)
    assert attempt.go_on()
    assert isinstance(attempt.outcome, Report)
    assert attempt.outcome.kept_rows == 2
    calls = attempt.process.calls
    most = len(calls) + 11  # the second also looks at what the first has staged
    found = sample(pairs(range(1, len(calls) + 1), [1 + 7 * n % most for n in range(most)]), 20)
    commits = next(
        n for n, call in enumerate(calls, 1) if re.match("put_if_absent .*/commits/", call)
    )
    at_commit = sample([(commits, n) for n in range(1, most + 1)], 20)
    return list(dict.fromkeys([*found, *at_commit]))


def check(source: PagedSource, bucket: Bucket, attempts: list[Attempt], context: str) -> None:
    """Check what two attempts left, then let another run follow them."""
    for one in attempts:
        assert isinstance(one.outcome, Report | ExtractError), (context, one.outcome)
    reports = [one.outcome for one in attempts if isinstance(one.outcome, Report)]
    assert reports, f"{context}: {[str(one.outcome) for one in attempts]}"
    assert len({report.commit_seq for report in reports}) == 1, context
    assert visible(bucket) in (sorted(AT_FIRST), sorted(LATER)), context
    assert_tidy(bucket)
    source.rows = list(LAST)
    report = extract(bucket, spec_for("next", **REUSE))
    assert visible(bucket) == sorted(LAST), context
    assert report.rows + report.kept_rows == len(LAST), context
    assert report.kept_rows >= 2, context
    assert_tidy(bucket)


def interleaved(source: PagedSource, first: int, second: int) -> tuple[Bucket, list[Attempt]]:
    """Let one attempt make some calls, the next one some, then the first and the second the rest.

    Args:
        source: Its rows change between the two.
        first: Calls of the first attempt.
        second: Calls of the second.
    """
    bucket = begun(source)
    attempts = [Attempt(bucket, 1), Attempt(bucket, 2)]
    attempts[0].go_on(first)
    source.rows = list(LATER)
    attempts[1].go_on(second)
    for one in attempts:
        assert one.go_on()
    return bucket, attempts


def test_two_attempts_in_every_order_of_their_calls(source: PagedSource) -> None:
    resumed = 0
    for first, second in orders(source):
        bucket, attempts = interleaved(source, first, second)
        check(source, bucket, attempts, f"{first} calls, then {second} of the other")
        last = attempts[1].outcome
        resumed += isinstance(last, Report) and last.resumed_splits > 0
    assert resumed


def test_the_second_attempt_is_killed_and_a_third_follows(source: PagedSource) -> None:
    for first, second in orders(source):
        bucket = begun(source)
        attempts = [Attempt(bucket, number) for number in (1, 2, 3)]
        attempts[0].go_on(first)
        source.rows = list(LATER)
        if not attempts[1].go_on(second):
            attempts[1].process.dead = True
            assert attempts[1].go_on()
        assert attempts[2].go_on()
        assert attempts[0].go_on()
        alive = [attempts[0], attempts[2]]
        check(source, bucket, alive, f"{first} calls, then {second} of one that is killed")
