"""`extract-jobs run` with several configs, and tables selected by tag."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extract_jobs.cli import main
from tests.support.sqlite_source import write

CONFIG = """\
version: 1
source: {{name: {name}, type: sqlite, connection: {{path: "${{FOLDER:-.}}/{name}.db"}}}}
defaults: {{target: {{uri: "out/{{source_name}}/{{table}}"}}}}
tables:
  t: {{tags: [nightly]}}
  {name}_own: {{tags: [hourly, nightly]}}
"""
Cli = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    for name in ("one", "two"):
        for table in ("t", f"{name}_own"):
            write(
                tmp_path / f"{name}.db",
                f"create table {table} (id integer primary key)",
                f"insert into {table} values (1), (2)",
            )
        (tmp_path / f"{name}.yml").write_text(CONFIG.format(name=name))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, list[str], list[str]]:
        capfd.readouterr()
        code = main(list(arguments))
        told = capfd.readouterr()
        return code, told.out.splitlines(), told.err.splitlines()

    yield run
    logging.getLogger("extract_jobs").setLevel(logging.NOTSET)


def first_words(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines]


def test_all_tables_of_all_configs_with_their_sources(cli: Cli, tmp_path: Path) -> None:
    code, stdout, stderr = cli("run", "one.yml", "two.yml")
    assert code == 0
    assert first_words(stdout) == ["table", "one/t", "one/one_own", "two/t", "two/two_own"]
    assert sorted(line.split()[1] for line in stderr) == [
        "one/one_own:", "one/t:", "two/t:", "two/two_own:",
    ]  # fmt: skip
    assert len(list((tmp_path / "out").glob("*/[!_]*/*.parquet"))) == 4


def test_a_table_may_be_in_any_of_them(cli: Cli) -> None:
    code, stdout, _ = cli("run", "one.yml", "two.yml", "two_own")
    assert (code, first_words(stdout)) == (0, ["table", "two_own"])
    code, stdout, _ = cli("run", "one.yml", "t", "two.yml", "--json")
    assert code == 0
    assert [json.loads(line)["source_name"] for line in stdout] == ["one", "two"]
    code, _, stderr = cli("run", "one.yml", "two.yml", "nope")
    assert code == 78
    assert stderr == ["ConfigError: one.yml: the config has no table nope"]


def test_one_that_fails_stops_no_other(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "one.db", "drop table t")
    code, stdout, stderr = cli("run", "one.yml", "two.yml", "t")
    assert code == 78
    assert [line.split()[:2] for line in stdout[1:]] == [
        ["one/t", "ConfigError"], ["two/t", "succeeded"],
    ]  # fmt: skip
    assert stderr[-1] == "ConfigError: 1 of 2 tables failed: one/t"


def test_two_configs_of_one_source_are_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(CONFIG.format(name="one"))
    code, _, stderr = cli("run", "one.yml", "again.yaml")
    assert code == 78
    assert stderr[0].startswith("ConfigError: one.yml and again.yaml are both of source one")
    assert not (tmp_path / "out").exists()


def test_tables_are_selected_by_tag(cli: Cli) -> None:
    assert first_words(cli("run", "one.yml", "--tag", "hourly")[1])[1:] == ["one_own"]
    assert first_words(cli("run", "one.yml", "t", "tag:hourly")[1])[1:] == ["t", "one_own"]
    code, _, stderr = cli("run", "one.yml", "t", "--tag", "hourly")
    assert code == 78
    assert stderr == ["ConfigError: one.yml: no selected table has the tag hourly"]
    found = cli("run", "one.yml", "two.yml", "--tag", "hourly")[1]
    assert first_words(found)[1:] == ["one/one_own", "two/two_own"]
    found = cli("run", "one.yml", "two.yml", "t", "two_own", "--tag", "hourly")[1]
    assert first_words(found)[1:] == ["two_own"]
    assert cli("run", "one.yml", "two.yml", "t", "--tag", "hourly")[2] == [
        "ConfigError: no table of one.yml, two.yml is selected"
    ]


def test_a_tag_that_no_table_has_is_refused_beside_one_that_some_have(cli: Cli) -> None:
    for configs in (["one.yml"], ["one.yml", "two.yml"]):
        code, _, stderr = cli("run", *configs, "--tag", "nightly", "--tag", "hourli")
        assert code == 78
        assert stderr == [
            f"ConfigError: {', '.join(configs)}: no table has the tag hourli; did you mean hourly?"
        ]


def test_a_variable_says_where_the_source_is(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "one.db").rename(tmp_path / "elsewhere" / "one.db")
    assert cli("run", "one.yml")[0] == 78
    monkeypatch.setenv("FOLDER", "elsewhere")
    assert cli("run", "one.yml")[0] == 0
