"""A full extract keeps the files of ranges that have not changed, and the lake equals the table."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from extract_jobs.attempt import kept_sample, reuse
from extract_jobs.attempt.context import utc_now
from extract_jobs.attempt.kept_sample import same_values
from extract_jobs.cli.views import result_line
from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Commit
from extract_jobs.commit.sealed import seal, without_seal
from extract_jobs.commit.staged_ranges import StagedRange
from extract_jobs.commit.table_log import commit_log
from extract_jobs.engine.shutdown import drop_staged
from extract_jobs.errors import (
    FilesDamaged,
    Interrupted,
    ReconcileFailed,
    SourceUnavailable,
    StopRequested,
    TypeNotRepresentable,
    WriteFailed,
)
from extract_jobs.reporting.progress import Progress
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.sources.postgres.pages import PostgresPages
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import open_storage
from tests.support.postgres import VERSION, Server
from tests.support.postgres_torture import build
from tests.support.specs import make_spec

Run = Callable[..., Report]


@pytest.fixture
def server(pg_database: Server) -> Server:
    """Twelve pages of four rows, which are extracted in ranges of three pages."""
    pg_database.execute(
        "create table t (id int, note text)",
        "insert into t select i, repeat(chr(97 + i % 26), 1900) from generate_series(1, 48) i",
    )
    return pg_database


@pytest.fixture
def spec(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ExtractSpec:
    monkeypatch.setenv("TEST_PG_PASSWORD", server.password)
    return make_spec(
        tmp_path,
        connection={"url": server.url, "password_env": "TEST_PG_PASSWORD"}
        | dict.fromkeys(("host", "database", "user")),
        extract_table="public.t",
        reuse="auto",
        empty_source="accept",
        engine="processes",  # a Spark of other tests was started in another folder
        split={"target_bytes": 3 * 8192, "max_connections": 1},
    )


@pytest.fixture
def run(server: Server, spec: ExtractSpec, tmp_path: Path) -> Run:
    """Return a function that runs an extract and compares the lake with the table."""
    count = 0

    def run_once(**overrides: Any) -> Report:
        nonlocal count
        count += 1
        fields = spec.model_dump() | {"run_id": f"run-{count}"} | overrides
        report = run_extract(ExtractSpec.model_validate(fields))
        with server.connect() as connection:
            rows = connection.execute("select id, note from t order by id").fetchall()
        found = lake(tmp_path).select(["id", "note"]).to_pydict()
        assert sorted(zip(found["id"], found["note"], strict=True)) == rows
        assert report.rows + report.kept_rows == report.source_rows == len(rows)
        assert report.reconciled
        return report

    return run_once


def lake(folder: Path) -> pa.Table:
    return pq.read_table(folder / "target")


def test_what_has_not_changed_is_kept(server: Server, run: Run) -> None:
    first = run()
    assert (first.rows, first.splits, first.kept_rows) == (48, 4, 0)
    assert first.not_reused == "this is the first run"
    second = run()
    assert (second.rows, second.splits, second.files, second.commit_seq) == (0, 0, 0, 2)
    assert (second.kept_rows, second.kept_ranges, second.kept_files) == (48, 4, 4)
    assert second.kept_bytes == first.bytes
    assert second.not_reused == ""


CHANGES = {
    "an update in place": ("update t set note = 'n' where id = 20", 3, 1),
    "deleted rows": ("delete from t where id between 1 and 10", 3, 1),
    "a range is emptied": ("delete from t where id between 1 and 12", 3, 1),
    "the table grows": ("insert into t select id, note from t where id <= 32", 4, 3),
    "all rows change": ("update t set note = 'all'", 0, 4),
    "all rows go": ("delete from t", 0, 4),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "kept", "read"), CHANGES.values(), ids=CHANGES)
def test_only_what_has_changed_is_read(
    server: Server, run: Run, statement: str, kept: int, read: int
) -> None:
    run()
    server.execute(statement)
    second = run()
    assert (second.kept_ranges, second.splits) == (kept, read)
    third = run()
    assert third.splits == (0 if third.kept_rows else third.splits)


def test_everything_is_read_once_more_on_request(run: Run) -> None:
    run()
    again = run(reuse="reread")
    assert (again.rows, again.kept_rows) == (48, 0)
    assert again.not_reused == "reuse: reread reads everything"
    assert run().kept_rows == 48


def test_partitions_are_kept_one_by_one(server: Server, run: Run) -> None:
    server.execute(
        "alter table t rename to loose",
        "create table t (id int, note text) partition by list (id)",
        "create table empty partition of t for values in (0)",
        "create table odd partition of t for values in (1, 3, 5, 7)",
        "create table rest partition of t default",
        "insert into t table loose",
    )
    assert run().splits == 5  # one page, and eleven in ranges of three
    assert run().kept_ranges == 5
    server.execute("update t set note = 'n' where id = 3")
    report = run()
    assert (report.kept_ranges, report.splits) == (4, 1)
    server.execute("insert into t values (0, 'filled')", "truncate odd")
    report = run()
    assert (report.kept_ranges, report.splits) == (4, 1)
    server.execute("alter table t detach partition rest")
    assert run().kept_rows == 1
    server.execute("delete from t")
    assert run().kept_rows == 0
    assert run().source_rows == 0


def test_many_small_partitions_are_read_together(server: Server, run: Run) -> None:
    server.execute("drop table t", "create table t (id int, note text) partition by list (id)")
    names = [f"create table p{n} partition of t for values in ({n})" for n in range(65)]
    server.execute(*names, "insert into t select n, 'n' from generate_series(0, 64) n")
    report = run(split={"target_bytes": 128 * 2**20, "max_connections": 1})
    assert report.not_reused == ("each of the table's 65 partitions would have its own small file")
    assert report.files == 1


def test_a_growing_table_changes_its_tail_only(server: Server, run: Run) -> None:
    run()
    for start in (49, 54, 90):
        server.execute(f"insert into t select id + {start}, note from t limit 5")
        assert run().splits <= 2


def test_a_split_may_be_larger_than_any_table(run: Run) -> None:
    for kept in (0, 48):
        assert run(split={"target_bytes": 10**17, "max_connections": 1}).kept_rows == kept


def test_vacuum_may_cut_off_the_end(server: Server, run: Run) -> None:
    run()
    server.execute("delete from t where id > 24", "vacuum t")
    assert run().kept_ranges == 2
    assert run().kept_rows == 24
    server.execute("insert into t select i, repeat('x', 1900) from generate_series(30, 50) i")
    assert run().kept_ranges == 2


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"columns": {"cast": {"id": "int64"}}}, "columns changed"),
        ({"target": {"compression": "snappy"}}, "target changed"),
        ({"lossy_types": "null"}, "lossy_types changed"),
        ({"max_value_bytes": 2000}, "max_value_bytes changed"),
    ],
)
def test_other_values_in_files_need_all_rows(
    run: Run, spec: ExtractSpec, overrides: dict[str, Any], part: str
) -> None:
    run()
    if "target" in overrides:
        overrides = {"target": spec.target.model_dump() | overrides["target"]}
    report = run(**overrides)
    assert (report.not_reused, report.rows) == (part, 48)


def test_another_version_of_the_code_needs_all_rows(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    monkeypatch.setattr(reuse, "READING_VERSION", "0")
    assert run().not_reused == "versions changed"


UNSUITED = {
    "extract_date": ({"target": {"partition_by": ["extract_date"]}}, "write_mode is overwrite_"),
    "folders of a run": (
        {"target": {"partition_by": ["extract_date"], "write_mode": "overwrite"}},
        "its own partitions",
    ),
    "append": ({"target": {"write_mode": "append"}}, "write_mode is append"),
    "a watermark": ({"watermark": {"column": "id"}}, "greatest value"),
    "split by range": ({"split": {"strategy": "range", "column": "id"}}, "by page"),
    "a condition": ({"where": "id > 0"}, "condition"),
    "a sample": ({"limit": 100}, "a sample"),
}


@pytest.mark.parametrize(("overrides", "reason"), UNSUITED.values(), ids=UNSUITED)
def test_an_extract_that_cannot_keep_files_says_why(
    spec: ExtractSpec, overrides: dict[str, Any], reason: str
) -> None:
    fields = spec.model_dump()
    target = {"uri": spec.target.uri} | overrides.get("target", {})
    fields |= {**overrides, "target": target}
    report = run_extract(ExtractSpec.model_validate(fields))
    assert reason in report.not_reused
    assert report.rows == 48


def test_an_empty_table_is_no_riddle(server: Server, run: Run) -> None:
    server.execute("delete from t")
    run()
    assert run().not_reused == "every range that has rows has changed"


@pytest.mark.parametrize(
    ("given", "meant"), [("auto", "auto"), ("never", "never"), ("off", "never"), (False, "never")]
)
def test_off_is_never(spec: ExtractSpec, given: object, meant: str) -> None:
    fields = spec.model_dump() | {"reuse": given}
    assert ExtractSpec.model_validate(fields).reuse == meant


@pytest.mark.parametrize("given", [True, None, "yes", 1])
def test_nothing_else_is_taken_for_reuse(spec: ExtractSpec, given: object) -> None:
    with pytest.raises(ValidationError):
        ExtractSpec.model_validate(spec.model_dump() | {"reuse": given})


def test_the_line_of_a_run_says_what_was_kept_and_why_not(run: Run) -> None:
    assert "kept" not in result_line(run())
    assert "beside 48 rows that have not changed" in result_line(run())
    line = result_line(run(lossy_types="null"))
    assert "48 rows (nothing was kept: lossy_types changed), counted in the source too" in line


def test_nothing_is_said_where_nothing_was_asked_for(run: Run) -> None:
    report = run(reuse="never")
    assert (report.not_reused, report.kept_rows) == ("", 0)
    assert run().not_reused == "the last commit has no record of what it read"


# --- files and records ----------------------------------------------------------------------------


def files(folder: Path) -> list[Path]:
    return sorted((folder / "target").glob("*.parquet"))


def record(folder: Path) -> Path:
    (found,) = (folder / "state" / "reads").iterdir()
    return found


def test_a_missing_file_is_written_again(run: Run, tmp_path: Path) -> None:
    run()
    files(tmp_path)[1].unlink()
    report = run()
    assert report.not_reused == "a live file is missing or has another size"
    assert report.rows == 48


DAMAGE = ["", '{"version": 1}', "[" * 100_000]


@pytest.mark.parametrize("text", DAMAGE)
def test_a_damaged_record_is_no_reason_to_fail(run: Run, tmp_path: Path, text: str) -> None:
    run()
    record(tmp_path).write_text(text)
    assert "is damaged" in run().not_reused
    assert run().kept_rows == 48


def changed(found: dict[str, Any], what: str) -> None:
    """Change a record as nobody but a person could have."""
    first, second, *_ = found["ranges"]
    if what == "gap":
        first["end"] -= 1
    elif what == "fewer rows":
        first["rows"] -= 1
    elif what == "twice":
        second["files"] = first["files"]
    elif what == "foreign":
        first["files"] = ["/etc/hosts"]
    elif what == "swapped":
        first["files"], second["files"] = second["files"], first["files"]
    elif what == "negative":
        first["end"] = -1
    elif what == "snapshot":
        found["moment"]["snapshot"]["xmin"] = "a"


@pytest.mark.parametrize("what", ["gap", "fewer rows", "twice", "foreign", "negative"])
def test_a_record_that_no_run_wrote_keeps_nothing(run: Run, tmp_path: Path, what: str) -> None:
    run()
    found = json.loads(record(tmp_path).read_text())
    changed(found, what)
    record(tmp_path).write_bytes(seal(without_seal(found)))
    report = run()
    assert (report.kept_rows, report.rows) == (0, 48)
    assert report.not_reused


def test_only_the_last_commits_record_stays(run: Run, tmp_path: Path) -> None:
    for _ in range(3):
        run()
    assert record(tmp_path).name.startswith(f"{3:020d}-")


def test_rows_that_differ_from_their_file_stop_the_run(
    run: Run, spec: ExtractSpec, tmp_path: Path
) -> None:
    """The sample is of one range in a hundred, so the only file is altered."""
    whole = {"split": spec.split.model_dump() | {"target_bytes": 10**6}}
    run(**whole)
    (file,) = files(tmp_path)
    table = pq.ParquetFile(file).read()
    size = file.stat().st_size
    notes = pa.array(["x" * 1900, *table.column("note").to_pylist()[1:]])
    altered = table.set_column(1, table.schema.field("note"), notes)
    pq.write_table(altered, file, compression="none", use_dictionary=False)
    text = record(tmp_path).read_text()
    log = commit_log(spec, open_storage)
    assert size != file.stat().st_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reuse, "_has_all", lambda *_: True)
        with pytest.raises(FilesDamaged, match="pages 0 to") as failed:
            run(**whole)
    assert "mistrusted.json" in str(failed.value)
    assert record_names(tmp_path) == [f"{1:020d}-{log.newest().commit_id}.json", "mistrusted.json"]
    assert text
    report = run(**whole)
    assert "have differed" in report.not_reused
    assert "have differed" in run(**whole).not_reused
    (tmp_path / "state" / "reads" / "mistrusted.json").unlink()
    assert run(**whole).kept_rows == 48


def record_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "state" / "reads").iterdir())


def test_wide_rows_are_compared_in_their_own_order(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.execute(
        "alter table t alter note set storage external",
        "insert into t select 100 + i, repeat(md5(i::text), 1000) from generate_series(1, 20, 7) i",
    )
    run()
    report = run()
    assert report.kept_rows == 51


def test_a_window_of_a_large_range_is_compared(
    server: Server, run: Run, spec: ExtractSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_sample, "_PAGES", 2)
    whole = {"split": spec.split.model_dump() | {"target_bytes": 10**6}}
    run(**whole)
    for _ in range(5):
        assert run(**whole).kept_rows == 48


def by_letter(spec: ExtractSpec) -> dict[str, Any]:
    return {"target": spec.target.model_dump() | {"partition_by": ["letter"]}}


@pytest.fixture
def lettered(server: Server) -> Server:
    """Rows of each range in the partitions a, b and NULL, which take turns."""
    server.execute(
        "alter table t add letter text",
        "update t set letter = (array['a', 'b', null])[1 + id % 3]",
        "vacuum full t",
    )
    return server


def test_ranges_are_kept_in_partitions_of_the_target(
    lettered: Server, run: Run, spec: ExtractSpec, tmp_path: Path
) -> None:
    partitioned = by_letter(spec)
    first = run(**partitioned)
    assert (first.splits, first.files) == (4, 12)
    second = run(**partitioned)
    assert (second.kept_ranges, second.kept_files, second.splits) == (4, 12, 0)
    lettered.execute("update t set letter = 'new' where id = 20")
    third = run(**partitioned)
    assert third.kept_ranges in {2, 3}  # the new version of the row may be in another range
    found = pq.read_table(tmp_path / "target").select(["id", "letter"]).to_pydict()
    letters = dict(zip(found["id"], found["letter"], strict=True))
    expected = {n: ("b", None, "a")[n % 3 - 1] for n in range(1, 49)} | {20: "new"}
    assert letters == expected


def test_many_small_files_are_worth_a_warning(
    run: Run, spec: ExtractSpec, caplog: pytest.LogCaptureFixture
) -> None:
    target = spec.target.model_dump() | {"partition_by": ["id"]}
    split = spec.split.model_dump() | {"target_bytes": 10**6}
    report = run(target=target, split=split)
    assert (report.files, report.kept_files) == (48, 0)
    assert "48 files of " in caplog.text
    assert run(target=target, split=split).kept_files == 48


@pytest.mark.parametrize("wrong", ["a value", "the partition"])
def test_a_partition_that_differs_stops_the_run(
    lettered: Server, run: Run, spec: ExtractSpec, tmp_path: Path, wrong: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    partitioned = by_letter(spec) | {"split": spec.split.model_dump() | {"target_bytes": 10**6}}
    run(**partitioned)
    found = sorted((tmp_path / "target").rglob("*.parquet"))
    assert len(found) == 3
    if wrong == "a value":
        table = pq.ParquetFile(found[0]).read()
        ids = pa.array([99, *table.column("id").to_pylist()[1:]], pa.int32())
        pq.write_table(table.set_column(0, table.schema.field("id"), ids), found[0])
        monkeypatch.setattr(reuse, "_has_all", lambda *_: True)
    else:
        # Of partitions beyond some, the rows are counted.
        monkeypatch.setattr(kept_sample, "_PARTITIONS", 0)
        real = kept_sample.PartitionIds.of
        monkeypatch.setattr(
            kept_sample.PartitionIds,
            "of",
            lambda ids, keys: real(ids, [keys[0][:1].take([0] * len(keys[0]))]),
        )
    with pytest.raises(FilesDamaged, match="pages 0 to"):
        run(**partitioned)


def test_a_run_that_commits_meanwhile_is_noticed(
    run: Run, spec: ExtractSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run replaces every file; this one plans again on its commit."""
    run()
    real, others = kept_sample.verify_kept, []

    def other_run(*arguments: Any, **named: Any) -> int:
        if not others:
            others.append(1)
            fields = spec.model_dump() | {"run_id": "other", "reuse": "never"}
            run_extract(ExtractSpec.model_validate(fields))
        return real(*arguments, **named)

    monkeypatch.setattr("extract_jobs.attempt.attempt.verify_kept", other_run)
    report = run()
    assert (report.commit_seq, report.rows) == (3, 48)


def test_a_rollback_and_a_full_run_after_it(
    server: Server, run: Run, spec: ExtractSpec, tmp_path: Path
) -> None:
    from extract_jobs.commit.rollback import roll_back

    run(keep_retired="7d")
    server.execute("update t set note = 'n' where id = 20")
    run(keep_retired="7d")
    log = commit_log(spec, open_storage)
    roll_back(log, 1, run_id="back", keep=True)
    assert set(lake(tmp_path).column("id").to_pylist()) == set(range(1, 49))
    assert "n" not in lake(tmp_path).column("note").to_pylist()
    assert run(keep_retired="7d").not_reused == "the last commit has no record of what it read"
    assert run(keep_retired="7d").kept_rows == 48


def test_a_commit_that_was_rolled_back_to_has_its_rows_once(
    server: Server, run: Run, spec: ExtractSpec
) -> None:
    from extract_jobs.commit.rollback import roll_back

    for note in ("a", "b", "c"):
        run(keep_retired="7d")
        server.execute(f"update t set note = '{note}' where id = 20")
    log = commit_log(spec, open_storage)
    roll_back(log, 2, run_id="back", keep=True)
    assert log.newest().rows == 48


# --- what happens meanwhile -----------------------------------------------------------------------


WHOLE = {"split": {"target_bytes": 10**9, "max_connections": 1}}


def test_rows_are_compared_in_the_order_of_their_pages(server: Server, run: Run) -> None:
    """Parallel workers would mix them, and this server prefers such plans."""
    server.execute(
        "insert into t select i, 'n' from generate_series(49, 60000) i",
        "vacuum analyze t",
        *(
            f'alter database "{server.database}" set {setting}'
            for setting in (
                "parallel_setup_cost = 0", "parallel_tuple_cost = 0",
                "min_parallel_table_scan_size = 0", "enable_tidscan = off",
            )
        ),
    )  # fmt: skip
    run(**WHOLE)
    assert run(**WHOLE).kept_rows == 60_000


@pytest.mark.parametrize("part", ["page", "column names"])
def test_a_damaged_file_of_the_same_size_stops_the_run(run: Run, tmp_path: Path, part: str) -> None:
    run(**WHOLE)
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    compressed = b"\x28\xb5\x2f\xfd"
    content[content.index(compressed if part == "page" else b"note")] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(FilesDamaged, match="the file was changed"):
        run(**WHOLE)
    assert run(**WHOLE).rows == 48


def test_children_that_came_meanwhile_are_no_damage(
    server: Server, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    real = kept_sample.verify_kept

    def with_child(*arguments: Any, **more: Any) -> int:
        server.execute("create table c () inherits (t)", "insert into c select * from only t")
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr("extract_jobs.attempt.attempt.verify_kept", with_child)
        assert run().not_reused == "the table changed"  # it planned again
    server.execute("drop table c")
    assert "mistrusted.json" not in record_names(tmp_path)
    run()
    assert run().kept_rows == 48


def test_a_check_that_waits_behind_ddl_gives_way_at_once(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check waits for the ALTER TABLE, which waits for the snapshot's lock."""
    run()
    monkeypatch.setattr("extract_jobs.sources.postgres.snapshot.HEARTBEAT_SECONDS", 0.2)
    real, altering = PostgresPages._asked, []

    def alter() -> None:
        with server.connect() as connection:
            connection.execute("alter table t add x int")

    def asked(*arguments: Any) -> Any:
        if not altering:
            altering.append(threading.Thread(target=alter))
            altering[0].start()
            waits = "select count(*) from pg_locks where not granted"
            with server.connect() as connection:
                while connection.execute(waits).fetchone() == (0,):
                    time.sleep(0.05)
        return real(*arguments)

    monkeypatch.setattr(PostgresPages, "_asked", asked)
    began = time.monotonic()
    with pytest.raises(Interrupted, match="on_waiting_ddl"):
        run(on_waiting_ddl="yield")
    altering[0].join()
    assert time.monotonic() - began < 30  # lock_timeout is 60 s


@pytest.mark.parametrize("step", ["is_durable", "unchanged"])
def test_a_lost_connection_is_an_error_of_the_source(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Once all rows are read, it only keeps them from being remembered."""
    run()
    real = getattr(PostgresPages, step)

    def cut(pages: PostgresPages, *arguments: Any, **more: Any) -> Any:
        server.execute(f"select pg_terminate_backend({pages.opened.info.backend_pid}, 5000)")
        return real(pages, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(PostgresPages, step, cut)
        if step == "unchanged":
            with pytest.raises(SourceUnavailable):
                run()
            return
        assert run().kept_rows == 48
    assert run().not_reused == "the last commit has no record of what it read"


@pytest.mark.parametrize("kind", ["relative", "file"])
def test_targets_are_spelled_in_several_ways(
    spec: ExtractSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    base = "" if kind == "relative" else f"{tmp_path.as_uri()}/"
    target = spec.target.model_dump() | {"uri": f"{base}a target"}
    fields = spec.model_dump() | {"target": target, "state_uri": f"{base}a state"}
    for number in range(3):
        report = run_extract(ExtractSpec.model_validate(fields | {"run_id": f"r{number}"}))
    assert report.kept_rows == 48
    (left,) = (tmp_path / "a state" / "reads").iterdir()
    assert left.name.startswith(f"{3:020d}-")


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ([1.0, None], [1.0, None], True),
        ([float("nan")], [float("nan")], True),
        ([0.0], [-0.0], False),
        ([None], [0.0], False),
        ([[1.0, None], None], [[1.0, None], None], True),
        ([[0.0]], [[-0.0]], False),
        ([[1.0], []], [[], [1.0]], False),
        ([None], [[]], False),
        (["a", None], ["a", None], True),
        (["a"], ["b"], False),
        ([1], ["1"], False),
        ([{"a": float("nan"), "b": [1]}, None], [{"a": float("nan"), "b": [1]}, None], True),
        ([[{"a": 0.0}]], [[{"a": -0.0}]], False),
        ([{"a": None}, None], [None, {"a": None}], False),
    ],
)
def test_values_are_compared_bit_for_bit(left: list[Any], right: list[Any], *, same: bool) -> None:
    kind = pa.list_(pa.float64()) if left == [None] and right == [[]] else None
    right_array = pa.array(right, kind)
    left_array = pa.array(left, right_array.type if left == [None] else None)
    assert same_values(left_array, right_array) is same


def test_maps_and_large_lists_are_compared_likewise() -> None:
    kind = pa.map_(pa.string(), pa.float64())
    nan = pa.array([[("k", float("nan"))], [], None], kind)
    assert same_values(nan, pa.array([[("k", float("nan"))], [], None], kind))
    assert not same_values(nan, pa.array([[("k", 1.0)], [], None], kind))
    assert not same_values(nan, pa.array([[("k", float("nan"))], None, []], kind))
    large = pa.array([[float("nan")]], pa.large_list(pa.float64()))
    assert same_values(large, pa.array([[float("nan")]], large.type))


DIGESTS = {"1": "085d4aa46b2c864c6c355e340ac0e6e8521c5cddec557fad784a43a187d94a78"}
"""By `reuse.READING_VERSION`: of the values of every type."""


@pytest.mark.skipif(VERSION != 18, reason="the digest is of PostgreSQL 18's types")
def test_other_values_for_the_same_rows_are_another_version(
    pg_database: Server, spec: ExtractSpec, tmp_path: Path
) -> None:
    """If this fails because a change gives other values, raise `READING_VERSION`.

    Files that were kept would hold values of the old code beside those of the new one.
    """
    names = build(pg_database)
    changes = {"extract_table": "public.torture", "lossy_types": "null"}
    run_extract(ExtractSpec.model_validate(spec.model_dump() | changes))
    table = lake(tmp_path)
    digest = hashlib.sha256()
    for name in sorted(set(names) & set(table.column_names)):
        column = table.column(name)
        digest.update(f"{name} {column.type} {sorted(map(repr, column.to_pylist()))}".encode())
    assert digest.hexdigest() == DIGESTS[reuse.READING_VERSION]


# --- attempts -------------------------------------------------------------------------------------


class Stopping(Progress):
    """Raises an error once some splits are done."""

    def __init__(self, error: Exception, after: int) -> None:
        self.error, self.left = error, after

    def split(self, index: int, rows: int, size: int, *, done: bool) -> None:
        self.left -= done
        if self.left < 0:
            raise self.error


def attempt(spec: ExtractSpec, number: int, **overrides: Any) -> ExtractSpec:
    fields = spec.model_dump() | {"run_id": "r", "attempt": number} | overrides
    return ExtractSpec.model_validate(fields)


def staged(folder: Path) -> list[Path]:
    return sorted((folder / "target").rglob("*.staged"))


def assert_equal(server: Server, folder: Path) -> None:
    with server.connect() as connection:
        rows = connection.execute("select id, note from t order by id").fetchall()
    found = lake(folder).select(["id", "note"]).to_pydict()
    assert sorted(zip(found["id"], found["note"], strict=True)) == rows


@pytest.mark.parametrize("connections", [1, 2])
def test_the_next_attempt_reads_the_rest(
    server: Server,
    spec: ExtractSpec,
    tmp_path: Path,
    connections: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    split = {"split": spec.split.model_dump() | {"max_connections": connections}}
    with pytest.raises(SourceUnavailable):
        run_extract(attempt(spec, 1, **split), progress=Stopping(SourceUnavailable("lost"), 3))
    assert "with --run-id r" in caplog.text
    server.execute("update t set note = 'n' where id = 1")
    report = run_extract(attempt(spec, 2, **split))
    # The other connection may have finished a split as well.
    assert 1 <= report.resumed_splits <= 1 + connections
    assert (report.splits, report.rows, report.source_rows) == (4, 48, 48)
    assert_equal(server, tmp_path)
    recover(spec, tmp_path)
    again = run_extract(attempt(spec, 1, run_id="s"))
    assert again.kept_rows == 48


def recover(spec: ExtractSpec, folder: Path) -> None:
    """Check that the last attempt has left nothing behind, even before recovery."""
    assert not list((folder / "state" / "staged").rglob("*.json"))
    log = commit_log(spec, open_storage)
    assert log.recover(spec.target.uri, abandon_after=timedelta(0), now=utc_now()) == []


@pytest.mark.parametrize(
    "error", [TypeNotRepresentable("x"), ReconcileFailed("x"), ValueError("a defect")]
)
def test_nothing_stays_staged_after_an_error_that_no_retry_mends(
    server: Server, spec: ExtractSpec, tmp_path: Path, error: Exception
) -> None:
    with pytest.raises(type(error)):
        run_extract(attempt(spec, 1), progress=Stopping(error, 2))
    report = run_extract(attempt(spec, 2))
    assert report.resumed_splits == 0
    assert_equal(server, tmp_path)
    recover(spec, tmp_path)


def test_another_run_takes_over_nothing(server: Server, spec: ExtractSpec, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        run_extract(attempt(spec, 1), progress=Stopping(SourceUnavailable("lost"), 2))
    report = run_extract(attempt(spec, 1, run_id="s"))
    assert (report.resumed_splits, report.rows) == (0, 48)
    assert_equal(server, tmp_path)


def test_damaged_records_of_staged_ranges_are_passed_over(
    server: Server, spec: ExtractSpec, tmp_path: Path
) -> None:
    with pytest.raises(SourceUnavailable):
        run_extract(attempt(spec, 1), progress=Stopping(SourceUnavailable("lost"), 3))
    first, second, third = sorted((tmp_path / "state" / "staged").rglob("*.json"))
    first.write_text("[]")
    found = json.loads(second.read_text())
    found["files"][0]["staged"]["uri"] = "/etc/hosts"
    second.write_text(json.dumps(found))
    found = json.loads(third.read_text())
    found["range"]["rows"] += 1
    third.write_text(json.dumps(found))
    report = run_extract(attempt(spec, 2))
    assert report.resumed_splits == 0
    assert_equal(server, tmp_path)


@pytest.mark.parametrize("when", ["prepare", "publish"])
def test_attempts_that_overlap(
    server: Server, spec: ExtractSpec, tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is believed dead wakes up when the next attempt has taken over its ranges."""
    with pytest.raises(SourceUnavailable):
        run_extract(attempt(spec, 1), progress=Stopping(SourceUnavailable("lost"), 2))
    real = getattr(CommitLog, when)
    reports: list[Report] = []

    def other_first(log: CommitLog, commit: Commit, *more: Any) -> Any:
        monkeypatch.setattr(CommitLog, when, real)
        reports.append(run_extract(attempt(spec, 3)))
        return real(log, commit, *more)

    monkeypatch.setattr(CommitLog, when, other_first)
    second = run_extract(attempt(spec, 2))
    assert second.commit_seq == reports[0].commit_seq == 1
    assert_equal(server, tmp_path)
    log = commit_log(spec, open_storage)
    log.recover(spec.target.uri, abandon_after=timedelta(0), now=utc_now())
    assert_equal(server, tmp_path)


def test_an_attempt_that_fails_takes_its_ranges_from_the_next_one(
    server: Server, spec: ExtractSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one's commit is voided, and the one after it reads everything again."""
    with pytest.raises(SourceUnavailable):
        run_extract(attempt(spec, 1), progress=Stopping(SourceUnavailable("lost"), 2))
    real = CommitLog.publish

    def without_files(log: CommitLog, commit: Commit, *more: Any) -> Any:
        for upload in log.target.abandoned(spec.target.uri):
            if upload.uri.rsplit("/", 1)[-1].startswith("r-1-"):
                log.target.abort(spec.target.uri, upload)
        monkeypatch.setattr(CommitLog, "publish", real)
        return real(log, commit, *more)

    monkeypatch.setattr(CommitLog, "publish", without_files)
    with pytest.raises(WriteFailed, match="voided"):
        run_extract(attempt(spec, 2))
    report = run_extract(attempt(spec, 3))
    assert report.rows == 48
    assert_equal(server, tmp_path)


def broken_off(spec: ExtractSpec, run_id: str = "r", splits: int = 3) -> list[Path]:
    """Fail the first attempt of a run, and return its records of staged ranges."""
    with pytest.raises(SourceUnavailable):
        run_extract(
            attempt(spec, 1, run_id=run_id), progress=Stopping(SourceUnavailable("lost"), splits)
        )
    records = sorted((Path(spec.state_uri) / "staged" / run_id).rglob("*.json"))
    assert records
    return records


FORGED: dict[str, Callable[[dict[str, Any], str], None]] = {
    "another name": lambda found, target: renamed(found, f"{target}/r-1-00000000-00000-0.parquet"),
    "a file that is not its run's": lambda found, target: renamed(found, f"{target}/own.parquet"),
    "a snapshot that is none": lambda found, _: found["moment"]["snapshot"].update(xmin="x"),
    "a snapshot of another type": lambda found, _: found["moment"]["snapshot"].update(xmin=[]),
    "pages that no table has": lambda found, _: found["range"].update(end=2**40),
}


def renamed(found: dict[str, Any], uri: str) -> None:
    found["files"][0]["staged"]["uri"] = uri
    found["range"]["files"] = [uri]


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_forged_records_of_staged_ranges_are_passed_over(
    server: Server,
    spec: ExtractSpec,
    tmp_path: Path,
    forged: Callable[[dict[str, Any], str], None],
) -> None:
    for record in broken_off(spec):
        found = json.loads(record.read_text())
        forged(found, spec.target.uri)
        record.write_bytes(seal(without_seal(found)))
    assert run_extract(attempt(spec, 2)).resumed_splits == 0
    assert_equal(server, tmp_path)


def test_a_record_that_names_files_of_another_run_is_passed_over(
    server: Server, spec: ExtractSpec, tmp_path: Path
) -> None:
    records = broken_off(spec, "s")
    before = staged(tmp_path)
    folder = tmp_path / "state" / "staged" / "r" / "0"
    folder.mkdir(parents=True)
    for record in records:
        (folder / record.name).write_bytes(record.read_bytes())
    assert run_extract(attempt(spec, 1)).resumed_splits == 0
    assert_equal(server, tmp_path)
    assert staged(tmp_path) == before


def test_recovery_deletes_the_records_of_a_run_that_never_commits(
    spec: ExtractSpec, tmp_path: Path
) -> None:
    records = broken_off(spec)
    log = commit_log(spec, open_storage)
    log.recover(spec.target.uri, abandon_after=timedelta(hours=1), now=utc_now())
    assert all(record.exists() for record in records)
    assert log.recover(spec.target.uri, abandon_after=timedelta(0), now=utc_now())
    assert not any(record.exists() for record in records)


def test_a_rerun_drops_what_the_runs_before_it_have_staged(
    server: Server, spec: ExtractSpec, tmp_path: Path
) -> None:
    broken_off(spec)
    run_extract(attempt(spec, 1, run_id="s", reruns=["r"]))
    assert_equal(server, tmp_path)
    recover(spec, tmp_path)


class StoppedAt(Progress):
    """Stops the extract when a phase begins."""

    def __init__(self, name: str) -> None:
        self.name = name

    def phase(self, name: str) -> None:
        if name == self.name:
            raise StopRequested("stopped")


def test_an_attempt_that_is_stopped_before_it_commits_is_taken_over(
    server: Server, spec: ExtractSpec, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        run_extract(attempt(spec, 1), progress=StoppedAt("commit"))
    report = run_extract(attempt(spec, 2))
    assert (report.resumed_splits, report.splits, report.rows) == (4, 4, 48)
    assert_equal(server, tmp_path)
    recover(spec, tmp_path)


def test_what_ends_a_stuck_attempt_leaves_its_ranges(
    server: Server, spec: ExtractSpec, tmp_path: Path
) -> None:
    records = broken_off(spec)
    (extra,) = json.loads(records.pop().read_text())["range"]["files"]
    max((tmp_path / "state" / "staged").rglob("*.json")).unlink()
    assert drop_staged(attempt(spec, 1)) == 1
    assert not any(Path(extra).name in str(left) for left in staged(tmp_path))
    assert run_extract(attempt(spec, 2)).resumed_splits == len(records)
    assert_equal(server, tmp_path)


def test_a_commit_with_nothing_left_to_drop_reads_no_record(
    spec: ExtractSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_again(*_: Any) -> StagedRange:
        raise AssertionError("a record was read again")

    monkeypatch.setattr(StagedRange, "from_bytes", read_again)
    run_extract(attempt(spec, 1))
    recover(spec, tmp_path)


def test_a_range_that_cannot_be_noted_is_read_all_the_same(
    server: Server, spec: ExtractSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [SourceUnavailable("lost")]
    real = PostgresPages.is_durable

    def failing_once(pages: PostgresPages) -> bool:
        if failures:
            raise failures.pop()
        return real(pages)

    monkeypatch.setattr(PostgresPages, "is_durable", failing_once)
    assert run_extract(attempt(spec, 1)).rows == 48
    assert_equal(server, tmp_path)
    recover(spec, tmp_path)
