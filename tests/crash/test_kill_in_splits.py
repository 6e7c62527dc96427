"""The driver killed while worker processes read the splits of one MySQL table.

They read in sessions that the driver opened for one moment and lends to them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.crash import ROWS, Driver, Lake, Story
from tests.support.mysql_servers import SERVERS, MysqlServer, database_of
from tests.support.sampling import sample

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]

SLOW = "sha2(repeat(padding, 1000), 512) <> ''"
"""True of all rows, and takes the server about 20 ms for each."""


@pytest.fixture(scope="module", params=sample(SERVERS, 1))
def database(request: pytest.FixtureRequest) -> Iterator[MysqlServer]:
    """The table of forty rows, a page for every two."""
    servers: Callable[[str], MysqlServer] = request.getfixturevalue("mysql_servers")
    with database_of(servers(request.param)) as server:
        server.execute("create table t (id int primary key, part text, padding varchar(7000))")
        server.insert("t", [(i, None if i % 3 == 0 else f"p{i % 2}", "0" * 6500) for i in ROWS])
        server.execute("analyze table t")
        yield server


def wait_for_splits(server: MysqlServer, count: int) -> None:
    """Wait until so many different splits have been seen under way on the server."""
    seen: set[str] = set()
    deadline = time.monotonic() + 120
    while len(seen) < count:
        assert time.monotonic() < deadline, seen
        found = server.rows(
            "select info from information_schema.processlist"
            f" where db = '{server.database}' and info like '%repeat(padding%'"
            " and info not like '%processlist%' and info not like '%count(*)%'"
            " and info not like 'explain%'"
        )
        seen.update(text for [text] in found)
        time.sleep(0.01)


def test_a_driver_killed_amid_several_splits_loses_and_repeats_no_row(
    driver: Driver, database: MysqlServer, tmp_path: Path
) -> None:
    def fresh() -> Story:
        lake = Lake(str(tmp_path / uuid4().hex[:12]))
        split = {"target_bytes": 32768, "max_connections": 3}
        return Story(driver, database, lake, "append", None, split=split, where=SLOW)

    story = fresh()
    ended = story.extract("r")
    assert ended.exit == 0, ended.stderr
    assert story.lake.read() == ROWS
    report = story.lake.report("r")
    assert report["splits"] >= 5
    assert report["read_from"] == {"one_snapshot": True}
    for number in sample(range(1, report["splits"] // 2 + 1), 2):
        context = f"killed when {number} of {report['splits']} splits had begun"
        story = fresh()
        spec = story.lake.spec(database, "r", 1, target=story.target, **story.more)
        driver.start(spec, story.environment())
        wait_for_splits(database, number)
        os.kill(driver.pid, signal.SIGKILL)
        ended = driver.end()
        assert ended.exit == -signal.SIGKILL, f"{context}: {ended.stderr}"
        assert story.lake.read() == [], context
        story.assert_whole(context)
