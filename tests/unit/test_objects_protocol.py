"""Increments by object under every crash and many interleavings: each object is read exactly once.

As in test_commit_protocol, with the real files source: what it reads lies in the same memory, so
that a process can die at any listing and read of it too.
"""

from __future__ import annotations

import io
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import extract_jobs.run
import extract_jobs.sources.files.objects as objects_module
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.sealed import without_seal
from extract_jobs.errors import CommitConflict, ConfigError, ExtractError, SourceUnavailable
from extract_jobs.reporting.report import Report
from extract_jobs.sources import ObjectsBefore
from extract_jobs.sources.files.inspection import Columns
from extract_jobs.sources.files.objects import KnownObjects, Listed, ObjectList
from extract_jobs.sources.files.source import FilesSource
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import ObjectInfo
from tests.support.memory_storage import Bucket, Killed, Process, ProcessStorage
from tests.support.sampling import examples
from tests.unit.test_commit_protocol import Turnstile

DROP, TARGET, STATE = "s3://drop/in", "s3://lake/raw/t", "s3://lake/_extract/s/t"
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def spec_for(run_id: str, attempt: int = 1, **more: object) -> ExtractSpec:
    return ExtractSpec.model_validate(
        {
            "run_id": run_id,
            "attempt": attempt,
            "source_name": "s",
            "source_type": "files",
            "connection": {"uri": DROP},
            "files": {"glob": "**/*.csv"},
            "extract_table": "t",
            "mode": "incremental",
            "target": {"uri": TARGET},
            "state_uri": STATE,
            "report_uri": f"{STATE}/reports/{run_id}/{attempt}.json",
            **more,
        }
    )


_process = threading.local()


@pytest.fixture(autouse=True)
def _source_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_source(spec: ExtractSpec, spark: object) -> FilesSource:
        storage = _process.storage
        return FilesSource(spec, lambda uri: storage)

    monkeypatch.setattr(extract_jobs.run, "open_source", open_source)


def extract(
    bucket: Bucket, spec: ExtractSpec, process: Process | None = None, now: datetime = NOW
) -> Report:
    storage = _process.storage = ProcessStorage(bucket, process or Process("p"))
    return extract_jobs.run.run_extract(spec, clock=lambda: now, open_storage=lambda uri: storage)


def drop(bucket: Bucket, name: str, *ids: int) -> None:
    text = "\n".join(["id", *map(str, ids), ""])
    bucket.objects[f"{DROP}/{name}"] = (text.encode(), None)


def visible(bucket: Bucket) -> list[int]:
    rows: list[int] = []
    for uri, (data, _) in bucket.objects.items():
        if uri.startswith(TARGET + "/"):
            rows.extend(pq.read_table(io.BytesIO(data)).column("id").to_pylist())
    return sorted(rows)


def assert_tidy(bucket: Bucket) -> None:
    storage = ProcessStorage(bucket, Process("judge"))
    log = CommitLog(storage, STATE, storage)
    log.recover(TARGET, abandon_after=timedelta(0), now=NOW)
    assert not bucket.uploads
    live = {f.staged.uri for f in log.live_files(log.finish_last().published)}
    assert {u for u in bucket.objects if u.startswith(TARGET + "/")} == live


def after_a_first_run() -> Bucket:
    """One object read; since then one is new and one was replaced."""
    bucket = Bucket()
    drop(bucket, "a.csv", 1, 2)
    drop(bucket, "b.csv", 3)
    extract(bucket, spec_for("first"))
    drop(bucket, "b.csv", 30, 31)
    drop(bucket, "more/c.csv", 4)
    return bucket


EXPECTED = [1, 2, 3, 4, 30, 31]


def test_new_and_replaced_objects_are_read_once_and_in_whole() -> None:
    bucket = after_a_first_run()
    report = extract(bucket, spec_for("second"))
    assert (report.rows, report.source_rows, report.reconciled) == (3, 3, True)
    assert visible(bucket) == EXPECTED
    again = extract(bucket, spec_for("third"))
    assert (again.status, again.rows, again.commit_seq) == ("succeeded", 0, None)
    assert visible(bucket) == EXPECTED


def test_runs_that_find_nothing_leave_no_list() -> None:
    bucket = after_a_first_run()
    extract(bucket, spec_for("second"))
    lists = [uri for uri in bucket.objects if uri.startswith(f"{STATE}/objects/")]
    for number in range(3):
        assert extract(bucket, spec_for(f"idle-{number}")).rows == 0
    assert [uri for uri in bucket.objects if uri.startswith(f"{STATE}/objects/")] == lists


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_any_call_then_the_next_attempt(moment: str) -> None:
    counted = Process("counted")
    extract(after_a_first_run(), spec_for("r"), counted)
    assert any(call.startswith("open") for call in counted.calls)
    for at in range(1, len(counted.calls) + 1):
        bucket, process = after_a_first_run(), Process("victim")

        def kill(call: str, process: Process = process, at: int = at) -> None:
            if len(process.calls) == at:
                process.dead = True
                process.check()

        setattr(process, moment, kill)
        with pytest.raises(Killed):
            extract(bucket, spec_for("r"), process)
        # What comes after the run was planned is the next run's.
        drop(bucket, "late.csv", 5)
        extract(bucket, spec_for("r", 2))
        extract(bucket, spec_for("next"))
        where = f"killed {moment} call {at}: {process.calls[-1]}"
        assert visible(bucket) == sorted([*EXPECTED, 5]), where
        assert_tidy(bucket)


def test_all_attempts_of_a_run_extract_the_objects_that_the_first_pinned() -> None:
    bucket, process = after_a_first_run(), Process("victim")

    def kill(call: str) -> None:
        process.dead = "/commits/" in call and call.startswith("put_if_absent")

    process.before = kill
    with pytest.raises(Killed):
        extract(bucket, spec_for("r"), process)
    drop(bucket, "late.csv", 5)
    report = extract(bucket, spec_for("r", 2))
    assert (report.rows, visible(bucket)) == (3, EXPECTED)
    assert extract(bucket, spec_for("next")).rows == 1


def test_an_object_replaced_while_it_is_read_fails_and_the_next_attempt_lists_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    bucket, process = after_a_first_run(), Process("p")

    def replace_it(call: str) -> None:
        if call.startswith("put_if_absent") and "/plans/" in call:
            drop(bucket, "b.csv", 300)

    process.after = replace_it
    with pytest.raises(SourceUnavailable, match=r"in/b\.csv was replaced or deleted since it was"):
        extract(bucket, spec_for("r"), process)
    assert visible(bucket) == [1, 2, 3]
    extract(bucket, spec_for("r", 2))
    assert visible(bucket) == [1, 2, 3, 4, 300]
    del bucket.objects[f"{DROP}/b.csv"]
    assert extract(bucket, spec_for("gone")).rows == 0
    assert_tidy(bucket)


def test_the_objects_of_a_voided_commit_are_read_again() -> None:
    bucket, process = after_a_first_run(), Process("p")
    process.after = lambda call: bucket.uploads.clear() if "/commits/" in call else None
    with pytest.raises(ExtractError, match="voided"):
        extract(bucket, spec_for("r"), process)
    assert visible(bucket) == [1, 2, 3]
    extract(bucket, spec_for("r", 2))
    assert visible(bucket) == EXPECTED
    assert_tidy(bucket)


def test_a_full_run_reads_all_and_the_increments_go_on_from_it() -> None:
    bucket = after_a_first_run()
    full = {"mode": "full", "target": {"uri": TARGET, "write_mode": "overwrite"}}
    extract(bucket, spec_for("full", **full))
    assert visible(bucket) == [1, 2, 4, 30, 31]
    assert extract(bucket, spec_for("r")).rows == 0
    drop(bucket, "d.csv", 6)
    extract(bucket, spec_for("r2"))
    assert visible(bucket) == [1, 2, 4, 6, 30, 31]
    assert_tidy(bucket)


def test_what_is_remembered_is_bounded_by_the_listing() -> None:
    """An object that is gone is known for 90 days, should a folder be away for a while."""
    bucket = after_a_first_run()
    gone = bucket.objects.pop(f"{DROP}/a.csv")
    for day in (1, 60):
        drop(bucket, f"day{day}.csv", 100 + day)
        extract(bucket, spec_for(f"r{day}"), now=NOW + timedelta(days=day))
    bucket.objects[f"{DROP}/a.csv"] = gone
    assert extract(bucket, spec_for("back"), now=NOW + timedelta(days=61)).rows == 0
    del bucket.objects[f"{DROP}/a.csv"]
    for day in (120, 161):
        drop(bucket, f"day{day}.csv", 100 + day)
        extract(bucket, spec_for(f"r{day}"), now=NOW + timedelta(days=day))
    bucket.objects[f"{DROP}/a.csv"] = gone
    assert extract(bucket, spec_for("again"), now=NOW + timedelta(days=162)).rows == 2


def test_the_lists_are_not_read_again_commit_by_commit() -> None:
    bucket = Bucket()
    for n in range(6):
        drop(bucket, f"{n}.csv", n)
        extract(bucket, spec_for(f"r{n}"))
    process = Process("p")
    drop(bucket, "last.csv", 99)
    extract(bucket, spec_for("r"), process)
    # The run's own, the last commit's, and the whole one that it adds to.
    assert len([c for c in process.calls if c.startswith("read") and "/objects/" in c]) == 3
    assert len([c for c in process.calls if c.startswith("open")]) == 2  # a look, and the read


def drop_at(bucket: Bucket, name: str, number: int, modified: datetime) -> None:
    drop(bucket, name, number)
    bucket.modified[f"{DROP}/{name}"] = modified


def dated(hour: int) -> str:
    return f"{NOW + timedelta(hours=hour):%Y/%m/%d/%H}.csv"


def before(hour: int) -> str:
    return f"{DROP}/{dated(hour)}"[:-1]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What each listing of the drop folder starts after."""
    found: list[str | None] = []
    listing = ProcessStorage.list

    def noted(
        storage: ProcessStorage, prefix: str, start_after: str | None = None
    ) -> Iterator[ObjectInfo]:
        if prefix.startswith(DROP):
            found.append(start_after)
        return listing(storage, prefix, start_after)

    monkeypatch.setattr(ProcessStorage, "list", noted)
    return found


def test_where_names_ascend_an_increment_lists_the_newest_files_and_all_once_a_day(
    starts: list[str | None],
) -> None:
    """What comes late, or is replaced, under an earlier name is read a day later, once."""
    bucket, numbers = Bucket(), set(range(-100, 1))
    for hour in numbers:
        drop_at(bucket, dated(hour), hour, NOW + timedelta(hours=hour))

    def run(hour: int) -> tuple[int, str | None]:
        """Return how many rows a run reads, and what its first listing starts after."""
        starts.clear()
        spec = spec_for(f"r{hour}", files={"glob": "**/*.csv", "listing": "newest"})
        return extract(bucket, spec, now=NOW + timedelta(hours=hour)).rows, starts[0]

    assert run(0) == (101, None)
    drop_at(bucket, dated(1), 1, NOW + timedelta(hours=1))
    drop_at(bucket, dated(-10), 1010, NOW + timedelta(hours=1))  # replaced, but one of the newest
    assert run(1) == (2, before(-23))
    drop_at(bucket, "2026/01/late.csv", 2, NOW + timedelta(hours=2))
    drop_at(bucket, dated(-99), 1099, NOW + timedelta(hours=2))  # replaced
    assert run(3) == (0, before(-22))
    drop_at(bucket, dated(4), 4, NOW + timedelta(hours=4))
    assert run(4) == (1, before(-22))
    assert run(24) == (2, None)
    drop_at(bucket, dated(25), 25, NOW + timedelta(hours=25))
    assert run(25) == (1, f"{DROP}/2026/01/late.cs"), "one of those that came last"
    assert visible(bucket) == sorted([*numbers, 1, 1010, 2, 1099, 4, 25])
    assert_tidy(bucket)


def test_a_clock_that_was_ahead_does_not_put_off_the_listing_of_all_files(
    starts: list[str | None],
) -> None:
    bucket = Bucket()
    for hour in range(-30, 1):
        drop_at(bucket, dated(hour), hour, NOW + timedelta(hours=hour))
    spec = {"glob": "**/*.csv", "listing": "newest"}
    extract(bucket, spec_for("ahead", files=spec), now=NOW + timedelta(days=365))
    drop_at(bucket, "2026/01/late.csv", 99, NOW + timedelta(hours=1))
    starts.clear()
    assert extract(bucket, spec_for("next", files=spec), now=NOW + timedelta(hours=2)).rows == 1
    assert starts[0] is None


def test_so_many_new_files_that_their_list_is_whole_are_all_listed(
    starts: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so are they where the newest are gone: else files that were read would be forgotten."""
    monkeypatch.setattr(objects_module, "_PARTIAL_ROWS", 3)
    bucket = Bucket()
    for hour in range(-48, 0):
        drop_at(bucket, dated(hour), hour, NOW + timedelta(hours=hour))
    spec = {"glob": "**/*.csv", "listing": "newest"}
    extract(bucket, spec_for("first", files=spec))
    for hour in range(8):
        drop_at(bucket, dated(hour), hour, NOW)
    starts.clear()
    assert extract(bucket, spec_for("second", files=spec)).rows == 8
    assert starts[:2] == [before(-24), None]
    for hour in range(-26, 8):
        del bucket.objects[f"{DROP}/{dated(hour)}"]
    starts.clear()
    assert extract(bucket, spec_for("third", files=spec)).rows == 0
    assert starts == [before(-23), None]


def test_a_lost_list_and_a_glob_that_matches_nothing_are_refused() -> None:
    bucket = after_a_first_run()
    with pytest.raises(ConfigError, match=r"no object matches s3://drop/in/\*\.cvs"):
        extract(Bucket(), spec_for("r", files={"glob": "*.cvs"}))
    for uri in [u for u in bucket.objects if "/objects/" in u]:
        del bucket.objects[uri]
    with pytest.raises(
        ConfigError, match=r"objects/first/0-0\.parquet, the list of objects read up to"
    ):
        extract(bucket, spec_for("r"))
    assert visible(bucket) == [1, 2, 3]


def test_a_list_that_the_last_one_adds_to_must_be_there_and_be_whole() -> None:
    bucket = after_a_first_run()
    extract(bucket, spec_for("second"))
    drop(bucket, "d.csv", 6)
    whole, partial = (
        f"{STATE}/objects/{name}" for name in ("first/0-0.parquet", "second/1-0.parquet")
    )
    kept = bucket.objects.pop(whole)
    with pytest.raises(ConfigError, match=r"objects/first/0-0\.parquet, the list of objects read"):
        extract(bucket, spec_for("r"))
    bucket.objects[whole] = bucket.objects[partial]
    with pytest.raises(ConfigError, match="is damaged"):
        extract(bucket, spec_for("r"))
    bucket.objects[whole] = kept
    assert extract(bucket, spec_for("r")).rows == 1


def test_a_list_adds_to_nothing_outside_the_state() -> None:
    bucket = after_a_first_run()
    extract(bucket, spec_for("second"))
    drop(bucket, "d.csv", 6)
    uri = f"{STATE}/objects/second/1-0.parquet"
    found = ObjectList.from_bytes(bucket.objects[uri][0])
    bucket.objects[uri] = (replace(found, adds_to="../x/objects/a/0-0.parquet").to_bytes(), None)
    with pytest.raises(ConfigError, match="a list of objects is damaged"):
        extract(bucket, spec_for("r"))


@pytest.mark.parametrize("known", [1_000, 10_000])
def test_what_a_run_writes_does_not_grow_with_what_is_known(known: int) -> None:
    objects = [
        Listed(ObjectInfo(f"{DROP}/{n:08}.csv", 100, NOW, etag=f"{n:032x}"), 3)
        for n in range(known)
    ]
    stored = {"a": ObjectList.of(objects, {}, NOW).to_bytes()}
    listed = {one.info.uri for one in objects}
    names = ["a"]
    for hour in range(1, 6):
        partial = ObjectList.from_bytes(stored[names[-1]]).adds_to
        before = ObjectsBefore(names[-1], stored[names[-1]], stored[partial] if partial else None)
        read = KnownObjects.of(before)
        assert len(read.etags()) == known + hour - 1
        now = NOW + timedelta(hours=hour)
        one = Listed(ObjectInfo(f"{DROP}/new{hour}.csv", 100, now, etag=f"{hour:032x}"), 3)
        listed.add(one.info.uri)
        new = read.and_new(ObjectList.of([one], {}, now), listed, now)
        assert [found.info.uri for found in new.to_read()] == [one.info.uri]
        names.append(str(hour))
        stored[names[-1]] = new.to_bytes()
        assert len(stored[names[-1]]) < 5_000
    read = KnownObjects.of(ObjectsBefore(names[-1], stored[names[-1]], stored["a"]))
    again = read.and_new(ObjectList.of([], {}, NOW), listed, NOW + timedelta(hours=24))
    assert (again.adds_to, again.table.num_rows) == (None, known + 5)


def test_many_new_objects_make_a_list_whole_again() -> None:
    def some(start: int, count: int) -> ObjectList:
        numbers = range(start, start + count)
        found = [Listed(ObjectInfo(f"{DROP}/{n}.csv", 1, NOW, etag="e")) for n in numbers]
        return ObjectList.of(found, {}, NOW)

    listed = {f"{DROP}/{n}.csv" for n in range(30_000)}
    whole = some(0, 16_000)
    first = KnownObjects(whole, whole, "w").and_new(some(16_000, 1_500), listed, NOW)
    assert (first.adds_to, first.table.num_rows) == ("w", 1_500)
    second = KnownObjects(first, whole, "w").and_new(some(17_500, 501), listed, NOW)
    assert (second.adds_to, second.table.num_rows) == (None, 18_001)
    assert len(second.etags(read=True)) == 501


def test_a_whole_list_of_another_version_is_refused() -> None:
    """Read as this version's, files might be skipped or read twice."""
    listed = ObjectList.of([], {"folders": []}, datetime(2026, 1, 1, tzinfo=UTC))
    raw = listed.to_bytes()
    assert ObjectList.from_bytes(raw).about == {"folders": []}
    table = pq.read_table(pa.BufferReader(raw))
    about = json.loads(table.schema.metadata[b"extract.objects"])
    later = json.dumps({**about, "version": 3})
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"extract.objects": later}), sink)
    with pytest.raises(ConfigError, match="another version of extract-jobs"):
        ObjectList.from_bytes(sink.getvalue().to_pybytes())


def a_list() -> ObjectList:
    objects = [
        Listed(ObjectInfo(f"{DROP}/{n}.csv", 100, NOW, etag=f"{n:032x}"), 3, (40, 70))
        for n in range(50)
    ]
    return ObjectList.of(objects, {"format": "csv", "folders": ["day"]}, NOW)


def test_no_flipped_bit_of_a_list_changes_what_is_read() -> None:
    """A file whose ETag has changed counts as new: its rows would be there twice."""
    whole = a_list()
    raw, chance = whole.to_bytes(), random.Random(27)
    refused = 0
    for at in range(0, len(raw), 3):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << chance.randrange(8)
        try:
            found = ObjectList.from_bytes(bytes(damaged))
        except ConfigError:
            refused += 1
            continue
        assert found.table.equals(whole.table), at
        assert (found.about, found.adds_to) == (whole.about, None)
    assert refused > len(raw) // 3 // 2


@pytest.mark.parametrize(("column", "value"), [
    ("uri", f"{DROP}/1.csv"), ("size", -1), ("size", None), ("rows", -1), ("read", None),
    ("cuts", [70, 40]), ("cuts", [40, 100]), ("cuts", [0]), ("cuts", [None]),
])  # fmt: skip
def test_a_list_that_no_run_could_have_written_is_refused(column: str, value: Any) -> None:
    whole = a_list()
    rows = whole.table.to_pylist()
    rows[7][column] = value
    forged = replace(whole, table=pa.Table.from_pylist(rows, schema=whole.table.schema))
    with pytest.raises(ConfigError, match="is damaged"):
        ObjectList.from_bytes(forged.to_bytes())


@pytest.mark.parametrize("about", [
    {"format": "csv", "evidence": {"id": 5}}, {"format": "csv", "schema": "AAAA"},
    {"format": "csv", "evidence": []}, {"format": "csv", "schema": 5},
])  # fmt: skip
def test_columns_that_no_run_could_have_found_are_refused(about: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is damaged"):
        Columns.from_json(about)


def test_a_list_without_checksums_is_still_read() -> None:
    table = a_list().table
    sink, about = pa.BufferOutputStream(), json.dumps({"version": 1, "format": "csv"})
    pq.write_table(table.replace_schema_metadata({"extract.objects": about}), sink)
    assert ObjectList.from_bytes(sink.getvalue().to_pybytes()).table.equals(table)


def test_a_commit_of_a_version_without_objects_is_still_read() -> None:
    bucket = after_a_first_run()
    [uri] = [u for u in bucket.objects if "/commits/" in u]
    record = json.loads(bucket.objects[uri][0])
    assert record.pop("objects") == "objects/first/0-0.parquet"
    bucket.objects[uri] = (json.dumps(without_seal(record)).encode(), None)
    storage = ProcessStorage(bucket, Process("judge"))
    published = CommitLog(storage, STATE, storage).finish_last().published
    assert published is not None
    assert published.objects is None


orders = st.lists(st.integers(0, 1), max_size=120)
kill_points = st.dictionaries(st.integers(0, 1), st.integers(1, 40), max_size=2)


@settings(
    max_examples=examples(25), deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(orders, kill_points, st.booleans())
def test_two_processes_at_once(order: list[int], kills: dict[int, int], one_run: bool) -> None:
    """Two attempts of one run, or two runs: every object comes once."""
    bucket = after_a_first_run()
    names = [("r", 1), ("r", 2)] if one_run else [("a", 1), ("b", 1)]
    turnstile, results = Turnstile(list(order)), []

    def work(number: int) -> None:
        process = Process(f"p{number}")

        def before(call: str) -> None:
            # A look into objects calls from threads of its own.
            if threading.current_thread() is worker[number]:
                turnstile.wait_for(number)
            if len(process.calls) == kills.get(number):
                process.dead = True

        process.before = before
        try:
            results.append(extract(bucket, spec_for(*names[number]), process))
        except (ExtractError, Killed) as error:
            results.append(error)
        finally:
            turnstile.end(number)

    worker = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in worker:
        thread.start()
    for thread in worker:
        thread.join(30)
    assert len(results) == 2
    for result in results:
        assert isinstance(result, Report | Killed | CommitConflict), repr(result)
    drop(bucket, "late.csv", 5)
    for name in {name for name, _ in names}:
        extract(bucket, spec_for(name, 3))
    extract(bucket, spec_for("last"))
    assert visible(bucket) == sorted([*EXPECTED, 5])
    assert_tidy(bucket)
