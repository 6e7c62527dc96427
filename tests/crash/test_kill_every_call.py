"""The driver killed before and after every storage call of an extract.

A quick run fails a call of each operation. On S3 it does so with PostgreSQL
alone, because the calls do not depend on the database; MySQL and MariaDB are covered with local
folders here, and in test_kill_in_splits.

Real processes, a real PostgreSQL, MySQL and MariaDB, S3 on an emulator behind a proxy that knows
every request, and local folders.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infra.local.emulator import Emulator
from tests.support.crash import ROWS, Database, Driver, Lake, Story, killable
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mysql_servers import SERVERS, MysqlServer, database_of
from tests.support.sampling import EXHAUSTIVE, pairs, sample

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """The table of forty rows, in each kind of server."""
    if request.param == "postgres":
        yield request.getfixturevalue("postgres_table")
        return
    servers: Callable[[str], MysqlServer] = request.getfixturevalue("mysql_servers")
    with database_of(servers(request.param)) as server:
        server.execute("create table t (id int primary key, part text, padding text)")
        server.insert(
            "t", [(i, None if i % 3 == 0 else f"p{i % 2}", "0123456789abcdef" * 40) for i in ROWS]
        )
        yield server


def stories(
    driver: Driver, server: Database, base: str, environment: dict[str, str], write_mode: str,
    proxy: FaultProxy | None,
) -> Iterator[Story]:  # fmt: skip
    """Yield fresh tables; where they are overwritten, one that holds a commit already.

    That one is extracted once, and then put back as it was: in a bucket, where it can be.
    """
    committed: tuple[Lake, dict[str, bytes]] | None = None
    while True:
        if committed:
            lake, contents = committed
            lake.restore(contents)
            yield Story(driver, server, lake, write_mode, proxy)
            continue
        lake = Lake(f"{base}/{uuid4().hex[:12]}", environment)
        story = Story(driver, server, lake, write_mode, proxy)
        if write_mode == "overwrite":
            assert story.extract("first").exit == 0
            committed = (lake, lake.contents()) if proxy else None
        yield story


# What a process leaves that is killed before a call is what it leaves killed after the call before
# it. So each way of writing is killed in one of the two ways, at every call.
FAULTS = [("kill_before", "append"), ("kill_after", "overwrite"), ("reset_after", "overwrite")]
SIGNS = [(-1, "append"), (1, "overwrite")]


def on_postgres(cases: list[tuple[Any, str]]) -> list[tuple[str, Any, str]]:
    return [("postgres", *case) for case in cases]


def on_other_servers(cases: list[tuple[Any, str]]) -> list[tuple[str, Any, str]]:
    """Return every case on MySQL and MariaDB, or in a quick run on one of them."""
    return [(server, *case) for server, case in pairs(list(SERVERS), cases)]


@pytest.mark.parametrize(
    ("database", "fault", "write_mode"),
    on_postgres(FAULTS) + (on_other_servers(FAULTS) if EXHAUSTIVE else []),
    indirect=["database"],
)
def test_s3_every_call(
    driver: Driver, database: Database, ministack: Emulator, proxy: FaultProxy, bucket: str,
    write_mode: str, fault: Fault,
) -> None:  # fmt: skip
    """Takes over ten seconds: a process is killed at a call of every operation."""
    fresh = stories(driver, database, bucket, ministack.environment(), write_mode, proxy)
    story = next(fresh)
    proxy.clear()
    ended = story.extract("r", faulty=True)
    assert ended.exit == 0, ended.stderr
    operations = proxy.operations()
    assert {"UploadPart", "CompleteMultipartUpload", "PutObject"} <= set(operations)
    calls = enumerate(operations, 1) if fault == "reset_after" else killable(operations)
    chosen = sample(sample(calls, 1, by=lambda call: call[1]), 5)
    for number, operation in chosen:
        context = f"{fault} at call {number} of {len(operations)}, {operation}"
        story = next(fresh)
        proxy.clear()
        proxy.fail(number, fault)
        ended = story.extract("r", faulty=True)
        assert proxy.requests[number - 1].fault == fault, context
        if fault == "reset_after":
            assert ended.exit == 0, f"{context}: a lost response is no failure: {ended.stderr}"
            assert story.lake.read() == ROWS, context
        else:
            assert ended.exit == -signal.SIGKILL, context
        story.assert_whole(context)


@pytest.mark.parametrize(
    ("database", "sign", "write_mode"),
    on_postgres(SIGNS) + on_other_servers(SIGNS),
    indirect=["database"],
)
def test_local_every_call(
    driver: Driver, database: Database, tmp_path: Path, write_mode: str, sign: int
) -> None:
    fresh = stories(driver, database, str(tmp_path), {}, write_mode, None)
    count = tmp_path / "count"
    assert next(fresh).extract("r", kill_call=0, count_to=str(count)).exit == 0
    calls = int(count.read_text())
    assert calls > 10
    for number in sample(range(1, calls + 1), 4):
        context = f"killed {'before' if sign > 0 else 'after'} call {number} of {calls}"
        story = next(fresh)
        ended = story.extract("r", kill_call=number * sign)
        assert ended.exit == -signal.SIGKILL, f"{context}: {ended.stderr}"
        story.assert_whole(context)
