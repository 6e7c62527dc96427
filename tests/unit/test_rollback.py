"""Rolling a table back: a new commit with the files of an earlier one, under every crash."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import extract_jobs.run
from extract_jobs.commit import live_files
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.commit.rollback import roll_back
from extract_jobs.commit.verification import verify_files
from extract_jobs.errors import CommitConflict, ConfigError, WriteFailed
from tests.support.memory_source import MemorySource
from tests.support.memory_storage import BEGINNING, Bucket, Killed, Process, ProcessStorage
from tests.unit.test_commit_protocol import (
    STATE,
    TARGET,
    KillAt,
    assert_tidy,
    extract,
    spec_for,
    visible,
)

KEPT = {"write_mode": "overwrite", "keep_retired": "7d"}


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> MemorySource:
    source = MemorySource([1, 2, 3])
    monkeypatch.setattr(extract_jobs.run, "open_source", lambda *_: source)
    monkeypatch.setattr("tests.unit.test_commit_protocol.NOW", BEGINNING + timedelta(days=1))
    return source


@pytest.fixture
def bucket(source: MemorySource) -> Bucket:
    """Three commits: of 1 to 3, of 4, of 5 and 6."""
    bucket = Bucket()
    for run_id, rows in (("one", [1, 2, 3]), ("two", [4]), ("three", [5, 6])):
        source.rows = rows
        extract(bucket, spec_for(run_id, **KEPT))
    assert visible(bucket) == [5, 6]
    return bucket


def log_of(bucket: Bucket, process: Process | None = None) -> CommitLog:
    storage = ProcessStorage(bucket, process or Process("p"))
    return CommitLog(storage, STATE, storage, TARGET)


def back(bucket: Bucket, seq: int, process: Process | None = None, *, keep: bool = True) -> Commit:
    return roll_back(log_of(bucket, process), seq, run_id=f"back-to-{seq}", keep=keep)


def kept(bucket: Bucket) -> set[int]:
    return set(log_of(bucket).kept.by_commit())


def test_a_rollback_is_a_commit_with_the_files_of_an_earlier_one(
    bucket: Bucket, source: MemorySource
) -> None:
    done = back(bucket, 1)
    assert (done.seq, done.parent, visible(bucket)) == (4, 3, [1, 2, 3])
    assert (kept(bucket), len(done.retire)) == ({2, 3, 4}, 1)
    found = log_of(bucket).read(1)
    assert found is not None
    assert (done.schema, done.watermark, done.columns) == (
        found.schema, found.watermark, found.columns,
    )  # fmt: skip
    assert back(bucket, 3).seq == 5, "it can be undone"
    assert visible(bucket) == [5, 6]
    assert not verify_files(log_of(bucket), TARGET).faults
    source.rows = [7]
    extract(bucket, spec_for("later", **KEPT))
    assert visible(bucket) == [7]
    assert_tidy(bucket)


def victim(at: int, moment: str) -> Process:
    """A process that dies around its n-th call, and cannot clean up."""
    process, killer = Process("victim"), KillAt(at)

    def kill(call: str) -> None:
        try:
            killer(call)
        except Killed:
            process.dead = True
            raise

    setattr(process, moment, kill)
    return process


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rollback_killed_at_any_call_leaves_the_one_or_the_other(
    bucket: Bucket, source: MemorySource, moment: str
) -> None:
    begin = dict(bucket.objects)
    for at in range(1, 200):
        bucket.objects, bucket.uploads = dict(begin), {}
        process = victim(at, moment)
        try:
            back(bucket, 1, process)
        except Killed:
            pass
        else:
            break
        assert_tidy(bucket)
        assert visible(bucket) in ([1, 2, 3], [5, 6]), f"{moment} call {at}"
        back_again = log_of(bucket).finish_last().published
        assert back_again is not None
        if back_again.seq == 3:
            assert back(bucket, 1).seq == 4
        assert visible(bucket) == [1, 2, 3], f"{moment} call {at}"
        assert_tidy(bucket)
    else:
        raise AssertionError("it never ended")
    assert at > 15, "the loop killed it at each of its calls"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_killed_at_any_call_keeps_what_it_retires(
    bucket: Bucket, source: MemorySource, moment: str
) -> None:
    begin = dict(bucket.objects)
    for at in range(1, 300):
        bucket.objects, bucket.uploads = dict(begin), {}
        process = victim(at, moment)
        source.rows = [7]
        try:
            extract(bucket, spec_for("four", **KEPT), process)
        except Killed:
            pass
        else:
            break
        extract(bucket, spec_for("four", attempt=2, **KEPT))
        assert visible(bucket) == [7]
        back(bucket, 3)
        assert visible(bucket) == [5, 6], f"{moment} call {at}"
    assert at > 20


def test_a_late_publisher_of_an_older_commit_deletes_nothing_of_a_rollback(bucket: Bucket) -> None:
    second = log_of(bucket).read(2)
    assert second is not None
    back(bucket, 1)
    storage = ProcessStorage(bucket, Process("late"))
    for uri in second.retire:
        storage.copy(uri, "nowhere")
        storage.delete(uri)
    assert visible(bucket) == [1, 2, 3]


def test_a_run_that_commits_meanwhile_wins(bucket: Bucket, source: MemorySource) -> None:
    source.rows = [8]

    def interfere(call: str) -> None:
        if call.startswith("put_if_absent") and "/commits/" in call:
            process.before = lambda _: None
            extract(bucket, spec_for("faster", **KEPT))

    process = Process("slow", before=interfere)
    with pytest.raises(CommitConflict, match="another run committed 4 meanwhile"):
        back(bucket, 1, process)
    assert visible(bucket) == [8]
    assert not bucket.uploads


def test_what_is_kept_goes_when_its_time_is_over(bucket: Bucket) -> None:
    log = log_of(bucket)
    day = timedelta(days=1)
    assert log.kept.drop(7 * day, BEGINNING + 6 * day) == []
    assert len(log.kept.drop(7 * day, BEGINNING + 7 * day, dry_run=True)) == 2
    assert kept(bucket) == {2, 3}
    assert len(log.kept.drop(7 * day, BEGINNING + 7 * day)) == 2
    assert kept(bucket) == set()
    with pytest.raises(ConfigError, match="1 of 1 files of commit 1 are not kept any more"):
        back(bucket, 1)
    assert (visible(bucket), bucket.uploads) == ([5, 6], {})


def test_the_next_run_drops_what_is_over(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.test_commit_protocol.NOW", datetime(2027, 1, 1, tzinfo=UTC))
    extract(bucket, spec_for("four", **KEPT))
    assert kept(bucket) == set()


def test_a_commit_without_keep_retired_keeps_nothing(bucket: Bucket) -> None:
    done = back(bucket, 2, keep=False)
    assert kept(bucket) == {2, 3}
    assert b"keeps_retired" not in done.to_bytes(), "older versions can read it"
    with pytest.raises(ConfigError, match="1 of 1 files of commit 3 are not kept"):
        back(bucket, 3)


def test_a_damaged_kept_file_is_not_brought_back(bucket: Bucket) -> None:
    [uri] = [u for u in bucket.objects if "/kept/00000000000000000002/" in u]
    data, token = bucket.objects[uri]
    for damaged in ((data[:-1], token), (data, "another")):
        bucket.objects[uri] = damaged
        with pytest.raises(WriteFailed, match="is not the file of"):
            back(bucket, 1)
        assert (visible(bucket), bucket.uploads) == ([5, 6], {})


@pytest.mark.parametrize(
    ("seq", "said"),
    [(3, "commit 3 is the latest one"), (9, "the table has no commit 9"), (0, "no commit 0")],
)
def test_where_a_table_cannot_go_back_to(bucket: Bucket, seq: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        back(bucket, seq)


def test_a_refused_rollback_says_that_it_finished_a_commit(
    bucket: Bucket, source: MemorySource
) -> None:
    source.rows = [7]

    def kill(call: str) -> None:
        if call.startswith("put_if_absent") and "/commits/" in call:
            process.dead = True
            raise Killed(call)

    process = Process("victim", after=kill)
    with pytest.raises(Killed):
        extract(bucket, spec_for("four", **KEPT), process)
    assert visible(bucket) == [5, 6]
    said = (
        "has no commit 9; .*Before that, commit 4 of run four, which had no outcome, was published"
    )
    with pytest.raises(ConfigError, match=said):
        back(bucket, 9)
    assert visible(bucket) == [7]
    with pytest.raises(ConfigError, match=r"its commits$"):
        back(bucket, 9)


def test_increments_are_not_rolled_back(source: MemorySource) -> None:
    bucket = Bucket()
    more = {"mode": "incremental", "watermark": {"column": "id"}}
    for run_id in ("one", "two", "three"):
        extract(bucket, spec_for(run_id, **more))
        source.rows = [*source.rows, max(source.rows) + 1]
    before = visible(bucket)
    for seq in (1, 2):  # also to the first, which has one interval: later ones would be dropped
        with pytest.raises(ConfigError, match="hold several increments"):
            back(bucket, seq)
    assert visible(bucket) == before


def test_keep_retired_needs_one_kind_of_storage() -> None:
    with pytest.raises(ValueError, match="both in S3, or both in local folders"):
        spec_for("r", keep_retired="1d", state_uri="/tmp/state", report_uri="/tmp/r.json")


def test_files_that_a_rollback_brings_back_are_found_by_the_interval_of_their_rows(
    source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by that of the commit it goes back to, which only emptied partitions."""
    monkeypatch.setattr(live_files, "LIVE_EVERY", 3)
    monkeypatch.setattr(live_files, "_COMMITS_BEFORE_SEGMENTS", 0)
    bucket, runs = Bucket(), 0

    def run(rows: list[int], **bounds: int) -> None:
        nonlocal runs
        runs += 1
        source.rows = rows
        target = {"uri": TARGET, "write_mode": "overwrite_partitions", "partition_by": ["id"]}
        watermark = {"column": "id", **bounds}
        more = {"mode": "incremental", "watermark": watermark, "keep_retired": "7d"}
        extract(bucket, spec_for(f"r{runs}", target=target, **more))

    run([1, 2, 3, 4, 5])
    run([1, 2, 3, 5], lower=3, upper=4)
    run([1, 2, 3], lower=4, upper=5)
    back(bucket, 2)
    for newest in range(6, 10):
        run([*range(1, 4), *range(5, newest + 1)])
    run([2, 3], lower=0, upper=2)
    assert visible(bucket) == [2, 3, 5, 6, 7, 8, 9]
