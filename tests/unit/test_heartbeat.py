"""What a running attempt writes of its progress, and when it counts as silent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pyarrow as pa
import pytest
from botocore.exceptions import EndpointConnectionError

import extract_jobs.run
from extract_jobs import worker
from extract_jobs.engine import pandas_free
from extract_jobs.engine.shutdown import Stop
from extract_jobs.reporting.progress import Progress
from extract_jobs.tracking.heartbeat import SILENT_AFTER, Heartbeat, is_silent, progress_of
from extract_jobs.tracking.item import TrackedRun
from extract_jobs.tracking.table import Tracking
from tests.support.memory_dynamodb import MemoryDynamoDB, Table
from tests.support.memory_source import MemorySnapshot, MemorySource
from tests.support.memory_storage import Process
from tests.support.specs import make_spec

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = TrackedRun("sales/public.orders", "run-1", source_name="sales", extract_table="public.orders")


@pytest.fixture
def tracking() -> Tracking:
    return Tracking(MemoryDynamoDB(Table(), Process("worker")), "tracking", lambda: NOW)


def read(tracking: Tracking) -> TrackedRun:
    found = tracking.read(RUN.table_id, RUN.run_id)
    assert found is not None
    return found


def until(wanted: object, seconds: float = 10.0) -> None:
    assert callable(wanted)
    deadline = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_item_shows_how_far_an_attempt_is(tracking: Tracking) -> None:
    assert tracking.start(RUN)
    assert progress_of(read(tracking)) == {}
    with Heartbeat(RUN, tracking, Progress(), 0.01) as beat:
        beat.phase("extract")
        beat.planned(3, 900, 4_000)
        beat.split(0, 300, 1_000, done=True)
        beat.split(2, 20, 70, done=False)
        beat.split(2, 25, 80, done=False)
        wanted = {
            "phase": "extract", "splits": 3, "splits_done": 1, "rows": 325, "bytes": 1_080,
            "estimated_rows": 900, "moved_at": "2026-03-01T12:00:00+00:00",
        }  # fmt: skip
        until(lambda: progress_of(read(tracking)) == wanted)
    run = read(tracking)
    assert (run.status, run.beat_at) == ("RUNNING", "2026-03-01T12:00:00.000+00:00")
    calls = len(tracking.client.process.calls)
    time.sleep(0.05)
    assert len(tracking.client.process.calls) == calls, "it goes on writing after its end"
    # The next attempt starts without the progress of this one.
    tracking.end(replace(RUN, status="RETRYING"))
    assert tracking.start(replace(RUN, attempt=2))
    assert progress_of(read(tracking)) == {}


def test_an_attempt_that_was_replaced_writes_nothing_more(tracking: Tracking) -> None:
    assert tracking.start(RUN)
    tracking.end(replace(RUN, status="RETRYING"))
    assert tracking.start(replace(RUN, attempt=2))
    with Heartbeat(RUN, tracking, Progress(), 0.001) as beat:
        beat.phase("extract")
        until(lambda: not beat._thread.is_alive())
    assert read(tracking).progress == ""


def test_a_table_that_cannot_be_reached_for_a_while_harms_nothing(
    tracking: Tracking, caplog: pytest.LogCaptureFixture
) -> None:
    assert tracking.start(RUN)
    faults = [EndpointConnectionError(endpoint_url="https://dynamodb")] * 2

    def fail(_call: str) -> None:
        if faults:
            raise faults.pop()

    tracking.client.process.before = fail
    with Heartbeat(RUN, tracking, Progress(), 0.001):
        until(lambda: not faults and read(tracking).progress)
    assert caplog.text.count("progress was not written") == 2


def test_all_progress_is_passed_on(tracking: Tracking) -> None:
    seen: list[tuple[object, ...]] = []

    class Shown(Progress):
        def phase(self, name: str) -> None:
            seen.append((name,))

        def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
            seen.append((index, rows, size, done))

        def planned(self, splits: int, rows: int | None, size: int | None) -> None:
            seen.append((splits, rows, size))

    beat = Heartbeat(RUN, tracking, Shown())
    beat.phase("extract")
    beat.planned(1, None, None)
    beat.split(0, 1, 2, done=True)
    assert seen == [("extract",), (1, None, None), (0, 1, 2, True)]


def test_an_attempt_that_hangs_before_its_first_phase_has_progress_too(tracking: Tracking) -> None:
    assert tracking.start(RUN)
    with Heartbeat(RUN, tracking, Progress(), 0.01):
        until(lambda: progress_of(read(tracking)))
    assert datetime.fromisoformat(progress_of(read(tracking))["moved_at"]) == NOW


WHOLE = {"phase": "p", "splits": 1, "splits_done": 0, "rows": 1, "bytes": 2,
         "moved_at": "2026-03-01T12:00:00+00:00"}  # fmt: skip


@pytest.mark.parametrize(
    "damaged",
    ["", "{", "[]", "null", *(json.dumps({**WHOLE, **change}) for change in (
        {"rows": "1"}, {"moved_at": "yesterday"}, {"moved_at": None}, {"phase": None}))],
)  # fmt: skip
def test_progress_that_cannot_be_read_counts_as_none(damaged: str) -> None:
    assert progress_of(replace(RUN, status="RUNNING", progress=damaged)) == {}
    assert progress_of(replace(RUN, status="RUNNING", progress=json.dumps(WHOLE))) == WHOLE


@pytest.mark.parametrize(
    ("run", "silent"),
    [
        ({"beat_at": (NOW - SILENT_AFTER - timedelta(seconds=1)).isoformat()}, True),
        ({"beat_at": (NOW - SILENT_AFTER).isoformat()}, False),
        ({"beat_at": ""}, False),  # a version that writes no progress
        ({"status": "SUCCEEDED", "beat_at": "2020-01-01T00:00:00+00:00"}, False),
        ({"status": "RETRYING", "beat_at": "2020-01-01T00:00:00+00:00"}, False),
    ],
)
def test_who_is_silent(run: dict[str, str], silent: bool) -> None:
    assert is_silent(replace(RUN, **{"status": "RUNNING", **run}), NOW) == silent


class Held(MemorySource):
    """A source whose second batch comes once somebody has let it go."""

    def __init__(self, go: threading.Event) -> None:
        super().__init__([1, 2, 3, 4])
        self.go = go

    @contextmanager
    def snapshot(self, request: object) -> Iterator[MemorySnapshot]:
        del request
        yield MemorySnapshot(HeldReader(self.go))  # type: ignore[arg-type]


class HeldReader:
    def __init__(self, go: threading.Event) -> None:
        self.go, self.nulled = go, {}

    def read(self, _split: object) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([pa.array([1, 2], pa.int64())], names=["id"])
        assert self.go.wait(10)
        yield pa.record_batch([pa.array([3, 4], pa.int64())], names=["id"])


def test_a_worker_writes_its_rows_while_it_waits_for_more(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    go = threading.Event()
    monkeypatch.setattr(extract_jobs.run, "open_source", lambda *_: Held(go))
    monkeypatch.setattr(worker, "client_from_environment", lambda: tracking.client)
    monkeypatch.setattr(worker, "Heartbeat", partial(Heartbeat, seconds=0.01))
    monkeypatch.setattr(pandas_free, "skip_pandas", lambda: None)
    spec = make_spec(tmp_path, tracking_table="tracking", reconcile=False)  # type: ignore[arg-type]
    seen: list[int] = []
    tracking.announce([RUN])

    def look() -> None:
        until(lambda: progress_of(read(tracking)).get("rows") == 2)
        seen.append(2)
        go.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    worker.run_attempt(["--spec_uri", spec.model_dump_json()], stop=Stop())
    watcher.join()
    assert seen == [2]
