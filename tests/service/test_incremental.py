"""Incremental extracts of a real PostgreSQL into local folders and S3, run after run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from extract_jobs.errors import ConfigError
from extract_jobs.reporting.report import Report
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.crash import Lake, bucket_of
from tests.support.emulators import set_environment
from tests.support.postgres import Server, since
from tests.support.readers import by_duckdb


@dataclass
class Story:
    """Consecutive runs of one table into one lake."""

    server: Server
    lake: Lake
    runs: Iterator[int] = field(default_factory=lambda: iter(range(1, 1000)))

    def spec(self, run_id: str | None = None, attempt: int = 1, **more: Any) -> ExtractSpec:
        defaults = {"mode": "incremental", "split": {"strategy": "none"}}
        run_id = run_id or f"run-{next(self.runs)}"
        spec = self.lake.spec(self.server, run_id, attempt, **{**defaults, **more})
        return ExtractSpec.model_validate(spec)

    def run(self, column: str = "w", **more: Any) -> Report:
        watermark = {"column": column, **more.pop("watermark", {})}
        return run_extract(self.spec(watermark=watermark, **more))

    def execute(self, *statements: str) -> None:
        self.server.execute(*statements)

    def ids(self) -> list[Any]:
        return self.lake.read("id")


@pytest.fixture(params=["local", "s3"])
def story(
    request: pytest.FixtureRequest,
    pg_database: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Story:
    monkeypatch.setenv("CRASH_PASSWORD", pg_database.password)
    if request.param == "local":
        return Story(pg_database, Lake(str(tmp_path / "lake")))
    emulator = request.getfixturevalue("ministack")
    set_environment(emulator.environment(), monkeypatch)
    uri = bucket_of(emulator, f"incremental-{uuid4().hex[:8]}") + "/x"
    return Story(pg_database, Lake(uri, emulator.environment()))


@pytest.fixture
def local(pg_database: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Story:
    monkeypatch.setenv("CRASH_PASSWORD", pg_database.password)
    return Story(pg_database, Lake(str(tmp_path / "lake")))


KEYED = {"columns": {"key": ["id"]}}
TYPES = {
    "int64's ends": (
        "bigint",
        ["-9223372036854775808", "-1", "0", "9223372036854775807"],
        "9223372036854775807",
    ),
    "negative": ("integer", ["-30", "-20", "-10", "-1"], "-1"),
    "numeric": (
        "numeric",
        ["-12345678901234567890123456789012345678901.5", "0.00000000000000000001", "1",
         "12345678901234567890123456789012345678901.25"],
        "12345678901234567890123456789012345678901.25",
    ),
    "numeric(12,2)": ("numeric(12,2)", ["-1.01", "-1.00", "0", "9999999999.99"], "9999999999.99"),
    "date": ("date", ["0001-01-01", "1582-10-10", "2026-03-01", "9999-12-31"], "9999-12-31"),
    "timestamp": (
        "timestamp",
        ["0001-01-01 00:00", "2026-01-01 00:00:00.000001", "2026-01-01 00:00:00.000002",
         "9999-12-31 23:59:59.999999"],
        "9999-12-31 23:59:59.999999",
    ),
    "timestamptz": (
        "timestamptz",
        ["2026-10-25 02:30:00.123456+02", "2026-10-25 02:30:00.123457+02",
         "2026-10-25 02:30:00.123456+01", "2026-10-25 03:00:00+01"],
        "2026-10-25 02:00:00+00",
    ),
    "domain": ("positive", ["1", "2", "3", "4"], "4"),
    "uuid": (
        "uuid",
        ["00000000-0000-7000-8000-000000000001", "01890000-0000-7000-8000-000000000001",
         "0189ffff-ffff-7fff-bfff-ffffffffffff", "f0000000-0000-7000-8000-000000000000"],
        "f0000000-0000-7000-8000-000000000000",
    ),
    "char": ("char(4)", ["a", "ab", "abc", "abcd"], "abcd"),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_every_row_once_at_the_finest_difference(local: Story, name: str) -> None:
    """One row more before each run: what is at the boundary is neither lost nor doubled."""
    kind, values, highest = TYPES[name]
    local.execute(
        f"alter database \"{local.server.database}\" set timezone = 'America/New_York'",
        f"alter database \"{local.server.database}\" set datestyle = 'German'",
        "create domain positive as bigint check (value > 0)",
        f"create table t (id int primary key, w {kind})",
    )
    for number, value in enumerate(values, 1):
        local.execute(f"insert into t values ({number}, '{value}')")
        report = local.run()
        assert (report.rows, report.source_rows) == (1, 1)
        assert local.run().rows == 0
        assert local.ids() == list(range(1, number + 1))
    assert report.watermark is not None
    assert report.watermark["text"] == highest


@pytest.mark.parametrize("name", ["numeric(12,2)", "date", "timestamptz", "uuid"])
def test_increments_go_on_where_a_full_run_ended(local: Story, name: str) -> None:
    """Where Arrow does not order values as the source does, a key tells read rows apart."""
    kind, values, highest = TYPES[name]
    more: dict[str, Any] = KEYED if name == "uuid" else {}
    local.execute(
        f"create table t (id int primary key, w {kind})",
        *(f"insert into t values ({n}, '{value}')" for n, value in enumerate(values[:-1], 1)),
    )
    assert local.run(mode="full", **more).rows == 3
    local.execute(f"insert into t values (4, '{values[-1]}')")
    report = local.run(**more)
    assert (report.rows, report.source_rows, report.repeated_rows) == (1, 1, 0)
    assert report.watermark is not None
    assert report.watermark["text"] == highest
    assert local.ids() == [1, 2, 3, 4]


def test_a_full_run_keeps_the_delay(local: Story) -> None:
    """A transaction that is still open may commit rows below the greatest value that was read."""
    late: dict[str, Any] = {"watermark": {"delay": "1h"}, **KEYED}
    local.execute(
        "create table t (id int primary key, w timestamptz)",
        "insert into t values (1, now() - interval '2 h'), (2, now() - interval '1 min')",
    )
    assert local.run(mode="full", **late).rows == 2
    local.execute("insert into t values (3, now() - interval '90 min')")
    report = local.run(**late)
    assert (report.rows, report.repeated_rows) == (1, 0)
    assert local.ids() == [1, 2, 3]


def test_the_night_that_summer_time_ends(story: Story) -> None:
    """Writers and database in a zone whose clock goes back: instants do not."""
    story.execute(
        f"alter database \"{story.server.database}\" set timezone = 'Europe/Berlin'",
        "create table t (id int, w timestamptz)",
    )
    for number, utc in enumerate(["00:30:00", "00:59:59.999999", "01:00:00", "01:30:00"]):
        story.execute(f"insert into t values ({number}, '2026-10-25 {utc}+00')")
        assert story.run().rows == 1
    assert story.ids() == [0, 1, 2, 3]


def test_a_hundred_thousand_equal_values(story: Story) -> None:
    story.execute(
        "create table t (id int, w timestamptz)",
        "create index on t (w)",
        "insert into t select g, '2026-01-01' from generate_series(1, 100000) g",
    )
    split = {"split": {"target_bytes": 262144, "max_connections": 1, "strategy": "none"}}
    assert story.run(**split).rows == 100_000
    story.execute(
        "insert into t select 100000 + g, '2026-01-01 00:00:00.000001'"
        " from generate_series(1, 100000) g",
        "insert into t values (200001, '2026-01-01 00:00:00.000002')",
    )
    assert story.run(watermark={"upper": "2026-01-01 00:00:00.000001"}).rows == 100_000
    assert story.run().rows == 1
    assert story.ids() == list(range(1, 200_002))


def test_only_the_source_orders_text(local: Story) -> None:
    """Bounds of uuids in upper case are in the order of uuids, not in that of their letters."""
    local.execute("create table t (id int, w uuid)")

    def add(number: int, head: str) -> str:
        text = f"{head}-0000-7000-8000-000000000000"
        local.execute(f"insert into t values ({number}, '{text}')")
        return text

    add(1, "aaaaaaaa")
    highest = add(2, "cccccccc")
    assert local.run().watermark == {"type": "string", "text": highest}
    assert add(3, "bbbbbbbb") < highest
    assert local.run().rows == 0
    upper = "DDDDDDDD-0000-7000-8000-000000000000"
    assert upper < highest, "as letters"
    bounds = {"lower": add(4, "99999999").upper(), "upper": upper}
    with pytest.raises(ConfigError, match=r"overlaps what commits hold already"):
        local.run(watermark=bounds)
    report = local.run(watermark=bounds, **KEYED)
    assert (report.rows, report.repeated_rows) == (1, 2)
    assert report.watermark == {"type": "string", "text": highest}
    assert local.ids() == [1, 2, 3]
    with pytest.raises(ConfigError, match=r"no value is above watermark.lower"):
        local.run(watermark={"lower": upper, "upper": highest})


@since(17)
def test_text_in_a_collation_that_the_database_does_not_have_by_default(local: Story) -> None:
    """Literals take the column's collation: another one in the statement would be an error."""
    local.execute(
        "create collation \"Of its own\" (provider = builtin, locale = 'C.UTF-8')",
        'create table t (id int, w varchar(9) collate "Of its own")',
        "insert into t values (1, 'a'), (2, 'é'), (3, 'ﬁ')",
    )
    assert local.run(watermark={"upper": "é"}).rows == 2
    assert local.run(watermark={"lower": "é", "upper": "☃"}).rows == 0
    assert local.run().rows == 1
    assert local.run(watermark={"lower": "Z", "upper": "b"}, **KEYED).repeated_rows == 1


@pytest.mark.parametrize(
    ("nulls", "first", "second", "counted"),
    [("include", [1, 2], [1, 2, 3], (1, 2)), ("exclude", [1], [1, 3], (1, 2))],
)
def test_null_watermarks(
    story: Story, nulls: str, first: list[int], second: list[int], counted: tuple[int, int]
) -> None:
    watermark = {"watermark": {"nulls": nulls}}
    story.execute("create table t (id int, w int)", "insert into t values (1, 1), (2, null)")
    report = story.run(**watermark)
    assert (story.ids(), report.null_watermark_rows) == (first, counted[0])
    story.execute("insert into t values (3, 3), (4, null)")
    report = story.run(**watermark)
    assert (story.ids(), report.null_watermark_rows) == (second, counted[1])
    assert story.run(**watermark).null_watermark_rows == 2  # in an empty interval too


def test_null_watermarks_refused(local: Story) -> None:
    local.execute("create table t (id int, w int)", "insert into t values (1, 1), (2, null)")
    with pytest.raises(ConfigError, match="1 rows have NULL in watermark column w"):
        local.run(watermark={"nulls": "refuse"})
    assert local.lake.visible() == []
    assert local.run(watermark={"nulls": "refuse"}, where="w is not null").rows == 1


def test_a_first_run_with_nothing_but_null_watermarks(local: Story) -> None:
    local.execute("create table t (id int, w int)", "insert into t values (1, null), (2, null)")
    report = local.run()
    assert (report.rows, report.null_watermark_rows, report.watermark) == (2, 2, None)
    local.execute("insert into t values (3, -5)")
    assert local.run().rows == 1
    assert local.ids() == [1, 2, 3]


def test_a_full_run_counts_null_watermarks_too(local: Story) -> None:
    local.execute("create table t (id int, w int)", "insert into t values (1, null), (2, 5)")
    report = local.run(mode="full")
    assert (report.rows, report.null_watermark_rows) == (2, 1)
    assert report.watermark == {"type": "integer", "text": "5"}
    local.execute("insert into t values (3, null), (4, 6)")
    report = local.run()
    assert (report.rows, report.null_watermark_rows) == (1, 2)
    assert local.ids() == [1, 2, 4]


def test_late_rows_within_the_lag_come_once(story: Story) -> None:
    story.execute(
        "create table t (id int primary key, w timestamptz not null, name text)",
        "insert into t select g, timestamptz '2026-01-01 00:00+00' + g * interval '1 min', 'old'"
        " from generate_series(1, 100) g where g % 10 <> 0",
    )
    late: dict[str, Any] = {"watermark": {"lag": "30m"}, **KEYED}
    assert story.run(**late).rows == 90
    story.execute(
        "insert into t values (70, '2026-01-01 01:10+00', 'late'),"
        " (10, '2026-01-01 00:10+00', 'too late'), (101, '2026-01-01 01:41+00', 'new')",
        "update t set w = '2026-01-01 01:42+00', name = 'updated' where id = 85",
    )
    report = story.run(**late)
    assert report.rows == 3
    assert report.repeated_rows == 26  # 70 to 99, without the four tens and the updated one
    assert report.source_rows == 29
    assert Counter(story.ids()) == Counter([n for n in range(1, 102) if n % 10 or n == 70] + [85])
    report = story.run(**late)
    assert (report.rows, report.commit_seq) == (0, None)
    story.execute("insert into t values (102, '2026-01-01 01:43+00', 'new')")
    assert story.run(**late).rows == 1
    assert story.run(watermark={"lag": "30m", "duplicates": "accept"}).rows > 1


@pytest.mark.parametrize(
    ("old", "new", "scale", "wide"),
    [
        ("smallint", "int", "1", "70000"),
        ("int", "bigint", "1", "1099511627776"),
        ("real", "double precision", "0.1", "1e300"),
        ("numeric(9,2)", "numeric(12,2)", "0.01", "9999999999.25"),
    ],
)
def test_late_rows_come_once_across_files_of_two_widths(
    local: Story, old: str, new: str, scale: str, wide: str
) -> None:
    """Key and watermark are wider in new files, and rows of older files are still known."""
    local.execute(
        f"create table t (id {old}, w int)",
        f"insert into t select g * {scale}, g from generate_series(1, 10) g",
    )
    widened = {**KEYED, "on_schema_change": {"widened": "new_files"}}
    assert local.run(**widened, watermark={"lag": 5}).rows == 10
    local.execute(
        f"alter table t alter id type {new}",
        "alter table t alter w type bigint",
        f"insert into t values (99 * {scale}, 7), ({wide}, 1099511627776)",
    )
    report = local.run(**widened, watermark={"lag": 5})
    assert [change.kind for change in report.schema_changes] == ["widened", "widened"]
    assert (report.rows, report.repeated_rows) == (2, 5)
    # Now rows of files of both widths are read again.
    local.execute(f"insert into t values (98 * {scale}, 8)")
    report = local.run(**widened, watermark={"lag": 1099511627776 - 5})
    assert (report.rows, report.repeated_rows) == (1, 7)
    rows = by_duckdb(local.lake.target)
    with local.server.connect() as connection:
        wanted = connection.execute("select id, w from t").fetchall()
    assert sorted((row["id"], row["w"]) for row in rows) == sorted(wanted)


def test_a_partition_is_replaced_by_files_of_another_width(local: Story) -> None:
    local.execute(
        "create table t (id int, day date, w int)",
        "insert into t select g, date '2026-01-01' + g % 2, g from generate_series(1, 4) g",
    )
    more: dict[str, Any] = {
        "mode": "full",
        "watermark": None,
        "on_schema_change": {"widened": "new_files"},
        "target": {"write_mode": "overwrite_partitions", "partition_by": ["day"]},
    }
    run_extract(local.spec(**more))
    local.execute(
        "alter table t alter id type bigint",
        "delete from t where day = '2026-01-01'",
        "update t set id = id + 1099511627776",
    )
    run_extract(local.spec(**more))
    found = sorted(row["id"] for row in by_duckdb(local.lake.target))
    assert found == [2, 4, 1099511627777, 1099511627779]


def test_a_lag_over_folders_renamed_and_cast_columns(story: Story) -> None:
    """Key and watermark are told as files and folders hold them."""
    story.execute(
        'create table t (id int, "K y" text, region text, w date)',
        "insert into t select g, 'k' || g, 'r' || g % 3, date '2026-01-01' + g"
        " from generate_series(1, 20) g",
    )
    more: dict[str, Any] = {
        "columns": {
            "key": ["region", "K y"],
            "rename": {"K y": "name", "w": "day"},
            "cast": {"w": "string"},
        },
        "target": {"partition_by": ["region", "extract_date"]},
        "watermark": {"lag": "5d"},
    }  # fmt: skip
    assert story.run(**more).rows == 20
    story.execute(
        "insert into t values (21, 'k19', 'r2', '2026-01-20'), (22, 'x', 'r0', '2026-01-22')"
    )
    report = story.run(**more)
    assert (report.rows, report.repeated_rows) == (2, 5)
    assert story.ids() == list(range(1, 23))
    story.execute("insert into t values (23, null, 'r2', '2026-01-22')")
    with pytest.raises(ConfigError, match=r"columns.key: K y holds NULL in 1 rows"):
        story.run(**more)
    assert story.lake.staged() == []


def test_a_key_that_is_the_watermark_and_lies_in_folders(local: Story) -> None:
    local.execute(
        "create table t (id int, w int)", "insert into t select g, g from generate_series(1, 9) g"
    )
    more = {"columns": {"key": ["w"]}, "target": {"partition_by": ["w"]}, "watermark": {"lag": 4}}
    local.run(**more)
    local.execute("delete from t where w = 9", "insert into t values (10, 10)")
    report = local.run(**more)
    assert (report.rows, report.repeated_rows) == (1, 3)
    assert local.ids() == list(range(1, 11))


def test_a_file_that_somebody_deleted_is_no_longer_committed(local: Story) -> None:
    local.execute("create table t (id int, w int)", "insert into t values (1, 1), (2, 2)")
    late: dict[str, Any] = {"watermark": {"lag": 9}, **KEYED}
    local.run(**late)
    for uri in local.lake.visible():
        Path(uri).unlink()
    assert local.run(**late).rows == 2


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_delay_keeps_away_from_the_source_s_clock(local: Story, kind: str, zone: str) -> None:
    """By the server's clock: whatever zone its database is set to, nothing newer is taken."""
    local.execute(f"alter database \"{local.server.database}\" set timezone = '{zone}'")
    now = datetime.now(UTC)
    local.execute(f"create table t (id int, w {kind})")
    ago = {1: timedelta(days=3), 2: timedelta(minutes=2), 3: timedelta(seconds=-50)}
    for number, before in ago.items():
        text = f"{now - before:%Y-%m-%d %H:%M:%S}" + ("+00" if kind == "timestamptz" else "")
        local.execute(f"insert into t values ({number}, '{text}')")
    report = local.run(watermark={"delay": "1m"})
    west = zone == "America/Los_Angeles" and kind == "timestamp"
    # A day is over when its clock says so; a wall clock without a zone may be the earlier one.
    assert local.ids() == ([1] if kind == "date" or west else [1, 2])
    assert report.status == "succeeded"
    with pytest.raises(ConfigError, match=r"watermark.delay needs a watermark that is a time"):
        local.run(column="id", watermark={"delay": "1m"})


def test_initial_backfill_and_gap(story: Story) -> None:
    story.execute(
        "create table t (id int primary key, w int)",
        "insert into t select g, g from generate_series(1, 100) g",
    )

    def text(report: Report) -> str:
        assert report.watermark is not None
        return report.watermark["text"]

    report = story.run(watermark={"initial": 50, "upper": 70})
    assert (report.rows, text(report)) == (20, "70")
    assert story.ids() == list(range(51, 71))
    report = story.run(watermark={"lower": 10, "upper": 20})  # below: the watermark stays
    assert (report.rows, text(report)) == (10, "70")
    report = story.run(watermark={"lower": 80, "upper": 90}, **KEYED)  # above a gap: it stays
    assert (report.rows, text(report)) == (10, "70")
    report = story.run(watermark={"lower": 60, "upper": 75}, **KEYED)  # goes on from it
    assert (report.rows, report.repeated_rows, text(report)) == (5, 10, "75")
    with pytest.raises(ConfigError, match=r"\(75, 100\] overlaps .*\(80, 90\]"):
        story.run()
    report = story.run(**KEYED)
    assert (report.rows, report.repeated_rows, text(report)) == (15, 10, "100")
    assert story.ids() == [*range(11, 21), *range(51, 101)]
    report = story.run(watermark={"upper": "50"}, **KEYED)  # nothing is between 100 and 50
    assert (report.rows, text(report)) == (0, "100")


def test_a_malformed_bound_names_its_type(local: Story) -> None:
    local.execute("create table t (id uuid, w timestamptz)")
    with pytest.raises(ConfigError, match=r"watermark.initial: 'x' .* of type timestamptz"):
        local.run(watermark={"initial": "x"})
    with pytest.raises(ConfigError, match="not a bound for watermark column id, which is uuid"):
        local.run(column="id", watermark={"initial": "x"})
    assert local.lake.visible() == []


def test_bounds_beyond_what_the_column_can_hold(local: Story) -> None:
    local.execute(
        "create table t (id int, w bigint)", "insert into t values (1, -9223372036854775808)"
    )
    late: dict[str, Any] = {"watermark": {"lag": 10**30}, **KEYED}
    assert local.run(**late).rows == 1
    local.execute("insert into t values (2, 5)")
    assert (local.run(**late).rows, local.ids()) == (1, [1, 2])


def test_an_empty_table_and_an_empty_interval(story: Story) -> None:
    story.execute("create table t (id int, w int)")
    report = story.run(on_empty="nothing")
    assert (report.rows, report.commit_seq, story.lake.visible()) == (0, None, [])
    report = story.run()
    assert (report.rows, report.files, report.commit_seq) == (0, 1, 1)
    assert story.run().commit_seq is None
    story.execute("insert into t values (1, 1)")
    assert story.run().commit_seq == 2
    report = story.run()
    assert (report.rows, report.commit_seq) == (0, None)
    assert report.watermark == {"type": "integer", "text": "1"}
    assert story.ids() == [1]


def test_an_attempt_extracts_what_the_first_had_pinned(story: Story) -> None:
    story.execute("create table t (id int, w int)", "insert into t values (1, 1)")
    watermark = {"watermark": {"column": "w"}}
    # Fails after it has pinned its plan: the column vanishes for the reader only.
    broken = story.spec("r", where="1 / (id - 1) >= 0 or id = 1", **watermark)
    with pytest.raises(Exception, match="division by zero"):
        run_extract(broken.model_copy(update={"where": "w > 0 and 1 / 0 = id or w = 1"}))
    assert story.lake.visible() == []
    story.execute("insert into t values (2, 2)")
    report = run_extract(story.spec("r", 2, **watermark))
    assert report.interval is not None
    pinned = report.interval["upper"]["text"]
    assert story.ids() == list(range(1, int(pinned) + 1))
    story.run()
    assert story.ids() == [1, 2]


def test_whole_partitions_are_replaced(story: Story) -> None:
    story.execute(
        "create table t (id int primary key, w timestamptz, region text)",
        "insert into t select g, timestamptz '2026-01-01 00:00+00' + g * interval '6 h',"
        " 'r' || g % 2 from generate_series(0, 11) g",
        "insert into t values (100, null, 'r0')",
    )
    more = {"target": {"write_mode": "overwrite_partitions", "partition_by": ["day(w)", "region"]}}
    assert story.run(**more).rows == 13
    assert story.ids() == [*range(12), 100]
    # Day 3 goes on, and a row of it was deleted, which is seen because the whole day is read.
    story.execute(
        "delete from t where id = 10",
        "insert into t values (12, '2026-01-03 19:00+00', 'r9'), (13, '2026-01-04 01:00+00', 'r1')",
    )
    report = story.run(**more)
    assert report.rows == 5  # 8, 9, 11, 12 and 13
    assert story.ids() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 100]
    # A backfill inside one day reads all of it; a day without a row left becomes empty.
    story.execute("delete from t where w < '2026-01-02' or id = 5")
    report = story.run(watermark={"lower": "2026-01-01 05:00", "upper": "2026-01-02 01:00"}, **more)
    assert report.rows == 3
    assert story.ids() == [4, 6, 7, 8, 9, 11, 12, 13, 100]
    assert report.watermark == {"type": "timestamptz", "text": "2026-01-04 01:00:00+00"}
    assert not [u for u in story.lake.visible() if "w_day=2026-01-01" in u]
    assert story.run(**more).commit_seq is None


def test_a_full_run_replaces_the_partitions_that_it_wrote(story: Story) -> None:
    story.execute(
        "create table t (id int, region text)", "insert into t values (1, 'a'), (2, null)"
    )
    more = {
        "mode": "full", "watermark": None,
        "target": {"write_mode": "overwrite_partitions", "partition_by": ["region"]},
    }  # fmt: skip
    run_extract(story.spec(**more))
    story.execute("delete from t", "insert into t values (3, 'b'), (4, null)")
    run_extract(story.spec(**more))
    assert story.ids() == [1, 3, 4]


def test_a_changed_watermark_column_is_refused(local: Story) -> None:
    local.execute("create table t (id int, w int, v int)", "insert into t values (1, 1, 1)")
    local.run()
    with pytest.raises(ConfigError, match=r"column w, and watermark.column is now v"):
        local.run(column="v")
    local.execute("alter table t alter w type numeric")
    with pytest.raises(ConfigError, match="now of type decimal"):
        local.run(columns={"cast": {"w": "int32"}})


def test_a_query_and_a_view(local: Story) -> None:
    local.execute(
        "create table b (id int, w timestamp)",
        "create view t as select id, w from b where id < 100",
        "insert into b values (1, '2026-01-01'), (2, '2026-01-02'), (100, '2026-01-09')",
    )
    assert local.run().rows == 2
    local.execute("insert into b values (3, '2026-01-03')")
    assert local.run().rows == 1
    assert local.ids() == [1, 2, 3]
    other = Story(local.server, Lake(local.lake.uri + "-q"))
    query = "select id, w::timestamptz as w from b where id <> 2 -- why"
    assert other.run(extract_table="q", query=query).rows == 3
    assert other.run(extract_table="q", query=query).rows == 0


def test_the_files_hold_the_watermark_unchanged(local: Story) -> None:
    local.execute(
        "create table t (id int, w timestamptz)",
        "insert into t values (1, '2026-03-29 01:00:00.123456+00')",
    )
    local.run()
    [uri] = local.lake.visible()
    found = local.lake.table(uri).column("w")
    assert found.type == pa.timestamp("us", "UTC")
    assert found[0].as_py() == datetime(2026, 3, 29, 1, 0, 0, 123456, tzinfo=UTC)
