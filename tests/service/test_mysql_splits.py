"""Splits of MySQL tables: disjoint, exhaustive and even, whatever the key is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError
from extract_jobs.sources.splits import Split
from extract_jobs.watermark import Interval, WatermarkValue
from tests.support.mysql_servers import MysqlServer, quoted
from tests.support.mysql_source import ids, snapshot_of, source
from tests.support.sampling import examples

Server = MysqlServer
SMALL = {"target_bytes": 49152}


def split_ids(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str = "t", **overrides: Any
) -> tuple[list[Split], list[list[int]]]:
    overrides.setdefault("split", SMALL)
    request = overrides.pop("request", {})
    found = source(server, monkeypatch, extract_table=name, **overrides)
    with snapshot_of(found, **request) as snapshot:
        splits = snapshot.splits(found.spec)
        assert [split.index for split in splits] == list(range(len(splits)))
        return splits, [ids(snapshot, split) for split in splits]


def check(found: list[list[int]], expected: list[int]) -> None:
    """Every row is in exactly one split."""
    assert sorted(value for part in found for value in part) == sorted(expected)


def fill(server: Server, columns: str, rows: list[tuple[Any, ...]], name: str = "t") -> None:
    server.execute(f"create table {quoted(name)} ({columns})")
    server.insert(name, rows)
    server.execute(f"analyze table {quoted(name)}")


NOTE = "n" * 100


def test_years_of_a_key_are_not_taken_for_two_digits(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB compares a year with 2063 where it is to be compared with 63."""
    years = ["0000", "1901", "1950", "1999", "2024", "2063", "2155"]
    rows = [(i, years[i % 7], i, NOTE) for i in range(3500)]
    fill(
        mysql_database,
        "id int, y year, n int, note varchar(200), primary key (y, n)",
        rows,
    )
    splits, found = split_ids(mysql_database, monkeypatch)
    check(found, list(range(3500)))
    assert len(splits) > 5
    wanted = SMALL | {"strategy": "range", "column": "y"}
    mysql_database.execute("alter table t drop primary key")
    _, found = split_ids(mysql_database, monkeypatch, split=wanted)
    check(found, list(range(3500)))
    above = {"interval": Interval(WatermarkValue("integer", "63"), None), "watermark_column": "y"}
    _, found = split_ids(mysql_database, monkeypatch, request=above)
    check(found, [i for i in range(3500) if i % 7])


def test_a_composite_key_is_cut_where_its_first_column_is_not_enough(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tenant has nearly all rows, and its key goes on with text and a number."""
    rows = [(i, 7 if 20 < i < 1980 else i, f"r{i % 3}", i, NOTE) for i in range(2000)]
    fill(
        mysql_database,
        "id int, tenant int, region varchar(10), n int, note varchar(200),"
        " primary key (tenant, region, n)",
        rows,
    )
    splits, found = split_ids(mysql_database, monkeypatch)
    check(found, list(range(2000)))
    assert len(splits) >= 5
    assert max(map(len, found)) < 900


def test_rows_that_come_while_splits_are_read_are_in_one_of_them(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(i, f"k{i % 2}", i, NOTE) for i in range(2000)]
    fill(mysql_database, "id int, a varchar(9), b int, note varchar(200), primary key (a, b)", rows)
    found = source(mysql_database, monkeypatch, extract_table="t", split=SMALL)
    keys = [("", 1), ("K0", -5), ("k00", 3), ("k0", 10**6), ("k05", 1), ("zzz", 0), ("k1", -1)]
    new = [(9000 + i, *key, NOTE) for i, key in enumerate(keys)]
    with snapshot_of(found) as snapshot:
        splits = snapshot.splits(found.spec)
        assert len(splits) > 3
        mysql_database.insert("t", new)
        read = [ids(snapshot, split) for split in splits]
    check(read, [*range(2000), *(row[0] for row in new)])


def test_null_in_a_unique_key_is_in_exactly_one_split(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(i, None if i % 3 == 0 else i, NOTE) for i in range(2000)]
    fill(mysql_database, "id int, k int, note varchar(200), unique (k)", rows)
    splits, found = split_ids(mysql_database, monkeypatch)
    check(found, list(range(2000)))
    assert len(splits) > 3


def test_null_in_each_column_of_a_unique_key_is_in_exactly_one_split(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value of the first column has most rows, so that the splits go on in the second."""
    rows = [
        (i, None if i % 5 == 0 else 7 if i % 10 else i, None if i % 4 == 0 else f"b{i}", NOTE)
        for i in range(2000)
    ]
    fill(mysql_database, "id int, a int, b varchar(9), note varchar(200), unique (a, b)", rows)
    splits, found = split_ids(mysql_database, monkeypatch)
    check(found, list(range(2000)))
    assert any("`a` = 7" in (split.predicate or "") for split in splits)


@pytest.mark.parametrize("column", ["n", "d", "y"])
def test_null_in_the_split_column_of_a_view_or_query_is_in_exactly_one_split(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    rows = [
        (i, *([None] * 3 if i % 3 == 0 else [i - 50, f"2024-01-{1 + i % 28:02}", 1990 + i % 50]))
        for i in range(300)
    ]
    fill(mysql_database, "id int, n int, d date, y year, unique (n)", rows)
    mysql_database.execute("create view v as select * from t")
    wanted = {"strategy": "range", "column": column, "max_connections": 5}
    above = {"interval": Interval(WatermarkValue("integer", "9"), None), "watermark_column": "id"}
    for named, request, first in (
        ({"name": "v"}, above, 10),
        ({"name": "q", "query": "select * from t"}, {}, 0),
    ):
        splits, found = split_ids(
            mysql_database, monkeypatch, split=wanted, request=request, **named
        )
        check(found, list(range(first, 300)))
        assert len(splits) == 5


@pytest.mark.parametrize("columns", [
    "id int, note varchar(200)",
    "id int, k float primary key, note varchar(200)",
    "id int, k varchar(50), note varchar(200), unique (k(5))",
    "id int, k int, note varchar(200), key (k)",
])  # fmt: skip
def test_without_a_usable_key_there_is_one_split(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    width = columns.count(",") + 1 - columns.count("unique (") - columns.count(", key (")
    rows = [(i, *([str(10000 + i)] if width == 3 else []), NOTE) for i in range(1000)]
    fill(mysql_database, columns, rows)
    splits, found = split_ids(mysql_database, monkeypatch)
    assert [split.predicate for split in splits] == [None]
    check(found, list(range(1000)))


def test_a_named_column_is_cut_with_its_index_and_without(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(i, i * i, i % 50, NOTE) for i in range(2000)]
    fill(
        mysql_database,
        "id int primary key, indexed bigint, plain int, note varchar(200), key (indexed)",
        rows,
    )
    for column in ("indexed", "plain"):
        wanted = {"strategy": "range", "column": column, **SMALL}
        splits, found = split_ids(mysql_database, monkeypatch, split=wanted)
        check(found, list(range(2000)))
        assert len(splits) > 3
        assert all(f"`{column}`" in (split.predicate or "") for split in splits)
    wanted = {"strategy": "range", "column": "plain", "max_connections": 5}
    splits, found = split_ids(
        mysql_database, monkeypatch, name="q", query="select id, plain from t", split=wanted
    )
    check(found, list(range(2000)))
    assert len(splits) == 5


def test_what_cannot_be_split_by_is_refused(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mysql_database, "id int primary key, f double, note varchar(9)", [(1, 1.5, "")])
    for wanted, reason in (
        ({"strategy": "range", "column": "f"}, "type double"),
        ({"strategy": "range", "column": "nope"}, "no column 'nope'"),
        ({"strategy": "ctid"}, "mysql takes auto, range and none"),
    ):
        with pytest.raises(ConfigError, match=reason):
            split_ids(mysql_database, monkeypatch, split=wanted)


def test_an_interval_is_cut_through_its_index_and_else_by_key(
    mysql_database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(i, None if i % 1000 == 0 else i, i, NOTE) for i in range(3000)]
    fill(
        mysql_database,
        "id int primary key, wm int, plain int, note varchar(200), key (wm)",
        rows,
    )

    def cut(column: str, lower: int, upper: int) -> list[Split]:
        bounds = Interval(*(WatermarkValue("integer", str(v)) for v in (lower, upper)))
        request = {"interval": bounds, "watermark_column": column, "include_null_watermarks": True}
        splits, found = split_ids(mysql_database, monkeypatch, request=request)
        check(
            found,
            [row[0] for row in rows
             if row[1 if column == "wm" else 2] is None
             or lower < row[1 if column == "wm" else 2] <= upper],
        )  # fmt: skip
        return splits

    assert [split.predicate for split in cut("wm", 2990, 2999)] == [None]
    some = cut("wm", 2500, 2999)
    assert len(some) > 1
    assert all("`wm`" in (split.predicate or "") for split in some)
    assert all("`id`" in (split.predicate or "") for split in cut("wm", 10, 2999))
    assert all("`id`" in (split.predicate or "") for split in cut("plain", 2990, 2999))


COLLATIONS = {
    True: ["utf8mb4_general_ci", "utf8mb4_bin", "utf8mb4_unicode_ci", "utf8mb4_nopad_bin",
           "utf8mb4_unicode_nopad_ci"],
    False: ["utf8mb4_general_ci", "utf8mb4_bin", "utf8mb4_unicode_ci", "utf8mb4_0900_ai_ci",
            "utf8mb4_0900_bin"],
}  # fmt: skip
"""Of MariaDB and MySQL, with and without padding."""


@settings(
    max_examples=examples(4),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    keys=st.lists(st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]),
                          max_size=12), min_size=1, max_size=80),
    which=st.integers(0, 4),
)  # fmt: skip
def test_any_texts_are_cut_disjointly(
    mysql_database: Server,
    monkeypatch: pytest.MonkeyPatch,
    keys: list[str],
    which: int,
) -> None:
    """Whatever a collation makes of case, accents, blanks at the end and what it ignores."""
    collation = COLLATIONS[mysql_database.is_mariadb][which]
    mysql_database.execute(
        "drop table if exists t",
        f"create table t (id int, k varchar(12) collate {collation}, n int, note varchar(900),"
        " primary key (k, n))",
    )
    mysql_database.insert("t", [(i, key, i, "n" * 900) for i, key in enumerate(keys)])
    mysql_database.execute("analyze table t")
    _, found = split_ids(mysql_database, monkeypatch, split={"target_bytes": 8192})
    check(found, list(range(len(keys))))
