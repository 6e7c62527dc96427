"""Trials on the command line: a part of a table never takes the place of all of it unasked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from extract_jobs.cli import main
from tests.support.sqlite_source import write

CONFIG = """\
version: 1
source: {name: shop, type: sqlite, connection: {path: shop.db}}
defaults: {target: {uri: "out/{table}"}}
tables:
  t:
  u:
  v: {mode: incremental, watermark: {column: id}}
"""
Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    rows = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 500)"
    for name in "tuv":
        write(
            tmp_path / "shop.db",
            f"create table {name} (id integer primary key, note text)",
            f"insert into {name} {rows} select i, '{name}' || i from n",
        )
    (tmp_path / "shop.yml").write_text(CONFIG)

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        code = main(list(arguments))
        message = capsys.readouterr()
        return code, message.err if code else message.out

    return run


def ids(folder: Path) -> list[int]:
    return sorted(pq.read_table(folder, columns=["id"])["id"].to_pylist())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("where=id < 10", "the overridden where would change"),
        ("query=select 1 as id", "the overridden query would change"),
        ("columns.include=[id]", "the overridden columns.include would change"),
        ("columns.exclude=[note]", "the overridden columns.exclude would change"),
        ("columns.mask.note=redact", "the overridden columns.mask would change"),
    ],
)
def test_a_trial_does_not_replace_live_data(
    cli: Cli, tmp_path: Path, override: str, message: str
) -> None:
    assert cli("run", "shop.yml", "t")[0] == 0
    code, text = cli("run", "shop.yml", "t", "--set", override)
    assert code == 78
    assert message in text
    assert "--target" in text
    assert "--yes" in text
    live = pq.read_table(tmp_path / "out" / "t")
    assert sorted(live["id"].to_pylist()) == list(range(1, 501))
    assert live["note"].to_pylist()[0] == "t1"


def test_a_condition_would_let_the_watermark_pass_rows_too(cli: Cli, tmp_path: Path) -> None:
    code, text = cli("run", "shop.yml", "v", "--set", "where=id < 10 or id = 500")
    assert code == 78
    assert "the overridden where would change" in text
    assert not (tmp_path / "out").exists()


def test_a_scratch_place_and_yes_are_taken(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", "shop.yml", "t")[0] == 0
    narrowed = ("--set", "where=id < 10")
    assert cli("run", "shop.yml", "t", *narrowed, "--target", "try")[0] == 0
    assert ids(tmp_path / "out" / "t") == list(range(1, 501))
    [scratch] = (tmp_path / "try").glob("shop/*/t")
    assert ids(scratch) == list(range(1, 10))
    assert "1    published" in cli("history", "shop.yml", "t", "--target", "try")[1]
    assert cli("plan", "shop.yml", "t", *narrowed)[0] == 0
    assert cli("run", "shop.yml", "t", *narrowed, "--yes")[0] == 0
    assert ids(tmp_path / "out" / "t") == list(range(1, 10))


@pytest.mark.parametrize("place", ["out", "out/t", "out/t/x", "_extract", ".", "out/../out"])
def test_a_scratch_place_is_apart_from_live_ones(cli: Cli, tmp_path: Path, place: str) -> None:
    (tmp_path / "out").mkdir()
    code, text = cli("run", "shop.yml", "t", "--target", place)
    if place == "_extract":  # the base of states; beside out, it lies at out/_extract
        assert code == 0
    else:
        assert code == 78
        assert "choose a separate folder" in text


@pytest.mark.parametrize("override", ["query=select 1 as x", "query=select id from t"])
@pytest.mark.parametrize("command", ["run", "validate", "status"])
def test_a_query_belongs_to_one_table(
    cli: Cli, tmp_path: Path, override: str, command: str
) -> None:
    code, text = cli(command, "shop.yml", "--set", override, *(["--yes"] * (command == "run")))
    assert code == 78
    assert "belongs to one table, and 3 are selected" in text
    assert not (tmp_path / "out").exists()


def test_a_sample_goes_to_a_scratch_place_only(cli: Cli, tmp_path: Path) -> None:
    for more in ((), ("--yes",)):
        code, text = cli("run", "shop.yml", "--limit", "7", *more)
        assert code == 78
        assert "--limit needs --target" in text
    assert cli("run", "shop.yml", "--limit", "0", "--target", "try")[0] == 78
    for limit in (7, 9):  # each sample replaces the last one
        code, text = cli("run", "shop.yml", "--limit", str(limit), "--target", "try")
        assert code == 0, text
        for name in "tuv":
            [scratch] = (tmp_path / "try" / "shop").glob(f"*/{name}")
            assert len(ids(scratch)) == limit
    assert not (tmp_path / "out").exists()
