"""Two incremental runs under every crash and many interleavings, with the real `run_extract`.

As tests/unit/test_commit_protocol.py, whose parts it uses; the source changes between attempts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import extract_jobs.commit.live_files
import extract_jobs.run
from extract_jobs.commit.log import CommitLog
from extract_jobs.errors import CommitConflict, ReconcileFailed, WriteFailed
from extract_jobs.reporting.report import Report
from extract_jobs.sources import ReadRequest
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.memory_source import MemorySnapshot, MemorySource
from tests.support.memory_storage import Bucket, Killed, Process, ProcessStorage
from tests.support.sampling import examples
from tests.unit.test_commit_protocol import (
    STATE,
    TARGET,
    KillAt,
    assert_tidy,
    extract,
    run_together,
    spec_for,
    visible,
)

STYLES = ["plain", "lag", "folders", "overwrite_partitions"]


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> MemorySource:
    source = MemorySource([])
    monkeypatch.setattr(extract_jobs.run, "open_source", lambda *_: source)
    # So that records of live files take part, as after a long history.
    monkeypatch.setattr(extract_jobs.commit.live_files, "LIVE_EVERY", 2)
    return source


def incremental(
    run_id: str, attempt: int = 1, style: str = "plain", **watermark: object
) -> ExtractSpec:
    target: dict[str, object] = {"uri": TARGET}
    columns: dict[str, object] = {}
    settings: dict[str, object] = {"column": "id", **watermark}
    if style == "overwrite_partitions":
        target |= {"write_mode": style, "partition_by": ["id"]}
        settings["lag"] = 3
    elif style in {"lag", "folders"}:
        settings["lag"], columns["key"] = 3, ["id"]
    if style == "folders":
        target["partition_by"] = ["id"]
    return spec_for(
        run_id, attempt, mode="incremental", watermark=settings, target=target, columns=columns
    )


def first_run(bucket: Bucket, source: MemorySource, style: str) -> None:
    source.rows[:] = [1, 2, 3, 5]
    assert extract(bucket, incremental("first", style=style)).rows == 4
    # 4 comes late: only a lag sees it.
    source.rows[:] = [1, 2, 3, 5, 6, 7] if style == "plain" else [1, 2, 3, 4, 5, 6, 7]


def calls_of(source: MemorySource, style: str) -> int:
    bucket, process = Bucket(), Process("counted")
    first_run(bucket, source, style)
    extract(bucket, incremental("r", style=style), process)
    return len(process.calls)


def killer(process: Process, at: int) -> Callable[[str], None]:
    count = KillAt(at)

    def kill(call: str) -> None:
        try:
            count(call)
        except Killed:
            process.dead = True
            raise

    return kill


def test_rows_that_vanish_while_they_are_read_leave_the_watermark_where_it_was(
    source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket()
    source.rows = [1, 2]
    extract(bucket, incremental("first"))
    source.rows = [1, 2, 9]
    look = source.snapshot

    def emptied(request: ReadRequest) -> AbstractContextManager[MemorySnapshot]:
        source.rows = [1, 2]
        return look(request)

    monkeypatch.setattr(source, "snapshot", emptied)
    report = extract(bucket, incremental("second"))
    assert (report.rows, report.commit_seq) == (0, None)
    assert report.watermark == {"type": "integer", "text": "2"}
    source.rows = [1, 2, 9]
    monkeypatch.undo()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_any_call_of_a_second_run(
    source: MemorySource, style: str, moment: str
) -> None:
    for at in range(1, calls_of(source, style) + 1):
        bucket, process = Bucket(), Process("victim")
        first_run(bucket, source, style)
        setattr(process, moment, killer(process, at))
        with pytest.raises(Killed):
            extract(bucket, incremental("r", style=style), process)
        where = f"killed {moment} call {at}: {process.calls[-1]}"
        assert {1, 2, 3} <= set(visible(bucket)), where
        if style != "overwrite_partitions":
            assert len(visible(bucket)) == len(set(visible(bucket))), where
        # The source has moved on; what was pinned is what comes, if it was pinned.
        pinned = any("/plans/r/" in uri for uri in bucket.objects)
        rows = list(source.rows)
        source.rows.append(8)
        report = extract(bucket, incremental("r", 2, style))
        assert report.watermark == {"type": "integer", "text": "7" if pinned else "8"}, where
        assert visible(bucket) == (rows if pinned else source.rows), where
        again = extract(bucket, incremental("r", 3, style))
        assert again.commit_seq == report.commit_seq
        source.rows.append(9)
        extract(bucket, incremental("third", style=style))
        assert visible(bucket) == source.rows, where
        assert_tidy(bucket)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_any_call_of_the_first_run(
    source: MemorySource, style: str, moment: str
) -> None:
    source.rows[:] = [1, 2, 3]
    counted = Process("counted")
    extract(Bucket(), incremental("r", style=style), counted)
    for at in range(1, len(counted.calls) + 1):
        source.rows[:] = [1, 2, 3]
        bucket, process = Bucket(), Process("victim")
        setattr(process, moment, killer(process, at))
        with pytest.raises(Killed):
            extract(bucket, incremental("r", style=style), process)
        source.rows += [4, 5]
        extract(bucket, incremental("r", 2, style))
        extract(bucket, incremental("second", style=style))
        assert visible(bucket) == source.rows, f"killed {moment} call {at}: {process.calls[-1]}"
        assert_tidy(bucket)


@pytest.mark.parametrize("style", ["plain", "lag", "overwrite_partitions"])
def test_rows_that_arrive_during_a_read_fail_it_only_if_no_later_run_reads_them(
    source: MemorySource, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    source.rows = [1, 2]
    look, counts = source.snapshot, iter([2, 3])  # before and after

    @contextmanager
    def alone(request: ReadRequest) -> Iterator[MemorySnapshot]:
        with look(request) as found:
            yield replace(found, shared=False)

    monkeypatch.setattr(source, "snapshot", alone)
    monkeypatch.setattr(MemorySnapshot, "count", lambda _: next(counts))
    spec = incremental("first", style=style)
    if style == "overwrite_partitions":
        assert spec.watermark is not None
        spec = spec.model_copy(
            update={"watermark": spec.watermark.model_copy(update={"lag": None})}
        )
    if style == "plain":
        with pytest.raises(ReconcileFailed, match="counts 3 rows in the interval but 2 were read"):
            extract(Bucket(), spec)
    else:
        assert extract(Bucket(), spec).rows == 2


def test_the_rows_of_a_voided_commit_come_again(source: MemorySource) -> None:
    bucket, process = Bucket(), Process("p")
    first_run(bucket, source, "lag")
    process.after = lambda call: bucket.uploads.clear() if "/commits/" in call else None
    with pytest.raises(WriteFailed, match="voided"):
        extract(bucket, incremental("r", style="lag"), process)
    assert visible(bucket) == [1, 2, 3, 5]
    report = extract(bucket, incremental("r", 2, style="lag"))
    assert (report.rows, report.repeated_rows, report.commit_seq) == (3, 2, 3)
    assert visible(bucket) == source.rows
    assert_tidy(bucket)


def test_an_empty_interval_commits_nothing_and_keeps_the_watermark(source: MemorySource) -> None:
    bucket = Bucket()
    first_run(bucket, source, "lag")
    source.rows[:] = [1, 2, 3, 5]
    before = {u for u in bucket.objects if "/commits/" in u or u.startswith(TARGET)}
    for style in ("plain", "lag"):  # no value above; or only rows that are committed already
        report = extract(bucket, incremental(f"r-{style}", style=style))
        assert (report.status, report.rows, report.commit_seq) == ("succeeded", 0, None)
        assert report.watermark == {"type": "integer", "text": "5"}
    assert {u for u in bucket.objects if "/commits/" in u or u.startswith(TARGET)} == before
    assert not bucket.uploads
    source.rows += [6]
    assert extract(bucket, incremental("next")).rows == 1


@pytest.mark.parametrize(("on_empty", "files"), [("schema_file", 1), ("nothing", 0)])
def test_the_first_run_of_an_empty_table(
    source: MemorySource, monkeypatch: pytest.MonkeyPatch, on_empty: str, files: int
) -> None:
    """Rows that come between planning and reading are neither lost nor doubled."""
    bucket = Bucket()
    original = MemorySource.snapshot

    def late(self: MemorySource, request: object) -> object:
        self.rows[:] = [1, 2]
        return original(self, request)

    monkeypatch.setattr(MemorySource, "snapshot", late)
    spec = incremental("r").model_copy(update={"on_empty": on_empty})
    report = extract(bucket, spec)
    assert (report.rows, report.files, report.watermark) == (0, files, None)
    assert (report.commit_seq is not None) == bool(files)
    assert extract(bucket, incremental("next")).rows == 2
    assert visible(bucket) == [1, 2]
    assert_tidy(bucket)


def test_a_backfill_empties_partitions_that_have_no_row_left(source: MemorySource) -> None:
    bucket = Bucket()
    first_run(bucket, source, "overwrite_partitions")
    extract(bucket, incremental("r", style="overwrite_partitions"))
    source.rows[:] = [1, 5, 6, 7]
    report = extract(bucket, incremental("fill", style="overwrite_partitions", lower=1, upper=4))
    assert (report.rows, report.files) == (0, 0)
    assert report.commit_seq == 3
    assert report.watermark == {"type": "integer", "text": "7"}
    assert visible(bucket) == source.rows
    assert_tidy(bucket)


def test_live_files_are_what_no_later_commit_retired(source: MemorySource) -> None:
    """However many commits there are, few are read to tell; and all ways to tell agree."""
    bucket = Bucket()
    for n in range(1, 9):
        source.rows.append(n)
        extract(bucket, incremental(f"r{n}", style="overwrite_partitions"))
    process = Process("judge")
    storage = ProcessStorage(bucket, process)
    log = CommitLog(storage, STATE, storage)
    newest = log.finish_last().published
    process.calls.clear()
    live = {f.staged.uri for f in log.live_files(newest)}
    assert len([c for c in process.calls if "/commits/" in c]) <= 2
    assert live == {u for u in bucket.objects if u.startswith(TARGET)}
    # The size of the state does not grow by all live files time and again.
    lists = [u[-28:-8].lstrip("0") for u in sorted(bucket.objects) if "/live/segments/" in u]
    assert lists == ["4", "6"]
    for uri in [u for u in bucket.objects if "/live/" in u]:
        del bucket.objects[uri]
    assert {f.staged.uri for f in log.live_files(newest)} == live


orders = st.lists(st.integers(0, 1), max_size=120)
kill_points = st.dictionaries(st.integers(0, 1), st.integers(1, 45), max_size=2)


@settings(
    max_examples=examples(40), deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(orders, kill_points, st.sampled_from(STYLES), st.booleans())
def test_two_processes_at_once(
    source: MemorySource, order: list[int], kills: dict[int, int], style: str, one_run: bool
) -> None:
    """Two attempts of one run, or two runs: every row comes once."""
    bucket = Bucket()
    first_run(bucket, source, style)
    names = [("r", 1), ("r", 2)] if one_run else [("a", 1), ("b", 1)]
    results = run_together(
        bucket, [incremental(*name, style=style) for name in names], order, kills
    )
    for result in results:
        assert isinstance(result, Report | Killed | CommitConflict), repr(result)
    source.rows.append(8)
    for name in {name for name, _ in names}:
        extract(bucket, incremental(name, 3, style))
    extract(bucket, incremental("last", style=style))
    assert visible(bucket) == source.rows
    assert_tidy(bucket)
