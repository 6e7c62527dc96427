"""Random schemas and rows put into MySQL arrive as they were put in."""

# ruff: noqa: DTZ001  naive timestamps are a type of their own here

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.mysql_servers import MysqlServer, quoted
from tests.support.mysql_source import read_all, source
from tests.support.sampling import examples

_FIRST, _LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)


def _text(most: int, **kinds: Any) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"], **kinds), max_size=most)


def _integers(bits: int, *, unsigned: bool = False) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1) if unsigned else st.integers(-(2 ** (bits - 1)), 2 ** (
        bits - 1) - 1)  # fmt: skip


TYPES: dict[str, st.SearchStrategy[Any]] = {
    "tinyint": _integers(8),
    "tinyint(1)": _integers(8),
    "smallint unsigned": _integers(16, unsigned=True),
    "mediumint": _integers(24),
    "int unsigned zerofill": _integers(32, unsigned=True),
    "bigint": _integers(64),
    "bigint unsigned": _integers(64, unsigned=True).map(Decimal),
    "decimal(38,7)": st.decimals(-(10**31) + 1, 10**31 - 1, places=7).map(
        lambda d: d.quantize(Decimal("1e-7"), context=Context(prec=38))
    ),
    "decimal(9,0)": st.integers(-(10**9) + 1, 10**9 - 1).map(Decimal),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "date": st.dates(date(1, 1, 1)),
    "datetime(6)": st.datetimes(_FIRST, _LAST),
    "timestamp(6) null": st.datetimes(
        datetime(1970, 1, 1, 0, 0, 1), datetime(2038, 1, 19, 3, 14, 7), timezones=st.just(UTC)
    ),
    "varchar(60)": _text(60),
    "varchar(60) charset utf8mb3": _text(60, max_codepoint=0xFFFF),
    "varchar(60) charset latin1": _text(60, max_codepoint=0x7F),
    "varchar(60) charset utf16": _text(60),
    "longtext": _text(400),
    "varbinary(300)": st.binary(max_size=300),
    "longblob": st.binary(max_size=70_000),
    "enum('a', 'b c', 'ü')": st.sampled_from(["a", "b c", "ü"]),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[tuple[Any, ...]]]:
    """A table's types and its rows."""
    kinds = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=8))
    row = st.tuples(*(st.none() | TYPES[kind] for kind in kinds))
    return kinds, draw(st.lists(row, max_size=20))


@settings(
    max_examples=examples(10), deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(table=tables())
def test_what_was_put_in_arrives(
    mysql_database: MysqlServer,
    monkeypatch: pytest.MonkeyPatch,
    table: tuple[list[str], list[tuple[Any, ...]]],
) -> None:
    kinds, rows = table
    listed = ", ".join(f"{quoted(f'c {i}')} {kind}" for i, kind in enumerate(kinds))
    mysql_database.execute(
        "drop table if exists t", f"create table t (id int primary key, {listed})"
    )
    mysql_database.insert("t", [(i, *map(put_in, row)) for i, row in enumerate(rows)])
    found = read_all(source(mysql_database, monkeypatch, extract_table="t"))
    arrived = sorted(found.to_pylist(), key=lambda row: row["id"])
    assert [tuple(row.values()) for row in arrived] == [(i, *row) for i, row in enumerate(rows)]


def put_in(value: Any) -> Any:
    """Spell a value so that PyMySQL loses nothing of it."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    return repr(value) if isinstance(value, float) else value
