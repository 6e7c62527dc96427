"""Splits of a view by even steps: every row is in exactly one of them, NULL too.

SQLite stands in for the server: it answers the same statements about the same rows, and only the
comparison ``<=> null`` is spelled differently there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest

from extract_jobs.sources.mysql.catalog import CatalogEntry
from extract_jobs.sources.mysql.driver import Connection
from extract_jobs.sources.mysql.splits import cut
from extract_jobs.sources.mysql.types import MysqlType
from extract_jobs.sources.sql.statements import Relation
from extract_jobs.spec.parts import SplitSpec


class Rows:
    """A connection to a table ``v`` of one column."""

    def __init__(self, values: list[int | None]) -> None:
        self.opened = sqlite3.connect(":memory:")
        self.opened.execute("create table v (k)")
        self.opened.executemany("insert into v values (?)", [(value,) for value in values])

    def cursor(self) -> Any:
        return closing(self.opened.cursor())

    def of(self, predicate: str | None) -> list[int | None]:
        condition = (predicate or "true").replace("<=>", "is")
        return [row[0] for row in self.opened.execute(f"select k from v where {condition}")]


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Rows]:
    rows = Rows(request.param)
    yield rows
    rows.opened.close()


@pytest.mark.parametrize(
    "opened",
    [[*range(100), None, None], [-5, 5, None], [None, None], [7, None], []],
    indirect=True,
    ids=["many", "two", "only NULL", "one value", "nothing"],
)
def test_null_is_in_exactly_one_split_of_a_view(opened: Rows) -> None:
    types = (("k", True, MysqlType("int(11)", "int")),)
    found = CatalogEntry(table=None, relation=Relation("v", "query"), types=types, indexes=())
    wanted = SplitSpec(strategy="range", column="k", max_connections=4)
    splits = cut(cast("Connection", opened), found, wanted, interval=None, watermark_column=None)
    read = [value for split in splits for value in opened.of(split.predicate)]
    assert sorted(map(str, read)) == sorted(map(str, opened.of(None)))
