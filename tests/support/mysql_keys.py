"""Every kind of key that MySQL and MariaDB have, and what its splits contain.

``python -m tests.support.mysql_keys [--server mysql]… [--write]`` prints the table of shares in
docs/verified.md, one column per server, and can write it there.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from extract_jobs.sources.splits import Split
from tests.support.mysql_servers import FLAVOURS, MysqlServer, database_of, quoted, run_server
from tests.support.mysql_source import ids, rows_of, snapshot_of, source

PAGE = Path(__file__).parents[2] / "docs" / "verified.md"
HEADING = "## MySQL and MariaDB, key by key"

ROWS = 1000
NOTE = "n" * 150


def _uuid(i: int) -> str:
    text = f"{random.Random(i).getrandbits(128):032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@dataclass(frozen=True)
class Key:
    """One kind of key.

    Attributes:
        columns: SQL of the table's columns besides ``id`` and ``note``, and of its key.
        values: The columns' values in row ``i``.
        whole: Why the table is one split; None if it is split.
        largest: Maximum rows in a split beyond three times its share: those that no range can
            split, because they share one value of the key's columns, or are NULL. 0 if it is dense.
        after: SQL of the table after its columns.
        mariadb: Its columns in MariaDB, if they differ; empty if it has no such key.
        more: Statements after the rows, by ``is_mariadb``.
        before: A statement before the table is created.
    """

    columns: str
    values: Callable[[int], tuple[Any, ...]]
    whole: str | None = None
    largest: int = 0
    after: str = ""
    mariadb: str | None = None
    more: tuple[str, str] = ("", "")
    before: str = ""


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
        lambda i: (7 if 20 < i < 980 else i, f"r{i % 3}", i),
    ),
    "descending": Key("a int, primary key (a desc)", lambda i: (i,)),
    "composite, descending": Key(
        "a int, b int, primary key (a, b desc)", lambda i: (7 if 20 < i < 980 else i, i)
    ),
    "partitioned": Key(
        "k int primary key", lambda i: (i,), after=" partition by hash(k) partitions 4"
    ),
    "nullable unique": Key(
        "k int, unique (k)", lambda i: (None if i % 3 == 0 else i,), largest=50
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
    "generated, invisible": Key(
        "k int", lambda i: (i,), before="set sql_generate_invisible_primary_key = 1", mariadb=""
    ),
    "float": Key("k float primary key", lambda i: (i,), "of type float"),
    "none": Key("k int, key (k)", lambda i: (i,), "there is none"),
}  # fmt: skip

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Read:
    """A table that was read split by split.

    Attributes:
        parts: The rows of each split.
        whole: The rows of the same table as one split.
        splits: The splits.
        ids: The column ``id`` of the whole.
    """

    parts: list[list[Row]]
    whole: list[Row]
    splits: Sequence[Split]
    ids: Sequence[int] = ()

    @property
    def largest(self) -> int:
        """Maximum rows of a split."""
        return max(map(len, self.parts))

    @property
    def share(self) -> float:
        """Size of the largest split as a multiple of an even share."""
        return self.largest * len(self.parts) / len(self.whole)

    def check_rows(self) -> None:
        """Check that the splits have exactly the table's rows.

        Raises:
            AssertionError: Some are missing, or occur more than once.
        """
        found = Counter(row for part in self.parts for row in part)
        expected = Counter(self.whole)
        assert found == expected, (
            f"missing: {list((expected - found).elements())[:5]}, "
            f"too many: {list((found - expected).elements())[:5]}"
        )

    def check_even(self, largest: int) -> None:
        """Check that no split exceeds three times its share by more than ``largest`` rows.

        Raises:
            AssertionError: One has.
        """
        bound = 3 * len(self.whole) / len(self.parts) + largest
        assert self.largest <= bound, [len(part) for part in self.parts]


def columns_of(server: MysqlServer, key: Key) -> str:
    """Return the SQL of a key's columns on a server; empty if it has no such key."""
    return key.mariadb if server.is_mariadb and key.mariadb is not None else key.columns


def read_in_splits(server: MysqlServer, monkeypatch: pytest.MonkeyPatch, key: Key) -> Read:
    """Create a table ``t`` with a key in an empty database, and read it split by split."""
    table = f"create table t (id int, {columns_of(server, key)}, note varchar(200)){key.after}"
    server.execute(*filter(None, [key.before, table]))
    server.insert("t", [(i, *key.values(i), NOTE) for i in range(ROWS)])
    server.execute(*filter(None, [key.more[server.is_mariadb], f"analyze table {quoted('t')}"]))
    found = source(
        server, monkeypatch, extract_table="t", split={"target_bytes": 32768},
        lossy_types="string",  # for odd dates
    )  # fmt: skip
    with snapshot_of(found) as snapshot:
        splits = snapshot.splits(found.spec)
        parts = [rows_of(snapshot, split) for split in splits]
        return Read(parts, rows_of(snapshot, Split(0)), splits, ids(snapshot, Split(0)))


def shares(server: MysqlServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Read a table of each kind of key, and return what its splits contain."""
    said: dict[str, str] = {}
    for kind, key in KEYS.items():
        if not columns_of(server, key):
            said[kind] = "-"
            continue
        with database_of(server) as database:
            read = read_in_splits(database, monkeypatch, key)
        read.check_rows()
        split = f"{len(read.parts)} splits, {read.share:.1f}"
        note = read.splits[0].note.partition("(")[2].partition(")")[0]
        said[kind] = split if key.whole is None else f"one split: {note.rpartition('because ')[2]}"
    return said


def table(found: dict[str, dict[str, str]]) -> Iterable[str]:
    """Yield the lines of the page's table, from the results of `shares` by server name."""
    yield f"| key | {' | '.join(found)} |"
    yield "| --- |" + " --- |" * len(found)
    for kind in KEYS:
        yield f"| {kind} | {' | '.join(said[kind] for said in found.values())} |"


def main() -> None:
    """Print the table of shares."""
    parser = argparse.ArgumentParser(description="What splits by each kind of key hold.")
    parser.add_argument("--server", choices=FLAVOURS, action="append")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    arguments = parser.parse_args()
    found = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in arguments.server or FLAVOURS:
            with run_server(FLAVOURS[name]) as server:
                [[version]] = server.rows("select version()")
                number = re.match(r"[\d.]+", version)
                assert number is not None
                title = f"{'MariaDB' if server.is_mariadb else 'MySQL'} {number[0]}"
                found[title] = shares(server, monkeypatch)
    lines = "\n".join(table(found))
    print(lines)
    if arguments.write:
        text = PAGE.read_text("utf-8")
        begin = text.index("| key |", text.index(HEADING))
        end = text.find("\n\n", begin)
        rest = text[end:] if end >= 0 else "\n"
        PAGE.write_text(text[:begin] + lines + rest, "utf-8")


if __name__ == "__main__":
    main()
