"""`plan`, `preview` and `history` on the command line: what would happen, and what did."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extract_jobs.cli import main
from tests.support.sqlite_source import write

CONFIG = """\
version: 1
source: {name: shop, type: sqlite, connection: {path: shop.db}}
defaults: {target: {uri: "out/{table}"}}
tables:
  t: {columns: {mask: {email: redact}, exclude: [note]}, target: {partition_by: [kind]}}
  v: {mode: incremental, watermark: {column: id}}
"""
Cli = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    write(
        tmp_path / "shop.db",
        "create table t (id integer primary key, email text, kind text, note text)",
        "insert into t values (1, 'ann@example.com', 'a', 'x'), (2, null, 'b', 'y'), "
        "(3, 'eve@example.com', 'a', 'z')",
        "create table v (id integer primary key, text text)",
        "insert into v values (1, ''), (2, '" + "long " * 40 + "')",
        "analyze",
    )
    (tmp_path / "shop.yml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main(list(arguments))
        told = capsys.readouterr()
        return code, told.out.splitlines(), told.err.splitlines()

    yield run
    logging.getLogger("extract_jobs").setLevel(logging.NOTSET)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_preview_shows_rows_as_their_files_would_hold_them(cli: Cli, tmp_path: Path) -> None:
    before = names(tmp_path)
    code, stdout, stderr = cli("preview", "shop.yml", "t", "--rows", "2")
    assert (code, stderr) == (0, [])
    assert [line.split()[:4] for line in stdout] == [
        ["id", "email", "_run_id", "_extracted_at"],
        ["1", "***", "none", stdout[1].split()[3]],
        ["2", "NULL", "none", stdout[2].split()[3]],
    ]
    assert [line.split()[-1] for line in stdout] == ["kind", "a", "b"]
    assert "example.com" not in "".join(stdout)
    assert names(tmp_path) == before


def test_wide_rows_are_shown_one_below_the_other(cli: Cli, tmp_path: Path) -> None:
    code, stdout, _ = cli("preview", "shop.yml", "v")
    assert code == 0
    assert [line.split()[0] for line in stdout[:5]] == ["row", "id", "text", "_run_id",
                                                        "_extracted_at"]  # fmt: skip
    [text] = [line.split(maxsplit=1)[1] for line in stdout if "long" in line]
    assert len(text) == 60
    assert text.endswith("…")
    assert stdout[-1] == "2 rows"
    assert max(map(len, stdout)) <= 80


def test_a_preview_of_what_is_not_new_or_not_one_table(cli: Cli) -> None:
    assert cli("run", "shop.yml", "v")[0] == 0
    assert cli("preview", "shop.yml", "v")[:2] == (0, ["v: no row is new"])
    assert cli("plan", "shop.yml", "v")[1][3].split(maxsplit=1) == ["rows:", "none above 2"]
    code, _, stderr = cli("preview", "shop.yml", "*")
    assert code == 78
    assert stderr == ["ConfigError: * matches 2 tables, and preview shows one: name it"]
    code, _, stderr = cli("spec", "shop.yml", "*")
    assert code == 78
    assert stderr == ["ConfigError: * matches 2 tables, and spec shows one: name it"]


def test_a_plan_of_all_tables_has_totals_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "shop.yml", "t")[0] == 0
    before = names(tmp_path)
    code, stdout, stderr = cli("plan", "shop.yml")
    assert (code, stderr) == (0, [])
    cells = [" ".join(line.split()) for line in stdout]
    assert cells[0] == "table rows bytes splits retires interval"
    assert cells[1].startswith("t 3 ")
    assert cells[1].endswith(" 1 2 files all")
    assert cells[2].startswith("v 2 ")
    assert cells[2].endswith(" 1 - (…, 2]")
    assert cells[3].startswith("2 tables 5 ")
    assert " 2 2 files " in cells[3]
    assert names(tmp_path) == before


def test_totals_of_a_plan_say_what_is_unknown(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "shop.db", "create table n (id integer primary key)")  # not analyzed
    with (tmp_path / "shop.yml").open("a") as file:
        file.write("  n:\n  n2: {query: 'select * from n'}\n")
    assert cli("plan", "shop.yml")[1][-1].split()[:5] == ["4", "tables", "at", "least", "5"]
    assert cli("plan", "shop.yml", "n", "n2")[1][-1].split()[:3] == ["2", "tables", "?"]


def test_a_table_that_cannot_be_planned_stops_no_other(cli: Cli, tmp_path: Path) -> None:
    with (tmp_path / "shop.yml").open("a") as file:
        file.write("  missing:\n")
    code, stdout, stderr = cli("plan", "shop.yml")
    assert code == 78
    assert [line.split()[0] for line in stdout] == ["table", "t", "v", "2"]
    assert stderr[0].startswith("missing: ConfigError: there is no table")
    assert stderr[1:] == ["ConfigError: 1 of 3 tables failed"]


def test_the_statements_of_a_plan_can_be_run(cli: Cli, tmp_path: Path) -> None:
    code, stdout, _ = cli("plan", "shop.yml", "--sql")
    assert code == 0
    assert [line for line in stdout if line.startswith("--")] == [
        "-- shop/t: 1 split", "-- shop/v: 1 split",
    ]  # fmt: skip
    opened = sqlite3.connect(tmp_path / "shop.db")
    statements = "\n".join(stdout).split("-- shop/")[1:]
    found = [opened.execute(text.split("\n", 1)[1]).fetchall() for text in statements]
    assert list(map(len, found)) == [3, 2]
    opened.close()


def test_sources_without_sql_say_so(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("id\n1\n")
    (tmp_path / "drop.yml").write_text(
        "version: 1\nsource: {name: drop, type: files, connection: {uri: in}}\n"
        "tables: {a: {files: {glob: a.csv}, target: {uri: out/a}}}\n"
    )
    code, _, stderr = cli("plan", "drop.yml", "--sql")
    assert code == 78
    assert stderr == ["ConfigError: a: a source of type files has no SQL"]


def test_history_shows_commits_newest_first(cli: Cli) -> None:
    for run_id in ("one", "two", "three"):
        assert cli("run", "shop.yml", "t", "--run-id", run_id)[0] == 0
    code, stdout, _ = cli("history", "shop.yml", "t", "--commits", "2")
    assert code == 0
    assert [line.split()[:4] for line in stdout] == [
        ["table", "seq", "outcome", "run"],
        ["t", "3", "published", "three"],
        ["t", "2", "published", "two"],
    ]


def test_plan_and_report_say_what_a_cast_does(cli: Cli, tmp_path: Path) -> None:
    write(
        tmp_path / "shop.db",
        "create table c (id integer primary key, kind text)",
        "insert into c values (1, '7')",
    )
    with (tmp_path / "shop.yml").open("a") as file:
        file.write("  c: {columns: {cast: {id: float64, kind: int32}}}\n")
    lines = [line.split(maxsplit=4) for line in cli("plan", "shop.yml", "c")[1]]
    seen = {line[0]: line[2:] for line in lines if line and line[0] in ("id", "kind")}
    assert seen["id"][:2] == ["double", "by_permission"]
    assert seen["kind"][:2] == ["int32", "lossless"]
    assert seen["kind"][2].endswith("cast to int32, which fails the run if a value does not fit")
    assert cli("run", "shop.yml", "c", "--run-id", "r")[0] == 0
    written = tmp_path / "out/_extract/shop/c/reports/r/attempt-1.json"
    report = json.loads(written.read_text())
    assert report["fidelity"]["id"].startswith("INTEGER: by_permission; ")
    assert report["fidelity"]["kind"] == f"TEXT: lossless; {seen['kind'][2]}"
