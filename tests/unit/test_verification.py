"""Files compared with the commit log: other processes, and storage that keeps tokens."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest

import extract_jobs.run
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.verification import Verification, verify_files
from extract_jobs.errors import CommitConflict
from tests.support.memory_source import MemorySource
from tests.support.memory_storage import Bucket, Killed, Process, ProcessStorage
from tests.support.specs import make_spec

TARGET, STATE = "s3://lake/raw/t", "s3://lake/_extract/s/t"
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> MemorySource:
    source = MemorySource([1, 2, 3, 4, 5])
    monkeypatch.setattr(extract_jobs.run, "open_source", lambda *_: source)
    return source


def extract(bucket: Bucket, run_id: str, process: Process | None = None) -> None:
    spec = make_spec(
        run_id=run_id, extract_table="t", state_uri=STATE, report_uri=f"{STATE}/{run_id}.json",
        target={"uri": TARGET, "write_mode": "overwrite"},
    )  # fmt: skip
    storage = ProcessStorage(bucket, process or Process(run_id))
    extract_jobs.run.run_extract(spec, clock=lambda: NOW, open_storage=lambda uri: storage)


def verify(bucket: Bucket, process: Process | None = None) -> Verification:
    storage = ProcessStorage(bucket, process or Process("verifier"))
    return verify_files(CommitLog(storage, STATE, storage, TARGET), TARGET)


@pytest.mark.usefixtures("source")
def test_a_run_killed_at_any_call_leaves_no_fault() -> None:
    whole = Process("counted")
    bucket = Bucket()
    extract(bucket, "first")
    extract(bucket, "second", whole)
    for kill_at in range(len(whole.calls)):
        bucket = Bucket()
        extract(bucket, "first")
        process = Process("killed")

        def die(call: str, process: Process = process, at: int = kill_at) -> None:
            process.dead = len(process.calls) > at

        process.before = die
        with contextlib.suppress(Killed):
            extract(bucket, "second", process)
        assert verify(bucket).faults == (), f"killed before {whole.calls[kill_at]}"


@pytest.mark.usefixtures("source")
def test_another_file_of_the_same_size_is_reported_by_its_token() -> None:
    bucket = Bucket()
    extract(bucket, "first")
    [uri] = [uri for uri in bucket.objects if uri.startswith(f"{TARGET}/")]
    bucket.objects[uri] = (bucket.objects[uri][0], "another")
    [fault] = verify(bucket).faults
    assert (fault.uri, fault.problem) == (uri, "was replaced by another file of the same size")


@pytest.mark.usefixtures("source")
def test_a_run_that_commits_meanwhile_is_no_fault() -> None:
    bucket = Bucket()
    extract(bucket, "first")
    process = Process("verifier")
    runs = iter(["second"])

    def commit(call: str) -> None:
        if call == f"list {TARGET}/":
            for run_id in runs:
                extract(bucket, run_id)
                break

    process.before = commit
    found = verify(bucket, process)
    assert found.faults == ()
    assert found.commit is not None
    assert found.commit.seq == 2
    runs = iter("abcdefgh")
    with pytest.raises(CommitConflict, match="verify it while none is running"):
        verify(bucket, process)
