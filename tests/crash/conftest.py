"""One table of forty rows, a driver whose children are killed, and S3 behind a faulty proxy."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest

from infra.local.emulator import Emulator
from tests.support.crash import Driver, bucket_of
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import Server


@pytest.fixture(scope="module")
def database(postgres_table: Server) -> Server:
    """The table of forty rows."""
    return postgres_table


@pytest.fixture(scope="module")
def postgres_table(pg: Server) -> Server:
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
