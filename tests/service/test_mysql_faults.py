"""What MySQL and MariaDB do that loses or alters data in silence is seen, or cannot happen."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from extract_jobs.errors import ConfigError, SourceQueryFailed, TypeNotRepresentable
from extract_jobs.run import run_extract
from extract_jobs.sources.mysql.session import execute, session
from extract_jobs.sources.mysql.settings import SETTINGS
from extract_jobs.sources.splits import Split
from tests.support.mysql_servers import MysqlServer, numbers
from tests.support.mysql_source import read_all, snapshot_of, source

Server = MysqlServer

LETTERS: dict[str, tuple[int, str, tuple[str, ...], tuple[str, ...]]] = {
    "cp1251": (1, "windows-1251", ("41c042",), ("419842", "98")),
    "cp1250": (1, "windows-1250", ("418a42",), ("418142",)),
    "cp1256": (1, "windows-1256", ("418142",), ("418a42",)),
    "cp1257": (1, "windows-1257", ("41c042",), ("418142",)),
    "greek": (1, "iso8859_7", ("41e142",), ("41ae42", "ff")),
    "hebrew": (1, "iso8859_8", ("41e042",), ("41a142", "fb")),
    "dec8": (1, "latin-1", ("41c042",), ("41a442", "ff")),
    "hp8": (1, "hp_roman8", ("41c042",), ("ff",)),
    "tis620": (1, "tis_620", ("41a142",), ("41db42", "fc")),
    "latin1": (1, "windows-1252", ("418042", "41ff"), ()),
    "koi8r": (1, "koi8_r", ("41c042",), ()),
    # A backslash and question marks are letters like others; a last one that is cut is none.
    "sjis": (2, "shift_jis", ("5c3f", "93fa967b3f"), ("81", "4181", "fc40")),
    "cp932": (2, "cp932", ("5c3f", "ed40", "8790"), ("81", "4181", "41813f42")),
    "big5": (2, "big5", ("a440", "3f5c"), ("a1", "41a4", "c7fd")),
    "gbk": (2, "gbk", ("b0a1", "3f"), ("81", "4181", "41813f42")),
    "euckr": (2, "euc_kr", ("b0a1",), ("b0", "41b0")),
    "ujis": (3, "euc_jp", ("c6fc", "5c"), ("8f", "41c6")),
    "eucjpms": (3, "euc_jp", ("c6fc",), ("8f", "41c6")),
    "utf16": (4, "utf-16-be", ("00410042", "d83dde00"), ("d800", "0041d83d")),
    "utf32": (4, "utf-32-be", ("00000041",), ("00000041000000", "00110000")),
    "ucs2": (2, "utf-16-be", ("00410042",), ("d800",)),
    "utf8mb4": (4, "utf-8", ("f09f9880",), ("c328", "41ff")),
}  # fmt: skip
"""Most bytes of a letter, Python's codec, texts that are valid, and bytes that are none."""


@pytest.mark.parametrize("charset", LETTERS)
def test_text_arrives_as_it_is_or_is_refused(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch, charset: str
) -> None:
    widest, codec, valid, invalid = LETTERS[charset]
    smuggle(mysql_database, charset, widest, (*valid, *invalid))
    only_valid = f"id <= {len(valid)}"
    table = read_all(source(mysql_database, monkeypatch, extract_table="t", where=only_valid))
    assert table["c"].to_pylist() == [bytes.fromhex(text).decode(codec) for text in valid]
    for number in range(len(valid) + 1, len(valid) + len(invalid) + 1):
        found = source(mysql_database, monkeypatch, extract_table="t", where=f"id = {number}")
        with pytest.raises(TypeNotRepresentable, match=r"column c .*not valid in its character"):
            read_all(found)
        with pytest.raises(TypeNotRepresentable, match="watermark column c"):
            found.highest("c")
    found = source(mysql_database, monkeypatch, extract_table="t", lossy_types="null")
    with snapshot_of(found) as snapshot:
        batches = list(snapshot.reader.read(Split(0)))
        assert snapshot.reader.nulled == ({"c": len(invalid)} if invalid else {})
    assert pa.Table.from_batches(batches)["c"].null_count == len(invalid)


def smuggle(server: Server, charset: str, widest: int, texts: tuple[str, ...]) -> None:
    """Make a table of texts as old clients and dumps left them, valid or not.

    The server checks what it is given, so the rows are put into a binary column, and their files
    under the name of the other table.
    """
    rows = ", ".join(f"({number}, x'{text}')" for number, text in enumerate(texts, 1))
    server.execute(
        f"create table t (id int, c varchar(20) charset {charset}) engine=myisam",
        f"create table raw (id int, c varbinary({20 * widest})) engine=myisam",
        f"insert into raw values {rows}",
        "flush tables",
    )
    folder = server.directory / "data" / server.database.replace(" ", "@0020")
    for ending in ("MYD", "MYI"):
        shutil.copy(folder / f"raw.{ending}", folder / f"t.{ending}")
    server.execute("flush tables")
    stored = server.rows("select lower(hex(c)) from t order by id")
    assert [text for (text,) in stored] == list(texts)


@contextlib.contextmanager
def globally(server: Server, **settings: str) -> Iterator[None]:
    """Let new sessions of a server begin with other settings."""
    before = {name: server.rows(f"select @@global.{name}")[0][0] for name in settings}
    server.execute(*(f"set global {name} = {value}" for name, value in settings.items()))
    try:
        yield
    finally:
        server.execute(
            *(
                f"set global {name} = {value if isinstance(value, int) else repr(value)}"
                if value != "DEFAULT" else f"set global {name} = default"
                for name, value in before.items()
            )
        )  # fmt: skip


def test_json_that_the_server_cut_fails_and_names_its_column(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored in 1 MB, printed in 6: a control character is six letters in JSON."""
    mysql_database.execute(
        "create table t (id int primary key, j json)",
        "insert into t values (1, json_array(repeat(char(1 using utf8mb4), 1000000))),"
        " (2, '\"\"'), (3, null)",
    )
    if mysql_database.is_mariadb:  # its JSON is text, which is printed as it is stored
        table = read_all(source(mysql_database, monkeypatch, extract_table="t"))
        assert table["j"].to_pylist()[1:] == ['""', None]
        return
    with globally(mysql_database, max_allowed_packet=str(4 * 2**20)):
        with pytest.raises(TypeNotRepresentable, match=r"column j .*max_allowed_packet"):
            read_all(source(mysql_database, monkeypatch, extract_table="t"))
        nulls = source(mysql_database, monkeypatch, extract_table="t", lossy_types="null")
        assert read_all(nulls)["j"].to_pylist() == [None, '""', None]
    text = read_all(source(mysql_database, monkeypatch, extract_table="t"))["j"][0].as_py()
    assert text == '["' + "\\u0001" * 1000000 + '"]'


def test_whatever_a_query_cut_fails(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute(
        "create table t (id int primary key, c varchar(9))",
        f"insert into t select seq, 'x' from {numbers(2000)}",
    )

    def read(query: str) -> pa.Table:
        return read_all(source(mysql_database, monkeypatch, extract_table="q", query=query))

    with pytest.raises(SourceQueryFailed, match="max_allowed_packet"):
        read("select id, repeat(c, 2000000000) as r from t where id = 1")
    joined = read("select group_concat(repeat(c, 100)) as r from t where id <= 200")["r"][0].as_py()
    assert len(joined) == 200 * 101 - 1, "not the 1,024 bytes of the default"
    with pytest.raises(SourceQueryFailed, match=r"2000 warnings and shows (64|1024)"):
        read("select id, c + 0 as n from t")
    assert read("select id, c + 0 as n from t where id < 60").num_rows == 59
    count = "with recursive r (n) as (select 1 union all select n + 1 from r where n < 5000)"
    assert read(f"{count} select n from r").num_rows == 5000


def test_dates_that_became_null_account_for_no_text_that_was_cut(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute(
        "create table t (id int primary key, d date, c varchar(9))",
        "set sql_mode = ''",
        "insert into t values (1, '0000-00-00', 'x')",
    )
    query = "select id, d, repeat(c, 2000000000) as r from t"
    found = source(mysql_database, monkeypatch, extract_table="q", query=query, lossy_types="null")
    with pytest.raises(SourceQueryFailed, match="max_allowed_packet"):
        read_all(found)


def test_settings_of_the_server_do_not_change_what_is_read(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that limits selects, whose rows are those of another time, and more."""
    mysql_database.execute(
        "create table t (id int primary key, w int, key (w))",
        f"insert into t select seq, seq from {numbers(3000)}",
    )
    hostile = {
        "sql_select_limit": "100", "group_concat_max_len": "4", "sql_auto_is_null": "1",
        "div_precision_increment": "0", "lc_time_names": "'de_DE'", "sql_big_selects": "0",
        "max_join_size": "10", "sql_mode": "'PAD_CHAR_TO_FULL_LENGTH,ANSI_QUOTES'",
        "init_connect": "'set sql_select_limit = 7, timestamp = 1'",
    }  # fmt: skip
    if mysql_database.is_mariadb:
        hostile |= {"system_versioning_asof": "'2001-01-01'", "max_recursive_iterations": "5"}
    mysql_database.execute(
        "drop user if exists 'plain'@'%'",
        "create user 'plain'@'%' identified by 'x'",
        "grant select on *.* to 'plain'@'%'",
    )
    monkeypatch.setenv("PLAIN", "x")
    with globally(mysql_database, **hostile):
        found = source(
            mysql_database, monkeypatch, extract_table="t", mode="incremental",
            connection={"user": "plain", "password_env": "PLAIN"}, watermark={"column": "w"},
            target={"uri": f"{tmp_path}/target", "write_mode": "append"},
            state_uri=f"{tmp_path}/state", report_uri=f"{tmp_path}/report.json",
        )  # fmt: skip
        report = run_extract(found.spec)
        with session(found.connection, "looking") as opened:
            says = execute(
                opened,
                "select date_format('2024-03-01', '%W'), 1 / 3, unix_timestamp() > 1000000,"
                ' "text", (select count(*) from t where id is null)',
            )
    assert (report.rows, report.source_rows) == (3000, 3000)
    assert report.watermark == {"type": "integer", "text": "3000"}
    assert [str(value) for value in says[0]] == ["Friday", "0.3333", "1", "text", "0"]


def test_every_setting_is_what_the_page_says(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = source(mysql_database, monkeypatch, extract_table="t")
    with session(found.connection, "looking") as opened:
        shown = {str(k).lower(): str(v) for k, v in execute(opened, "show session variables")}
    known = [one for one in SETTINGS if one.name in shown]
    assert len(known) > 20
    words = {"ON": "1", "OFF": "0"}
    for one in known:
        if one.value not in ("default", "null"):
            value, meant = shown[one.name], one.value.strip("'")
            assert meant in (value, words.get(value), value.removesuffix(".000000")), one.name


def test_a_statement_has_the_limit_that_is_set(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL and MariaDB have different settings for it, and different errors."""
    mysql_database.execute(
        "create table t (id int primary key)", "insert into t values (1), (2)",
        "create view endless as select id, sleep(20) as s from t",
    )  # fmt: skip
    found = source(mysql_database, monkeypatch, extract_table="endless", statement_timeout="1s")
    with pytest.raises(SourceQueryFailed, match=r"longer than source\.statement_timeout"):
        read_all(found)


def test_statistics_are_those_of_now(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL shows a table's size as it was when anybody looked, up to a day ago."""
    mysql_database.execute(
        "create table t (id int primary key, note varchar(200)) stats_persistent = 0",
    )
    found = source(mysql_database, monkeypatch, extract_table="t", split={"target_bytes": 65536})
    mysql_database.rows("select table_rows from information_schema.tables where table_name = 't'")
    assert found.describe().estimated_rows == 0
    mysql_database.execute(
        f"insert into t select seq, repeat('n', 150) from {numbers(5000)}",
        "flush tables t",
    )
    mysql_database.rows("select count(*) from t")
    assert (found.describe().estimated_rows or 0) > 1000
    with snapshot_of(found) as snapshot:
        assert len(snapshot.splits(found.spec)) > 5


def test_a_user_who_may_not_read_the_key_reads_the_rest(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = mysql_database.database
    mysql_database.execute(
        "create table t (id int primary key, note varchar(200))",
        f"insert into t select seq, repeat('n', 150) from {numbers(2000)}",
        "analyze table t",
        "drop user if exists 'keyless'@'%'",
        "create user 'keyless'@'%' identified by 'x'",
        f"grant select (note) on `{name}`.t to 'keyless'@'%'",
    )
    monkeypatch.setenv("KEYLESS", "x")
    found = source(
        mysql_database, monkeypatch, extract_table="t", split={"target_bytes": 65536},
        connection={"user": "keyless", "password_env": "KEYLESS"},
    )  # fmt: skip
    assert found.describe().key == ()
    with snapshot_of(found) as snapshot:
        [split] = snapshot.splits(found.spec)
        # MariaDB does not even show that there is a key.
        assert mysql_database.is_mariadb or "may not read its column id" in split.note
        assert sum(len(batch) for batch in snapshot.reader.read(split)) == 2000


def test_logins_by_password_over_a_socket_and_without_tls(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute(
        "drop user if exists 'fresh'@'%'",
        "create user 'fresh'@'%' identified by 'pw of fresh'",
        "grant select on *.* to 'fresh'@'%'",
        "drop user if exists 'tls'@'%'",
        "create user 'tls'@'%' identified by 'x' require ssl",
        "create table t (id int)",
    )
    monkeypatch.setenv("FRESH", "pw of fresh")
    over_socket = {
        "host": str(mysql_database.directory / "socket"), "user": "fresh",
        "password_env": "FRESH",
    }  # fmt: skip
    for _ in range(2):  # the server knows the password's hash only from the second login on
        source(mysql_database, monkeypatch, extract_table="t", connection=over_socket).describe()
    monkeypatch.setenv("TLS", "x")
    plain = {"user": "tls", "password_env": "TLS", "sslmode": "disable"}
    with pytest.raises(ConfigError, match=r"over TLS only.*sslmode is disable"):
        source(mysql_database, monkeypatch, extract_table="t", connection=plain).describe()
