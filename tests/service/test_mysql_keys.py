"""Every kind of key that MySQL and MariaDB have: splits hold each row once, and come out even."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.mysql_servers import MysqlServer, quoted
from tests.support.mysql_source import ids, snapshot_of, source

ROWS = 1000
NOTE = "n" * 150


def _uuid(i: int) -> str:
    text = f"{random.Random(i).getrandbits(128):032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@dataclass(frozen=True)
class Key:
    """One kind of key.

    Attributes:
        columns: SQL of the table's columns beside ``id`` and ``note``, and of its key.
        values: What the columns hold in row ``i``.
        whole: Why the table is one split; None where it is cut.
        largest: Most rows in a split beyond three times its share: those that no range can cut.
        after: SQL of the table after its columns.
        mariadb: Its columns in MariaDB, where they differ; empty where it has no such key.
        more: Statements that come after the rows, by ``is_mariadb``.
    """

    columns: str
    values: Callable[[int], tuple[Any, ...]]
    whole: str | None = None
    largest: int = 0
    after: str = ""
    mariadb: str | None = None
    more: tuple[str, str] = ("", "")


def _one(kind: str, value: Callable[[int], Any]) -> Key:
    return Key(f"k {kind} primary key", lambda i: (value(i),))


KEYS: dict[str, Key] = {
    "dense": _one("bigint", lambda i: i),
    "negative": _one("int", lambda i: i - 500),
    "sparse": _one("bigint unsigned", lambda i: i if i < 500 else 2**64 - 1 - i),
    "decimal": _one("decimal(20,5)", lambda i: f"{i * i}.00001"),
    "date": _one("date", lambda i: f"{1000 + i // 300:04}-{1 + i % 12:02}-{1 + i // 12 % 25:02}"),
    "datetime": _one("datetime(6)", lambda i: f"2024-01-01 00:{i // 60:02}:{i % 60:02}.{i:06}"),
    "timestamp": _one("timestamp(3)", lambda i: f"2024-01-01 {i // 60:02}:{i % 60:02}:00"),
    "odd dates": _one("datetime(3)", lambda i: (
        f"2024-00-10 00:00:00.{i:03}" if i < 9
        else f"2024-01-{1 + i % 28:02} 00:{i // 60:02}:{i % 60:02}")),
    "hex": _one("char(32) charset ascii", lambda i: _uuid(i).replace("-", "")),
    "uuid": _one("char(36)", _uuid),
    "upper uuid": _one("char(36)", lambda i: _uuid(i).upper()),
    "words": _one("varchar(60)", lambda i: f"{'aÄbéß☃zZ'[i % 8]}{i * 7919 % 2003}"),
    "e-mail": _one("varchar(80)", lambda i: f"u{i * 7919 % 100003}@{'abc'[i % 3]}.example.com"),
    "common start": _one("varchar(60) collate utf8mb4_bin", lambda i: f"same/prefix/{i:05}"),
    "PAD SPACE": _one("varchar(60) collate utf8mb4_general_ci", lambda i: f"{i:x}{' ' * (i % 3)}"),
    "NO PAD": Key(
        "k varchar(60) collate utf8mb4_0900_ai_ci primary key",
        lambda i: (f"{i // 3:x}{' ' * (i % 3)}",),
        mariadb="k varchar(60) collate utf8mb4_unicode_nopad_ci primary key",
    ),
    "Cyrillic": _one("varchar(20)", lambda i: f"{chr(0x430 + i % 32)}{chr(0x430 + i * 7 % 32)}{i}"),
    "Chinese": _one("varchar(20)", lambda i: f"{chr(0x4E00 + i * 37 % 20000)}{i}"),
    "latin1": _one("varchar(20) charset latin1", lambda i: f"é{i}"),
    "sjis": _one("varchar(40) charset sjis", _uuid),
    "utf16": _one("varchar(40) charset utf16", _uuid),
    "binary uuid": _one("binary(16)", lambda i: random.Random(i).randbytes(16)),
    "varbinary": _one("varbinary(20)", lambda i: random.Random(i).randbytes(i % 15)
                      + i.to_bytes(2, "big")),
    "composite": Key("a int, b int, primary key (a, b)", lambda i: (i // 50, i % 50)),
    "one large tenant": Key(
        "a int, b varchar(9), c int, primary key (a, b, c)",
        lambda i: (7 if 20 < i < 980 else i, f"r{i % 3}", i), largest=200,
    ),
    "descending": Key("a int, primary key (a desc)", lambda i: (i,)),
    "composite, descending": Key(
        "a int, b int, primary key (a, b desc)", lambda i: (7 if 20 < i < 980 else i, i)
    ),
    "partitioned": Key(
        "k int primary key", lambda i: (i,), after=" partition by hash(k) partitions 4"
    ),
    "nullable unique": Key(
        "k int, unique (k)", lambda i: (None if i % 3 == 0 else i,), largest=334
    ),
    "start of its last column": Key(
        "a int, b varchar(20), primary key (a, b(5))", lambda i: (i, f"x{i}")
    ),
    "start of its column": Key(
        "k varchar(50), unique (k(5))", lambda i: (str(10000 + i),), "only the start of column k"
    ),
    "functional": Key(
        "k int, unique ((k + 1))", lambda i: (i,), "begins with an expression", mariadb=""
    ),
    "invisible": Key(
        "k int, unique u (k)", lambda i: (i,), "the optimizer",
        more=("alter table t alter index u invisible", "alter table t alter index u ignored"),
    ),
    "of an invisible column": Key(
        "hidden int not null auto_increment invisible primary key, k int",
        lambda i: (i,), mariadb="hidden int invisible auto_increment primary key, k int",
    ),
    "float": Key("k float primary key", lambda i: (i,), "of type float"),
    "none": Key("k int, key (k)", lambda i: (i,), "there is none"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_splits_are_the_table_and_even(
    mysql_database: MysqlServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    server, key = mysql_database, KEYS[kind]
    columns = key.columns
    if server.is_mariadb and key.mariadb is not None:
        columns = key.mariadb
    if not columns:
        return  # MariaDB has no such key
    table = f"create table t (id int, {columns}, note varchar(200)){key.after}"
    server.execute(table)
    server.insert("t", [(i, *key.values(i), NOTE) for i in range(ROWS)])
    server.execute(*filter(None, [key.more[server.is_mariadb], f"analyze table {quoted('t')}"]))
    found = source(server, monkeypatch, extract_table="t", split={"target_bytes": 32768})
    with snapshot_of(found) as snapshot:
        splits = snapshot.splits(found.spec)
        read = [ids(snapshot, split) for split in splits]
    assert sorted(value for part in read for value in part) == list(range(ROWS))
    if key.whole is not None:
        assert [split.predicate for split in splits] == [None]
        assert key.whole in splits[0].note
        return
    assert len(splits) >= 5
    assert max(map(len, read)) <= ROWS / len(splits) * 3 + key.largest, list(map(len, read))
