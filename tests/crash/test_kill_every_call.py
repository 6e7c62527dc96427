"""The driver killed before and after every storage call of an extract, none left out.

Real processes, a real PostgreSQL, S3 on an emulator behind a proxy that knows every request, and
local folders.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from infra.local.emulator import Emulator
from tests.support.crash import Driver, Lake, bucket_of
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.postgres import Server

pytestmark = pytest.mark.crash

ROWS = list(range(1, 41))


@pytest.fixture(scope="module")
def database(pg: Server) -> Server:
    pg.execute(
        "drop table if exists public.t",
        "create table public.t (id int primary key, part text, padding text)",
        "insert into public.t select g, case when g % 3 = 0 then null else 'p' || g % 2 end,"
        " repeat(md5(g::text), 20) from generate_series(1, 40) g",
    )
    return pg


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with Driver(tmp_path_factory.mktemp("crash") / "driver.log") as driver:
        yield driver


@pytest.fixture(scope="module")
def proxy(ministack: Emulator, driver: Driver) -> Iterator[FaultProxy]:
    def kill() -> None:
        os.kill(driver.pid, signal.SIGKILL)

    with FaultProxy(ministack.endpoint_url, callback=kill) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def bucket(ministack: Emulator) -> str:
    return bucket_of(ministack, f"crash-{uuid4().hex[:8]}")


class Story:
    """One table's lake, extracted through the proxy or directly."""

    def __init__(
        self, driver: Driver, server: Server, lake: Lake, write_mode: str, proxy: FaultProxy | None
    ) -> None:
        self.driver, self.server, self.lake, self.proxy = driver, server, lake, proxy
        self.target = {"write_mode": write_mode, "partition_by": ["part"]}

    def environment(self, *, faulty: bool = False) -> dict[str, str]:
        base = {"CRASH_PASSWORD": self.server.password}
        if self.proxy and faulty:
            return base | self.proxy.environment()
        return base | self.lake.environment

    def extract(self, run_id: str, attempt: int = 1, *, faulty: bool = False, **more: object):
        spec = self.lake.spec(self.server, run_id, attempt, target=self.target)
        return self.driver.run(spec, self.environment(faulty=faulty), **more)

    def assert_whole(self, context: str) -> None:
        """The next attempt succeeds, the rows are there once, and recovery leaves nothing."""
        ended = self.extract("r", 2, then_recover=True)
        assert ended.exit == 0, f"{context}: {ended.stderr}"
        assert self.lake.staged() == [], context
        assert self.lake.read() == ROWS, context
        assert self.lake.report("r", 2)["rows"] == len(ROWS), context


def stories(
    driver: Driver, server: Server, base: str, environment: dict[str, str], write_mode: str,
    proxy: FaultProxy | None,
) -> Iterator[Story]:  # fmt: skip
    """Yield fresh tables; where they are overwritten, one that holds a commit already."""
    while True:
        lake = Lake(f"{base}/{uuid4().hex[:12]}", environment)
        story = Story(driver, server, lake, write_mode, proxy)
        if write_mode == "overwrite":
            assert story.extract("first").exit == 0
        yield story


@pytest.mark.parametrize("write_mode", ["append", "overwrite"])
@pytest.mark.parametrize("fault", ["kill_before", "kill_after", "reset_after"])
def test_s3_every_call(
    driver: Driver, database: Server, ministack: Emulator, proxy: FaultProxy, bucket: str,
    write_mode: str, fault: Fault,
) -> None:  # fmt: skip
    fresh = stories(driver, database, bucket, ministack.environment(), write_mode, proxy)
    story = next(fresh)
    proxy.clear()
    ended = story.extract("r", faulty=True)
    assert ended.exit == 0, ended.stderr
    operations = proxy.operations()
    assert {"UploadPart", "CompleteMultipartUpload", "PutObject"} <= set(operations)
    for number, operation in enumerate(operations, 1):
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


@pytest.mark.parametrize("write_mode", ["append", "overwrite"])
@pytest.mark.parametrize("sign", [1, -1])
def test_local_every_call(
    driver: Driver, database: Server, tmp_path: Path, write_mode: str, sign: int
) -> None:
    fresh = stories(driver, database, str(tmp_path), {}, write_mode, None)
    count = tmp_path / "count"
    assert next(fresh).extract("r", kill_call=0, count_to=str(count)).exit == 0
    calls = int(count.read_text())
    assert calls > 10
    for number in range(1, calls + 1):
        context = f"killed {'before' if sign > 0 else 'after'} call {number} of {calls}"
        story = next(fresh)
        ended = story.extract("r", kill_call=number * sign)
        assert ended.exit == -signal.SIGKILL, f"{context}: {ended.stderr}"
        story.assert_whole(context)
