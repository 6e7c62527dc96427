"""``init --from``: what it writes for real sources is valid, runs as it is, and can be extended."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from extract_jobs.cli import init, main
from extract_jobs.cli.init import _suggestions
from extract_jobs.config import load_config
from tests.support.mysql_servers import MysqlServer
from tests.support.postgres import Server

Cli = Callable[..., tuple[int, str, str]]
PERSONS_COMMENT = "  # a person's own words\n"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in a folder of its own; returns exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def written(path: str = "shop.yml") -> str:
    return Path(path).read_text(encoding="utf-8")


def tables(path: str = "shop.yml") -> list[str]:
    return list(load_config(written(path), path, str(Path.cwd())).tables)


def shop(*statements: str) -> None:
    """Run statements in the SQLite file shop.db."""
    with closing(sqlite3.connect("shop.db", isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


@pytest.fixture
def place(pg_database: Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that lead to the database."""
    monkeypatch.setenv("SHOP_PASSWORD", pg_database.password)
    host = f"{pg_database.host}:{pg_database.port}"
    database = pg_database.database.replace(" ", "%20")
    return [
        "--from", f"postgresql://{pg_database.user}@{host}/{database}",
        "--password-env", "SHOP_PASSWORD",
    ]  # fmt: skip


HOSTILE = (
    'We.ird "T', "ta\nb", "#x: {y}", "null", "{table}", "CASE", "case", "tab\t le", "- a", "'q'",
    "*", "&a", "!b", "%41", "..", "ünï", "a" * 63, "@x", "[1]", "? k", "| p", "{source_name}", "~",
)  # fmt: skip


def test_hostile_names_and_types_that_are_refused_run_without_an_edit(
    pg_database: Server, place: list[str], cli: Cli
) -> None:
    for name in HOSTILE:
        doubled = name.replace('"', '""')
        pg_database.execute(f'create table "{doubled}" ("{doubled}" int)')
    pg_database.execute(
        "create table money (id int, m money)", "create view v as select 1 as a",
        "create table p (a int) partition by range (a)",
        "create table p1 partition of p for values from (1) to (5)",
        "create materialized view mv as select 1 as a",
        "insert into p values (2)",
    )  # fmt: skip
    code, said, _ = cli("init", "shop.yml", *place)
    assert code == 0, said
    found = tables()
    quoted = {"*": '"public"."*"', "? k": '"public"."? k"'}  # else they would be patterns
    whole = {quoted.get(name, f"public.{name}") for name in HOSTILE}
    whole -= {'public.We.ird "T', "public.case"}
    assert {*whole, "public.p", "public.mv"} <= set(found)
    text = written()
    assert "# public.v:  # a view, which may be slow to read: remove this" in text
    assert "# public.money:  # m is money" in text
    assert "for example columns: {cast: {m: 'decimal(18,2)'}}," in text, "can be pasted"
    assert "# public.case:  # has the same" in text
    assert "public.p1" not in text
    assert cli("validate", "shop.yml")[0] == 0
    code, out, err = cli("run", "shop.yml")
    assert code == 0, err
    assert out.count("succeeded") == len(found)


def test_update_adds_what_is_new_and_changes_no_other_byte(
    pg_database: Server, place: list[str], cli: Cli
) -> None:
    pg_database.execute("create table a (id int)", "create table dropped (id int)")
    assert cli("init", "shop.yml", *place, "--exclude", "*.secret*")[0] == 0
    before = written().replace(
        "  public.a:", f"{PERSONS_COMMENT}  public.a: {{max_connections: 3}}"
    )
    before = before.replace("  public.dropped:", "  # public.dropped:") + "\n# the end\n"
    Path("shop.yml").write_text(before)
    Path("shop.yml").chmod(0o640)
    pg_database.execute(
        "create schema s", "create table s.b (id int)", "create table secret (id int)"
    )
    code, said, _ = cli("init", "shop.yml", "--update", "--exclude", "*.secret*")
    assert (code, said) == (0, "shop.yml: added 1 table: s.b\n")
    assert tables() == ["public.a", "s.b"]
    after = written()
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert [line.partition(":")[0] for line in added] == ["  s.b"]
    assert "".join(line for line in after.splitlines(True) if "s.b" not in line) == before
    assert Path("shop.yml").stat().st_mode & 0o777 == 0o640
    assert cli("init", "shop.yml", "--update", "--exclude", "*.secret*")[1].endswith("is new\n")
    assert written() == after


def test_update_finds_tables_above_other_keys_and_refuses_a_flow(
    pg_database: Server, place: list[str], cli: Cli
) -> None:
    pg_database.execute("create table a (id int)", "create table b (id int)")
    assert cli("init", "shop.yml", *place, "--select", "public.a")[0] == 0
    head, _, entries = written().partition("tables:\n")
    Path("shop.yml").write_text(f"tables:\n{entries}\n{head}")
    assert cli("init", "shop.yml", "--update")[0] == 0
    assert tables() == ["public.a", "public.b"]
    Path("shop.yml").write_text(f"{head}tables: {{public.a: }}\n")
    code, _, err = cli("init", "shop.yml", "--update")
    assert code == 78
    assert "write tables as a block" in err
    assert tables() == ["public.a"]


def test_update_adds_a_table_whose_bare_name_means_another(
    pg_database: Server, place: list[str], cli: Cli
) -> None:
    pg_database.execute(
        "create table orders (id int)", "create schema audit", "create table audit.orders (id int)"
    )
    assert cli("init", "shop.yml", *place, "--select", "public.*")[0] == 0
    Path("shop.yml").write_text(written().replace("  public.orders:", "  orders:"))
    assert cli("init", "shop.yml", "--update")[0] == 0
    assert tables() == ["orders", "audit.orders"]


def test_update_adds_other_tables_beside_one_that_would_share_a_target(
    pg_database: Server, place: list[str], cli: Cli
) -> None:
    pg_database.execute("create table orders (id int)")
    assert cli("init", "shop.yml", *place)[0] == 0
    pg_database.execute('create table "Orders" (id int)', "create table payments (id int)")
    code, said, err = cli("init", "shop.yml", "--update")
    assert code == 0, err
    assert said == (
        "shop.yml: added 1 table, and 1 commented out with the reason for each: public.payments\n"
    )
    assert tables() == ["public.orders", "public.payments"]
    assert "# public.Orders:  # has the same" in written()


def test_update_adds_no_files_that_a_table_reads_or_writes(cli: Cli, tmp_path: Path) -> None:
    """The target lies in the drop folder, and one table reads all CSV files of it."""
    (tmp_path / "drop").mkdir()
    for name in ("a.csv", "b.csv", "c.jsonl"):
        (tmp_path / "drop" / name).write_text('{"id": 1}\n' if name == "c.jsonl" else "id\n1\n")
    Path("drop.yml").write_text(
        "version: 1\nsource: {name: drop, type: files, connection: {uri: drop}}\n"
        'defaults: {target: {uri: "drop/lake/{table}"}}\n'
        'tables:\n  all:\n    files: {glob: "*.csv"}\n'
    )
    assert cli("run", "drop.yml")[0] == 0
    assert len(list((tmp_path / "drop/lake/all").glob("*.parquet"))) == 1
    assert cli("init", "drop.yml", "--update")[:2] == (0, "drop.yml: added 1 table: c\n")
    assert cli("validate", "drop.yml")[0] == 0


def test_update_keeps_line_ends_byte_order_mark_and_link(cli: Cli) -> None:
    shop("create table a (x)")
    assert cli("init", "real.yml", "--from", "shop.db")[0] == 0
    before = b"\xef\xbb\xbf" + written("real.yml").rstrip("\n").replace("\n", "\r\n").encode()
    Path("real.yml").write_bytes(before)
    Path("shop.yml").symlink_to("real.yml")
    shop("create table b (x)")
    assert cli("init", "shop.yml", "--update")[0] == 0
    assert Path("shop.yml").is_symlink()
    after = Path("real.yml").read_bytes()
    assert after.startswith(before + b"\r\n  b:")
    assert after.endswith(b"\r\n")
    assert after.count(b"\n") == after.count(b"\r\n")
    assert tables() == ["a", "b"]


@pytest.mark.parametrize("end", ["", "\n", "\n\n  # the last\n# end\n", "\n...\n"])
def test_update_reads_every_config_that_a_run_does(cli: Cli, end: str) -> None:
    shop("create table a (x)")
    assert cli("init", "shop.yml", "--from", "shop.db")[0] == 0
    assert 'path: "./shop.db"' in Path("shop.yml").read_text(), "they may move together"
    text = written().replace("mode: full", "mode:\tfull")
    head, _, entries = text.partition("tables:\n")
    entries = entries.rstrip("\n").replace("  a:", "  &it a: &one\n    mode:\tfull")
    Path("shop.yml").write_text(f"---\n{head}tables:\n{entries}{end}")
    before = written()
    shop("create table b (x)")
    code, _, err = cli("init", "shop.yml", "--update")
    assert code == 0, err
    assert tables() == ["a", "b"]
    after = written()
    [added] = [line for line in after.splitlines(keepends=True) if line.startswith("  b:")]
    assert after.replace(added, "") == before + ("" if end else "\n")


def test_update_leaves_a_file_alone_that_is_edited_meanwhile(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop("create table a (x)")
    assert cli("init", "shop.yml", "--from", "shop.db")[0] == 0
    shop("create table b (x)")

    def edited(*arguments: Any) -> Any:
        Path("shop.yml").write_text(written() + "# mine\n")
        return _suggestions(*arguments)

    monkeypatch.setattr(init, "_suggestions", edited)
    code, _, err = cli("init", "shop.yml", "--update")
    assert code == 78
    assert "was edited meanwhile" in err
    assert written().endswith("# mine\n")
    assert tables() == ["a"]
    assert sorted(path.name for path in Path().iterdir()) == ["shop.db", "shop.yml"]


def test_a_source_with_views_only_is_refused_with_the_reason(cli: Cli) -> None:
    shop("create view v as select 1 as a")
    code, _, err = cli("init", "shop.yml", "--from", "shop.db")
    assert code == 78
    assert "no table can be extracted as it is; v: a view" in err
    assert not Path("shop.yml").exists()


def test_a_config_may_be_called_null(cli: Cli) -> None:
    shop("create table a (x)")
    assert cli("init", "null.yml", "--from", "shop.db")[0] == 0
    assert tables("null.yml") == ["a"]


def test_only_what_the_user_may_read_is_listed(
    pg_database: Server, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    role = "init_reader"
    pg_database.execute(
        "create table seen (id int primary key)", "create table hidden (id int)",
        "create table partly (id int, b int)", f"create role {role} login password 'x'",
        f"grant select on seen to {role}", f"grant select (id) on partly to {role}",
    )  # fmt: skip
    try:
        monkeypatch.setenv("P", "x")
        database = pg_database.database.replace(" ", "%20")
        url = f"postgresql://{role}@{pg_database.host}:{pg_database.port}/{database}"
        assert cli("init", "shop.yml", "--from", url, "--password-env", "P")[0] == 0
        assert "public.seen" in tables()
        assert "hidden" not in written()
        assert "public.partly" in written()
    finally:
        pg_database.execute(f"drop owned by {role}", f"drop role {role}")


def test_two_hundred_tables(pg_database: Server, place: list[str], cli: Cli) -> None:
    pg_database.execute(
        *(f"create table t{i:03} (id int primary key, u timestamptz)" for i in range(200))
    )
    code, said, _ = cli("init", "shop.yml", *place)
    assert code == 0
    assert "200 tables" in said
    assert len(tables()) == 200


def test_a_suggested_increment_follows_a_full_run(
    pg_database: Server, place: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extract_jobs.cli.suggest.SMALL_BYTES", 0)
    pg_database.execute(
        "create table orders (id int primary key, updated_at timestamp not null)",
        "create index on orders (updated_at)",
        "insert into orders select g, timestamp '2026-01-01' + g * interval '1 hour'"
        " from generate_series(1, 100) g",
    )
    assert cli("init", "shop.yml", *place)[0] == 0
    assert cli("run", "shop.yml")[0] == 0
    path = Path("shop.yml")
    path.write_text(re.sub(r"(?m)^    # (?=[a-z]+: [{\w])", "    ", written()))
    code, _, err = cli("run", "shop.yml")
    assert code == 78
    assert "--set mode=full" in err, "the layout of the files that stay is another one"
    assert cli("run", "shop.yml", "--set", "mode=full")[0] == 0
    pg_database.execute("insert into orders values (101, '2026-02-01')")
    code, out, err = cli("run", "shop.yml")
    assert code == 0, err
    assert out.splitlines()[-1].split()[:3] == ["public.orders", "succeeded", "1"]
    files = Path("lake/shop/public/orders").rglob("*.parquet")
    ids = [row for file in files for row in pq.ParquetFile(file).read(["id"])["id"].to_pylist()]
    assert sorted(ids) == list(range(1, 102))


RENTAL = """
create type rating as enum ('G', 'PG', 'PG-13');
create domain year as integer check (value between 1901 and 2155);
create function touch() returns trigger language plpgsql as
    'begin new.last_update = now(); return new; end';
create table language (
    language_id serial primary key, name char(20) not null, last_update timestamp default now());
create table film (
    film_id serial primary key, title text not null, description text, release_year year,
    language_id int not null references language, original_language_id int references language,
    rental_rate numeric(4,2) not null default 4.99, length smallint, rating rating default 'G',
    last_update timestamp with time zone not null default now(), special_features text[],
    fulltext tsvector generated always as (to_tsvector('english', title)) stored);
create index on film using gist (fulltext);
create trigger touch before update on film for each row execute function touch();
create table actor (
    actor_id int generated always as identity primary key, first_name text, last_name text);
create table film_actor (
    actor_id int references actor, film_id int references film, primary key (actor_id, film_id));
create table staff (
    staff_id int primary key, email text, active boolean not null default true, picture bytea,
    reports_to int references staff);
create table payment (
    payment_id bigserial, amount numeric(5,2) not null, payment_date timestamptz not null,
    primary key (payment_date, payment_id)) partition by range (payment_date);
create table payment_01 partition of payment for values from ('2026-01-01') to ('2026-02-01');
create table payment_02 partition of payment for values from ('2026-02-01') to ('2026-03-01');
create view film_list as select f.film_id, string_agg(a.last_name, ', ') as actors
    from film f join film_actor using (film_id) join actor a using (actor_id) group by 1;
create materialized view rental_by_month as
    select date_trunc('month', payment_date) as month, sum(amount)::numeric(12,2) as total
    from payment group by 1;
insert into language (name) values ('English'), ('Italian');
insert into film (title, language_id, release_year, special_features)
    select 'Film ' || i, 1 + i % 2, 2000 + i, array['Trailers', null] from generate_series(1, 9) i;
insert into actor (first_name, last_name) values ('A', 'B'), (null, '');
insert into film_actor values (1, 1), (1, 2), (2, 1);
insert into staff values (1, 'a@b', true, '\\x00ff', null), (2, null, false, null, 1);
insert into payment (amount, payment_date)
    select i, timestamptz '2026-01-15' + i * interval '2 days' from generate_series(1, 20) i;
refresh materialized view rental_by_month;
"""
"""A shop that rents films: what sample databases of PostgreSQL like to show."""


def test_a_schema_of_every_feature_runs_without_an_edit(
    pg_database: Server, place: list[str], cli: Cli
) -> None:
    pg_database.execute(RENTAL)
    assert cli("init", "shop.yml", *place)[0] == 0
    assert cli("validate", "shop.yml")[0] == 0
    code, _, err = cli("run", "shop.yml")
    assert code == 0, err
    found = {
        path.name: sum(pq.ParquetFile(f).metadata.num_rows for f in path.rglob("*.parquet"))
        for path in Path("lake/shop/public").glob("[!_]*")
    }
    assert found == {
        "language": 2, "film": 9, "actor": 2, "film_actor": 3, "staff": 2, "payment": 20,
        "rental_by_month": 2,
    }  # fmt: skip
    assert "# public.film_list:  # a view" in written()


def test_a_password_that_is_missing_is_asked_for_by_its_option(
    pg_database: Server, mysql_database: MysqlServer, cli: Cli
) -> None:
    mysql = mysql_database
    for url in (
        f"postgresql://{pg_database.user}@{pg_database.host}:{pg_database.port}/postgres",
        f"mysql://{mysql.user}@{mysql.host}:{mysql.port}/{mysql.database}",
    ):
        code, _, err = cli("init", "shop.yml", "--from", url)
        assert code == 78
        assert "password_env (of init: --password-env)" in err, err
        assert not Path("shop.yml").exists()


def test_mysql(mysql_database: MysqlServer, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    server = mysql_database
    server.execute(
        "create table orders (id int primary key, updated_at datetime not null, email text,"
        " key (updated_at), key (email(10)))",
        "insert into orders values (1, now(), 'x')", "create table `a.b` (`c.d` int)",
        "create view v as select 1 as a",
    )  # fmt: skip
    monkeypatch.setenv("P", server.password)
    monkeypatch.setattr("extract_jobs.cli.suggest.SMALL_BYTES", 0)
    url = f"mysql://{server.user}@{server.host}:{server.port}/{server.database}"
    assert cli("init", "shop.yml", "--from", url, "--password-env", "P")[0] == 0
    assert tables() == [f"{server.database}.a.b", f"{server.database}.orders"]
    assert "watermark: {column: updated_at" in written()
    code, out, err = cli("run", "shop.yml")
    assert code == 0, err
    assert out.count("succeeded") == 2


def test_sqlite_and_files(tmp_path: Path, cli: Cli) -> None:
    with sqlite3.connect("shop.db") as database:
        database.execute('create table "a b" (id integer primary key, updated_at text)')
        database.execute("create table sqlitelike (a)")
        database.execute("create view v as select 1")
    database.close()
    assert cli("init", "shop.yml", "--from", "shop.db")[0] == 0
    assert tables() == ["a b", "sqlitelike"]
    assert cli("run", "shop.yml")[0] == 0
    drop = tmp_path / "in"
    drop.mkdir()
    for day in ("2026-01-01", "2026-01-02"):
        (drop / f"orders_{day}.csv").write_text("a,b\n1,2\n")
    assert cli("init", "drop.yml", "--from", "in")[0] == 0
    code, out, err = cli("run", "drop.yml")
    assert code == 0, err
    assert "orders  succeeded  2" in out
    (drop / "new.jsonl").write_text('{"a": 1}\n')
    assert cli("init", "drop.yml", "--update")[0] == 0
    assert tables("drop.yml") == ["orders", "new"]
    code, _, err = cli("init", "other.yml", "--from", "in", "--target", "in/lake")
    assert code == 78
    assert "lies in in, whose files are read" in err


def test_a_config_beside_its_files_and_another_delimiter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a.csv").write_text("id;name\n1;x,y\n")
    (work / "b.csv").write_text('"one|column"\n1\n')
    monkeypatch.chdir(work)
    assert cli("init", "c.yml", "--from", ".", "--target", "../lake")[0] == 0
    text = Path("c.yml").read_text()
    assert 'uri: "."' in text
    assert 'files: {glob: "a.csv", delimiter: ";"}' in text
    assert str(tmp_path) not in text
    code, out, err = cli("run", "c.yml")
    assert code == 0, err + out
    assert [path.name for path in (tmp_path / "lake" / "c").iterdir()]
    assert cli("run", "c.yml")[0] == 0, "the commit of the first run is read"


def test_every_file_of_a_folder_is_a_table_or_named_with_the_reason(
    tmp_path: Path, cli: Cli
) -> None:
    drop = tmp_path / "in"
    drop.mkdir()
    (drop / "a[1].csv").write_text("a\n1\n")
    (drop / "t.tsv").write_text("a,b\tc\n1\t2\n")
    (drop / "array.json").write_text('[{"a": 1},\n {"a": 2}]')
    (drop / "lines.json").write_text('{"a": 1}\n{"a": 2}\n')
    (drop / "object.json").write_text('{\n"a": 1}\n')
    (drop / "notes.txt").write_text("a")
    (drop / "shop.db").write_text("a")
    code, out, err = cli("init", "drop.yml", "--from", "in")
    assert code == 0, err
    assert "4 tables, and 3 commented out with the reason for each" in out
    text = Path("drop.yml").read_text()
    assert r'files: {glob: "t.tsv", format: csv, delimiter: "\t"}' in text
    assert 'files: {glob: "array.json", format: json}' in text
    assert 'files: {glob: "lines.json", format: jsonl}' in text
    assert re.search(r'# "\*\.txt":  # 1 file \(notes\.txt\): the name indicates no format', text)
    assert re.search(r'# "\*\.db":  # 1 file \(shop\.db\): a database is not read', text)
    assert re.search(r"# object:  # .*\[ is expected", text)
    assert tables("drop.yml") == ["a", "array", "lines", "t"]
    assert cli("run", "drop.yml")[0] == 0
    assert "no table is new" in cli("init", "drop.yml", "--update")[1]


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--from", "postgresql://a:hidden@h/db"], "name that in --password-env"),
    (["--from", "mongodb://a@h/db"], "this kind of URL is not supported"),
    (["--from", "nowhere"], "no such file or folder"),
    (["--from", "env:ABSENT"], "ABSENT, which is not set"),
    (["--select", "a"], "go with --from"),
    (["--update"], "there is no such file"),
    (["s3://lake/shop.yml", "--update"], "files of this machine only"),
])  # fmt: skip
def test_what_cannot_be_listed_is_refused_and_nothing_is_written(
    cli: Cli, arguments: list[str], expected: str
) -> None:
    path = [] if arguments[0].startswith("s3:") else ["shop.yml"]
    code, out, err = cli("init", *path, *arguments)
    assert code == 78
    assert expected in err
    assert "hidden" not in out + err
    assert not Path("shop.yml").exists()
