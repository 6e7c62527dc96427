"""Worker processes, and their driver, killed at storage calls while several splits are staged."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from uuid import uuid4

import psutil
import pytest

from infra.local.emulator import Emulator
from tests.support.crash import ROWS, Driver, Lake, Story
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.postgres import Server
from tests.support.sampling import pairs, sample

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]

SPLIT = {"target_bytes": 8192, "max_connections": 2}


def workers_of(driver: Driver) -> list[psutil.Process]:
    """Return the processes that read splits: children of the one that forks them."""
    servers = psutil.Process(driver.pid).children()
    return [worker for server in servers for worker in server.children()]


def kill_driver(driver: Driver) -> None:
    os.kill(driver.pid, signal.SIGKILL)


def kill_workers(driver: Driver) -> None:
    for worker in workers_of(driver):
        worker.kill()


@pytest.fixture
def kill() -> list[Callable[[Driver], None]]:
    """Who is killed; the test decides."""
    return []


@pytest.fixture
def proxy(
    ministack: Emulator, driver: Driver, kill: list[Callable[[Driver], None]]
) -> Iterator[FaultProxy]:
    with FaultProxy(ministack.endpoint_url, callback=lambda: kill[0](driver)) as proxy:
        yield proxy


CASES: list[tuple[str, Fault]] = [
    ("UploadPart", "kill_before"),
    ("CreateMultipartUpload", "kill_after"),
    ("UploadPart", "kill_after"),
]


@pytest.mark.parametrize(("victim", "case"), pairs([kill_driver, kill_workers], sample(CASES, 2)))
def test_no_row_is_lost_or_repeated(
    driver: Driver, database: Server, ministack: Emulator, proxy: FaultProxy, bucket: str,
    kill: list[Callable[[Driver], None]], victim: Callable[[Driver], None],
    case: tuple[str, Fault],
) -> None:  # fmt: skip
    operation, fault = case
    killed = []

    def kill_and_note(of: Driver) -> None:
        killed.extend(workers_of(of))
        victim(of)

    kill.append(kill_and_note)
    lake = Lake(f"{bucket}/{uuid4().hex[:12]}", ministack.environment())
    story = Story(driver, database, lake, "append", proxy, split=SPLIT, engine="processes")
    proxy.clear()
    proxy.fail(1, fault, only=lambda request: (
        request.operation == operation and "_extract_probe" not in request.path
    ))  # fmt: skip
    ended = story.extract("r", faulty=True)
    assert killed, "no worker process was at work"
    if victim is kill_driver:
        assert ended.exit == -signal.SIGKILL, ended.stderr
        assert lake.read() == []
    else:
        assert ended.exit == 0, f"a lost worker costs one try: {ended.stderr}"
        assert lake.read() == ROWS
        assert lake.staged() == []
        assert lake.report("r")["splits"] > 2
    story.assert_whole(f"{victim.__name__}, {fault} {operation}")
    assert not any(worker.is_running() for worker in killed)
