"""What `run_splits` does with the rest when one split has failed."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, cast

import pytest

from extract_jobs.engine import run_splits as engine
from extract_jobs.engine.placement import Placement
from extract_jobs.engine.split_task import Progress, SplitFailure, SplitResult
from extract_jobs.errors import Interrupted, SourceQueryFailed, StopRequested
from extract_jobs.sources.splits import Split
from tests.support.scattered import ScatteredReader, scattered_task


class Context:
    """A Spark that cancels the job that is under way, and knows of none that comes later."""

    def __init__(self) -> None:
        self.asked, self.under_way, self.cancelled = (threading.Event() for _ in range(3))

    def setJobGroup(self, *_: object, **__: object) -> None:  # noqa: N802 - Spark's name
        pass

    def cancelJobGroup(self, _: str) -> None:  # noqa: N802
        if self.under_way.is_set():
            self.cancelled.set()
        self.asked.set()


def test_a_job_that_begins_just_after_the_others_were_cancelled_is_cancelled_too(
    tmp_path, monkeypatch
):
    context, on_its_way = Context(), threading.Event()

    def run(_task, _reader, unit, _context, _stop):
        if unit[0].index == 0:
            assert on_its_way.wait(20)
            return SplitFailure("SourceQueryFailed", "no")
        on_its_way.set()  # past its look at `stop`, and without a job that could be cancelled
        assert context.asked.wait(20)
        context.under_way.set()
        assert context.cancelled.wait(20), "it goes on to its end, and all wait for it"
        ended.append(unit)
        raise Interrupted("cancelled")

    ended: list[object] = []
    monkeypatch.setattr(engine, "run_on_spark", run)
    monkeypatch.setattr(engine, "_CANCEL_SECONDS", 0.01, raising=False)
    reader = ScatteredReader(rows=1, partitions=1)
    task = replace(scattered_task(tmp_path), reader=reader)
    with pytest.raises(SourceQueryFailed, match="no"):
        engine.run_splits(
            task, [Split(0), Split(1)], placement=Placement("spark", 2, cast("Any", context)),
            progress=Progress(),
        )  # fmt: skip
    assert len(ended) == 1


@pytest.mark.parametrize(
    ("resumable", "grace", "staged"), [(True, 20.0, [0, 1]), (True, 0.0, []), (False, 20.0, [])]
)
def test_splits_under_way_are_finished_before_a_stop_if_they_are_of_use(
    tmp_path, monkeypatch, resumable, grace, staged
):
    begun, go_on, ended = threading.Barrier(3), threading.Event(), threading.Event()

    def run(_task, _reader, unit, _context, _stop):
        begun.wait(20)
        while not go_on.wait(0.01):
            if ended.is_set():
                raise Interrupted("cancelled")
        return tuple(SplitResult(split.index, 0, ()) for split in unit)

    def check():
        begun.wait(20)
        if grace and resumable:
            threading.Timer(0.05, go_on.set).start()
        raise StopRequested("stopped", grace_seconds=grace)

    found: list[int] = []
    monkeypatch.setattr(engine, "run_on_spark", run)
    monkeypatch.setattr(engine, "_CHECK_SECONDS", 0.01)
    context = Context()
    monkeypatch.setattr(context, "cancelJobGroup", lambda _: ended.set())
    task = replace(scattered_task(tmp_path), reader=ScatteredReader(rows=1, partitions=1))
    with pytest.raises(StopRequested):
        engine.run_splits(
            task, [Split(n) for n in range(4)],
            placement=Placement("spark", 2, cast("Any", context)), progress=Progress(),
            check=check, finished=lambda some: found.extend(one.index for one in some),
            resumable=resumable,
        )  # fmt: skip
    assert sorted(found) == staged
