"""The command line with a real server and real files."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from extract_jobs.cli import main
from extract_jobs.reporting.report import Report
from extract_jobs.storage.local import LocalStorage
from tests.support.postgres import Server

ROOT = Path(__file__).parents[2]
CONFIG = """\
version: 1
source: {{name: shop, type: postgres, connection: {{url: "{url}", password_env: SHOP_PASSWORD}}}}
defaults: {{target: {{uri: "out/{{table}}"}}}}
tables:
  customers: {{columns: {{mask: {{email: redact}}}}}}
  missing:
  public.Odd [x]: {{target: {{partition_by: ["kind"]}}}}
"""
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(pg_database: Server) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "SHOP_PASSWORD": pg_database.password}


@pytest.fixture
def folder(pg_database: Server, tmp_path: Path) -> Path:
    """A folder with a config of two tables that are there."""
    pg_database.execute(
        "create table customers (id int primary key, email text)",
        "insert into customers select g, 'e' || g from generate_series(1, 1000) g",
        'create table "Odd [x]" (id int, kind text)',
        "insert into \"Odd [x]\" values (1, 'a'), (2, 'b'), (3, 'a')",
        "analyze",
    )
    (tmp_path / "shop.yml").write_text(CONFIG.format(url=pg_database.url))
    return tmp_path


@pytest.fixture
def cli(
    folder: Path,
    pg_database: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    """Run commands in this process, which has imported what they need."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SHOP_PASSWORD", pg_database.password)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    yield run
    logging.getLogger("extract_jobs").setLevel(logging.NOTSET)


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_table_that_fails_stops_no_other(
    folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "extract_jobs.cli", "run", "shop.yml", "-v"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    lines = [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", "", line)
             for line in done.stderr.splitlines()]  # fmt: skip
    assert lines[-1] == "ConfigError: 1 of 3 tables failed: missing"
    assert "customers: extract" in lines
    assert any(line.startswith("missing: failed: ConfigError: there is no table") for line in lines)
    summary = [line.split()[:3] for line in done.stdout.splitlines()]
    assert summary == [
        ["table", "status", "rows"],
        ["customers", "succeeded", "1,000"],
        ["missing", "ConfigError", "-"],
        ["public.Odd", "[x]", "succeeded"],
    ]
    customers = pq.read_table(tmp_path / "out" / "customers")
    assert sorted(customers["id"].to_pylist()) == list(range(1, 1001))
    assert set(customers["email"].to_pylist()) == {"***"}
    odd = pq.read_table(tmp_path / "out" / "Odd%20%5Bx%5D")
    assert sorted(zip(odd["id"].to_pylist(), odd["kind"].to_pylist(), strict=True)) == [
        (1, "a"), (2, "b"), (3, "a"),
    ]  # fmt: skip


def test_the_error_of_a_single_table_is_printed_once(cli: Cli) -> None:
    done = cli("run", "shop.yml", "missing")
    assert done.returncode == 78
    [line, last] = done.stderr.splitlines()
    assert line.split(" ", 1)[1] == "missing: failed"
    assert last.startswith("ConfigError: there is no table")


def test_a_quiet_run_prints_nothing_but_failures(cli: Cli) -> None:
    good = cli("run", "shop.yml", "customers", "-q")
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    both = cli("run", "shop.yml", "customers", "missing", "--quiet")
    assert (both.returncode, both.stdout) == (78, "")
    line, last = both.stderr.splitlines()
    assert "missing: failed: ConfigError" in line
    assert last.startswith("ConfigError: ")
    assert "succeeded" not in both.stderr


def test_a_target_that_cannot_be_written_is_configuration(cli: Cli) -> None:
    done = cli("run", "shop.yml", "--set", "target.uri=/proc/x/{table}", "customers")
    assert done.returncode == 78
    [line, last] = done.stderr.splitlines()
    assert line.endswith("customers: failed")
    assert last.startswith("ConfigError: cannot ")
    assert "the folder /proc/x cannot be created" in last


def test_json_is_one_report_a_line_and_nothing_else(cli: Cli) -> None:
    done = cli("run", "shop.yml", "--json", "--run-id", "first")
    ended = [Report.parse(line) for line in done.stdout.splitlines()]
    reports = sorted(ended, key=lambda report: report.extract_table)
    assert [(r.extract_table, r.status, r.rows, r.run_id) for r in reports] == [
        ("customers", "succeeded", 1000, "first"),
        ("missing", "failed", 0, "first"),
        ("public.Odd [x]", "succeeded", 3, "first"),
    ]
    error = reports[1].error
    assert error is not None
    assert (error.class_name, error.retryable) == ("ConfigError", False)
    assert reports[1].timings, "the report that the run itself wrote"
    assert "customers" in done.stderr
    again = cli("run", "shop.yml", "customers", "--json", "--run-id", "first")
    assert again.returncode == 0
    assert Report.parse(again.stdout).commit_seq == reports[0].commit_seq


def test_plan_shows_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("plan", "shop.yml", "customers", "--set", "columns.rename.id=key")
    assert (done.returncode, done.stderr) == (0, "")
    assert "about 1,000 rows" in done.stdout
    assert "id → key integer int32 lossless" in " ".join(done.stdout.split())
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "  masked  " in rows["email"]
    assert "masked: redact" in rows["email"]
    assert "lossless" not in rows["email"]
    assert "string" in rows["_run_id"]
    assert "timestamp[us, tz=UTC]" in rows["_extracted_at"]
    assert "splits:      1, at most 8 at a time" in done.stdout
    assert files(tmp_path) == ["shop.yml"]
    assert cli("run", "shop.yml", "customers").returncode == 0
    before = files(tmp_path)
    done = cli("plan", "shop.yml", "customers", "--set", "columns.exclude=[email]")
    assert "(after commit 1)" in done.stdout
    assert "change:      column email dropped (string)" in done.stdout
    assert files(tmp_path) == before
    missing = cli("plan", "shop.yml", "missing")
    assert missing.returncode == 78
    assert missing.stderr.startswith("ConfigError: there is no table 'missing'")


def test_recover_drops_what_is_old_enough_and_only_lists_it_in_a_dry_run(
    cli: Cli, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "customers"
    writer = LocalStorage().stage(str(target / "x.parquet"), str(target), "t0ken")
    writer.write(b"rows")
    staged = Path(writer.close().upload["path"])
    young = cli("recover", "shop.yml", "customers")
    assert young.stdout == (
        "customers: 0 staged files dropped; 1 younger than 48 h is left (see --abandon-after)\n"
    )
    dry = cli("recover", "shop.yml", "customers", "--abandon-after", "0s", "--dry-run")
    assert dry.stdout.startswith("customers: 1 staged file would be dropped\n  ")
    assert staged.exists()
    done = cli("recover", "shop.yml", "--abandon-after", "0s")
    assert done.stdout.startswith("customers: 1 staged file dropped\n  ")
    assert not staged.exists()
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drops_what_is_staged_and_stops_the_rest(
    folder: Path,
    pg_database: Server,
    environment: dict[str, str],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    del folder
    # Rows take half a minute to come, so that the signal is in the middle of the extract.
    pg_database.execute(
        "create function nap(g int) returns int language plpgsql as "
        "$$ begin if g % 20000 = 0 then perform pg_sleep(0.1); end if; return g; end $$"
    )
    (tmp_path / "slow.yml").write_text(
        CONFIG.format(url=pg_database.url).split("tables:")[0]
        + "tables:\n  slow: {query: 'select nap(g) as g from generate_series(1, 4000000) g'}\n"
        + "  customers:\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "extract_jobs.cli", "run", "slow.yml", "--json", "--jobs", "1",
         "--verbose"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "extract: " in line:  # figures: rows are coming
                    break
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 75
    [report] = stdout.splitlines()
    assert json.loads(report)["error"]["class"] == "Interrupted"
    by = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert [line for line in stderr.splitlines() if line.endswith("Z slow: failed")]
    assert stderr.splitlines()[-1] == (
        f"Interrupted: stopped by {by}; staged files are dropped unless a commit names them; "
        "1 table not begun"
    )
    assert not [f for f in files(tmp_path / "out") if "_extract/" not in f]
