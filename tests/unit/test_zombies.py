"""Workers that were given up on and wake up later: what they can still do to the table.

A worker is paused before each of its storage calls in turn. While it stands still, somebody gives
its run up, or runs the table again to the end. Then it goes on as if nothing had happened.
"""

from __future__ import annotations

import pytest

import extract_jobs.run
from extract_jobs.commit.log import CommitLog
from extract_jobs.errors import ExtractError, Outdated
from tests.support.memory_source import MemorySource
from tests.support.memory_storage import Bucket, Process, ProcessStorage
from tests.unit.test_commit_protocol import STATE, assert_tidy, extract, spec_for, visible

pytestmark = pytest.mark.exhaustive
ROWS = [1, 2, 3, 4, 5]
MODES = {
    "append": {},
    "overwrite": {"write_mode": "overwrite"},
    "incremental": {"mode": "incremental", "watermark": {"column": "id"}},
}


@pytest.fixture
def source(monkeypatch):
    source = MemorySource(list(ROWS))
    monkeypatch.setattr(extract_jobs.run, "open_source", lambda *_: source)
    return source


def log_of(bucket, name="judge"):
    storage = ProcessStorage(bucket, Process(name))
    return CommitLog(storage, STATE, storage)


def calls_of(mode):
    process = Process("counted")
    extract(Bucket(), spec_for("old", **MODES[mode]), process)
    return len(process.calls)


def paused(bucket, mode, at, meanwhile):
    """Run ``old``, with something else done before its call number ``at``; return its error."""
    process = Process("zombie")

    def before(call):
        if len(process.calls) == at:
            meanwhile()

    process.before = before
    try:
        extract(bucket, spec_for("old", **MODES[mode]), process)
    except ExtractError as error:
        return error
    return None


@pytest.mark.parametrize("mode", MODES)
def test_a_rerun_publishes_each_row_once_wherever_the_failed_run_was_paused(source, mode):
    taken = 0
    for at in range(1, calls_of(mode) + 1):
        bucket, reports = Bucket(), []

        def rerun(bucket=bucket, reports=reports):
            spec = spec_for("new", reruns=("old",), **MODES[mode])
            reports.append(extract(bucket, spec))

        error = paused(bucket, mode, at, rerun)
        assert visible(bucket) == ROWS, at
        [report] = reports
        assert (report.run_id, report.rows, report.commit_seq is not None) == ("new", 5, True)
        committed_by = log_of(bucket).read(report.commit_seq).run_id
        assert (committed_by == "old") == (error is None), at
        assert error is None or isinstance(error, Outdated)
        taken += committed_by == "old"
        assert_tidy(bucket)
    assert 0 < taken < calls_of(mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_given_up_on_publishes_nothing_or_stands_and_the_outcome_says_which(source, mode):
    standing = 0
    for at in range(1, calls_of(mode) + 1):
        bucket, found = Bucket(), []
        error = paused(
            bucket, mode, at, lambda b=bucket, f=found: f.append(log_of(b).fence("old", by="judge"))
        )
        [commit] = found
        if commit is None:
            assert isinstance(error, Outdated), at
            assert visible(bucket) == []
        else:
            assert (error, commit.run_id, visible(bucket)) == (None, "old", ROWS), at
        standing += commit is not None
        assert_tidy(bucket)
    assert 0 < standing < calls_of(mode)


def test_a_zombie_that_lost_to_another_run_does_not_plan_again(source):
    bucket = Bucket()

    def another_commits_and_the_run_is_given_up():
        extract(bucket, spec_for("another"))
        assert log_of(bucket).fence("old", by="judge") is None

    prepare = next(
        n for n, call in enumerate(calls_seen(), 1) if call.startswith("put_if_absent") and
        "/commits/" in call
    )  # fmt: skip
    error = paused(bucket, "append", prepare, another_commits_and_the_run_is_given_up)
    assert isinstance(error, Outdated)
    assert visible(bucket) == ROWS  # the other run's alone
    assert_tidy(bucket)


def calls_seen():
    process = Process("counted")
    extract(Bucket(), spec_for("old"), process)
    return process.calls


@pytest.mark.parametrize("mode", MODES)
def test_a_rerun_adopts_a_published_commit_and_says_so_in_its_report(source, mode):
    bucket = Bucket()
    first = extract(bucket, spec_for("old", **MODES[mode]))
    again = extract(bucket, spec_for("new", attempt=2, reruns=("older", "old"), **MODES[mode]))
    assert visible(bucket) == ROWS
    assert (again.run_id, again.attempt, again.commit_seq) == ("new", 2, first.commit_seq)
    assert (again.rows, again.files) == (first.rows, first.files)


def test_a_fenced_run_cannot_start_over(source):
    bucket = Bucket()
    assert log_of(bucket).fence("old", by="judge") is None
    with pytest.raises(Outdated, match=r"given up on by judge"):
        extract(bucket, spec_for("old", attempt=2))
    assert visible(bucket) == []
    extract(bucket, spec_for("new", reruns=("old",)))
    assert visible(bucket) == ROWS


def test_fencing_twice_gives_the_same_answer(source):
    bucket = Bucket()
    assert [log_of(bucket).fence("old", by=who) for who in ("one", "two")] == [None, None]
    published = Bucket()
    extract(published, spec_for("old"))
    assert [log_of(published).fence("old", by=who).seq for who in ("one", "two")] == [1, 1]


def test_a_voided_commit_leaves_the_run_its_next_one(source):
    bucket = Bucket()
    process = Process("first")

    def lose_the_upload(call):
        if call.startswith("complete"):
            bucket.uploads.clear()

    process.before = lose_the_upload
    with pytest.raises(ExtractError, match="voided"):
        extract(bucket, spec_for("old"), process)
    extract(bucket, spec_for("old", attempt=2))
    assert visible(bucket) == ROWS
    assert log_of(bucket).fence("old", by="judge").seq == 2


def test_what_was_published_before_claims_were_kept_stands(source):
    bucket = Bucket()
    extract(bucket, spec_for("old"))
    for uri in [uri for uri in bucket.objects if "/claims/" in uri]:
        del bucket.objects[uri]
    assert log_of(bucket).fence("old", by="judge").seq == 1
