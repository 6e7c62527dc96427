"""Patterns in a config: which tables of a real source they take, and what commands say of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from extract_jobs.cli import main
from extract_jobs.config import load_config
from extract_jobs.planning.source_tables import with_source_tables
from tests.support.mysql_servers import MysqlServer
from tests.support.postgres import Server

Cli = Callable[..., tuple[int, str, str]]
CONFIG = """\
version: 1
source: {name: shop, type: sqlite, connection: {path: shop.db}}
defaults:
  target: {uri: "lake/{source_name}/{table}"}
tables:
"""
ALL = '  "*": {exclude: ["*_tmp"], tags: [nightly]}\n'


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in a folder with a SQLite file; returns exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    shop("create table orders (id integer primary key)", "insert into orders values (1), (2)")
    shop("create table customers (id integer primary key)", "create table load_tmp (id integer)")

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


def config(tables: str = ALL) -> None:
    Path("shop.yml").write_text(CONFIG + tables, encoding="utf-8")


def states(cli: Cli) -> dict[str, str]:
    code, out, err = cli("status", "shop.yml", "--json")
    assert code == 0, err
    return {one["table"]: one["state"] for one in map(json.loads, out.splitlines())}


def test_a_pattern_takes_what_is_there_when_a_command_runs(cli: Cli) -> None:
    config()
    assert cli("validate", "shop.yml")[1] == (
        "shop.yml: valid, 0 tables, and those that match * in the source when it is read\n"
    )
    code, out, err = cli("run", "shop.yml")
    assert (code, sorted(line.split()[0] for line in out.splitlines()[1:])) == (
        0, ["customers", "orders"],
    ), err  # fmt: skip
    assert (len(list(Path("lake/shop/orders").rglob("*.parquet")))) == 1
    assert not Path("lake/shop/load_tmp").exists()


def test_a_run_says_which_tables_are_new_and_which_have_gone(cli: Cli) -> None:
    config()
    assert "new in" not in cli("run", "shop.yml")[1], "at first, every table is new"
    assert "source" not in cli("run", "shop.yml")[1]
    shop("create table invoices (id integer primary key)", "drop table customers")
    assert cli("run", "shop.yml")[1].splitlines()[-1] == (
        "shop: 1 table is new in the source: invoices. 1 table is gone from the source, with files "
        "and state kept: customers"
    )
    assert "source" not in cli("run", "shop.yml")[1], "it is said once"
    assert states(cli) == {"customers": "gone", "invoices": "ok", "orders": "ok"}
    assert cli("verify", "shop.yml")[1].count("as committed") == 3
    shop("create table customers (id integer primary key)")
    assert cli("run", "shop.yml")[1].splitlines()[-1] == (
        "shop: 1 table is new in the source: customers"
    )
    assert states(cli)["customers"] == "ok"


def test_a_table_that_is_left_out_now_has_not_gone(cli: Cli) -> None:
    config()
    cli("run", "shop.yml")
    config('  "*": {exclude: [load_tmp, customers]}\n')
    assert "gone" not in cli("run", "shop.yml")[1]
    assert states(cli) == {"orders": "ok"}


def test_a_table_stays_new_until_a_run_selects_it(cli: Cli) -> None:
    config(f"{ALL}  customers:\n")
    cli("run", "shop.yml")
    shop("create table invoices (id integer primary key)")
    assert "new in" not in cli("run", "shop.yml", "orders")[1]
    assert "new in" not in cli("run", "shop.yml", "customers")[1], "it needs no list of tables"
    out = cli("run", "shop.yml", "--tag", "nightly")[1]
    assert out.splitlines()[-1] == "shop: 1 table is new in the source: invoices"


def test_status_needs_no_source_after_a_run(
    cli: Cli,
    pg_database: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pg_database.execute("create table orders (id int)")
    monkeypatch.setenv("SHOP_PASSWORD", pg_database.password)
    place = f"{pg_database.host}:{pg_database.port}"

    def written(where: str) -> None:
        url = f"postgresql://{pg_database.user}@{where}/{pg_database.database.replace(' ', '%20')}"
        Path("shop.yml").write_text(
            "version: 1\nsource:\n  name: shop\n  type: postgres\n"
            f'  connection: {{url: "{url}", password_env: SHOP_PASSWORD, '
            "connect_timeout_seconds: 1}\n"
            'defaults: {target: {uri: "lake/{schema}/{table}"}}\ntables: {"public.*": {}}\n'
        )

    written(place)
    assert cli("run", "shop.yml")[0] == 0
    written("127.0.0.1:1")
    code, out, err = cli("status", "shop.yml")
    assert (code, "public.orders" in out) == (0, True), err
    assert "these are the tables of the last run" in caplog.text
    assert cli("run", "shop.yml")[0] == 75


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ('  "inv*": {}', "tables.inv*: matches none of the 3 tables and views"),
        ('  "*": {target: {uri: /tmp/x}}', "all tables would go to /tmp/x: add {table} to it"),
        ('  "*": {mode: some}', "'some' is not full or incremental"),
        ("  orders: {exclude: [a]}", 'only an entry whose name is a pattern, such as "public.*"'),
        ('  "*": {exclude: 3}', "expected a list of names and globs"),
        ('  "*": {exclude: ["*"]}', "tables.*: exclude leaves out all of the 3 tables and views"),
    ],
)
def test_what_is_wrong_with_a_pattern_is_said(cli: Cli, tables: str, said: str) -> None:
    config(f"{tables}\n")
    code, _, err = cli("plan", "shop.yml")
    assert code == 78
    assert said in err


def test_an_excluded_name_that_no_table_has_is_warned_about(
    cli: Cli, caplog: pytest.LogCaptureFixture
) -> None:
    config('  "*": {exclude: [ordres, "*_tmp"]}\n')
    assert cli("plan", "shop.yml")[0] == 0
    assert "exclude: ordres matches no table; did you mean orders?" in caplog.text
    assert "_tmp" not in caplog.text


def test_two_tables_for_one_folder_are_refused_by_name(cli: Cli) -> None:
    config(
        '  "*": {exclude: ["*_tmp"]}\n  old: {query: "select 1", target: {uri: lake/shop/ORDERS}}\n'
    )
    code, _, err = cli("plan", "shop.yml")
    assert code == 78
    assert "tables.orders: has the same target.uri as old" in err
    assert "exclude one of them" in err


def test_a_table_whose_name_looks_like_a_pattern_can_be_named(cli: Cli) -> None:
    shop('create table "a*b" (id int)', "create table axb (id int)")
    assert cli("init", "new.yml", "--from", "shop.db")[0] == 0
    text = Path("new.yml").read_text()
    assert '"\\"a*b\\"":' in text
    assert cli("run", "new.yml", '"a*b"')[0] == 0
    planned = cli("plan", "new.yml", "a*b")[1]
    assert ('"a*b"' in planned, "axb" in planned) == (True, True), "a pattern sees no quotes"
    config('  "a*b": {}\n')  # exactly a table's name, as configs had it before there were patterns
    code, out, _ = cli("plan", "shop.yml")
    assert (code, out.startswith("table:       shop/a*b (table")) == (0, True)


def test_init_update_leaves_what_a_pattern_covers(cli: Cli) -> None:
    config('  "o*": {exclude: ["*_old"]}\n  customers: {}\n')
    shop("create table orders_old (id int)")
    assert cli("init", "shop.yml", "--update")[1] == "shop.yml: added 1 table: load_tmp\n"
    assert "load_tmp" in Path("shop.yml").read_text()


def test_entries_of_their_own_come_before_patterns_in_postgres(
    pg_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pg_database.execute(
        'create schema crm; create table crm.people (id int); create table crm."we.ird" (id int); '
        "create table orders (id int); create table lines (id int); create table old_tmp (id int); "
        "create view seen as select 1 as a; create table parts (id int) partition by range (id); "
        "create table parts_1 partition of parts for values from (0) to (9)"
    )
    monkeypatch.setenv("SHOP_PASSWORD", pg_database.password)
    head = {
        "version": 1,
        "source": {
            "name": "shop",
            "type": "postgres",
            "connection": {
                "host": pg_database.host, "port": pg_database.port, "user": pg_database.user,
                "database": pg_database.database, "password_env": "SHOP_PASSWORD",
            },
        },
        "defaults": {"target": {"uri": "s3://lake/{schema}/{table}"}},
        "tables": {
            "orders": {"tags": ["own"]},
            "public.pa*": {"tags": ["first"]},
            "*.*": {"exclude": ["*_tmp", "people"]},
        },
    }  # fmt: skip
    found = with_source_tables(load_config(json.dumps(head), "shop.yml"))
    assert {name: table.config.tags for name, table in found.tables.items()} == {
        "orders": ("own",),
        "public.parts": ("first",),
        "crm.we.ird": (),
        "public.lines": (),
    }
    weird = found.tables["crm.we.ird"].location
    assert weird.target.uri == "s3://lake/crm/we.ird"
    assert weird.state_uri == "s3://lake/_extract/shop/crm.we.ird"


def test_a_pattern_takes_tables_of_mysql(
    mariadb_database: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mariadb_database.execute("create table `a.b` (id int primary key)")
    mariadb_database.execute("create table orders (id int primary key)")
    monkeypatch.setenv("SHOP_PASSWORD", mariadb_database.password or "")
    head = f"""
version: 1
source:
  name: shop
  type: mysql
  connection: {{host: "{mariadb_database.host}", port: {mariadb_database.port},
    user: "{mariadb_database.user}", database: "{mariadb_database.database}",
    password_env: SHOP_PASSWORD}}
defaults: {{target: {{uri: "s3://lake/{{table}}"}}}}
tables: {{orders: {{}}, "*": {{}}}}
"""
    found = with_source_tables(load_config(head, "shop.yml"))
    assert list(found.tables) == ["orders", f"{mariadb_database.database}.a.b"]
