"""Errors as a person meets them, all in one file that can be read in one go.

``UPDATE_TRANSCRIPTS=1 pytest tests/service/test_transcripts.py`` writes the file anew.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from extract_jobs.cli import main
from tests.support.sqlite_source import write

_INSIDE = "INSIDE_TRANSCRIPTS"
TRANSCRIPT = Path(__file__).parents[1] / "transcripts" / "errors.txt"
HEAD = """\
version: 1
source: {name: shop, type: sqlite, connection: {path: shop.db}}
defaults: {target: {uri: "out/{table}"}}
"""
POSTGRES = """\
version: 1
source: {name: sales, type: postgres, connection: {url: "postgresql://me@127.0.0.1:1/x"}}
defaults: {target: {uri: "out/{table}"}}
tables: {public.orders: }
"""
FILES = """\
version: 1
source: {name: drop, type: files, connection: {uri: in}}
defaults: {target: {uri: "out/{table}"}}
"""


class Desk:
    """A folder with a small shop, and what a person types there."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capfd = folder, capfd
        self.lines: list[str] = []
        self.surprises: list[str] = []

    def chapter(self, title: str) -> None:
        self.lines += ["", "=" * 80, title, "=" * 80]

    def config(self, tables: str, head: str = HEAD) -> None:
        (self.folder / "shop.yml").write_text(f"{head}tables:\n  {tables}\n")

    def file(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def sql(self, *statements: str) -> None:
        write(self.folder / "shop.db", *statements)

    def quiet(self, command: str) -> None:
        """Run what has to succeed, without a word."""
        assert self.run(command) == 0, command

    def run(self, command: str) -> int:
        self.capfd.readouterr()
        try:
            return main(command.split(" "))
        except SystemExit as end:
            return int(end.code or 0)

    def fails(self, what: str, command: str) -> None:
        """Note a command that fails, with its exit code and what it says."""
        code = self.run(command)
        told = self.capfd.readouterr()
        said = (told.out if command.startswith("verify") else "") + told.err
        if code == 0 or "Traceback" in said or "InternalError" in said:
            self.surprises.append(f"{command}: exit {code}: {said}")
        self.lines += ["", f"# {what}", f"$ extract-jobs {command}"]
        self.lines += [*self.steady(said), f"exit {code}"]

    def steady(self, said: str) -> list[str]:
        """Leave out what differs from run to run."""
        for pattern, text in (
            (re.escape(str(self.folder)), "/work"),
            (r"\d{8}T\d{6}Z-[0-9a-f]{8}", "RUN"),
            (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", "TIME "),
            (r"_extract_probe-[0-9a-f]{32}", "_extract_probe-ID"),
            (r"-1-[0-9a-f]{8}-(\d{5})-[0-9a-f]{8}", r"-1-ID-\1-ID"),
            (r"has [\d,]+ bytes, but [\d,]+ were", "has N bytes, but M were"),
            (r", \d+\.\d kB(,|:)", r", SIZE\1"),
            (r", \d+\.\d s, commit", ", SECONDS, commit"),
        ):
            said = re.sub(pattern, text, said)
        return said.rstrip("\n").split("\n")


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    found = Desk(tmp_path, capfd)
    found.sql(
        "create table orders (id integer primary key, customer text, placed text, total numeric)",
        "insert into orders values (1, 'ann', '2026-01-31', 1.5), (2, 'eve', '2026-02-01', 2)",
        "create table customers (id integer primary key, name text, born date)",
        "insert into customers values (1, 'ann', '1990-01-01')",
        "create table odd (id integer primary key, amount decimal(10,2))",
        "insert into odd values (1, 'much')",
        "create view summary as select count(*) n from orders",
    )
    yield found
    logging.getLogger("extract_jobs").setLevel(logging.NOTSET)


def the_command_line(desk: Desk) -> None:
    desk.chapter("What is typed")
    desk.config("orders:")
    for what, command in (
        ("a command that there is not", "rnu shop.yml"),
        ("no config", "run"),
        ("a config that there is not", "run shpo.yml"),
        ("an option that there is not", "run shop.yml --josn"),
        ("a table that the config lacks", "run shop.yml order"),
        ("a glob that matches nothing", "run shop.yml hr.*"),
        ("a tag that no table has", "run shop.yml --tag nightly"),
        ("--set without a value", "run shop.yml --set mode"),
        ("--set of a key that there is not", "run shop.yml --set mdoe=full"),
        ("--set of a value that there is not", "run shop.yml --set mode=weekly"),
        ("a sample without a place", "run shop.yml --limit 10"),
        ("a number that is none", "run shop.yml --jobs many"),
        ("a name of a run with a slash", "run shop.yml --run-id a/b"),
        ("an age without a unit", "recover shop.yml --abandon-after 2"),
        ("a scratch place that is a table's own", "run shop.yml --target out"),
        ("an override that would leave rows out", "run shop.yml --set where=id=1"),
        ("a place that configs are not read from", "validate gs://bucket/shop.yml"),
        ("a page in a folder that there is not", "report shop.yml --html no/such/page.html"),
    ):
        desk.fails(what, command)


def the_config(desk: Desk) -> None:
    desk.chapter("What is in a config")
    for what, tables in (
        ("a key that there is not", "orders: {mdoe: full}"),
        ("several mistakes at once", "orders: {mode: weekly, on_empty: no, max_value_bytes: 1}"),
        ("an increment without a watermark", "orders: {mode: incremental}"),
        ("a lag that would double rows",
         "orders: {mode: incremental, watermark: {column: id, lag: 5}}"),
        ("an increment that overwrites",
         "orders: {mode: incremental, watermark: {column: id}, target: {write_mode: overwrite}}"),
        ("a condition of two statements", 'orders: {where: "id = 1; drop table orders"}'),
        ("a condition that is not SQL", 'orders: {where: "id ="}'),
        ("two tables at one place", "{orders: , customers: {target: {uri: out/orders}}}"),
        ("a placeholder that there is not", 'orders: {target: {uri: "out/{tabel}"}}'),
        ("a target that cannot be written to", "orders: {target: {uri: 'gs://lake/orders'}}"),
        ("a mask that there is not", "orders: {columns: {mask: {customer: blur}}}"),
        ("a variable that is not set", 'orders: {where: "id > ${LEAST}"}'),
        ("a variable with a secret", 'orders: {where: "id > ${DB_PASSWORD}"}'),
        ("no table", ""),
    ):  # fmt: skip
        desk.config(tables)
        desk.fails(what, "validate shop.yml")
    for what, text in (
        ("not YAML", "version: 1\n  source: x: y\n"),
        ("a tab", "version: 1\nsource:\n\tname: shop\n"),
        ("an empty file", ""),
        ("a key twice", HEAD + "tables: {orders: , orders: }\n"),
        ("another version", HEAD.replace("version: 1", "version: 2") + "tables: {orders: }\n"),
        ("a password in the URL", POSTGRES.replace("me@", "me:hunter2@")),
        ("a source that there is not", HEAD.replace("sqlite", "sqllite") + "tables: {orders: }\n"),
    ):
        desk.file("shop.yml", text)
        desk.fails(what, "validate shop.yml")


def the_source(desk: Desk) -> None:
    desk.chapter("What the source says")
    for what, tables in (
        ("a table that there is not", "order:"),
        ("a column that there is not", "orders: {columns: {include: [id, costumer]}}"),
        ("a watermark's column that there is not",
         "orders: {mode: incremental, watermark: {column: updated}}"),
        ("a cast that cannot be", 'orders: {columns: {cast: {customer: "decimal(99,2)"}}}'),
        ("two columns of one name", "orders: {columns: {rename: {customer: ID}}}"),
        ("a query that is refused", "big: {query: select nonsense from orders}"),
        ("a value that its type does not hold", "odd:"),
        ("a mask without its key", "orders: {columns: {mask: {customer: hash}}}"),
        ("a partition that nobody could read", "orders: {target: {partition_by: [year(id)]}}"),
    ):  # fmt: skip
        desk.config(tables)
        desk.fails(what, "run shop.yml")
    desk.config("orders:", HEAD.replace("shop.db", "shpo.db"))
    desk.fails("a database that there is not", "run shop.yml")
    desk.file("shop.db.txt", "no database")
    desk.config("orders:", HEAD.replace("shop.db", "shop.db.txt"))
    desk.fails("a file that is no database", "run shop.yml")
    desk.file("sales.yml", POSTGRES)
    desk.fails("a server that does not answer", "run sales.yml")
    desk.file("sales.yml", POSTGRES.replace('1/x"', '1/x", password_env: SALES_PASSWORD'))
    desk.fails("a password that is not set", "run sales.yml")
    desk.config("{orders: , order: , custmers: }")
    desk.fails("some tables of several", "run shop.yml --jobs 1")


def files(desk: Desk) -> None:
    desk.chapter("What is in files")
    desk.file("in/a.csv", "id,total\n1,2\n2,much\n3\n")
    desk.file("in/b.jsonl", '{"id": 1}\n{"id": \n')
    desk.file("in/c.parquet", "PAR1 it is not")
    for what, table in (
        ("a glob that finds nothing", "x: {files: {glob: '*.tsv'}}"),
        ("a row with too few fields", "x: {files: {glob: a.csv}}"),
        ("JSON that is cut off", "x: {files: {glob: b.jsonl}}"),
        ("a file that is no Parquet", "x: {files: {glob: c.parquet}}"),
    ):
        desk.config(table, FILES)
        desk.fails(what, "run shop.yml")


def the_target(desk: Desk) -> None:
    desk.chapter("What is at the target, and in the state")
    desk.config("customers:")
    target = desk.folder / "out/customers"
    desk.fails("a target that cannot be written", "run shop.yml --set target.uri=/proc/x/{table}")
    desk.file("out/customers/mine.parquet", "mine")
    desk.fails("a target with other data", "run shop.yml")
    (target / "mine.parquet").unlink()
    desk.quiet("run shop.yml --run-id first")
    desk.config("customers: {target: {uri: elsewhere}, state_uri: out/_extract}")
    desk.fails("another target with the same state", "run shop.yml")
    desk.config("customers: {on_schema_change: fail}")
    desk.sql("alter table customers add note text")
    desk.fails("a column that is new, where nothing may be", "run shop.yml")
    desk.config("customers:")
    [live] = target.glob("*.parquet")
    kept = live.read_bytes()
    live.write_bytes(kept[:-10])
    desk.file("out/customers/copy.parquet", "copy")
    desk.fails("files that are cut, and foreign ones", "verify shop.yml")
    live.unlink()
    (target / "copy.parquet").unlink()
    desk.fails("a file that is missing", "verify shop.yml")
    live.write_bytes(kept)
    record = desk.folder / "out/_extract/shop/customers/commits" / f"{1:020d}.json"
    record.write_text("{}")
    desk.fails("a record that is damaged", "run shop.yml")
    record.unlink()
    desk.fails("a record that is gone", "run shop.yml")


def a_new_config(desk: Desk) -> None:
    desk.chapter("What init says")
    desk.config("orders:")
    for what, command in (
        ("a config that is there already", "init shop.yml --from shop.db"),
        ("a place that there is not", "init new.yml --from nowhere.db"),
        ("a URL with a password", "init new.yml --from postgresql://me:hunter2@db/x"),
        ("a source of no type", "init new.yml --from mongodb://db/x"),
        ("no table that is wanted", "init new.yml --from shop.db --select hr.*"),
        ("a folder that there is not", "init no/such/new.yml"),
        ("a variable that is not set", "init new.yml --from env:NO_SUCH_URL"),
    ):
        desk.fails(what, command)


def test_what_a_person_reads_when_something_is_wrong(request: pytest.FixtureRequest) -> None:
    """The commands run in a process of their own, as they do for a person."""
    if _INSIDE not in os.environ:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", __file__],
            env={**os.environ, _INSIDE: "1"}, cwd=TRANSCRIPT.parents[2], capture_output=True,
            text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return
    desk: Desk = request.getfixturevalue("desk")
    for chapter in (the_command_line, the_config, the_source, files, the_target, a_new_config):
        chapter(desk)
    said = "\n".join(desk.lines).lstrip("\n") + "\n"
    assert "hunter2" not in said.replace("me:hunter2@", "")
    if os.environ.get("UPDATE_TRANSCRIPTS"):
        TRANSCRIPT.write_text(said)
    assert not desk.surprises
    assert said == TRANSCRIPT.read_text(), "run it with UPDATE_TRANSCRIPTS=1 and read what changed"
