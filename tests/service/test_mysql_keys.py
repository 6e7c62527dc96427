"""Every kind of key that MySQL and MariaDB have: splits hold each row once, and come out even."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.mysql_keys import KEYS, ROWS, columns_of, read_in_splits
from tests.support.mysql_servers import FLAVOURS, MysqlServer, database_of


@pytest.fixture(params=FLAVOURS)
def server(
    mysql_servers: Callable[[str], MysqlServer], request: pytest.FixtureRequest
) -> Iterator[MysqlServer]:
    """A database of its own, on a later MariaDB too, which has another collation by default."""
    with database_of(mysql_servers(request.param)) as found:
        yield found


@pytest.mark.parametrize("kind", KEYS)
def test_splits_are_the_table_and_even(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    key = KEYS[kind]
    if not columns_of(server, key):
        return  # MariaDB has no such key
    read = read_in_splits(server, monkeypatch, key)
    read.check_rows()
    assert sorted(read.ids) == list(range(ROWS))
    if key.whole is not None:
        assert [split.predicate for split in read.splits] == [None]
        assert key.whole in read.splits[0].note
        return
    assert len(read.splits) >= 5
    read.check_even(key.largest)
