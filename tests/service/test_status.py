"""`extract-jobs status`: how tables are doing, from their state or from a tracking table."""

from __future__ import annotations

import json
import logging
import os
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from extract_jobs.cli import main, status
from extract_jobs.cli.arguments import argument_parser
from extract_jobs.cli.status import status_text
from extract_jobs.errors import StopRequested
from extract_jobs.reporting.figures import rough_age, spark_line
from extract_jobs.reporting.report import Report
from extract_jobs.reporting.table_state import TableStatus, moment_of
from extract_jobs.storage.local import LocalStorage
from extract_jobs.tracking.item import TrackedRun, encode
from extract_jobs.tracking.table import create_table
from extract_jobs.watermark import WatermarkType, WatermarkValue
from tests.support.emulators import Emulator, set_environment
from tests.support.sqlite_source import write

CONFIG = """\
version: 1
source: {name: shop, type: sqlite, connection: {path: shop.db}}
defaults: {target: {uri: "out/{table}"}}
tables:
  t:
  v: {mode: incremental, watermark: {column: changed}}
"""
Cli = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    write(
        tmp_path / "shop.db",
        "create table t (id integer primary key)",
        "insert into t values (1), (2), (3)",
        "create table v (id integer primary key, changed date)",
        "insert into v values (1, '2026-01-31')",
    )
    (tmp_path / "shop.yml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = main(list(arguments))
        return code, capsys.readouterr().out.splitlines()

    yield run
    logging.getLogger("extract_jobs").setLevel(logging.NOTSET)


def told(cli: Cli, *arguments: str) -> dict[str, dict[str, object]]:
    code, lines = cli("status", "shop.yml", "--json", *arguments)
    assert code == 0
    return {one["table"]: one for one in map(json.loads, lines)}


def test_what_ran_and_what_never_has(cli: Cli) -> None:
    assert cli("run", "shop.yml", "v")[0] == 0
    found = told(cli)
    assert list(found) == ["t", "v"], "never run comes before ok"
    assert found["t"] == {
        "table": "t", "state": "never run", "reason": None, "succeeded_at": None,
        "watermark": None, "watermark_at": None, "rows": [],
    }  # fmt: skip
    assert (found["v"]["state"], found["v"]["rows"]) == ("ok", [1])
    assert found["v"]["watermark"] == "2026-01-31"
    assert found["v"]["watermark_at"] is None, "SQLite's dates are text"
    at = datetime.fromisoformat(str(found["v"]["succeeded_at"]))
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)


def test_a_failure_is_shown_until_a_run_succeeds(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "shop.yml", "t")[0] == 0
    write(tmp_path / "shop.db", "alter table t rename to away")
    assert cli("run", "shop.yml", "t")[0] == 78
    found = told(cli)["t"]
    assert (found["state"], found["rows"]) == ("failed", [3])
    assert str(found["reason"]).startswith("ConfigError: there is no table")
    write(tmp_path / "shop.db", "alter table away rename to t", "insert into t values (4)")
    assert cli("run", "shop.yml", "t")[0] == 0
    assert (told(cli)["t"]["state"], told(cli)["t"]["rows"]) == ("ok", [3, 4])


def test_a_run_without_new_rows_is_a_success(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "shop.yml", "v")[0] == 0
    state = tmp_path / "out" / "_extract" / "shop" / "v"
    [outcome] = (state / "outcomes").iterdir()
    [report] = (state / "reports").glob("*/*.json")
    old = datetime.now(UTC).timestamp() - 86_400
    for path in (outcome, report):
        os.utime(path, (old, old))
    assert told(cli, "--overdue", "2h")["v"]["state"] == "overdue"
    assert cli("run", "shop.yml", "v")[0] == 0
    assert (told(cli, "--overdue", "2h")["v"]["state"], told(cli)["v"]["rows"]) == ("ok", [1])


def test_overdue_is_twice_the_usual_time_between_commits(cli: Cli, tmp_path: Path) -> None:
    for _ in range(3):
        assert cli("run", "shop.yml", "t")[0] == 0
    state = tmp_path / "out" / "_extract" / "shop" / "t"
    now = datetime.now(UTC).timestamp()

    def age(hours: float) -> None:
        """Let the newest commit be as old as given, each one before it 3 hours older."""
        for back, path in enumerate(sorted((state / "outcomes").iterdir(), reverse=True)):
            os.utime(path, (now - (hours + 3 * back) * 3600,) * 2)
        for path in (state / "reports").glob("*/*.json"):
            os.utime(path, (now - hours * 3600,) * 2)

    age(5.9)
    assert told(cli)["t"]["state"] == "ok"
    age(6.1)
    assert told(cli)["t"]["state"] == "overdue"
    assert told(cli)["t"]["reason"] == "the last success is more than 6 h old"


def test_staged_files_show_that_a_run_is_under_way(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "shop.yml", "t")[0] == 0
    target = tmp_path / "out" / "t"
    writer = LocalStorage().stage(str(target / "x.parquet"), str(target), "t0ken")
    writer.write(b"rows")
    staged = Path(writer.close().upload["path"])
    os.utime(staged, (staged.stat().st_mtime + 2,) * 2)
    found = told(cli)["t"]
    assert found["state"] == "running"
    assert "staged" in str(found["reason"])


def test_a_commit_without_its_outcome(cli: Cli, tmp_path: Path) -> None:
    for _ in range(2):
        assert cli("run", "shop.yml", "t")[0] == 0
    state = tmp_path / "out" / "_extract" / "shop" / "t"
    (state / "outcomes" / f"{2:020d}.json").unlink()
    found = told(cli)["t"]
    assert (found["state"], found["rows"]) == ("running", [3])
    assert "a commit has no outcome yet" in str(found["reason"])


def test_a_damaged_record_is_one_tables_trouble(cli: Cli, tmp_path: Path) -> None:
    for table in "tv":
        assert cli("run", "shop.yml", table)[0] == 0
    record = tmp_path / "out" / "_extract" / "shop" / "v" / "commits" / f"{1:020d}.json"
    record.write_text("{}")
    found = told(cli)
    assert [(one["table"], one["state"]) for one in found.values()] == [
        ("v", "damaged"), ("t", "ok"),
    ]  # fmt: skip
    assert "is not a commit record" in str(found["v"]["reason"])


def test_the_tracking_table_knows_of_runs_whose_workers_are_gone(
    cli: Cli, ministack: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(ministack.environment(), monkeypatch)
    name, now = f"tracking-{uuid.uuid4().hex[:8]}", datetime.now(UTC)
    run = TrackedRun("shop/t", "r1", status="SUCCEEDED",
                     updated_at=(now - timedelta(days=2)).isoformat())  # fmt: skip
    failed = replace(
        run, run_id="a0", status="FAILED", error_class="SourceUnavailable",
        error_message="db.example.com does not answer", updated_at=now.isoformat(),
    )  # fmt: skip
    under_way = replace(
        run, table_id="shop/v", run_id="r2", status="RUNNING", beat_at=now.isoformat(),
        progress=json.dumps({
            "phase": "extract", "splits": 8, "splits_done": 3, "rows": 1_200, "bytes": 5_000,
            "estimated_rows": None, "moved_at": (now - timedelta(minutes=5)).isoformat(),
        }),
    )  # fmt: skip
    with closing(boto3.client("dynamodb")) as client:
        create_table(client, name)
        latest = {**encode(run), "run_id": {"S": "LATEST"}}
        for item in (encode(run), encode(failed), encode(under_way), latest):
            client.put_item(TableName=name, Item=item)
    found = told(cli, "--tracking-table", name)
    assert found["t"]["state"] == "failed"
    assert found["t"]["reason"] == "SourceUnavailable: db.example.com does not answer"
    assert found["t"]["succeeded_at"] == run.updated_at
    assert found["v"]["state"] == "running"
    assert str(found["v"]["reason"]).endswith(
        "extract: 1,200 rows, 3 of 8 splits done, 5.0 kB; last progress 5 min ago"
    )
    silent = replace(under_way, beat_at=(now - timedelta(minutes=11)).isoformat())
    with closing(boto3.client("dynamodb")) as client:
        client.put_item(TableName=name, Item=encode(silent))
    found = told(cli, "--tracking-table", name)
    assert str(found["v"]["reason"]).endswith("last progress 5 min ago, silent for 11 min")
    monkeypatch.setenv("TRACKING_TABLE", name)
    assert told(cli) == found


def test_watching_shows_it_again_until_it_is_stopped(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    del cli
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            raise StopRequested("stopped by Ctrl-C")

    arguments: Namespace = argument_parser().parse_args(["status", "shop.yml", "--watch", "7"])
    assert status.command(arguments, wait) == 0
    assert waited == [7, 7, 7]
    shown = capsys.readouterr().out
    assert shown.count("2 tables: 2 never run") == 3
    assert "\x1b" not in shown


def test_lines_fit_a_terminal_of_80_columns() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    text = status_text(
        [
            TableStatus("public.orders", "failed", "ConfigError: " + "word " * 40,
                        now - timedelta(days=3), "2026-02-26 11:00:00.123456+00",
                        now - timedelta(days=3, hours=1), (0, 70, 35)),
            TableStatus("public.customers", "ok", "", now, "17", None, (1_234_567,) * 10),
        ],
        now,
    )  # fmt: skip
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[2:] == ["3", "d", "35", "▁█▄", "2026-02-26", "11:00", "(3", "d)"]
    assert lines[2].startswith("  ConfigError: word word")
    assert lines[-1] == "2 tables: 1 failed, 1 ok"


def test_a_page_is_written_of_the_newest_runs(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "shop.yml", "t")[0] == 0
    write(tmp_path / "shop.db", "alter table v rename to away")
    assert cli("run", "shop.yml", "v")[0] == 78
    code, lines = cli("report", "shop.yml", "--html", "page.html")
    assert (code, lines) == (0, ["page.html written: 2 tables, 1 failed"])
    text = (tmp_path / "page.html").read_text()
    assert "ConfigError: there is no table" in text
    assert 'aria-label="t: recover: ' in text
    assert cli("report", "shop.yml", "--html", "no/such/page.html")[0] == 78


def test_a_page_of_runs_in_the_pipeline_has_what_they_used(
    cli: Cli, ministack: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_environment(ministack.environment(), monkeypatch)
    name, now = f"tracking-{uuid.uuid4().hex[:8]}", datetime.now(UTC)
    execution = tmp_path / "e"
    report = Report(
        status="succeeded", run_id="r1", attempt=1, source_name="shop", extract_table="t",
        target_uri="out/t", rows=1_234, bytes=5_000, timings={"extract": 7_200.0},
    )  # fmt: skip
    run = TrackedRun(
        "shop/t", "r1", status="SUCCEEDED", updated_at=now.isoformat(), extract_table="t",
        spec_uri=f"{execution}/specs/t.json", report_uri=f"{execution}/attempt-1.json",
    )  # fmt: skip
    item = {"run_id": "r1", "job_type": "ecs", "ecs": {"cpu": 1024, "memory": 4096}}
    execution.mkdir()
    (execution / "attempt-1.json").write_text(report.to_json())
    (execution / "tables_to_extract.json").write_text(json.dumps([item]))
    with closing(boto3.client("dynamodb")) as client:
        create_table(client, name)
        client.put_item(TableName=name, Item=encode(run))
    code, lines = cli("report", "shop.yml", "--html", "page.html", "--tracking-table", name)
    assert (code, lines) == (0, ["page.html written: 2 tables"])
    text = (tmp_path / "page.html").read_text()
    for said in ("2 vCPU-hours", "8 GB-hours", "1,234", "GB-hours, estimate"):
        assert said in text
    assert cli("report", "shop.yml", "--html", "page.html")[0] == 0
    assert "hours" not in (tmp_path / "page.html").read_text()
    assert cli("run", "shop.yml", "t")[0] == 0
    assert cli("report", "shop.yml", "--html", "page.html", "--tracking-table", name)[0] == 0
    assert "1,234" not in (tmp_path / "page.html").read_text(), "a later run is not tracked"


@pytest.mark.parametrize(
    ("kind", "text", "at"),
    [("date", "2026-01-31", "2026-01-31T00:00:00+00:00"),
     ("timestamptz", "2026-01-31 12:00:00.5+00", "2026-01-31T12:00:00.500000+00:00"),
     ("integer", "7", None)],
)  # fmt: skip
def test_watermarks_that_are_moments(kind: WatermarkType, text: str, at: str | None) -> None:
    found = moment_of(WatermarkValue(kind, text))
    assert (found and found.isoformat()) == at


@pytest.mark.parametrize(
    ("values", "line"),
    [((), ""), ((0, 0), "▁▁"), ((1, 7), "▂█"), ((7, 0, 3), "█▁▄"), ((10**12, 1), "█▁")],
)
def test_spark_lines(values: tuple[int, ...], line: str) -> None:
    assert spark_line(values) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "119 min"), (7200, "2 h"), (172_799, "47 h"),
     (172_800, "2 d")],
)  # fmt: skip
def test_ages(seconds: int, text: str) -> None:
    assert rough_age(timedelta(seconds=seconds)) == text
