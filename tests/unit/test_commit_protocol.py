"""The commit protocol under every crash and many interleavings, with the real `run_extract`.

The storage and the source are in memory, so that thousands of histories run in seconds; the same
is done with real processes and real storage in tests/crash.
"""

from __future__ import annotations

import io
import json
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import extract_jobs.run
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.sealed import seal, without_seal
from extract_jobs.errors import (
    CommitConflict,
    ConfigError,
    ExtractError,
    SchemaChanged,
    WriteFailed,
)
from extract_jobs.reporting.report import Report
from extract_jobs.schema import Column
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.memory_source import MemorySource
from tests.support.memory_storage import Bucket, Killed, Process, ProcessStorage
from tests.support.sampling import examples

TARGET, STATE = "s3://lake/raw/t", "s3://lake/_extract/s/t"
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def spec_for(
    run_id: str, attempt: int = 1, write_mode: str = "append", **more: object
) -> ExtractSpec:
    return ExtractSpec.model_validate(
        {
            "run_id": run_id,
            "attempt": attempt,
            "source_name": "s",
            "source_type": "postgres",
            "connection": {"host": "nowhere"},
            "extract_table": "t",
            "target": {"uri": TARGET, "write_mode": write_mode},
            "state_uri": STATE,
            "report_uri": f"{STATE}/reports/{run_id}/{attempt}.json",
            **more,
        }
    )


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> MemorySource:
    source = MemorySource([1, 2, 3, 4, 5])
    monkeypatch.setattr(extract_jobs.run, "open_source", lambda *_: source)
    return source


def extract(bucket: Bucket, spec: ExtractSpec, process: Process | None = None) -> Report:
    storage = ProcessStorage(bucket, process or Process("p"))
    return extract_jobs.run.run_extract(spec, clock=lambda: NOW, open_storage=lambda uri: storage)


def visible(bucket: Bucket) -> list[int]:
    rows: list[int] = []
    for uri, (data, _) in bucket.objects.items():
        if uri.startswith(TARGET + "/id="):  # partitioned by id: the folder holds the value
            count = pq.read_metadata(io.BytesIO(data)).num_rows
            rows.extend([int(uri.removeprefix(TARGET + "/id=").split("/")[0])] * count)
        elif uri.startswith(TARGET + "/"):
            rows.extend(pq.read_table(io.BytesIO(data)).column("id").to_pylist())
    return sorted(rows)


def assert_tidy(bucket: Bucket) -> None:
    """After recovery no upload is left, and the target holds the live files and nothing else."""
    storage = ProcessStorage(bucket, Process("judge"))
    log = CommitLog(storage, STATE, storage)
    log.recover(TARGET, abandon_after=timedelta(0), now=NOW)
    assert not bucket.uploads
    live = {f.staged.uri for f in log.live_files(log.finish_last().published)}
    assert {u for u in bucket.objects if u.startswith(TARGET + "/")} == live


def calls_of(write_mode: str) -> int:
    process = Process("counted")
    bucket = bucket_with_a_commit(write_mode)
    extract(bucket, spec_for("r", write_mode=write_mode), process)
    return len(process.calls)


def bucket_with_a_commit(write_mode: str) -> Bucket:
    bucket = Bucket()
    if write_mode == "overwrite":
        extract(bucket, spec_for("first", write_mode=write_mode))
    return bucket


class KillAt:
    """Kills its process around its n-th call."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self, call: str) -> None:
        self.seen += 1
        if self.seen == self.at:
            raise Killed(call)


@pytest.mark.parametrize("write_mode", ["append", "overwrite"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_any_call_then_the_next_attempt(
    source: MemorySource, monkeypatch: pytest.MonkeyPatch, write_mode: str, moment: str
) -> None:
    for at in range(1, calls_of(write_mode) + 1):
        bucket = bucket_with_a_commit(write_mode)
        process = Process("victim")
        killer = KillAt(at)

        def kill(call: str, process: Process = process, killer: KillAt = killer) -> None:
            try:
                killer(call)
            except Killed:
                process.dead = True
                raise

        setattr(process, moment, kill)
        with pytest.raises(Killed):
            extract(bucket, spec_for("r", write_mode=write_mode), process)
        if write_mode == "overwrite":
            # Replace is never "delete, then write": what was there, or what replaces it, is there.
            assert set(visible(bucket)) == set(source.rows)
        report = extract(bucket, spec_for("r", attempt=2, write_mode=write_mode))
        assert (report.status, report.rows) == ("succeeded", 5), at
        assert visible(bucket) == source.rows, f"killed {moment} call {at}: {process.calls[-1]}"
        assert_tidy(bucket)
        again = extract(bucket, spec_for("r", attempt=3, write_mode=write_mode))
        assert again.commit_seq == report.commit_seq
        assert visible(bucket) == source.rows


def test_a_repeated_attempt_writes_nothing_but_its_report(source: MemorySource) -> None:
    bucket = Bucket()
    first = extract(bucket, spec_for("r"))
    before = {u: d for u, d in bucket.objects.items() if "/reports/" not in u}
    source.rows.append(6)
    second = extract(bucket, spec_for("r", attempt=2))
    after = {u: d for u, d in bucket.objects.items() if "/reports/" not in u}
    assert (second.rows, second.commit_seq, second.attempt) == (first.rows, first.commit_seq, 2)
    assert before == after


def test_a_commit_whose_upload_has_gone_is_voided_and_its_rows_come_again(
    source: MemorySource,
) -> None:
    bucket = Bucket()
    process = Process("p")

    def lose_uploads(call: str) -> None:
        if call.startswith("put_if_absent") and "/commits/" in call:
            bucket.uploads.clear()

    process.after = lose_uploads
    with pytest.raises(WriteFailed, match="voided"):
        extract(bucket, spec_for("r"), process)
    assert visible(bucket) == []
    report = extract(bucket, spec_for("r", attempt=2))
    assert (report.rows, report.commit_seq) == (5, 2)
    assert visible(bucket) == source.rows
    assert_tidy(bucket)


FIVE_FILES = {"uri": TARGET, "partition_by": ["id"]}


def lose_one_upload(bucket: Bucket, process: Process) -> None:
    """Make the third staged file vanish as soon as the commit record is there."""

    def lose(call: str) -> None:
        if call.startswith("put_if_absent") and "/commits/" in call:
            bucket.uploads.pop(sorted(bucket.uploads)[2])

    process.after = lose


def test_of_a_voided_commit_no_file_stays_visible_and_no_upload_is_left(
    source: MemorySource,
) -> None:
    bucket, process = Bucket(), Process("p")
    lose_one_upload(bucket, process)
    with pytest.raises(WriteFailed, match="voided"):
        extract(bucket, spec_for("r", target=FIVE_FILES), process)
    assert visible(bucket) == []
    assert not bucket.uploads


def test_voiding_that_was_killed_at_any_call_is_finished_by_the_next_run(
    source: MemorySource,
) -> None:
    """Whether the process that voids dies before or after the outcome, nothing of it stays."""
    bucket, counted = Bucket(), Process("p")
    lose_one_upload(bucket, counted)
    with pytest.raises(WriteFailed):
        extract(bucket, spec_for("r", target=FIVE_FILES), counted)
    for at in range(1, len(counted.calls) + 1):
        bucket, process = Bucket(), Process("p")
        lose_one_upload(bucket, process)

        def kill(call: str, process: Process = process, at: int = at) -> None:
            process.dead = len(process.calls) == at

        process.before = kill
        with pytest.raises(Killed):
            extract(bucket, spec_for("r", target=FIVE_FILES), process)
        for attempt in (2, 3):  # a commit that this attempt voids is extracted by the next
            try:
                extract(bucket, spec_for("r", attempt=attempt, target=FIVE_FILES))
            except WriteFailed:
                assert visible(bucket) == []
        assert visible(bucket) == source.rows, counted.calls[at - 1]
        assert_tidy(bucket)


def test_a_voided_overwrite_leaves_the_table_as_it_was(source: MemorySource) -> None:
    bucket = bucket_with_a_commit("overwrite")
    source.rows[:] = [7, 8, 9]
    process = Process("p")
    process.after = lambda call: bucket.uploads.clear() if "/commits/" in call else None
    with pytest.raises(WriteFailed):
        extract(bucket, spec_for("r", write_mode="overwrite"), process)
    assert visible(bucket) == [1, 2, 3, 4, 5]
    extract(bucket, spec_for("r2", write_mode="overwrite"))
    assert visible(bucket) == [7, 8, 9]
    assert_tidy(bucket)


def test_overwrite_retires_all_live_files_and_append_none(source: MemorySource) -> None:
    bucket = Bucket()
    for n in range(3):
        extract(bucket, spec_for(f"a{n}"))
    assert visible(bucket) == sorted(source.rows * 3)
    extract(bucket, spec_for("o", write_mode="overwrite"))
    assert visible(bucket) == source.rows
    extract(bucket, spec_for("a9"))
    assert visible(bucket) == sorted(source.rows * 2)
    assert_tidy(bucket)


def test_another_target_or_source_with_the_same_state_is_refused(source: MemorySource) -> None:
    bucket = Bucket()
    extract(bucket, spec_for("r"))
    with pytest.raises(ConfigError, match=r"commits went to .*raw/t, but target.uri is now"):
        extract(bucket, spec_for("r2", target={"uri": "s3://lake/raw/other"}))
    source.system = "2"
    with pytest.raises(ConfigError, match="came from source"):
        extract(bucket, spec_for("r3"))
    assert visible(bucket) == source.rows


def test_a_target_that_other_data_occupies_is_refused(source: MemorySource) -> None:
    bucket = Bucket()
    bucket.objects[f"{TARGET}/someone.parquet"] = (b"theirs", None)
    with pytest.raises(ConfigError, match=r"already holds data .*someone\.parquet"):
        extract(bucket, spec_for("r"))
    assert not bucket.uploads
    assert bucket.objects[f"{TARGET}/someone.parquet"] == (b"theirs", None)


@pytest.mark.parametrize("write_mode", ["append", "overwrite"])
def test_an_empty_table_leaves_one_file_with_its_schema(
    source: MemorySource, write_mode: str
) -> None:
    source.rows.clear()
    bucket = Bucket()
    report = extract(bucket, spec_for("r", write_mode=write_mode))
    assert (report.rows, report.files) == (0, 1)
    report = extract(bucket, spec_for("r2", write_mode=write_mode, on_empty="nothing"))
    assert (report.rows, report.files) == (0, 0)
    assert_tidy(bucket)


# --- interleavings -------------------------------------------------------------------------


@dataclass
class Turnstile:
    """Lets the calls of several processes through in a given order.

    ``order`` is a list of process numbers; the head names whose call goes next. A process that
    has ended is skipped; when the list is used up everybody runs free.
    """

    order: list[int]
    ended: set[int] = field(default_factory=set)
    condition: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, number: int) -> None:
        with self.condition:
            self.condition.wait_for(lambda: self._head() in {None, number}, timeout=10)
            if self.order:
                self.order.pop(0)
            self.condition.notify_all()

    def _head(self) -> int | None:
        while self.order and self.order[0] in self.ended:
            self.order.pop(0)
        return self.order[0] if self.order else None

    def end(self, number: int) -> None:
        with self.condition:
            self.ended.add(number)
            self.condition.notify_all()


def run_together(
    bucket: Bucket, specs: list[ExtractSpec], order: list[int], kills: dict[int, int]
) -> list[Report | BaseException]:
    """Run one process per spec under an order of calls; ``kills`` is process → call number."""
    turnstile = Turnstile(list(order))
    results: list[Report | BaseException | None] = [None] * len(specs)

    def work(number: int) -> None:
        process = Process(f"p{number}")

        def before(call: str) -> None:
            turnstile.wait_for(number)
            if len(process.calls) == kills.get(number):
                process.dead = True

        process.before = before
        try:
            results[number] = extract(bucket, specs[number], process)
        except (ExtractError, Killed) as error:
            results[number] = error
        finally:
            turnstile.end(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(specs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert all(r is not None for r in results)
    return [r for r in results if r is not None]


orders = st.lists(st.integers(0, 1), max_size=120)
kill_points = st.dictionaries(st.integers(0, 1), st.integers(1, 40), max_size=2)
together = settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@together
@given(order=orders, kills=kill_points, write_mode=st.sampled_from(["append", "overwrite"]))
def test_two_attempts_of_one_run_at_once_commit_it_once(
    source: MemorySource, order: list[int], kills: dict[int, int], write_mode: str
) -> None:
    bucket = bucket_with_a_commit(write_mode)
    specs = [spec_for("r", attempt=n, write_mode=write_mode) for n in (1, 2)]
    results = run_together(bucket, specs, order, kills)
    final = extract(bucket, spec_for("r", attempt=3, write_mode=write_mode))
    for result in [*results, final]:
        if isinstance(result, Report):
            assert (result.rows, result.commit_seq) == (5, final.commit_seq)
        else:
            assert isinstance(result, Killed), repr(result)
    if not kills:
        assert not bucket.uploads  # the loser has dropped its own
    assert visible(bucket) == source.rows
    assert_tidy(bucket)


@together
@given(order=orders, kills=kill_points)
def test_two_runs_at_once_each_commit_once_onto_their_own_base(
    source: MemorySource, order: list[int], kills: dict[int, int]
) -> None:
    bucket = Bucket()
    results = run_together(bucket, [spec_for("a"), spec_for("b")], order, kills)
    finals = [extract(bucket, spec_for(run, attempt=2)) for run in ("a", "b")]
    assert {f.commit_seq for f in finals} == {1, 2}
    for result, final in zip(results, finals, strict=True):
        if isinstance(result, Report):
            assert result.commit_seq == final.commit_seq
        else:
            assert isinstance(result, Killed | CommitConflict), repr(result)
    assert visible(bucket) == sorted(source.rows * 2)
    assert_tidy(bucket)


@together
@given(order=orders, kills=kill_points)
def test_a_run_and_a_recovery_at_once(
    source: MemorySource, order: list[int], kills: dict[int, int]
) -> None:
    """A run that recovers another's commit while that one is still publishing it."""
    bucket = bucket_with_a_commit("overwrite")
    source.rows[:] = [10, 11]
    specs = [spec_for("a", write_mode="overwrite"), spec_for("b", write_mode="overwrite")]
    run_together(bucket, specs, order, kills)
    source.rows[:] = [20]
    extract(bucket, spec_for("c", write_mode="overwrite"))
    assert visible(bucket) == [20]
    assert_tidy(bucket)


# --- what changes between runs ---------------------------------------------------------------


@pytest.mark.parametrize("write_mode", ["append", "overwrite_partitions"])
@pytest.mark.parametrize("layout", [[], ["id", "extract_date"], ["run_id"]])
def test_another_partition_layout_beside_files_that_stay_is_refused(
    source: MemorySource, write_mode: str, layout: list[str]
) -> None:
    bucket = Bucket()
    extract(bucket, spec_for("r1", target=FIVE_FILES | {"write_mode": write_mode}))
    before = visible(bucket)
    target = {"uri": TARGET, "partition_by": layout or ["extract_date"], "write_mode": write_mode}
    with pytest.raises(ConfigError, match="its files are partitioned by id, and target"):
        extract(bucket, spec_for("r2", target=target))
    assert visible(bucket) == before
    extract(bucket, spec_for("r3", target=target | {"write_mode": "overwrite"}))
    assert visible(bucket) == source.rows


def test_a_column_that_was_dropped_keeps_its_type_and_case_for_good(
    source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its older files stay, and readers must read all of them together."""
    bucket = Bucket()
    columns = {"v": pa.int32(), "w": pa.string()}
    with_columns(monkeypatch, source, columns)
    extract(bucket, spec_for("r1"))
    with_columns(monkeypatch, source, {"w": pa.string()})
    assert changes(extract(bucket, spec_for("r2"))) == ["column v dropped (int32)"]
    with_columns(monkeypatch, source, {"w": pa.string(), "v": pa.string()})
    with pytest.raises(SchemaChanged, match="column v is int32 in older files and now string"):
        extract(bucket, spec_for("r3"))
    with_columns(monkeypatch, source, {"w": pa.string(), "V": pa.int32()})
    with pytest.raises(
        SchemaChanged, match="column V differs from v of older files only in its case"
    ):
        extract(bucket, spec_for("r4"))
    with_columns(monkeypatch, source, columns)
    assert changes(extract(bucket, spec_for("r5"))) == ["column v added (int32)"]


def changes(report: Report) -> list[str]:
    return [change.difference for change in report.schema_changes]


def with_columns(
    monkeypatch: pytest.MonkeyPatch, source: MemorySource, columns: dict[str, pa.DataType]
) -> None:
    """Give the table, without rows, other columns beside its id."""
    source.rows.clear()
    described = MemorySource([]).describe()
    more = tuple(Column(n, str(t), t, True, "lossless", "", f'"{n}"') for n, t in columns.items())
    changed = replace(described, columns=(*described.columns, *more))
    monkeypatch.setattr(source, "describe", lambda: changed)


# --- a damaged log --------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_deleted_commit_record_is_reported_and_nothing_is_guessed(
    source: MemorySource, gone: int
) -> None:
    """Without it an overwrite would leave old files beside the new ones."""
    bucket = Bucket()
    for n in range(3):
        extract(bucket, spec_for(f"r{n}"))
    before = visible(bucket)
    del bucket.objects[f"{STATE}/commits/{gone:020d}.json"]
    with pytest.raises(ConfigError, match=rf"{gone:020d}\.json is gone"):
        extract(bucket, spec_for("o", write_mode="overwrite"))
    assert visible(bucket) == before


def test_the_outcome_of_another_commit_is_no_outcome(source: MemorySource) -> None:
    """Left behind where a person deleted records: nothing is called published that is not."""
    bucket = Bucket()
    for n in range(2):
        extract(bucket, spec_for(f"r{n}"))
    del bucket.objects[f"{STATE}/commits/{2:020d}.json"]
    del bucket.objects[f"{STATE}/hint.json"]
    with pytest.raises(ConfigError, match=r"outcomes/0+2\.json is not the outcome of commit"):
        extract(bucket, spec_for("r9"))


@pytest.mark.parametrize("kind", ["commits", "outcomes"])
@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b'{"version": 7}'])
def test_a_damaged_record_is_named(source: MemorySource, kind: str, text: bytes) -> None:
    bucket = Bucket()
    extract(bucket, spec_for("r0"))
    [uri] = [u for u in bucket.objects if f"/{kind}/" in u]
    bucket.objects[uri] = (text, None)
    with pytest.raises(ConfigError, match=rf"{kind}/0+1\.json"):
        extract(bucket, spec_for("r1"))
    assert visible(bucket) == source.rows


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b'{"version": 7}'])
def test_a_damaged_plan_is_named(source: MemorySource, text: bytes) -> None:
    bucket = Bucket()
    bucket.objects[f"{STATE}/plans/r0/0.json"] = (text, None)
    with pytest.raises(ConfigError, match=r"plans/r0/0\.json"):
        extract(bucket, spec_for("r0"))
    assert visible(bucket) == []
    assert not bucket.uploads


def test_a_whole_plan_of_another_version_is_refused(source: MemorySource) -> None:
    bucket = Bucket()
    extract(bucket, spec_for("r0"))
    uri = f"{STATE}/plans/r0/0.json"
    plan = json.loads(bucket.objects[uri][0])
    other = Bucket()
    other.objects[uri] = (seal({**without_seal(plan), "version": 2}), None)
    with pytest.raises(ConfigError, match=r"plans/r0/0\.json is not a plan of version 1"):
        extract(other, spec_for("r0"))
    assert visible(other) == []


def test_files_of_others_in_the_state_folder_are_passed_over(source: MemorySource) -> None:
    bucket = Bucket()
    for folder in ("commits", "plans/r0", "outcomes"):
        bucket.objects[f"{STATE}/{folder}/.DS_Store"] = (b"x", None)
        bucket.objects[f"{STATE}/{folder}/notes.json"] = (b"x", None)
    extract(bucket, spec_for("r0"))
    assert extract(bucket, spec_for("r0", attempt=2)).commit_seq == 1
    assert visible(bucket) == source.rows


@pytest.mark.parametrize("where", ["state_uri", "report_uri"])
@pytest.mark.parametrize("inside", [TARGET, f"{TARGET}/", f"{TARGET}/x.json"])
def test_state_and_report_inside_the_target_are_refused(where: str, inside: str) -> None:
    with pytest.raises(ValueError, match=f"{where} must not be inside target.uri"):
        spec_for("r", **{where: inside})
