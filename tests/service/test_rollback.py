"""``rollback`` from the command line: the files, what other commands say, and when they go."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from extract_jobs.cli import main

Cli = Callable[..., tuple[int, str, str]]
CONFIG = """\
version: 1
source: {name: shop, type: sqlite, connection: {path: shop.db}}
defaults: {target: {uri: "lake/{table}"}, keep_retired: 7d}
tables: {orders: {}, days: {target: {partition_by: [day]}}}
"""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in a folder with a config; returns exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    Path("shop.yml").write_text(CONFIG, encoding="utf-8")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def shop(*statements: str) -> None:
    """Run statements in the SQLite file shop.db."""
    with closing(sqlite3.connect("shop.db", isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def rows(table: str) -> list[tuple[object, ...]]:
    return duckdb.sql(f"select id from 'lake/{table}/**/*.parquet' order by 1").fetchall()


def test_increments_of_files_are_not_rolled_back(cli: Cli) -> None:
    """The file of a later increment may be gone from the source by then."""
    Path("drop").mkdir()
    Path("drop.yml").write_text(
        "version: 1\nsource: {name: drop, type: files, connection: {uri: drop}}\n"
        'defaults: {target: {uri: "lake/{table}", write_mode: append}, mode: incremental}\n'
        'tables: {t: {files: {glob: "*.csv"}}}\n'
    )
    for number in range(3):
        Path(f"drop/{number}.csv").write_text(f"id\n{number}\n")
        assert cli("run", "drop.yml")[0] == 0
    code, _, err = cli("rollback", "drop.yml", "t", "--to", "2")
    assert code != 0
    assert "hold several increments" in err
    assert rows("t") == [(0,), (1,), (2,)]


def test_a_table_goes_back_and_forth(cli: Cli) -> None:
    shop("create table orders (id int, note text)", "insert into orders values (1, 'a'), (2, 'b')")
    shop("create table days (id int, day text)", "insert into days values (1, 'x'), (2, 'y')")
    assert cli("run", "shop.yml")[0] == 0
    shop("delete from orders", "alter table orders add column more int", "delete from days")
    shop("insert into orders values (9, 'c', 3)", "insert into days values (3, 'y')")
    assert cli("run", "shop.yml")[0] == 0
    assert (rows("orders"), rows("days")) == ([(9,)], [(3,)])
    out = cli("verify", "shop.yml", "orders")[1]
    assert re.search(r"as committed\n  1 retired file kept, [\d.]+ kB: rollback --to 1\n", out)
    code, out, err = cli("rollback", "shop.yml", "orders", "--to", "1")
    assert (code, out.split(": ", 1)[0]) == (0, "orders"), err
    assert re.fullmatch(
        r"orders: commit 3 restores commit 1: 1 file, 2 rows, [\d.]+ kB; 1 file of "
        r"commit 2 kept\n", out,
    ), out  # fmt: skip
    assert rows("orders") == [(1,), (2,)]
    assert cli("rollback", "shop.yml", "days", "--to", "1")[0] == 0
    assert rows("days") == [(1,), (2,)]
    assert sorted(p.name for p in Path("lake/days").iterdir()) == ["day=x", "day=y"]
    assert cli("verify", "shop.yml", "--deep")[0] == 0
    assert "rollback-to-1-" in cli("history", "shop.yml", "orders")[1]
    before = json.loads(cli("status", "shop.yml", "orders", "--json")[1])
    assert before["rows"] == [2, 1], "a rollback extracts no rows"
    [outcome] = Path("lake/_extract/shop/orders/outcomes").glob("*3.json")
    later = time.time() + 86_400
    os.utime(outcome, (later, later))
    assert json.loads(cli("status", "shop.yml", "orders", "--json")[1]) == before, "nor succeeds"
    assert cli("rollback", "shop.yml", "orders", "--to", "2")[0] == 0
    assert rows("orders") == [(9,)]
    assert "3 retired files kept" in (out := cli("verify", "shop.yml", "orders")[1])
    assert out.endswith(": rollback --to 3 or 2 or 1\n"), out
    assert "  rolled back: as commit 2 left it\n" in cli("status", "shop.yml", "orders")[1]
    assert cli("run", "shop.yml")[0] == 0, "runs go on from there"
    assert "rolled back" not in cli("status", "shop.yml", "orders")[1]
    assert cli("verify", "shop.yml")[0] == 0


def test_without_the_key_recover_deletes_what_is_kept(cli: Cli) -> None:
    shop("create table orders (id int)", "insert into orders values (1)")
    assert cli("run", "shop.yml", "orders")[0] == 0
    assert cli("run", "shop.yml", "orders")[0] == 0
    assert "kept file" not in cli("recover", "shop.yml", "orders")[1]
    Path("shop.yml").write_text(CONFIG.replace(", keep_retired: 7d", ""), encoding="utf-8")
    out = cli("recover", "shop.yml", "orders", "--dry-run")[1]
    assert "1 kept file would be dropped, whose time is over" in out
    assert "1 kept file dropped" in cli("recover", "shop.yml", "orders")[1]
    code, _, err = cli("rollback", "shop.yml", "orders", "--to", "1")
    assert (code, "1 of 1 files of commit 1 are not kept any more" in err) == (78, True)
    assert rows("orders") == [(1,)]
